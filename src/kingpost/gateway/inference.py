"""A call of a model: its place in admission, its deadline, its other try, its line in the log."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from kingpost.gateway.access_log import Line
from kingpost.gateway.admission import HeldFullError, Lane, RejectedError, Slot
from kingpost.gateway.answers import CONTINUE, Refusal
from kingpost.gateway.auth import Key
from kingpost.gateway.head import RequestHead, ResponseHead
from kingpost.gateway.relay import KEPT_BODY_BYTES, Relay
from kingpost.gateway.routing import Call
from kingpost.gateway.targets import not_ready
from kingpost.messages import DeploymentRoute

if TYPE_CHECKING:
    from kingpost.gateway.gateway import Gateway
    from kingpost.gateway.http1 import ClientConnection

MAX_ATTEMPTS: Final = 16
_MAX_EXAMINED_BYTES: Final = 4096
_ATTEMPTS: Final = [
    b"X-Baseten-Model-Prediction-Attempts: %d\r\n" % number for number in range(MAX_ATTEMPTS + 2)
]


class InferenceRelay(Relay):
    """Held, or sent to a replica. Tried again only when surely nothing of it was done: the
    connection could not be made, or the truss server answered that its model is not loaded.
    """

    __slots__ = (
        "_examined",
        "_kept",
        "attempts",
        "body_limit",
        "call",
        "deadline_s",
        "dispatched_s",
        "first_byte_s",
        "gateway",
        "held_bytes",
        "key",
        "lane",
        "received_s",
        "slot",
        "tenant",
    )

    def __init__(
        self,
        client: ClientConnection,
        head: RequestHead,
        request_id: bytes,
        request_head: bytes,
        *,
        gateway: Gateway,
        lane: Lane,
        key: Key,
        call: Call,
        deadline_s: float,
        received_s: float,
    ) -> None:
        super().__init__(client, head, request_id, request_head)
        self.gateway = gateway
        self.lane = lane
        self.key = key
        self.tenant = key.id
        self.call = call
        self.deadline_s = deadline_s
        self.received_s = received_s
        self.dispatched_s = 0.0
        self.first_byte_s = 0.0
        self.held_bytes = 0
        self.attempts = 0
        self.slot: Slot | None = None
        self._kept: list[bytes] | None = []
        self._examined: tuple[ResponseHead, list[bytes]] | None = None

    def start(self, body: bytes, *, done: bool) -> None:
        self._take(body, done=done)
        self.held_bytes = len(body)
        gateway = self.gateway
        try:
            slot = gateway.admission.enter(self.lane, self, self.received_s)
        except HeldFullError:
            self.fail(_too_many_held(), "refused")
        except RejectedError:
            self.fail(_rejected(), "refused")
        else:
            if slot is None:
                if self.head.expect and not done:
                    self.client.write(CONTINUE)
                    self.head.expect = b""
                gateway.held(self.lane)
            else:
                self.admitted(slot)

    def admitted(self, slot: Slot) -> None:
        """A replica has a place for it."""
        self.slot = slot
        self.attempts += 1
        self.held_bytes = 0
        if not self.dispatched_s:
            self.dispatched_s = time.monotonic()
        self._use(slot.endpoint)

    def stranded(self, route: DeploymentRoute | None) -> None:
        """It was held, and its deployment will not come."""
        if route is None:
            message = "The deployment was removed while this request was waiting for it."
            self.fail(Refusal(404, message), "refused")
        else:
            self.fail(not_ready(route), "refused")

    def body(self, data: bytes, *, done: bool) -> None:
        if self.upstream is None:
            super().body(data, done=done)
            if self.slot is None and not self.gateway.admission.grew(self, len(data)):
                self.client.pause_body()
            return
        if self._kept is not None:
            if self.bytes_in + len(data) > KEPT_BODY_BYTES:
                self._kept = None
            else:
                self._kept.append(data)
        super().body(data, done=done)

    def check(self, now: float) -> float | None:
        if self.tunnel:
            return None
        if now < self.deadline_s:
            return self.deadline_s
        self.fail(
            Refusal(
                504,
                "The time for this request is over: no replica was free, or the model did not "
                "answer in time. Allow more with Request-Timeout-Ms, or more replicas.",
                retry_after_s=5,
            ),
            "timeout",
        )
        return None

    def answer(self, head: ResponseHead, body: bytes, *, done: bool, reusable: bool) -> None:
        if not self.first_byte_s:
            self.first_byte_s = time.monotonic()
        if self.slot is not None and self.slot.ejected_until_s:
            self.gateway.admission.restore(self.slot)
        if head.status == 503 and self._kept is not None and self._may_be_unloaded(head):
            if done:
                self._examine(head, body, reusable=reusable)
            else:
                self._examined = (head, [body])
            return
        head.lines.append(_ATTEMPTS[self.attempts])
        super().answer(head, body, done=done, reusable=reusable)

    def answer_body(self, data: bytes, *, done: bool, reusable: bool) -> None:
        if self._examined is not None:
            examined, parts = self._examined
            parts.append(data)
            if done:
                self._examined = None
                self._examine(examined, b"".join(parts), reusable=reusable)
            return
        super().answer_body(data, done=done, reusable=reusable)

    def _forget_pending(self) -> None:
        if not self.over and self._kept is not None:
            if self._pending_bytes <= KEPT_BODY_BYTES:
                self._kept = self._pending
            else:
                self._kept = None
        super()._forget_pending()

    def _may_be_unloaded(self, head: ResponseHead) -> bool:
        """Whether the truss server, not the model's code, may have said it (its errors.py)."""
        return (
            head.error_source == b"04"
            and head.error_code == b"600"
            and self.attempts < MAX_ATTEMPTS
            and head.content_length is not None
            and head.content_length <= _MAX_EXAMINED_BYTES
            and self._request_done
        )

    def _examine(self, head: ResponseHead, body: bytes, *, reusable: bool) -> None:
        """Pass a whole 503 on, unless it says that the model is not loaded: then try again."""
        if b'"Model with name ' not in body or b" is not ready." not in body:
            head.lines.append(_ATTEMPTS[self.attempts])
            super().answer(head, body, done=True, reusable=reusable)
            return
        conn, self.upstream = self.upstream, None
        if conn is not None:
            if reusable:
                conn.endpoint.give(conn)
            else:
                conn.abort()
        self._try_again()

    def _unreachable(self, error: OSError) -> None:
        if self.attempts < MAX_ATTEMPTS:
            self._try_again()
        else:
            super()._unreachable(error)

    def _try_again(self) -> None:
        """Its replica did not take it: give the place back and look for another."""
        slot, self.slot = self.slot, None
        if slot is None:
            return
        if self._kept:
            self._pending = self._kept
            self._pending_bytes = sum(map(len, self._kept))
        self._kept = []
        self.first_byte_s = 0.0
        gateway = self.gateway
        now = time.monotonic()
        gateway.admission.eject(slot, now)
        gateway.send_on(gateway.admission.leave(slot, now))
        if not self.lane.slots and not self.lane.route.wakes:
            self.fail(Refusal(502, "The model's server could not be reached."), "upstream_failed")
            return
        self.held_bytes = self._pending_bytes
        other = gateway.admission.again(self.lane, self, now)
        if other is not None:
            self.admitted(other)

    def _ended(self, ended: str) -> None:
        slot, self.slot = self.slot, None
        gateway = self.gateway
        now = time.monotonic()
        gateway.access_log.add(self._line(ended, slot, now))
        if slot is None:
            gateway.admission.abandon(self.lane, self)
        else:
            dispatched = gateway.admission.leave(slot, now)
            if dispatched:
                gateway.send_on(dispatched)

    def _line(self, ended: str, slot: Slot | None, now: float) -> Line:
        received = self.received_s
        return Line(
            time=time.time(),
            request_id=self.request_id.decode(),
            key=self.key.id,
            model=self.call.model_id,
            deployment=self.lane.route.id,
            replica=slot.id if slot is not None else "",
            method=self.head.method.decode(),
            action=self.call.action.label,
            status=self.status,
            held_ms=round(((self.dispatched_s or now) - received) * 1000, 2),
            ttfb_ms=round((self.first_byte_s - received) * 1000, 2) if self.first_byte_s else None,
            total_ms=round((now - received) * 1000, 2),
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            ended=ended,
        )


def _too_many_held() -> Refusal:
    return Refusal(
        429,
        "Too many requests are waiting for a replica already. Try again later.",
        retry_after_s=5,
    )


def _rejected() -> Refusal:
    return Refusal(
        429,
        "All replicas are busy, and this deployment rejects rather than waits (REJECT_ON_FULL).",
        retry_after_s=1,
    )
