"""Prices of today: per minute of an instance there, per hour of a GPU here."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kingpost.deploy import catalog
from kingpost.deploy.prices import with_instance_prices

KNOWN = catalog.load()
TODAY = date(2026, 11, 21)


def instance(gpu: str | None, count: int, price: float) -> dict[str, Any]:
    return {"instance_type": {"gpu_type": gpu, "gpu_count": count}, "price": price}


def test_the_cheapest_instance_with_one_of_it() -> None:
    answer = [
        instance("L4", 1, 0.02),
        instance("L4", 1, 0.01414),
        instance("L4", 2, 0.001),
        instance("H100_40GB", 1, 0.0625),
        instance("NEWGPU", 1, 1.0),
        instance(None, 0, 0.0001),
    ]
    fresh = with_instance_prices(KNOWN, "baseten", answer, TODAY)
    l4 = fresh.offer(fresh.gpu("L4"), "baseten")
    assert (l4.usd_per_gpu_hour, l4.as_of) == (Decimal("0.8484"), "2026-11-21")
    assert not l4.is_old(TODAY)
    assert fresh.offer(fresh.gpu("H100 MIG"), "baseten").usd_per_gpu_hour == Decimal("3.7500")
    assert fresh.offer(fresh.gpu("T4"), "baseten").as_of == "2026"
    assert fresh.offer(fresh.gpu("L4"), "modal") == KNOWN.offer(KNOWN.gpu("L4"), "modal")


names = st.sampled_from(["T4", "L4", "H100", "A100", "NEWGPU", None])


@given(st.lists(st.builds(instance, names, st.integers(0, 3), st.floats(0, 10)), max_size=12))
def test_no_offer_is_lost_or_doubled(answer: list[dict[str, Any]]) -> None:
    fresh = with_instance_prices(KNOWN, "baseten", answer, TODAY)
    places = [(offer.gpu, offer.provider) for offer in fresh.offers]
    assert sorted(places) == sorted((offer.gpu, offer.provider) for offer in KNOWN.offers)
