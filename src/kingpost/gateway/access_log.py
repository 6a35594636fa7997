"""One JSON line for each inference request, written in batches off the event loop, rotated by size.

A full or slow disk never holds up a request: past a bound lines are dropped, and their number is
the next line. This is the seam where accounting will sit.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import time
from pathlib import Path
from typing import Final

import msgspec

_log = logging.getLogger(__name__)

FLUSH_S: Final = 0.25
MAX_FILE_BYTES: Final = 32 * 1024 * 1024
KEPT_FILES: Final = 4
_MAX_PENDING: Final = 100_000


Line = tuple[bytes, str, str, str, str, str, bytes, int, float, float | None, float, int, int, str]
"""(request id, key id, model id, action, deployment id, replica id, method, status, held, first
byte, total, bytes in, bytes out, ended), times in seconds. A plain tuple: one is made per request.

`ended`: ok, client_left, upstream_failed, timeout or refused.
"""


class AccessLog:
    """`start` begins writing; `stop` writes what is left."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pending: list[Line] = []
        self._dropped = 0
        self._task: asyncio.Task[None] | None = None
        self._fd = -1
        self._size = 0

    def add(self, line: Line) -> None:
        if len(self._pending) < _MAX_PENDING:
            self._pending.append(line)
        else:
            self._dropped += 1

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._write(self._take())
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            if self._pending:
                lines = self._take()
                await asyncio.shield(asyncio.to_thread(self._write, lines))

    def _take(self) -> list[bytes]:
        pending, self._pending = self._pending, []
        now = time.time()
        lines = [_render(line, now) for line in pending]
        if self._dropped:
            lines.append(b'{"dropped_lines":%d}' % self._dropped)
            self._dropped = 0
        return lines

    def _write(self, lines: list[bytes]) -> None:
        if not lines:
            return
        blob = b"\n".join(lines) + b"\n"
        try:
            if self._fd < 0:
                self._open()
            elif self._size + len(blob) > MAX_FILE_BYTES:
                self._rotate()
            self._size += os.write(self._fd, blob)
        except OSError as error:
            _log.warning("access log not written", extra={"error": str(error)})

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._fd).st_size

    def _rotate(self) -> None:
        os.close(self._fd)
        self._fd = -1
        for number in range(KEPT_FILES - 1, 0, -1):
            older = self._path.with_name(f"{self._path.name}.{number}")
            if older.exists():
                older.replace(self._path.with_name(f"{self._path.name}.{number + 1}"))
        self._path.replace(self._path.with_name(f"{self._path.name}.1"))
        self._open()


def _render(line: Line, now: float) -> bytes:
    """`now`, of the writing, is at most about `FLUSH_S` after the request's end."""
    request_id, key, model, action, deployment, replica, method = line[:7]
    status, held_s, ttfb_s, total_s, bytes_in, bytes_out, ended = line[7:]
    return (
        b'{"time":%.3f,"request_id":"%b",%b,"status":%d,"held_ms":%.2f,"ttfb_ms":%b,'
        b'"total_ms":%.2f,"bytes_in":%d,"bytes_out":%d,"ended":"%b"}'
        % (
            now,
            request_id,
            _names(key, model, action, deployment, replica, method),
            status,
            held_s * 1000,
            b"null" if ttfb_s is None else b"%.2f" % (ttfb_s * 1000),
            total_s * 1000,
            bytes_in,
            bytes_out,
            ended.encode(),
        )
    )


@functools.lru_cache(maxsize=4096)
def _names(
    key: str, model: str, action: str, deployment: str, replica: str, method: bytes
) -> bytes:
    names = {
        "key": key,
        "model": model,
        "deployment": deployment,
        "replica": replica,
        "method": method.decode(),
        "action": action,
    }
    return msgspec.json.encode(names)[1:-1]
