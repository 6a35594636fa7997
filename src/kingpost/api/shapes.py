"""The answers of the management API, field by field as its OpenAPI document has them. No logic."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from kingpost.contract import DeploymentStatus, KeyCategory, LogLevel, PromotionStatus
from kingpost.control.domain import AutoscalingSettings, PromotionSettings


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all answers."""


class Region(Shape, frozen=True, kw_only=True):
    slug: str
    display_name: str


class Regions(Shape, frozen=True, kw_only=True):
    regions: tuple[Region, ...]


class Team(Shape, frozen=True, kw_only=True):
    id: str
    name: str
    default: bool
    created_at: datetime


class Teams(Shape, frozen=True, kw_only=True):
    teams: tuple[Team, ...]


class UserInfo(Shape, frozen=True, kw_only=True):
    user_id: str
    email: str | None = None
    name: str | None = None
    workspace_name: str | None = None


class InstanceType(Shape, frozen=True, kw_only=True):
    id: str
    name: str
    memory_limit_mib: int
    millicpu_limit: int
    gpu_count: int
    gpu_type: str | None
    gpu_memory_limit_mib: int | None


class InstanceTypes(Shape, frozen=True, kw_only=True):
    instance_types: tuple[InstanceType, ...]


class InstanceTypeWithPrice(Shape, frozen=True, kw_only=True):
    """`price` in US dollars per minute."""

    instance_type: InstanceType
    price: float


class InstanceTypePrices(Shape, frozen=True, kw_only=True):
    instance_types: tuple[InstanceTypeWithPrice, ...]


class Backpressure(Shape, frozen=True, kw_only=True):
    policy: str | None = None


class Deployment(Shape, frozen=True, kw_only=True):
    """`status_reason` is ours: why it has this status, or what it waits for, in words."""

    id: str
    created_at: datetime
    name: str
    model_id: str
    is_production: bool
    is_development: bool
    status: DeploymentStatus
    active_replica_count: int
    autoscaling_settings: AutoscalingSettings
    instance_type_name: str
    environment: str | None
    labels: dict[str, Any] | None
    region: Region | None = None
    request_backpressure_settings: Backpressure
    status_reason: str | None = None


class Deployments(Shape, frozen=True, kw_only=True):
    deployments: tuple[Deployment, ...]


class DeploymentTombstone(Shape, frozen=True, kw_only=True):
    id: str
    deleted: bool
    model_id: str


class DeploymentConfig(Shape, frozen=True, kw_only=True):
    config: dict[str, Any] | None
    raw_config: str | None


class Download(Shape, frozen=True, kw_only=True):
    download_url: str


class Retry(Shape, frozen=True, kw_only=True):
    retried: bool
    reason: str | None
    deployment: Deployment


class Success(Shape, frozen=True, kw_only=True):
    success: bool = True


class ScalingUpdate(Shape, frozen=True, kw_only=True):
    """`status` is ACCEPTED, QUEUED or UNCHANGED."""

    status: str
    message: str


class Model(Shape, frozen=True, kw_only=True):
    id: str
    created_at: datetime
    name: str
    deployments_count: int
    production_deployment_id: str | None
    development_deployment_id: str | None
    instance_type_name: str
    team_name: str


class Models(Shape, frozen=True, kw_only=True):
    models: tuple[Model, ...]


class ModelTombstone(Shape, frozen=True, kw_only=True):
    id: str
    deleted: bool


class CreatedModelDeployment(Shape, frozen=True, kw_only=True):
    model: Model
    deployment: Deployment


class Credentials(Shape, frozen=True, kw_only=True):
    aws_access_key_id: str
    aws_secret_access_key: str
    aws_session_token: str


class PreparedUpload(Shape, frozen=True, kw_only=True):
    """`endpoint_url` is ours: where an S3 client finds this platform's upload endpoint."""

    creds: Credentials | None = None
    s3_bucket: str | None = None
    s3_key: str | None = None
    s3_region: str | None = None
    endpoint_url: str | None = None


class BlobCredentials(Shape, frozen=True, kw_only=True):
    """With our `endpoint_url`, as in `PreparedUpload`."""

    creds: Credentials
    s3_key: str
    s3_bucket: str
    endpoint_url: str


class InProgressPromotion(Shape, frozen=True, kw_only=True):
    status: PromotionStatus
    percent_traffic_to_new_version: int
    error_message: str | None
    rolling_deploy: bool


class Environment(Shape, frozen=True, kw_only=True):
    name: str
    created_at: datetime
    model_id: str
    current_deployment: Deployment | None
    candidate_deployment: Deployment | None
    in_progress_promotion: InProgressPromotion | None
    autoscaling_settings: AutoscalingSettings
    promotion_settings: PromotionSettings
    instance_type: InstanceType
    request_backpressure_settings: Backpressure


class Environments(Shape, frozen=True, kw_only=True):
    environments: tuple[Environment, ...]


class EnvironmentTombstone(Shape, frozen=True, kw_only=True):
    name: str
    model_id: str
    deleted: bool


class EnvironmentUpdate(Shape, frozen=True, kw_only=True):
    environment: Environment
    status: str
    message: str


class PromotionCancel(Shape, frozen=True, kw_only=True):
    status: str
    message: str


class LogLine(Shape, frozen=True, kw_only=True):
    """`timestamp` is epoch nanoseconds as text."""

    timestamp: str
    message: str
    replica: str | None
    request_id: str | None
    level: LogLevel | None


class LogLines(Shape, frozen=True, kw_only=True):
    logs: tuple[LogLine, ...]


class Secret(Shape, frozen=True, kw_only=True):
    id: str
    created_at: datetime
    name: str
    team_name: str


class Secrets(Shape, frozen=True, kw_only=True):
    secrets: tuple[Secret, ...]


class SecretTombstone(Shape, frozen=True, kw_only=True):
    name: str


class KeyOwner(Shape, frozen=True, kw_only=True):
    user_id: str
    email: str | None = None
    name: str | None = None


class KeyInfo(Shape, frozen=True, kw_only=True):
    prefix: str
    name: str | None
    type: KeyCategory
    model_ids: tuple[str, ...] | None
    team_name: str
    owner: KeyOwner | None = None


class KeyInfos(Shape, frozen=True, kw_only=True):
    keys: tuple[KeyInfo, ...]


class NewKey(Shape, frozen=True, kw_only=True):
    api_key: str


class KeyTombstone(Shape, frozen=True, kw_only=True):
    prefix: str
