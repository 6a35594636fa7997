"""The pinned truss package in an environment of its own, made once per machine and lock.

It runs our truss worker, the control server of development deployments and `kingpost truss`.
Not for the environments of models: see `environment`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import uv

from kingpost.errors import KingpostError

_LOCK = Path(__file__).with_name("builder.txt")
_LAST_LINES = 15


class TrussEnvironmentError(KingpostError):
    """The environment could not be made; the message has the installer's last lines."""

    code = "TRUSS_ENVIRONMENT"
    http_status = 503


@dataclass(frozen=True)
class TrussEnvironment:
    root: Path

    @property
    def python(self) -> Path:
        return self.root / "bin" / "python"

    @property
    def truss(self) -> Path:
        """The unmodified `truss` command."""
        return self.root / "bin" / "truss"


def cache_folder() -> Path:
    """`KINGPOST_CACHE_DIR`, else `kingpost` in the user's cache folder."""
    if named := os.environ.get("KINGPOST_CACHE_DIR"):
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "kingpost"


def expected() -> TrussEnvironment:
    """Where the environment of this lock and this interpreter is, made or not."""
    text = _LOCK.read_bytes() + platform.python_version().encode() + sys.base_prefix.encode()
    return TrussEnvironment(cache_folder() / f"truss-{hashlib.sha256(text).hexdigest()[:16]}")


def ensure() -> TrussEnvironment:
    """Make the environment unless it is there. Blocks; processes that race wait for each other."""
    environment = expected()
    if environment.python.exists():
        return environment
    environment.root.parent.mkdir(parents=True, exist_ok=True)
    with environment.root.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not environment.python.exists():
            _make(environment.root)
    return environment


def _make(root: Path) -> None:
    unfinished = root.with_suffix(".new")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.rmtree(root, ignore_errors=True)
    tool = uv.find_uv_bin()
    try:
        _run(tool, "venv", "--quiet", "--relocatable", "--python", sys.executable, unfinished)
        install = (tool, "pip", "install", "--quiet", "--require-hashes", "--compile-bytecode")
        _run(*install, "--python", unfinished / "bin" / "python", "-r", _LOCK)
        unfinished.rename(root)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _run(*argv: str | Path) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        said = "\n".join(done.stderr.strip().splitlines()[-_LAST_LINES:])
        raise TrussEnvironmentError(
            "The pinned truss package could not be installed. Check that this machine reaches a "
            f"Python package index (UV_DEFAULT_INDEX names another one), then try again.\n{said}"
        )
