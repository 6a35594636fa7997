"""Deployments: listed, added, shown, tuned, started, stopped, promoted, deleted.

`production` and `development` stand for a deployment id wherever the contract lets them.
"""

from __future__ import annotations

import msgspec

from kingpost import contract
from kingpost.api import bodies, shapes
from kingpost.api.rest.call import Call, Door
from kingpost.api.rest.models import created, push_of
from kingpost.control.domain import Deployment


def found(call: Call) -> Deployment:
    """The deployment that the path names."""
    return call.platform.deployments.get(*_named(call))


async def list_deployments(call: Call) -> shapes.Deployments:
    deployments = call.platform.deployments.list(
        call.team_id, call.path("model_id"), call.query(bodies.ByName).name
    )
    return shapes.Deployments(deployments=tuple(map(call.views.deployment, deployments)))


async def create_deployment(call: Call) -> shapes.CreatedModelDeployment:
    source = (await call.body(bodies.CreateDeployment)).source
    push = push_of(call, source.deployment, model_id=call.path("model_id"), s3_key=source.s3_key)
    return created(call, push)


async def get_deployment(call: Call) -> shapes.Deployment:
    return call.views.deployment(found(call))


async def update_deployment(call: Call) -> shapes.Deployment:
    name = (await call.body(bodies.UpdateDeployment)).name
    if name is None:
        return call.views.deployment(found(call))
    return call.views.deployment(call.platform.deployments.rename(*_named(call), name))


async def delete_deployment(call: Call) -> shapes.DeploymentTombstone:
    gone = call.platform.deployments.delete(*_named(call))
    return shapes.DeploymentTombstone(id=gone.id, deleted=True, model_id=gone.model_id)


async def set_autoscaling(call: Call) -> shapes.ScalingUpdate:
    settings = await call.body(bodies.Autoscaling)
    changed = call.platform.deployments.set_autoscaling(
        *_named(call), msgspec.structs.asdict(settings)
    )
    return scaling_update(changed)


def scaling_update(changed: bool) -> shapes.ScalingUpdate:
    if changed:
        return shapes.ScalingUpdate(status="ACCEPTED", message="The new settings apply now.")
    return shapes.ScalingUpdate(status="UNCHANGED", message="The settings were like that already.")


async def set_backpressure(call: Call) -> shapes.Backpressure:
    policy = (await call.body(bodies.BackpressureSettings)).policy
    return shapes.Backpressure(
        policy=call.platform.deployments.set_backpressure(*_named(call), policy).backpressure
    )


async def promote(call: Call) -> shapes.Deployment:
    body = await call.body(bodies.Promote)
    promoted = call.platform.environments.promote(
        call.team_id,
        call.path("model_id"),
        contract.PRODUCTION,
        found(call).id,
        scale_down_previous=body.scale_down_previous_production,
        preserve_env_instance_type=body.preserve_env_instance_type,
    )
    return call.views.deployment(promoted)


async def activate(call: Call) -> shapes.Success:
    call.platform.deployments.activate(*_named(call))
    return shapes.Success()


async def deactivate(call: Call) -> shapes.Success:
    call.platform.deployments.deactivate(*_named(call))
    return shapes.Success()


async def retry(call: Call) -> shapes.Retry:
    retried, deployment = call.platform.deployments.retry(*_named(call))
    reason = (
        None
        if retried
        else f"The deployment is {deployment.status.value}; only one that failed can be retried."
    )
    return shapes.Retry(
        retried=retried, reason=reason, deployment=call.views.deployment(deployment)
    )


async def get_config(call: Call) -> shapes.DeploymentConfig:
    wanted = call.query(bodies.ConfigFormat).output_format
    deployment = found(call)
    return shapes.DeploymentConfig(
        config=deployment.config if wanted != "raw" else None,
        raw_config=deployment.raw_config if wanted != "parsed" else None,
    )


async def download(call: Call) -> shapes.Download:
    url = call.downloads.url(call.base_url, call.team_id, found(call))
    return shapes.Download(download_url=url)


def _named(call: Call) -> tuple[str, str, str]:
    return call.team_id, call.path("model_id"), call.path("deployment_id")


_ALL = "/v1/models/{model_id}/deployments"
_ONE = _ALL + "/{deployment_id}"

DOORS = (
    Door("GET", _ALL, list_deployments),
    Door("POST", _ALL, create_deployment),
    Door("GET", _ONE, get_deployment),
    Door("PATCH", _ONE, update_deployment),
    Door("DELETE", _ONE, delete_deployment),
    Door("PATCH", f"{_ONE}/autoscaling_settings", set_autoscaling),
    Door("PATCH", f"{_ONE}/request_backpressure_settings", set_backpressure),
    Door("POST", f"{_ONE}/promote", promote),
    Door("POST", f"{_ONE}/activate", activate),
    Door("POST", f"{_ONE}/deactivate", deactivate),
    Door("POST", f"{_ONE}/retry", retry),
    Door("GET", f"{_ONE}/config", get_config),
    Door("GET", f"{_ONE}/download", download),
)
