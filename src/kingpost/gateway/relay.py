"""One request on its way to an upstream, and the answer on its way back, without buffering either.

Back-pressure and departure pass from each side to the other. What a request is for, and who may
make it, is not known here: `InferenceRelay` adds that.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from kingpost import contract
from kingpost.gateway.answers import CONTINUE, Refusal
from kingpost.gateway.head import RequestHead, ResponseHead
from kingpost.gateway.upstream import Endpoint, UpstreamConnection

if TYPE_CHECKING:
    from kingpost.gateway.http1 import ClientConnection

_log = logging.getLogger(__name__)

KEPT_BODY_BYTES: Final = contract.MIB


class Relay:
    """`request` is the whole head that goes upstream; `upgrade` the protocol that it asks for.
    Ends by `client.answered()`, `client.refuse(...)` or `client.cut_off()`, once.

    `status` is what the client has been told, 0 before that; `framed` says that it understands
    chunked bodies; `more` are header lines for its answer.
    """

    body_limit: int | None = None

    over = False
    tunnel = False
    status = 0
    bytes_in = 0
    bytes_out = 0
    upstream: UpstreamConnection | None = None

    _connecting: asyncio.Task[None] | None = None
    _request_done = False
    _wraps = False

    more = b""

    def __init__(
        self, client: ClientConnection, head: RequestHead, request: bytes, upgrade: bytes
    ) -> None:
        self.client = client
        self.head = head
        self.request = request
        self.upgrade = upgrade
        self.expects = bool(head.expect)
        self.framed = head.minor == 1
        self._pending: list[bytes] = []

    # From the client.

    def start(self, body: bytes, done: bool) -> None:
        """Go, with the part of the body that came with the head."""
        raise NotImplementedError

    def body(self, data: bytes, done: bool) -> None:
        """More of the request's body."""
        self._request_done = done
        self.bytes_in += len(data)
        if self.upstream is not None:
            if data:
                self.upstream.transport.write(data)
        elif data:
            self._pending.append(data)
            if self.bytes_in > KEPT_BODY_BYTES:
                self.client.pause_body()

    def client_left(self) -> None:
        """The client is gone: so is the request, wherever it is."""
        self._end("client_left", self.status or 499)

    def client_full(self) -> None:
        if self.upstream is not None:
            self.upstream.transport.pause_reading()

    def client_drained(self) -> None:
        if self.upstream is not None:
            self.upstream.transport.resume_reading()

    def fail(self, refusal: Refusal, ended: str) -> None:
        """End it here; where an answer is under way already, the client sees it cut off."""
        if self.over:
            return
        started = self.status
        self._end(ended, started or refusal.status)
        if started:
            self.client.cut_off()
        else:
            self.client.refuse(refusal)

    def check(self, _now: float) -> float | None:
        """Act on a deadline; the time of the next one, or None."""
        return None

    # From the upstream.

    def answer(
        self, head: ResponseHead, length: int, body: bytes, done: bool, reusable: bool
    ) -> None:
        self.status = status = head.status
        client = self.client
        self.bytes_out += len(body)
        if length >= 0:
            framing = b"Content-Length: %d\r\n" % length
        elif status == 101:
            self.tunnel = True
            framing = b"Connection: Upgrade\r\nUpgrade: %b\r\n" % (head.upgrade or self.upgrade)
        elif head.chunked and self.framed:
            framing = b"Transfer-Encoding: chunked\r\n"
        elif done:
            framing = b""
        elif self.framed:
            # It ends with its connection; this client's need not.
            self._wraps = True
            framing = b"Transfer-Encoding: chunked\r\n"
            body = _chunk(body, False)
        else:
            client.keep_alive = False
            framing = b""
        if not self._request_done:
            client.keep_alive = False
        client.write_answer(head.block, self.more, framing, body, final=not self.tunnel)
        if done:
            self._answered(reusable)
        elif self.tunnel:
            client.start_tunnel()

    def answer_body(self, data: bytes, done: bool, reusable: bool) -> None:
        self.bytes_out += len(data)
        if self._wraps:
            data = _chunk(data, done)
        if data:
            self.client.transport.write(data)
        if done:
            self._answered(reusable)

    def upstream_lost(self, reason: str) -> None:
        self.upstream = None
        self.fail(Refusal(502, f"The model's server {reason}."), "upstream_failed")

    def upstream_full(self) -> None:
        self.client.pause_body()

    def upstream_drained(self) -> None:
        self.client.resume_body()

    # Inside.

    def _use(self, endpoint: Endpoint) -> None:
        conn = endpoint.take()
        if conn is not None:
            self._send(conn)
        else:
            self._connecting = asyncio.get_running_loop().create_task(self._connect(endpoint))

    async def _connect(self, endpoint: Endpoint) -> None:
        try:
            conn = await endpoint.open()
        except OSError as error:
            self._connecting = None
            if not self.over:
                self._unreachable(error)
            return
        self._connecting = None
        if self.over:
            conn.abort()
        elif conn.transport.is_closing():
            self._unreachable(ConnectionError("closed at once"))
        else:
            self._send(conn)

    def _unreachable(self, error: OSError) -> None:
        _log.info("upstream not reachable", extra={"error": str(error)})
        self.fail(Refusal(502, "The model's server could not be reached."), "upstream_failed")

    def _send(self, conn: UpstreamConnection) -> None:
        self.upstream = conn
        data = self.request
        if self._pending:
            data = b"".join((data, *self._pending))
            self._sent_pending()
        if self.expects and not self._request_done:
            self.client.transport.write(CONTINUE)
        conn.begin(self, data, self.head.method == b"HEAD", bool(self.upgrade))
        if self.client.full:
            conn.transport.pause_reading()
        if not self._request_done:
            self.client.resume_body()

    def _sent_pending(self) -> None:
        self._pending = []

    def _answered(self, reusable: bool) -> None:
        conn, self.upstream = self.upstream, None
        self.over = True
        if conn is not None:
            if reusable and self._request_done:
                if self.client.full:
                    conn.transport.resume_reading()
                conn.endpoint.give(conn)
            else:
                conn.abort()
        self.client.answered()
        self._ended("ok")

    def _end(self, ended: str, status: int) -> None:
        if self.over:
            return
        self.over = True
        self.status = status
        conn, self.upstream = self.upstream, None
        if conn is not None:
            conn.abort()
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        self._pending = []
        self._ended(ended)

    def _ended(self, ended: str) -> None:
        """The last call, once: `ok`, `client_left`, `upstream_failed`, `timeout` or `refused`."""


class InternalRelay(Relay):
    """To the control plane: no limit and no deadline of the gateway's."""

    def __init__(
        self,
        client: ClientConnection,
        head: RequestHead,
        request: bytes,
        upgrade: bytes,
        endpoint: Endpoint,
    ) -> None:
        super().__init__(client, head, request, upgrade)
        self._endpoint = endpoint

    def start(self, body: bytes, done: bool) -> None:
        self.body(body, done)
        self._use(self._endpoint)

    def _unreachable(self, error: OSError) -> None:
        _log.warning("control not reachable", extra={"error": str(error)})
        self._away("The control plane is restarting; models answer meanwhile. Try again soon.", 503)

    def upstream_lost(self, reason: str) -> None:
        self.upstream = None
        self._away(f"The control plane {reason}. Look at what was done before trying again.", 502)

    def _away(self, message: str, status: int) -> None:
        refusal = Refusal(status, message, code="UNAVAILABLE", retry_after_s=2, management=True)
        self.fail(refusal, "upstream_failed")


def _chunk(data: bytes, done: bool) -> bytes:
    framed = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
    return framed + b"0\r\n\r\n" if done else framed
