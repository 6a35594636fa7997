"""One request head and one response head: parsed by httptools, checked by guard, ready to forward.

A fresh parser sees exactly one head, never a body, so that nothing is carried from one message to
the next and a trailer can't become a header.
"""

from __future__ import annotations

from typing import Any, Final

import httptools

from kingpost.gateway import guard
from kingpost.gateway.answers import Refusal

_PLAIN: Final = 0
_DROP: Final = 1
_HOST: Final = 2
_CONTENT_LENGTH: Final = 3
_TRANSFER_ENCODING: Final = 4
_CONNECTION: Final = 5
_EXPECT: Final = 6
_UPGRADE: Final = 7
_AUTHORIZATION: Final = 8
_TIMEOUT: Final = 9
_KEEP_ALIVE: Final = 10
_ERROR_SOURCE: Final = 11
_ERROR_CODE: Final = 12

_HOP_BY_HOP: Final = (
    b"keep-alive",
    b"proxy-connection",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"te",
    b"trailer",
    b"trailers",
    b"http2-settings",
)
# Set by the gateway and never taken from outside.
_OURS: Final = (
    b"forwarded",
    b"x-real-ip",
    b"x-baseten-request-id",
)
_OUR_PREFIXES: Final = (b"x-forwarded-", b"x-kingpost-")

_REQUEST_KINDS: Final[dict[bytes, int]] = {
    **dict.fromkeys(_HOP_BY_HOP + _OURS, _DROP),
    b"host": _HOST,
    b"content-length": _CONTENT_LENGTH,
    b"transfer-encoding": _TRANSFER_ENCODING,
    b"connection": _CONNECTION,
    b"expect": _EXPECT,
    b"upgrade": _UPGRADE,
    b"authorization": _AUTHORIZATION,
    b"request-timeout-ms": _TIMEOUT,
}
_RESPONSE_KINDS: Final[dict[bytes, int]] = {
    **dict.fromkeys(_HOP_BY_HOP, _DROP),
    b"x-baseten-request-id": _DROP,
    b"content-length": _CONTENT_LENGTH,
    b"transfer-encoding": _TRANSFER_ENCODING,
    b"connection": _CONNECTION,
    b"upgrade": _UPGRADE,
    b"keep-alive": _KEEP_ALIVE,
    b"x-baseten-error-source": _ERROR_SOURCE,
    b"x-baseten-error-code": _ERROR_CODE,
}

_MAX_CACHED_NAMES: Final = 1024
_request_names: dict[bytes, int] = {}
_response_names: dict[bytes, int] = {}


class RequestHead:
    """What the gateway needs of a request, and `lines`, the header lines to forward as they are.

    `content_length` is 0 when there is no body; `upgrade` is the protocol asked for, or empty.
    """

    __slots__ = (
        "authorization",
        "chunked",
        "codings",
        "connection",
        "content_length",
        "expect",
        "host",
        "hosts",
        "keep_alive",
        "lengths",
        "lines",
        "method",
        "minor",
        "target",
        "timeout_ms",
        "upgrade",
    )

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.hosts: list[bytes] = []
        self.lengths: list[bytes] = []
        self.codings: list[bytes] = []
        self.target = b""
        self.connection = b""
        self.authorization = b""
        self.expect = b""
        self.upgrade = b""
        self.timeout_ms = b""

        self.method = b""
        self.host = b""
        self.minor = 1
        self.content_length = 0
        self.chunked = False
        self.keep_alive = True

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes | None) -> None:
        kind = _request_names.get(name)
        if kind is None:
            kind = _classify(name, _REQUEST_KINDS, _request_names)
        if kind == _PLAIN:
            self.lines.append(b"%b: %b\r\n" % (name, value or b""))
        elif kind != _DROP:
            self._note(kind, name, (value or b"").strip(b" \t"))

    def _note(self, kind: int, name: bytes, value: bytes) -> None:
        if kind == _HOST:
            self.hosts.append(value)
        elif kind == _AUTHORIZATION:
            if self.authorization:
                raise guard.bad("A request has at most one Authorization header.")
            self.authorization = value
            self.lines.append(b"%b: %b\r\n" % (name, value))
        elif kind == _CONTENT_LENGTH:
            self.lengths.append(value)
        elif kind == _CONNECTION:
            self.connection = self.connection + b"," + value if self.connection else value
        elif kind == _TRANSFER_ENCODING:
            self.codings.append(value)
        elif kind == _EXPECT:
            self.expect = value.lower()
        elif kind == _UPGRADE:
            self.upgrade = value.lower()
        else:
            self.timeout_ms = value
            self.lines.append(b"%b: %b\r\n" % (name, value))


class ResponseHead:
    """What the gateway needs of an upstream's answer. `content_length` is None when not given."""

    __slots__ = (
        "chunked",
        "codings",
        "connection",
        "content_length",
        "error_code",
        "error_source",
        "idle_hint",
        "keep_alive",
        "lengths",
        "lines",
        "status",
        "upgrade",
    )

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.lengths: list[bytes] = []
        self.codings: list[bytes] = []
        self.connection = b""
        self.upgrade = b""
        self.idle_hint = b""
        self.error_source = b""
        self.error_code = b""
        self.status = 0
        self.content_length: int | None = None
        self.chunked = False
        self.keep_alive = True

    def on_header(self, name: bytes, value: bytes | None) -> None:
        kind = _response_names.get(name)
        if kind is None:
            kind = _classify(name, _RESPONSE_KINDS, _response_names)
        if kind == _PLAIN:
            self.lines.append(b"%b: %b\r\n" % (name, value or b""))
        elif kind != _DROP:
            self._note(kind, name, (value or b"").strip(b" \t"))

    def _note(self, kind: int, name: bytes, value: bytes) -> None:
        if kind == _CONTENT_LENGTH:
            self.lengths.append(value)
        elif kind == _TRANSFER_ENCODING:
            self.codings.append(value.lower())
        elif kind == _CONNECTION:
            self.connection = self.connection + b"," + value if self.connection else value
        elif kind == _UPGRADE:
            self.upgrade = value
        elif kind == _KEEP_ALIVE:
            self.idle_hint = value
        else:
            if kind == _ERROR_SOURCE:
                self.error_source = value
            else:
                self.error_code = value
            self.lines.append(b"%b: %b\r\n" % (name, value))


def parse_request(raw: bytes) -> RequestHead:
    """`raw` is one head, up to and with its empty line. Raises `Refusal`, always with `close`."""
    line_end = raw.find(b"\r\n")
    if line_end > guard.MAX_TARGET_BYTES or len(raw) > guard.MAX_HEAD_BYTES:
        raise guard.oversized(raw)
    head = RequestHead()
    parser = httptools.HttpRequestParser(head)
    _feed(parser, raw)
    head.method = method = parser.get_method()
    head.minor = minor = guard.http_minor(raw[:line_end], method, head.target)
    if raw.count(b"\r\n") > guard.MAX_HEADERS + 2:
        raise Refusal(431, f"A request has at most {guard.MAX_HEADERS} headers.", close=True)
    head.host = guard.check_host(head.hosts, minor)
    if head.lengths or head.codings:
        head.content_length, head.chunked = guard.check_framing(head.lengths, head.codings, minor)
    head.keep_alive = minor == 1
    if head.connection or head.upgrade:
        _read_connection(head)
    return head


def parse_response(raw: bytes) -> ResponseHead:
    """`raw` is one head, up to and with its empty line. Raises `ValueError` for anything else."""
    head = ResponseHead()
    parser = httptools.HttpResponseParser(head)
    try:
        parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        raise ValueError(f"not an HTTP answer: {error}") from None
    head.status = parser.get_status_code()
    version = raw[:9]
    if version not in {b"HTTP/1.1 ", b"HTTP/1.0 "} or not 100 <= head.status <= 599:
        raise ValueError("not an HTTP/1.x answer")
    if head.codings:
        if head.codings != [b"chunked"] or head.lengths:
            raise ValueError("an answer whose length is not clear")
        head.chunked = True
    elif head.lengths:
        if len(set(head.lengths)) > 1 or not head.lengths[0].isdigit():
            raise ValueError("an answer with a wrong Content-Length")
        head.content_length = int(head.lengths[0])
    head.keep_alive = version == b"HTTP/1.1 "
    if head.connection:
        tokens = _tokens(head.connection)
        if b"close" in tokens:
            head.keep_alive = False
        elif b"keep-alive" in tokens:
            head.keep_alive = True
        _drop_named(head.lines, tokens)
    return head


def _feed(parser: Any, raw: bytes) -> None:
    try:
        parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        cause = error.__context__
        if isinstance(cause, Refusal):
            raise cause from None
        if raw.startswith(b"PRI * HTTP/2"):
            raise Refusal(
                505, "HTTP/2 is not spoken here; use HTTP/1.1 (http_version=1).", close=True
            ) from None
        raise guard.bad(f"The request is not valid HTTP/1.1: {error}.") from None


def _read_connection(head: RequestHead) -> None:
    tokens = _tokens(head.connection)
    if b"close" in tokens:
        head.keep_alive = False
    elif b"keep-alive" in tokens:
        head.keep_alive = True
    if b"upgrade" not in tokens or head.minor == 0:
        head.upgrade = b""
    _drop_named(head.lines, tokens)


def _tokens(value: bytes) -> set[bytes]:
    return {token.strip(b" \t").lower() for token in value.split(b",")}


def _drop_named(lines: list[bytes], tokens: set[bytes]) -> None:
    """Headers that `Connection` names belong to one hop and are not forwarded."""
    named = tokens - {b"close", b"keep-alive", b"upgrade", b"", b"authorization"}
    if named:
        lines[:] = [line for line in lines if line.partition(b":")[0].lower() not in named]


def _classify(name: bytes, kinds: dict[bytes, int], cache: dict[bytes, int]) -> int:
    lower = name.lower()
    kind = kinds.get(lower, _PLAIN)
    if kind == _PLAIN:
        # Servers that see `_` as `-` must not be given what we refuse or set ourselves.
        dashed = lower.replace(b"_", b"-")
        if dashed.startswith(_OUR_PREFIXES) or (dashed != lower and dashed in kinds):
            kind = _DROP
    if len(cache) >= _MAX_CACHED_NAMES:
        cache.clear()
    cache[name] = kind
    return kind
