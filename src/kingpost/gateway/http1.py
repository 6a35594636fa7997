"""A client's connection: heads in order, bodies as they come, one request at a time.

The end of the client's stream counts as its leaving, also where it has only closed its sending
side: a request that nobody reads the answer of must not hold a replica. What a request means is
decided elsewhere (`dispatch`).
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from kingpost.gateway import guard
from kingpost.gateway.answers import Refusal, render
from kingpost.gateway.chunked import ChunkedBody
from kingpost.gateway.head import RequestHead, RequestHeads
from kingpost.gateway.ids import new_request_id

if TYPE_CHECKING:
    from kingpost.gateway.gateway import Gateway
    from kingpost.gateway.relay import Relay

_MAX_PIPELINED_BYTES: Final = 64 * 1024
_MAX_DISCARDED_BYTES: Final = 1024 * 1024
_LINGER_S: Final = 2.0
_ENDLESS: Final = 1 << 62

_BODY: Final = 1
_PIPELINE: Final = 2


class ClientConnection(asyncio.Protocol):
    """`keep_alive`: whether the connection lives on after the present answer. `forwarded` are the
    header lines that tell an upstream who asked. `content_length` is the present request's, or -1.
    """

    __slots__ = (
        "_answer_open",
        "_body_left",
        "_body_open",
        "_buffer",
        "_chunked",
        "_discarded",
        "_expects",
        "_full_since_s",
        "_full_size",
        "_heads",
        "_lingers",
        "_lost",
        "_paused",
        "_since_s",
        "content_length",
        "fd",
        "forwarded",
        "gateway",
        "head",
        "keep_alive",
        "peer",
        "relay",
        "request_id",
        "tick",
        "transport",
        "tunnel",
    )

    transport: asyncio.Transport

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.relay: Relay | None = None
        self.head: RequestHead | None = None
        self.request_id = b""
        self.keep_alive = True
        self.tunnel = False
        self.tick = 0
        self.fd = -1
        self.forwarded = b""
        self.peer = ""
        self.content_length = -1
        self._heads = RequestHeads()
        self._buffer = bytearray()
        self._chunked: ChunkedBody | None = None
        self._body_left = 0
        self._body_open = False
        self._answer_open = False
        self._expects = False
        self._paused = 0
        self._discarded = 0
        self._lingers = False
        self._lost = False
        self._full_since_s = 0.0
        self._full_size = 0
        self._since_s = 0.0

    # From the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.fd = transport.get_extra_info("socket").fileno()
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if isinstance(peer, tuple) else "127.0.0.1"
        scheme = "https" if transport.get_extra_info("sslcontext") else "http"
        self.forwarded = f"X-Forwarded-For: {self.peer}\r\nX-Forwarded-Proto: {scheme}".encode()
        self._since_s = now = time.monotonic()
        self.gateway.opened(self, now)

    def data_received(self, data: bytes) -> None:
        if self._body_open:
            self._body_data(data)
        elif self._answer_open:
            self._pipelined(data)
        elif self._lingers:
            self._discard(data)
        else:
            self._head_data(data)

    def eof_received(self) -> bool:
        self._left()
        return False

    def connection_lost(self, _exc: Exception | None) -> None:
        self._lost = True
        self._left()
        if self._paused:
            self.gateway.departures.unwatch(self.fd, self.departed)
        self.gateway.closed(self)

    def pause_writing(self) -> None:
        self._full_since_s = time.monotonic()
        self._full_size = self.transport.get_write_buffer_size()
        if self.relay is not None:
            self.relay.client_full()

    def resume_writing(self) -> None:
        self._full_since_s = 0.0
        if self.relay is not None:
            self.relay.client_drained()

    def departed(self) -> None:
        """The client has left while its socket was not read."""
        self._left()
        self.transport.abort()

    # From the relay.

    @property
    def full(self) -> bool:
        """Whether the client does not keep up with its answers."""
        return self._full_since_s > 0.0

    def write_answer(
        self, block: bytes, more: bytes, framing: bytes, body: bytes, *, final: bool
    ) -> None:
        """Send an answer's head, and the part of its body that is there.

        `final` unless the connection becomes a tunnel.
        """
        connection = b""
        if final:
            if self.keep_alive and not self.gateway.draining:
                if self.head is not None and self.head.minor == 0:
                    connection = b"Connection: keep-alive\r\n"
            else:
                self.keep_alive = False
                connection = b"Connection: close\r\n"
        self.transport.write(
            b"%b%b%b%bX-Baseten-Request-Id: %b\r\n\r\n%b"
            % (block, more, framing, connection, self.request_id, body)
        )

    def answered(self) -> None:
        """The answer is written; go on with the next request, or close."""
        self.relay = None
        self._answer_open = False
        if self.tunnel or self._lost:
            self.transport.close()
        elif not self.keep_alive:
            self._close_politely()
        elif self._body_open:
            self._resume(_BODY)
        else:
            self._next()

    def refuse(self, refusal: Refusal) -> None:
        """Answer the present request with an error."""
        self.relay = None
        head = self.head
        if refusal.close or self._expects or self.gateway.draining:
            self.keep_alive = False
        if self._body_open and (self._chunked or self._body_left > _MAX_DISCARDED_BYTES):
            self.keep_alive = False
        if not self._lost:
            self.transport.write(
                render(
                    refusal.status,
                    refusal.body(),
                    self.request_id,
                    keep_alive=self.keep_alive,
                    with_body=head is None or head.method != b"HEAD",
                    extra=refusal.extra_headers(),
                )
            )
        self.answered()

    def reply(self, status: int, body: bytes) -> None:
        """Answer the present request with JSON of the gateway's own."""
        head = self.head
        if self._expects or self.gateway.draining or self._body_open:
            self.keep_alive = False
        self.transport.write(
            render(
                status,
                body,
                self.request_id,
                keep_alive=self.keep_alive,
                with_body=head is None or head.method != b"HEAD",
            )
        )
        self.answered()

    def cut_off(self) -> None:
        """End an answer that can't be completed, so that the client sees that it is not whole."""
        self.relay = None
        self._answer_open = False
        head = self.head
        if head is not None and head.minor == 0:
            self.transport.abort()
        else:
            self.transport.close()

    def pause_body(self) -> None:
        if self._body_open:
            self._pause(_BODY)

    def resume_body(self) -> None:
        self._resume(_BODY)

    def start_tunnel(self) -> None:
        """From here on all bytes go through, both ways."""
        self.tunnel = True
        self._body_open = True
        self._body_left = _ENDLESS
        self._resume(_PIPELINE)
        if self._buffer:
            data = bytes(self._buffer)
            self._buffer.clear()
            self._body_data(data)

    # From the gateway.

    def check(self, now: float) -> float | None:
        """Act on what has taken too long; the time of the next look."""
        limits = self.gateway.timeouts
        if self._full_since_s and not self._writes_on(now, limits.write_idle_s):
            self.departed()
            return None
        relay = self.relay
        soon = now + limits.look_s
        if relay is not None:
            due = relay.check(now)
            if self.relay is relay:
                if self._body_open and not self.tunnel and not self._paused:
                    return self._check_body(now, min(due or soon, soon))
                return min(due or soon, soon)
            return soon
        if self._lingers:
            return self._due(now, _LINGER_S)
        if self._body_open:
            return self._check_body(now, soon)
        if self._buffer:
            return self._check_head(now, limits.header_s)
        return self._due(now, limits.idle_s if self.keep_alive else limits.header_s)

    def drain(self) -> None:
        """Close now if nothing is under way; else after the present answer."""
        busy = self.relay or self._body_open or self._answer_open or self._lingers
        if not busy and not self._buffer:
            self.transport.close()

    # Inside.

    def _head_data(self, data: bytes) -> None:
        buffer = self._buffer
        if buffer:
            start = max(0, len(buffer) - 3)
            buffer += data
            end = buffer.find(b"\r\n\r\n", start) + 4
            if end < 4:
                self._partial()
                return
            raw, rest = bytes(buffer[:end]), bytes(buffer[end:])
            buffer.clear()
        else:
            if data[:1] == b"\r":
                data = data.removeprefix(b"\r\n")
                if not data:
                    return
            end = data.find(b"\r\n\r\n") + 4
            if end < 4:
                buffer += data
                self._since_s = time.monotonic()
                self.gateway.wheel.set(self, self._since_s + self.gateway.timeouts.header_s)
                self._partial()
                return
            raw, rest = data[:end], data[end:]
        self._request(raw, rest)

    def _partial(self) -> None:
        try:
            guard.partial_head(self._buffer)
        except Refusal as refusal:
            self._begin_broken()
            self.refuse(refusal)

    def _request(self, raw: bytes, rest: bytes) -> None:
        self.request_id = new_request_id()
        try:
            self.head, length = self._heads.read(raw)
        except Refusal as refusal:
            self._begin_broken()
            self.refuse(refusal)
            return
        head = self.head
        self._answer_open = True
        self.content_length = length
        self.keep_alive = head.keep_alive
        self._expects = bool(head.expect)
        length = max(length, 0)
        whole = not head.chunked and length <= len(rest)
        if whole:
            if length < len(rest):
                self._buffer += rest[length:]
                rest = rest[:length]
        else:
            self._body_open = True
            self._body_left = length
            if head.chunked:
                self._chunked = ChunkedBody()
        try:
            relay = self.gateway.dispatch(self, head)
        except Refusal as refusal:
            self.refuse(refusal)
            relay = None
        self.relay = relay
        if not whole:
            self._first_body(rest)
        elif relay is not None:
            relay.start(rest, True)

    def _first_body(self, data: bytes) -> None:
        relay = self.relay
        if relay is None:
            if data:
                self._body_data(data)
            return
        piece, done = self._take_body(data) if data else (b"", False)
        if self.relay is relay:
            relay.start(piece, done)
            if not done:
                self._since_s = time.monotonic()

    def _body_data(self, data: bytes) -> None:
        self._expects = False
        relay = self.relay
        piece, done = self._take_body(data)
        if relay is None:
            self._discarded += len(data)
            if self._lingers or self._lost:
                return
            if self._discarded > _MAX_DISCARDED_BYTES:
                self.transport.close()
            elif done and not self._answer_open:
                self._discarded = 0
                self._next()
        elif self.relay is relay:
            if not self.tunnel:
                self._since_s = time.monotonic()
            if piece or done:
                relay.body(piece, done)

    def _take_body(self, data: bytes) -> tuple[bytes, bool]:
        """(what to pass on, whether the body has ended); what follows it goes into the buffer."""
        chunked = self._chunked
        if chunked is None:
            left = self._body_left
            size = len(data)
            if size < left:
                self._body_left = left - size
                return data, False
            self._body_open = False
            if size > left:
                self._buffer += data[left:]
                data = data[:left]
            return data, True
        try:
            piece, done, rest = chunked.feed(data)
        except ValueError as error:
            self._broken_body(Refusal(400, f"The request's body is wrong: {error}.", close=True))
            return b"", False
        relay = self.relay
        if (
            relay is not None
            and relay.body_limit is not None
            and chunked.payload_bytes > relay.body_limit
        ):
            self._broken_body(too_large(relay.body_limit))
            return b"", False
        if done:
            self._chunked = None
            self._body_open = False
            self._buffer += rest
        return piece, done

    def _broken_body(self, refusal: Refusal) -> None:
        relay = self.relay
        self.keep_alive = False
        if relay is not None:
            relay.fail(refusal, "refused")
        else:
            self.transport.close()

    def _pipelined(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) > _MAX_PIPELINED_BYTES:
            self._pause(_PIPELINE)

    def _next(self) -> None:
        self._since_s = time.monotonic()
        self.head = None
        if self._paused:
            self._resume(_PIPELINE)
        if self._buffer:
            # Not from here: a long row of pipelined requests would be as deep a stack.
            self._answer_open = True
            asyncio.get_running_loop().call_soon(self._pipelined_head)

    def _pipelined_head(self) -> None:
        self._answer_open = False
        if not self._lost and not self.transport.is_closing():
            data = bytes(self._buffer)
            self._buffer.clear()
            self._head_data(data)

    def _begin_broken(self) -> None:
        """What came is no request; answer it, and read on only to let the answer arrive."""
        if not self.request_id or self.head is not None:
            self.request_id = new_request_id()
        self.head = None
        self.keep_alive = False
        self._body_open = False
        self._buffer.clear()

    def _close_politely(self) -> None:
        """Close so that the answer arrives although the client may still be sending."""
        if not self._body_open and not self._buffer and self.head is not None:
            self.transport.close()
            return
        self._lingers = True
        self._body_open = False
        self._buffer.clear()
        self._discarded = 0
        self._resume(self._paused)
        self._since_s = time.monotonic()
        self.gateway.wheel.set(self, self._since_s + _LINGER_S)
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _discard(self, data: bytes) -> None:
        self._discarded += len(data)
        if self._discarded > _MAX_DISCARDED_BYTES:
            self.transport.close()

    def _left(self) -> None:
        relay, self.relay = self.relay, None
        if relay is not None:
            relay.client_left()

    def _pause(self, reason: int) -> None:
        if not self._paused and not self._lost:
            self.transport.pause_reading()
            self.gateway.departures.watch(self.fd, self.departed)
        self._paused |= reason

    def _resume(self, reason: int) -> None:
        if self._paused:
            self._paused &= ~reason
            if not self._paused:
                self.gateway.departures.unwatch(self.fd, self.departed)
                self._since_s = time.monotonic()
                if not self._lost:
                    self.transport.resume_reading()

    def _writes_on(self, now: float, limit_s: float) -> bool:
        """Whether a client that does not keep up takes anything at all."""
        size = self.transport.get_write_buffer_size()
        if size != self._full_size:
            self._full_size = size
            self._full_since_s = now
        return now - self._full_since_s < limit_s

    def _due(self, now: float, limit_s: float) -> float | None:
        at = self._since_s + limit_s
        if now < at:
            return min(at, now + self.gateway.timeouts.look_s)
        self.transport.close()
        return now + self.gateway.timeouts.look_s

    def _check_head(self, now: float, limit_s: float) -> float | None:
        at = self._since_s + limit_s
        if now < at:
            return at
        self._begin_broken()
        self.refuse(Refusal(408, "The request's headers did not arrive in time.", close=True))
        return now + _LINGER_S

    def _check_body(self, now: float, due: float) -> float:
        at = self._since_s + self.gateway.timeouts.body_idle_s
        if now < at:
            return min(at, due)
        refusal = Refusal(408, "The request's body stopped arriving.", close=True)
        if self.relay is not None:
            self.relay.fail(refusal, "timeout")
        else:
            self.transport.close()
        return now + _LINGER_S


def too_large(limit: int) -> Refusal:
    return Refusal(
        413,
        f"A request's body may be {limit} bytes at most; send less, or a link to the data.",
        close=True,
    )
