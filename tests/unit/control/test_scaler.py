"""The scaler over a real store, with the clock and the gateway's reports passed in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import pytest

from kingpost.build.base import Runnable
from kingpost.contract import DeploymentStatus as S
from kingpost.control.domain import (
    AutoscalingSettings,
    Deployment,
    Replica,
    ReplicaState,
    Wanted,
    utc_now,
)
from kingpost.control.platform import Platform
from kingpost.control.scaler import GAP_S, Scaler
from kingpost.control.store import Store
from kingpost.messages import Load, LoadReport

RUNNABLE = Runnable(argv=("serve",), cwd="/app", port=8080)
SETTINGS = AutoscalingSettings(max_replica=4, autoscaling_window=10, scale_down_delay=20)


class World:
    """A scaler, its store, and replicas that follow each goal at once."""

    def __init__(self, platform: Platform, store: Store) -> None:
        self.platform = platform
        self.store = store
        self.now_s = 100.0
        self.told: list[str] = []
        self.scaler = self.started()
        platform.events.deployment.subscribe(self.told.append)

    def started(self) -> Scaler:
        """A control process that has just been started."""
        scaler = Scaler(
            self.store, self.platform.logs, self.platform.events, clock=lambda: self.now_s
        )
        scaler.start()
        scaler.connected()
        return scaler

    def add(self, name: str = "one", **changes: object) -> str:
        now = utc_now()
        row = Deployment(
            id=name,
            model_id="model",
            name=name,
            created_at=now,
            status=S.ACTIVE,
            status_at=now,
            runnable=RUNNABLE,
            ever_active=True,
            autoscaling=SETTINGS,
        )
        with self.store.begin() as tx:
            tx.deployments.insert(msgspec.structs.replace(row, **changes))
        self.follow(name)
        return name

    def row(self, name: str = "one") -> Deployment:
        with self.store.begin() as tx:
            row = tx.deployments.get(id=name)
        assert row is not None
        return row

    def change(self, name: str, **changes: object) -> None:
        with self.store.begin() as tx:
            row = tx.deployments.get(id=name)
            assert row is not None
            tx.deployments.update(msgspec.structs.replace(row, **changes))
        self.platform.events.deployment(name)

    def follow(self, name: str, state: ReplicaState = ReplicaState.READY) -> None:
        """Bring the replicas to the goal."""
        with self.store.begin() as tx:
            row = tx.deployments.get(id=name)
            assert row is not None
            for old in tx.replicas.find(deployment_id=name):
                tx.replicas.delete(id=old.id)
            for number in range(row.goal):
                tx.replicas.insert(
                    Replica(
                        id=f"{name}-{number}",
                        deployment_id=name,
                        state=state,
                        created_at=utc_now(),
                    )
                )
            if row.status is S.WAKING_UP and state is ReplicaState.READY:
                tx.deployments.update(msgspec.structs.replace(row, status=S.ACTIVE, waking=False))
        self.platform.events.route(name)

    async def seconds(self, count: int, **loads: int) -> None:
        """That many seconds with a report each; `loads` are requests in flight."""
        for _ in range(count):
            self.now_s += 1.0
            self.report(**loads)
            await asyncio.sleep(0)
            for name in {"one", *loads}:
                with self.store.begin() as tx:
                    row = tx.deployments.get(id=name)
                if row is not None and row.status is not S.INACTIVE:
                    self.follow(name)
            await asyncio.sleep(0)

    def report(self, *, held: int = 0, **loads: int) -> None:
        self.scaler.on_load(LoadReport({name: Load(load, held, 1) for name, load in loads.items()}))


@pytest.fixture
async def world(platform: Platform, store: Store) -> World:
    return World(platform, store)


async def settle() -> None:
    await asyncio.sleep(0)


async def test_up_with_the_load_and_down_again_to_zero(world: World) -> None:
    world.add()
    await settle()
    await world.seconds(15, one=2)
    assert world.row().goal == 3
    await world.seconds(100)
    assert (world.row().goal, world.row().status) == (0, S.SCALED_TO_ZERO)
    assert "one" in world.told


async def test_what_is_held_at_zero_is_woken_in_the_same_moment(world: World) -> None:
    world.add(goal=0, status=S.SCALED_TO_ZERO)
    world.report(held=1, one=0)
    row = world.row()
    assert (row.goal, row.status, row.waking) == (1, S.WAKING_UP, True)
    assert world.told == ["one"]


async def test_a_wake_does_not_pay_for_failures_of_before(world: World) -> None:
    world.add(goal=0, status=S.SCALED_TO_ZERO, failures=7, failed_at=utc_now())
    world.scaler.wake("one")
    assert (world.row().failures, world.row().failed_at) == (0, None)


async def test_short_requests_count_by_their_average(world: World) -> None:
    world.add(autoscaling=msgspec.structs.replace(SETTINGS, max_replica=9))
    await settle()
    for _ in range(15):
        world.now_s += 1.0
        world.scaler.on_load(LoadReport({"one": Load(0, 0, 1, average=2.5)}))
        await settle()
        world.follow("one")
        await settle()
    assert world.row().goal == 4


async def test_many_held_at_zero_bring_more_while_the_first_one_loads(world: World) -> None:
    world.add(goal=0, status=S.SCALED_TO_ZERO)
    world.report(held=9, one=0)
    world.follow("one", ReplicaState.STARTED)
    for _ in range(5):
        world.now_s += 1
        world.report(held=9, one=0)
        await settle()
        world.follow("one", ReplicaState.STARTED)
    assert world.row().goal == 4


async def test_one_at_zero_that_is_not_asked_for_is_not_looked_at(world: World) -> None:
    world.add(goal=0, status=S.SCALED_TO_ZERO)
    await settle()
    assert world.scaler._tracked == {}
    await world.seconds(3)
    assert world.row().goal == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"wanted": Wanted.STOPPED, "status": S.INACTIVE},
        {"wanted": Wanted.DELETED},
        {"status": S.DEPLOY_FAILED},
        {"runnable": None, "status": S.BUILDING},
    ],
)
async def test_what_does_not_run_is_left_as_it_is(world: World, changes: dict[str, object]) -> None:
    name = world.add(**changes)
    world.scaler.wake(name)
    for _ in range(60):
        world.now_s += 1.0
        world.report(held=5, one=0)
        await settle()
    assert world.row().goal == 1
    assert world.row().status is changes.get("status", S.ACTIVE)


async def test_settings_apply_at_once_without_a_report(world: World) -> None:
    world.add()
    world.change("one", autoscaling=msgspec.structs.replace(SETTINGS, min_replica=3))
    await settle()
    assert world.row().goal == 3
    world.change("one", autoscaling=msgspec.structs.replace(SETTINGS, max_replica=2))
    await settle()
    assert world.row().goal == 2


async def test_a_minimum_wakes_one_at_zero(world: World) -> None:
    world.add(goal=0, status=S.SCALED_TO_ZERO)
    world.change("one", autoscaling=msgspec.structs.replace(SETTINGS, min_replica=2))
    await settle()
    assert (world.row().goal, world.row().status) == (2, S.WAKING_UP)


async def test_a_development_deployment_is_at_most_one(world: World) -> None:
    world.add(
        is_development=True, autoscaling=AutoscalingSettings(autoscaling_window=10, max_replica=5)
    )
    await settle()
    await world.seconds(30, one=9)
    assert world.row().goal == 1


def _silence(world: World) -> None:
    world.now_s += 1000


def _new_gateway(world: World) -> None:
    world.scaler.connected()


def _new_control(world: World) -> None:
    world.scaler = world.started()


@pytest.mark.parametrize("interruption", [_silence, _new_gateway, _new_control])
async def test_after_an_interruption_the_delay_starts_anew(
    world: World, interruption: Callable[[World], None]
) -> None:
    world.add()
    await settle()
    await world.seconds(15)
    interruption(world)
    await world.seconds(20)
    assert world.row().goal == 1
    await world.seconds(2)
    assert world.row().goal == 0


async def test_while_no_report_comes_nothing_goes(world: World) -> None:
    world.add(goal=3)
    await settle()
    await world.seconds(1)
    for _ in range(100):
        world.now_s += GAP_S
        world.platform.events.route("one")
        await settle()
    assert world.row().goal == 3


async def test_a_first_start_is_not_scaled_down_before_it_was_ready(world: World) -> None:
    world.add(ever_active=False, status=S.DEPLOYING)
    await settle()
    for _ in range(100):
        world.now_s += 1
        world.report()
        await settle()
    assert (world.row().goal, world.row().status) == (1, S.DEPLOYING)


async def test_a_row_that_changed_meanwhile_is_decided_again(world: World) -> None:
    world.add()
    await settle()
    await world.seconds(20)
    with world.store.begin() as tx:
        row = tx.deployments.get(id="one")
        assert row is not None
        tx.deployments.update(msgspec.structs.replace(row, name="renamed"))
    await world.seconds(3)
    assert (world.row().goal, world.row().name) == (0, "renamed")


async def test_the_log_of_the_deployment_says_why(world: World) -> None:
    world.add()
    await settle()
    await world.seconds(15, one=2)
    await world.seconds(100)
    folder = world.platform.settings.data.deployments / "one" / "logs"
    text = "".join(file.read_text() for file in folder.rglob("*.log"))
    assert "Scaling from 1 to 2 replicas: a load of 1, for 1 per replica at 70 %." in text
    assert "Scaling from 1 to 0 replicas: no request for 20 s" in text
