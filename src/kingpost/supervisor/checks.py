"""Looks at this machine before a platform runs on it: what is there, what is missing, what to do.

Nothing is changed: what needs to be tried is tried in a network namespace of its own.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from kingpost import contract
from kingpost.errors import KingpostError
from kingpost.settings import SandboxMode, Settings

LEAST_FREE_BYTES: Final = 1 * contract.GIB
ENOUGH_FREE_BYTES: Final = 10 * contract.GIB
"""A Truss with PyTorch takes about 6 GiB of environment."""

_TRY_S: Final = 30.0
_TRY_SANDBOX: Final = """\
import sys
from kingpost.engine.machine import missing_for_sandbox
from kingpost.engine.network import DEFAULT_RANGE
missing = missing_for_sandbox(DEFAULT_RANGE)
sys.stdout.write(missing or "")
"""


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    """Without it a platform with these settings does not run."""


@dataclass(frozen=True)
class Check:
    """One finding. `fix` says what to do, and is None where nothing needs to be done."""

    name: str
    level: Level
    found: str
    fix: str | None = None


def examine(settings: Settings) -> list[Check]:
    """All checks, in the order in which a platform meets what they look at. Takes a second."""
    checks: list[Callable[[Settings], Check]] = [
        python,
        uv_tool,
        data_folder,
        disk,
        port,
        sandbox,
        memory_limits,
        api_localhost,
        gpus,
        truss_package,
    ]
    return [check(settings) for check in checks]


def python(_: Settings) -> Check:
    """The interpreters that Trusses can ask for by `python_version`; ours is one of them."""
    from kingpost.build import interpreters

    versions = list(dict.fromkeys(found.short for found in interpreters.find()))
    return Check("python", Level.OK, f"{platform.python_version()}; for Trusses {_list(versions)}")


def uv_tool(_: Settings) -> Check:
    import uv

    try:
        program = uv.find_uv_bin()
        said = _run(program, "--version")
    except (FileNotFoundError, OSError, subprocess.SubprocessError):
        return Check("uv", Level.FAILED, "uv does not run", "Reinstall it: pip install --force uv")
    return Check("uv", Level.OK, said)


def data_folder(settings: Settings) -> Check:
    root = settings.data.root
    try:
        status = root.stat()
    except FileNotFoundError:
        return _judge_missing_folder(root)
    except OSError as error:
        return Check("data folder", Level.FAILED, f"{root}: {error.strerror}", _choose_folder())
    return judge_folder(root, status.st_mode, status.st_uid, os.geteuid())


def judge_folder(root: Path, mode: int, owner: int, user: int) -> Check:
    name = "data folder"
    if not stat.S_ISDIR(mode):
        return Check(name, Level.FAILED, f"{root} is no folder", _choose_folder())
    if owner != user:
        return Check(
            name,
            Level.FAILED,
            f"{root} belongs to user {owner}, and this is user {user}",
            "Run as its owner, or choose another: kingpost up --data-dir DIR",
        )
    if mode & 0o077:
        found = f"{root} can be entered by others (mode {stat.S_IMODE(mode):o}); it holds keys"
        return Check(name, Level.WARNING, found, f"chmod 700 {root}")
    return Check(name, Level.OK, str(root))


def disk(settings: Settings) -> Check:
    return judge_disk(shutil.disk_usage(_nearest(settings.data.root)).free)


def judge_disk(free_bytes: int) -> Check:
    found = f"{free_bytes / contract.GIB:.1f} GiB free for data"
    fix = "Free some, or put the data elsewhere: kingpost up --data-dir DIR"
    if free_bytes < LEAST_FREE_BYTES:
        return Check("disk", Level.FAILED, found, fix)
    if free_bytes < ENOUGH_FREE_BYTES:
        return Check("disk", Level.WARNING, found, fix)
    return Check("disk", Level.OK, found)


def port(settings: Settings) -> Check:
    from kingpost.supervisor.listener import bind

    try:
        bind(settings.host, settings.port).close()
    except KingpostError as error:
        if _is_kingpost(settings):
            return Check("port", Level.OK, f"Kingpost runs on {settings.port} already")
        found, _, fix = error.message.partition(". ")
        return Check("port", Level.FAILED, found, fix)
    return Check("port", Level.OK, f"{settings.port} is free")


def sandbox(settings: Settings) -> Check:
    """Runs bubblewrap, makes namespaces and loads the rules that keep replicas apart."""
    if settings.sandbox is SandboxMode.OFF:
        return Check("sandbox", Level.WARNING, "switched off: replicas run as plain processes")
    missing = _missing_for_sandbox()
    if missing is None:
        return Check("sandbox", Level.OK, _works())
    required = settings.sandbox is SandboxMode.REQUIRE
    return Check(
        "sandbox",
        Level.FAILED if required else Level.WARNING,
        "replicas can't be sandboxed" + ("" if required else " and run as plain processes"),
        missing[:1].upper() + missing[1:],
    )


def memory_limits(_: Settings) -> Check:
    from kingpost.engine.limits import find_groups

    if find_groups(f"doctor-{os.getpid()}") is not None:
        return Check("memory limits", Level.OK, "control groups work")
    return Check(
        "memory limits",
        Level.WARNING,
        "no control group can be made, so memory is watched instead of limited",
        "Run as root, or delegate the controllers memory, cpu and pids.",
    )


def api_localhost(settings: Settings) -> Check:
    """The truss CLI sends REST calls there when it is run by itself."""
    try:
        found = socket.getaddrinfo("api.localhost", settings.port, type=socket.SOCK_STREAM)
    except OSError:
        found = []
    addresses = {str(entry[4][0]) for entry in found}
    if addresses and all(a == "::1" or a.startswith("127.") for a in addresses):
        return Check("api.localhost", Level.OK, "leads to this machine")
    return Check(
        "api.localhost",
        Level.WARNING,
        f"leads to {', '.join(sorted(addresses))}" if addresses else "is not resolved",
        "Only the truss CLI run by itself needs it. Use `kingpost truss ...`, or: "
        "echo '127.0.0.1 api.localhost' | sudo tee -a /etc/hosts",
    )


def gpus(settings: Settings) -> Check:
    from kingpost.control.inventory import look

    found = look(settings).gpus
    if found:
        return Check("gpus", Level.OK, ", ".join(f"{g.name} ({g.memory_mib} MiB)" for g in found))
    if shutil.which("nvidia-smi"):
        return Check(
            "gpus", Level.WARNING, "nvidia-smi finds none", "See what `nvidia-smi` says by itself."
        )
    return Check(
        "gpus", Level.OK, "none; a Truss that asks for one can run with --emulate-accelerators"
    )


def truss_package(_: Settings) -> Check:
    from kingpost.build import truss_env

    if truss_env.expected().truss.exists():
        return Check("truss", Level.OK, "the pinned truss package is installed")
    return Check(
        "truss",
        Level.WARNING,
        "the pinned truss package is not installed yet; the first push installs it",
        "To install it now: kingpost truss --version",
    )


def _works() -> str:
    if os.geteuid() == 0:
        return "bubblewrap, namespaces and nftables work"
    return "bubblewrap and pasta work, without root; root gives each team a user of its own"


def _missing_for_sandbox() -> str | None:
    command = [sys.executable, "-c", _TRY_SANDBOX]
    if os.geteuid() == 0:
        command = ["unshare", "--net", "--mount", *command]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=_TRY_S,
        )
    except FileNotFoundError:
        return "unshare is not installed: apt-get install util-linux"
    except subprocess.TimeoutExpired:
        return "trying it took too long; look at what else runs here."
    if done.returncode != 0:
        line = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return f"this machine refuses namespaces ({line}); a container needs --privileged."
    return done.stdout or None


def _judge_missing_folder(root: Path) -> Check:
    nearest = _nearest(root)
    if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
        return Check("data folder", Level.OK, f"{root} will be made")
    found = f"{root} can't be made below {nearest}"
    return Check("data folder", Level.FAILED, found, _choose_folder())


def _nearest(path: Path) -> Path:
    return next(p for p in (path, *path.parents) if p.exists())


def _list(words: list[str]) -> str:
    return ", ".join(words) or "none"


def _choose_folder() -> str:
    return "Choose another: kingpost up --data-dir DIR"


def _is_kingpost(settings: Settings) -> bool:
    import asyncio

    from kingpost.supervisor.health import ask_health

    return asyncio.run(ask_health(settings)) is not None


def _run(*argv: str) -> str:
    return subprocess.run(
        argv, capture_output=True, text=True, check=True, timeout=_TRY_S
    ).stdout.strip()
