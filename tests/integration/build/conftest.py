from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.building import Workshop, workshop


@pytest.fixture(scope="session")
def shared_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One data folder for all, so that the same environment is made once."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
async def shop(shared_root: Path) -> AsyncIterator[Workshop]:
    async with workshop(shared_root) as made:
        yield made
