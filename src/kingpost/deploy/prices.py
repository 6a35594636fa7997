"""Prices of today as a provider's API tells them, put in place of those that came along. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any

from kingpost.deploy.catalog import Catalog, Gpu, Offer
from kingpost.errors import NotFoundError


def with_instance_prices(
    catalog: Catalog, provider: str, answer: Iterable[Mapping[str, Any]], today: date
) -> Catalog:
    """`answer` is that of `/v1/instance_type_prices`: US dollars per minute of an instance.

    A GPU's price is that of the cheapest instance with one; it includes the instance's CPU and
    memory. Offers that are not in the answer keep what was known of them.
    """
    fresh: dict[str, Offer] = {}
    for entry in answer:
        offer = _offer(catalog, provider, entry, today)
        known = fresh.get(offer.gpu) if offer is not None else None
        if offer is not None and (known is None or _price(offer) < _price(known)):
            fresh[offer.gpu] = offer
    kept = (o for o in catalog.offers if o.provider != provider or o.gpu not in fresh)
    return replace(catalog, offers=(*kept, *fresh.values()))


def _offer(catalog: Catalog, provider: str, entry: Mapping[str, Any], today: date) -> Offer | None:
    kind = entry["instance_type"]
    if kind.get("gpu_count") != 1 or not kind.get("gpu_type"):
        return None
    name = str(kind["gpu_type"])
    try:
        gpu: Gpu = catalog.gpu(name)
    except NotFoundError:
        return None
    hourly = (Decimal(str(entry["price"])) * 60).quantize(Decimal("0.0001"))
    source = "the provider's API"
    return Offer(gpu.name, provider, name, hourly, today.isoformat(), source)


def _price(offer: Offer) -> Decimal:
    return offer.usd_per_gpu_hour or Decimal(0)
