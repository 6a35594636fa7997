"""In any order of arrivals, departures, deaths and settings: limits hold, nobody is forgotten."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from kingpost.gateway.admission import (
    EJECTION_S,
    Admission,
    Dispatched,
    HeldFullError,
    Lane,
    RejectedError,
    Slot,
)
from kingpost.gateway.upstream import Endpoint, Pool
from kingpost.messages import DeploymentRoute, Load, ReplicaAddress

POOL = Pool()


def endpoint(address: ReplicaAddress) -> Endpoint:
    return Endpoint(POOL, host=address.host, port=address.port)


def admission(max_held: int = 100, max_held_bytes: int = 1000) -> Admission:
    return Admission(endpoint, max_held=max_held, max_held_bytes=max_held_bytes)


def route(replicas: int, *, target: int = 1, id_: str = "d", **changes: object) -> DeploymentRoute:
    addresses = tuple(ReplicaAddress(f"{id_}{i}", "127.0.0.1", i + 1) for i in range(replicas))
    return DeploymentRoute(
        id=id_,
        model_id="m",
        status="ACTIVE",
        replicas=addresses,
        concurrency_target=target,
        **{"wakes": True, **changes},  # type: ignore[arg-type]
    )


@dataclass(eq=False)
class Request:
    tenant: str = "t"
    held_bytes: int = 0
    slots: list[Slot] = field(default_factory=list)
    stranded_by: list[DeploymentRoute | None] = field(default_factory=list)
    environment: str | None = None
    lanes: list[Lane] = field(default_factory=list)

    def moved(self, lane: Lane) -> None:
        self.lanes.append(lane)

    def admitted(self, slot: Slot) -> None:
        self.slots.append(slot)

    def stranded(self, route: DeploymentRoute | None) -> None:
        self.stranded_by.append(route)


def lane_of(subject: Admission, wish: DeploymentRoute) -> Lane:
    subject.put(wish, 0.0)
    return subject.lanes[wish.id]


def test_packs_to_target_utilisation_then_spreads() -> None:
    subject = admission()
    lane = lane_of(subject, route(2, target=10, target_utilization=0.5))
    taken = [subject.enter(lane, Request(), 0.0) for _ in range(20)]
    assert [slot.id for slot in taken[:10] if slot] == ["d0"] * 5 + ["d1"] * 5
    assert [slot.in_flight for slot in lane.slots] == [10, 10]
    assert subject.enter(lane, Request(), 0.0) is None


def test_held_go_forward_in_turns_by_tenant_and_in_order_within_one() -> None:
    subject = admission()
    lane = lane_of(subject, route(1))
    first = subject.enter(lane, Request(), 0.0)
    assert first is not None
    names = ["a", "a", "a", "b", "c", "b"]
    waiting = [Request(name) for name in names]
    for request in waiting:
        assert subject.enter(lane, request, 0.0) is None
    order = []
    slot = first
    for _ in waiting:
        ((waiter, slot),) = subject.leave(slot, 0.0)
        order.append(waiting.index(waiter))  # type: ignore[arg-type]
    assert order == [0, 3, 4, 1, 5, 2]


def test_bounds_of_what_is_held() -> None:
    subject = admission(max_held=2, max_held_bytes=10)
    lane = lane_of(subject, route(0))
    assert subject.enter(lane, Request(), 0.0) is None
    big = Request()
    assert subject.enter(lane, big, 0.0) is None
    with pytest.raises(HeldFullError):
        subject.enter(lane, Request(), 0.0)
    assert not subject.grew(big, 10)
    subject.abandon(lane, big)
    assert (subject.held, subject.held_bytes) == (1, 0)


def test_reject_on_full_rejects_only_what_is_full() -> None:
    subject = admission()
    lane = lane_of(subject, route(1, backpressure="REJECT_ON_FULL"))
    assert subject.enter(lane, Request(), 0.0) is not None
    with pytest.raises(RejectedError):
        subject.enter(lane, Request(), 0.0)
    subject.put(route(0, backpressure="REJECT_ON_FULL"), 0.0)
    assert subject.enter(lane, Request(), 0.0) is None


def test_an_ejected_replica_gets_one_request_to_try() -> None:
    subject = admission()
    lane = lane_of(subject, route(1, target=5))
    slot = lane.slots[0]
    subject.eject(slot, 0.0)
    waiting = [Request() for _ in range(3)]
    for request in waiting:
        assert subject.enter(lane, request, 0.5) is None
    assert not list(subject.poke(0.5))
    assert [waiter for waiter, _ in subject.poke(EJECTION_S)] == waiting[:1]
    assert not list(subject.poke(EJECTION_S + 0.1))
    subject.restore(slot)
    assert [waiter for waiter, _ in subject.leave(slot, 2.0)] == waiting[1:]


def test_a_replica_taken_away_finishes_what_it_has() -> None:
    subject = admission()
    lane = lane_of(subject, route(1, target=2))
    slot = subject.enter(lane, Request(), 0.0)
    assert slot is not None
    subject.put(route(0), 0.0)
    assert slot.gone
    assert subject.enter(lane, Request(), 0.0) is None
    assert subject.report() == ({"d": Load(1, 1, 2)}, {"d0": 1})
    assert not list(subject.leave(slot, 0.0))
    assert subject.report() == ({"d": Load(0, 1, 2)}, {})


def test_what_waits_in_vain_is_given_back() -> None:
    subject = admission()
    lane = lane_of(subject, route(0))
    request = Request()
    subject.enter(lane, request, 0.0)
    assert subject.put(route(0, wakes=False), 0.0) == ([], [request])
    assert subject.held == 0
    other = Request()
    subject.put(route(0), 0.0)
    subject.enter(lane, other, 0.0)
    assert subject.remove("d") == [other]
    assert not subject.lanes


def test_a_load_that_has_gone_is_reported_once() -> None:
    subject = admission()
    lane = lane_of(subject, route(1))
    slot = subject.enter(lane, Request(), 0.0)
    assert slot is not None
    assert subject.report()[0] == {"d": Load(1, 0, 1)}
    subject.leave(slot, 0.0)
    assert subject.report()[0] == {"d": Load(0, 0, 1)}
    assert subject.report() == ({}, {})


def test_the_average_is_that_of_the_looks_since_the_last_report() -> None:
    subject = admission()
    lane = lane_of(subject, route(1))
    subject.look()
    slot = subject.enter(lane, Request(), 0.0)
    assert slot is not None
    subject.enter(lane, Request(), 0.0)
    subject.look()
    assert list(subject.leave(slot, 0.0))
    subject.look()
    subject.leave(slot, 0.0)
    subject.look()
    assert subject.report()[0] == {"d": Load(0, 0, 2, average=3 / 4)}
    subject.look()
    assert subject.report() == ({}, {})


class AnyOrder(RuleBasedStateMachine):
    """Arrivals, departures, deaths and settings in any order, against a plain account of them."""

    def __init__(self) -> None:
        super().__init__()
        self.subject = admission(max_held=8, max_held_bytes=50)
        self.now = 0.0
        self.running: dict[Request, Slot] = {}
        self.waiting: list[Request] = []
        self.lane = lane_of(self.subject, route(1))
        self.promotions = 0

    def forward(self, dispatched: Dispatched) -> None:
        for waiter, slot in dispatched:
            assert isinstance(waiter, Request)
            mine = [request for request in self.waiting if request.tenant == waiter.tenant]
            assert mine[0] is waiter, "first come, first served within a tenant"
            self.waiting.remove(waiter)
            self.running[waiter] = slot

    @rule(tenant=st.sampled_from("abc"), size=st.integers(0, 10))
    def arrive(self, tenant: str, size: int) -> None:
        request = Request(tenant, size, environment="production")
        try:
            slot = self.subject.enter(self.lane, request, self.now)
        except HeldFullError:
            assert len(self.waiting) >= 8 or sum(r.held_bytes for r in self.waiting) >= 50
        except RejectedError:
            assert self.lane.route.backpressure
        else:
            if slot is None:
                self.waiting.append(request)
            else:
                self.running[request] = slot

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        if self.running:
            request = data.draw(st.sampled_from(list(self.running)))
            self.forward(self.subject.leave(self.running.pop(request), self.now))

    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        if self.waiting:
            request = data.draw(st.sampled_from(self.waiting))
            self.waiting.remove(request)
            self.subject.abandon(self.lane, request)

    @rule(data=st.data())
    def refuse(self, data: st.DataObject) -> None:
        """A replica does not take its request: another one must."""
        if self.running:
            request = data.draw(st.sampled_from(list(self.running)))
            slot = self.running.pop(request)
            self.subject.eject(slot, self.now)
            self.forward(self.subject.leave(slot, self.now))
            again = self.subject.again(self.lane, request, self.now)
            if again is None:
                self.waiting.insert(0, request)
            else:
                self.running[request] = again

    @rule(replicas=st.integers(0, 3), limit=st.integers(1, 3), reject=st.booleans())
    def settings_change(self, replicas: int, limit: int, *, reject: bool) -> None:
        wish = route(
            replicas,
            target=limit,
            id_=self.lane.route.id,
            backpressure="REJECT_ON_FULL" if reject else None,
        )
        dispatched, stranded = self.subject.put(wish, self.now)
        self.forward(dispatched)
        assert not stranded

    @rule(replicas=st.integers(0, 3))
    def promotion(self, replicas: int) -> None:
        """All that is held waits for another deployment; what runs goes on where it is."""
        self.promotions += 1
        old = self.lane
        self.lane = lane_of(self.subject, route(replicas, id_=f"e{self.promotions}"))
        self.forward(self.subject.follow("production", old.route.id, self.lane.route.id, self.now))
        assert old.held == 0

    @rule(seconds=st.floats(0.1, 2.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.forward(self.subject.poke(self.now))

    @invariant()
    def counts_are_right(self) -> None:
        assert self.subject.held == self.lane.held == len(self.waiting)
        assert self.subject.held_bytes == sum(request.held_bytes for request in self.waiting)
        lanes = self.subject.lanes.values()
        assert sum(lane.in_flight for lane in lanes) == len(self.running)
        for slot in self.lane.slots:
            assert slot.in_flight == sum(1 for taken in self.running.values() if taken is slot)

    @invariant()
    def nothing_waits_beside_a_free_replica(self) -> None:
        if self.waiting and not self.subject._ejected:
            assert self.lane.choose(self.now) is None

    def teardown(self) -> None:
        while self.running:
            request, slot = self.running.popitem()
            self.forward(self.subject.leave(slot, self.now))
        for request in list(self.waiting):
            self.waiting.remove(request)
            self.subject.abandon(self.lane, request)
        self.counts_are_right()


AnyOrder.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnyOrder = AnyOrder.TestCase


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=30))
def test_no_tenant_waits_for_more_than_one_turn_of_each_other(tenants: list[str]) -> None:
    subject = admission()
    lane = lane_of(subject, route(0))
    requests = [Request(tenant) for tenant in tenants]
    for request in requests:
        subject.enter(lane, request, 0.0)
    dispatched, _ = subject.put(route(1, target=100), 0.0)
    order = [waiter.tenant for waiter, _ in dispatched]
    for tenant in set(tenants):
        first = order.index(tenant)
        assert first < len(set(tenants))


def test_what_is_held_follows_its_environment() -> None:
    subject = admission()
    old, new = lane_of(subject, route(1)), lane_of(subject, route(2, id_="e"))
    assert subject.enter(old, Request(), 0.0)
    mine = [Request(environment="production") for _ in range(3)]
    others = [Request(environment="staging"), Request()]
    for request in [*mine, *others]:
        assert subject.enter(old, request, 0.0) is None
    dispatched = list(subject.follow("production", "d", "e", 0.0))
    assert [waiter for waiter, _ in dispatched] == mine[:2]
    assert [request.lanes for request in mine] == [[new]] * 3
    assert (old.held, new.held, new.in_flight, subject.held) == (2, 1, 2, 3)
    assert subject.report()[0]["e"] == Load(2, 1, 0)


@pytest.mark.parametrize(
    "other",
    [
        route(1, id_="e", predict_path="/elsewhere"),
        route(1, id_="e", rewrites={"/": "/x"}),
        route(0, id_="e", wakes=False),
    ],
)
def test_what_is_held_stays_when_the_other_deployment_cannot_take_it(
    other: DeploymentRoute,
) -> None:
    subject = admission()
    old, new = lane_of(subject, route(0)), lane_of(subject, other)
    waiting = Request(environment="production")
    assert subject.enter(old, waiting, 0.0) is None
    assert not list(subject.follow("production", "d", "e", 0.0))
    assert (old.held, new.held, waiting.lanes) == (1, 0, [])
