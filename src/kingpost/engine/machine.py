"""What this machine can do for a sandbox, found by trying it, and what to install when it can't."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network
from pathlib import Path

from kingpost.engine import network, rootless
from kingpost.engine.limits import Groups, find_groups
from kingpost.engine.namespaces import in_namespaces
from kingpost.errors import EngineError
from kingpost.messages import Notice
from kingpost.settings import SandboxMode

_PROGRAMS = (("bwrap", "bubblewrap"), ("setpriv", "util-linux"), ("nft", "nftables"))
_ADMIN_PATH = "/usr/sbin:/sbin"


class Isolation(StrEnum):
    ROOT = "root"
    """Bubblewrap started as root, a user per team, a network namespace with a veth pair."""
    ROOTLESS = "rootless"
    """Bubblewrap in a user and network namespace of pasta's, all as the platform's user."""
    PLAIN = "plain"
    """Processes like any other of this user."""


@dataclass(frozen=True)
class Machine:
    isolation: Isolation
    groups: Groups | None
    resolvers: tuple[str, ...]
    links: dict[str, str | None]
    notices: tuple[Notice, ...]


def look(mode: SandboxMode, addresses: IPv4Network, instance: str) -> Machine:
    """Try what a sandbox needs. Blocks. `EngineError` names the fix when `require` can't be met."""
    notices = []
    missing = None if mode is SandboxMode.OFF else missing_for_sandbox(addresses)
    isolation = Isolation.ROOT if os.geteuid() == 0 else Isolation.ROOTLESS
    if mode is SandboxMode.OFF:
        isolation = Isolation.PLAIN
        notices.append(
            Notice("sandbox_off", "Replicas run as plain processes, because --sandbox is off.")
        )
    elif missing is not None:
        if mode is SandboxMode.REQUIRE:
            raise EngineError(f"replicas can't be sandboxed here: {missing}")
        isolation = Isolation.PLAIN
        notices.append(
            Notice(
                "sandbox_missing",
                "Replicas run as plain processes: they can read this user's files and reach each "
                f"other. To sandbox them: {missing}",
            )
        )
    elif isolation is Isolation.ROOTLESS:
        notices.append(
            Notice(
                "sandbox_rootless",
                "Replicas are sandboxed without root: all have this user's id, and every user of "
                "this machine reaches their ports on its loopback. Run as root to change both.",
            )
        )
    groups = find_groups(instance)
    if groups is None:
        notices.append(
            Notice(
                "memory_limits_watched",
                "No control group could be made, so memory is watched twice a second instead of "
                "being held by the kernel. Run as root, or delegate memory, cpu and pids.",
            )
        )
    resolvers = tuple(network.resolvers())
    if isolation is not Isolation.PLAIN and not resolvers:
        notices.append(
            Notice(
                "resolver_missing",
                "Replicas can't resolve names: this host has only a resolver on its loopback. "
                "Name one that they can reach in /etc/resolv.conf.",
            )
        )
    blocking = network.blocking_chains() if isolation is Isolation.ROOT else []
    if blocking:
        notices.append(
            Notice(
                "egress_blocked",
                f"Another firewall drops what is forwarded (chain {', '.join(blocking)}), so "
                f"replicas reach nothing outside. Let it accept input interfaces "
                f"{network.PREFIX}*, and established connections to them.",
            )
        )
    return Machine(isolation, groups, resolvers, system_links(), tuple(notices))


def missing_for_sandbox(addresses: IPv4Network) -> str | None:
    """What to do before replicas can be sandboxed here; None when all is there."""
    rooted = os.geteuid() == 0
    for program, package in _PROGRAMS if rooted else rootless.PROGRAMS:
        if find_program(program) is None:
            return f"{program} is not installed; install it: `apt-get install {package}`."
    attempts = (_try_bubblewrap, _try_namespace, lambda: network.ensure_rules(addresses))
    for attempt in attempts if rooted else (_try_rootless,):
        problem = _problem(attempt)
        if problem is not None:
            return problem
    return None


def find_program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{_ADMIN_PATH}")


def system_links() -> dict[str, str | None]:
    """Where /bin, /lib and their like lead on this host; None for a folder of its own."""
    found: dict[str, str | None] = {}
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        path = Path("/") / name
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_dir():
            found[name] = None
    return found


def _problem(attempt: Callable[[], None]) -> str | None:
    try:
        attempt()
    except EngineError as error:
        return error.message
    except OSError as error:
        return f"this machine refuses it ({error.strerror}); a container needs --privileged."
    return None


def _try_bubblewrap() -> None:
    words = ["bwrap", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--die-with-parent"]
    words += ["--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--", "true"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        line = (done.stderr.strip().splitlines() or ["no message"])[0]
        raise EngineError(
            f"bubblewrap does not work here ({line}); in a container run it with --privileged."
        )


def _try_rootless() -> None:
    rootless.try_it(find_program("bwrap") or "bwrap", find_program("pasta") or "pasta")


def _try_namespace() -> None:
    in_namespaces(lambda _: None)
