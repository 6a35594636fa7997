"""Keys and secrets: shown once, kept as digest or ciphertext, gone when revoked."""

from __future__ import annotations

import stat

import pytest

from kingpost.contract import KeyCategory
from kingpost.control.platform import Platform
from kingpost.errors import InvalidInputError, NotFoundError, UnauthorizedError
from kingpost.settings import Settings


def test_a_key_is_known_in_both_forms_until_it_is_revoked(platform: Platform) -> None:
    team = platform.teams.default.id
    made = platform.keys.create(team, name="ci", category=KeyCategory.WORKSPACE_MANAGE_ALL)
    assert made.value.startswith(made.key.prefix + ".")
    for scheme in ("Api-Key", "Bearer", "bearer"):
        assert platform.keys.authenticate(f"{scheme} {made.value}") == made.key
    platform.keys.revoke(team, made.key.prefix)
    with pytest.raises(UnauthorizedError):
        platform.keys.authenticate(f"Api-Key {made.value}")
    with pytest.raises(NotFoundError):
        platform.keys.revoke(team, made.key.prefix)


@pytest.mark.parametrize("header", [None, "", "Basic x", "Api-Key", "Api-Key wrong", "Bearer "])
def test_anything_else_is_refused(platform: Platform, header: str | None) -> None:
    with pytest.raises(UnauthorizedError):
        platform.keys.authenticate(header)


def test_neither_values_of_keys_nor_of_secrets_lie_in_the_database(
    platform: Platform, settings: Settings
) -> None:
    team = platform.teams.default.id
    made = platform.keys.create(team, name=None, category=KeyCategory.PERSONAL)
    platform.secrets.put(team, "token", "a-very-secret-value")
    upload = platform.uploads.begin(team)
    stored = b"".join(f.read_bytes() for f in settings.data.root.glob("kingpost.sqlite3*"))
    assert made.value.encode() not in stored
    assert b"a-very-secret-value" not in stored
    assert upload.secret_access_key.encode() not in stored
    assert stat.S_IMODE(settings.data.secret_key.stat().st_mode) == 0o600


def test_a_secret_keeps_its_id_when_its_value_changes(platform: Platform) -> None:
    team = platform.teams.default.id
    first = platform.secrets.put(team, "token", "one")
    second = platform.secrets.put(team, "token", "two")
    assert first.id == second.id
    assert platform.secrets.values(team, ["token", "absent"]) == {"token": "two"}
    assert platform.secrets.values("another", ["token"]) == {}
    platform.secrets.delete(team, "token")
    assert platform.secrets.list(team) == ()


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "x" * 300])
def test_names_that_are_no_file_names_are_refused(platform: Platform, name: str) -> None:
    with pytest.raises(InvalidInputError):
        platform.secrets.put(platform.teams.default.id, name, "v")


def test_model_scope_is_for_categories_that_have_one(platform: Platform) -> None:
    team = platform.teams.default.id
    with pytest.raises(InvalidInputError, match="not limited to"):
        platform.keys.create(team, name=None, category=KeyCategory.PERSONAL, model_ids=("x",))
    with pytest.raises(NotFoundError):
        platform.keys.create(
            team, name=None, category=KeyCategory.WORKSPACE_INVOKE, model_ids=("x",)
        )
