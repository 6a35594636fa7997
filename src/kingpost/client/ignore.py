"""Which files of a Truss folder are pushed: `.truss_ignore`, in the syntax of .gitignore.

Without that file, what truss leaves out by default (truss/util/.truss_ignore) is left out here.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Final

import pathspec

from kingpost.errors import InvalidInputError

IGNORE_FILE: Final = ".truss_ignore"

DEFAULT_PATTERNS: Final = (
    # version control, editors, temporary files
    *(".git", ".DS_Store", "*.tmp", "*.swp", ".spyderproject", ".spyproject", ".ropeproject"),
    # byte code and compiled extensions
    *("__pycache__/", "*.py[cod]", "*$py.class", "*.so", "cython_debug/"),
    # environments
    *(".env", ".venv", "env/", "venv/", "ENV/", "env.bak/", "venv.bak/", "__pypackages__/"),
    # packaging
    *(".Python", "build/", "develop-eggs/", "dist/", "downloads/", "eggs/", ".eggs/", "lib/"),
    *("lib64/", "parts/", "sdist/", "var/", "wheels/", "share/python-wheels/", "*.egg-info/"),
    *(".installed.cfg", "*.egg", "MANIFEST", "*.manifest", "*.spec", "target/", ".pybuilder/"),
    *("pip-log.txt", "pip-delete-this-directory.txt", ".pdm.toml"),
    # tests, coverage, checkers
    *("htmlcov/", ".tox/", ".nox/", ".coverage", ".coverage.*", ".cache", "nosetests.xml"),
    *("coverage.xml", "*.cover", "*.py,cover", ".hypothesis/", ".pytest_cache/", "cover/"),
    *(".mypy_cache/", ".dmypy.json", "dmypy.json", ".ruff_cache/", ".pyre/", ".pytype/"),
    # frameworks and notebooks
    *("*.mo", "*.pot", "*.log", "local_settings.py", "db.sqlite3", "db.sqlite3-journal"),
    *("instance/", ".webassets-cache", ".scrapy", "docs/_build/", ".ipynb_checkpoints"),
    *("profile_default/", "ipython_config.py", "celerybeat-schedule", "celerybeat.pid"),
    *("*.sage.py",),
)


def patterns_of(folder: Path) -> tuple[str, ...]:
    """The patterns that hold for a Truss folder: its own, else the default ones."""
    try:
        text = (folder / IGNORE_FILE).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return DEFAULT_PATTERNS
    return parse_patterns(text)


def parse_patterns(text: str) -> tuple[str, ...]:
    lines = (line.strip() for line in text.splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


class Filter:
    """Decides by the path relative to the Truss; a folder left out takes its files along."""

    def __init__(self, patterns: Iterable[str]) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # of odd sets such as `[[]`
                self._spec = pathspec.PathSpec.from_lines("gitignore", patterns)
        except (ValueError, re.error) as error:
            raise InvalidInputError(f"{IGNORE_FILE} has an invalid pattern: {error}") from None

    def keeps_file(self, path: PurePosixPath) -> bool:
        return not self._spec.match_file(path.as_posix())

    def keeps_folder(self, path: PurePosixPath) -> bool:
        text = path.as_posix()
        return not self._spec.match_file(text) and not self._spec.match_file(text + "/")


def walk(folder: Path, kept: Filter) -> Iterator[tuple[PurePosixPath, Path]]:
    """Files that are kept, as (relative path, path), sorted; folders left out are not entered.

    Symbolic links to folders are given too, for the caller to refuse or mention.
    """
    return _walk(folder, PurePosixPath(), kept)


def _walk(
    folder: Path, relative: PurePosixPath, kept: Filter
) -> Iterator[tuple[PurePosixPath, Path]]:
    for entry in sorted(folder.iterdir(), key=lambda e: e.name):
        name = relative / entry.name
        if entry.is_dir() and not entry.is_symlink():
            if kept.keeps_folder(name):
                yield from _walk(entry, name, kept)
        elif kept.keeps_file(name):
            yield name, entry
