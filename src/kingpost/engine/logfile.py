"""Reads the segments that `logwriter` writes: by time range, either way round, and as they grow.

One line is `<epoch ns> <o|e|b> <text>`, a segment is `<start ns>.log`. What is not such a line
(a torn last one, say) is passed over.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

from kingpost.engine.logwriter import KINDS, MAX_TEXT_BYTES, LogWriter, segments

__all__ = [
    "MAX_TEXT_BYTES",
    "Line",
    "LogWriter",
    "follow",
    "last_lines",
    "parse_line",
    "read_lines",
]

_KINDS = frozenset(kind.decode() for kind in KINDS)
_BLOCK_BYTES = 256 * 1024
_FOLLOW_INTERVAL_S = 0.1


class Line(NamedTuple):
    """`kind` is `o` (stdout), `e` (stderr) or `b` (the platform, or a build)."""

    at_ns: int
    kind: str
    text: str


def parse_line(raw: bytes) -> Line | None:
    """One line without its newline, or None when it is not one of ours."""
    head, _, rest = raw.partition(b" ")
    kind, space, text = rest.partition(b" ")
    if not space or not head.isdigit() or len(head) > 20:
        return None
    name = kind.decode(errors="replace")
    return Line(int(head), name, text.decode(errors="replace")) if name in _KINDS else None


def read_lines(
    folder: Path | str,
    *,
    start_ns: int | None = None,
    end_ns: int | None = None,
    newest_first: bool = True,
    limit: int | None = 500,
) -> list[Line]:
    """Lines with `start_ns <= at_ns < end_ns`, at most `limit` counted from the end asked for."""
    low = 0 if start_ns is None else start_ns
    ways = _newest_first if newest_first else _oldest_first
    return list(islice(ways(str(folder), low, end_ns), limit))


def last_lines(folder: Path | str, count: int) -> list[Line]:
    """The last lines, oldest of them first, as a person reads them."""
    return read_lines(folder, limit=count)[::-1]


async def follow(
    folder: Path | str, *, start_ns: int = 0, ended: Callable[[], bool] = lambda: False
) -> AsyncIterator[Line]:
    """Lines from `start_ns` on, and new ones as they come, until `ended()` and all is read."""
    current, offset = -1, 0
    while True:
        last_round = ended()
        known = segments(str(folder))
        later = [start for start, _ in known]
        for index, (start, path) in enumerate(known):
            if start < current or (index + 1 < len(known) and later[index + 1] <= start_ns):
                continue
            if start > current:
                current, offset = start, 0
            lines, offset = await asyncio.to_thread(_read_from, path, offset)
            for line in lines:
                if line.at_ns >= start_ns:
                    yield line
        if last_round:
            return
        await asyncio.sleep(_FOLLOW_INTERVAL_S)


def _read_from(path: str, offset: int) -> tuple[list[Line], int]:
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            data = file.read()
    except OSError:
        return [], offset
    whole = data[: data.rfind(b"\n") + 1]
    parsed = map(parse_line, whole.split(b"\n"))
    return [line for line in parsed if line is not None], offset + len(whole)


def _oldest_first(folder: str, low: int, high: int | None) -> Iterator[Line]:
    known = segments(folder)
    for index, (start, path) in enumerate(known):
        if high is not None and start >= high:
            return
        if index + 1 < len(known) and known[index + 1][0] < low:
            continue
        try:
            with open(path, "rb") as file:
                _seek(file, low)
                for raw in file:
                    line = parse_line(raw[:-1]) if raw.endswith(b"\n") else None
                    if line is None or line.at_ns < low:
                        continue
                    if high is not None and line.at_ns >= high:
                        break
                    yield line
        except OSError:
            continue


def _newest_first(folder: str, low: int, high: int | None) -> Iterator[Line]:
    for start, path in reversed(segments(folder)):
        if high is not None and start >= high:
            continue
        try:
            with open(path, "rb") as file:
                for raw in _backwards(file):
                    line = parse_line(raw)
                    if line is None or (high is not None and line.at_ns >= high):
                        continue
                    if line.at_ns < low:
                        return
                    yield line
        except OSError:
            continue


def _backwards(file: BinaryIO) -> Iterator[bytes]:
    """The whole lines of a file, last first."""
    position = file.seek(0, 2)
    tail = b""
    ends_whole = False
    while position > 0:
        step = min(_BLOCK_BYTES, position)
        position -= step
        file.seek(position)
        parts = (file.read(step) + tail).split(b"\n")
        if not ends_whole:
            if len(parts) == 1:  # what follows the last newline is a torn line
                tail = b""
                continue
            parts.pop()
            ends_whole = True
        tail = parts[0]
        yield from reversed(parts[1:])
    if ends_whole:
        yield tail


def _seek(file: BinaryIO, low: int) -> None:
    """Go to a line's beginning so that no line of `low` or later lies before it."""
    begin, end = 0, file.seek(0, 2)
    while end - begin > _BLOCK_BYTES:
        middle = (begin + end) // 2
        file.seek(middle)
        file.readline()
        at = file.tell()
        line = parse_line(file.readline().rstrip(b"\n"))
        if line is None or line.at_ns >= low:
            end = middle
        else:
            begin = at
    file.seek(begin)
