"""From a call's names to the deployment that takes it, or the contract's reason why none does."""

from __future__ import annotations

from typing import Final

from kingpost import contract
from kingpost.contract import DeploymentStatus
from kingpost.gateway.admission import Admission, Lane
from kingpost.gateway.answers import Refusal
from kingpost.gateway.auth import Key
from kingpost.gateway.routing import Call
from kingpost.gateway.state import World
from kingpost.messages import DeploymentRoute, ModelRoute

_GONE: Final = frozenset({DeploymentStatus.INACTIVE, DeploymentStatus.DEACTIVATING})
_FAILED: Final = frozenset(
    {
        DeploymentStatus.BUILD_FAILED,
        DeploymentStatus.BUILD_STOPPED,
        DeploymentStatus.DEPLOY_FAILED,
        DeploymentStatus.FAILED,
    }
)
_RETRY_AFTER_S: Final = 5


def deployment_of(world: World, admission: Admission, key: Key, call: Call) -> Lane:
    """Raises `Refusal`: 404 for what is not there or another team's, 403 for what is forbidden."""
    model = world.models.get(call.model_id)
    if model is None or model.team_id != key.team_id:
        raise Refusal(404, f"There is no model {call.model_id!r}; look at its id, and at the key.")
    if not key.may_invoke or (key.models is not None and model.id not in key.models):
        raise Refusal(403, f"This API key may not call model {call.model_id!r}.")
    if call.deployment_id is not None:
        lane = admission.lanes.get(call.deployment_id)
        if lane is None or lane.route.model_id != model.id:
            raise Refusal(
                404, f"Model {model.id!r} has no deployment {call.deployment_id!r} (any more)."
            )
        return lane
    if call.development:
        deployment_id = model.development
        if deployment_id is None:
            raise Refusal(
                404,
                f"Model {model.id!r} has no development deployment. Call its published one: "
                "truss predict --published, or /production/ in place of /development/.",
            )
    else:
        deployment_id = model.environments.get(call.environment or "")
        if deployment_id is None:
            raise _no_environment(model, call.environment or "")
    lane = admission.lanes.get(deployment_id)
    if lane is None:
        raise Refusal(404, f"Deployment {deployment_id!r} of model {model.id!r} was deleted.")
    return lane


def not_ready(route: DeploymentRoute) -> Refusal:
    """Why a deployment without replicas, and that no request wakes, does not answer."""
    reason = f" {route.reason}" if route.reason else ""
    if route.status in _GONE:
        return Refusal(404, f"Deployment {route.id!r} is not active; activate it first.{reason}")
    if route.status in _FAILED:
        return Refusal(
            503,
            f"Deployment {route.id!r} has no server: {route.status}. Its logs say why.{reason}",
            code="model_unavailable",
        )
    return Refusal(
        503,
        f"Deployment {route.id!r} is not ready yet: {route.status}.{reason}",
        retry_after_s=_RETRY_AFTER_S,
    )


def _no_environment(model: ModelRoute, name: str) -> Refusal:
    if name == contract.PRODUCTION:
        return Refusal(
            404,
            f"Model {model.id!r} has no production deployment yet; one is there as soon as a first "
            "push is ready.",
        )
    return Refusal(404, f"Model {model.id!r} has no deployment in an environment {name!r}.")
