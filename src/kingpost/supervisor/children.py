"""The two processes below the supervisor: started, adopted, restarted, ended. They outlive it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.05
MAX_PAUSE_S = 5.0
STEADY_AFTER_S = 10.0


class Record(msgspec.Struct, frozen=True):
    """Who a process is: its id and when it started (clock ticks after boot)."""

    pid: int
    started: int


class Child:
    """One kind of process. Its record lies in `record`, so that a new supervisor can adopt it."""

    def __init__(
        self,
        name: str,
        argv: Callable[[], Sequence[str]],
        record: Path,
        *,
        log_file: Path,
        pass_fds: tuple[int, ...] = (),
        env: dict[str, str] | None = None,
    ) -> None:
        self.name = name
        self.pid: int | None = None
        self._argv = argv
        self._record = record
        self._log_file = log_file
        self._pass_fds = pass_fds
        self._env = env
        self._pidfd = -1
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = asyncio.Event()
        self.starts = 0

    async def run(self) -> None:
        """Keep it running: adopt it if it runs, start it if not, again whenever it ends."""
        pause = FIRST_PAUSE_S
        loop = asyncio.get_running_loop()
        if not self._adopt():
            self._start()
        while True:
            since = loop.time()
            await self._ended.wait()
            pause = FIRST_PAUSE_S if loop.time() - since > STEADY_AFTER_S else pause
            log.warning("%s ended; starting it again", self.name, extra={"pid": self.pid})
            await asyncio.sleep(pause)
            pause = min(pause * 2, MAX_PAUSE_S)
            self._start()

    async def end(self, *, wait_s: float) -> None:
        """SIGTERM, and SIGKILL if it is still there after `wait_s`."""
        if self.pid is None or self._ended.is_set():
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGTERM)
        try:
            async with asyncio.timeout(wait_s):
                await self._ended.wait()
        except TimeoutError:
            log.warning("%s did not end in time; killing it", self.name)
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            await self._ended.wait()
        self._record.unlink(missing_ok=True)

    @property
    def exit_code(self) -> int | None:
        """Of one that was started here and has ended."""
        return self._process.returncode if self._process else None

    def _start(self) -> None:
        self._log_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._log_file.open("ab") as output:
            self._process = subprocess.Popen(
                self._argv(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=self._pass_fds,
                env=self._env,
                start_new_session=True,
            )
        self.starts += 1
        self._watch(self._process.pid)
        record = Record(self._process.pid, _started(self._process.pid) or 0)
        try:
            self._record.write_bytes(msgspec.json.encode(record))
        except OSError as error:
            log.warning("%s runs without a record: %s", self.name, error.strerror)

    def _adopt(self) -> bool:
        try:
            record = msgspec.json.decode(self._record.read_bytes(), type=Record)
        except (OSError, msgspec.MsgspecError):
            return False
        if _started(record.pid) != record.started:
            return False
        self._watch(record.pid)
        log.info("%s runs already; adopted", self.name, extra={"pid": record.pid})
        return True

    def _watch(self, pid: int) -> None:
        self.pid = pid
        self._ended.clear()
        self._pidfd = os.pidfd_open(pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._on_end)

    def _on_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        if self._process is not None and self._process.pid == self.pid:
            self._process.wait()
        self._ended.set()


def _started(pid: int) -> int | None:
    """When a process started, in clock ticks after boot; None when there is none, or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])
