"""Keeps the data folder within bounds: carries out what `hygiene` and the build's `collect` decide.

Looks every few minutes, and at once after a deployment is gone. Files are touched in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import shutil
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol

from kingpost.build.base import Runnable
from kingpost.build.collect import Kept
from kingpost.contract import DeploymentStatus
from kingpost.control import hygiene
from kingpost.control.domain import ReplicaState, utc_now
from kingpost.control.events import Events
from kingpost.control.hygiene import LogPlan, LogSource, Segment
from kingpost.control.logfiles import BUILD
from kingpost.control.logs import Logs
from kingpost.control.store import Store
from kingpost.control.uploads import LIFETIME, Uploads
from kingpost.engine.logwriter import segments as log_segments
from kingpost.settings import Settings

log = logging.getLogger(__name__)

FIRST_S: Final = 30.0
EVERY_S: Final = 5 * 60.0
MAX_AT_ONCE: Final = 1000
"""Things of one kind removed in one look; the rest waits for the next."""
_GONE: Final = ".gone-"
_ARCHIVE: Final = ".tar"


class Caches(Protocol):
    """The part of the builder that cleans."""

    async def collect(self, in_use: Iterable[Runnable]) -> list[Kept]: ...

    async def trim_downloads(self) -> int: ...


class Janitor:
    def __init__(
        self,
        settings: Settings,
        store: Store,
        uploads: Uploads,
        logs: Logs,
        caches: Caches,
        events: Events,
        *,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._data = settings.data
        self._limits = settings.limits
        self._store = store
        self._uploads = uploads
        self._logs = logs
        self._caches = caches
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()
        events.forgotten.subscribe(self._forgotten)

    def start(self) -> None:
        """Begin to look, a little later."""
        self._spawn(self._run())

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def sweep(self) -> dict[str, int]:
        """Look once. The answer: how many of each kind went; of downloads, how many bytes.

        What fails (a full disk refuses to write rows) does not keep the rest from being done.
        """
        now = self._clock()
        steps: dict[str, Callable[[datetime], Awaitable[int]]] = {
            "uploads": self._drop_uploads,
            "archives": self._drop_archives,
            "deployments": self._drop_deployments,
            "logs": self._drop_logs,
            "promotions": self._drop_promotions,
            "caches": self._collect,
            "download_bytes": self._trim_downloads,
        }
        counts = {}
        for name, step in steps.items():
            try:
                counts[name] = await step(now)
            except Exception:
                log.exception("cleaning up failed; it is tried again", extra={"step": name})
        if any(counts.values()):
            log.info("removed what is no longer needed", extra=counts)
        return counts

    async def _run(self) -> None:
        delay_s = FIRST_S
        while True:
            await asyncio.sleep(delay_s)
            delay_s = EVERY_S
            await self.sweep()

    def _forgotten(self, deployment_id: str) -> None:
        self._spawn(self._drop_deployment(deployment_id))

    async def _drop_deployment(self, deployment_id: str) -> None:
        await asyncio.to_thread(_remove, self._data.deployments / deployment_id)
        log.info("removed a deleted deployment's folder", extra={"deployment": deployment_id})

    async def _drop_uploads(self, now: datetime) -> int:
        """Rows first: whoever has none can't begin a push with the archive."""
        changed = await asyncio.to_thread(_newest_within, self._data.uploads)
        expired = await asyncio.to_thread(self._uploads.expired, now)
        for upload in hygiene.finished_uploads(expired, changed, now)[:MAX_AT_ONCE]:
            self._uploads.forget(upload)
        return await asyncio.to_thread(self._drop_upload_folders)

    def _drop_upload_folders(self) -> int:
        listed = _names(self._data.uploads)
        with self._store.begin() as tx:
            known = {upload.access_key_id for upload in tx.uploads.find()}
        return _remove_all(self._data.uploads, hygiene.orphans(listed, known))

    async def _drop_archives(self, now: datetime) -> int:
        return await asyncio.to_thread(self._drop_archive_files, (now - LIFETIME).timestamp())

    def _drop_archive_files(self, before: float) -> int:
        changed = {
            path.stem: at
            for path, at in _files(self._data.archives).items()
            if path.suffix == _ARCHIVE
        }
        with self._store.begin() as tx:
            referred = {d.archive for d in tx.deployments.find()}
            referred |= {u.digest for u in tx.uploads.find() if u.digest}
        unused = hygiene.unused_archives(changed, referred, before)[:MAX_AT_ONCE]
        return sum(self._uploads.drop_archive(digest, before) for digest in unused)

    async def _drop_deployments(self, _: datetime) -> int:
        return await asyncio.to_thread(self._drop_deployment_folders)

    def _drop_deployment_folders(self) -> int:
        listed = _names(self._data.deployments)
        with self._store.begin() as tx:
            known = {deployment.id for deployment in tx.deployments.find()}
        return _remove_all(self._data.deployments, hygiene.orphans(listed, known))

    async def _drop_logs(self, now: datetime) -> int:
        return await asyncio.to_thread(self._drop_log_files, now)

    def _drop_log_files(self, now: datetime) -> int:
        count = 0
        listed = {
            name: _names(self._logs.sources(name))
            for name in _names(self._data.deployments)
            if _GONE not in name
        }
        with self._store.begin() as tx:
            rows = tx.replicas.find()
            alive = {(r.deployment_id, r.id) for r in rows if r.state is not ReplicaState.ENDED}
            building = tx.deployments.find(status=DeploymentStatus.BUILDING.value)
            alive |= {(deployment.id, BUILD) for deployment in building}
        for deployment_id, names in listed.items():
            sources = [
                self._source(deployment_id, name, alive=(deployment_id, name) in alive)
                for name in names
            ]
            plan = hygiene.stale_logs(
                sources,
                now.timestamp(),
                kept_s=self._limits.log_retention_s,
                max_bytes=self._limits.log_bytes_per_deployment,
            )
            count += self._drop_log(deployment_id, plan)
        return count

    def _source(self, deployment_id: str, name: str, *, alive: bool) -> LogSource:
        found = []
        for _, path in log_segments(str(self._logs.folder(deployment_id, name))):
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(path)
                found.append(Segment(os.path.basename(path), status.st_size, status.st_mtime))
        return LogSource(name, alive, tuple(found))

    def _drop_log(self, deployment_id: str, plan: LogPlan) -> int:
        for source, name in plan.segments:
            (self._logs.folder(deployment_id, source) / name).unlink(missing_ok=True)
        for source in plan.folders:
            _remove(self._logs.folder(deployment_id, source))
        return len(plan.segments) + len(plan.folders)

    async def _drop_promotions(self, now: datetime) -> int:
        with self._store.begin() as tx:
            ended = hygiene.old_promotions(
                tx.promotions.find(), now, self._limits.promotion_retention_s
            )[:MAX_AT_ONCE]
            for promotion_id in ended:
                tx.promotions.delete(id=promotion_id)
        return len(ended)

    async def _collect(self, _: datetime) -> int:
        gone = await self._caches.collect(await asyncio.to_thread(self._runnables))
        for entry in gone:
            log.info(
                "removed from a cache",
                extra={"kind": entry.kind, "key": entry.path.name, "bytes": entry.bytes},
            )
        return len(gone)

    async def _trim_downloads(self, _: datetime) -> int:
        return await self._caches.trim_downloads()

    def _runnables(self) -> list[Runnable]:
        """Of every deployment, the deleted ones that still drain too."""
        with self._store.begin() as tx:
            return [d.runnable for d in tx.deployments.find() if d.runnable is not None]

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(_log_failure)


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("cleaning up failed", exc_info=error)


def _names(folder: Path) -> list[str]:
    """Of the folders in it."""
    try:
        return [entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def _files(folder: Path) -> dict[Path, float]:
    """The files right in it, and when each changed."""
    found = {}
    for name in os.listdir(folder) if folder.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):
            found[folder / name] = (folder / name).lstat().st_mtime
    return found


def _newest_within(folder: Path) -> dict[str, float]:
    """For each folder in it, when anything in it changed last."""
    newest = {}
    for name in _names(folder):
        at = 0.0
        for base, _, files in os.walk(folder / name):
            for path in (base, *(os.path.join(base, file) for file in files)):
                with contextlib.suppress(FileNotFoundError):
                    at = max(at, os.lstat(path).st_mtime)
        newest[name] = at
    return newest


def _remove_all(folder: Path, names: list[str]) -> int:
    chosen = names[:MAX_AT_ONCE]
    for name in chosen:
        _remove(folder / name)
    return len(chosen)


def _remove(folder: Path) -> None:
    """Out of sight at once, then deleted; what a crash leaves is an orphan of the next look."""
    gone = folder
    if _GONE not in folder.name:
        gone = folder.with_name(f"{folder.name}{_GONE}{secrets.token_hex(4)}")
        try:
            folder.rename(gone)
        except FileNotFoundError:
            return
    shutil.rmtree(gone, ignore_errors=True)
