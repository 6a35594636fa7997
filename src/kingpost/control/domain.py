"""The domain: models, deployments, environments, replicas and what they may become. Values only."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

import msgspec

from kingpost.build.base import Runnable
from kingpost.contract import CleanupStrategy, DeploymentStatus, KeyCategory, PromotionStatus

S = DeploymentStatus


def utc_now() -> datetime:
    return datetime.now(UTC)


class AutoscalingSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Defaults and ranges: platform reference, autoscaling. Times in seconds."""

    min_replica: int = 0
    max_replica: int = 1
    autoscaling_window: int = 60
    scale_down_delay: int = 900
    concurrency_target: int = 1
    target_utilization_percentage: int = 70
    max_scale_down_rate: int = 50
    target_in_flight_tokens: int | None = None


class RollingDeployConfig(msgspec.Struct, frozen=True, kw_only=True):
    rolling_deploy_strategy: str = "REPLICA"
    max_surge_percent: int = 25
    max_unavailable_percent: int = 0
    stabilization_time_seconds: int = 0
    replica_overhead_percent: int = 0


class PromotionSettings(msgspec.Struct, frozen=True, kw_only=True):
    redeploy_on_promotion: bool = False
    rolling_deploy: bool = False
    promotion_cleanup_strategy: CleanupStrategy = CleanupStrategy.SCALE_TO_ZERO
    rolling_deploy_config: RollingDeployConfig = RollingDeployConfig()
    ramp_up_while_promoting: bool = False
    ramp_up_duration_seconds: int = 600


class InstanceType(msgspec.Struct, frozen=True, kw_only=True):
    """`price_per_minute_usd` is a decimal as text; `gpu_memory_mib` is per instance."""

    id: str
    name: str
    millicpu: int
    memory_mib: int
    gpu_type: str | None = None
    gpu_count: int = 0
    gpu_memory_mib: int | None = None
    price_per_minute_usd: str = "0"


class Team(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str
    default: bool
    created_at: datetime


class Model(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    team_id: str
    name: str
    created_at: datetime
    allow_download: bool = True


class Wanted(StrEnum):
    """What its owner wants of a deployment; how many replicas is another matter (`goal`)."""

    RUNNING = "running"
    STOPPED = "stopped"
    DELETED = "deleted"


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment as stored. `version` guards writes; it grows with each.

    `environment` is the one it serves now; `target_environment` the one it is on its way to.
    `goal` is how many replicas the scaler asks for. `ever_active` and `waking` tell a first start
    from a restart and from a wake. `failures` counts starts that failed in a row. `size` is the
    environment's instance type where that was kept instead of the config's resources.
    """

    id: str
    model_id: str
    name: str
    created_at: datetime
    status: DeploymentStatus = S.BUILDING
    reason: str | None = None
    status_at: datetime
    version: int = 0
    is_development: bool = False
    environment: str | None = None
    target_environment: str | None = None
    archive: str = ""
    config: dict[str, Any] = {}
    raw_config: str | None = None
    labels: dict[str, Any] | None = None
    user_env: dict[str, Any] | None = None
    instance_type: str = "1x2"
    size: InstanceType | None = None
    autoscaling: AutoscalingSettings = AutoscalingSettings()
    backpressure: str | None = None
    scale_down_previous: bool = True
    deploy_timeout_s: float | None = None
    runnable: Runnable | None = None
    wanted: Wanted = Wanted.RUNNING
    goal: int = 1
    ever_active: bool = False
    waking: bool = False
    failures: int = 0
    failed_at: datetime | None = None
    no_cache: bool = False


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    model_id: str
    name: str
    created_at: datetime
    version: int = 0
    current: str | None = None
    candidate: str | None = None
    autoscaling: AutoscalingSettings = AutoscalingSettings()
    promotion: PromotionSettings = PromotionSettings()
    backpressure: str | None = None
    instance_type: str = "1x2"
    size: InstanceType | None = None


class Promotion(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    model_id: str
    environment: str
    deployment_id: str
    previous_id: str | None
    scale_down_previous: bool
    status: PromotionStatus
    created_at: datetime
    error: str | None = None


class ReplicaState(StrEnum):
    PLACED = "placed"
    """It has a row and its share of the machine; its process may not run yet."""
    STARTED = "started"
    READY = "ready"
    DRAINING = "draining"
    """It gets no new request, finishes what it has, and is then stopped."""
    ENDED = "ended"


class Replica(msgspec.Struct, frozen=True, kw_only=True):
    """`unready_since` is when its health began to fail, None while it is well."""

    id: str
    deployment_id: str
    state: ReplicaState
    created_at: datetime
    started_at: datetime | None = None
    ready_at: datetime | None = None
    draining_at: datetime | None = None
    unready_since: datetime | None = None
    host: str | None = None
    port: int | None = None
    gpus: tuple[str, ...] = ()
    cpu_millis: int = 0
    memory_bytes: int = 0
    emulated: bool = False
    end_reason: str | None = None


class Secret(msgspec.Struct, frozen=True, kw_only=True):
    """A secret without its value."""

    id: str
    team_id: str
    name: str
    created_at: datetime


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """`prefix` names it, `digest` is the hex SHA-256 of the whole key."""

    prefix: str
    digest: str
    name: str | None
    category: KeyCategory
    team_id: str
    model_ids: tuple[str, ...] | None
    created_at: datetime


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """A one-time permission to upload one object, signed with `secret_access_key`."""

    key: str
    bucket: str
    access_key_id: str
    secret_access_key: str
    session_token: str
    team_id: str
    created_at: datetime
    expires_at: datetime
    digest: str | None = None
    size_bytes: int | None = None


TRANSITIONS: Final[dict[DeploymentStatus, frozenset[DeploymentStatus]]] = {
    S.BUILDING: frozenset({S.DEPLOYING, S.BUILD_FAILED, S.BUILD_STOPPED, S.DEACTIVATING, S.FAILED}),
    S.DEPLOYING: frozenset(
        {S.LOADING_MODEL, S.ACTIVE, S.DEPLOY_FAILED, S.DEACTIVATING, S.SCALED_TO_ZERO, S.FAILED}
    ),
    S.LOADING_MODEL: frozenset(
        {S.ACTIVE, S.DEPLOYING, S.DEPLOY_FAILED, S.DEACTIVATING, S.SCALED_TO_ZERO, S.FAILED}
    ),
    S.ACTIVE: frozenset(
        {S.UNHEALTHY, S.DEACTIVATING, S.SCALED_TO_ZERO, S.UPDATING, S.WAKING_UP, S.FAILED}
    ),
    S.UNHEALTHY: frozenset({S.ACTIVE, S.DEACTIVATING, S.SCALED_TO_ZERO, S.UPDATING, S.FAILED}),
    S.UPDATING: frozenset({S.ACTIVE, S.UNHEALTHY, S.DEACTIVATING, S.SCALED_TO_ZERO, S.FAILED}),
    S.SCALED_TO_ZERO: frozenset({S.WAKING_UP, S.DEACTIVATING, S.ACTIVE, S.FAILED}),
    S.WAKING_UP: frozenset({S.ACTIVE, S.UNHEALTHY, S.SCALED_TO_ZERO, S.DEACTIVATING, S.FAILED}),
    S.DEACTIVATING: frozenset({S.INACTIVE, S.DEPLOYING, S.FAILED}),
    S.INACTIVE: frozenset({S.DEPLOYING, S.BUILDING, S.FAILED}),
    S.BUILD_FAILED: frozenset({S.BUILDING, S.DEACTIVATING, S.INACTIVE}),
    S.BUILD_STOPPED: frozenset({S.BUILDING, S.DEACTIVATING, S.INACTIVE}),
    S.DEPLOY_FAILED: frozenset({S.DEPLOYING, S.BUILDING, S.DEACTIVATING, S.INACTIVE}),
    S.FAILED: frozenset({S.BUILDING, S.DEPLOYING, S.DEACTIVATING, S.INACTIVE}),
}
"""What each state may become. Nothing else is ever written."""

ON_THE_WAY: Final = frozenset({S.BUILDING, S.DEPLOYING, S.LOADING_MODEL})
FAILED_STATES: Final = frozenset({S.BUILD_FAILED, S.BUILD_STOPPED, S.DEPLOY_FAILED, S.FAILED})


def may_become(old: DeploymentStatus, new: DeploymentStatus) -> bool:
    return old is new or new in TRANSITIONS[old]
