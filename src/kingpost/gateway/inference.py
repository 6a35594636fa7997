"""A call of a model: its place in admission, its deadline, its other try, its line in the log."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from kingpost import contract
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

    body_limit = contract.MAX_INFERENCE_BODY_BYTES

    slot: Slot | None = None
    attempts = 0
    held_bytes = 0
    dispatched_s = 0.0
    first_byte_s = 0.0

    _examined: tuple[ResponseHead, int, list[bytes]] | None = None

    def __init__(
        self,
        client: ClientConnection,
        head: RequestHead,
        request: bytes,
        upgrade: bytes,
        gateway: Gateway,
        lane: Lane,
        key: Key,
        call: Call,
        received_s: float,
        deadline_s: float,
    ) -> None:
        self.client = client
        self.head = head
        self.request = request
        self.upgrade = upgrade
        self.expects = bool(head.expect)
        self.framed = head.minor == 1
        self.gateway = gateway
        self.lane = lane
        self.key = key
        self.call = call
        self.tenant = key.id
        self.received_s = received_s
        self.deadline_s = deadline_s
        self._pending: list[bytes] = []
        self._kept: list[bytes] | None = []

    def start(self, body: bytes, done: bool) -> None:
        self._request_done = done
        if body:
            self._pending.append(body)
            self.bytes_in = self.held_bytes = len(body)
        gateway = self.gateway
        try:
            slot = gateway.admission.enter(self.lane, self, self.received_s)
        except HeldFullError:
            self.fail(_too_many_held(), "refused")
        except RejectedError:
            self.fail(_rejected(), "refused")
        else:
            if slot is not None:
                self.admitted(slot)
            else:
                if self.expects and not done:
                    self.client.transport.write(CONTINUE)
                    self.expects = False
                gateway.held(self.lane)

    def admitted(self, slot: Slot) -> None:
        """A replica has a place for it."""
        self.slot = slot
        self.attempts += 1
        self.held_bytes = 0
        if not self.dispatched_s:
            self.dispatched_s = time.monotonic()
        self._use(slot.endpoint)

    @property
    def environment(self) -> str | None:
        return self.call.environment

    def moved(self, lane: Lane) -> None:
        """It was held, and a promotion gave its environment another deployment."""
        self.lane = lane

    def stranded(self, route: DeploymentRoute | None) -> None:
        """It was held, and its deployment will not come."""
        if route is None:
            message = "The deployment was removed while this request was waiting for it."
            self.fail(Refusal(404, message), "refused")
        else:
            self.fail(not_ready(route), "refused")

    def body(self, data: bytes, done: bool) -> None:
        if self.upstream is None:
            super().body(data, done)
            if self.slot is None and not self.gateway.admission.grew(self, len(data)):
                self.client.pause_body()
            return
        if self._kept is not None:
            if self.bytes_in + len(data) > KEPT_BODY_BYTES:
                self._kept = None
            else:
                self._kept.append(data)
        super().body(data, done)

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

    def answer(
        self, head: ResponseHead, length: int, body: bytes, done: bool, reusable: bool
    ) -> None:
        self.first_byte_s = time.monotonic()
        slot = self.slot
        if slot is not None and slot.ejected_until_s:
            self.gateway.admission.restore(slot)
        if head.status == 503 and self._may_be_unloaded(head, length):
            if done:
                self._examine(head, length, body, reusable)
            else:
                self._examined = (head, length, [body])
            return
        self.more = _ATTEMPTS[self.attempts]
        super().answer(head, length, body, done, reusable)

    def answer_body(self, data: bytes, done: bool, reusable: bool) -> None:
        if self._examined is not None:
            examined, length, parts = self._examined
            parts.append(data)
            if done:
                self._examined = None
                self._examine(examined, length, b"".join(parts), reusable)
            return
        super().answer_body(data, done, reusable)

    def _sent_pending(self) -> None:
        if self.bytes_in <= KEPT_BODY_BYTES:
            self._kept = self._pending
        else:
            self._kept = None
        self._pending = []

    def _may_be_unloaded(self, head: ResponseHead, length: int) -> bool:
        """Whether the truss server, not the model's code, may have said it (its errors.py)."""
        return (
            head.error_source == b"04"
            and head.error_code == b"600"
            and self.attempts < MAX_ATTEMPTS
            and 0 <= length <= _MAX_EXAMINED_BYTES
            and self._kept is not None
            and self._request_done
        )

    def _examine(self, head: ResponseHead, length: int, body: bytes, reusable: bool) -> None:
        """Pass a whole 503 on, unless it says that the model is not loaded: then try again."""
        if b'"Model with name ' not in body or b" is not ready." not in body:
            self.more = _ATTEMPTS[self.attempts]
            super().answer(head, length, body, True, reusable)
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
        self._kept = []
        self.first_byte_s = 0.0
        gateway = self.gateway
        now = time.monotonic()
        gateway.admission.eject(slot, now)
        gateway.send_on(gateway.admission.leave(slot, now))
        if not self.lane.slots and not self.lane.route.wakes:
            self.fail(Refusal(502, "The model's server could not be reached."), "upstream_failed")
            return
        self.held_bytes = sum(map(len, self._pending))
        other = gateway.admission.again(self.lane, self, now)
        if other is not None:
            self.admitted(other)

    def _ended(self, ended: str) -> None:
        slot, self.slot = self.slot, None
        gateway = self.gateway
        now = time.monotonic()
        first = self.first_byte_s
        received = self.received_s
        gateway.access_log.add(
            (
                self.client.request_id,
                self.key.id,
                self.call.model_id,
                self.call.action.label,
                self.lane.route.id,
                slot.id if slot is not None else "",
                self.head.method,
                self.status,
                (self.dispatched_s or now) - received,
                first - received if first else None,
                now - received,
                self.bytes_in,
                self.bytes_out,
                ended,
            )
        )
        if slot is None:
            gateway.admission.abandon(self.lane, self)
        else:
            dispatched = gateway.admission.leave(slot, now)
            if dispatched:
                gateway.send_on(dispatched)


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
