"""A home of its own for every test of the command line, and a scripted server."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kingpost.cli.failure import run
from kingpost.cli.root import root
from tests.support.restserver import RestServer, rest_server


@dataclass(frozen=True)
class Ran:
    exit_code: int
    out: str
    err: str


Kingpost = Callable[..., Ran]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("KINGPOST_REMOTE", "KINGPOST_API_KEY", "BASETEN_API_KEY", "KINGPOST_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("KINGPOST_DEBUG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path


@pytest.fixture
def server(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RestServer]:
    with rest_server() as server:
        monkeypatch.setenv("KINGPOST_REMOTE", server.url)
        monkeypatch.setenv("KINGPOST_API_KEY", "abcd.secret")
        yield server


@pytest.fixture
def kingpost(home: Path, capfd: pytest.CaptureFixture[str]) -> Kingpost:
    """Runs the command as `main` does and returns what it left."""

    def call(*arguments: str) -> Ran:
        capfd.readouterr()
        code = run(root, arguments)
        out, err = capfd.readouterr()
        return Ran(code, out, err)

    return call
