"""The `aws-chunked` body encoding with unsigned chunks and trailers. Pure, fed piece by piece.

A chunk is `<hex size>[;extensions] CRLF <data> CRLF`; a chunk of size 0 ends the data, then come
trailers, one per line, and an empty line.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto
from typing import Final

MAX_LINE_BYTES: Final = 8 * 1024
MAX_TRAILERS: Final = 20


class ChunkError(ValueError):
    """The body is not in this encoding."""


class _Expect(Enum):
    SIZE = auto()
    DATA = auto()
    DATA_END = auto()
    TRAILER = auto()
    NOTHING = auto()


class ChunkDecoder:
    """`feed` gives the data; after the end `trailers` holds the trailers, names in lower case."""

    def __init__(self) -> None:
        self.trailers: dict[str, str] = {}
        self._buffer = bytearray()
        self._expect = _Expect.SIZE
        self._left = 0

    @property
    def complete(self) -> bool:
        return self._expect is _Expect.NOTHING

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Raises ChunkError at the first byte that does not fit."""
        self._buffer += piece
        while True:
            if self._expect is _Expect.DATA:
                data = bytes(self._buffer[: self._left])
                del self._buffer[: len(data)]
                self._left -= len(data)
                if data:
                    yield data
                if self._left:
                    return
                self._expect = _Expect.DATA_END
            elif self.complete:
                if self._buffer:
                    raise ChunkError("there is something behind the last chunk")
                return
            else:
                line = self._line()
                if line is None:
                    return
                self._take(line)

    def _take(self, line: bytes) -> None:
        if self._expect is _Expect.DATA_END:
            if line:
                raise ChunkError("a chunk is longer than its size says")
            self._expect = _Expect.SIZE
        elif self._expect is _Expect.SIZE:
            digits = line.partition(b";")[0].strip()
            if not digits or len(digits) > 16 or digits.strip(b"0123456789abcdefABCDEF"):
                raise ChunkError("a chunk does not begin with its size")
            self._left = int(digits, 16)
            self._expect = _Expect.DATA if self._left else _Expect.TRAILER
        elif not line:
            self._expect = _Expect.NOTHING
        else:
            name, colon, value = line.decode("latin-1").partition(":")
            name = name.strip().lower()
            if not colon or name in self.trailers or len(self.trailers) >= MAX_TRAILERS:
                raise ChunkError("a trailer can't be read")
            self.trailers[name] = value.strip()

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\n")
        if end < 0:
            if len(self._buffer) > MAX_LINE_BYTES:
                raise ChunkError("a line is too long")
            return None
        if end > MAX_LINE_BYTES:
            raise ChunkError("a line is too long")
        line = bytes(self._buffer[:end]).removesuffix(b"\r")
        del self._buffer[: end + 1]
        return line
