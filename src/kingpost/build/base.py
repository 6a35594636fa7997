"""What a build takes and gives. The values only; `builder` does the work."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from kingpost import contract
from kingpost.engine.base import Bind, Overlay


class HealthChecks(msgspec.Struct, frozen=True):
    """Seconds, in the meaning of a Truss config's `runtime.health_checks`."""

    startup_threshold_s: float = contract.HEALTH_THRESHOLD_DEFAULT_S
    stop_traffic_threshold_s: float = contract.HEALTH_THRESHOLD_DEFAULT_S
    restart_threshold_s: float = contract.HEALTH_THRESHOLD_DEFAULT_S


class Accelerator(msgspec.Struct, frozen=True):
    name: str
    count: int = 1


class Runnable(msgspec.Struct, frozen=True, kw_only=True):
    """What a build leaves: all that a replica needs but its id, secrets and place.

    Paths in `binds` and `overlays` lie in the data folder. `user_env` is the config's
    `environment_variables`, `env` the platform's. `secret_names` are those the config declares.
    """

    argv: tuple[str, ...]
    cwd: str
    port: int
    env: dict[str, str] = {}
    user_env: dict[str, str] = {}
    binds: tuple[Bind, ...] = ()
    overlays: tuple[Overlay, ...] = ()
    ready_path: str = contract.TRUSS_READY_PATH
    live_path: str = contract.TRUSS_LIVE_PATH
    predict_path: str = contract.TRUSS_PREDICT_PATH
    websocket_path: str = contract.TRUSS_WEBSOCKET_PATH
    rewrites: dict[str, str] = {}
    secret_names: tuple[str, ...] = ()
    cpu_millis: int = 1000
    memory_bytes: int = 2 * contract.GIB
    accelerator: Accelerator | None = None
    predict_concurrency: int = 1
    health: HealthChecks = HealthChecks()
    environment_key: str | None = None
    bundle_key: str = ""
    truss_hash: str = ""
    truss_signature: str = ""
    warnings: tuple[str, ...] = ()
    control_server: bool = False


async def no_secret(_: str) -> str | None:
    return None


@dataclass(frozen=True)
class BuildRequest:
    """`archive` is the uploaded tar. `user` is the team that build steps run as.

    `secret` gives the value of the team's secret by name (None: not set), asked only for those
    that open a source of weights; build steps get no secrets.
    """

    deployment_id: str
    user: str
    archive: Path
    no_cache: bool = False
    development: bool = False
    deadline_s: float = 120 * 60.0
    secret: Callable[[str], Awaitable[str | None]] = field(default=no_secret, repr=False)


class Validation(msgspec.Struct, frozen=True):
    """What truss itself says of a config: `errors` empty means it may be pushed."""

    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    parsed: dict[str, Any] | None = None
