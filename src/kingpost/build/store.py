"""Folders that are made once, whole or not at all, and named by what they were made from."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MANIFEST = "manifest.json"
UNFINISHED = ".new-"
PARTIAL = ".partial"
"""The end of the name of an unfinished folder that a later build goes on with."""


def key_of(*parts: object) -> str:
    """A name from content: equal parts give equal names."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Entry:
    """One finished folder. `key` is its name; a rebuilt one has the same beginning and a tail."""

    root: Path
    manifest: dict[str, Any]

    @property
    def key(self) -> str:
        return self.root.name


class Store:
    """The entries of one kind below `root`. One process writes; see `collect` for what goes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._locks: dict[str, asyncio.Lock] = {}

    @asynccontextmanager
    async def locked(self, key: str) -> AsyncIterator[None]:
        """Builds that need the same entry go one after the other, so the second finds it."""
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            yield

    def find(self, key: str) -> Entry | None:
        """The newest finished entry of that key; marks it as used now."""
        found = [entry for entry in self._named(key) if entry is not None]
        if not found:
            return None
        newest = max(found, key=lambda entry: float(entry.manifest.get("made", 0)))
        os.utime(newest.root / _MANIFEST)
        return newest

    def all(self) -> list[Entry]:
        """Every finished entry."""
        if not self.root.exists():
            return []
        found = [self._read(path) for path in self.root.iterdir() if _is_finished(path)]
        return [entry for entry in found if entry is not None]

    def begin(self, key: str, *, again: bool = False) -> tuple[Path, Path]:
        """A new folder to work in, and the path that it will have once published."""
        self.root.mkdir(parents=True, exist_ok=True)
        token = secrets.token_hex(4)
        taken = again and (self.root / key).exists()
        final = self.root / (f"{key}-{token}" if taken else key)
        work = self.root / f"{final.name}{UNFINISHED}{token}"
        work.mkdir()
        return work, final

    def publish(self, work: Path, final: Path, manifest: dict[str, Any]) -> Entry:
        """Give the finished folder its name. Only then does anyone see it."""
        told = {**manifest, "made": time.time()}
        (work / _MANIFEST).write_text(json.dumps(told))
        if final.exists():
            shutil.rmtree(final)
        work.rename(final)
        return Entry(final, told)

    def used_at(self, path: Path) -> float:
        """When an entry was last found or made; for an unfinished one, when it last changed."""
        manifest = path / _MANIFEST
        return (manifest if manifest.exists() else path).stat().st_mtime

    def discard(self, work: Path) -> None:
        shutil.rmtree(work, ignore_errors=True)

    def remove_unfinished(self) -> None:
        """What a killed build left. Only before any build has begun."""
        if self.root.exists():
            for path in self.root.glob(f"*{UNFINISHED}*"):
                shutil.rmtree(path, ignore_errors=True)

    def _named(self, key: str) -> list[Entry | None]:
        paths = [self.root / key, *self.root.glob(f"{key}-*")]
        return [self._read(path) for path in paths if _is_finished(path)]

    @staticmethod
    def _read(path: Path) -> Entry | None:
        try:
            manifest = json.loads((path / _MANIFEST).read_text())
        except (OSError, ValueError):
            return None
        return Entry(path, manifest)


def _is_finished(path: Path) -> bool:
    return UNFINISHED not in path.name and not path.name.endswith(PARTIAL)
