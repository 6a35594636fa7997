"""From what is to run and where to bubblewrap's options. Pure: looks nothing up, makes nothing."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from kingpost.engine.base import Bind

HOME: Final = "/home/app"
SECRETS: Final = "/secrets"
DYNAMIC: Final = "/etc/b10_dynamic_config"
LAUNCH: Final = "/run/kingpost/launch"
DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_SYSTEM_LINKS: Final = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_ETC: Final = (
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "ssl/certs",
    "ssl/openssl.cnf",
    "ca-certificates",
    "pki",
    "crypto-policies",
    "localtime",
    "timezone",
    "alternatives",
    "fonts",
    "mime.types",
    "protocols",
    "services",
    "OpenCL",
    "vulkan",
)
_DEVICES_OF_GPUS: Final = (
    "/dev/nvidiactl",
    "/dev/nvidia-uvm",
    "/dev/nvidia-uvm-tools",
    "/dev/nvidia-modeset",
    "/dev/nvidia-caps",
)
_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RESERVED: Final = ("/", "/proc", "/dev", "/usr", "/etc")


@dataclass(frozen=True)
class Place:
    """Folders of the host that a sandbox is made of.

    `etc` holds the generated files of `generated_etc`, `launch` the script of `launch_script`.
    `secrets` and `dynamic` are absent for commands. `links` tells where `/bin` and its like lead
    on this host (None: it is a folder of its own).
    """

    name: str
    etc: Path
    launch: Path
    home: Path
    tmp: Path
    links: Mapping[str, str | None]
    secrets: Path | None = None
    dynamic: Path | None = None


def options(
    place: Place, binds: Sequence[Bind], *, gpus: Sequence[str] = (), as_root: bool = True
) -> list[str]:
    """What bubblewrap gets before the command. A later option may cover an earlier one."""
    return [
        *("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--hostname", place.name),
        *("--die-with-parent", "--new-session"),
        *(_root_privileges() if as_root else ()),
        *_system(place.links),
        *("--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--tmpfs", "/dev/shm"),  # noqa: S108
        *_devices(gpus),
        *_etc(place.etc),
        *("--dir", "/run", "--dir", "/var", "--symlink", "/tmp", "/var/tmp"),  # noqa: S108
        *_parents(HOME),
        *("--bind", str(place.tmp), "/tmp", "--bind", str(place.home), HOME),  # noqa: S108
        *_parents(LAUNCH),
        *("--ro-bind", str(place.launch), LAUNCH),
        *(("--ro-bind", str(place.secrets), SECRETS) if place.secrets else ()),
        *(("--ro-bind", str(place.dynamic), DYNAMIC) if place.dynamic else ()),
        *_binds(binds),
    ]


def unprivileged(setpriv: str, uid: int) -> list[str]:
    """The command, inside, that gives up root for good and then runs the launch script."""
    return [
        *(setpriv, f"--reuid={uid}", f"--regid={uid}", "--clear-groups"),
        *("--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--"),
        *("/bin/sh", LAUNCH),
    ]


def launch_script(argv: Sequence[str], env: Mapping[str, str], cwd: str) -> str:
    """A shell script that becomes the application.

    The environment is set here, after root was given up: set before, a tenant's `LD_PRELOAD`
    would run as root; and on a command line every user of the host could read it.
    """
    plain = {name: value for name, value in env.items() if _IDENTIFIER.fullmatch(name)}
    odd = [f"{name}={value}" for name, value in env.items() if name not in plain]
    command = [*(["/usr/bin/env", *odd] if odd else []), *argv]
    return "\n".join(
        [
            f"cd -- {shlex.quote(cwd)} || exit 126",
            "unset OLDPWD",
            *(f"export {name}={shlex.quote(value)}" for name, value in plain.items()),
            f"exec {shlex.join(command)}",
            "",
        ]
    )


def environment(env: Mapping[str, str], *, gpus: Sequence[str] = ()) -> dict[str, str]:
    """The application's environment: the defaults of the sandbox under what was asked for."""
    return {
        "PATH": DEFAULT_PATH,
        "HOME": HOME,
        "USER": "app",
        "LOGNAME": "app",
        "LANG": "C.UTF-8",
        "TMPDIR": "/tmp",  # noqa: S108
        **env,
        "CUDA_VISIBLE_DEVICES": ",".join(gpus),
        "NVIDIA_VISIBLE_DEVICES": ",".join(gpus) or "void",
    }


def generated_etc(uid: int, name: str, resolvers: Sequence[str]) -> dict[str, str]:
    """File name to content of the files below /etc that differ between sandboxes."""
    return {
        "passwd": f"root:x:0:0:root:/root:/bin/false\napp:x:{uid}:{uid}:app:{HOME}:/bin/sh\n",
        "group": f"root:x:0:\napp:x:{uid}:\n",
        "hosts": f"127.0.0.1 localhost {name}\n::1 localhost\n",
        "hostname": f"{name}\n",
        "resolv.conf": "".join(f"nameserver {address}\n" for address in resolvers),
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    }


def problem_of_bind(target: str) -> str | None:
    """Why something can't be shown at this target; None when it can."""
    path = PurePosixPath(target)
    if not path.is_absolute() or ".." in path.parts:
        return f"the target {target!r} must be an absolute path without '..'"
    if str(path) in _RESERVED:
        return f"{target} belongs to the sandbox itself; choose another target"
    return None


def _root_privileges() -> list[str]:
    kept = ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")
    return ["--cap-drop", "ALL", *(word for cap in kept for word in ("--cap-add", cap))]


def _system(links: Mapping[str, str | None]) -> list[str]:
    words = ["--ro-bind", "/usr", "/usr"]
    for name in _SYSTEM_LINKS:
        if name in links:
            leads = links[name]
            words += (
                ["--symlink", leads, f"/{name}"] if leads else ["--ro-bind", f"/{name}", f"/{name}"]
            )
    # What CPUs there are: numeric libraries choose their threads by it.
    for part in ("cpu", "node"):
        path = f"/sys/devices/system/{part}"
        words += [*_parents(path), "--ro-bind-try", path, path]
    return words


def _etc(folder: Path) -> list[str]:
    words: list[str] = []
    for name in _ETC:
        words += [*_parents(f"/etc/{name}"), "--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    for name in generated_etc(0, "", ()):
        words += ["--ro-bind", str(folder / name), f"/etc/{name}"]
    return words


def _devices(gpus: Sequence[str]) -> list[str]:
    """Devices by index; a UUID can't be told from its number here, so it gets every device."""
    if not gpus:
        return []
    indices = [gpu for gpu in gpus if gpu.isdigit()]
    named = [f"/dev/nvidia{gpu}" for gpu in (indices if len(indices) == len(gpus) else range(16))]
    words = ["--ro-bind-try", "/sys", "/sys"]
    for path in (*_DEVICES_OF_GPUS, *named):
        words += ["--dev-bind-try", path, path]
    return words


def _binds(binds: Sequence[Bind]) -> list[str]:
    words: list[str] = []
    for bind in sorted(binds, key=lambda bind: len(PurePosixPath(bind.target).parts)):
        words += _parents(bind.target)
        words += ["--bind" if bind.writable else "--ro-bind", bind.source, bind.target]
    return words


def _parents(target: str) -> list[str]:
    """Bubblewrap makes missing parents with mode 700 where the source is private; so make them."""
    words: list[str] = []
    for parent in reversed(PurePosixPath(target).parents[:-1]):
        words += ["--perms", "0755", "--dir", str(parent)]
    return words
