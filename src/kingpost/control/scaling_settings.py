"""Autoscaling settings: what a change makes of them, within the contract's ranges. Pure."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from kingpost.control.domain import AutoscalingSettings
from kingpost.errors import InvalidInputError

RANGES: Final[dict[str, tuple[int, int]]] = {
    "min_replica": (0, 10_000),
    "max_replica": (1, 10_000),
    "autoscaling_window": (10, 3600),
    "scale_down_delay": (0, 3600),
    "concurrency_target": (1, 100_000),
    "target_utilization_percentage": (1, 100),
    "max_scale_down_rate": (1, 50),
    "target_in_flight_tokens": (1, 2**31 - 1),
}
"""Inclusive (platform documentation and management API). Upper ends that the contract leaves to
the organisation are ours."""

_FIXED_IN_DEVELOPMENT: Final = {"min_replica": 0, "max_replica": 1}


def changed(
    old: AutoscalingSettings, changes: dict[str, Any], *, development: bool = False
) -> AutoscalingSettings:
    """`old` with those `changes` that are not None. InvalidInputError names a wrong field."""
    wanted = {name: value for name, value in changes.items() if value is not None}
    for name, value in wanted.items():
        if name not in RANGES:
            raise InvalidInputError(f"There is no autoscaling setting {name!r}.")
        low, high = RANGES[name]
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise InvalidInputError(
                f"{name} is {value!r}; expected a whole number {low} to {high}."
            )
        if development and _FIXED_IN_DEVELOPMENT.get(name, value) != value:
            raise InvalidInputError(
                f"{name} of a development deployment is always {_FIXED_IN_DEVELOPMENT[name]}. "
                "Publish the model to scale it."
            )
    new = msgspec.structs.replace(old, **wanted)
    if new.min_replica > new.max_replica:
        raise InvalidInputError(
            f"min_replica {new.min_replica} is more than max_replica {new.max_replica}. "
            "Set both in one request."
        )
    return new
