"""Carries out `reconcile.decide`: starts, watches and stops replicas, and keeps their rows.

One step at a time per deployment. A step reads, decides, writes, then acts; what takes long
(starting, stopping) runs beside it and asks for a step when it is done.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from kingpost import contract
from kingpost.contract import DeploymentStatus as S
from kingpost.control import health
from kingpost.control.background import Background
from kingpost.control.domain import (
    FAILED_STATES,
    Deployment,
    Replica,
    ReplicaState,
    Wanted,
    utc_now,
)
from kingpost.control.events import Events
from kingpost.control.logs import Logs
from kingpost.control.patience import until_stored
from kingpost.control.place import Machine, NoRoom, place
from kingpost.control.reconcile import Plan, Seen, decide
from kingpost.control.specs import needs_of
from kingpost.control.store import Store, Transaction
from kingpost.control.upkeep import Upkeep
from kingpost.engine.base import Address, Engine, Exit, Phase
from kingpost.errors import KingpostError, StaleWriteError, StorageFullError
from kingpost.messages import LoadReport
from kingpost.settings import Settings

log = logging.getLogger(__name__)

DRAIN_WITHOUT_GATEWAY_S = 5.0
CAPACITY_RETRY_S = 2.0
_AT_REST = frozenset({S.SCALED_TO_ZERO, S.INACTIVE}) | FAILED_STATES
"""What needs nothing after a start of control, if it has no replicas."""


BeforeTraffic = Callable[[Deployment, Address], Awaitable[None]]
"""What is done with a replica once, when it is ready for the first time."""


async def _nothing(_deployment: Deployment, _address: Address) -> None:
    return


@dataclass(frozen=True)
class Gateway:
    """What draining needs to know of the gateway: is it there, and the state it was last sent."""

    connected: Callable[[], bool] = lambda: False
    number: Callable[[], int] = lambda: 0


@dataclass
class Live:
    """What this process knows of a replica beyond its row."""

    tasks: Background = field(default_factory=Background)
    exit: Exit | None = None
    stopping: bool = False
    routed_away_at: int | None = None
    """The number of the feed's state by which the gateway knew that it drains."""
    drained: bool = False


class Replicas:
    def __init__(
        self,
        settings: Settings,
        store: Store,
        engine: Engine,
        upkeep: Upkeep,
        logs: Logs,
        events: Events,
        machine: Machine,
    ) -> None:
        self._settings = settings
        self._store = store
        self._engine = engine
        self._upkeep = upkeep
        self._logs = logs
        self._events = events
        self._machine = machine
        self._live: dict[str, Live] = {}
        self._queued: set[str] = set()
        self._steps: dict[str, asyncio.Task[None]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._waiting: dict[str, str] = {}
        self._background = Background()
        self._closed = False
        self.gateway = Gateway()
        self.before_traffic: BeforeTraffic = _nothing
        events.deployment.subscribe(self.poke)

    async def adopt(self) -> None:
        """After a start of control: take over what runs, and end what nobody has a row for."""
        with self._store.begin() as tx:
            rows = [r for r in tx.replicas.find() if r.state is not ReplicaState.ENDED]
            deployments = {d.id: d for d in tx.deployments.find()}
        for row in rows:
            deployment = deployments.get(row.deployment_id)
            if deployment is None:
                with self._store.begin() as tx:
                    tx.replicas.delete(id=row.id)
                continue
            self._adopt_one(deployment, row)
            self.poke(deployment.id)
        known = {row.id for row in rows if row.deployment_id in deployments}
        for observed in self._engine.observe_all():
            if observed.replica_id not in known:
                self._background.spawn(self._engine.stop(observed.replica_id, grace_s=0))
        for deployment in deployments.values():
            if deployment.status not in _AT_REST or deployment.wanted is Wanted.DELETED:
                self.poke(deployment.id)

    def poke(self, deployment_id: str) -> None:
        """Look at a deployment soon."""
        if self._closed:
            return
        if deployment_id in self._steps:
            self._queued.add(deployment_id)
            return
        self._steps[deployment_id] = asyncio.get_running_loop().create_task(
            self._run_step(deployment_id)
        )

    def on_load(self, report: LoadReport) -> None:
        """Learn from the gateway which draining replicas have finished."""
        for replica_id, live in self._live.items():
            away = live.routed_away_at
            if away is None or live.drained or report.number < away:
                continue
            if not report.replicas.get(replica_id):
                live.drained = True
                self._poke_replica(replica_id)

    async def close(self) -> None:
        """Stop watching; replicas run on."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        doomed = [*self._steps.values(), *self._background.cancel()]
        for live in self._live.values():
            doomed += live.tasks.cancel()
        for task in self._steps.values():
            task.cancel()
        await asyncio.gather(*doomed, return_exceptions=True)
        await self._upkeep.close()

    async def stop_all(self, grace_s: float) -> None:
        """Stop every replica, for the end of the platform. Wishes stay as they are."""
        await self.close()
        with self._store.begin() as tx:
            rows = [r for r in tx.replicas.find() if r.state is not ReplicaState.ENDED]
        outcomes = await asyncio.gather(
            *(self._engine.stop(row.id, grace_s=grace_s) for row in rows), return_exceptions=True
        )
        for row, outcome in zip(rows, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                log.error("replica was not stopped", extra={"replica": row.id}, exc_info=outcome)
        try:
            with self._store.begin() as tx:
                for row in rows:
                    tx.replicas.delete(id=row.id)
        except StorageFullError:
            log.warning("stopped replicas keep their rows until the next start: the disk is full")

    # One step

    async def _run_step(self, deployment_id: str) -> None:
        try:
            await self._step(deployment_id)
        except StaleWriteError:
            self._queued.add(deployment_id)
        except Exception:
            log.exception("step failed", extra={"deployment": deployment_id})
            self._later(deployment_id, CAPACITY_RETRY_S)
        finally:
            del self._steps[deployment_id]
            if deployment_id in self._queued:
                self._queued.discard(deployment_id)
                self.poke(deployment_id)

    async def _step(self, deployment_id: str) -> None:
        now = utc_now()
        with self._store.begin() as tx:
            deployment = tx.deployments.get(id=deployment_id)
            if deployment is None:
                return
            rows = tx.replicas.find(deployment_id=deployment_id)
            plan = decide(
                deployment,
                [self._seen(row) for row in rows],
                now,
                self._waiting.get(deployment_id),
            )
            changed = self._write(tx, deployment, rows, plan, now)
            if plan.forget:
                tx.deployments.delete(id=deployment_id)
                tx.drop_patches(deployment_id)
                changed = True
            placed = self._place(tx, plan, now)
        if changed or placed or plan.drain:
            self._events.route(deployment_id)
        if plan.forget:
            self._events.forgotten(deployment_id)
        if plan.deployment.status is not deployment.status:
            self._announce(plan.deployment)
            self._events.model(deployment.model_id)
        self._act(plan, placed)
        running = [row for row in rows if (live := self._live.get(row.id)) and live.exit is None]
        await self._upkeep.refresh(plan.deployment, running)
        if plan.recheck_at is not None:
            self._later(deployment_id, max(0.0, (plan.recheck_at - utc_now()).total_seconds()))

    def _write(
        self, tx: Transaction, old: Deployment, rows: list[Replica], plan: Plan, now: datetime
    ) -> bool:
        changed = False
        if plan.deployment != old and not plan.forget:
            tx.deployments.update(plan.deployment)
            changed = True
        reasons = dict(plan.ended)
        for row in rows:
            if row.id in reasons or row.state is ReplicaState.ENDED:
                tx.replicas.delete(id=row.id)
                changed = True
            elif row.id in plan.drain and row.state is not ReplicaState.DRAINING:
                tx.replicas.put(
                    msgspec.structs.replace(row, state=ReplicaState.DRAINING, draining_at=now)
                )
                changed = True
        asked = {row.id for row in rows if row.state is ReplicaState.DRAINING}
        for replica_id, reason in plan.ended:
            said = "was stopped" if replica_id in asked else f"ended: {reason}"
            self._say(old.id, f"Replica {replica_id} {said}.")
        return changed

    def _place(self, tx: Transaction, plan: Plan, now: datetime) -> list[Replica]:
        """Rows for new replicas, as many as there is room for."""
        deployment = plan.deployment
        runnable = deployment.runnable
        if not plan.place or runnable is None:
            self._waiting.pop(deployment.id, None)
            return []
        needs = needs_of(deployment, runnable)
        placed = []
        for _ in range(plan.place):
            room = place(
                self._machine,
                tx.replicas.find(),
                cpu_millis=needs.cpu_millis,
                memory_bytes=needs.memory_bytes,
                accelerator=needs.accelerator,
            )
            if isinstance(room, NoRoom):
                self._no_room(deployment, room)
                break
            self._waiting.pop(deployment.id, None)
            placed.append(
                tx.replicas.insert(
                    Replica(
                        id=contract.new_id(),
                        deployment_id=deployment.id,
                        state=ReplicaState.PLACED,
                        created_at=now,
                        gpus=room.gpus,
                        emulated=room.emulated,
                        cpu_millis=needs.cpu_millis,
                        memory_bytes=needs.memory_bytes,
                    )
                )
            )
        return placed

    def _no_room(self, deployment: Deployment, room: NoRoom) -> None:
        if self._waiting.get(deployment.id) != room.reason:
            self._waiting[deployment.id] = room.reason
            self._say(deployment.id, f"No replica can be placed: {room.reason}.")
        if room.never and not deployment.ever_active:
            self._background.spawn(self._give_up(deployment.id, room.reason))
        self._later(deployment.id, CAPACITY_RETRY_S)

    async def _give_up(self, deployment_id: str, reason: str) -> None:
        """What this machine can never run fails, in words, after it was seen waiting."""
        with self._store.begin() as tx:
            deployment = tx.deployments.get(id=deployment_id)
            if deployment is None or deployment.status is not S.DEPLOYING:
                return
            failed = tx.deployments.update(
                msgspec.structs.replace(
                    deployment,
                    status=S.DEPLOY_FAILED,
                    status_at=utc_now(),
                    reason=f"It can't run here: {reason}.",
                )
            )
        self._announce(failed)
        self._events.deployment(deployment_id)

    def _act(self, plan: Plan, placed: list[Replica]) -> None:
        for row in placed:
            self._watch(plan.deployment, row)
        for replica_id in plan.drain:
            self._drain(replica_id)
        for replica_id in plan.stop:
            live = self._live.setdefault(replica_id, Live())
            if not live.stopping:
                live.stopping = True
                self._background.spawn(self._stop(plan.deployment.id, replica_id))
        for replica_id, _ in plan.ended:
            if replica_id not in plan.stop:
                self._background.spawn(self._engine.stop(replica_id, grace_s=0))
                self._forget(replica_id)

    def _seen(self, row: Replica) -> Seen:
        live = self._live.get(row.id)
        if live is None:
            return Seen(row)
        return Seen(row, exit=live.exit, drained=live.drained)

    # A replica's life

    def _adopt_one(self, deployment: Deployment, row: Replica) -> None:
        live = self._live.setdefault(row.id, Live())
        observed = self._engine.observe(row.id)
        if row.state is ReplicaState.PLACED:
            self._watch(deployment, row)
        elif observed.phase is Phase.RUNNING and row.host and row.port:
            live.tasks.spawn(self._await_exit(row))
            live.tasks.spawn(self._await_health(deployment, row, Address(row.host, row.port)))
            if row.state is ReplicaState.DRAINING:
                self._drain(row.id)
        else:
            live.exit = observed.exit or Exit(
                code=None, signal=None, at_ns=0, reason="it was gone after a restart of the machine"
            )

    def _watch(self, deployment: Deployment, row: Replica) -> None:
        live = self._live.setdefault(row.id, Live())
        live.tasks.spawn(self._start(deployment, row))

    async def _start(self, deployment: Deployment, row: Replica) -> None:
        runnable = deployment.runnable
        if runnable is None:
            return
        try:
            address = await self._upkeep.start(deployment, runnable, row)
        except (KingpostError, OSError) as error:
            self._ended(row, Exit(code=None, signal=None, at_ns=0, reason=_why(error)))
            return
        live = self._live.setdefault(row.id, Live())
        await self._update(
            row.id,
            state=ReplicaState.STARTED,
            started_at=utc_now(),
            host=address.host,
            port=address.port,
        )
        live.tasks.spawn(self._await_exit(row))
        await self._await_health(deployment, row, address)

    async def _await_exit(self, row: Replica) -> None:
        self._ended(row, await self._engine.wait(row.id))

    async def _await_health(self, deployment: Deployment, row: Replica, address: Address) -> None:
        runnable = deployment.runnable
        path = runnable.ready_path if runnable else contract.TRUSS_READY_PATH

        if row.state is not ReplicaState.READY:
            await health.until_ready(address, path)
            await self.before_traffic(deployment, address)
            await self._update(row.id, state=ReplicaState.READY, ready_at=utc_now())

        async def on_health(well: bool) -> None:
            current = self._row(row.id)
            if current is not None and current.state is ReplicaState.READY:
                await self._update(row.id, unready_since=None if well else utc_now())

        await health.watch(address, path, on_health)

    def _ended(self, row: Replica, exit_: Exit) -> None:
        self._live.setdefault(row.id, Live()).exit = exit_
        self.poke(row.deployment_id)

    def _drain(self, replica_id: str) -> None:
        """Out of routing now; `on_load` tells when it has nothing in flight any more."""
        live = self._live.setdefault(replica_id, Live())
        if live.routed_away_at is None:
            loop = asyncio.get_running_loop()
            loop.call_soon(self._note_routed_away, replica_id)
            loop.call_later(DRAIN_WITHOUT_GATEWAY_S, self._drained_alone, replica_id)

    def _note_routed_away(self, replica_id: str) -> None:
        live = self._live.get(replica_id)
        if live is not None:
            # Without a gateway, the snapshot that it gets first is the one that tells it.
            live.routed_away_at = self.gateway.number() + (not self.gateway.connected())

    def _drained_alone(self, replica_id: str) -> None:
        """Without a gateway nobody sends it anything: it may go. Looked at again until then."""
        live = self._live.get(replica_id)
        if live is None or live.drained or self._closed:
            return
        if self.gateway.connected():
            loop = asyncio.get_running_loop()
            loop.call_later(DRAIN_WITHOUT_GATEWAY_S, self._drained_alone, replica_id)
            return
        live.drained = True
        self._poke_replica(replica_id)

    async def _stop(self, deployment_id: str, replica_id: str) -> None:
        await self._engine.stop(replica_id, grace_s=self._settings.limits.stop_grace_s)
        self._forget(replica_id)
        await until_stored(lambda: self._drop_row(replica_id))
        self._events.route(deployment_id)
        self.poke(deployment_id)

    def _forget(self, replica_id: str) -> None:
        self._upkeep.forget(replica_id)
        live = self._live.pop(replica_id, None)
        if live is not None:
            live.tasks.cancel()

    # Small things

    def _row(self, replica_id: str) -> Replica | None:
        with self._store.begin() as tx:
            return tx.replicas.get(id=replica_id)

    async def _update(self, replica_id: str, **changes: Any) -> None:
        def write() -> Replica | None:
            with self._store.begin() as tx:
                row = tx.replicas.get(id=replica_id)
                return row and tx.replicas.put(msgspec.structs.replace(row, **changes))

        row = await until_stored(write)
        if row is not None:
            self._events.route(row.deployment_id)
            self.poke(row.deployment_id)

    def _drop_row(self, replica_id: str) -> None:
        with self._store.begin() as tx:
            tx.replicas.delete(id=replica_id)

    def _poke_replica(self, replica_id: str) -> None:
        row = self._row(replica_id)
        if row is not None:
            self.poke(row.deployment_id)

    def _later(self, deployment_id: str, delay_s: float) -> None:
        old = self._timers.pop(deployment_id, None)
        if old is not None:
            old.cancel()
        loop = asyncio.get_running_loop()
        self._timers[deployment_id] = loop.call_later(delay_s, self._timer, deployment_id)

    def _timer(self, deployment_id: str) -> None:
        self._timers.pop(deployment_id, None)
        self._events.route(deployment_id)
        self.poke(deployment_id)

    def _announce(self, deployment: Deployment) -> None:
        reason = f" ({deployment.reason})" if deployment.reason else ""
        self._say(deployment.id, f"Deployment is {deployment.status.value}{reason}")
        log.info(
            "deployment status",
            extra={"deployment": deployment.id, "status": deployment.status.value},
        )

    def _say(self, deployment_id: str, text: str) -> None:
        self._logs.say(deployment_id, text)


def _why(error: KingpostError | OSError) -> str:
    """Without the names of our files."""
    if isinstance(error, KingpostError):
        return error.message
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return "the disk of the data folder is full"
    return f"it could not be started: {error.strerror or type(error).__name__}"
