"""The chunked transfer coding, read strictly and passed on in canonical form or without framing.

Chunk boundaries are kept and data is passed on in the call in which it comes. Extensions and
trailers are dropped. No I/O.
"""

from __future__ import annotations

from typing import Final

_SIZE: Final = 0
_DATA: Final = 1
_DATA_END: Final = 2
_TRAILER: Final = 3
_DONE: Final = 4

_MAX_LINE_BYTES: Final = 4096
_MAX_TRAILER_BYTES: Final = 16 * 1024
_HEX: Final = frozenset(b"0123456789abcdefABCDEF")


class ChunkedBody:
    """Reads one body. `payload_bytes` counts the data seen so far, without framing.

    With `framed` what comes out is chunked again, else it is the plain data.
    """

    __slots__ = ("_framed", "_left", "_line", "_state", "_trailer_bytes", "payload_bytes")

    def __init__(self, *, framed: bool = True) -> None:
        self._framed = framed
        self._state = _SIZE
        self._left = 0
        self._line = b""
        self._trailer_bytes = 0
        self.payload_bytes = 0

    def feed(self, data: bytes) -> tuple[bytes, bool, bytes]:
        """(what to pass on, whether the body has ended, the bytes after its end).

        Raises `ValueError` when the bytes are not the chunked coding.
        """
        if self._state == _SIZE and self._framed and not self._line and self._one_chunk(data):
            return data, False, b""
        out: list[bytes] = []
        at = 0
        end = len(data)
        while at < end and self._state != _DONE:
            if self._state == _DATA:
                take = min(self._left, end - at)
                out.append(data[at : at + take])
                self.payload_bytes += take
                self._left -= take
                at += take
                if self._left == 0:
                    self._state = _DATA_END
            else:
                at = self._take_line(data, at, out)
        done = self._state == _DONE
        return b"".join(out), done, data[at:] if done else b""

    def _one_chunk(self, data: bytes) -> bool:
        """Whether this is just one whole chunk in canonical form, as a streamed event mostly is."""
        line_end = data.find(b"\r\n", 1, 18)
        size = len(data) - line_end - 4
        if size < 1 or data[:line_end] != b"%x" % size or data[-2:] != b"\r\n":
            return False
        self.payload_bytes += size
        return True

    def _take_line(self, data: bytes, at: int, out: list[bytes]) -> int:
        found = data.find(b"\n", at)
        stop = len(data) if found < 0 else found + 1
        line = self._line + data[at:stop] if self._line else data[at:stop]
        if len(line) > _MAX_LINE_BYTES:
            raise ValueError("a line of the chunked coding is too long")
        if found < 0:
            if self._state == _DATA_END and not b"\r\n".startswith(line):
                raise ValueError("chunk data does not end where its size says")
            self._line = line
            return stop
        if line[-2:] != b"\r\n":
            raise ValueError("a line of the chunked coding ends with a bare line feed")
        self._line = b""
        self._handle(line[:-2], out)
        return stop

    def _handle(self, line: bytes, out: list[bytes]) -> None:
        if self._state == _DATA_END:
            if line:
                raise ValueError("chunk data does not end where its size says")
            if self._framed:
                out.append(b"\r\n")
            self._state = _SIZE
        elif self._state == _SIZE:
            self._left = size = _chunk_size(line)
            self._state = _DATA if size else _TRAILER
            if self._framed and size:
                out.append(b"%x\r\n" % size)
        elif line:
            self._trailer_bytes += len(line)
            if self._trailer_bytes > _MAX_TRAILER_BYTES:
                raise ValueError("the trailers are too large")
        else:
            self._state = _DONE
            if self._framed:
                out.append(b"0\r\n\r\n")


def _chunk_size(line: bytes) -> int:
    digits, _, extension = line.partition(b";")
    digits = digits.rstrip(b" \t") if extension else digits
    if not 0 < len(digits) <= 15 or not _HEX.issuperset(digits):
        raise ValueError("a chunk's size is not a hexadecimal number")
    if b"\r" in extension or b"\x00" in extension:
        raise ValueError("a chunk's extension holds a control character")
    return int(digits, 16)
