"""Kills at bad moments: of the platform while it starts replicas, of shims, and of the machine."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from kingpost.engine import adopt
from kingpost.engine.base import Phase
from kingpost.engine.process import ProcessEngine
from kingpost.engine.recovery import SHIM_GONE
from kingpost.settings import DataFolder, SandboxMode
from tests.support.engine import (
    eventually,
    get,
    kill_shim,
    leftovers,
    processes_naming,
    python_spec,
    running_engine,
    stop_all,
)
from tests.support.probe import PROBE

MODES = [SandboxMode.REQUIRE, SandboxMode.OFF]
HOLDER = Path(__file__).with_name("holder.py")
COMMAND_HOLDER = """
import asyncio, sys
from pathlib import Path
from kingpost.engine.base import Command
from kingpost.engine.process import ProcessEngine
from kingpost.settings import DataFolder, SandboxMode

async def main():
    engine = ProcessEngine(DataFolder(Path(sys.argv[1])), SandboxMode(sys.argv[2]))
    await engine.prepare()
    command = Command(user="t", argv=("/bin/sh", "-c", "echo begun; sleep 600"))
    await engine.run(command, lambda line: print(line, flush=True))

asyncio.run(main())
"""


def python(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(Path.cwd()), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"},
    )


async def start_and_kill(root: Path, mode: SandboxMode, after_s: float) -> set[str]:
    """Which replicas the killed engine had told of as started, and not stopped."""
    holder = python(str(HOLDER), str(root), mode.value)
    assert holder.stdout is not None
    with holder, holder.stdout as told:
        assert (await asyncio.to_thread(told.readline)).strip() == "ready"
        await asyncio.sleep(after_s)
        holder.send_signal(signal.SIGKILL)
        names = {line.strip() for line in told}
        holder.wait()
    return set(filter(stays, names))


def stays(replica_id: str) -> bool:
    """Whether the holder starts this one without stopping it again."""
    return int(replica_id[1:]) % 3 != 2


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(8))
async def test_a_platform_killed_while_it_starts_replicas(
    tmp_path: Path, mode: SandboxMode, seed: int
) -> None:
    root = tmp_path / "data"
    started = await start_and_kill(root, mode, random.Random(seed).uniform(0, 0.6))
    async with running_engine(root, mode) as engine:
        # What was being stopped when the kill came may end at any moment; the rest stands.
        seen = [each for each in engine.observe_all() if stays(each.replica_id)]
        running = {each.replica_id for each in seen}
        assert started <= running
        assert len(running - started) <= 1  # one that had begun
        for each in seen:
            assert each.phase is Phase.RUNNING
            assert each.address is not None
            assert await get(each.address) == "ok"
        starter = engine._ready()
        if starter.machine.groups is not None:
            assert set(filter(stays, starter.machine.groups.names())) == running
        assert {path.name for path in starter.secrets_root.iterdir() if stays(path.name)} == running
        assert {
            path.name for path in starter.data.replicas.iterdir() if stays(path.name)
        } == running
        if starter.rooted:
            interfaces = [line for line in leftovers(engine) if line.startswith("interface")]
            assert len([line for line in interfaces if stays(line.split()[-1])]) == len(running)
        await stop_all(engine)
        assert leftovers(engine) == []


@pytest.mark.parametrize("mode", MODES)
async def test_a_killed_shim_ends_its_replica_with_a_reason(
    tmp_path: Path, mode: SandboxMode
) -> None:
    async with running_engine(tmp_path / "data", mode) as engine:
        address = await engine.start(python_spec("r1", PROBE), {"token": "x"}, {})
        assert await get(address) == "ok"
        kill_shim(engine, "r1")
        ended = await asyncio.wait_for(engine.wait("r1"), 30)
        assert ended.reason == SHIM_GONE
        assert engine.observe("r1").exit == ended
        assert leftovers(engine) == []


@pytest.mark.parametrize("mode", MODES)
async def test_a_shim_killed_while_no_engine_looks(tmp_path: Path, mode: SandboxMode) -> None:
    async with running_engine(tmp_path / "data", mode) as engine:
        assert await get(await engine.start(python_spec("r1", PROBE), {"t": "x"}, {})) == "ok"
        shim = engine._known["r1"].folder.shim()
        assert shim is not None
        await engine.close()
        assert adopt.send(shim.pid, shim.start, signal.SIGKILL)
        await engine.prepare()
        await engine.wait("r1")
        ended = engine.observe("r1")
        assert ended.phase is Phase.EXITED
        assert ended.exit is not None
        assert ended.exit.reason == SHIM_GONE
        assert leftovers(engine) == []


@pytest.mark.parametrize("mode", MODES)
async def test_a_replica_that_ends_while_no_engine_looks(tmp_path: Path, mode: SandboxMode) -> None:
    async with running_engine(tmp_path / "data", mode) as engine:
        program = "import time; time.sleep(0.3); raise SystemExit(8)"
        await engine.start(python_spec("r1", program), {"t": "x"}, {})
        folder = engine._known["r1"].folder
        await engine.close()
        await eventually(lambda: folder.exit() is not None, "the shim records the end")
        await engine.prepare()
        seen = engine.observe("r1")
        assert seen.exit is not None
        assert seen.exit.code == 8
        await eventually(lambda: leftovers(engine) == [], "nothing is left")


@pytest.mark.parametrize("mode", MODES)
async def test_after_a_reboot_everything_recorded_is_gone(
    tmp_path: Path, mode: SandboxMode
) -> None:
    """A reboot is another boot id, and no process of before."""
    async with running_engine(tmp_path / "data", mode) as engine:
        assert await get(await engine.start(python_spec("r1", PROBE), {"t": "x"}, {})) == "ok"
        folder = engine._known["r1"].folder
        record = engine._known["r1"].record
        shim = folder.shim()
        assert shim is not None
        await engine.close()
        for pid, start in ((shim.init or shim.child, shim.init_start or shim.child_start),):
            adopt.send(pid, start, signal.SIGKILL)
        await eventually(lambda: adopt.start_time(shim.pid) is None or _dead(shim.pid), "dead")
        folder.forget_run()
        folder.put_record(msgspec.structs.replace(record, boot_id="another"))
        await engine.prepare()
        assert engine.observe("r1").phase is Phase.GONE
        assert not folder.path.exists()
        assert leftovers(engine) == []


@pytest.mark.parametrize("mode", MODES)
async def test_half_made_folders_are_removed(tmp_path: Path, mode: SandboxMode) -> None:
    async with running_engine(tmp_path / "data", mode) as engine:
        replicas = DataFolder(tmp_path / "data").replicas
        (replicas / "empty").mkdir()
        (replicas / "torn").mkdir()
        (replicas / "torn" / "spec.json").write_text('{"spec":')
        (engine._ready().secrets_root / "torn").mkdir()
        await engine.close()
        await engine.prepare()
        assert engine.observe_all() == []
        assert list(replicas.iterdir()) == []
        assert leftovers(engine) == []


@pytest.mark.parametrize("mode", MODES)
async def test_commands_end_with_the_platform(tmp_path: Path, mode: SandboxMode) -> None:
    root = tmp_path / "data"
    holder = python("-c", COMMAND_HOLDER, str(root), mode.value)
    assert holder.stdout is not None
    with holder, holder.stdout as told:
        assert (await asyncio.to_thread(told.readline)).strip() == "begun"
        holder.kill()
        holder.wait()
    async with running_engine(root, mode) as engine:
        await eventually(lambda: leftovers(engine) == [], "nothing is left of the command")
        assert processes_naming(str(root)) == []


async def test_a_killed_replica_costs_no_other(tmp_path: Path) -> None:
    async with running_engine(tmp_path / "data") as engine:
        first = await engine.start(python_spec("r1", PROBE), {}, {})
        second = await engine.start(python_spec("r2", PROBE), {}, {})
        assert [await get(first), await get(second)] == ["ok", "ok"]
        shim = engine._known["r1"].folder.shim()
        assert shim is not None
        assert adopt.send(shim.init, shim.init_start, signal.SIGKILL)
        ended = await asyncio.wait_for(engine.wait("r1"), 30)
        assert ended.signal == 9
        assert await get(second) == "ok"
        assert engine.observe("r2").phase is Phase.RUNNING


async def test_many_starts_and_stops_at_once(tmp_path: Path) -> None:
    async with running_engine(tmp_path / "data") as engine:
        specs = [python_spec(f"r{number}", PROBE) for number in range(8)]
        addresses = await asyncio.gather(*(engine.start(spec, {}, {}) for spec in specs))
        assert len(set(addresses)) == 8
        again = await asyncio.gather(*(engine.start(spec, {}, {}) for spec in specs))
        assert again == addresses
        assert await asyncio.gather(*(get(address) for address in addresses)) == ["ok"] * 8
        await asyncio.gather(*(engine.stop(f"r{number}", grace_s=5) for number in range(8)))
        assert leftovers(engine) == []


async def test_a_cancelled_start_is_whole(tmp_path: Path) -> None:
    async with running_engine(tmp_path / "data") as engine:
        task = asyncio.create_task(engine.start(python_spec("r1", PROBE), {}, {}))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: engine.observe("r1").phase is Phase.RUNNING, "it runs")
        address = engine.observe("r1").address
        assert address is not None
        assert await get(address) == "ok"


def _dead(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_the_engine_is_told_to_prepare_first(tmp_path: Path) -> None:
    engine = ProcessEngine(DataFolder(tmp_path), SandboxMode.OFF)
    assert engine.notices == ()
    assert engine.observe_all() == []
