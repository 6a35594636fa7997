"""What a deployment will create and cost, as a value. Making one calls nobody."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from kingpost.deploy.request import DeployRequest


@dataclass(frozen=True)
class Plan:
    """`config` is what the provider is given. A price of None is not known.

    `needs_secrets` must be there before the deployment starts. Holds no secret itself.
    """

    provider: str
    service: str
    request: DeployRequest
    creates: tuple[str, ...]
    config: Mapping[str, Any]
    engine_version: str
    usd_per_hour: Decimal | None
    price_as_of: str | None
    needs_secrets: tuple[str, ...] = ()

    @property
    def usd_per_hour_idle(self) -> Decimal | None:
        """What the replicas cost that stay when nobody calls."""
        if self.usd_per_hour is None:
            return None
        return self.usd_per_hour * self.request.scaling.min_replica

    def to_json(self) -> dict[str, Any]:
        plain: dict[str, Any] = dataclasses.asdict(
            dataclasses.replace(self, config={}, request=dataclasses.replace(self.request, env={}))
        )
        plain["config"] = hide_values(self.config)
        plain["request"]["env"] = sorted(self.request.env)
        plain["usd_per_hour"] = money(self.usd_per_hour)
        plain["usd_per_hour_idle"] = money(self.usd_per_hour_idle)
        return plain


def hide_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with the values of environment variables left out: some of them are secret."""
    shown = dict(config)
    if variables := shown.get("environment_variables"):
        shown["environment_variables"] = dict.fromkeys(variables, "(hidden)")
    return shown


def money(amount: Decimal | None) -> str | None:
    return None if amount is None else f"{amount:.2f}"
