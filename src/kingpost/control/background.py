"""Work that runs beside its asker: kept until it ends, its failures logged, ended together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger(__name__)


class Background:
    """Tasks of one owner, who ends them with `close`."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def cancel(self) -> list[asyncio.Task[None]]:
        """Ask all to end, but the one that asks. The answer: those to wait for."""
        current = asyncio.current_task()
        doomed = [task for task in self._tasks if task is not current]
        for task in doomed:
            task.cancel()
        return doomed

    async def close(self) -> None:
        await asyncio.gather(*self.cancel(), return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("background work failed", exc_info=error)
