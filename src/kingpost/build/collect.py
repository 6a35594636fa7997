"""What of the build caches may go: decided purely, then removed at once for every onlooker."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kingpost import contract
from kingpost.build.base import Runnable
from kingpost.build.store import UNFINISHED, Store

GRACE_S = 3 * 3600.0
"""What was used so lately stays whatever the quota says: a build may be about to name it."""


@dataclass(frozen=True)
class Kept:
    """One folder of a cache. `used_at` is in seconds since the epoch."""

    kind: str
    path: Path
    bytes: int
    used_at: float


@dataclass(frozen=True)
class Quota:
    """For one kind: at most so many bytes, and nothing that was unused for so long."""

    max_bytes: int
    unused_s: float = 30 * 24 * 3600.0


@dataclass(frozen=True)
class Quotas:
    environments: Quota = field(default_factory=lambda: Quota(50 * contract.GIB))
    bundles: Quota = field(default_factory=lambda: Quota(20 * contract.GIB))
    layers: Quota = field(default_factory=lambda: Quota(50 * contract.GIB))
    weights: Quota = field(default_factory=lambda: Quota(500 * contract.GIB))

    def by_kind(self) -> dict[str, Quota]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def collect(
    entries: Iterable[Kept], in_use: Iterable[Path], now: float, quotas: Mapping[str, Quota]
) -> list[Kept]:
    """The entries to remove: unused for too long, then least lately used until within the quota.

    Never one that is in use (it or something in it), nor one used within the grace time.
    """
    used = list(in_use)
    removed: list[Kept] = []
    by_kind: dict[str, list[Kept]] = {}
    for entry in entries:
        by_kind.setdefault(entry.kind, []).append(entry)
    for kind, group in by_kind.items():
        quota = quotas.get(kind)
        if quota is None:
            continue
        total = sum(entry.bytes for entry in group)
        free = [entry for entry in group if _may_go(entry, used, now)]
        for entry in sorted(free, key=lambda entry: (entry.used_at, str(entry.path))):
            if now - entry.used_at > quota.unused_s or total > quota.max_bytes:
                removed.append(entry)
                total -= entry.bytes
    return removed


def paths_in_use(runnables: Iterable[Runnable]) -> set[Path]:
    """What replicas of these are, or would be, started from."""
    found: set[Path] = set()
    for runnable in runnables:
        found.update(Path(bind.source) for bind in runnable.binds)
        for overlay in runnable.overlays:
            found.update(Path(lower) for lower in overlay.lower)
    return found


def survey(stores: Iterable[Store]) -> list[Kept]:
    """All finished and half-finished entries with their sizes. Blocks: it walks every folder."""
    found: list[Kept] = []
    for store in stores:
        if not store.root.exists():
            continue
        found.extend(
            Kept(store.root.name, path, _bytes_below(path), store.used_at(path))
            for path in store.root.iterdir()
            if path.is_dir() and UNFINISHED not in path.name
        )
    return found


def remove(path: Path) -> None:
    """Out of sight first, then away: a crash in between leaves an unfinished folder."""
    gone = path.with_name(f"{path.name}{UNFINISHED}{secrets.token_hex(4)}")
    path.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _may_go(entry: Kept, used: list[Path], now: float) -> bool:
    if now - entry.used_at < GRACE_S:
        return False
    return not any(path == entry.path or path.is_relative_to(entry.path) for path in used)


def _bytes_below(folder: Path) -> int:
    total = 0
    for base, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(base, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total
