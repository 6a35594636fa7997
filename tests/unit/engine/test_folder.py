from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kingpost.engine import folder
from kingpost.engine.base import Exit, ReplicaSpec
from kingpost.engine.folder import Record, ReplicaFolder
from kingpost.errors import EngineError

SPEC = ReplicaSpec(replica_id="r1", deployment_id="d", user="t", argv=("true",))
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,10}", fullmatch=True)


def made(root: Path) -> ReplicaFolder:
    found = ReplicaFolder(root / "replicas", root / "secrets", "r1")
    found.path.mkdir(parents=True)
    return found


def test_records_are_read_as_written_and_torn_ones_are_none(tmp_path: Path) -> None:
    replica = made(tmp_path)
    record = Record(SPEC, "boot", sandboxed=True, started_ns=5)
    ended = Exit(None, 9, 7, oom=True, reason='out of "memory"')
    assert replica.record() is None
    replica.put_record(record)
    replica.put_exit(ended)
    assert (replica.record(), replica.exit()) == (record, ended)
    (replica.path / "spec.json").write_text('{"spec": {')
    assert replica.record() is None


def test_one_holds_the_lock_at_a_time(tmp_path: Path) -> None:
    replica = made(tmp_path)
    first = replica.lock()
    assert first is not None
    assert replica.lock() is None
    os.close(first)
    second = replica.lock()
    assert second is not None
    os.close(second)


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "x" * 200, "a\0b"])
def test_names_that_are_no_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(EngineError):
        ReplicaFolder(tmp_path, tmp_path, name)


@given(st.lists(st.dictionaries(NAMES, st.text(max_size=20), max_size=5), max_size=4))
@settings(max_examples=40, deadline=None)
def test_a_folder_holds_just_the_files_last_put(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[dict[str, str]]
) -> None:
    target = tmp_path_factory.mktemp("files") / "secrets"
    for files in rounds:
        folder.put_files(target, files, mode=0o400, uid=None)
        found = {path.name: path.read_bytes().decode() for path in target.iterdir()}
        assert found == files
        assert all(stat.S_IMODE(path.stat().st_mode) == 0o400 for path in target.iterdir())


@pytest.mark.parametrize("name", ["../up", "a/b", "", "~x", ".."])
def test_names_that_are_no_file_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(EngineError):
        folder.put_files(tmp_path / "files", {name: "x"}, mode=0o400, uid=None)
    assert not (tmp_path / "files").exists()


def test_a_platform_keeps_its_name(tmp_path: Path) -> None:
    name = folder.instance_of(tmp_path)
    assert len(name) == 8
    assert folder.instance_of(tmp_path) == name
    assert folder.instance_of(tmp_path / "other") != name
