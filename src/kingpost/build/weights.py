"""Model weights: fetched once into a content cache, shared read-only by all replicas of a team."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from kingpost.build.archive import size_text
from kingpost.build.config import WeightsSource
from kingpost.build.fetch import Fetcher, Rate
from kingpost.build.progress import Progress
from kingpost.build.sources import Listing, RemoteFile, list_source
from kingpost.build.store import PARTIAL, Entry, Store, key_of
from kingpost.errors import StorageFullError
from kingpost.settings import DataFolder

Secrets = Callable[[str], Awaitable[str | None]]
"""The value of a team's secret by name, None when it is not set."""

_AT_ONCE = 4
_SPARE_BYTES = 256 * 1024**2
_FILES = "files"


class Weights:
    """Entries belong to a team: what one team's secret opened is never shown to another."""

    def __init__(self, data: DataFolder, fetcher: Fetcher) -> None:
        self.store = Store(data.weights)
        self._fetcher = fetcher

    async def get(
        self, source: WeightsSource, user: str, secrets: Secrets, progress: Progress
    ) -> tuple[Entry, bool]:
        """The entry, whose `files` folder is to be mounted, and whether it was there already.

        Asks the source for its newest version each time; only what changed is fetched.
        """
        secret = await secrets(source.secret_name) if source.secret_name else None
        listing = await list_source(source, secret, self._fetcher)
        key = key_of(user, source.source, listing.version, source.allow, source.ignore)
        async with self.store.locked(key):
            if (entry := self.store.find(key)) is not None:
                return entry, True
            return await self._fetch(key, source, user, listing, progress), False

    async def _fetch(
        self, key: str, source: WeightsSource, user: str, listing: Listing, progress: Progress
    ) -> Entry:
        """The unfinished folder has a fixed name, so that the next build goes on with it."""
        work = self.store.root / f"{key}{PARTIAL}"
        files = work / _FILES
        files.mkdir(parents=True, exist_ok=True)
        known = self._known(user)
        missing = [file for file in listing.files if not _take_known(file, files, known)]
        total = sum(file.expected.size or 0 for file in missing)
        _check_space(work, total)
        progress.begin(f"{source.source}: {len(missing)} files, {size_text(total)} to fetch")
        rate = Rate(lambda text: progress.line(f"  {source.source}: {text}"), total or None)
        slots = asyncio.Semaphore(_AT_ONCE)

        async def fetch(file: RemoteFile) -> None:
            async with slots:
                await self._fetcher.download(
                    file.url,
                    files / file.path,
                    headers=file.headers,
                    expected=file.expected,
                    on_bytes=rate.add,
                )
                progress.line(f"  {file.path}: fetched")

        async with _together() as group:
            for file in missing:
                group.create_task(fetch(file))
        sums = {file.path: file.expected.sha256 for file in listing.files if file.expected.sha256}
        manifest = {"user": user, "source": source.source, "sums": sums}
        return self.store.publish(work, self.store.root / key, manifest)

    def _known(self, user: str) -> dict[str, Path]:
        """Files of this team by checksum."""
        return {
            digest: entry.root / _FILES / path
            for entry in self.store.all()
            if entry.manifest.get("user") == user
            for path, digest in entry.manifest.get("sums", {}).items()
        }


def files_of(entry: Entry) -> Path:
    return entry.root / _FILES


class _together:  # noqa: N801 - reads as a word
    """A task group that raises the first error itself instead of a group of them."""

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> asyncio.TaskGroup:
        return await self._group.__aenter__()

    async def __aexit__(self, *error: object) -> None:
        try:
            await self._group.__aexit__(*error)  # type: ignore[arg-type]
        except BaseExceptionGroup as group:
            raise _first(group) from None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    inner: Sequence[BaseException] = group.exceptions
    return _first(inner[0]) if isinstance(inner[0], BaseExceptionGroup) else inner[0]


def _take_known(file: RemoteFile, files: Path, known: dict[str, Path]) -> bool:
    """Whether the file is there, be it from an earlier attempt or linked from another entry."""
    target = files / file.path
    if target.exists():
        return True
    have = known.get(file.expected.sha256 or "")
    if have is None or not have.exists():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    os.link(have, target)
    return True


def _check_space(folder: Path, wanted: int) -> None:
    free = shutil.disk_usage(folder).free
    if wanted + _SPARE_BYTES > free:
        raise StorageFullError(
            f"Weights: {size_text(wanted)} are to be fetched, and the disk of the data folder has "
            f"{size_text(free)} left. Free space, or narrow allow_patterns."
        )
