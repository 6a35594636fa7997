"""What a service may have cost: bounds from its time and replicas, at the price of its start."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from kingpost.deploy.catalog import Catalog, Gpu, cheapest

_HOUR_S = Decimal(3600)


@dataclass(frozen=True)
class Estimate:
    """An estimate, never a bill: replicas are known to lie between their bounds, no closer.

    US dollars. `always_on` is one replica all the time; `other` is the cheapest other provider
    that has the GPU, with what it would have cost at most.
    """

    billed_s: int
    at_least: Decimal
    at_most: Decimal
    always_on: Decimal
    other: str | None
    other_at_most: Decimal | None


def billed_seconds(seconds: float, grain_s: int | None) -> int:
    """Whole grains; whole seconds where the grain is not known."""
    grain = grain_s or 1
    return -(-max(0, round(seconds + 0.4999)) // grain) * grain


def estimate(
    seconds: float,
    usd_per_hour: Decimal,
    replicas: tuple[int, int],
    grain_s: int | None,
    other: tuple[str, Decimal, int | None] | None,
) -> Estimate:
    """`usd_per_hour` is one replica's; `other` is a provider, its replica's price, its grain."""
    billed = billed_seconds(seconds, grain_s)
    one = usd_per_hour * billed / _HOUR_S
    other_at_most = None
    if other is not None:
        other_at_most = other[1] * billed_seconds(seconds, other[2]) / _HOUR_S * replicas[1]
    return Estimate(
        billed_s=billed,
        at_least=one * replicas[0],
        at_most=one * replicas[1],
        always_on=one,
        other=other[0] if other is not None else None,
        other_at_most=other_at_most,
    )


def next_cheapest(
    catalog: Catalog, gpu: Gpu, count: int, provider: str
) -> tuple[str, Decimal, int | None] | None:
    """The cheapest other provider's name, price of `count` GPUs an hour, and billing grain."""
    best = cheapest(o for o in catalog.offers_of(gpu) if o.provider != provider)
    if best is None or best.usd_per_gpu_hour is None:
        return None
    grain = catalog.provider(best.provider).billing_grain_s
    return best.provider, best.usd_per_gpu_hour * count, grain
