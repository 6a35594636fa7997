"""Waits for a deployment to reach a state that stays: what a status means to one who waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from kingpost.client.remote import segment
from kingpost.client.resolve import Json
from kingpost.client.rest import RestClient
from kingpost.contract import DeploymentStatus as S
from kingpost.errors import UnavailableError

UNREACHABLE_S: Final = 60.0
"""How long the platform may be away while somebody waits (it restarts in seconds)."""


class Outcome(StrEnum):
    PENDING = "pending"
    READY = "ready"
    FAILED = "failed"


_OUTCOMES: Final = {
    S.BUILDING: Outcome.PENDING,
    S.DEPLOYING: Outcome.PENDING,
    S.LOADING_MODEL: Outcome.PENDING,
    S.UPDATING: Outcome.PENDING,
    S.WAKING_UP: Outcome.PENDING,
    S.ACTIVE: Outcome.READY,
    S.SCALED_TO_ZERO: Outcome.READY,
    S.UNHEALTHY: Outcome.FAILED,
    S.DEPLOY_FAILED: Outcome.FAILED,
    S.BUILD_FAILED: Outcome.FAILED,
    S.BUILD_STOPPED: Outcome.FAILED,
    S.DEACTIVATING: Outcome.FAILED,
    S.INACTIVE: Outcome.FAILED,
    S.FAILED: Outcome.FAILED,
}


def outcome(status: str) -> Outcome:
    """What a status means for a push that is waited for; an unknown one may still change."""
    try:
        return _OUTCOMES[S(status)]
    except ValueError:
        return Outcome.PENDING


@dataclass(frozen=True)
class Clock:
    now: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep


def wait_ready(
    api: RestClient,
    deployment: Json,
    *,
    timeout_s: float | None,
    on_poll: Callable[[Json], None],
    clock: Clock | None = None,
) -> tuple[Json, Outcome]:
    """Poll a deployment until it is ready or has failed; `PENDING` means that time ran out.

    Raises UnavailableError when the platform was away for longer than `UNREACHABLE_S`.
    """
    clock = clock or Clock()
    path = f"/v1/models/{segment(deployment['model_id'])}/deployments/{segment(deployment['id'])}"
    started = last_answer = clock.now()
    interval_s = 1.0 if api.remote.is_baseten else 0.3
    while True:
        on_poll(deployment)
        reached = outcome(deployment["status"])
        now = clock.now()
        if reached is not Outcome.PENDING or (timeout_s is not None and now - started > timeout_s):
            return deployment, reached
        clock.pause(interval_s)
        try:
            deployment = api.get(path)
        except UnavailableError:
            if clock.now() - last_answer > UNREACHABLE_S:
                raise
        else:
            last_answer = clock.now()
