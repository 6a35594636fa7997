"""Fixtures shared by all tests that need a real platform."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.platform import RunningPlatform, platform


@pytest.fixture(scope="session")
def shared_platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPlatform]:
    """One platform for all tests that leave it well; models have names of their own."""
    with platform(tmp_path_factory.mktemp("platform") / "data") as running:
        yield running


@pytest.fixture
def own_platform(tmp_path: Path) -> Iterator[RunningPlatform]:
    """A platform of the test's own, for those that kill, fill or restart it."""
    with platform(tmp_path / "data") as running:
        yield running
