"""Cost: bounds, by whole grains, at the price of the start."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kingpost.deploy import catalog
from kingpost.deploy.cost import billed_seconds, estimate, next_cheapest


@pytest.mark.parametrize(
    ("seconds", "grain", "billed"),
    [(0, 60, 0), (0.2, 60, 60), (60, 60, 60), (60.5, 60, 120), (1.2, None, 2), (3, 1, 3)],
)
def test_whole_grains(seconds: float, grain: int | None, billed: int) -> None:
    assert billed_seconds(seconds, grain) == billed


def test_an_hour_of_an_l4_on_baseten() -> None:
    known = catalog.load()
    other = next_cheapest(known, known.gpu("L4"), 1, "baseten")
    assert other == ("modal", Decimal("0.80"), 1)
    told = estimate(3600, Decimal("0.85"), (0, 2), 60, other)
    assert (told.at_least, told.at_most, told.always_on) == (0, Decimal("1.70"), Decimal("0.85"))
    assert told.other_at_most == Decimal("1.60")


@given(
    st.floats(0, 1e7),
    st.decimals("0.01", 100, places=2),
    st.integers(0, 5),
    st.integers(0, 5),
    st.sampled_from([None, 1, 60]),
)
def test_bounds_are_in_order(
    seconds: float, price: Decimal, low: int, more: int, grain: int | None
) -> None:
    told = estimate(seconds, price, (low, low + more), grain, None)
    assert 0 <= told.at_least <= told.at_most
    assert told.billed_s >= seconds - 1e-3
    assert told.billed_s < seconds + (grain or 1) + 1
    assert told.other is None
