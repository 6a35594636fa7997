"""What of the build caches may go: decided purely, then removed at once for every onlooker."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kingpost.build.base import Runnable
from kingpost.build.store import PARTIAL, UNFINISHED, Store
from kingpost.settings import Limits

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


def quotas(limits: Limits) -> dict[str, Quota]:
    """Each kind's quota, by the name of its folder."""
    unused_s = limits.unused_cache_s
    return {
        "environments": Quota(limits.max_environments_bytes, unused_s),
        "bundles": Quota(limits.max_bundles_bytes, unused_s),
        "layers": Quota(limits.max_layers_bytes, unused_s),
        "weights": Quota(limits.max_weights_bytes, unused_s),
    }


def collect(
    entries: Iterable[Kept],
    in_use: Iterable[Path],
    now: float,
    quotas: Mapping[str, Quota],
    grace_s: float = GRACE_S,
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
        free = [entry for entry in group if _may_go(entry, used, now, grace_s)]
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


def survey(stores: Iterable[Store], sizes: dict[Path, int]) -> list[Kept]:
    """All finished and half-finished entries with their sizes. Blocks: it walks folders.

    `sizes` remembers those of finished entries, which no longer change, from one call to the next.
    """
    found: list[Kept] = []
    for store in stores:
        if not store.root.exists():
            continue
        for path in store.root.iterdir():
            if not path.is_dir() or UNFINISHED in path.name:
                continue
            size = sizes.get(path)
            if size is None:
                size = bytes_below(path)
            try:
                used_at = store.used_at(path)
            except FileNotFoundError:
                continue
            found.append(Kept(store.root.name, path, size, used_at))
    sizes.clear()
    sizes.update({e.path: e.bytes for e in found if not e.path.name.endswith(PARTIAL)})
    return found


def oversized(folders: Iterable[tuple[Path, int]], max_bytes: int) -> list[Path]:
    """Which folders to remove, the largest first, so that all that stay are within the limit."""
    ordered = sorted(folders, key=lambda item: (item[1], str(item[0])), reverse=True)
    total = sum(size for _, size in ordered)
    gone = []
    for path, size in ordered:
        if total <= max_bytes:
            break
        gone.append(path)
        total -= size
    return gone


def hide(path: Path) -> Path:
    """Out of sight at once; the answer is to be deleted. A crash leaves an unfinished folder."""
    gone = path.with_name(f"{path.name}{UNFINISHED}{secrets.token_hex(4)}")
    path.rename(gone)
    return gone


def bytes_below(folder: Path) -> int:
    """What a folder takes on the disk. Blocks."""
    total = 0
    for base, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(base, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total


def _may_go(entry: Kept, used: list[Path], now: float, grace_s: float) -> bool:
    if now - entry.used_at < grace_s:
        return False
    return not any(path == entry.path or path.is_relative_to(entry.path) for path in used)
