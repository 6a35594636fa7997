"""What the gateway knows of the world: models, deployments, keys, notices, at one number.

Changed only by `Snapshot` and `Delta`, in the loop turn in which they come. The lookups of a
request are plain dictionary reads.
"""

from __future__ import annotations

from collections.abc import Iterable

from kingpost.gateway.admission import Admission, Dispatched, Waiter
from kingpost.gateway.auth import Keys
from kingpost.messages import Delta, DeploymentRoute, ModelRoute, Notice, Snapshot


class OutOfStepError(Exception):
    """A delta that does not follow on the state's number."""


class Effects:
    """What a change sets in motion: held requests to send on, and those that wait in vain."""

    __slots__ = ("dispatched", "stranded")

    def __init__(self) -> None:
        self.dispatched: list[Dispatched] = []
        self.stranded: list[tuple[Waiter, DeploymentRoute | None]] = []


class World:
    """`loaded` once a snapshot has come, from the control plane or from the disk."""

    def __init__(self, admission: Admission) -> None:
        self.number = 0
        self.loaded = False
        self.models: dict[str, ModelRoute] = {}
        self.keys = Keys()
        self.notices: tuple[Notice, ...] = ()
        self._admission = admission

    def apply(self, message: Snapshot | Delta, now: float) -> Effects:
        """Take a step. Raises `OutOfStepError`, having changed nothing."""
        if isinstance(message, Snapshot):
            return self._replace(message, now)
        if not self.loaded or message.number != self.number + 1:
            raise OutOfStepError(f"at {self.number}, got a delta to {message.number}")
        effects = Effects()
        self._take(message, effects, now)
        for model_id in message.removed_models:
            self.models.pop(model_id, None)
        for key_id in message.removed_keys:
            self.keys.remove(key_id)
        self._drop(message.removed_deployments, effects)
        if message.notices is not None:
            self.notices = message.notices
        self.number = message.number
        return effects

    def snapshot(self) -> Snapshot:
        """The whole of it, as a message."""
        return Snapshot(
            number=self.number,
            models=tuple(self.models.values()),
            deployments=tuple(lane.route for lane in self._admission.lanes.values()),
            keys=tuple(self.keys.records()),
            notices=self.notices,
        )

    def _replace(self, message: Snapshot, now: float) -> Effects:
        effects = Effects()
        self.keys = Keys()
        kept = {route.id for route in message.deployments}
        self._take(message, effects, now)
        self._drop([id_ for id_ in self._admission.lanes if id_ not in kept], effects)
        self.notices = message.notices
        self.number = message.number
        self.loaded = True
        return effects

    def _take(self, message: Snapshot | Delta, effects: Effects, now: float) -> None:
        """What it held goes with an environment, before its old deployment may turn it away."""
        known = self.models
        if isinstance(message, Snapshot):
            self.models = {}
        for key in message.keys:
            self.keys.put(key)
        moves = [move for model in message.models for move in _moves(known.get(model.id), model)]
        for model in message.models:
            self.models[model.id] = model
        if not moves:
            self._put(message.deployments, effects, now)
            return
        new = {new_id for _, _, new_id in moves}
        self._put([route for route in message.deployments if route.id in new], effects, now)
        for environment, old_id, new_id in moves:
            dispatched = self._admission.follow(environment, old_id, new_id, now)
            if dispatched:
                effects.dispatched.append(dispatched)
        self._put([route for route in message.deployments if route.id not in new], effects, now)

    def _put(self, deployments: Iterable[DeploymentRoute], effects: Effects, now: float) -> None:
        for route in deployments:
            dispatched, stranded = self._admission.put(route, now)
            if dispatched:
                effects.dispatched.append(dispatched)
            effects.stranded.extend((waiter, route) for waiter in stranded)

    def _drop(self, deployment_ids: Iterable[str], effects: Effects) -> None:
        for deployment_id in deployment_ids:
            stranded = self._admission.remove(deployment_id)
            effects.stranded.extend((waiter, None) for waiter in stranded)


def _moves(old: ModelRoute | None, new: ModelRoute) -> list[tuple[str, str, str]]:
    """Environments that lead elsewhere now: (name, old deployment, new deployment)."""
    if old is None:
        return []
    before = old.environments
    return [
        (name, before[name], deployment_id)
        for name, deployment_id in new.environments.items()
        if before.get(name, deployment_id) != deployment_id
    ]
