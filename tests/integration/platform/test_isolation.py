"""What a model can't reach or read, tried from inside its own predict."""

from __future__ import annotations

import http.server
import json
import socket
import subprocess
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.platform import RunningPlatform
from tests.support.trusses import write_truss

PROBE = """
    import os
    import socket


    class Model:
        def predict(self, model_input):
            found = {"os": os, "socket": socket, "result": None}
            try:
                exec(model_input["code"], found)
            except OSError as error:
                return {"refused": f"{type(error).__name__}: {error}"}
            return {"result": found["result"]}
"""
SERVER = """
import http.server, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(b"")

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.answer(sys.argv[1].encode())

    def answer(self, body):
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
"""


@dataclass(frozen=True)
class Inside:
    """A model that runs what it is told to."""

    platform: RunningPlatform
    model: str
    deployment: str

    def run(self, code: str) -> dict[str, Any]:
        """`{"result": ...}`, or `{"refused": ...}` for what the system refused."""
        path = f"/model/{self.model}/production/predict"
        answer = self.platform.post(path, json={"code": textwrap.dedent(code)})
        assert answer.status_code == 200, answer.text
        said: dict[str, Any] = answer.json()
        return said

    def reaches(self, host: str, port: int) -> bool:
        said = self.run(f"socket.create_connection(({host!r}, {port}), timeout=2); result = True")
        return bool(said.get("result"))

    def replica(self) -> dict[str, Any]:
        """What the engine recorded of its only replica."""
        records = [
            json.loads(file.read_text()) for file in self.platform.data.glob("replicas/*/spec.json")
        ]
        (found,) = [r for r in records if r["spec"]["deployment_id"] == self.deployment]
        return dict(found)


def pushed(platform: RunningPlatform, folder: Path) -> Inside:
    done = platform.cli("push", str(folder), "--wait", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    return Inside(platform, said["model_id"], said["deployment_id"])


@pytest.fixture(scope="module")
def inside(shared_platform: RunningPlatform, tmp_path_factory: pytest.TempPathFactory) -> Inside:
    folder = write_truss(tmp_path_factory.mktemp("probe"), "probe", code=PROBE)
    return pushed(shared_platform, folder)


@pytest.fixture(scope="module")
def other(shared_platform: RunningPlatform, tmp_path_factory: pytest.TempPathFactory) -> Inside:
    folder = write_truss(
        tmp_path_factory.mktemp("other"),
        "other",
        code=PROBE,
        files={"data/private.txt": "of the other"},
    )
    return pushed(shared_platform, folder)


@pytest.fixture
def host_port() -> Iterator[int]:
    """A server on every address of the host."""
    server = http.server.ThreadingHTTPServer(("0.0.0.0", 0), http.server.SimpleHTTPRequestHandler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def host_addresses(inside: Inside) -> list[str]:
    """All of the host's own, and its end of the replica's network."""
    told = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True)
    head, _, last = inside.replica()["address"]["host"].rpartition(".")
    return [
        "127.0.0.1",
        f"{head}.{int(last) - 1}",
        *(a for a in told.stdout.split() if ":" not in a),
    ]


def test_it_reaches_no_port_of_the_host(inside: Inside, host_port: int) -> None:
    for port in (inside.platform.port, host_port):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        reached = [a for a in host_addresses(inside) if inside.reaches(a, port)]
        assert reached == []
    assert inside.reaches("127.0.0.1", inside.replica()["address"]["port"]), "its own is there"


def test_it_reaches_no_socket_of_the_platform(inside: Inside) -> None:
    sockets = [p for p in (inside.platform.data / "run").iterdir() if p.is_socket()]
    assert {"control.sock", "gateway.sock"} <= {path.name for path in sockets}
    for path in sockets:
        said = inside.run(
            f"""
            with socket.socket(socket.AF_UNIX) as made:
                made.connect({str(path)!r})
            result = True
            """
        )
        assert "refused" in said, path


def test_it_reaches_no_other_replica(inside: Inside, other: Inside) -> None:
    for one, two in ((inside, other), (other, inside)):
        address = two.replica()["address"]
        socket.create_connection((address["host"], address["port"]), timeout=5).close()
        assert not one.reaches(address["host"], address["port"])


def test_it_sees_nothing_of_the_data_folder(inside: Inside, other: Inside) -> None:
    data = inside.platform.data
    spec = inside.replica()["spec"]
    named = [bind["source"] for bind in spec["binds"]]
    code = f"""
    def within(path, folder):
        return path == folder or path.startswith(folder + "/")

    result = []
    for base, folders, files in os.walk({str(data)!r}):
        if any(within(base, own) for own in {named!r}):
            continue
        result += [base + "/" + name for name in files]
        if not any(within(own, base) for own in {named!r}):
            result.append(base)
    """
    assert inside.run(code) == {"result": []}
    private = next(data.glob("bundles/*/app/data/private.txt"))
    secret_files = [data / "admin.key", data / "secret.key", data / "kingpost.sqlite3", private]
    for path in [*secret_files, Path("/etc/shadow")]:
        assert path.exists()
        said = inside.run(f"result = open({str(path)!r}, 'rb').read(1).decode('latin-1')")
        assert "FileNotFoundError" in said["refused"], path
    assert other.run("result = open('/app/data/private.txt').read()") == {"result": "of the other"}


def test_it_can_not_change_what_it_shares(inside: Inside) -> None:
    import_path = "import sys; path = next(p for p in sys.path if p.endswith('site-packages'))"
    said = inside.run(f"{import_path}; open(path + '/evil.py', 'w')")
    assert "Read-only" in said["refused"]
    assert "result" in inside.run("open('/app/model/model.py', 'a').write('# changed by itself')")
    assert "# changed" in inside.run("result = open('/app/model/model.py').read()")["result"]
    codes = list(inside.platform.data.glob("bundles/*/app/model/model.py"))
    assert codes
    assert [path for path in codes if "# changed" in path.read_text()] == []


def test_it_sees_only_its_own_processes(inside: Inside) -> None:
    names = inside.run(
        """
        result = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                result.append(open(f"/proc/{entry}/cmdline").read())
        """
    )["result"]
    assert names
    assert not [name for name in names if "kingpost.control" in name or "kingpost.gateway" in name]


def test_three_replicas_listen_on_the_same_port(
    shared_platform: RunningPlatform, tmp_path: Path
) -> None:
    names = ("first", "second", "third")

    def serve(name: str) -> Inside:
        folder = tmp_path / name
        (folder / "data").mkdir(parents=True)
        (folder / "data/server.py").write_text(SERVER)
        config = {
            "model_name": f"port-8000-{name}",
            "base_image": {"image": "python:3"},
            "docker_server": {
                "start_command": f"python /app/data/server.py {name}",
                "server_port": 8000,
                "predict_endpoint": "/",
                "readiness_endpoint": "/",
                "liveness_endpoint": "/",
            },
            "resources": {"cpu": "100m", "memory": "256Mi"},
        }
        (folder / "config.yaml").write_text(json.dumps(config))
        return pushed(shared_platform, folder)

    with ThreadPoolExecutor() as pool:
        served = list(pool.map(serve, names))
    assert {one.replica()["address"]["port"] for one in served} == {8000}
    assert len({one.replica()["address"]["host"] for one in served}) == 3
    for name, one in zip(names, served, strict=True):
        path = f"/model/{one.model}/production/predict"
        assert shared_platform.post(path, json={}).text == name
