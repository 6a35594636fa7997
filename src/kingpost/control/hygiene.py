"""What an operated platform no longer needs: logs, archives, uploads, rows. Removes nothing itself.

Pure; the clock is passed in. What the caches of builds keep is decided by `kingpost.build.collect`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from kingpost.control.domain import Promotion, Upload
from kingpost.control.environments import UNDER_WAY
from kingpost.control.logfiles import BUILD

IDLE_UPLOAD_S: Final = 15 * 60.0
"""An upload that began in time may end later; it goes when nothing came for so long."""
MAX_LOG_SOURCES: Final = 500
"""Ended replicas of one deployment whose logs are kept; one that keeps crashing makes many."""


@dataclass(frozen=True)
class Segment:
    """A log file. `changed_at` in epoch seconds."""

    name: str
    bytes: int
    changed_at: float


@dataclass(frozen=True)
class LogSource:
    """The log folder of a build or a replica. `alive` says that something may write to it."""

    name: str
    alive: bool
    segments: tuple[Segment, ...] = ()


@dataclass(frozen=True)
class LogPlan:
    """Files to delete as (source, file), then folders to remove."""

    segments: tuple[tuple[str, str], ...] = ()
    folders: tuple[str, ...] = ()


def orphans(listed: Iterable[str], known: Collection[str]) -> list[str]:
    """Folders that nothing refers to. Whoever calls lists them first and reads the rows then, since
    a row comes before its folder."""
    return [name for name in listed if name not in known]


def unused_archives(
    changed_at: Mapping[str, float], referred: Collection[str], before: float
) -> list[str]:
    """Digests of archives that nothing refers to and that are older than `before`."""
    return [d for d, at in changed_at.items() if d not in referred and at < before]


def finished_uploads(
    uploads: Iterable[Upload], changed_at: Mapping[str, float], now: datetime
) -> list[Upload]:
    """Those whose credentials have expired and whose folder (by access key id) is idle."""
    idle = now.timestamp() - IDLE_UPLOAD_S
    return [
        u for u in uploads if u.expires_at < now and changed_at.get(u.access_key_id, idle) <= idle
    ]


def old_promotions(promotions: Iterable[Promotion], now: datetime, kept_s: float) -> list[str]:
    """Ids of promotions that have ended and were begun so long ago."""
    before = now - timedelta(seconds=kept_s)
    return [p.id for p in promotions if p.status not in UNDER_WAY and p.created_at < before]


def stale_logs(
    sources: Sequence[LogSource], now: float, *, kept_s: float, max_bytes: int
) -> LogPlan:
    """What goes of one deployment's logs: too old, or the oldest until the rest is within bounds.

    The newest file of what is alive stays, since it may be open.
    """
    dropped = _surplus_sources(sources)
    files = [
        (segment, source.name)
        for source in sources
        if source.name not in dropped
        for segment in _closed(source)
    ]
    files.sort(key=lambda item: (item[0].changed_at, item[1], item[0].name))
    kept_sources = [source for source in sources if source.name not in dropped]
    total = sum(segment.bytes for source in kept_sources for segment in source.segments)
    gone: list[tuple[str, str]] = []
    for segment, name in files:
        if now - segment.changed_at > kept_s or total > max_bytes:
            gone.append((name, segment.name))
            total -= segment.bytes
    lost = set(gone)
    empty = [
        source.name
        for source in kept_sources
        if not source.alive
        and source.name != BUILD
        and all((source.name, segment.name) in lost for segment in source.segments)
    ]
    return LogPlan(tuple(gone), (*sorted(dropped), *empty))


def _closed(source: LogSource) -> Sequence[Segment]:
    ordered = sorted(source.segments, key=lambda segment: (segment.changed_at, segment.name))
    return ordered[:-1] if source.alive else ordered


def _surplus_sources(sources: Sequence[LogSource]) -> set[str]:
    """The longest ended replicas beyond the number that is kept."""
    ended = [source for source in sources if not source.alive and source.name != BUILD]
    ended.sort(key=lambda s: max((g.changed_at for g in s.segments), default=0.0))
    return {source.name for source in ended[: max(0, len(ended) - MAX_LOG_SOURCES)]}
