"""Fixtures shared by all tests that need a real platform, and how property tests run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.support.platform import RunningPlatform, platform

# No test here fails for being slow: the machine may be busy with others. In CI the examples are the
# same at each run, so that a change is judged by itself; elsewhere they are new each time.
hypothesis.settings.register_profile("kingpost", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "kingpost")


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
