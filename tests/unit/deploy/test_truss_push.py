"""What truss prints as JSON, and everything that is not it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kingpost.deploy.providers.truss_push import ids_of


def test_ids_are_read_whatever_stands_before() -> None:
    told = json.dumps({"model_id": "abcd1234", "model_version_id": "q1", "logs_url": "x"}, indent=2)
    assert ids_of(told) == ("abcd1234", "q1")
    assert ids_of(f"Installing ...\n{told}\n") == ("abcd1234", "q1")


@pytest.mark.parametrize(
    "output",
    ["", "no", "{", "[]", "{}", '{"model_id": "a"}', '{"model_id": 1, "model_version_id": 2}'],
)
def test_anything_else_is_none(output: str) -> None:
    assert ids_of(output) is None


@given(st.text())
def test_no_output_surprises(output: str) -> None:
    assert ids_of(output) is None or "model_id" in output
