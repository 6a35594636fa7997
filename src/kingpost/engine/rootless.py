"""A sandbox made without root: pasta's user and network namespace around bubblewrap's.

Pasta passes connections from a port of the host's loopback to the replica, and what the replica
sends on to the outside. Only words are made here, but for a try; others run them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, collapse_addresses
from pathlib import Path
from typing import Final

from kingpost.engine import plain, sandbox
from kingpost.engine.namespaces import Mount, overlay_options
from kingpost.errors import EngineError

LOOPBACK: Final = "127.0.0.1"
PROGRAMS: Final = (("bwrap", "bubblewrap"), ("pasta", "passt"))

_INSIDE: Final = "import sys; sys.path.append({folder!r}); import inside; inside.main()"
_LINK_LOCAL: Final = IPv4Network("169.254.0.0/16")
_LOOPBACKS: Final = IPv4Network("127.0.0.0/8")
_TRIE: Final = Path("/proc/net/fib_trie")
_LOCAL: Final = re.compile(r"\|-- (\S+)\n\s+/32 host LOCAL")
_TRY_S: Final = 20.0


def outer(
    pasta: str,
    *,
    outside: bool,
    closed: Iterable[IPv4Network],
    mounts: Sequence[Mount] = (),
    ports: tuple[int, int] | None = None,
) -> list[str]:
    """What comes before bubblewrap. `ports` are the one on the host's loopback and the one inside.

    Without `outside` its interface has no address. `closed` are networks that it can't reach.
    """
    words = [pasta, "--quiet", "--foreground", "--ipv4-only", "--no-map-gw"]
    words += ["-u", "none", "-T", "none", "-U", "none"]
    words += ["-t", f"{LOOPBACK}/{ports[0]}:{ports[1]}" if ports else "none"]
    if outside:
        words.append("--config-net")
    code = _INSIDE.format(folder=str(Path(__file__).parent))
    words += ["--", sys.executable, "-I", "-S", "-c", code]
    for network in closed if outside else ():
        words += ["unreachable", str(network)]
    for mount in mounts:
        words += ["overlay", overlay_options(mount) + ",userxattr", mount.work, mount.at]
    return [*words, "--"]


def options(uid: int, gid: int) -> list[str]:
    """Bubblewrap's, in addition: a user namespace in which the platform's user has its own id."""
    return [
        *("--unshare-user", "--uid", str(uid), "--gid", str(gid), "--cap-drop", "ALL"),
        *("--unsetenv", plain.MARK),
    ]


def inside_command(bwrap: str) -> list[str]:
    return [bwrap, "--", "/bin/sh", sandbox.LAUNCH]


def closed(addresses: IPv4Network) -> list[IPv4Network]:
    """What a replica must not reach: the host's addresses, other replicas, link-local ones."""
    ours = [IPv4Network(address) for address in local_addresses(_TRIE.read_text())]
    return list(collapse_addresses([*ours, addresses, _LINK_LOCAL]))


def local_addresses(trie: str) -> list[IPv4Address]:
    """The machine's own addresses but loopback, from the text of /proc/net/fib_trie."""
    found = {IPv4Address(text) for text in _LOCAL.findall(trie)}
    return sorted(address for address in found if address not in _LOOPBACKS)


def try_it(bwrap: str, pasta: str) -> None:
    """Make such a sandbox and end it. Blocks; `EngineError` says what this machine refuses."""
    words = outer(pasta, outside=True, closed=[_LINK_LOCAL])
    words += [bwrap, *options(os.geteuid(), os.getegid()), "--unshare-pid", "--unshare-ipc"]
    words += ["--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--", "/bin/true"]
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, check=False, timeout=_TRY_S, cwd="/"
        )
    except subprocess.TimeoutExpired as error:
        raise EngineError("trying it took too long; look at what else runs here.") from error
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if "to syslog" not in line]
        raise EngineError(
            f"this machine refuses a sandbox without root ({(lines or ['no message'])[0]}). "
            "Allow unprivileged user namespaces, or start the platform as root: "
            "`sudo kingpost up`."
        )
