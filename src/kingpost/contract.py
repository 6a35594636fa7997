"""Names and limits of the Baseten contract, in one place. No behaviour beyond checking and naming.

Sources are named in each docstring: management API (OpenAPI), inference API, truss sources.
"""

from __future__ import annotations

import re
import secrets
import string
from enum import StrEnum
from typing import Final

MIB: Final = 1024 * 1024
GIB: Final = 1024 * MIB


class DeploymentStatus(StrEnum):
    """The 14 states of a deployment (management API: DeploymentStatusV1)."""

    BUILDING = "BUILDING"
    DEPLOYING = "DEPLOYING"
    DEPLOY_FAILED = "DEPLOY_FAILED"
    LOADING_MODEL = "LOADING_MODEL"
    ACTIVE = "ACTIVE"
    UNHEALTHY = "UNHEALTHY"
    BUILD_FAILED = "BUILD_FAILED"
    BUILD_STOPPED = "BUILD_STOPPED"
    DEACTIVATING = "DEACTIVATING"
    INACTIVE = "INACTIVE"
    FAILED = "FAILED"
    UPDATING = "UPDATING"
    SCALED_TO_ZERO = "SCALED_TO_ZERO"
    WAKING_UP = "WAKING_UP"


GRAPHQL_STATUS: Final[dict[DeploymentStatus, str]] = {
    DeploymentStatus.BUILDING: "BUILDING_MODEL",
    DeploymentStatus.DEPLOYING: "DEPLOYING_MODEL",
    DeploymentStatus.DEPLOY_FAILED: "MODEL_DEPLOY_FAILED",
    DeploymentStatus.LOADING_MODEL: "MODEL_LOADING",
    DeploymentStatus.ACTIVE: "MODEL_READY",
    DeploymentStatus.UNHEALTHY: "MODEL_UNHEALTHY",
    DeploymentStatus.BUILD_FAILED: "BUILDING_MODEL_FAILED",
    DeploymentStatus.BUILD_STOPPED: "BUILDING_MODEL_STOPPED",
    DeploymentStatus.DEACTIVATING: "DEACTIVATING_MODEL",
    DeploymentStatus.INACTIVE: "DEACTIVATED_MODEL",
    DeploymentStatus.FAILED: "MODEL_DNE_ERROR",
    DeploymentStatus.UPDATING: "UPDATING",
    DeploymentStatus.SCALED_TO_ZERO: "SCALED_TO_ZERO",
    DeploymentStatus.WAKING_UP: "SCALING_FROM_ZERO",
}
"""What the truss CLI's GraphQL calls each state (truss/remote/baseten/utils/status.py)."""


class CleanupStrategy(StrEnum):
    """What happens to the deployment that a promotion replaced."""

    KEEP = "KEEP"
    SCALE_TO_ZERO = "SCALE_TO_ZERO"
    DEACTIVATE = "DEACTIVATE"


class PromotionStatus(StrEnum):
    RELEASING = "RELEASING"
    RAMPING_UP = "RAMPING_UP"
    RAMPING_DOWN = "RAMPING_DOWN"
    PAUSED = "PAUSED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


class KeyCategory(StrEnum):
    PERSONAL = "PERSONAL"
    WORKSPACE_MANAGE_ALL = "WORKSPACE_MANAGE_ALL"
    WORKSPACE_EXPORT_METRICS = "WORKSPACE_EXPORT_METRICS"
    WORKSPACE_INVOKE = "WORKSPACE_INVOKE"
    WORKSPACE_MANAGE_API_KEYS = "WORKSPACE_MANAGE_API_KEYS"


class LogLevel(StrEnum):
    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


PRODUCTION: Final = "production"
DEVELOPMENT: Final = "development"

# Inference API: limits.
MAX_INFERENCE_BODY_BYTES: Final = 100 * 1000 * 1000
PREDICT_TIMEOUT_S: Final = 1200.0
WAKE_TIMEOUT_S: Final = 600.0
MAX_WEBSOCKET_MESSAGE_BYTES: Final = 100 * MIB

# Management API: limits.
DEPLOY_TIMEOUT_MINUTES: Final = (10, 1440)
LOG_LIMIT: Final = (1, 1000)
DEFAULT_LOG_LIMIT: Final = 500
DEFAULT_LOG_WINDOW_S: Final = 30 * 60
LOG_RETENTION_S: Final = 7 * 24 * 3600

# Health (Truss config: runtime.health_checks; platform documentation for the defaults).
HEALTH_PROBE_INTERVAL_S: Final = 10.0
HEALTH_THRESHOLD_DEFAULT_S: Final = 1800.0
HEALTH_THRESHOLD_RANGE_S: Final = (10, 3000)

# The truss server (truss/templates/server).
TRUSS_SERVER_PORT: Final = 8080
TRUSS_PREDICT_PATH: Final = "/v1/models/model:predict"
TRUSS_READY_PATH: Final = "/v1/models/model"
TRUSS_LIVE_PATH: Final = "/"
TRUSS_WEBSOCKET_PATH: Final = "/v1/websocket"

_DEPLOYMENT_NAME = re.compile(r"[0-9a-zA-Z_\-.]{1,255}")
_ENVIRONMENT_NAME = re.compile(r"[a-z0-9](?:[a-z0-9\-]{0,38}[a-z0-9])?")
_SECRET_NAME = re.compile(r"[0-9a-zA-Z_\-.]{1,253}")
_ID_ALPHABET = string.ascii_lowercase + string.digits


def new_id() -> str:
    """An id in the contract's form: 8 lowercase letters or digits, the first a letter."""
    head = secrets.choice(string.ascii_lowercase)
    return head + "".join(secrets.choice(_ID_ALPHABET) for _ in range(7))


def is_deployment_name(name: str) -> bool:
    """Whether the truss CLI would take it (cli.py: `^[0-9a-zA-Z_\\-\\.]*$`), up to 255 long."""
    return _DEPLOYMENT_NAME.fullmatch(name) is not None


def is_environment_name(name: str) -> bool:
    """A DNS label of at most 40 characters; `development` is reserved (inference API: hosts)."""
    return name != DEVELOPMENT and _ENVIRONMENT_NAME.fullmatch(name) is not None


def is_secret_name(name: str) -> bool:
    """A name that is safe as a file name below `/secrets`."""
    return name not in {".", ".."} and _SECRET_NAME.fullmatch(name) is not None
