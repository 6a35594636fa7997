"""Carries out `autoscale.decide`: keeps each deployment's load, and writes how many replicas it
shall have. Starts and stops none; `replicas` does.

Only deployments that have replicas, shall have some, or are asked for are looked at: one that is
idle at zero costs nothing. A decision is taken when a load report comes and when something about
the deployment changed. What the reports said is kept in memory only: after a restart of control or
a gap in the reports nothing is scaled down until the delays have passed anew.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from kingpost.control import autoscale
from kingpost.control.autoscale import Count, History, Timer
from kingpost.control.deployments import scaled, woken
from kingpost.control.domain import (
    FAILED_STATES,
    AutoscalingSettings,
    Deployment,
    Replica,
    ReplicaState,
    Wanted,
)
from kingpost.control.events import Events
from kingpost.control.logs import Logs
from kingpost.control.store import Store, Transaction
from kingpost.errors import StaleWriteError, StorageFullError
from kingpost.messages import Load, LoadReport

log = logging.getLogger(__name__)

GAP_S: Final = 5.0
"""Reports come each second; after a longer pause the load is not known."""
_LOADING: Final = frozenset({ReplicaState.PLACED, ReplicaState.STARTED})
_NEVER: Final = float("inf")


@dataclass
class Tracked:
    """A deployment that is looked at: its row, its replicas, its load, its timer."""

    deployment: Deployment
    ready: int
    loading: int
    history: History = field(default_factory=History)
    timer: Timer = field(default_factory=Timer)
    active: bool = False
    due_s: float = 0.0

    @property
    def settings(self) -> AutoscalingSettings:
        settings = self.deployment.autoscaling
        if self.deployment.is_development:
            return msgspec.structs.replace(settings, min_replica=0, max_replica=1)
        return settings

    @property
    def count(self) -> Count:
        row = self.deployment
        return Count(row.goal, self.ready, self.loading, starting=not row.ever_active)


class Scaler:
    """`clock` is monotonic, in seconds."""

    def __init__(
        self,
        store: Store,
        logs: Logs,
        events: Events,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._logs = logs
        self._events = events
        self._clock = clock
        self._tracked: dict[str, Tracked] = {}
        self._loaded: set[str] = set()
        self._changed: set[str] = set()
        self._looking = False
        self._known_since_s: float | None = None
        self._reported_s = 0.0
        events.deployment.subscribe(self._on_change)
        events.route.subscribe(self._on_change)
        events.forgotten.subscribe(self._on_change)

    def start(self) -> None:
        """After a start of control: look at all that shall have replicas."""
        with self._store.begin() as tx:
            for row in tx.deployments.find():
                self._take(tx, row)

    def connected(self) -> None:
        """A gateway has (again) been connected to: nothing is known of the time before."""
        self._known_since_s = None

    def on_load(self, report: LoadReport) -> None:
        """Take a report in, and decide what is due."""
        now = self._clock()
        if self._known_since_s is None or now - self._reported_s > GAP_S:
            self._begin_anew(now)
        self._reported_s = now
        for deployment_id in self._loaded - report.loads.keys():
            tracked = self._tracked.get(deployment_id)
            if tracked is not None:
                self._sample(tracked, 0, now)
        self._loaded = set()
        for deployment_id, load in report.loads.items():
            tracked = self._tracked.get(deployment_id)
            if tracked is None and load.held:
                self.wake(deployment_id)
                tracked = self._tracked.get(deployment_id)
            if tracked is not None:
                self._loaded.add(deployment_id)
                self._sample(tracked, _amount(load), now)
        for tracked in [t for t in self._tracked.values() if t.due_s <= now]:
            self._decide(tracked, now)

    def wake(self, deployment_id: str) -> None:
        """Somebody waits for a deployment, or asked for it: one at zero gets a replica.

        While the disk is full it stays at zero; the next load report asks again.
        """
        try:
            self._wake(deployment_id)
        except StorageFullError as error:
            extra = {"deployment": deployment_id, "error": error.message}
            log.warning("deployment not woken", extra=extra)

    def _wake(self, deployment_id: str) -> None:
        with self._store.begin() as tx:
            old = tx.deployments.get(id=deployment_id)
            if old is None:
                return
            new = woken(old)
            if new is not old:
                new = tx.deployments.update(new)
            self._take(tx, new)
        tracked = self._tracked.get(deployment_id)
        if tracked is not None:
            tracked.active, tracked.due_s = True, 0.0
        if new is not old:
            self._tell(new, "something waits for it")

    def _begin_anew(self, now: float) -> None:
        self._known_since_s = now
        self._loaded = set()
        for tracked in self._tracked.values():
            tracked.history, tracked.timer, tracked.due_s = History(), Timer(), 0.0

    def _sample(self, tracked: Tracked, load: float, now: float) -> None:
        keep_s = max(tracked.settings.autoscaling_window, autoscale.recent_s(tracked.settings))
        tracked.history.add(now, load, keep_s=keep_s)
        tracked.active, tracked.due_s = True, 0.0

    def _on_change(self, deployment_id: str) -> None:
        self._changed.add(deployment_id)
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        """Read again what changed, and decide it: new settings apply at once."""
        self._looking = False
        changed, self._changed = self._changed, set()
        with self._store.begin() as tx:
            for deployment_id in changed:
                row = tx.deployments.get(id=deployment_id)
                if row is None:
                    self._tracked.pop(deployment_id, None)
                else:
                    self._take(tx, row)
        now = self._clock()
        for deployment_id in changed & self._tracked.keys():
            self._decide(self._tracked[deployment_id], now)

    def _take(self, tx: Transaction, row: Deployment) -> None:
        """Track a deployment as it is now, or no longer."""
        if not _scales(row):
            self._tracked.pop(row.id, None)
            return
        replicas = tx.replicas.find(deployment_id=row.id)
        ready, loading = _count(replicas)
        tracked = self._tracked.get(row.id)
        if tracked is None:
            self._tracked[row.id] = Tracked(row, ready, loading)
        else:
            tracked.deployment, tracked.ready, tracked.loading = row, ready, loading

    def _decide(self, tracked: Tracked, now: float) -> None:
        try:
            self._decide_one(tracked, now)
        except StorageFullError as error:
            extra = {"deployment": tracked.deployment.id, "error": error.message}
            log.warning("deployment not scaled", extra=extra)
        except Exception:
            log.exception("scaling failed", extra={"deployment": tracked.deployment.id})

    def _decide_one(self, tracked: Tracked, now: float) -> None:
        row, settings, since = tracked.deployment, tracked.settings, self._known_since_s
        load = None
        if since is not None and now - self._reported_s <= GAP_S:
            load = autoscale.measured(
                tracked.history, settings, known_since_s=since, active=tracked.active, now_s=now
            )
        decision = autoscale.decide(settings, load, tracked.count, tracked.timer, now)
        if decision.goal != row.goal and not self._write(row, decision.goal, decision.reason):
            tracked.due_s = 0.0
            return
        tracked.timer = decision.timer
        tracked.active = tracked.active and load is None
        tracked.due_s = _NEVER if decision.recheck_s is None else decision.recheck_s
        if tracked.history.now or (load is not None and (load.mean or not load.whole)):
            tracked.due_s = 0.0

    def _write(self, old: Deployment, goal: int, reason: str) -> bool:
        """Whether it is written; False when the row has changed, and is to be read again."""
        new = scaled(old, goal)
        if new is old:
            return True
        try:
            with self._store.begin() as tx:
                new = tx.deployments.update(new)
        except StaleWriteError:
            self._on_change(old.id)
            return False
        self._tell(new, reason, was=old.goal)
        return True

    def _tell(self, new: Deployment, reason: str, *, was: int = 0) -> None:
        self._logs.say(new.id, f"Scaling from {was} to {new.goal} replicas: {reason}.")
        log.info(
            "scaled", extra={"deployment": new.id, "was": was, "goal": new.goal, "why": reason}
        )
        self._events.deployment(new.id)
        if (was == 0) != (new.goal == 0):
            self._events.model(new.model_id)


def _scales(row: Deployment) -> bool:
    """Whether there is anything to decide: it shall run, can, and is not idle at zero."""
    return (
        row.wanted is Wanted.RUNNING
        and row.runnable is not None
        and row.status not in FAILED_STATES
        and (row.goal > 0 or row.autoscaling.min_replica > 0)
    )


def _amount(load: Load) -> float:
    """Requests at a time: on average where the gateway says so, else now."""
    return load.in_flight + load.held if load.average is None else load.average


def _count(replicas: list[Replica]) -> tuple[int, int]:
    """(ready, loading)."""
    ready = sum(r.state is ReplicaState.READY for r in replicas)
    return ready, sum(r.state in _LOADING for r in replicas)
