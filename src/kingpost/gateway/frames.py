"""Frames of the link to the control plane: a 4-byte big-endian length and that much MessagePack."""

from __future__ import annotations

from typing import Final

import msgspec

from kingpost.messages import MAX_FRAME_BYTES, ToControl, ToGateway

_HEADER_BYTES: Final = 4
_encoder = msgspec.msgpack.Encoder()


def frame(message: ToGateway | ToControl) -> bytes:
    body = _encoder.encode(message)
    return len(body).to_bytes(_HEADER_BYTES, "big") + body


class Framer:
    """Cuts a byte stream into the bodies of its frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Raises `ValueError` for a frame larger than `MAX_FRAME_BYTES`."""
        buffer = self._buffer
        buffer += data
        bodies = []
        at = 0
        while len(buffer) - at >= _HEADER_BYTES:
            size = int.from_bytes(buffer[at : at + _HEADER_BYTES], "big")
            if size > MAX_FRAME_BYTES:
                raise ValueError(f"a frame of {size} bytes is larger than {MAX_FRAME_BYTES}")
            start = at + _HEADER_BYTES
            if len(buffer) - start < size:
                break
            bodies.append(bytes(buffer[start : start + size]))
            at = start + size
        del buffer[:at]
        return bodies
