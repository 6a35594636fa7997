"""One request head and one response head: checked by llhttp and guard, read here, ready to forward.

A fresh llhttp parser sees exactly one head, never a body, so that nothing is carried from one
message to the next and a trailer can't become a header. What it has found well formed (CRLF line
ends, token names, no folding, no control characters) is cut at its line ends and colons: a callback
for each header would cost more than all the rest.
"""

from __future__ import annotations

from typing import Final

import httptools

from kingpost.gateway import guard
from kingpost.gateway.answers import STATUS_LINES, Refusal

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

_NEVER_DROPPED: Final = frozenset(
    {
        b"",
        b"close",
        b"keep-alive",
        b"upgrade",
        b"authorization",
        b"content-length",
        b"transfer-encoding",
    }
)
_VERSIONS: Final = frozenset({b"HTTP/1.1 ", b"HTTP/1.0 "})
_NOTHING: Final = object()  # has no method that a parser could call
_MAX_CACHED_NAMES: Final = 1024
_MAX_KEPT_BYTES: Final = 4096
_request_names: dict[bytes, int] = {}
_response_names: dict[bytes, int] = {}


class RequestHead:
    """What the gateway needs of a request, but for its length. Not changed once it is read.

    `lines` are the header lines to forward as they came. `length` is that of a `Content-Length`,
    -1 without one; `upgrade` is the protocol asked for, or empty. `prefix` is for who forwards it.
    """

    method = b""
    target = b""
    minor = 1
    host = b""
    authorization = b""
    length = -1
    chunked = False
    keep_alive = True
    expect = b""
    upgrade = b""
    timeout_ms = b""
    prefix = b""
    prefix_target = b""

    _connection = b""
    _coding = b""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def read(self, lines: list[bytes]) -> None:
        """Take the header lines, which llhttp has found well formed, after the request line."""
        forward = self.lines.append
        kind_of = _request_names.get
        for line in lines:
            name = line[: line.find(b":")]
            kind = kind_of(name)
            if kind is None:
                kind = _classify(name, _REQUEST_KINDS, _request_names)
            if kind == _PLAIN:
                forward(line)
            elif kind != _DROP:
                self._note(kind, line, line[len(name) + 1 :].strip(b" \t"))
        if not self.host:
            self.host = guard.no_host(self.minor)
        if self._coding:
            guard.check_coding(self._coding, self.length, self.minor)
            self.chunked = True
        if self.minor == 0:
            self.keep_alive = False
        if self._connection or self.upgrade:
            self._settle_connection()

    def _note(self, kind: int, line: bytes, value: bytes) -> None:
        if kind == _AUTHORIZATION:
            if self.authorization:
                raise guard.bad("A request has at most one Authorization header.")
            self.authorization = value or b" "
            self.lines.append(line)
        elif kind == _HOST:
            if self.host or not value:
                raise guard.bad("A request has exactly one Host header, and that is not empty.")
            self.host = value
        elif kind == _CONTENT_LENGTH:
            if self.length >= 0:
                raise guard.bad("A request has at most one Content-Length.")
            self.length = guard.content_length(value)
        elif kind == _CONNECTION:
            self._connection = self._connection + b"," + value if self._connection else value
        elif kind == _TIMEOUT:
            self.timeout_ms = value
            self.lines.append(line)
        elif kind == _TRANSFER_ENCODING:
            self._coding = self._coding + b"," + value if self._coding else value or b","
        elif kind == _EXPECT:
            self.expect = value.lower()
        else:
            self.upgrade = value.lower()

    def _settle_connection(self) -> None:
        tokens = _tokens(self._connection)
        if b"close" in tokens:
            self.keep_alive = False
        elif b"keep-alive" in tokens:
            self.keep_alive = True
        if b"upgrade" not in tokens or self.minor == 0:
            self.upgrade = b""
        _drop_named(self.lines, tokens)


class ResponseHead:
    """What the gateway needs of an upstream's answer, but for its length. Not changed once read.

    `block` is the status line and the header lines that go to the client, each with its line end.
    `length` is that of a `Content-Length`, -1 without one.
    """

    length = -1
    chunked = False
    keep_alive = True
    upgrade = b""
    idle_hint = b""
    error_source = b""
    error_code = b""
    block = b""

    _connection = b""

    def __init__(self, status: int) -> None:
        self.status = status

    def read(self, lines: list[bytes]) -> None:
        """Take the header lines. Raises `ValueError` for a length that is not clear."""
        forwarded = [STATUS_LINES[self.status]]
        forward = forwarded.append
        kind_of = _response_names.get
        for line in lines:
            name = line[: line.find(b":")]
            kind = kind_of(name)
            if kind is None:
                kind = _classify(name, _RESPONSE_KINDS, _response_names)
            if kind == _PLAIN:
                forward(line)
            elif kind != _DROP:
                if kind >= _ERROR_SOURCE:
                    forward(line)
                self._note(kind, line[len(name) + 1 :].strip(b" \t"))
        if self._connection:
            tokens = _tokens(self._connection)
            if b"close" in tokens:
                self.keep_alive = False
            elif b"keep-alive" in tokens:
                self.keep_alive = True
            _drop_named(forwarded, tokens)
        forward(b"")
        self.block = b"\r\n".join(forwarded)

    def _note(self, kind: int, value: bytes) -> None:
        if kind == _CONTENT_LENGTH:
            length = _answer_length(value)
            if self.chunked or self.length not in {-1, length}:
                raise ValueError("an answer whose length is not clear")
            self.length = length
        elif kind == _CONNECTION:
            self._connection = self._connection + b"," + value if self._connection else value
        elif kind == _TRANSFER_ENCODING:
            if value.lower() != b"chunked" or self.chunked or self.length >= 0:
                raise ValueError("an answer whose length is not clear")
            self.chunked = True
        elif kind == _UPGRADE:
            self.upgrade = value
        elif kind == _KEEP_ALIVE:
            self.idle_hint = value
        elif kind == _ERROR_SOURCE:
            self.error_source = value
        else:
            self.error_code = value


class RequestHeads:
    """Reads the heads of one connection.

    A client's requests are mostly alike but for their length, so the last head is kept: bytes that
    are the same, the first `Content-Length` line aside, need not be read again.
    """

    __slots__ = ("_head", "_key")

    def __init__(self) -> None:
        self._key = b""
        self._head = RequestHead()

    def read(self, raw: bytes) -> tuple[RequestHead, int]:
        """(head, content length or -1) of one head, up to and with its empty line.

        Raises `Refusal`, always with `close`.
        """
        key, value = _without_length(raw)
        if key == self._key:
            head = self._head
        else:
            if len(raw) > guard.MAX_HEAD_BYTES:
                raise guard.oversized(raw)
            head = parse_request(key)
            if len(key) <= _MAX_KEPT_BYTES:
                self._key, self._head = key, head
        if value is None:
            return head, head.length
        if head.length >= 0 or head.chunked:
            raise guard.bad("A request has one Content-Length, and no Transfer-Encoding with it.")
        return head, guard.content_length(value)


class ResponseHeads:
    """Reads the heads of one upstream connection, and keeps the last as `RequestHeads` does."""

    __slots__ = ("_head", "_key")

    def __init__(self) -> None:
        self._key = b""
        self._head = ResponseHead(200)

    def read(self, raw: bytes) -> tuple[ResponseHead, int]:
        """(head, content length or -1). Raises `ValueError` for what is no clear answer."""
        key, value = _without_length(raw)
        if key == self._key:
            head = self._head
        else:
            head = parse_response(key)
            if len(key) <= _MAX_KEPT_BYTES:
                self._key, self._head = key, head
        if value is None:
            return head, head.length
        length = _answer_length(value)
        if head.chunked or head.length not in {-1, length}:
            raise ValueError("an answer whose length is not clear")
        return head, length


def parse_request(raw: bytes) -> RequestHead:
    """`raw` is one head, up to and with its empty line. Raises `Refusal`, always with `close`."""
    line_end = raw.find(b"\r\n")
    if line_end > guard.MAX_TARGET_BYTES or len(raw) > guard.MAX_HEAD_BYTES:
        raise guard.oversized(raw)
    try:
        httptools.HttpRequestParser(_NOTHING).feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        if raw.startswith(guard.H2_PREFACE):
            raise Refusal(
                505, "HTTP/2 is not spoken here; use HTTP/1.1 (http_version=1).", close=True
            ) from None
        raise guard.bad(f"The request is not valid HTTP/1.1: {error}.") from None
    lines = raw[:-4].split(b"\r\n")
    if len(lines) > guard.MAX_HEADERS + 1:
        raise Refusal(431, f"A request has at most {guard.MAX_HEADERS} headers.", close=True)
    head = RequestHead()
    head.method, head.target, head.minor = guard.request_line(lines.pop(0))
    head.read(lines)
    return head


def parse_response(raw: bytes) -> ResponseHead:
    """`raw` is one head, up to and with its empty line. Raises `ValueError` for anything else."""
    try:
        httptools.HttpResponseParser(_NOTHING).feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        raise ValueError(f"not an HTTP answer: {error}") from None
    lines = raw[:-4].split(b"\r\n")
    first = lines.pop(0)
    version = first[:9]
    status = first[9:12]
    if version not in _VERSIONS or not status.isdigit() or not 100 <= int(status) <= 599:
        raise ValueError("not an HTTP/1.x answer")
    head = ResponseHead(int(status))
    if version == b"HTTP/1.0 ":
        head.keep_alive = False
    head.read(lines)
    return head


def _without_length(raw: bytes) -> tuple[bytes, bytes | None]:
    """A head without its first `Content-Length` line, as commonly spelt, and that line's value."""
    at = raw.find(b"\r\nContent-Length: ")
    if at < 0:
        at = raw.find(b"\r\ncontent-length: ")
        if at < 0:
            return raw, None
    end = raw.find(b"\r\n", at + 18)
    return raw[:at] + raw[end:], raw[at + 18 : end]


def _answer_length(value: bytes) -> int:
    if not value.isdigit() or len(value) > 18:
        raise ValueError("an answer with a wrong Content-Length")
    return int(value)


def _tokens(value: bytes) -> set[bytes]:
    return {token.strip(b" \t").lower() for token in value.split(b",")}


def _drop_named(lines: list[bytes], tokens: set[bytes]) -> None:
    """Headers that `Connection` names belong to one hop and are not forwarded."""
    named = tokens - _NEVER_DROPPED
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
