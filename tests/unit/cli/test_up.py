"""What `kingpost up` refuses, and the settings that it hands to the supervisor."""

from pathlib import Path

import pytest

from kingpost.settings import SandboxMode, Settings
from kingpost.supervisor import up
from kingpost.supervisor.up import Options


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Settings, Options]]:
    """What the supervisor was started with, in place of a platform."""
    calls: list[tuple[Settings, Options]] = []

    def run(settings: Settings, options: Options) -> int:
        calls.append((settings, options))
        return 0

    monkeypatch.setattr(up, "run", run)
    return calls


def test_the_defaults(kingpost, home: Path, started) -> None:
    assert kingpost("up").exit_code == 0
    settings, options = started[0]
    assert (settings.host, settings.port, settings.sandbox) == ("127.0.0.1", 8000, SandboxMode.AUTO)
    assert settings.data.root == home / "data" / "kingpost"
    assert options == Options()


def test_the_data_folder_from_the_environment(kingpost, home: Path, started, monkeypatch) -> None:
    monkeypatch.setenv("KINGPOST_DATA_DIR", str(home / "elsewhere"))
    kingpost("up")
    monkeypatch.chdir(home)
    kingpost("up", "--data-dir", "here")
    assert [s.data.root for s, _ in started] == [home / "elsewhere", home / "here"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "gpu-box"])
def test_another_host_needs_tls_or_a_word(kingpost, started, host: str) -> None:
    ran = kingpost("up", "--host", host)
    assert ran.exit_code == 1
    assert "--tls-cert" in ran.err
    assert "--insecure" in ran.err
    assert started == []
    assert kingpost("up", "--host", host, "--insecure").exit_code == 0
    assert started[0][0].sandbox is SandboxMode.REQUIRE
    assert kingpost("up", "--host", host, "--insecure", "--sandbox", "off").exit_code == 0
    assert started[1][0].sandbox is SandboxMode.OFF


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_loopback_needs_neither(kingpost, started, host: str) -> None:
    assert kingpost("up", "--host", host, "--port", "8123").exit_code == 0
    assert started[0][0].port == 8123


def test_tls_takes_both_files(kingpost, started, tmp_path: Path) -> None:
    (tmp_path / "c").write_text("")
    assert kingpost("up", "--tls-cert", str(tmp_path / "c")).exit_code == 1
    assert kingpost("up", "--tls-cert", str(tmp_path / "none")).exit_code == 2
    assert started == []


def test_the_exit_code_is_the_supervisors(kingpost, home: Path, monkeypatch) -> None:
    monkeypatch.setattr(up, "run", lambda *_: 1)
    assert kingpost("up").exit_code == 1
