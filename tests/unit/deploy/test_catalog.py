"""GPUs and prices: the rows as they are known, names as people write them, misses that help."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kingpost.deploy import catalog
from kingpost.errors import InvalidInputError, NotFoundError

KNOWN = catalog.load()
BASETEN = {
    "T4": "0.63",
    "L4": "0.85",
    "A10G": "1.21",
    "A100": "4.00",
    "H100": "6.50",
    "H100 MIG": "3.75",
    "B200": "9.98",
}


def test_the_rows_of_baseten_are_exactly_these() -> None:
    shown = KNOWN.select(provider="baseten")
    assert {KNOWN.by_name(o.gpu).label: str(o.usd_per_gpu_hour) for o in shown.offers} == BASETEN


def test_the_slice_of_an_h100_has_the_name_that_truss_takes() -> None:
    gpu = KNOWN.gpu("H100 MIG")
    assert KNOWN.offer(gpu, "baseten").provider_gpu_id == "H100_40GB"


def test_every_offer_is_of_a_known_gpu_and_provider() -> None:
    names = {gpu.name for gpu in KNOWN.gpus}
    assert {offer.gpu for offer in KNOWN.offers} <= names
    assert {offer.provider for offer in KNOWN.offers} == {p.name for p in KNOWN.providers}
    assert len({(o.gpu, o.provider) for o in KNOWN.offers}) == len(KNOWN.offers)
    assert all(gpu.vram_gb > 0 and gpu.architecture for gpu in KNOWN.gpus)
    assert KNOWN.gpu("RTX PRO 6000").vram_gb == 96


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("l4", "L4"),
        ("A100", "A100_80GB"),
        ("a100-80gb", "A100_80GB"),
        ("A100 40GB", "A100_40GB"),
        ("H100MIG", "H100_MIG"),
        ("H100_40GB", "H100_MIG"),
        ("4090", "RTX4090"),
        ("NVIDIA A40", "A40"),
        ("ADA_L40", "L40S"),
        ("L40", "L40"),
        ("A10", "A10"),
    ],
)
def test_names_as_people_and_providers_write_them(written: str, name: str) -> None:
    assert KNOWN.gpu(written).name == name


def test_an_unknown_gpu_names_the_nearest_and_who_has_them() -> None:
    with pytest.raises(NotFoundError) as raised:
        KNOWN.gpu("H10")
    assert "H100 (" in raised.value.message
    assert "baseten" in raised.value.message


def test_a_provider_that_lacks_a_gpu_says_what_it_has_and_who_has_it() -> None:
    with pytest.raises(NotFoundError) as raised:
        KNOWN.offer(KNOWN.gpu("A40"), "baseten")
    assert "H100 MIG" in raised.value.message
    assert "runpod" in raised.value.message
    with pytest.raises(InvalidInputError, match="baseten"):
        KNOWN.provider("basten")


@given(st.text(max_size=40))
def test_any_name_is_found_or_missed_in_words(named: str) -> None:
    missed, found = "", None
    try:
        found = KNOWN.gpu(named)
    except NotFoundError as error:
        missed = error.message
    assert (found in KNOWN.gpus) != ("show-gpus" in missed)


prices = st.none() | st.decimals(0, 20, places=2)


@given(prices, st.integers(0, 300), st.sampled_from([None, *(p.name for p in KNOWN.providers)]))
def test_a_selection_holds_only_what_meets_all_conditions(
    price: Decimal | None, vram: int, provider: str | None
) -> None:
    shown = KNOWN.select(max_price=price, min_vram_gb=vram, provider=provider)
    assert set(shown.offers) == {
        offer
        for offer in KNOWN.offers
        if (provider in (None, offer.provider))
        and KNOWN.by_name(offer.gpu).vram_gb >= vram
        and (
            price is None
            or (offer.usd_per_gpu_hour is not None and offer.usd_per_gpu_hour <= price)
        )
    }
    sizes = [gpu.vram_gb for gpu in shown.sorted_gpus()]
    assert sizes == sorted(sizes)
    assert all(size >= vram for size in sizes)


def test_the_cheapest_is_never_one_without_a_price() -> None:
    best = catalog.cheapest(KNOWN.offers_of(KNOWN.gpu("B200")))
    assert best is not None
    assert (best.provider, best.usd_per_gpu_hour) == ("modal", Decimal("6.25"))
    assert catalog.cheapest(KNOWN.offers_of(KNOWN.gpu("H200"))) is None
    assert KNOWN.offers_of(KNOWN.gpu("B200"))[-1].usd_per_gpu_hour is None


@pytest.mark.parametrize(
    ("as_of", "today", "old"),
    [
        ("2026-11-01", date(2026, 11, 21), False),
        ("2026-11", date(2026, 11, 21), False),
        ("2026", date(2026, 11, 21), True),
        ("2026-01-01", date(2026, 4, 1), False),
        ("2026-01-01", date(2026, 4, 2), True),
    ],
)
def test_a_price_is_old_from_the_earliest_day_that_it_could_mean(
    as_of: str, today: date, old: bool
) -> None:
    offer = catalog.Offer("L4", "baseten", "L4", Decimal(1), as_of, "a list")
    assert offer.is_old(today) is old
