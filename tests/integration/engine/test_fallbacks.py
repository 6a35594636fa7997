"""Machines that lack something: no root, no control groups, no resolver, a full disk."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kingpost.engine import folder, limits, machine
from kingpost.engine.process import ProcessEngine
from kingpost.errors import EngineError
from kingpost.settings import DataFolder, SandboxMode
from tests.integration.engine.conformance import GREEDY
from tests.support.engine import get, leftovers, python_spec, running_engine
from tests.support.probe import PROBE

NOBODY = 65534
AS_NOBODY = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from kingpost.engine.base import Command, ReplicaSpec
from kingpost.engine.process import ProcessEngine
from kingpost.errors import EngineError
from kingpost.settings import DataFolder, SandboxMode

async def main():
    engine = ProcessEngine(DataFolder(Path(sys.argv[1])), SandboxMode(sys.argv[2]))
    try:
        await engine.prepare()
    except EngineError as error:
        print("error", error.message)
        return
    print(" ".join(notice.code for notice in engine.notices))
    spec = ReplicaSpec(replica_id="r1", deployment_id="d", user="t", argv=("/usr/bin/id", "-u"))
    await engine.start(spec, {"a": "b"}, {})
    print((await engine.wait("r1")).code)
    await engine.stop("r1", grace_s=1)
    print(await engine.run(Command(user="t", argv=("/usr/bin/id", "-u")), print))
    await engine.close()

asyncio.run(main())
"""


def as_nobody(root: Path, mode: SandboxMode) -> list[str]:
    """Run an engine without root and without pasta, with a right to read the interpreter."""
    root.mkdir()
    programs = root.with_name("programs")
    programs.mkdir(mode=0o755)
    (programs / "bwrap").symlink_to("/usr/bin/bwrap")
    os.chown(root, NOBODY, NOBODY)
    source = str(Path(machine.__file__).parents[2])
    words = ["--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
    words += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    done = subprocess.run(
        [
            "/usr/bin/setpriv",
            *words,
            sys.executable,
            "-c",
            AS_NOBODY,
            str(root),
            mode.value,
            source,
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={"PATH": str(programs)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for parent in (tmp_path, *tmp_path.parents[:3]):
        if parent != Path("/tmp"):
            parent.chmod(parent.stat().st_mode | 0o011)
    return tmp_path / "data"


def test_without_root_and_pasta_auto_runs_plain_processes_and_says_so(root: Path) -> None:
    lines = as_nobody(root, SandboxMode.AUTO)
    assert "sandbox_missing" in lines[0]
    assert lines[1:] == ["0", str(NOBODY), "0"]


def test_without_root_and_pasta_require_names_the_fix(root: Path) -> None:
    (line,) = as_nobody(root, SandboxMode.REQUIRE)
    assert line.startswith("error replicas can't be sandboxed here: pasta is not installed")
    assert "`apt-get install passt`" in line


async def test_a_missing_program_is_named_with_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "find_program", lambda name: None if name == "bwrap" else name)
    engine = ProcessEngine(DataFolder(tmp_path), SandboxMode.REQUIRE)
    with pytest.raises(EngineError, match="apt-get install bubblewrap"):
        await engine.prepare()
    fallback = ProcessEngine(DataFolder(tmp_path), SandboxMode.AUTO)
    await fallback.prepare()
    assert [notice.code for notice in fallback.notices] == ["sandbox_missing"]


@pytest.mark.parametrize("mode", [SandboxMode.REQUIRE, SandboxMode.OFF])
async def test_without_groups_memory_is_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: SandboxMode
) -> None:
    monkeypatch.setattr(machine, "find_groups", lambda instance: None)
    async with running_engine(tmp_path / "data", mode) as engine:
        assert "memory_limits_watched" in [notice.code for notice in engine.notices]
        slow = GREEDY.replace("held.append", "__import__('time').sleep(0.1); held.append")
        spec = python_spec("r1", slow, memory_bytes=96 * 1024**2)
        await engine.start(spec, {}, {})
        ended = await asyncio.wait_for(engine.wait("r1"), 60)
        assert (ended.oom, ended.reason) == (True, "out of memory: limit 96 MiB")
        assert leftovers(engine) == []


async def test_an_unreachable_resolver_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine.network, "resolvers", list)
    async with running_engine(tmp_path / "data") as engine:
        assert [notice.code for notice in engine.notices] == ["resolver_missing"]


async def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data folder on a file system of one page more than the engine itself needs."""
    disk = tmp_path / "disk"
    disk.mkdir()
    options = ["-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    await asyncio.to_thread(subprocess.run, ["mount", *options], check=True)
    try:
        async with running_engine(disk / "data") as engine:
            address = await engine.start(python_spec("r0", PROBE, log_dir=tmp_path / "l"), {}, {})
            assert await get(address) == "ok"
            with pytest.raises(OSError, match="No space"):
                (disk / "filler").write_bytes(b"x" * (1 << 20))
            with pytest.raises(EngineError, match="disk is full"):
                await engine.start(python_spec("r1", PROBE), {"a": "b"}, {})
            assert not (disk / "data" / "replicas" / "r1" / "spec.json").exists()
            assert await get(address) == "ok"
            (disk / "filler").unlink()
            await engine.stop("r0", grace_s=5)
            assert [left for left in leftovers(engine) if not left.startswith("mount")] == []
    finally:
        await asyncio.to_thread(subprocess.run, ["umount", "-l", str(disk)], check=True)


def test_no_tmpfs_for_secrets_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "_in_memory", lambda path, mounts: False)
    with pytest.raises(EngineError, match="mount one"):
        folder.secrets_root("unit-test")


def test_groups_that_can_not_be_made_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_works", lambda groups: False)
    assert limits.find_groups("unit-test") is None
