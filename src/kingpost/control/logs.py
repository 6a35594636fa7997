"""A deployment's logs: where they lie, writing the platform's own lines, reading them all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kingpost import contract
from kingpost.control.logfiles import BUILD, LogLine, LogQuery, read
from kingpost.engine.base import OnLine
from kingpost.engine.logwriter import LogWriter
from kingpost.settings import DataFolder

BUILD_LOG_BYTES = 64 * contract.MIB


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
        return read([self.sources(i) for i in deployment_ids], query)
