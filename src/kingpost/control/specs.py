"""What a replica is started with: from a deployment, its build and its row to an engine's spec."""

from __future__ import annotations

import json

import msgspec

from kingpost import contract
from kingpost.build.base import Accelerator, Runnable
from kingpost.build.runnable import REPLICA
from kingpost.control.domain import Deployment, Replica
from kingpost.control.logs import Logs
from kingpost.engine.base import Overlay, ReplicaSpec, Resources
from kingpost.settings import Settings


def replica_spec(
    deployment: Deployment, runnable: Runnable, row: Replica, settings: Settings, user: str
) -> ReplicaSpec:
    """Platform variables come last, so that a config can't change who it is."""
    env = {
        **runnable.env,
        **runnable.user_env,
        "BT_MODEL_ID": deployment.model_id,
        "BT_MODEL_DEPLOYMENT_ID": deployment.id,
        "KINGPOST_REPLICA_ID": row.id,
    }
    folder = str(settings.data.replicas / row.id)
    return ReplicaSpec(
        replica_id=row.id,
        deployment_id=deployment.id,
        user=user,
        argv=runnable.argv,
        env=env,
        cwd=runnable.cwd,
        port=runnable.port,
        binds=runnable.binds,
        overlays=tuple(_of_replica(overlay, folder) for overlay in runnable.overlays),
        resources=Resources(
            cpu_millis=row.cpu_millis, memory_bytes=row.memory_bytes, gpus=row.gpus
        ),
        log_dir=str(Logs(settings.data).folder(deployment.id, row.id)),
        log_bytes=settings.limits.log_bytes_per_replica,
    )


class Needs(msgspec.Struct, frozen=True):
    """What one replica takes of a machine."""

    cpu_millis: int
    memory_bytes: int
    accelerator: Accelerator | None


def needs_of(deployment: Deployment, runnable: Runnable) -> Needs:
    """The config's resources, or those of the environment's instance type where it was kept."""
    size = deployment.size
    if size is None:
        return Needs(runnable.cpu_millis, runnable.memory_bytes, runnable.accelerator)
    gpu = Accelerator(size.gpu_type, size.gpu_count) if size.gpu_type else None
    return Needs(size.millicpu, size.memory_mib * contract.MIB, gpu)


def _of_replica(overlay: Overlay, folder: str) -> Overlay:
    """A build names the replica's folder without knowing it (build.runnable.REPLICA)."""
    return Overlay(
        lower=overlay.lower,
        upper=overlay.upper.replace(REPLICA, folder),
        work=overlay.work.replace(REPLICA, folder),
        target=overlay.target,
    )


def dynamic_config(deployment: Deployment) -> dict[str, str]:
    """Files below /etc/b10_dynamic_config (truss server: model_wrapper, `setup_environment`)."""
    if deployment.environment is None:
        return {}
    return {"environment": json.dumps({"name": deployment.environment})}
