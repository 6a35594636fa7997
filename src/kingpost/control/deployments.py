"""Deployments as a user sees them: found, renamed, started, stopped, retried, deleted, tuned."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import msgspec

from kingpost import contract
from kingpost.contract import DeploymentStatus as S
from kingpost.control import scaling_settings
from kingpost.control.domain import (
    FAILED_STATES,
    AutoscalingSettings,
    Deployment,
    Replica,
    Wanted,
    may_become,
    utc_now,
)
from kingpost.control.events import Events
from kingpost.control.store import Store, Transaction
from kingpost.errors import ConflictError, InvalidInputError, NotFoundError, StaleWriteError

_TRIES = 5


class Deployments:
    """`reference` is a deployment id, or `production` or `development` (the contract's aliases)."""

    def __init__(self, store: Store, events: Events) -> None:
        self._store = store
        self._events = events

    def get(self, team_id: str, model_id: str, reference: str) -> Deployment:
        with self._store.begin() as tx:
            return self._find(tx, team_id, model_id, reference)

    def by_id(self, team_id: str, deployment_id: str) -> Deployment:
        """For doors that name no model (GraphQL `model_version(id)`)."""
        with self._store.begin() as tx:
            found = tx.deployments.get(id=deployment_id)
            if found is None:
                raise _no_deployment(deployment_id)
            return self._find(tx, team_id, found.model_id, deployment_id)

    def list(self, team_id: str, model_id: str, name: str | None = None) -> tuple[Deployment, ...]:
        """Newest first; with `name`, the one of exactly that name."""
        with self._store.begin() as tx:
            check_model(tx, team_id, model_id)
            found = tx.deployments.find(model_id=model_id)
        alive = [d for d in found if d.wanted is not Wanted.DELETED and name in {None, d.name}]
        return tuple(sorted(alive, key=lambda d: (d.created_at, d.id), reverse=True))

    def replicas(self, deployment_id: str) -> tuple[Replica, ...]:
        with self._store.begin() as tx:
            found = tx.replicas.find(deployment_id=deployment_id)
        return tuple(sorted(found, key=lambda r: r.created_at))

    def rename(self, team_id: str, model_id: str, reference: str, name: str) -> Deployment:
        if not contract.is_deployment_name(name):
            raise InvalidInputError(
                f"{name!r} can't name a deployment. Use letters, digits, `_`, `-` and `.` only."
            )

        def change(tx: Transaction, old: Deployment) -> Deployment:
            others = tx.deployments.find(model_id=old.model_id, name=name)
            if any(other.id != old.id for other in others):
                raise ConflictError(f"This model has a deployment named {name!r} already.")
            return msgspec.structs.replace(old, name=name)

        return self._change(team_id, model_id, reference, change)

    def activate(self, team_id: str, model_id: str, reference: str) -> Deployment:
        """Start an inactive deployment again; for one that runs or is starting, nothing."""
        return self._change(team_id, model_id, reference, lambda _, old: activated(old))

    def deactivate(self, team_id: str, model_id: str, reference: str) -> Deployment:
        return self._change(team_id, model_id, reference, lambda _, old: deactivated(old))

    def retry(self, team_id: str, model_id: str, reference: str) -> tuple[bool, Deployment]:
        """Try a failed deployment again, from where it failed. False when it had not failed."""
        before = self.get(team_id, model_id, reference)
        if before.status not in FAILED_STATES:
            return False, before

        def change(_: Transaction, old: Deployment) -> Deployment:
            if old.status not in FAILED_STATES:
                return old
            status = S.DEPLOYING if old.runnable else S.BUILDING
            return msgspec.structs.replace(
                old, wanted=Wanted.RUNNING, **_fresh_start(old, status, utc_now())
            )

        return True, self._change(team_id, model_id, reference, change)

    def delete(self, team_id: str, model_id: str, reference: str) -> Deployment:
        def change(tx: Transaction, old: Deployment) -> Deployment:
            environment = old.environment and tx.environments.get(
                model_id=old.model_id, name=old.environment
            )
            if environment and environment.current == old.id:
                raise ConflictError(
                    f"This deployment serves the environment {environment.name!r}. Promote another "
                    "deployment to it first, or delete the whole model."
                )
            return marked_deleted(old)

        return self._change(team_id, model_id, reference, change)

    def set_autoscaling(
        self, team_id: str, model_id: str, reference: str, changes: dict[str, object]
    ) -> bool:
        """Change the settings that apply to it; False when they were so already.

        Those of a deployment in an environment belong to the environment (contract).
        """
        with self._store.begin() as tx:
            old = self._find(tx, team_id, model_id, reference)
            if old.environment:
                environment = tx.environments.get(model_id=model_id, name=old.environment)
                if environment is not None:
                    fresh = scaling_settings.changed(environment.autoscaling, changes)
                    if fresh == environment.autoscaling:
                        return False
                    tx.environments.update(msgspec.structs.replace(environment, autoscaling=fresh))
                    fresh_deployment = msgspec.structs.replace(old, autoscaling=fresh)
                    tx.deployments.update(fresh_deployment)
            else:
                fresh = scaling_settings.changed(
                    old.autoscaling, changes, development=old.is_development
                )
                if fresh == old.autoscaling:
                    return False
                tx.deployments.update(msgspec.structs.replace(old, autoscaling=fresh))
        self._events.deployment(old.id)
        return True

    def set_backpressure(
        self, team_id: str, model_id: str, reference: str, policy: str | None
    ) -> Deployment:
        return self._change(
            team_id,
            model_id,
            reference,
            lambda _, old: msgspec.structs.replace(old, backpressure=policy),
        )

    def _find(self, tx: Transaction, team_id: str, model_id: str, reference: str) -> Deployment:
        check_model(tx, team_id, model_id)
        if reference == contract.PRODUCTION:
            environment = tx.environments.get(model_id=model_id, name=reference)
            if environment is None or environment.current is None:
                raise NotFoundError(
                    "This model has no production deployment yet. Promote one, or wait until its "
                    "first deployment is active."
                )
            reference = environment.current
        elif reference == contract.DEVELOPMENT:
            return self._development(tx, model_id)
        found = tx.deployments.get(id=reference)
        if found is None or found.model_id != model_id or found.wanted is Wanted.DELETED:
            raise _no_deployment(reference)
        return found

    def _development(self, tx: Transaction, model_id: str) -> Deployment:
        for found in tx.deployments.find(model_id=model_id):
            if found.is_development and found.wanted is not Wanted.DELETED:
                return found
        raise NotFoundError(
            "This model has no development deployment. Make one with `truss push --watch`, or use "
            "a published deployment."
        )

    def _change(
        self,
        team_id: str,
        model_id: str,
        reference: str,
        change: Callable[[Transaction, Deployment], Deployment],
    ) -> Deployment:
        """Apply `change` to the row as it is, again if a controller wrote in between."""
        for attempt in range(_TRIES):
            try:
                with self._store.begin() as tx:
                    old = self._find(tx, team_id, model_id, reference)
                    new = change(tx, old)
                    if new is not old:
                        new = tx.deployments.update(new)
                break
            except StaleWriteError:
                if attempt == _TRIES - 1:
                    raise
        self._events.deployment(new.id)
        return new


def check_model(tx: Transaction, team_id: str, model_id: str) -> None:
    """Raises NotFoundError unless the team has this model."""
    model = tx.models.get(id=model_id)
    if model is None or model.team_id != team_id:
        raise NotFoundError(
            f"There is no model with the id {model_id!r}. `kingpost models` lists those there are."
        )


def activated(old: Deployment) -> Deployment:
    if old.wanted is Wanted.RUNNING and old.status not in FAILED_STATES:
        if old.goal > 0:
            return old
        return msgspec.structs.replace(
            old, goal=1, waking=True, status=S.WAKING_UP, status_at=utc_now(), reason=None
        )
    status = S.DEPLOYING if old.runnable else S.BUILDING
    if not may_become(old.status, status):
        raise ConflictError(
            f"The deployment is {old.status.value} and can't be activated from there. "
            "Wait until it has settled, then repeat the request."
        )
    return msgspec.structs.replace(
        old, wanted=Wanted.RUNNING, **_fresh_start(old, status, utc_now())
    )


def deactivated(old: Deployment) -> Deployment:
    """Its replicas stop; a build that is under way is stopped, and can be retried."""
    if old.wanted is not Wanted.RUNNING:
        return old
    building = old.status is S.BUILDING
    return msgspec.structs.replace(
        old,
        wanted=Wanted.STOPPED,
        target_environment=None,
        status=S.BUILD_STOPPED if building else S.DEACTIVATING,
        status_at=utc_now(),
        reason="The build was stopped by a user." if building else None,
    )


def marked_deleted(old: Deployment) -> Deployment:
    """Gone for every reader at once; a controller stops its replicas and then drops the row."""
    freed = f"{old.name[:200]}~{old.id}"
    return msgspec.structs.replace(
        old, wanted=Wanted.DELETED, name=freed, target_environment=None, environment=None
    )


def woken(old: Deployment) -> Deployment:
    """A deployment at zero that is asked for: one replica again."""
    if old.wanted is not Wanted.RUNNING or old.goal > 0 or old.status is not S.SCALED_TO_ZERO:
        return old
    return msgspec.structs.replace(
        old,
        goal=1,
        waking=True,
        failures=0,
        failed_at=None,
        status=S.WAKING_UP,
        status_at=utc_now(),
        reason=None,
    )


def scaled_to_zero(old: Deployment) -> Deployment:
    """No replicas until somebody asks for it."""
    if (
        old.wanted is not Wanted.RUNNING
        or old.goal == 0
        or not may_become(old.status, S.SCALED_TO_ZERO)
    ):
        return old
    return msgspec.structs.replace(
        old, goal=0, waking=False, status=S.SCALED_TO_ZERO, status_at=utc_now(), reason=None
    )


def scaled(old: Deployment, goal: int) -> Deployment:
    """With that many replicas from now on. The one given when nothing may be changed."""
    if old.wanted is not Wanted.RUNNING or goal == old.goal:
        return old
    if goal == 0:
        return scaled_to_zero(old)
    if old.goal == 0:
        up = woken(old)
        return up if up is old else msgspec.structs.replace(up, goal=goal)
    return msgspec.structs.replace(old, goal=goal)


def first_goal(settings: AutoscalingSettings) -> int:
    """A new deployment begins with max(1, min_replica) so that it can be tested (contract)."""
    return max(1, settings.min_replica)


def _fresh_start(old: Deployment, status: S, now: datetime) -> dict[str, object]:
    return {
        "status": status,
        "status_at": now,
        "reason": None,
        "goal": first_goal(old.autoscaling),
        "ever_active": False,
        "waking": False,
        "failures": 0,
        "failed_at": None,
    }


def _no_deployment(reference: str) -> NotFoundError:
    return NotFoundError(
        f"There is no deployment {reference!r} of this model, or it was deleted. "
        "`kingpost deployments` lists those there are."
    )
