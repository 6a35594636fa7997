"""Patches of a development deployment: staged, applied by its control server, replayed at a start.

The store keeps every patch in order. A replica starts from what was built; what was applied since
is replayed before it gets traffic (truss control server: `/control/patch`).
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

from kingpost import contract
from kingpost.contract import DeploymentStatus as S
from kingpost.control.control_server import Applied, ControlServer
from kingpost.control.deployments import Deployments
from kingpost.control.domain import Deployment, Replica, ReplicaState, utc_now
from kingpost.control.events import Events
from kingpost.control.store import Patch, Store
from kingpost.engine.base import Address
from kingpost.errors import ConflictError, InvalidInputError, UnavailableError

log = logging.getLogger(__name__)


class PatchState(StrEnum):
    STAGED = "staged"
    APPLIED = "applied"


@dataclass(frozen=True)
class Point:
    """A state of the code: truss's hash of the folder, and its signature as JSON text."""

    hash: str
    signature: str


@dataclass(frozen=True)
class WatchState:
    """`staged` is where the last staged patch leads, `running` what the replica runs."""

    deployment: Deployment
    staged: Point
    running: Point


@dataclass(frozen=True)
class SyncResult:
    """What the CLI is told: all well, or an error, or that only a full push can help."""

    deployment: Deployment
    succeeded: bool
    needs_full_deploy: bool = False
    error: str | None = None


class Drafts:
    def __init__(self, store: Store, deployments: Deployments, events: Events) -> None:
        self._store = store
        self._deployments = deployments
        self._events = events
        self._one_at_a_time: dict[str, asyncio.Lock] = {}

    def watch_state(self, team_id: str, model_id: str) -> WatchState:
        deployment = self._deployments.get(team_id, model_id, contract.DEVELOPMENT)
        with self._store.begin() as tx:
            return _state(deployment, tx.patches(deployment.id))

    def stage(self, team_id: str, model_id: str, patch: dict[str, Any]) -> Deployment:
        """Keep a patch for the next `sync`. Raises ConflictError when it starts from elsewhere."""
        deployment = self._deployments.get(team_id, model_id, contract.DEVELOPMENT)
        fresh = _parse(patch)
        with self._store.begin() as tx:
            known = tx.patches(deployment.id)
            state = _state(deployment, known)
            if fresh.prev_hash == state.running.hash != state.staged.hash:
                tx.drop_patches(deployment.id, PatchState.STAGED)
            elif fresh.prev_hash != state.staged.hash:
                raise ConflictError(
                    "The patch starts from another state of the code than the deployment has. "
                    "Run the watch again, so that it compares with the state of now."
                )
            tx.add_patch(deployment.id, PatchState.STAGED, fresh)
        return deployment

    async def sync(self, team_id: str, model_id: str) -> SyncResult:
        """Apply what is staged to the running replica."""
        deployment = self._deployments.get(team_id, model_id, contract.DEVELOPMENT)
        lock = self._one_at_a_time.setdefault(deployment.id, asyncio.Lock())
        async with lock:
            with self._store.begin() as tx:
                known = tx.patches(deployment.id)
                replicas = tx.replicas.find(deployment_id=deployment.id)
            staged = [patch for state, patch in known if state == PatchState.STAGED]
            if not staged:
                return SyncResult(deployment, succeeded=True)
            server = _server(replicas)
            self._mark(deployment, S.UPDATING)
            try:
                outcome = await server.patch(
                    prev_hash=_state(deployment, known).running.hash,
                    next_hash=staged[-1].next_hash,
                    operations=[op for patch in staged for op in patch.patch_ops],
                )
            finally:
                self._mark(deployment, S.ACTIVE)
            return self._record(deployment, outcome)

    async def replay(self, deployment: Deployment, address: Address) -> None:
        """Bring a replica that has just started to the code that was running before."""
        with self._store.begin() as tx:
            known = tx.patches(deployment.id)
        applied = [patch for state, patch in known if state == PatchState.APPLIED]
        if not applied or deployment.runnable is None:
            return
        outcome = await ControlServer(address).patch(
            prev_hash=deployment.runnable.truss_hash,
            next_hash=applied[-1].next_hash,
            operations=[op for patch in applied for op in patch.patch_ops],
        )
        if outcome.error:
            log.warning(
                "patches were not replayed whole",
                extra={"deployment": deployment.id, "error": outcome.error},
            )

    def _record(self, deployment: Deployment, outcome: Applied) -> SyncResult:
        """A patch that took hold is kept as applied, also when reloading then failed: the files
        are as it says, and the next patch starts from there."""
        with self._store.begin() as tx:
            if outcome.took_hold:
                tx.mark_patches(deployment.id, PatchState.STAGED, PatchState.APPLIED)
            else:
                tx.drop_patches(deployment.id, PatchState.STAGED)
        return SyncResult(
            deployment,
            succeeded=outcome.error is None,
            needs_full_deploy=outcome.needs_full_deploy,
            error=outcome.error,
        )

    def _mark(self, deployment: Deployment, status: S) -> None:
        with self._store.begin() as tx:
            row = tx.deployments.get(id=deployment.id)
            if row is None or row.status not in {S.ACTIVE, S.UPDATING}:
                return
            tx.deployments.update(msgspec.structs.replace(row, status=status, status_at=utc_now()))
        self._events.route(deployment.id)


def _state(deployment: Deployment, known: list[tuple[str, Patch]]) -> WatchState:
    runnable = deployment.runnable
    built = Point(runnable.truss_hash, runnable.truss_signature) if runnable else Point("", "")
    running = staged = built
    for state, patch in known:
        staged = Point(patch.next_hash, _as_text(patch.next_signature))
        if state == PatchState.APPLIED:
            running = staged
    return WatchState(deployment, staged, running)


def _as_text(signature: Any) -> str:
    return signature if isinstance(signature, str) else msgspec.json.encode(signature).decode()


def _server(replicas: list[Replica]) -> ControlServer:
    for row in replicas:
        if row.state is ReplicaState.READY and row.host and row.port:
            return ControlServer(Address(row.host, row.port))
    raise UnavailableError(
        "The development deployment has no replica that is ready to take a patch. Wait until it "
        "is active, or wake it, then save again.",
        retry_after_s=2,
    )


def _parse(patch: dict[str, Any]) -> Patch:
    try:
        return msgspec.convert(patch, Patch)
    except msgspec.ValidationError as error:
        raise InvalidInputError(f"The patch can't be read: {error}.") from error
