"""Connections to what requests are forwarded to, and their reuse: one answer at a time, each framed
strictly. It knows nothing of clients, models or admission; its user is an `AnswerSink`.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import time
from typing import Final, Protocol

from kingpost.gateway.chunked import ChunkedBody
from kingpost.gateway.head import ResponseHead, ResponseHeads

CONNECT_TIMEOUT_S: Final = 5.0
MAX_HEAD_BYTES: Final = 64 * 1024
MAX_IDLE_PER_ENDPOINT: Final = 256
# uvicorn, Node and cpp-httplib close an idle connection after 5 s; a request must never meet that.
IDLE_LIMIT_S: Final = 3.0
_PROBE_AFTER_S: Final = 0.5

_IDLE: Final = 0
_HEAD: Final = 1
_LENGTH: Final = 2
_CHUNKED: Final = 3
_UNTIL_CLOSE: Final = 4
_TUNNEL: Final = 5
_CLOSED: Final = 6
_NO_CHUNKS: Final = ChunkedBody()


class AnswerSink(Protocol):
    """Who takes an answer. `framed` asks for chunked bodies to stay chunked."""

    framed: bool

    def answer(
        self, head: ResponseHead, length: int, body: bytes, done: bool, reusable: bool
    ) -> None:
        """The head and its content length (-1: none), the part of the body that came with it, and
        whether that is the end.
        """

    def answer_body(self, data: bytes, done: bool, reusable: bool) -> None: ...

    def upstream_lost(self, reason: str) -> None:
        """The connection ended, or broke the protocol, before the answer's end."""

    def upstream_full(self) -> None: ...

    def upstream_drained(self) -> None: ...


class UpstreamConnection(asyncio.Protocol):
    """One connection. Between two requests it is idle, and whatever it says then ends it."""

    __slots__ = (
        "_buffer",
        "_chunked",
        "_head_only",
        "_heads",
        "_left",
        "_state",
        "_upgrade",
        "endpoint",
        "idle_limit_s",
        "idle_since_s",
        "sink",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.sink: AnswerSink | None = None
        self.idle_since_s = 0.0
        self.idle_limit_s = IDLE_LIMIT_S
        self._state = _IDLE
        self._left = 0
        self._buffer = b""
        self._head_only = False
        self._heads = ResponseHeads()
        self._upgrade = False
        self._chunked = _NO_CHUNKS

    def begin(self, sink: AnswerSink, request: bytes, head_only: bool, upgrade: bool) -> None:
        """Send a request, or its first part, whose answer goes to `sink`.

        `head_only`: the answer has no body, whatever its head says. `upgrade`: it may be a 101.
        """
        self.sink = sink
        self._state = _HEAD
        self._head_only = head_only
        self._upgrade = upgrade
        self.transport.write(request)

    def abort(self) -> None:
        """Close at once, without another word to the sink."""
        self.sink = None
        self._state = _CLOSED
        self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        state = self._state
        sink = self.sink
        if sink is None:
            self.abort()
        elif state == _LENGTH:
            size = len(data)
            if size < self._left:
                self._left -= size
                sink.answer_body(data, False, False)
            else:
                body, left = data[: self._left], size - self._left
                self._state = _IDLE
                sink.answer_body(body, True, left == 0 and self._reusable())
        elif state == _CHUNKED:
            self._chunked_data(data, sink)
        elif state == _HEAD:
            self._head_data(data, sink)
        else:
            sink.answer_body(data, False, False)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        sink, state = self.sink, self._state
        self.sink = None
        self._state = _CLOSED
        if sink is None:
            self.endpoint.forget(self)
        elif state in {_UNTIL_CLOSE, _TUNNEL} and exc is None:
            sink.answer_body(b"", True, False)
        elif state == _HEAD:
            sink.upstream_lost("closed the connection before an answer")
        else:
            sink.upstream_lost("closed the connection in the middle of its answer")

    def pause_writing(self) -> None:
        if self.sink is not None:
            self.sink.upstream_full()

    def resume_writing(self) -> None:
        if self.sink is not None:
            self.sink.upstream_drained()

    def _reusable(self) -> bool:
        return self.idle_limit_s > 0.0

    def _break(self, reason: str) -> None:
        sink = self.sink
        self.abort()
        if sink is not None:
            sink.upstream_lost(reason)

    def _chunked_data(self, data: bytes, sink: AnswerSink) -> None:
        try:
            body, done, rest = self._chunked.feed(data)
        except ValueError as error:
            self._break(f"sent a wrong answer: {error}")
            return
        if done:
            self._state = _IDLE
            sink.answer_body(body, True, not rest and self._reusable())
        elif body:
            sink.answer_body(body, False, False)

    def _head_data(self, data: bytes, sink: AnswerSink) -> None:
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        while True:
            end = data.find(b"\r\n\r\n") + 4
            if end < 4:
                if len(data) > MAX_HEAD_BYTES:
                    self._break("sent headers that are too large")
                elif not _may_be_answer(data):
                    self._break("sent something that is not HTTP")
                else:
                    self._buffer = data
                return
            if end > MAX_HEAD_BYTES:
                self._break("sent headers that are too large")
                return
            try:
                head, length = self._heads.read(data[:end])
            except ValueError as error:
                self._break(f"sent {error}")
                return
            data = data[end:]
            if head.status >= 200 or (head.status == 101 and self._upgrade):
                self._start(head, length, data, sink)
                return
            if head.status == 101:
                self._break("switched protocols without being asked")
                return
            # 100 and other interim answers end here: the client's Expect is answered by us.

    def _start(self, head: ResponseHead, length: int, data: bytes, sink: AnswerSink) -> None:
        self.idle_limit_s = _idle_limit(head)
        if head.status == 101:
            self._state = _TUNNEL
            sink.answer(head, length, data, False, False)
        elif self._head_only or head.status in {204, 304}:
            self._state = _IDLE
            sink.answer(head, length, b"", True, not data and self._reusable())
        elif head.chunked:
            self._start_chunked(head, length, data, sink)
        elif length >= 0:
            left = length - len(data)
            if left > 0:
                self._state = _LENGTH
                self._left = left
                sink.answer(head, length, data, False, False)
            else:
                self._state = _IDLE
                body = data[:length] if left else data
                sink.answer(head, length, body, True, left == 0 and self._reusable())
        else:
            self._state = _UNTIL_CLOSE
            sink.answer(head, length, data, False, False)

    def _start_chunked(
        self, head: ResponseHead, length: int, data: bytes, sink: AnswerSink
    ) -> None:
        self._state = _CHUNKED
        self._chunked = ChunkedBody(framed=sink.framed)
        try:
            body, done, rest = self._chunked.feed(data)
        except ValueError as error:
            self._break(f"sent a wrong answer: {error}")
            return
        if done:
            self._state = _IDLE
        sink.answer(head, length, body, done, done and not rest and self._reusable())


class Endpoint:
    """An address (TCP, or a Unix socket's path) and its idle connections, last used first."""

    __slots__ = ("_closed", "_idle", "_pool", "host", "path", "port")

    def __init__(self, pool: Pool, *, host: str = "", port: int = 0, path: str = "") -> None:
        self.host = host
        self.port = port
        self.path = path
        self._pool = pool
        self._idle: list[UpstreamConnection] = []
        self._closed = False

    def take(self) -> UpstreamConnection | None:
        """An idle connection that is known to be open, or None."""
        idle = self._idle
        while idle:
            conn = idle.pop()
            age = time.monotonic() - conn.idle_since_s
            fresh = age < conn.idle_limit_s and not conn.transport.is_closing()
            if fresh and (age < _PROBE_AFTER_S or not _has_news(conn)):
                return conn
            conn.abort()
        return None

    def give(self, conn: UpstreamConnection) -> None:
        """Take back a connection whose answer has ended cleanly."""
        conn.sink = None
        if self._closed or len(self._idle) >= MAX_IDLE_PER_ENDPOINT:
            conn.abort()
            return
        conn.idle_since_s = time.monotonic()
        self._idle.append(conn)
        self._pool.warm.add(self)

    async def open(self) -> UpstreamConnection:
        """A new connection. Raises `OSError` (`TimeoutError` among them)."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            if self.path:
                _, conn = await loop.create_unix_connection(
                    lambda: UpstreamConnection(self), self.path
                )
            else:
                _, conn = await loop.create_connection(
                    lambda: UpstreamConnection(self), self.host, self.port
                )
        return conn

    def forget(self, conn: UpstreamConnection) -> None:
        with contextlib.suppress(ValueError):
            self._idle.remove(conn)

    def sweep(self, now: float) -> bool:
        """Close what has been idle too long; whether anything idle is left."""
        keep = []
        for conn in self._idle:
            if now - conn.idle_since_s < conn.idle_limit_s:
                keep.append(conn)
            else:
                conn.abort()
        self._idle = keep
        return bool(keep)

    def close(self) -> None:
        """Close what is idle; what is in use is closed when it comes back."""
        self._closed = True
        idle, self._idle = self._idle, []
        for conn in idle:
            conn.abort()


class Pool:
    """All endpoints with idle connections, so that those can be closed in time."""

    __slots__ = ("warm",)

    def __init__(self) -> None:
        self.warm: set[Endpoint] = set()

    def sweep(self, now: float) -> None:
        if self.warm:
            self.warm = {endpoint for endpoint in self.warm if endpoint.sweep(now)}

    def close(self) -> None:
        for endpoint in self.warm:
            endpoint.close()
        self.warm = set()


def _has_news(conn: UpstreamConnection) -> bool:
    """Whether the kernel already knows that an idle connection has been closed or has spoken."""
    fd = conn.transport.get_extra_info("socket").fileno()
    poll = select.poll()
    poll.register(fd, select.POLLIN | select.POLLRDHUP)
    return bool(poll.poll(0))


def _idle_limit(head: ResponseHead) -> float:
    """How long the connection may be kept idle after this answer; 0 is not at all."""
    if not head.keep_alive:
        return 0.0
    if head.idle_hint:
        for part in head.idle_hint.lower().split(b","):
            name, _, value = part.strip().partition(b"=")
            if name == b"timeout" and value.isdigit():
                return min(IDLE_LIMIT_S, max(0.0, int(value[:6]) - 1.0))
    return IDLE_LIMIT_S


def _may_be_answer(data: bytes) -> bool:
    return data[:7] == b"HTTP/1."[: len(data[:7])]
