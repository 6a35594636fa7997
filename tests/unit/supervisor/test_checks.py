"""What `kingpost doctor` makes of what it sees."""

import json
import socket
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kingpost.settings import DataFolder, SandboxMode, Settings
from kingpost.supervisor import checks
from kingpost.supervisor.checks import Level
from tests.support.restserver import rest_server

ROOT = Path("/data")


def settings(root: Path, port: int = 8000) -> Settings:
    return Settings(data=DataFolder(root), port=port, sandbox=SandboxMode.AUTO)


@given(st.integers(0, 2**50))
def test_what_is_short_names_a_fix(free: int) -> None:
    check = checks.judge_disk(free)
    assert (check.level is Level.OK) == (free >= checks.ENOUGH_FREE_BYTES)
    assert (check.level is Level.FAILED) == (free < checks.LEAST_FREE_BYTES)
    assert (check.fix is None) == (check.level is Level.OK)


@given(st.integers(0, 0o177777), st.integers(0, 5), st.integers(0, 5))
def test_a_folder_that_others_enter_is_never_fine(mode: int, owner: int, user: int) -> None:
    check = checks.judge_folder(ROOT, mode, owner, user)
    private = stat.S_ISDIR(mode) and owner == user and not mode & 0o077
    assert (check.level is Level.OK) == private
    assert check.fix is not None or check.level is Level.OK


def test_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    check = checks.data_folder(settings(tmp_path / "a" / "b"))
    assert check.level is Level.OK
    (tmp_path / "file").write_text("")
    assert checks.data_folder(settings(tmp_path / "file")).level is Level.FAILED
    assert checks.data_folder(settings(tmp_path / "file" / "below")).level is Level.FAILED


def test_a_port_that_is_taken_names_who(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        check = checks.port(settings(tmp_path, number))
    assert check.level is Level.FAILED
    assert "pid" in check.found
    assert f"--port {number + 1}" in (check.fix or "")
    assert checks.port(settings(tmp_path, number)).level is Level.OK


def test_a_port_that_kingpost_has_is_fine(tmp_path: Path) -> None:
    with rest_server() as server:
        server.on("GET", "/healthz", {"status": "ok", "control": "connected", "notices": []})
        check = checks.port(settings(tmp_path, server.port))
    assert check.level is Level.OK
    assert "already" in check.found


def test_every_check_looks_at_this_machine(tmp_path: Path) -> None:
    found = checks.examine(settings(tmp_path))
    names = [check.name for check in found]
    assert len(set(names)) == len(names) == 10
    assert {"sandbox", "uv", "gpus", "api.localhost"} <= set(names)
    assert all(check.found for check in found)
    assert all(check.fix for check in found if check.level is Level.FAILED)


@pytest.mark.parametrize("level", [Level.OK, Level.WARNING, Level.FAILED])
def test_doctor_exits_with_1_only_for_what_is_required(
    level: Level, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    from kingpost.cli.failure import run
    from kingpost.cli.root import root

    check = checks.Check("disk", level, "seen", "do this")
    monkeypatch.setattr(checks, "examine", lambda _: [check])
    code = run(root, ["doctor", "--json", "--data-dir", str(tmp_path)])
    assert code == (level is Level.FAILED)
    assert json.loads(capsys.readouterr().out)["checks"][0]["fix"] == "do this"
    run(root, ["doctor", "--data-dir", str(tmp_path)])
    assert "do this" in capsys.readouterr().out
