"""Which request goes to which replica now, and which one waits. Synchronous, without I/O or clock.

A replica never has more than `concurrency_target` requests. Replicas are filled one after another
up to target utilisation before the load is spread. What finds no place is held: round-robin over
tenants, first come first served within one.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from kingpost.gateway.upstream import Endpoint
from kingpost.messages import DeploymentRoute, Load, ReplicaAddress

EJECTION_S: Final = 1.0
_NOTHING: Final[tuple[tuple[Waiter, Slot], ...]] = ()


class Waiter(Protocol):
    """A request that may be held. Compared by identity."""

    tenant: str
    held_bytes: int

    @property
    def environment(self) -> str | None:
        """The environment by whose name it came, if by one."""

    def admitted(self, slot: Slot) -> None:
        """It has a place at a replica: go."""

    def moved(self, lane: Lane) -> None:
        """It waits for another deployment from now on."""

    def stranded(self, route: DeploymentRoute | None) -> None:
        """Its deployment, as it now is (None: removed), will not come."""


class HeldFullError(Exception):
    """Too many requests, or bytes of them, are held already."""


class RejectedError(Exception):
    """All replicas are full and the deployment wants to reject rather than hold."""


class Slot:
    """A replica's place in its deployment. `gone` once the control plane has taken it away."""

    __slots__ = ("ejected_until_s", "endpoint", "gone", "id", "in_flight", "lane")

    def __init__(self, lane: Lane, address: ReplicaAddress, endpoint: Endpoint) -> None:
        self.lane = lane
        self.id = address.id
        self.endpoint = endpoint
        self.in_flight = 0
        self.gone = False
        self.ejected_until_s = 0.0


class Lane:
    """A deployment as admission sees it: its replicas, what is in flight, what is held."""

    __slots__ = (
        "_queues",
        "_turns",
        "area",
        "comfortable",
        "held",
        "in_flight",
        "limit",
        "predict_path",
        "requests",
        "route",
        "slots",
        "websocket_path",
    )

    def __init__(self, route: DeploymentRoute) -> None:
        self.slots: list[Slot] = []
        self.in_flight = 0
        self.held = 0
        self.requests = 0
        self.area = 0
        self._turns: deque[str] = deque()
        self._queues: dict[str, OrderedDict[Waiter, None]] = {}
        self.set_route(route)

    def set_route(self, route: DeploymentRoute) -> None:
        self.route = route
        self.limit = max(1, route.concurrency_target)
        self.comfortable = max(1, int(self.limit * route.target_utilization))
        self.predict_path = route.predict_path.encode()
        self.websocket_path = route.websocket_path.encode()

    def choose(self, now: float) -> Slot | None:
        """The fullest replica below target utilisation, else the emptiest below its limit."""
        packed: Slot | None = None
        spread: Slot | None = None
        most = -1
        least = self.limit
        for slot in self.slots:
            count = slot.in_flight
            if slot.ejected_until_s and (now < slot.ejected_until_s or count):
                continue
            if count < self.comfortable:
                if count > most:
                    packed, most = slot, count
            elif count < least:
                spread, least = slot, count
        return packed or spread

    def push(self, waiter: Waiter) -> None:
        queue = self._queues.get(waiter.tenant)
        if queue is None:
            queue = self._queues[waiter.tenant] = OrderedDict()
            self._turns.append(waiter.tenant)
        queue[waiter] = None
        self.held += 1

    def push_first(self, waiter: Waiter) -> None:
        """Hold one that had its turn and must try again."""
        self.push(waiter)
        self._queues[waiter.tenant].move_to_end(waiter, last=False)

    def pop(self) -> Waiter:
        """The next one whose turn it is. There must be one."""
        tenant = self._turns.popleft()
        queue = self._queues[tenant]
        waiter, _ = queue.popitem(last=False)
        if queue:
            self._turns.append(tenant)
        else:
            del self._queues[tenant]
        self.held -= 1
        return waiter

    def waiting_for(self, environment: str) -> list[Waiter]:
        """Those held that came by that name."""
        queues = self._queues.values()
        return [waiter for queue in queues for waiter in queue if waiter.environment == environment]

    def remove(self, waiter: Waiter) -> bool:
        queue = self._queues.get(waiter.tenant)
        if queue is None or waiter not in queue:
            return False
        del queue[waiter]
        if not queue:
            del self._queues[waiter.tenant]
            self._turns.remove(waiter.tenant)
        self.held -= 1
        return True


Dispatched = Iterable[tuple[Waiter, Slot]]


class Admission:
    """All lanes. Methods that free a place return what goes forward now, for the caller to send."""

    def __init__(
        self,
        make_endpoint: Callable[[ReplicaAddress], Endpoint],
        *,
        max_held: int,
        max_held_bytes: int,
    ) -> None:
        self.lanes: dict[str, Lane] = {}
        self.held = 0
        self.held_bytes = 0
        self._make_endpoint = make_endpoint
        self._max_held = max_held
        self._max_held_bytes = max_held_bytes
        self._active: set[Lane] = set()
        self._looks = 0
        self._leaving: set[Slot] = set()
        self._ejected: set[Lane] = set()

    def enter(self, lane: Lane, waiter: Waiter, now: float) -> Slot | None:
        """A place for a new request, or None: it is held.

        Raises `HeldFullError`, `RejectedError`.
        """
        if not lane.held:
            slot = lane.choose(now)
            if slot is not None:
                lane.requests += 1
                self._occupy(slot)
                return slot
        if lane.slots and lane.route.backpressure == "REJECT_ON_FULL":
            raise RejectedError
        if self.held >= self._max_held or self.held_bytes >= self._max_held_bytes:
            raise HeldFullError
        lane.requests += 1
        lane.push(waiter)
        self._hold(lane, waiter)
        return None

    def again(self, lane: Lane, waiter: Waiter, now: float) -> Slot | None:
        """Another place for a request that its replica did not take; None: held, first in line."""
        slot = lane.choose(now)
        if slot is not None:
            self._occupy(slot)
            return slot
        lane.push_first(waiter)
        self._hold(lane, waiter)
        return None

    def grew(self, waiter: Waiter, added_bytes: int) -> bool:
        """A held request has more body now; whether there is room for yet more."""
        waiter.held_bytes += added_bytes
        self.held_bytes += added_bytes
        return self.held_bytes < self._max_held_bytes

    def abandon(self, lane: Lane, waiter: Waiter) -> None:
        """A held request is held no more."""
        if lane.remove(waiter):
            self._unhold(waiter)

    def leave(self, slot: Slot, now: float) -> Dispatched:
        """A request has left its replica."""
        lane = slot.lane
        slot.in_flight -= 1
        lane.in_flight -= 1
        if slot.gone and not slot.in_flight:
            self._leaving.discard(slot)
        return self._drain(lane, now) if lane.held else _NOTHING

    def eject(self, slot: Slot, now: float) -> None:
        """A replica did not take a request: none for a while, then one to try."""
        slot.ejected_until_s = now + EJECTION_S
        self._ejected.add(slot.lane)

    def restore(self, slot: Slot) -> None:
        """A replica that was ejected has answered."""
        slot.ejected_until_s = 0.0

    def poke(self, now: float) -> Dispatched:
        """Look again at lanes with ejected replicas: time has passed."""
        if not self._ejected:
            return _NOTHING
        dispatched: list[tuple[Waiter, Slot]] = []
        for lane in tuple(self._ejected):
            if lane.held:
                dispatched.extend(self._drain(lane, now))
            if not any(slot.ejected_until_s for slot in lane.slots):
                self._ejected.discard(lane)
        return dispatched

    def put(self, route: DeploymentRoute, now: float) -> tuple[Dispatched, list[Waiter]]:
        """Take a new or changed deployment: what goes forward now, and what waits in vain."""
        lane = self.lanes.get(route.id)
        if lane is None:
            lane = self.lanes[route.id] = Lane(route)
        else:
            lane.set_route(route)
        self._set_slots(lane, route.replicas)
        dispatched = self._drain(lane, now) if lane.held else _NOTHING
        stranded = [] if lane.slots or route.wakes else self._strand(lane)
        return dispatched, stranded

    def follow(self, environment: str, old_id: str, new_id: str, now: float) -> Dispatched:
        """An environment leads to another deployment: what it holds waits for that one instead.

        Not if they have other paths, since the request's head is made already.
        """
        old, new = self.lanes.get(old_id), self.lanes.get(new_id)
        if old is None or new is None or not old.held or not _same_paths(old.route, new.route):
            return _NOTHING
        if not new.slots and not new.route.wakes:
            return _NOTHING
        for waiter in old.waiting_for(environment):
            old.remove(waiter)
            new.push(waiter)
            waiter.moved(new)
        if not new.held:
            return _NOTHING
        self._active.add(new)
        return self._drain(new, now)

    def remove(self, deployment_id: str) -> list[Waiter]:
        """A deployment is gone; what is in flight ends in peace, what was held is returned."""
        lane = self.lanes.pop(deployment_id, None)
        if lane is None:
            return []
        self._set_slots(lane, ())
        return self._strand(lane)

    def starved(self) -> bool:
        """Whether something is held by a deployment without any replica."""
        return any(lane.held and not lane.slots for lane in self._active)

    def look(self) -> None:
        """Called at an even pace: the average of a report is that of its looks."""
        self._looks += 1
        for lane in self._active:
            lane.area += lane.in_flight + lane.held

    def report(self) -> tuple[dict[str, Load], dict[str, int]]:
        """Loads of deployments that have any, or had at the last report; in flight by replica."""
        looks, self._looks = self._looks, 0
        loads: dict[str, Load] = {}
        replicas = {slot.id: slot.in_flight for slot in self._leaving}
        for lane in tuple(self._active):
            average = lane.area / looks if looks else None
            loads[lane.route.id] = Load(lane.in_flight, lane.held, lane.requests, average)
            lane.area = 0
            for slot in lane.slots:
                if slot.in_flight:
                    replicas[slot.id] = slot.in_flight
            if not lane.in_flight and not lane.held:
                self._active.discard(lane)
        return loads, replicas

    def _occupy(self, slot: Slot) -> None:
        lane = slot.lane
        if not lane.in_flight:
            self._active.add(lane)
        slot.in_flight += 1
        lane.in_flight += 1

    def _hold(self, lane: Lane, waiter: Waiter) -> None:
        self._active.add(lane)
        self.held += 1
        self.held_bytes += waiter.held_bytes

    def _unhold(self, waiter: Waiter) -> None:
        self.held -= 1
        self.held_bytes -= waiter.held_bytes

    def _drain(self, lane: Lane, now: float) -> list[tuple[Waiter, Slot]]:
        dispatched = []
        while lane.held:
            slot = lane.choose(now)
            if slot is None:
                break
            waiter = lane.pop()
            self._unhold(waiter)
            self._occupy(slot)
            dispatched.append((waiter, slot))
        return dispatched

    def _strand(self, lane: Lane) -> list[Waiter]:
        stranded = []
        while lane.held:
            waiter = lane.pop()
            self._unhold(waiter)
            stranded.append(waiter)
        return stranded

    def _set_slots(self, lane: Lane, replicas: tuple[ReplicaAddress, ...]) -> None:
        known = {(slot.id, slot.endpoint.host, slot.endpoint.port): slot for slot in lane.slots}
        slots = []
        for address in replicas:
            slot = known.pop((address.id, address.host, address.port), None)
            slots.append(slot or Slot(lane, address, self._make_endpoint(address)))
        lane.slots = slots
        for slot in known.values():
            slot.gone = True
            slot.endpoint.close()
            if slot.in_flight:
                self._leaving.add(slot)


def _same_paths(one: DeploymentRoute, other: DeploymentRoute) -> bool:
    return (one.predict_path, one.websocket_path, one.rewrites) == (
        other.predict_path,
        other.websocket_path,
        other.rewrites,
    )
