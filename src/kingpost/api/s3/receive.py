"""A request's body into a file, with its size and checksums checked. Nothing stays of a bad one."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import re
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from starlette.requests import Request

from kingpost.api.s3.chunked import ChunkDecoder, ChunkError
from kingpost.api.s3.errors import S3Error, invalid, too_large

UNSIGNED: Final = "UNSIGNED-PAYLOAD"
UNSIGNED_TRAILER: Final = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
_BATCH_BYTES: Final = 1024 * 1024
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Received:
    path: Path
    size_bytes: int
    md5: str
    """Hex; what S3 calls the ETag of a part or of an object sent at once."""


def declared_size(request: Request) -> int:
    """Bytes that the body holds once decoded, as the client says. Raises S3Error without it."""
    name = "x-amz-decoded-content-length" if _is_chunked(request) else "content-length"
    text = request.headers.get(name, "")
    if not text.isascii() or not text.isdigit():
        raise S3Error(411, "MissingContentLength", f"The {name} header is needed.")
    return int(text)


async def receive(request: Request, target: Path, limit_bytes: int) -> Received:
    """Write the body to `target`, which must not exist. Raises S3Error, OSError."""
    size = declared_size(request)
    if size > limit_bytes:
        raise too_large(limit_bytes)
    expected_sha256 = _expected_sha256(request)
    trailers: dict[str, str] = {}
    try:
        with await asyncio.to_thread(target.open, "xb") as file:
            sink = _Sink(file, size)
            async for batch in _batches(_decoded(request, trailers)):
                await asyncio.to_thread(sink.write, batch)
        sink.check(expected_sha256, {**trailers, **request.headers})
    except BaseException:
        _remove(target)
        raise
    return Received(target, size, sink.md5.hexdigest())


class _Sink:
    """Writes and sums up at once; called in a thread."""

    def __init__(self, file: BinaryIO, announced_bytes: int) -> None:
        self._file = file
        self._left = announced_bytes
        self.md5 = hashlib.md5(usedforsecurity=False)
        self.sha256 = hashlib.sha256()
        self.crc32 = 0

    def write(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            raise invalid("The body is longer than announced.", "IncompleteBody")
        self._file.write(data)
        self.md5.update(data)
        self.sha256.update(data)
        self.crc32 = zlib.crc32(data, self.crc32)

    def check(self, expected_sha256: str | None, said: dict[str, str]) -> None:
        """Against the signed hash, and those checksums of `said` that are known here."""
        if self._left:
            raise invalid("The body is shorter than announced.", "IncompleteBody")
        if expected_sha256 and not hmac.compare_digest(expected_sha256, self.sha256.hexdigest()):
            raise invalid(
                "The body is not the one whose hash was signed. Send it again.",
                "XAmzContentSHA256Mismatch",
            )
        actual = {
            "content-md5": self.md5.digest(),
            "x-amz-checksum-crc32": self.crc32.to_bytes(4, "big"),
            "x-amz-checksum-sha256": self.sha256.digest(),
        }
        for name, digest in actual.items():
            if name in said and said[name] != base64.b64encode(digest).decode():
                raise invalid(
                    f"The body does not have the checksum that {name} says. Send it again.",
                    "BadDigest",
                )


async def _decoded(request: Request, trailers: dict[str, str]) -> AsyncIterator[bytes]:
    if not _is_chunked(request):
        async for piece in request.stream():
            yield piece
        return
    decoder = ChunkDecoder()
    try:
        async for piece in request.stream():
            for data in decoder.feed(piece):
                yield data
    except ChunkError as error:
        raise invalid(f"The body is not aws-chunked: {error}.") from error
    if not decoder.complete:
        raise invalid("The body ends before its last chunk.", "IncompleteBody")
    trailers.update(decoder.trailers)


async def _batches(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Few large writes instead of many small ones: each costs a turn of a thread."""
    waiting: list[bytes] = []
    size = 0
    async for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= _BATCH_BYTES:
            yield b"".join(waiting)
            waiting.clear()
            size = 0
    if size:
        yield b"".join(waiting)


def _expected_sha256(request: Request) -> str | None:
    text = request.headers.get("x-amz-content-sha256", "")
    if _SHA256.fullmatch(text):
        return text
    if text in {UNSIGNED, UNSIGNED_TRAILER}:
        return None
    raise S3Error(
        501,
        "NotImplemented",
        "This way of signing the body is not available here. Send its SHA-256 as "
        f"x-amz-content-sha256, or {UNSIGNED}, or {UNSIGNED_TRAILER}.",
    )


def _is_chunked(request: Request) -> bool:
    encodings = request.headers.get("content-encoding", "").lower().split(",")
    return "aws-chunked" in {encoding.strip() for encoding in encodings} or (
        request.headers.get("x-amz-content-sha256") == UNSIGNED_TRAILER
    )


def _remove(file: Path) -> None:
    file.unlink(missing_ok=True)
