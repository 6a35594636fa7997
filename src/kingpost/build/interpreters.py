"""Finds the Python interpreters of this machine and chooses one for a model. Installs none."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from kingpost.errors import BuildFailedError

_PROBE = (
    "import json,sys,sysconfig;print(json.dumps([list(sys.version_info[:3]),"
    "sys.implementation.name,sys.base_prefix,sysconfig.get_config_var('LIBDIR') or '']))"
)
_PROBE_TIMEOUT_S = 20.0
_OLDEST = (3, 9)
_SYSTEM = ("/usr/bin", "/usr/local/bin")


@dataclass(frozen=True)
class Interpreter:
    """`executable` is the real file; `prefix` the folder that holds it and its library."""

    version: tuple[int, int, int]
    implementation: str
    executable: Path
    prefix: Path

    @property
    def short(self) -> str:
        return f"{self.version[0]}.{self.version[1]}"

    @property
    def full(self) -> str:
        return ".".join(str(part) for part in self.version)


@dataclass(frozen=True)
class Choice:
    interpreter: Interpreter
    warning: str | None = None


def places() -> list[tuple[str, list[Path]]]:
    """Where to look, each as words for people and folders."""
    home = Path.home()
    pyenv = Path(os.environ.get("PYENV_ROOT") or home / ".pyenv") / "versions"
    managed = Path(
        os.environ.get("UV_PYTHON_INSTALL_DIR")
        or Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share") / "uv" / "python"
    )
    on_path = [Path(part) for part in os.environ.get("PATH", "").split(os.pathsep) if part]
    return [
        ("the PATH", [folder for folder in on_path if folder.name != "shims"]),
        ("pyenv", sorted(pyenv.glob("*/bin"))),
        ("uv's own", sorted(managed.glob("*/bin"))),
        ("the system", [Path(folder) for folder in _SYSTEM]),
    ]


def find() -> tuple[Interpreter, ...]:
    """All that run, newest first, each real file once. Blocks for some 50 ms."""
    with ThreadPoolExecutor(max_workers=4) as pool:
        probed = pool.map(probe, _candidates(folders for _, folders in places()))
    unique: dict[Path, Interpreter] = {}
    for interpreter in probed:
        if interpreter is not None and interpreter.version[:2] >= _OLDEST:
            unique.setdefault(interpreter.executable, interpreter)
    return tuple(sorted(unique.values(), key=lambda one: one.version, reverse=True))


def probe(executable: Path) -> Interpreter | None:
    """Ask an executable what it is; None when it does not answer as a Python."""
    try:
        done = subprocess.run(
            [executable, "-I", "-S", "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=_PROBE_TIMEOUT_S,
            check=True,
            env={"PATH": os.defpath, "LANG": "C.UTF-8"},
        )
        version, implementation, prefix, _ = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return Interpreter(
        (version[0], version[1], version[2]), implementation, executable.resolve(), Path(prefix)
    )


def choose(found: Iterable[Interpreter], wanted: tuple[int, int], *, explicit: bool) -> Choice:
    """The newest of the wanted version; when that was only truss's default, else the nearest.

    The nearest is the newest older one, or the oldest newer one. Raises `BuildFailedError`.
    """
    cpythons = [one for one in found if one.implementation == "cpython"]
    exact = [one for one in cpythons if one.version[:2] == wanted]
    if exact:
        return Choice(max(exact, key=lambda one: one.version))
    name = f"{wanted[0]}.{wanted[1]}"
    have = ", ".join(sorted({one.short for one in cpythons}, key=_minor)) or "none"
    looked = ", ".join(words for words, _ in places())
    if explicit or not cpythons:
        raise BuildFailedError(
            f"python_version: Python {name} is not installed on this machine. Looked on {looked}; "
            f"found: {have}. Install it (`uv python install {name}`), or set python_version to one "
            "that is there."
        )
    older = [one for one in cpythons if one.version[:2] < wanted]
    nearest = (
        max(older, key=lambda one: one.version)
        if older
        else min(cpythons, key=lambda one: (one.version[:2], -one.version[2]))
    )
    return Choice(
        nearest,
        f"python_version is not set and truss's default, Python {name}, is not installed here: "
        f"Python {nearest.full} is used. Set python_version to make sure.",
    )


def _candidates(folders: Iterable[list[Path]]) -> Iterator[Path]:
    seen: set[Path] = set()
    for group in folders:
        for folder in group:
            for path in sorted(folder.glob("python3*")):
                tail = path.name.removeprefix("python3").removeprefix(".")
                if tail and not tail.isdecimal():
                    continue
                real = path.resolve()
                if real not in seen and os.access(real, os.X_OK):
                    seen.add(real)
                    # A link may lead into a virtual environment's base; asking it tells.
                    yield path


def _minor(short: str) -> tuple[int, ...]:
    return tuple(int(part) for part in short.split("."))
