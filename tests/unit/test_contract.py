"""The names and limits of the contract."""

import re

from hypothesis import given
from hypothesis import strategies as st

from kingpost import contract


def test_ids_have_the_contracts_form() -> None:
    ids = {contract.new_id() for _ in range(200)}
    assert len(ids) == 200
    assert all(re.fullmatch(r"[a-z][a-z0-9]{7}", i) for i in ids)


def test_every_status_has_a_graphql_name() -> None:
    assert set(contract.GRAPHQL_STATUS) == set(contract.DeploymentStatus)
    assert len(set(contract.GRAPHQL_STATUS.values())) == 14


@given(st.text())
def test_secret_names_are_safe_file_names(name: str) -> None:
    if contract.is_secret_name(name):
        assert "/" not in name
        assert "\x00" not in name
        assert name not in {"", ".", ".."}


def test_environment_names() -> None:
    assert contract.is_environment_name("staging")
    assert not contract.is_environment_name("development")
    assert not contract.is_environment_name("Bad Name")
    assert not contract.is_environment_name("a" * 41)
