"""A deployment's logs: its build's and its replicas' files, filtered as the contract filters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kingpost import contract
from kingpost.contract import LogLevel
from kingpost.engine.base import OnLine
from kingpost.engine.logwriter import LogWriter
from kingpost.settings import DataFolder

BUILD = "build"
BUILD_LOG_BYTES = 64 * contract.MIB


@dataclass(frozen=True, kw_only=True)
class LogQuery:
    """Times in epoch nanoseconds; `start_ns` inclusive, `end_ns` exclusive. Text filters match
    the message; `includes` must all be in it, `excludes` none."""

    start_ns: int
    end_ns: int
    newest_first: bool = True
    limit: int = contract.DEFAULT_LOG_LIMIT
    min_level: LogLevel | None = None
    replica: str | None = None
    request_id: str | None = None
    component: str | None = None
    search_pattern: str | None = None
    includes: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()


@dataclass(frozen=True)
class LogLine:
    """`replica` is None for lines of the build and of the platform."""

    timestamp_ns: int
    message: str
    replica: str | None = None
    request_id: str | None = None
    level: LogLevel | None = None


class Logs:
    def __init__(self, data: DataFolder) -> None:
        self._data = data

    def folder(self, deployment_id: str, source: str = BUILD) -> Path:
        """Where the log files of the build, or of a replica (`source` is its id), lie."""
        return self.sources(deployment_id) / source

    def sources(self, deployment_id: str) -> Path:
        """The folder of all of a deployment's log folders."""
        return self._data.deployments / deployment_id / "logs"

    @contextmanager
    def writer(self, deployment_id: str) -> Iterator[OnLine]:
        """Takes lines of the platform's own, or of a build, while open."""
        writer = LogWriter(str(self.folder(deployment_id)), BUILD_LOG_BYTES)
        try:
            yield lambda text: writer.line(b"b", text)
        finally:
            writer.close()

    def say(self, deployment_id: str, text: str) -> None:
        """One line of the platform's in the deployment's log."""
        with self.writer(deployment_id) as say:
            say(text)

    def query(self, deployment_ids: tuple[str, ...], query: LogQuery) -> list[LogLine]:
        """Blocking: it reads files. Lines of several deployments are merged by time."""
        from kingpost.control.logfiles import read

        return read([self.sources(i) for i in deployment_ids], query)
