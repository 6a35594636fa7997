"""The process engine, sandboxed and plain, under the suite that every engine passes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from kingpost.engine.process import ProcessEngine
from kingpost.settings import DataFolder, SandboxMode
from tests.integration.engine.conformance import *  # noqa: F403
from tests.support.engine import leftovers, running_engine, stop_all


@pytest.fixture(params=[SandboxMode.REQUIRE, SandboxMode.OFF])
async def engine(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[ProcessEngine]:
    async with running_engine(tmp_path / "data", request.param) as made:
        yield made


@pytest.fixture
async def again(
    engine: ProcessEngine,
) -> AsyncIterator[Callable[[], Awaitable[ProcessEngine]]]:
    made: list[ProcessEngine] = []

    async def make() -> ProcessEngine:
        another = ProcessEngine(DataFolder(engine._data.root), engine._mode)
        await another.prepare()
        made.append(another)
        return another

    yield make
    for another in made:
        await stop_all(another)
        assert leftovers(another) == []
        await another.close()
