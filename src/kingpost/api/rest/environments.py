"""Environments of a model: made, tuned, promoted to, deleted."""

from __future__ import annotations

from typing import Any

import msgspec

from kingpost.api import bodies, shapes
from kingpost.api.rest.call import Call, Door
from kingpost.api.rest.deployments import scaling_update
from kingpost.errors import ConflictError, NotSupportedError


async def list_environments(call: Call) -> shapes.Environments:
    found = call.platform.environments.list(call.team_id, call.path("model_id"))
    return shapes.Environments(
        environments=tuple(call.views.environment(call.team_id, e) for e in found)
    )


async def create_environment(call: Call) -> shapes.Environment:
    body = await call.body(bodies.CreateEnvironment)
    backpressure = body.request_backpressure_settings
    made = call.platform.environments.create(
        call.team_id,
        call.path("model_id"),
        body.name,
        autoscaling=_plain(body.autoscaling_settings),
        promotion=_plain(body.promotion_settings),
        backpressure=backpressure.policy if backpressure else None,
    )
    return call.views.environment(call.team_id, made)


async def get_environment(call: Call) -> shapes.Environment:
    found = call.platform.environments.get(*_named(call))
    return call.views.environment(call.team_id, found)


async def update_environment(call: Call) -> shapes.EnvironmentUpdate:
    body = await call.body(bodies.UpdateEnvironment)
    if body.autoscaling_schedule_settings:
        raise NotSupportedError(
            "Autoscaling schedules are not available on this platform yet. Change "
            "autoscaling_settings instead, at the times you need."
        )
    backpressure = body.request_backpressure_settings
    environment, changed = call.platform.environments.update(
        *_named(call),
        autoscaling=_plain(body.autoscaling_settings),
        promotion=_plain(body.promotion_settings),
        backpressure=(
            backpressure.policy
            if isinstance(backpressure, bodies.BackpressureSettings)
            else msgspec.UNSET
        ),
    )
    update = scaling_update(changed)
    return shapes.EnvironmentUpdate(
        environment=call.views.environment(call.team_id, environment),
        status=update.status,
        message=update.message,
    )


async def delete_environment(call: Call) -> shapes.EnvironmentTombstone:
    gone = call.platform.environments.delete(*_named(call))
    return shapes.EnvironmentTombstone(name=gone.name, model_id=gone.model_id, deleted=True)


async def activate(call: Call) -> shapes.Success:
    call.platform.deployments.activate(call.team_id, call.path("model_id"), _current(call))
    return shapes.Success()


async def deactivate(call: Call) -> shapes.Success:
    call.platform.deployments.deactivate(call.team_id, call.path("model_id"), _current(call))
    return shapes.Success()


async def promote(call: Call) -> shapes.Deployment:
    body = await call.body(bodies.PromoteToEnvironment)
    promoted = call.platform.environments.promote(
        *_named(call),
        body.deployment_id,
        scale_down_previous=body.scale_down_previous_deployment,
        preserve_env_instance_type=body.preserve_env_instance_type,
    )
    return call.views.deployment(promoted)


async def cancel_promotion(call: Call) -> shapes.PromotionCancel:
    call.platform.environments.cancel_promotion(*_named(call))
    return shapes.PromotionCancel(
        status="CANCELED",
        message="The promotion was canceled; the environment serves what it served before.",
    )


def _named(call: Call) -> tuple[str, str, str]:
    return call.team_id, call.path("model_id"), call.path("env_name")


def _current(call: Call) -> str:
    environment = call.platform.environments.get(*_named(call))
    if environment.current is None:
        raise ConflictError(
            f"The environment {environment.name!r} has no deployment yet. Promote one to it first."
        )
    return environment.current


def _plain(settings: bodies.Body | None) -> dict[str, Any] | None:
    if settings is None:
        return None
    plain: dict[str, Any] = msgspec.to_builtins(settings)
    return plain


_ALL = "/v1/models/{model_id}/environments"
_ONE = _ALL + "/{env_name}"

DOORS = (
    Door("GET", _ALL, list_environments),
    Door("POST", _ALL, create_environment),
    Door("GET", _ONE, get_environment),
    Door("PATCH", _ONE, update_environment),
    Door("DELETE", _ONE, delete_environment),
    Door("POST", f"{_ONE}/activate", activate),
    Door("POST", f"{_ONE}/deactivate", deactivate),
    Door("POST", f"{_ONE}/promote", promote),
    Door("POST", f"{_ONE}/cancel_promotion", cancel_promotion),
)
