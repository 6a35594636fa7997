"""The warm truss worker seen from our side: started once, restarted when it dies, asked in turn.

What is asked and answered is the worker's business: see `truss_worker`.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from kingpost.build import truss_env
from kingpost.errors import BuildFailedError, KingpostError, UnavailableError

_WORKER = Path(__file__).with_name("truss_worker.py")
_MAX_ANSWER_BYTES = 256 * 1024 * 1024
_LAST_LINES = 5
_PATIENCE_S = 2.0
_log = logging.getLogger(__name__)


class TrussWorkerError(KingpostError):
    """The worker itself failed, not what the user gave."""

    code = "TRUSS_WORKER"


class TrussClient:
    """One worker process. Requests wait for each other; a late one costs the worker its life."""

    def __init__(
        self,
        ensure: Callable[[], truss_env.TrussEnvironment] = truss_env.ensure,
        *,
        home: Path | None = None,
    ) -> None:
        """`home` is the worker's home folder; a temporary one without it."""
        self._ensure = ensure
        self._given_home = home
        self._lock = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._environment: truss_env.TrussEnvironment | None = None
        self._home: tempfile.TemporaryDirectory[str] | None = None
        self._drain: asyncio.Task[None] | None = None
        self._last_words: list[str] = []
        self._number = 0

    @property
    def environment(self) -> truss_env.TrussEnvironment:
        """Known after the first request."""
        if self._environment is None:
            raise TrussWorkerError("The truss worker was not started yet.")
        return self._environment

    async def ping(self, *, deadline_s: float = 120.0) -> str:
        """Truss's version, once the worker is warm."""
        return str((await self._ask("ping", {}, deadline_s))["version"])

    async def validate(self, config: dict[str, Any], *, deadline_s: float = 60.0) -> dict[str, Any]:
        return await self._ask("validate", {"config": config}, deadline_s)

    async def context(
        self, truss_dir: Path, out_dir: Path, *, development: bool, deadline_s: float = 600.0
    ) -> dict[str, Any]:
        """Raises `BuildFailedError` with truss's words when the Truss is not one, and `OSError`
        when no space is left."""
        args = {
            "truss_dir": str(truss_dir),
            "out_dir": str(out_dir),
            "development": development,
        }
        return await self._ask("context", args, deadline_s)

    async def close(self) -> None:
        async with self._lock:
            await self._end()
            if self._home is not None:
                self._home.cleanup()
                self._home = None

    async def _ask(self, op: str, args: dict[str, Any], deadline_s: float) -> dict[str, Any]:
        async with self._lock:
            process = await self._running()
            self._number += 1
            request = {"id": self._number, "op": op, "args": args}
            task = asyncio.create_task(self._exchange(process, request))
            try:
                async with asyncio.timeout(deadline_s):
                    answer = await asyncio.shield(task)
            except TimeoutError:
                await self._settle(task, 0)
                raise BuildFailedError(
                    f"Reading the Truss took longer than {deadline_s:.0f} s. "
                    "Look for very large or deeply nested values in config.yaml."
                ) from None
            except BaseException:
                await self._settle(task)
                raise
        if "full" in answer:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if "refused" in answer:
            raise BuildFailedError(answer["refused"])
        if "failed" in answer:
            _log.error("truss worker failed op=%s error=%s", op, answer["failed"])
            raise TrussWorkerError(f"The truss worker failed: {answer['failed']}")
        result: dict[str, Any] = answer["result"]
        return result

    async def _exchange(
        self, process: asyncio.subprocess.Process, request: dict[str, Any]
    ) -> dict[str, Any]:
        if process.stdin is None or process.stdout is None:
            raise TrussWorkerError("The truss worker has no pipes.")
        with suppress(BrokenPipeError, ConnectionResetError):
            process.stdin.write(json.dumps(request).encode() + b"\n")
            await process.stdin.drain()
        line = await process.stdout.readline()
        if not line.endswith(b"\n"):
            await self._end()
            said = " ".join(self._last_words)
            raise TrussWorkerError(f"The truss worker ended without an answer. {said}".strip())
        answer: dict[str, Any] = json.loads(line)
        if answer.get("id") != request["id"]:
            raise TrussWorkerError("The truss worker answered another question.")
        return answer

    async def _settle(
        self, task: asyncio.Task[dict[str, Any]], patience_s: float = _PATIENCE_S
    ) -> None:
        """Nobody waits for this answer any more: take it from the pipe, or end the worker."""
        await asyncio.wait([task], timeout=patience_s)
        if not task.done() or task.cancelled() or task.exception() is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self._end()

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is not None and self._process.returncode is None:
            return self._process
        await self._end()
        try:
            self._environment = await asyncio.to_thread(self._ensure)
        except OSError as error:
            raise UnavailableError(
                f"The truss environment can't be made in its cache folder: {error.strerror}. "
                "Free space, or name another folder with KINGPOST_CACHE_DIR."
            ) from error
        home = self._home_folder()
        self._process = await asyncio.create_subprocess_exec(
            self._environment.python,
            "-I",
            "-u",
            _WORKER,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._variables(home),
            cwd=home,
            limit=_MAX_ANSWER_BYTES,
            start_new_session=True,
        )
        self._last_words = []
        self._drain = asyncio.create_task(self._listen(self._process))
        return self._process

    def _home_folder(self) -> str:
        if self._given_home is not None:
            self._given_home.mkdir(parents=True, exist_ok=True)
            return str(self._given_home)
        if self._home is None:
            self._home = tempfile.TemporaryDirectory(prefix="kingpost-truss-")
        return self._home.name

    @staticmethod
    def _variables(home: str) -> dict[str, str]:
        """Nothing of our own environment: it may hold keys."""
        return {
            "PATH": os.defpath,
            "HOME": home,
            "LANG": "C.UTF-8",
            "PYTHONUTF8": "1",
            "HF_HUB_OFFLINE": "1",
            "TRUSS_NO_UPDATE_CHECK": "1",
        }

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        if process.stderr is None:
            return
        async for line in process.stderr:
            text = line.decode(errors="replace").rstrip()
            self._last_words = [*self._last_words[1 - _LAST_LINES :], text]
            _log.debug("truss worker: %s", text)

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
            await process.wait()
        if self._drain is not None:
            await self._drain
            self._drain = None
