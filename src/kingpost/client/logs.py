"""Reads a deployment's log page by page and follows it, giving each line once and in order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from kingpost.client.remote import segment
from kingpost.client.rest import RestClient
from kingpost.contract import LOG_LIMIT

PAGE_LINES: Final = LOG_LIMIT[1]
LONGEST_SPAN_MS: Final = 7 * 24 * 3600 * 1000
"""The API refuses a longer window (management API: logs)."""


@dataclass(frozen=True)
class Line:
    """One line of a log. `at_ns` is its time in nanoseconds of the epoch."""

    at_ns: int
    message: str
    replica: str | None = None
    level: str | None = None
    request_id: str | None = None

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Line:
        stamp = str(entry.get("timestamp", ""))
        return cls(
            at_ns=int(stamp) if stamp.isascii() and stamp.isdigit() else 0,
            message=str(entry.get("message", "")).rstrip("\n"),
            replica=entry.get("replica"),
            level=entry.get("level"),
            request_id=entry.get("request_id"),
        )


class Follower:
    """Decides what to ask next and which lines of an answer are new. No I/O, no clock.

    A line may arrive up to `overlap_ms` after a younger one. Answers are sorted oldest first and
    hold at most `page` lines from `start_ms` on. Equal lines of one nanosecond count as one.
    """

    def __init__(self, start_ms: int, *, overlap_ms: int, page: int = PAGE_LINES) -> None:
        self.start_ms = start_ms
        self._overlap_ms = overlap_ms
        self._page = page
        self._newest_ms = start_ms
        self._seen: set[Line] = set()

    def take(self, answer: list[Line]) -> tuple[list[Line], bool]:
        """The new lines, and whether to ask again at once because the answer was cut off."""
        asked = (line for line in answer if line.at_ns // 1_000_000 >= self.start_ms)
        fresh = [line for line in dict.fromkeys(asked) if line not in self._seen]
        self._seen.update(fresh)
        newest_ms = max((line.at_ns // 1_000_000 for line in answer), default=self._newest_ms)
        self._newest_ms = max(self._newest_ms, newest_ms)
        full = len(answer) >= self._page
        if full:
            # All of one page within a millisecond: step over it, or it would come for ever.
            self.start_ms = max(newest_ms, self.start_ms) + (newest_ms <= self.start_ms)
        else:
            self.start_ms = max(self.start_ms, self._newest_ms - self._overlap_ms)
        self._seen = {line for line in self._seen if line.at_ns // 1_000_000 >= self.start_ms}
        return fresh, full


def read(
    api: RestClient, path: str, filters: Mapping[str, Any], start_ms: int, end_ms: int
) -> Iterator[Line]:
    """All lines of a span, oldest first, in as many requests as it takes."""
    follower = Follower(start_ms, overlap_ms=0)
    more = True
    while more and follower.start_ms <= end_ms:
        fresh, more = follower.take(_page(api, path, filters, follower.start_ms, end_ms))
        yield from fresh


def poll(
    api: RestClient, path: str, filters: Mapping[str, Any], follower: Follower
) -> Iterator[Line]:
    """The lines that came since the last call."""
    more = True
    while more:
        end_ms = _now_ms() + 60_000  # clocks differ; the newest lines must not be cut off
        fresh, more = follower.take(_page(api, path, filters, follower.start_ms, end_ms))
        yield from fresh


def follow(
    api: RestClient,
    path: str,
    filters: Mapping[str, Any],
    start_ms: int,
    *,
    pause: Callable[[], None] = lambda: time.sleep(1.0),
) -> Iterator[Line]:
    """Lines from `start_ms` on as they come, without end; the caller stops asking."""
    follower = follower_for(api, start_ms)
    while True:
        yield from poll(api, path, filters, follower)
        pause()


def follower_for(api: RestClient, start_ms: int) -> Follower:
    """Baseten's lines come late and out of order (the truss CLI looks back 60 s); ours do not."""
    return Follower(start_ms, overlap_ms=60_000 if api.remote.is_baseten else 1_000)


def created_ms(deployment: Mapping[str, Any]) -> int:
    """When a deployment was made, by the platform's clock, in milliseconds of the epoch."""
    made = datetime.fromisoformat(str(deployment["created_at"]))
    if made.tzinfo is None:
        made = made.replace(tzinfo=UTC)
    return int(made.timestamp() * 1000)


def deployment_path(model_id: str, deployment_id: str) -> str:
    return f"/v1/models/{segment(model_id)}/deployments/{segment(deployment_id)}/logs"


def environment_path(model_id: str, environment: str) -> str:
    return f"/v1/models/{segment(model_id)}/environments/{segment(environment)}/logs"


def _page(
    api: RestClient, path: str, filters: Mapping[str, Any], start_ms: int, end_ms: int
) -> list[Line]:
    start_ms = max(start_ms, end_ms - LONGEST_SPAN_MS)
    span = {"start_epoch_millis": start_ms, "end_epoch_millis": end_ms}
    query = {**filters, **span, "direction": "asc", "limit": PAGE_LINES}
    return [Line.of(entry) for entry in api.get(path, query)["logs"]]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
