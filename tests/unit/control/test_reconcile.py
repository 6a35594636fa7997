"""Properties of the reconciler: what must never happen, whatever the state."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from kingpost.build.base import HealthChecks, Runnable
from kingpost.contract import DeploymentStatus as S
from kingpost.control.domain import (
    FAILED_STATES,
    AutoscalingSettings,
    Deployment,
    Replica,
    ReplicaState,
    Wanted,
    may_become,
)
from kingpost.control.reconcile import (
    MAX_START_FAILURES,
    Plan,
    Seen,
    backoff_s,
    decide,
    effective_goal,
    routable,
)
from kingpost.engine.base import Exit

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUNNABLE = Runnable(argv=("serve",), cwd="/app", port=8080)
times = st.none() | st.integers(0, 4000).map(lambda s: NOW - timedelta(seconds=s))


def deployment(**changes: object) -> Deployment:
    base = Deployment(
        id="dep",
        model_id="model",
        name="one",
        created_at=NOW,
        status_at=NOW,
        status=S.DEPLOYING,
        runnable=RUNNABLE,
    )
    return msgspec.structs.replace(base, **changes)


def replica(name: str = "r1", state: ReplicaState = ReplicaState.READY, **more: object) -> Replica:
    row = Replica(id=name, deployment_id="dep", state=state, created_at=NOW)
    return msgspec.structs.replace(row, **more)


@st.composite
def deployments(draw: st.DrawFn) -> Deployment:
    low = draw(st.integers(0, 3))
    return deployment(
        status=draw(st.sampled_from(list(S))),
        runnable=draw(st.sampled_from([None, RUNNABLE])),
        wanted=draw(st.sampled_from(list(Wanted))),
        goal=draw(st.integers(0, 5)),
        ever_active=draw(st.booleans()),
        waking=draw(st.booleans()),
        failures=draw(st.integers(0, 6)),
        failed_at=draw(times),
        deploy_timeout_s=draw(st.sampled_from([None, 600.0])),
        status_at=draw(times) or NOW,
        autoscaling=AutoscalingSettings(min_replica=low, max_replica=low + draw(st.integers(1, 3))),
    )


@st.composite
def sights(draw: st.DrawFn) -> list[Seen]:
    found = []
    for number in range(draw(st.integers(0, 6))):
        state = draw(st.sampled_from(list(ReplicaState)))
        exit_ = draw(st.sampled_from([None, None, Exit(code=1, signal=None, at_ns=0)]))
        row = replica(
            f"r{number}",
            state,
            started_at=draw(times),
            ready_at=draw(times),
            draining_at=draw(times),
            unready_since=draw(times),
        )
        found.append(Seen(row, exit=exit_, drained=draw(st.booleans())))
    return found


def serving_after(plan: Plan, seen: list[Seen]) -> int:
    gone = {*plan.drain, *plan.stop, *(i for i, _ in plan.ended)}
    kept = [
        s
        for s in seen
        if s.replica.id not in gone
        and s.exit is None
        and s.replica.state not in {ReplicaState.ENDED, ReplicaState.DRAINING}
    ]
    return len(kept) + plan.place


@given(deployments(), sights())
def test_only_legal_status_changes(old: Deployment, seen: list[Seen]) -> None:
    assert may_become(old.status, decide(old, seen, NOW).deployment.status)


@given(deployments(), sights())
def test_nothing_starts_that_is_not_wanted(old: Deployment, seen: list[Seen]) -> None:
    plan = decide(old, seen, NOW)
    if old.wanted is not Wanted.RUNNING or old.runnable is None or old.status in FAILED_STATES:
        assert plan.place == 0


@given(deployments(), sights())
def test_a_deployment_that_fails_starts_nothing(old: Deployment, seen: list[Seen]) -> None:
    plan = decide(old, seen, NOW)
    if plan.deployment.status in FAILED_STATES:
        assert plan.place == 0


@given(deployments(), sights())
def test_places_fill_up_to_the_goal_and_never_past_it(old: Deployment, seen: list[Seen]) -> None:
    plan = decide(old, seen, NOW)
    if plan.place:
        assert serving_after(plan, seen) == effective_goal(plan.deployment)
    assert effective_goal(old) <= max(old.autoscaling.max_replica, 1)


@given(deployments(), sights())
def test_a_loading_replica_is_never_taken_away_as_surplus(
    old: Deployment, seen: list[Seen]
) -> None:
    plan = decide(old, seen, NOW)
    runs = (
        old.wanted is Wanted.RUNNING
        and old.runnable is not None
        and effective_goal(old) > 0
        and old.status not in FAILED_STATES | {S.BUILDING}
        and plan.deployment.status not in FAILED_STATES
    )
    if runs:
        ready = {s.replica.id for s in seen if s.replica.state is ReplicaState.READY}
        assert set(plan.drain) <= ready


@given(deployments(), sights())
def test_every_end_is_recorded_once(old: Deployment, seen: list[Seen]) -> None:
    plan = decide(old, seen, NOW)
    ids = [replica_id for replica_id, _ in plan.ended]
    assert len(ids) == len(set(ids))
    ended = {s.replica.id for s in seen if s.exit and s.replica.state is not ReplicaState.ENDED}
    assert ended <= set(ids)


def test_a_settled_deployment_needs_nothing() -> None:
    old = deployment(status=S.ACTIVE, ever_active=True)
    plan = decide(old, [Seen(replica())], NOW)
    assert plan == Plan(old)


def test_a_first_start_goes_from_deploying_to_active() -> None:
    first = decide(deployment(), [], NOW)
    assert (first.place, first.deployment.status) == (1, S.DEPLOYING)
    loading = decide(
        first.deployment, [Seen(replica(state=ReplicaState.STARTED, started_at=NOW))], NOW
    )
    assert loading.deployment.status is S.LOADING_MODEL
    active = decide(loading.deployment, [Seen(replica())], NOW)
    assert active.deployment.status is S.ACTIVE
    assert active.deployment.ever_active


def test_a_first_start_that_keeps_failing_fails_with_the_reason() -> None:
    old = deployment(status=S.LOADING_MODEL, failures=MAX_START_FAILURES - 1, failed_at=NOW)
    ended = Seen(
        replica(state=ReplicaState.STARTED, started_at=NOW),
        exit=Exit(code=3, signal=None, at_ns=0),
    )
    plan = decide(old, [ended], NOW)
    assert plan.deployment.status is S.DEPLOY_FAILED
    assert "exit code 3" in (plan.deployment.reason or "")
    assert plan.place == 0


def test_a_crash_of_an_active_one_is_restarted_after_a_pause() -> None:
    old = deployment(status=S.ACTIVE, ever_active=True)
    crash = Seen(replica(ready_at=NOW), exit=Exit(code=None, signal=9, at_ns=0))
    plan = decide(old, [crash], NOW)
    assert plan.deployment.status is S.UNHEALTHY
    assert plan.place == 0
    assert plan.recheck_at == NOW + timedelta(seconds=backoff_s(1))
    later = decide(plan.deployment, [], NOW + timedelta(seconds=backoff_s(1)))
    assert later.place == 1


def test_the_pause_grows_and_is_bounded() -> None:
    pauses = [backoff_s(n) for n in range(1, 100)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 60.0


def test_a_replica_that_never_gets_ready_is_stopped_at_its_threshold() -> None:
    runnable = msgspec.structs.replace(RUNNABLE, health=HealthChecks(startup_threshold_s=30))
    old = deployment(status=S.LOADING_MODEL, runnable=runnable)
    slow = Seen(replica(state=ReplicaState.STARTED, started_at=NOW))
    assert decide(old, [slow], NOW).recheck_at == NOW + timedelta(seconds=30)
    plan = decide(old, [slow], NOW + timedelta(seconds=30))
    assert plan.stop == ("r1",)
    assert plan.deployment.failures == 1


def test_a_drained_replica_is_stopped_and_an_undrained_one_waits() -> None:
    old = deployment(status=S.DEACTIVATING, wanted=Wanted.STOPPED)
    row = replica(state=ReplicaState.DRAINING, draining_at=NOW)
    assert decide(old, [Seen(row)], NOW).stop == ()
    assert decide(old, [Seen(row, drained=True)], NOW).stop == ("r1",)
    done = decide(old, [], NOW)
    assert done.deployment.status is S.INACTIVE


def test_a_deleted_deployment_is_forgotten_when_its_replicas_are_gone() -> None:
    old = deployment(status=S.ACTIVE, wanted=Wanted.DELETED)
    assert not decide(old, [Seen(replica())], NOW).forget
    assert decide(old, [], NOW).forget


def test_traffic_stops_at_its_threshold() -> None:
    health = HealthChecks(stop_traffic_threshold_s=10)
    row = replica(unready_since=NOW)
    assert routable(row, health, NOW + timedelta(seconds=9))
    assert not routable(row, health, NOW + timedelta(seconds=10))
    assert not routable(replica(state=ReplicaState.DRAINING), health, NOW)


def test_what_can_no_longer_fail_its_first_start_keeps_its_replicas() -> None:
    """Found by the property test: a plan that may not write DEPLOY_FAILED must not act on it."""
    old = deployment(status=S.ACTIVE, failures=MAX_START_FAILURES)
    plan = decide(old, [Seen(replica(state=ReplicaState.PLACED))], NOW)
    assert plan.drain == ()
    assert plan.stop == ()


def test_after_a_stop_of_the_platform_what_was_active_wakes_and_is_not_called_unhealthy() -> None:
    old = deployment(status=S.ACTIVE, ever_active=True)
    plan = decide(old, [], NOW)
    assert (plan.deployment.status, plan.place) == (S.WAKING_UP, 1)
    failing = msgspec.structs.replace(plan.deployment, failures=MAX_START_FAILURES, failed_at=NOW)
    assert decide(failing, [], NOW).deployment.status is S.UNHEALTHY


def test_an_active_one_that_is_short_of_replicas_says_what_is_missing() -> None:
    old = deployment(
        status=S.ACTIVE, ever_active=True, goal=3, autoscaling=AutoscalingSettings(max_replica=3)
    )
    plan = decide(old, [Seen(replica())], NOW, waiting_for="it waits for 1 x L4; 0 are free")
    assert plan.place == 2
    assert plan.deployment.status is S.ACTIVE
    assert plan.deployment.reason == (
        "1 of 3 replicas have a place: it waits for 1 x L4; 0 are free."
    )
    enough = decide(
        plan.deployment,
        [Seen(replica(f"r{number}")) for number in range(3)],
        NOW,
        waiting_for="it waits for 1 x L4; 0 are free",
    )
    assert enough.deployment.reason is None
