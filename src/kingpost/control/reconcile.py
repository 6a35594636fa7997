"""What to do for one deployment: desired and actual in, a plan out. Pure; the clock is passed in.

The vocabulary: a replica is *placed* (has a row and a share of the machine), *started* (its
process runs), *ready*, *draining* (out of routing, finishing its requests), *ended*. `goal` is
how many the scaler asks for. Properties that hold, each tested: nothing starts for a deployment
that is not wanted; never more than `goal` replicas that are not draining; a failed deployment
starts nothing; only legal status changes; a plan for a settled deployment is empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import msgspec

from kingpost.build.base import HealthChecks
from kingpost.contract import PREDICT_TIMEOUT_S
from kingpost.contract import DeploymentStatus as S
from kingpost.control.domain import (
    FAILED_STATES,
    Deployment,
    Replica,
    ReplicaState,
    Wanted,
    may_become,
)
from kingpost.engine.base import Exit

MAX_START_FAILURES: Final = 3
FIRST_BACKOFF_S: Final = 1.0
MAX_BACKOFF_S: Final = 60.0
DRAIN_LIMIT_S: Final = PREDICT_TIMEOUT_S
SETTLED_AFTER_S: Final = 60.0
"""A replica that was ready for this long starts a new count of failures when it ends."""


@dataclass(frozen=True)
class Seen:
    """A replica's row and what is known of it now.

    `drained` says that the gateway no longer sends it anything and nothing is in flight.
    """

    replica: Replica
    exit: Exit | None = None
    drained: bool = False


@dataclass(frozen=True)
class Plan:
    """What to write and do; `deployment` is the row as it shall be."""

    deployment: Deployment
    place: int = 0
    drain: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    ended: tuple[tuple[str, str], ...] = ()
    """Replicas that ended by themselves, each with its reason."""
    forget: bool = False
    recheck_at: datetime | None = None


def decide(
    deployment: Deployment, seen: Sequence[Seen], now: datetime, waiting_for: str | None = None
) -> Plan:
    """The next step. `waiting_for` is what the machine lacks for a placed replica, if anything."""
    ended = [s for s in seen if s.exit is not None and s.replica.state is not ReplicaState.ENDED]
    alive = [s for s in seen if s.exit is None and s.replica.state is not ReplicaState.ENDED]
    draining = [s for s in alive if s.replica.state is ReplicaState.DRAINING]
    serving = [s for s in alive if s.replica.state is not ReplicaState.DRAINING]
    after = _count_failures(deployment, ended, now)
    records = tuple((s.replica.id, _why(s.exit)) for s in ended if s.exit is not None)
    finished = tuple(s.replica.id for s in draining if s.drained or _overdue(s.replica, now))
    waits = [_drain_deadline(s.replica) for s in draining if s.replica.id not in finished]

    if not _runs(after):
        return _wind_down(after, serving, draining, records, finished, waits, now)

    unwell = [s for s in serving if _unwell(after, s.replica, now)]
    if unwell:
        after = _count_unwell(after, unwell, now)
        serving = [s for s in serving if s not in unwell]
        records += tuple((s.replica.id, _unwell_reason(s.replica)) for s in unwell)
        finished += tuple(s.replica.id for s in unwell)
    failed = _failed(after, now)
    if failed is not None:
        after = _become(after, S.DEPLOY_FAILED, now, failed)
        return Plan(after, drain=tuple(s.replica.id for s in serving), stop=finished, ended=records)

    goal = effective_goal(after)
    surplus = _surplus(serving, goal)
    missing = max(0, goal - len(serving))
    retry_at = _retry_at(after)
    place = missing if missing and (retry_at is None or retry_at <= now) else 0
    after = _status(after, serving, now, waiting_for)
    if missing and not place and retry_at is not None:
        waits.append(retry_at)
    waits += _deadlines(after, serving)
    return Plan(
        after,
        place=place,
        drain=tuple(s.replica.id for s in surplus),
        stop=finished,
        ended=records,
        recheck_at=min(waits, default=None),
    )


def effective_goal(deployment: Deployment) -> int:
    """How many replicas there shall be: the scaler's goal within the settings' bounds."""
    if deployment.wanted is not Wanted.RUNNING:
        return 0
    settings = deployment.autoscaling
    if deployment.goal == 0 and settings.min_replica == 0:
        return 0
    return max(1, settings.min_replica, min(deployment.goal, settings.max_replica))


def backoff_s(failures: int) -> float:
    """How long to wait after that many failures in a row: 1, 2, 4, ... 60 seconds."""
    if failures <= 0:
        return 0.0
    return float(min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(failures - 1, 16)))


def routable(replica: Replica, health: HealthChecks, now: datetime) -> bool:
    """Whether traffic may go to it: ready, and not unwell for longer than the contract allows."""
    if replica.state is not ReplicaState.READY:
        return False
    since = replica.unready_since
    return since is None or now - since < timedelta(seconds=health.stop_traffic_threshold_s)


def _runs(deployment: Deployment) -> bool:
    return (
        deployment.wanted is Wanted.RUNNING
        and deployment.runnable is not None
        and deployment.status not in FAILED_STATES
        and deployment.status is not S.BUILDING
        and effective_goal(deployment) > 0
    )


def _wind_down(
    deployment: Deployment,
    serving: list[Seen],
    draining: list[Seen],
    records: tuple[tuple[str, str], ...],
    finished: tuple[str, ...],
    waits: list[datetime],
    now: datetime,
) -> Plan:
    empty = not serving and not draining
    if deployment.wanted is Wanted.DELETED:
        return Plan(
            deployment,
            drain=tuple(s.replica.id for s in serving),
            stop=finished,
            ended=records,
            forget=empty,
            recheck_at=min(waits, default=None),
        )
    after = deployment
    if deployment.wanted is Wanted.STOPPED and deployment.status is not S.BUILD_STOPPED:
        after = _become(after, S.INACTIVE if empty else S.DEACTIVATING, now)
    return Plan(
        after,
        drain=tuple(s.replica.id for s in serving),
        stop=finished,
        ended=records,
        recheck_at=min(waits, default=None),
    )


def _status(
    deployment: Deployment,
    serving: list[Seen],
    now: datetime,
    waiting_for: str | None,
) -> Deployment:
    """The status that the replicas' states amount to."""
    states = {s.replica.state for s in serving}
    if ReplicaState.READY in states:
        settled = msgspec.structs.replace(deployment, ever_active=True, waking=False)
        if deployment.status is S.UPDATING:
            return settled
        reasons = (_emulation(deployment, serving), _short_of(deployment, serving, waiting_for))
        return _become(settled, S.ACTIVE, now, " ".join(filter(None, reasons)) or None)
    if deployment.ever_active and deployment.status is S.ACTIVE and not deployment.failures:
        # Its replicas were stopped with the platform, or their machine ended: it wakes.
        deployment = msgspec.structs.replace(deployment, waking=True)
    if deployment.waking and deployment.failures < MAX_START_FAILURES:
        return _become(deployment, S.WAKING_UP, now, waiting_for)
    if deployment.ever_active:
        reason = deployment.reason or "No replica is ready; it is being restarted."
        return _become(deployment, S.UNHEALTHY, now, waiting_for or reason)
    if ReplicaState.STARTED in states:
        return _become(deployment, S.LOADING_MODEL, now, deployment.reason)
    return _become(deployment, S.DEPLOYING, now, waiting_for or deployment.reason)


def _short_of(deployment: Deployment, serving: list[Seen], waiting_for: str | None) -> str | None:
    goal = effective_goal(deployment)
    if waiting_for is None or len(serving) >= goal:
        return None
    return f"{len(serving)} of {goal} replicas have a place: {waiting_for}."


def _emulation(deployment: Deployment, serving: list[Seen]) -> str | None:
    accelerator = deployment.runnable.accelerator if deployment.runnable else None
    if accelerator is None or not any(s.replica.emulated for s in serving):
        return None
    return f"The accelerator {accelerator.name} is emulated: it runs on the CPU."


def _become(
    deployment: Deployment, status: S, now: datetime, reason: str | None = None
) -> Deployment:
    if deployment.status is status:
        if deployment.reason == reason:
            return deployment
        return msgspec.structs.replace(deployment, reason=reason)
    if not may_become(deployment.status, status):
        return deployment
    return msgspec.structs.replace(deployment, status=status, status_at=now, reason=reason)


def _count_failures(deployment: Deployment, ended: list[Seen], now: datetime) -> Deployment:
    for s in ended:
        if s.replica.state is ReplicaState.DRAINING or s.exit is None:
            continue
        was_ready = s.replica.ready_at
        settled = was_ready is not None and now - was_ready > timedelta(seconds=SETTLED_AFTER_S)
        deployment = msgspec.structs.replace(
            deployment,
            failures=1 if settled else deployment.failures + 1,
            failed_at=now,
            reason=f"A replica ended: {_why(s.exit)}.",
        )
    return deployment


def _count_unwell(deployment: Deployment, unwell: list[Seen], now: datetime) -> Deployment:
    return msgspec.structs.replace(
        deployment,
        failures=deployment.failures + len(unwell),
        failed_at=now,
        reason=f"A replica was stopped: {_unwell_reason(unwell[-1].replica)}.",
    )


def _failed(deployment: Deployment, now: datetime) -> str | None:
    """Why a first start has failed for good, or None."""
    starting = may_become(deployment.status, S.DEPLOY_FAILED)
    if deployment.ever_active or deployment.waking or not starting:
        return None
    if deployment.failures >= MAX_START_FAILURES:
        return f"It failed to start {deployment.failures} times. {deployment.reason or ''}".strip()
    started = deployment.status_at if deployment.status is S.DEPLOYING else None
    timeout = deployment.deploy_timeout_s
    if timeout and started and now - started > timedelta(seconds=timeout):
        return (
            f"It was not ready within the deploy timeout of {timeout / 60:g} minutes. "
            f"{deployment.reason or ''}"
        ).strip()
    return None


def _unwell(deployment: Deployment, replica: Replica, now: datetime) -> bool:
    """Whether its health has failed for longer than the config's thresholds allow."""
    health = _health(deployment)
    if replica.state is ReplicaState.STARTED and replica.started_at is not None:
        return now - replica.started_at >= timedelta(seconds=health.startup_threshold_s)
    if replica.state is ReplicaState.READY and replica.unready_since is not None:
        return now - replica.unready_since >= timedelta(seconds=health.restart_threshold_s)
    return False


def _unwell_reason(replica: Replica) -> str:
    if replica.state is ReplicaState.STARTED:
        return "it was not ready within its startup threshold"
    return "its health check kept failing for its restart threshold"


def _deadlines(deployment: Deployment, serving: list[Seen]) -> list[datetime]:
    health = _health(deployment)
    deadlines = []
    for s in serving:
        replica = s.replica
        if replica.state is ReplicaState.STARTED and replica.started_at is not None:
            deadlines.append(replica.started_at + timedelta(seconds=health.startup_threshold_s))
        if replica.unready_since is not None:
            since = replica.unready_since
            deadlines.append(since + timedelta(seconds=health.restart_threshold_s))
            deadlines.append(since + timedelta(seconds=health.stop_traffic_threshold_s))
    return deadlines


def _surplus(serving: list[Seen], goal: int) -> list[Seen]:
    """Which to let go when there are too many: ready ones, youngest first; never one that loads."""
    excess = len(serving) - goal
    if excess <= 0:
        return []
    ready = [s for s in serving if s.replica.state is ReplicaState.READY]
    ready.sort(key=lambda s: s.replica.created_at, reverse=True)
    keep_ready = max(0, len(ready) - excess)
    return ready[: len(ready) - keep_ready]


def _health(deployment: Deployment) -> HealthChecks:
    return deployment.runnable.health if deployment.runnable else HealthChecks()


def _retry_at(deployment: Deployment) -> datetime | None:
    if deployment.failed_at is None or deployment.failures == 0:
        return None
    return deployment.failed_at + timedelta(seconds=backoff_s(deployment.failures))


def _drain_deadline(replica: Replica) -> datetime:
    return (replica.draining_at or replica.created_at) + timedelta(seconds=DRAIN_LIMIT_S)


def _overdue(replica: Replica, now: datetime) -> bool:
    return now >= _drain_deadline(replica)


def _why(exit_: Exit | None) -> str:
    if exit_ is None:
        return "ended"
    if exit_.reason:
        return exit_.reason
    if exit_.signal is not None:
        return f"killed by signal {exit_.signal}"
    return f"exit code {exit_.code}"
