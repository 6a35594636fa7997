"""What the management API's requests hold, as its OpenAPI document has them. No logic.

Unknown fields are passed over, so that newer clients keep working.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from kingpost import contract
from kingpost.contract import CleanupStrategy, KeyCategory, LogLevel

Policy = Literal["QUEUE_ON_FULL", "REJECT_ON_FULL"]
ShortText = Annotated[str, Meta(max_length=256)]
Texts = Annotated[tuple[str, ...], Meta(max_length=8)]


class Body(Struct, frozen=True, kw_only=True):
    """Base of all requests."""


class Payload(Body, frozen=True, kw_only=True):
    """DeploymentArchivePayloadV1."""

    config: dict[str, Any]
    raw_config: str | None = None
    user_env: dict[str, Any] | None = None
    environment_name: str | None = None
    preserve_env_instance_type: bool = True
    deploy_timeout_minutes: int | None = None
    deployment_name: str | None = None
    labels: dict[str, Any] | None = None
    is_development: bool = False


class PrepareUpload(Body, frozen=True, kw_only=True):
    deployment: Payload
    name: str | None = None
    team_id: str | None = None
    model_id: str | None = None
    dry_run: bool = False


class ModelArchive(Body, frozen=True, kw_only=True, tag_field="kind", tag="model_archive"):
    name: str
    deployment: Payload
    s3_key: str | None = None
    disable_archive_download: bool = False


class LibraryListing(Body, frozen=True, kw_only=True, tag_field="kind", tag="library_listing"):
    pass


class CreateModel(Body, frozen=True, kw_only=True):
    source: ModelArchive | LibraryListing


class DeploymentArchive(Body, frozen=True, kw_only=True, tag_field="kind", tag="model_archive"):
    deployment: Payload
    s3_key: str | None = None


class CreateDeployment(Body, frozen=True, kw_only=True):
    source: DeploymentArchive


class UpdateDeployment(Body, frozen=True, kw_only=True):
    name: str | None = None


class Autoscaling(Body, frozen=True, kw_only=True):
    """Ranges are the domain's to check."""

    min_replica: int | None = None
    max_replica: int | None = None
    autoscaling_window: int | None = None
    scale_down_delay: int | None = None
    concurrency_target: int | None = None
    target_utilization_percentage: int | None = None
    target_in_flight_tokens: int | None = None
    max_scale_down_rate: int | None = None


class BackpressureSettings(Body, frozen=True, kw_only=True):
    policy: Policy | None = None


class RollingDeploy(Body, frozen=True, kw_only=True):
    rolling_deploy_strategy: str | None = None
    max_surge_percent: int | None = None
    max_unavailable_percent: int | None = None
    stabilization_time_seconds: int | None = None
    replica_overhead_percent: int | None = None


class Promotion(Body, frozen=True, kw_only=True):
    redeploy_on_promotion: bool | None = None
    rolling_deploy: bool | None = None
    promotion_cleanup_strategy: CleanupStrategy | None = None
    rolling_deploy_config: RollingDeploy | None = None
    ramp_up_while_promoting: bool | None = None
    ramp_up_duration_seconds: int | None = None


class CreateEnvironment(Body, frozen=True, kw_only=True):
    name: str
    autoscaling_settings: Autoscaling | None = None
    promotion_settings: Promotion | None = None
    request_backpressure_settings: BackpressureSettings | None = None


class UpdateEnvironment(Body, frozen=True, kw_only=True):
    autoscaling_settings: Autoscaling | None = None
    promotion_settings: Promotion | None = None
    autoscaling_schedule_settings: dict[str, Any] | None = None
    request_backpressure_settings: BackpressureSettings | UnsetType | None = UNSET


class Promote(Body, frozen=True, kw_only=True):
    scale_down_previous_production: bool = True
    preserve_env_instance_type: bool = True


class PromoteToEnvironment(Body, frozen=True, kw_only=True):
    deployment_id: str
    scale_down_previous_deployment: bool = True
    preserve_env_instance_type: bool = True


class LogFilters(Body, frozen=True, kw_only=True):
    """Body of `POST .../logs`, and query of `GET .../logs`. Times in epoch milliseconds."""

    start_epoch_millis: int | None = None
    end_epoch_millis: int | None = None
    direction: Literal["asc", "desc"] | None = None
    limit: Annotated[int, Meta(ge=contract.LOG_LIMIT[0], le=contract.LOG_LIMIT[1])] | None = None
    min_level: LogLevel | None = None
    replica: ShortText | None = None
    request_id: ShortText | None = None
    component: ShortText | None = None
    search_pattern: ShortText | None = None
    includes: Texts = ()
    excludes: Texts = ()


class UpsertSecret(Body, frozen=True, kw_only=True):
    name: str
    value: str


class CreateKey(Body, frozen=True, kw_only=True):
    type: KeyCategory
    name: str | None = None
    model_ids: tuple[str, ...] | None = None


class ByName(Body, frozen=True, kw_only=True):
    """Query of the lists that can be narrowed to one name."""

    name: str | None = None


class ConfigFormat(Body, frozen=True, kw_only=True):
    output_format: Literal["raw", "parsed", "both"] = "both"
