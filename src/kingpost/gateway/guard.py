"""The strict checks that llhttp leaves to us, so that one request can never be read as another.

Pure functions over one message head. Anything that two HTTP implementations could read in two ways
is refused here rather than repaired.
"""

from __future__ import annotations

from typing import Final

from kingpost.gateway.answers import Refusal

MAX_HEAD_BYTES: Final = 64 * 1024
MAX_HEADERS: Final = 200
MAX_TARGET_BYTES: Final = 16 * 1024

H2_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\n"

_HOST_BYTES: Final = frozenset(
    b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._:[]"
)


def bad(message: str) -> Refusal:
    return Refusal(400, message, close=True)


def request_line(line: bytes) -> tuple[bytes, bytes, int]:
    """(method, target, minor version). Must be exactly `method SP target SP HTTP/1.x`."""
    parts = line.split(b" ")
    version = parts[-1]
    if version == b"HTTP/1.1":
        minor = 1
    elif version == b"HTTP/1.0":
        minor = 0
    else:
        raise Refusal(505, "This server speaks HTTP/1.1 and HTTP/1.0.", close=True)
    if len(parts) != 3 or not parts[1]:
        raise bad("The request line must be a method, a target and a version, one space between.")
    if b"#" in parts[1]:
        raise bad("A request target has no fragment; encode '#' as %23.")
    return parts[0], parts[1], minor


def no_host(minor: int) -> bytes:
    """The host of a request that names none: `localhost` for HTTP/1.0 (load balancers' checks)."""
    if minor:
        raise bad("A request has exactly one Host header; this one has none.")
    return b"localhost"


def is_host(host: bytes) -> bool:
    """Whether it has only the characters of a host name or address with an optional port."""
    return bool(host) and _HOST_BYTES.issuperset(host)


def check_coding(coding: bytes, length: int, minor: int) -> None:
    """A request's Transfer-Encoding must be `chunked`, alone."""
    if length >= 0:
        raise bad("A request has a Content-Length or a Transfer-Encoding, not both.")
    if not minor:
        raise bad("HTTP/1.0 has no Transfer-Encoding; send a Content-Length.")
    if coding.lower() != b"chunked":
        raise Refusal(501, "The only Transfer-Encoding taken here is 'chunked'.", close=True)


def content_length(value: bytes) -> int:
    """Raises `Refusal` unless it is a plain decimal number of at most 18 digits."""
    if not value.isdigit() or len(value) > 18:
        raise bad("A message has one Content-Length, a plain decimal number.")
    return int(value)


def partial_head(data: bytearray) -> None:
    """Refuse a head that can't become a good one, without waiting for its end."""
    if len(data) > MAX_HEAD_BYTES:
        raise oversized(data)
    if data.count(b"\n") != data.count(b"\r\n"):
        raise bad("Header lines end with CRLF; this request has a bare line feed.")
    if b"\x00" in data:
        raise bad("A NUL byte has no place in a request head.")


def oversized(data: bytes | bytearray) -> Refusal:
    """Which limit a head of more than `MAX_HEAD_BYTES` passes: its target's or its headers'."""
    end = data.find(b"\r\n")
    if end < 0 or end > MAX_TARGET_BYTES:
        return Refusal(
            414, f"The request line is longer than {MAX_TARGET_BYTES} bytes.", close=True
        )
    return Refusal(431, f"The headers are larger than {MAX_HEAD_BYTES} bytes.", close=True)
