"""A shim and a network made ahead: used by a start, made anew, gone with its engine."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kingpost.engine.base import Overlay
from kingpost.engine.process import ProcessEngine
from kingpost.engine.spare import Spares
from tests.support.engine import eventually, get, leftovers, python_spec, running_engine
from tests.support.probe import PROBE


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[ProcessEngine]:
    async with running_engine(tmp_path / "data") as made:
        await eventually(lambda: len(spares(made).processes()) == 1, "a spare is there")
        yield made


def alias_of(interface: str) -> str:
    return Path(f"/sys/class/net/{interface}/ifalias").read_text().strip()


def kill(pid: int) -> None:
    """Kill a child and wait until it is dead, but leave it to be reaped."""
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def what_is_left(engine: ProcessEngine, pid: int, interface: str) -> list[str]:
    paths = [Path(f"/proc/{pid}"), Path(f"/sys/class/net/{interface}")]
    paths += (engine._data.root / "engine" / "spares").iterdir()
    return [str(path) for path in paths if path.exists()]


def spares(engine: ProcessEngine) -> Spares:
    return engine._ready().spares


async def test_a_start_takes_the_spare_and_another_is_made(engine: ProcessEngine) -> None:
    (interface,) = spares(engine).interfaces()
    (pid,) = spares(engine).processes()
    address = await engine.start(python_spec("r1", PROBE), {}, {})
    assert await get(address) == "ok"
    known = engine._known["r1"]
    assert (known.record.interface, known.pid) == (interface, pid)
    assert alias_of(interface) == engine._ready().alias("r1")
    await eventually(lambda: len(spares(engine).processes()) == 1, "a new spare is there")
    await engine.stop("r1", grace_s=5)
    assert leftovers(engine) == []


async def test_a_killed_spare_is_not_used(engine: ProcessEngine) -> None:
    (pid,) = spares(engine).processes()
    kill(pid)
    address = await engine.start(python_spec("r1", PROBE), {}, {})
    assert await get(address) == "ok"
    assert engine._known["r1"].pid != pid
    await engine.stop("r1", grace_s=5)
    assert leftovers(engine) == []


async def test_what_a_spare_can_not_serve_starts_without(
    engine: ProcessEngine, tmp_path: Path
) -> None:
    before = spares(engine).processes()
    cold = python_spec("r1", PROBE, network=False)
    assert await get(await engine.start(cold, {}, {})) == "ok"
    (tmp_path / "lower").mkdir()
    overlay = Overlay(
        (str(tmp_path / "lower"),), str(tmp_path / "upper"), str(tmp_path / "work"), "/env"
    )
    mounted = python_spec("r2", PROBE, overlays=(overlay,))
    assert await get(await engine.start(mounted, {}, {})) == "ok"
    assert spares(engine).processes() == before


async def test_a_spare_ends_with_its_engine(engine: ProcessEngine) -> None:
    (pid,) = spares(engine).processes()
    (interface,) = spares(engine).interfaces()
    await engine.close()
    assert what_is_left(engine, pid, interface) == []
