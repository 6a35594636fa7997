"""From rows to what the gateway is told. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from kingpost.contract import DeploymentStatus as S
from kingpost.control.domain import ApiKey, Deployment, Environment, Model, Replica, Wanted
from kingpost.control.reconcile import routable
from kingpost.messages import DeploymentRoute, KeyRecord, ModelRoute, ReplicaAddress

_HOLDING: Final = frozenset(
    {S.LOADING_MODEL, S.ACTIVE, S.UNHEALTHY, S.UPDATING, S.SCALED_TO_ZERO, S.WAKING_UP}
)
"""States in which a request may wait for a replica, since one is there, coming, or can be woken."""


def deployment_route(
    deployment: Deployment, replicas: Iterable[Replica], now: datetime
) -> DeploymentRoute:
    runnable = deployment.runnable
    wanted = deployment.wanted is Wanted.RUNNING
    settings = deployment.autoscaling
    base = DeploymentRoute(
        id=deployment.id,
        model_id=deployment.model_id,
        status=deployment.status.value,
        wakes=wanted and runnable is not None and deployment.status in _HOLDING,
        reason=deployment.reason,
        development=deployment.is_development,
        concurrency_target=settings.concurrency_target,
        target_utilization=settings.target_utilization_percentage / 100,
        backpressure=deployment.backpressure,
    )
    if runnable is None:
        return base
    ready = tuple(
        ReplicaAddress(id=r.id, host=r.host, port=r.port)
        for r in sorted(replicas, key=lambda r: (r.created_at, r.id))
        if r.host is not None and r.port is not None and routable(r, runnable.health, now)
    )
    return DeploymentRoute(
        **{name: getattr(base, name) for name in base.__struct_fields__}
        | {
            "replicas": ready if wanted else (),
            "predict_path": runnable.predict_path,
            "websocket_path": runnable.websocket_path,
            "rewrites": runnable.rewrites,
        }
    )


def model_route(
    model: Model, environments: Sequence[Environment], deployments: Iterable[Deployment]
) -> ModelRoute:
    """`environments` that have no deployment yet are left out; candidates never appear."""
    drafts = [d.id for d in deployments if d.is_development and d.wanted is not Wanted.DELETED]
    return ModelRoute(
        id=model.id,
        name=model.name,
        team_id=model.team_id,
        environments={e.name: e.current for e in environments if e.current},
        development=drafts[0] if drafts else None,
    )


def key_record(key: ApiKey) -> KeyRecord:
    return KeyRecord(
        id=key.prefix,
        digest=key.digest,
        category=key.category.value,
        team_id=key.team_id,
        model_ids=key.model_ids,
    )
