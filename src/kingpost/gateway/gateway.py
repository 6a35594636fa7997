"""The gateway as one object: what all connections share, and what is decided for each request."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import Final

import msgspec

import kingpost
from kingpost import contract
from kingpost.gateway import routing
from kingpost.gateway.access_log import AccessLog
from kingpost.gateway.admission import Admission, Dispatched, Lane
from kingpost.gateway.answers import Refusal
from kingpost.gateway.departures import Departures
from kingpost.gateway.head import RequestHead
from kingpost.gateway.http1 import ClientConnection, too_large
from kingpost.gateway.inference import InferenceRelay
from kingpost.gateway.link import Link
from kingpost.gateway.relay import InternalRelay, Relay
from kingpost.gateway.routing import Action, Call, Router
from kingpost.gateway.state import Effects, World
from kingpost.gateway.statefile import StateFile
from kingpost.gateway.targets import deployment_of, not_ready
from kingpost.gateway.timers import TICK_S, Wheel
from kingpost.gateway.upstream import Endpoint, Pool
from kingpost.messages import Delta, DeploymentRoute, LoadReport, ReplicaAddress, Snapshot
from kingpost.settings import DataFolder, Limits

_log = logging.getLogger(__name__)

REPORT_S: Final = 1.0


@dataclass(frozen=True)
class Timeouts:
    """In seconds. `look_s`: how often a connection is looked at when nothing nearer is due."""

    header_s: float = 30.0
    body_idle_s: float = 60.0
    idle_s: float = 75.0
    write_idle_s: float = 300.0
    drain_s: float = 30.0
    look_s: float = 15.0


@dataclass(frozen=True)
class GatewayOptions:
    """What a gateway is started with."""

    data: DataFolder
    host_names: tuple[str, ...] = ()
    timeouts: Timeouts = field(default_factory=Timeouts)
    limits: Limits = field(default_factory=Limits)


class Gateway:
    """Made in a running event loop. `start`, then connections, then `stop`."""

    def __init__(self, options: GatewayOptions) -> None:
        data = options.data
        self.timeouts = options.timeouts
        self.draining = False
        self.pool = Pool()
        self.admission = Admission(
            self._endpoint,
            max_held=options.limits.max_held_requests,
            max_held_bytes=options.limits.max_held_bytes,
        )
        self.world = World(self.admission)
        self.access_log = AccessLog(data.process_logs / "gateway-access.log")
        self.loop = asyncio.get_running_loop()
        self.departures = Departures(self.loop)
        self.wheel = Wheel(time.monotonic())
        self.connections: set[ClientConnection] = set()
        self._router = Router(options.host_names)
        self._control = Endpoint(self.pool, path=str(data.control_socket))
        self._state_file = StateFile(data.gateway_state, self.world.snapshot)
        self._link = Link(
            data.gateway_socket, self._received, lambda: self.world.number, self._report
        )
        self._ticker: asyncio.TimerHandle | None = None
        self._next_report_s = 0.0
        self._report_due = False

    async def start(self) -> None:
        """Load the last state and begin to listen to the control plane."""
        for message in self._state_file.read():
            self._apply(message)
        await self._link.start()
        self.access_log.start()
        self._tick()

    async def stop(self) -> None:
        """End what is left at once, and save what must be kept."""
        for connection in tuple(self.connections):
            connection.transport.abort()
        if self._ticker is not None:
            self._ticker.cancel()
        self._link.close()
        self._state_file.flush()
        self.pool.close()
        await asyncio.sleep(0)
        await self.access_log.stop()
        self.departures.close()

    async def drain(self) -> None:
        """Finish what runs, within the drain deadline. Nothing new is accepted by now."""
        self.draining = True
        deadline = time.monotonic() + self.timeouts.drain_s
        while self.connections and time.monotonic() < deadline:
            for connection in tuple(self.connections):
                connection.drain()
            await asyncio.sleep(0.05)

    # Connections.

    def opened(self, connection: ClientConnection, now: float) -> None:
        self.connections.add(connection)
        self.wheel.set(connection, now + self.timeouts.header_s)

    def closed(self, connection: ClientConnection) -> None:
        self.connections.discard(connection)
        self.wheel.discard(connection)

    # Requests.

    def dispatch(self, client: ClientConnection, head: RequestHead) -> Relay | None:
        """A relay that is still to be started, or None when the answer is given already.

        Raises `Refusal`.
        """
        if head.expect and head.expect != b"100-continue":
            raise Refusal(417, "The only expectation met here is 100-continue.", close=True)
        if head.method == b"CONNECT":
            raise Refusal(405, "This is no proxy for other hosts.", close=True)
        destination, authority, path, query = self._router.resolve(head.host, head.target)
        if isinstance(destination, Call):
            return self._call(client, head, destination, authority, query)
        if isinstance(destination, routing.Internal):
            return self._internal(client, head, destination, authority, path + query)
        if isinstance(destination, routing.Health):
            self._health(client, head)
            return None
        raise Refusal(destination.status, destination.message)

    def held(self, lane: Lane) -> None:
        """A request waits; the control plane hears of it at once when nothing serves it."""
        if not lane.slots and not self._report_due:
            self._report_due = True
            self.loop.call_soon(self._report)

    def send_on(self, dispatched: Dispatched) -> None:
        for waiter, slot in dispatched:
            waiter.admitted(slot)

    def _call(
        self,
        client: ClientConnection,
        head: RequestHead,
        call: Call,
        authority: bytes,
        query: bytes,
    ) -> Relay | None:
        now = time.monotonic()
        key = self.world.keys.authenticate(head.authorization)
        lane = deployment_of(self.world, self.admission, key, call)
        action = call.action
        if action.methods is not None and head.method.decode() not in action.methods:
            raise Refusal(405, f"Use {action.methods} for {action.label}.", allow=action.methods)
        if action.is_async:
            raise Refusal(
                501, f"{action.label} is not available yet; use predict, which waits and streams."
            )
        if action is Action.WAKE:
            self._wake(client, lane)
            return None
        if not lane.slots and not lane.route.wakes:
            raise not_ready(lane.route)
        if client.content_length > contract.MAX_INFERENCE_BODY_BYTES:
            raise too_large(contract.MAX_INFERENCE_BODY_BYTES)
        path, upgrade = self._replica_path(head, lane, call)
        deadline = now + _timeout(head, lane.route)
        if deadline < now + self.timeouts.look_s:
            self.wheel.set(client, deadline)
        request = _upstream_head(client, head, path + query, authority, upgrade)
        return InferenceRelay(client, head, request, upgrade, self, lane, key, call, now, deadline)

    def _replica_path(self, head: RequestHead, lane: Lane, call: Call) -> tuple[bytes, bytes]:
        """(path at the replica, protocol to upgrade to or empty)."""
        if call.action is Action.SYNC:
            if lane.route.development and routing.reaches_control_server(call.path):
                raise Refusal(404, "Paths below /control are the platform's own.")
            path = call.path
            if lane.route.rewrites:
                path = lane.route.rewrites.get(path.decode("latin-1"), "").encode() or path
            return path, head.upgrade
        if call.action is Action.WEBSOCKET:
            if head.upgrade != b"websocket":
                raise Refusal(
                    426, "This address speaks WebSocket: connect with Upgrade: websocket."
                )
            return lane.websocket_path, head.upgrade
        return lane.predict_path, b""

    def _wake(self, client: ClientConnection, lane: Lane) -> None:
        if not lane.slots:
            if lane.route.wakes:
                self._link.wake(lane.route.id)
            else:
                refusal = not_ready(lane.route)
                if refusal.code != "model_not_ready":
                    raise refusal
        client.reply(202, b"{}")

    def _internal(
        self,
        client: ClientConnection,
        head: RequestHead,
        destination: routing.Internal,
        authority: bytes,
        target: bytes,
    ) -> Relay:
        more = b"X-Kingpost-Authority: %b\r\n" % destination.authority
        request = _upstream_head(client, head, target, authority, head.upgrade, more)
        return InternalRelay(client, head, request, head.upgrade, self._control)

    def _health(self, client: ClientConnection, head: RequestHead) -> None:
        if head.method not in {b"GET", b"HEAD"}:
            raise Refusal(405, "Use GET for /healthz.", allow="GET, HEAD")
        ready = self.world.loaded
        body = {
            "status": "ok" if ready else "starting",
            "version": kingpost.__version__,
            "control": "connected" if self._link.connected else "away",
            "notices": self.world.notices,
        }
        client.reply(200 if ready else 503, msgspec.json.encode(body))

    # State and time.

    def _received(self, message: Snapshot | Delta) -> None:
        self._apply(message)
        self._state_file.changed(message)

    def _apply(self, message: Snapshot | Delta) -> None:
        effects: Effects = self.world.apply(message, time.monotonic())
        for dispatched in effects.dispatched:
            self.send_on(dispatched)
        for waiter, route in effects.stranded:
            waiter.stranded(route)

    def _endpoint(self, address: ReplicaAddress) -> Endpoint:
        return Endpoint(self.pool, host=address.host, port=address.port)

    def _report(self) -> None:
        self._report_due = False
        self._next_report_s = time.monotonic() + REPORT_S
        if self._link.connected:
            loads, replicas = self.admission.report()
            self._link.report(LoadReport(loads, replicas, self.world.number))

    def _tick(self) -> None:
        now = time.monotonic()
        try:
            self.wheel.advance(now)
            self.send_on(self.admission.poke(now))
            self.admission.look()
            if now >= self._next_report_s:
                self.pool.sweep(now)
                self._report()
        finally:
            self._ticker = self.loop.call_later(TICK_S, self._tick)


def _upstream_head(
    client: ClientConnection,
    head: RequestHead,
    target: bytes,
    authority: bytes,
    upgrade: bytes,
    more: bytes = b"",
) -> bytes:
    """The whole head that goes upstream. What is the same for the next such request is kept."""
    if head.prefix_target != target:
        head.prefix_target = target
        lines = [b"%b %b HTTP/1.1" % (head.method, target), b"Host: " + authority, *head.lines]
        if head.chunked:
            lines.append(b"Transfer-Encoding: chunked")
        if upgrade:
            lines += (b"Connection: Upgrade", b"Upgrade: " + upgrade)
        lines += (_forwarded(client, head), b"X-Forwarded-Host: " + authority, more)
        head.prefix = b"\r\n".join(lines)
    length = client.content_length
    if length < 0:
        return b"%bX-Baseten-Request-Id: %b\r\n\r\n" % (head.prefix, client.request_id)
    return b"%bContent-Length: %d\r\nX-Baseten-Request-Id: %b\r\n\r\n" % (
        head.prefix,
        length,
        client.request_id,
    )


def _forwarded(client: ClientConnection, head: RequestHead) -> bytes:
    """In absolute form the target's scheme is the client's, who may be behind a TLS relay."""
    if head.target[:7].lower() == b"http://":
        return client.forwarded.replace(b"Proto: https", b"Proto: http")
    return client.forwarded


def _timeout(head: RequestHead, route: DeploymentRoute) -> float:
    asked = head.timeout_ms
    if asked and asked.isdigit() and len(asked) < 12:
        return min(route.predict_timeout_s, int(asked) / 1000)
    return route.predict_timeout_s
