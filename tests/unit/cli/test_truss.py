"""`kingpost truss`: what its child sees, and that a key can go to one platform only.

The child here is a small program in the place of the truss CLI; the real one is in tests/clients.
"""

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kingpost.cli import relay
from kingpost.cli.truss import child_environment, trussrc
from kingpost.client import remotes
from kingpost.client.remote import Remote
from tests.support.certificates import server_context
from tests.support.restserver import Answer, RestServer, rest_server

KEY = "abcd.efgh%secret"
CHILD = """\
import configparser, json, os, sys, urllib.error, urllib.request

def ask(url):
    rc = configparser.ConfigParser()
    rc.read(os.environ["USER_TRUSSRC_PATH"])
    key = rc[rc.sections()[0]]["api_key"]
    request = urllib.request.Request(url, headers={"Authorization": "Api-Key " + key})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return [answer.status, answer.read().decode()]
    except urllib.error.HTTPError as error:
        return [error.code, error.read().decode()]
    except OSError as error:
        return [0, str(error)]

rc = os.environ["USER_TRUSSRC_PATH"]
print(json.dumps({
    "argv": open("/proc/self/cmdline").read().split("\\0"),
    "environ": dict(os.environ),
    "mode": os.stat(rc).st_mode & 0o777,
    "trussrc": rc,
    "asked": {url: ask(url) for url in sys.argv[1:] if "://" in url},
}))
sys.exit(7)
"""


@pytest.fixture(autouse=True)
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "child"
    path.write_text(f"#!{sys.executable}\n{CHILD}")
    path.chmod(0o755)
    monkeypatch.setenv("KINGPOST_TRUSS", str(path))
    return path


def log_in(server: RestServer, home: Path, ca_file: Path | None = None) -> None:
    path = remotes.remotes_path(os.environ)
    with remotes.editing(path) as file:
        remote = Remote("work", server.url, KEY, ca_file=str(ca_file) if ca_file else None)
        file.save(file.remotes.put(remote, make_default=True))


def test_the_child_reaches_the_platform_and_nothing_else(
    kingpost, server: RestServer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KINGPOST_REMOTE")
    monkeypatch.setenv("BASETEN_API_KEY", "baseten.key")
    monkeypatch.setenv("NO_PROXY", "*")
    log_in(server, home)
    server.on("GET", "/v1/models", Answer(200, {"models": []}))
    ran = kingpost(
        "truss", "push", "http://api.localhost:8000/v1/models", "https://api.baseten.co/"
    )
    assert ran.exit_code == 7, ran.err
    seen = json.loads(ran.out)
    assert seen["asked"]["http://api.localhost:8000/v1/models"][0] == 200
    assert "403" in seen["asked"]["https://api.baseten.co/"][1]
    assert [r.headers["host"] for r in server.requests] == ["api.localhost:8000"]
    assert server.requests[0].headers["authorization"] == f"Api-Key {KEY}"
    assert seen["mode"] == stat.S_IRUSR | stat.S_IWUSR
    assert not Path(seen["trussrc"]).exists()
    assert not Path(seen["trussrc"]).parent.exists()
    assert KEY not in json.dumps([seen["argv"], seen["environ"]])
    assert "baseten.key" not in seen["environ"].values()


def test_over_tls_too(kingpost, home: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("KINGPOST_REMOTE", raising=False)
    context, certificate = server_context(tmp_path)
    with rest_server(context) as server:
        log_in(server, home, certificate)
        server.on("GET", "/v1/models", Answer(200, {"models": []}))
        ran = kingpost(
            *("truss", "x", "http://localhost:8000/v1/models", "http://other.example/steal"),
            "https://api.baseten.co/",
        )
        seen = json.loads(ran.out)["asked"]
        assert seen["http://localhost:8000/v1/models"][0] == 200
        assert seen["http://other.example/steal"][0] == 421
        assert "403" in seen["https://api.baseten.co/"][1]
        assert len(server.requests) == 1


def test_an_unreachable_platform_is_a_clear_answer(
    kingpost, home: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.delenv("KINGPOST_REMOTE", raising=False)
    context, certificate = server_context(tmp_path)
    with rest_server(context) as server:
        log_in(server, home, certificate)
    ran = kingpost("truss", "x", "http://localhost:8000/v1/models")
    status, text = json.loads(ran.out)["asked"]["http://localhost:8000/v1/models"]
    assert status == 502
    assert "can't be reached" in text


def test_a_signal_reaches_the_child(server: RestServer, home: Path, child: Path) -> None:
    log_in(server, home)
    child.write_text(
        f"#!{sys.executable}\nimport signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(42))\n"
        "print('ready', flush=True)\ntime.sleep(60)\n"
    )
    started = subprocess.Popen(
        [sys.executable, "-m", "kingpost", "truss", "watch"], stdout=subprocess.PIPE, text=True
    )
    assert started.stdout is not None
    with started.stdout:
        assert started.stdout.readline() == "ready\n"
        started.send_signal(signal.SIGTERM)
        assert started.wait(timeout=20) == 42


def test_a_killed_child_is_told_as_shells_do(server: RestServer, home: Path, child: Path, kingpost):
    log_in(server, home)
    child.write_text(f"#!{sys.executable}\nimport os\nos.kill(os.getpid(), 9)\n")
    assert kingpost("truss").exit_code == 128 + signal.SIGKILL


def test_a_remote_that_would_send_the_key_in_clear_is_refused(kingpost, monkeypatch) -> None:
    monkeypatch.setenv("KINGPOST_API_KEY", KEY)
    ran = kingpost("truss", "--remote", "http://192.0.2.1:8000", "whoami")
    assert ran.exit_code == 1
    assert "not encrypted" in ran.err


def test_against_baseten_itself_nothing_is_redirected(tmp_path: Path) -> None:
    remote = Remote("baseten", "https://api.baseten.co", "b.key")
    assert trussrc(remote)["baseten"]["remote_url"] == "https://app.baseten.co"
    ours = {"HTTPS_PROXY": "http://corporate:3128", "KINGPOST_API_KEY": "k", "PATH": "/bin"}
    child = child_environment(ours, tmp_path, None)
    assert child["HTTPS_PROXY"] == "http://corporate:3128"
    assert "KINGPOST_API_KEY" not in child


@given(st.dictionaries(st.text(), st.text()))
def test_no_way_around_the_doors(ours: dict[str, str]) -> None:
    doors = relay.Doors("http://127.0.0.1:1", "http://127.0.0.1:2")
    given_env = {**ours, "No_Proxy": "x", "HTTPS_PROXY": "x", "BASETEN_TRUSS_AUTH_API_KEY": "x"}
    child = child_environment(given_env, Path("/t"), doors)
    ways = {value for name, value in child.items() if name.lower().endswith("_proxy")}
    assert {doors.plain, doors.closed} <= ways
    assert child["http_proxy"] == doors.plain
    assert child["https_proxy"] == child["ALL_PROXY"] == doors.closed
    assert not any(name.lower() == "no_proxy" for name in child)
    assert "BASETEN_TRUSS_AUTH_API_KEY" not in child


@given(st.binary(max_size=200))
def test_any_head_names_a_host_or_none(head: bytes) -> None:
    host = relay.proxied_host(head)
    assert host is None or isinstance(host, bytes)


@pytest.mark.parametrize(
    ("head", "own"),
    [
        (b"GET http://localhost:8000/ HTTP/1.1\r\n\r\n", True),
        (b"GET http://API.localhost:8000/v1 HTTP/1.1\r\n\r\n", True),
        (b"GET http://model-x.api.localhost/predict HTTP/1.1\r\n\r\n", True),
        (b"GET http://evil-localhost/ HTTP/1.1\r\n\r\n", False),
        (b"GET http://localhost.evil/ HTTP/1.1\r\n\r\n", False),
        (b"GET http://localhost@evil/ HTTP/1.1\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", False),
        (b"CONNECT localhost:443 HTTP/1.1\r\n\r\n", False),
    ],
)
def test_whose_host_it_is(head: bytes, own: bool) -> None:
    host = relay.proxied_host(head)
    assert (host is not None and relay.is_own_host(host)) is own


def test_the_doors_close_with_the_block() -> None:
    remote = Remote("work", "http://127.0.0.1:9", KEY)
    with relay.open_doors(remote, None) as doors:
        port = int(doors.closed.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as asked:
            asked.sendall(b"CONNECT api.baseten.co:443 HTTP/1.1\r\n\r\n")
            assert asked.recv(100).startswith(b"HTTP/1.1 403 ")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            continue
        break
    else:
        pytest.fail("the door is still open")
