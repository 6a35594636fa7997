"""Logging in, choosing a remote, and that a key is never seen."""

import io
import json
import stat
from pathlib import Path

import pytest

from tests.support.restserver import Answer, RestServer

KEY = "abcd.efgh-secret"


@pytest.fixture(autouse=True)
def _no_chosen_remote(server: RestServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KINGPOST_REMOTE")
    monkeypatch.delenv("KINGPOST_API_KEY")
    server.on("GET", "/v1/models", {"models": []})


def give(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def test_login_keeps_the_key_for_its_owner_alone(
    kingpost, server: RestServer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(monkeypatch, KEY + "\n")
    ran = kingpost("login", "work", "--url", server.url, "--api-key-stdin")
    assert ran.exit_code == 0, ran.err
    file = home / "config" / "kingpost" / "remotes.toml"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert KEY not in ran.out + ran.err
    assert server.requests[0].headers["authorization"] == f"Api-Key {KEY}"
    listed = kingpost("remotes", "--json")
    assert KEY not in listed.out
    assert json.loads(listed.out)[0] == {
        "name": "work",
        "url": server.url,
        "default": True,
        "has_key": True,
    }
    models = kingpost("models", "--json")
    assert json.loads(models.out) == []
    assert server.requests[-1].headers["authorization"] == f"Api-Key {KEY}"


def test_a_key_that_is_refused_is_not_kept(
    kingpost, server: RestServer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = Answer(401, {"code": "UNAUTHORIZED", "message": "No such key."})
    server.on("GET", "/v1/models", refused)
    give(monkeypatch, KEY)
    ran = kingpost("login", "work", "--url", server.url, "--api-key-stdin")
    assert ran.exit_code == 1
    assert "No such key." in ran.err
    assert not (home / "config" / "kingpost" / "remotes.toml").exists()


def test_a_key_is_not_kept_for_an_open_network_without_consent(
    kingpost, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("login", "gpu", "--url", "http://192.0.2.1:8000", "--api-key-stdin", "--no-check")
    give(monkeypatch, KEY)
    ran = kingpost(*arguments)
    assert ran.exit_code == 1
    assert "--insecure" in ran.err
    assert KEY not in ran.err
    give(monkeypatch, KEY)
    assert kingpost(*arguments, "--insecure").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["login", "work"], "Where is work?"),
        (["login", "--url", "https://h"], "Give the remote a name"),
        (["login", "a b", "--url", "https://h"], "can't name a remote"),
        (["login", "x", "--url", "nonsense"], "is not an address"),
    ],
)
def test_what_login_needs(
    kingpost, arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(monkeypatch, KEY)
    ran = kingpost(*arguments)
    assert ran.exit_code in {1, 2}
    assert said in ran.err


def test_choosing_and_forgetting_a_remote(
    kingpost, server: RestServer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        give(monkeypatch, KEY)
        kingpost("login", name, "--url", server.url, "--api-key-stdin")

    def default() -> str:
        listed = json.loads(kingpost("remotes", "--json").out)
        return next(r["name"] for r in listed if r["default"])

    assert default() == "two"
    assert kingpost("remotes", "use", "one").exit_code == 0
    assert default() == "one"
    assert kingpost("remotes", "rm", "one").exit_code == 0
    assert default() == "local"
    missed = kingpost("models", "--remote", "one")
    assert missed.exit_code == 1
    assert "known: two" in missed.err


def test_a_file_that_others_can_read_stops_every_command(
    kingpost, server: RestServer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(monkeypatch, KEY)
    kingpost("login", "work", "--url", server.url, "--api-key-stdin")
    (home / "config" / "kingpost" / "remotes.toml").chmod(0o644)
    ran = kingpost("models")
    assert ran.exit_code == 1
    assert "chmod 600" in ran.err


def test_whoami(kingpost, server: RestServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KINGPOST_API_KEY", KEY)
    server.on("GET", "/v1/users/me", {"user_id": "u1", "email": "a@b.c"})
    ran = kingpost("whoami", "--remote", server.url, "--json")
    data = json.loads(ran.out)
    assert (data["api_key_prefix"], data["email"]) == ("abcd", "a@b.c")
    assert KEY not in ran.out
