"""What a change of the world does to requests that wait: a promotion takes them along."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import pytest

from kingpost.gateway.admission import Admission, Lane, Slot
from kingpost.gateway.state import OutOfStepError, World
from kingpost.gateway.upstream import Endpoint, Pool
from kingpost.messages import Delta, DeploymentRoute, ModelRoute, ReplicaAddress, Snapshot

POOL = Pool()
OLD = DeploymentRoute(
    id="old",
    model_id="m",
    status="ACTIVE",
    wakes=True,
    replicas=(ReplicaAddress("old0", "127.0.0.1", 1),),
)
NEW = DeploymentRoute(
    id="new",
    model_id="m",
    status="ACTIVE",
    wakes=True,
    replicas=(ReplicaAddress("new0", "127.0.0.1", 2),),
)
BEFORE = ModelRoute("m", "m", "team", {"production": "old"})
AFTER = ModelRoute("m", "m", "team", {"production": "new"})
GONE = msgspec.structs.replace(OLD, status="DEACTIVATING", wakes=False, replicas=())
ASLEEP = msgspec.structs.replace(OLD, status="SCALED_TO_ZERO", replicas=())


@dataclass(eq=False)
class Request:
    environment: str | None = "production"
    tenant: str = "t"
    held_bytes: int = 0
    lanes: list[Lane] = field(default_factory=list)

    def admitted(self, slot: Slot) -> None:
        raise AssertionError("the world sends nothing itself")

    def stranded(self, route: DeploymentRoute | None) -> None:
        raise AssertionError("the world refuses nothing itself")

    def moved(self, lane: Lane) -> None:
        self.lanes.append(lane)


@pytest.fixture
def admission() -> Admission:
    return Admission(
        lambda address: Endpoint(POOL, host=address.host, port=address.port),
        max_held=100,
        max_held_bytes=1000,
    )


@pytest.fixture
def world(admission: Admission) -> World:
    """With one request at the old deployment's replica."""
    world = World(admission)
    world.apply(Snapshot(1, models=(BEFORE,), deployments=(OLD, NEW)), 0.0)
    assert admission.enter(admission.lanes["old"], Request(), 0.0)
    return world


@pytest.mark.parametrize("left_behind", [GONE, ASLEEP])
@pytest.mark.parametrize("whole", [True, False])
def test_a_promotion_takes_along_what_is_held(
    world: World, admission: Admission, left_behind: DeploymentRoute, whole: bool
) -> None:
    waiting = Request()
    assert admission.enter(admission.lanes["old"], waiting, 0.0) is None
    kind = Snapshot if whole else Delta
    effects = world.apply(kind(2, models=(AFTER,), deployments=(left_behind, NEW)), 0.0)
    ((went, slot),) = [pair for dispatched in effects.dispatched for pair in dispatched]
    assert (went, slot.id, waiting.lanes) == (waiting, "new0", [admission.lanes["new"]])
    assert effects.stranded == []
    assert world.models["m"] == AFTER


def test_what_names_the_deployment_itself_is_turned_away_with_it(
    world: World, admission: Admission
) -> None:
    waiting = Request(environment=None)
    assert admission.enter(admission.lanes["old"], waiting, 0.0) is None
    effects = world.apply(Delta(2, models=(AFTER,), deployments=(GONE,)), 0.0)
    assert effects.stranded == [(waiting, GONE)]


def test_a_delta_out_of_step_changes_nothing(world: World) -> None:
    with pytest.raises(OutOfStepError):
        world.apply(Delta(7, models=(AFTER,)), 0.0)
    assert (world.number, world.models["m"]) == (1, BEFORE)


def test_a_snapshot_replaces_everything(world: World, admission: Admission) -> None:
    world.apply(Snapshot(9, deployments=(NEW,)), 0.0)
    assert (world.number, world.models, list(admission.lanes)) == (9, {}, ["new"])
