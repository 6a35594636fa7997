"""Writes a replica's or a build's output as bounded, rotated segments; `logfile` reads them.

One line is `<epoch ns> <o|e|b> <text>`. The shim imports this file alone, so it takes only modules
that cost nothing to import.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MAX_TEXT_BYTES = 64 * 1024
MIN_LIMIT_BYTES = 1024 * 1024
SEGMENTS = 8
SUFFIX = ".log"
KINDS = (b"o", b"e", b"b")
"""stdout, stderr, and the platform's own lines (or a build's)."""


class LogWriter:
    """Appends to a folder, and deletes its oldest segments so that it stays within the limit.

    `limit_bytes` below 1 MiB counts as 1 MiB. Times never go back, also when the clock does.
    A full disk loses lines, says so when there is room again, and never raises.
    """

    def __init__(
        self, folder: str, limit_bytes: int, *, clock: Callable[[], int] = time.time_ns
    ) -> None:
        self._folder = folder
        self._limit = max(limit_bytes, MIN_LIMIT_BYTES)
        self._segment_bytes = self._limit // SEGMENTS
        self._clock = clock
        self._pending = dict.fromkeys(KINDS, b"")
        self._fd = -1
        self._size = 0
        self._lost = 0
        os.makedirs(folder, exist_ok=True)
        self._segments = _existing(folder)
        self._last_ns = self._segments[-1][0] if self._segments else 0

    def feed(self, kind: bytes, chunk: bytes) -> None:
        """Take raw output. An unfinished line waits for its end, for 64 KiB, or for `close`."""
        lines, rest = split(self._pending[kind] + chunk)
        self._pending[kind] = rest
        if lines:
            self._write(kind, lines)

    def line(self, kind: bytes, text: str) -> None:
        """Write text as whole lines, apart from what `feed` holds back."""
        lines, rest = split(text.encode(errors="replace"))
        if rest or not lines:
            lines.append(rest)
        self._write(kind, lines)

    def close(self) -> None:
        for kind, rest in self._pending.items():
            if rest:
                self._pending[kind] = b""
                self._write(kind, [rest])
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _write(self, kind: bytes, lines: list[bytes]) -> None:
        now = max(self._clock(), self._last_ns)
        self._last_ns = now
        if self._lost:
            lost, self._lost = self._lost, 0
            self._append(now, b"b", [b"%d bytes of output were lost: the disk was full" % lost])
        self._append(now, kind, lines)

    def _append(self, now: int, kind: bytes, lines: list[bytes]) -> None:
        prefix = b"%d %s " % (now, kind)
        block = prefix + (b"\n" + prefix).join(lines) + b"\n"
        while block:
            room = self._segment_bytes - self._size if self._fd >= 0 else 0
            if len(block) <= room:
                piece, block = block, b""
            else:
                cut = block.rfind(b"\n", 0, max(room, 0)) + 1
                if cut == 0:
                    if not self._rotate(now):
                        self._lost += len(block)
                        return
                    continue
                piece, block = block[:cut], block[cut:]
            if not self._put(piece):
                self._lost += len(piece) + len(block)
                return

    def _put(self, piece: bytes) -> bool:
        written = 0
        try:
            while written < len(piece):
                written += os.write(self._fd, piece[written:])
        except OSError:
            # A torn line would join the next one: take back what was written of this piece.
            try:
                os.ftruncate(self._fd, self._size)
            except OSError:
                os.close(self._fd)
                self._fd = -1
            return False
        self._size += written
        return True

    def _rotate(self, now: int) -> bool:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._segments[-1] = (*self._segments[-1][:2], self._size)
        total = sum(size for _, _, size in self._segments)
        while self._segments and total + self._segment_bytes > self._limit:
            _, path, size = self._segments.pop(0)
            total -= size
            try:
                os.unlink(path)
            except OSError:
                continue
        start = max(now, self._segments[-1][0] + 1 if self._segments else 0)
        path = os.path.join(self._folder, f"{start}{SUFFIX}")
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._fd = os.open(path, flags, 0o600)
        except OSError:
            return False
        self._size = os.fstat(self._fd).st_size
        self._segments.append((start, path, self._size))
        return True


def split(data: bytes) -> tuple[list[bytes], bytes]:
    """Whole lines, none longer than 64 KiB, and the unfinished rest (shorter than 64 KiB).

    A longer line is cut into several, between characters where it is UTF-8.
    """
    lines = data.split(b"\n")
    rest = lines.pop()
    if len(rest) >= MAX_TEXT_BYTES or (lines and max(map(len, lines)) > MAX_TEXT_BYTES):
        lines = [piece for line in lines for piece in _cut(line)]
        *whole, rest = _cut(rest)
        lines += whole
    return lines, rest


def size_text(count: int) -> str:
    """A size for people: `512 MiB`."""
    for unit, name in ((1024**3, "GiB"), (1024**2, "MiB")):
        if count >= unit:
            return f"{count / unit:.4g} {name}"
    return f"{count} bytes"


def segments(folder: str) -> list[tuple[int, str]]:
    """(start in ns, path) of a folder's segments, oldest first; empty when there is none."""
    found = []
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    for name in names:
        stem = name[: -len(SUFFIX)]
        if name.endswith(SUFFIX) and stem.isascii() and stem.isdigit():
            found.append((int(stem), os.path.join(folder, name)))
    return sorted(found)


def _existing(folder: str) -> list[tuple[int, str, int]]:
    found = []
    for start, path in segments(folder):
        try:
            found.append((start, path, os.stat(path).st_size))
        except OSError:
            continue
    return found


def _cut(line: bytes) -> list[bytes]:
    pieces = []
    while len(line) > MAX_TEXT_BYTES:
        at = MAX_TEXT_BYTES
        while at > MAX_TEXT_BYTES - 4 and line[at] & 0xC0 == 0x80:
            at -= 1
        pieces.append(line[:at])
        line = line[at:]
    pieces.append(line)
    return pieces
