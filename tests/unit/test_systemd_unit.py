"""The unit of the documents: valid to systemd, true to `kingpost up`, sparing replicas."""

from __future__ import annotations

import configparser
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from kingpost.cli.up import up
from kingpost.supervisor.up import CONTROL_STOP_S, GATEWAY_DRAIN_S

UNIT = Path(__file__).resolve().parents[2] / "docs" / "kingpost.service"


def read(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(text)
    return parser


@pytest.fixture
def service() -> configparser.SectionProxy:
    return read(UNIT.read_text())["Service"]


def complaints(folder: Path, text: str) -> str:
    """What systemd says of the unit, with a program in its place that this machine has."""
    words = shlex.split(read(text)["Service"]["ExecStart"])
    folder.mkdir(exist_ok=True)
    copy = folder / UNIT.name
    copy.write_text(text.replace(words[0], sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = [line for line in done.stderr.splitlines() if UNIT.name in line]
    return "\n".join(said) or (f"exit code {done.returncode}" if done.returncode else "")


def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    text = UNIT.read_text()
    assert complaints(tmp_path / "as-it-is", text) == ""
    assert "KilMode" in complaints(tmp_path / "mistyped", text.replace("KillMode", "KilMode"))
    assert complaints(tmp_path / "no-mode", text.replace("=process", "=replicas")) != ""


def test_a_stop_reaches_the_platform_and_not_its_replicas(
    service: configparser.SectionProxy,
) -> None:
    assert service["KillMode"] == "process"
    assert "--detach-replicas" in shlex.split(service["ExecStart"])
    assert service["OOMPolicy"] == "continue"
    assert float(service["TimeoutStopSec"]) > GATEWAY_DRAIN_S + CONTROL_STOP_S


def test_it_starts_the_platform_with_options_that_there_are(
    service: configparser.SectionProxy,
) -> None:
    program, command, *words = shlex.split(service["ExecStart"])
    assert program.endswith("/bin/kingpost")
    assert command == "up"
    context = up.make_context("up", list(words))
    assert context.params["detach_replicas"] is True
    assert context.params["data_dir"] == Path("/var/lib") / service["StateDirectory"]
    assert service["Environment"] == f"KINGPOST_CACHE_DIR=/var/cache/{service['CacheDirectory']}"
    assert service["StateDirectoryMode"] == "0700"
