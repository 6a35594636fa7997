"""Providers are found by name; another package adds one, and can't replace ours."""

from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import pytest

from kingpost.deploy import registry
from kingpost.errors import InvalidInputError, NotFoundError


def adding(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    points = EntryPoints([EntryPoint(name, value, registry.GROUP)])
    monkeypatch.setattr(registry, "entry_points", lambda group: points.select(group=group))


def test_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BASETEN_API_KEY", "abc.def")
    provider: Any = registry.get("baseten")
    assert provider.name == "baseten"
    assert provider.remote.is_baseten
    local: Any = registry.get("local", "http://127.0.0.1:9")
    assert local.remote.url == "http://127.0.0.1:9"
    assert set(registry.names()) >= {"baseten", "local"}


def test_another_package_adds_one(monkeypatch: pytest.MonkeyPatch) -> None:
    adding(monkeypatch, "mine", "kingpost.deploy.providers.baseten:on_baseten")
    assert "mine" in registry.names()
    assert registry.get("mine").name == "baseten"
    adding(monkeypatch, "baseten", "nowhere:nothing")
    assert registry.get("baseten").name == "baseten"


def test_a_missing_package_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    adding(monkeypatch, "mine", "a_package_that_is_not_there:make")
    with pytest.raises(InvalidInputError, match="a_package_that_is_not_there is missing"):
        registry.get("mine")


def test_an_unknown_one_names_those_there_are() -> None:
    with pytest.raises(NotFoundError, match="baseten, local"):
        registry.get("basten")
