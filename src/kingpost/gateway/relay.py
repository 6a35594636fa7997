"""One request on its way to an upstream, and the answer on its way back, without buffering either.

Back-pressure and departure pass from each side to the other. What a request is for, and who may
make it, is not known here: `InferenceRelay` adds that.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from kingpost import contract
from kingpost.gateway.answers import CONTINUE, Refusal, status_line
from kingpost.gateway.head import RequestHead, ResponseHead
from kingpost.gateway.upstream import Endpoint, UpstreamConnection

if TYPE_CHECKING:
    from kingpost.gateway.http1 import ClientConnection

_log = logging.getLogger(__name__)

KEPT_BODY_BYTES: Final = contract.MIB

_PLAIN: Final = 0
_WRAP: Final = 1


class Relay:
    """`request_head` is what goes upstream before the body. Ends by `client.answered(...)` or
    `client.refuse(...)`, once.
    """

    __slots__ = (
        "_connecting",
        "_mode",
        "_pending",
        "_pending_bytes",
        "_request_done",
        "_request_head",
        "bytes_in",
        "bytes_out",
        "client",
        "framed",
        "head",
        "over",
        "request_id",
        "started",
        "status",
        "tunnel",
        "upstream",
    )

    body_limit: int | None = None

    def __init__(
        self,
        client: ClientConnection,
        head: RequestHead,
        request_id: bytes,
        request_head: bytes,
    ) -> None:
        self.client = client
        self.head = head
        self.request_id = request_id
        self.framed = head.minor == 1
        self.started = False
        self.over = False
        self.tunnel = False
        self.status = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.upstream: UpstreamConnection | None = None
        self._request_head = request_head
        self._connecting: asyncio.Task[None] | None = None
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._request_done = False
        self._mode = _PLAIN

    # From the client.

    def start(self, body: bytes, *, done: bool) -> None:
        """Go, with the part of the body that came with the head."""
        raise NotImplementedError

    def body(self, data: bytes, *, done: bool) -> None:
        """More of the request's body."""
        if self.upstream is None:
            self._take(data, done=done)
            if self._pending_bytes > KEPT_BODY_BYTES:
                self.client.pause_body()
            return
        self._request_done = done
        self.bytes_in += len(data)
        if data:
            self.upstream.transport.write(data)

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
        started = self.started
        self._end(ended, self.status if started else refusal.status)
        if started:
            self.client.cut_off()
        else:
            self.client.refuse(refusal)

    def check(self, _now: float) -> float | None:
        """Act on a deadline; the time of the next one, or None."""
        return None

    # From the upstream.

    def answer(self, head: ResponseHead, body: bytes, *, done: bool, reusable: bool) -> None:
        self.started = True
        self.status = head.status
        client = self.client
        if head.status == 101:
            self.tunnel = True
            self._send_tunnel_head(head, body)
            return
        data = self._answer_head(head, body, done=done)
        self.bytes_out += len(body)
        client.write(data)
        if done:
            self._answered(reusable=reusable)

    def answer_body(self, data: bytes, *, done: bool, reusable: bool) -> None:
        self.bytes_out += len(data)
        if self._mode == _WRAP:
            data = _chunk(data, done=done)
        if data:
            self.client.write(data)
        if done:
            self._answered(reusable=reusable)

    def upstream_lost(self, reason: str) -> None:
        self.upstream = None
        self.fail(Refusal(502, f"The model's server {reason}."), "upstream_failed")

    def upstream_full(self) -> None:
        self.client.pause_body()

    def upstream_drained(self) -> None:
        self.client.resume_body()

    # Inside.

    def _take(self, data: bytes, *, done: bool) -> None:
        self._request_done = done
        if data:
            self.bytes_in += len(data)
            self._pending.append(data)
            self._pending_bytes += len(data)

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
        head = self.head
        data = self._request_head
        if self._pending:
            data = b"".join((data, *self._pending))
            self._forget_pending()
        if head.expect and not self._request_done:
            self.client.write(CONTINUE)
        conn.begin(self, data, head_only=head.method == b"HEAD", upgrade=bool(head.upgrade))
        if not self._request_done:
            self.client.resume_body()

    def _forget_pending(self) -> None:
        self._pending = []
        self._pending_bytes = 0

    def _answer_head(self, head: ResponseHead, body: bytes, *, done: bool) -> bytes:
        client = self.client
        parts = [status_line(head.status), *head.lines]
        if head.chunked:
            if self.framed:
                parts.append(b"Transfer-Encoding: chunked\r\n")
            else:
                client.keep_alive = False
        elif head.content_length is not None:
            parts.append(b"Content-Length: %d\r\n" % head.content_length)
        elif not done:
            if self.framed:
                self._mode = _WRAP
                parts.append(b"Transfer-Encoding: chunked\r\n")
                body = _chunk(body, done=False)
            else:
                client.keep_alive = False
        if not self._request_done:
            client.keep_alive = False
        parts += (b"X-Baseten-Request-Id: ", self.request_id, client.answer_end(), body)
        return b"".join(parts)

    def _send_tunnel_head(self, head: ResponseHead, body: bytes) -> None:
        self.bytes_out += len(body)
        self.client.write(
            b"".join(
                (
                    status_line(101),
                    *head.lines,
                    b"Connection: Upgrade\r\nUpgrade: ",
                    head.upgrade or self.head.upgrade,
                    b"\r\nX-Baseten-Request-Id: ",
                    self.request_id,
                    b"\r\n\r\n",
                    body,
                )
            )
        )
        self.client.start_tunnel()

    def _answered(self, *, reusable: bool) -> None:
        conn, self.upstream = self.upstream, None
        self.over = True
        if conn is not None:
            if reusable and self._request_done and not self.tunnel:
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
        self._forget_pending()
        self._ended(ended)

    def _ended(self, ended: str) -> None:
        """The last call, once: `ok`, `client_left`, `upstream_failed`, `timeout` or `refused`."""


class InternalRelay(Relay):
    """To the control plane: no limit and no deadline of the gateway's."""

    __slots__ = ("_endpoint",)

    def __init__(
        self,
        client: ClientConnection,
        head: RequestHead,
        request_id: bytes,
        request_head: bytes,
        endpoint: Endpoint,
    ) -> None:
        super().__init__(client, head, request_id, request_head)
        self._endpoint = endpoint

    def start(self, body: bytes, *, done: bool) -> None:
        self._take(body, done=done)
        self._use(self._endpoint)

    def _unreachable(self, error: OSError) -> None:
        _log.warning("control not reachable", extra={"error": str(error)})
        self.fail(
            Refusal(
                503,
                "The control plane is restarting; models answer meanwhile. Try again in a moment.",
                code="UNAVAILABLE",
                retry_after_s=2,
                management=True,
            ),
            "upstream_failed",
        )

    def upstream_lost(self, reason: str) -> None:
        self.upstream = None
        self.fail(
            Refusal(
                502,
                f"The control plane {reason}. Look at what was done before trying again.",
                code="UNAVAILABLE",
                retry_after_s=2,
                management=True,
            ),
            "upstream_failed",
        )


def _chunk(data: bytes, *, done: bool) -> bytes:
    framed = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
    return framed + b"0\r\n\r\n" if done else framed
