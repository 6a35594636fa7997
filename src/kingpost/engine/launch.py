"""Starts a shim with its job, inside the namespaces of its replica or as a plain process."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from kingpost.errors import EngineError

_REPORT_TIMEOUT_S: Final = 30.0
_SHIM: Final = "import sys; sys.path.append({folder!r}); import shim; shim.main()"

Fields = Sequence[tuple[str, str | bytes]]


class Shim:
    """A shim that was started and waits for its job. Blocking; use it in one thread."""

    def __init__(self, lock: int, errors: Path) -> None:
        self._job, self._report = -1, -1
        job, self._job = os.pipe()
        self._report, report = os.pipe()
        log = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        code = _SHIM.format(folder=str(Path(__file__).parent))
        try:
            self.pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-S", "-c", code],
                {"PATH": os.environ.get("PATH", os.defpath)},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, job, 0),
                    (os.POSIX_SPAWN_DUP2, report, 1),
                    (os.POSIX_SPAWN_DUP2, log, 2),
                    (os.POSIX_SPAWN_DUP2, lock, lock),
                ],
                setsid=True,
                setsigmask=[],
            )
        finally:
            for fd in (job, report, log):
                os.close(fd)
        self._lock = lock

    def begin(self, fields: Fields) -> None:
        """Give it its job and wait until the command runs. Raises `EngineError` when it can't."""
        pairs = [*fields, ("lock", str(self._lock)), ("end", "")]
        data = b"".join(_bytes(key) + b"\0" + _bytes(value) + b"\0" for key, value in pairs)
        self._write(data)
        word = self._read_report()
        if not word.startswith("started"):
            os.waitpid(self.pid, 0)
            reason = word.removeprefix("failed ").strip() or "its shim ended early"
            raise EngineError(f"the process could not be started: {reason}.")

    def give_up(self) -> None:
        """Without a whole job it ends by itself."""
        self.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    def close(self) -> None:
        for fd in (self._job, self._report):
            if fd >= 0:
                os.close(fd)
        self._job, self._report = -1, -1

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._job, view) :]
        except BrokenPipeError:
            return  # it has ended; the report says so
        finally:
            os.close(self._job)
            self._job = -1

    def _read_report(self) -> str:
        deadline = time.monotonic() + _REPORT_TIMEOUT_S
        text = b""
        poll = select.poll()
        poll.register(self._report, select.POLLIN)
        while not text.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                raise EngineError(f"the process did not start within {_REPORT_TIMEOUT_S:.0f} s.")
            chunk = os.read(self._report, 4096)
            if not chunk:
                break
            text += chunk
        return text.decode(errors="replace").strip()


def _bytes(value: str | bytes) -> bytes:
    data = value if isinstance(value, bytes) else os.fsencode(value)
    if b"\0" in data:
        raise EngineError("an argument or variable holds a NUL byte; remove it.")
    return data
