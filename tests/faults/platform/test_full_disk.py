"""The data folder's disk is full: clear errors, nothing half made, and models answer throughout."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.load import Load
from tests.support.platform import RunningPlatform, platform, wait_until

SERVER = """
import http.server, json

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer()

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.answer()

    def answer(self):
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        return

http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
"""
CONFIG = """
docker_server:
  start_command: python /app/data/server.py
  server_port: 8000
  predict_endpoint: /generate
  readiness_endpoint: /health
  liveness_endpoint: /health
base_image: {image: python:3}
resources: {cpu: 100m, memory: 256Mi}
"""
DISK_BYTES = 128 * 1024 * 1024
MIB = 1024 * 1024
COMMAND = b"python\0/app/data/server.py"


@dataclass
class Disk:
    """The data folder's, with nothing else on it."""

    root: Path

    @property
    def _filler(self) -> Path:
        return self.root / "filler"

    def fill(self, left_bytes: int = 0) -> None:
        """Leave no more than that."""
        with contextlib.suppress(OSError), self._filler.open("ab", buffering=0) as file:
            while (free := self.free()) > left_bytes:
                file.write(bytes(min(MIB, free - left_bytes)))

    def free(self) -> int:
        status = os.statvfs(self.root)
        return status.f_bavail * status.f_frsize

    def empty(self) -> None:
        self._filler.unlink(missing_ok=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    root = tmp_path / "data"
    root.mkdir(mode=0o700)
    options = f"size={DISK_BYTES},mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(root)], check=True)
    try:
        yield Disk(root)
    finally:
        subprocess.run(["umount", "--lazy", str(root)], check=True)


@pytest.fixture
def running(disk: Disk) -> Iterator[RunningPlatform]:
    with platform(disk.root) as started:
        yield started
        disk.empty()


def truss(folder: Path, name: str, payload_bytes: int = 0) -> Path:
    (folder / "data").mkdir(parents=True)
    (folder / "config.yaml").write_text(f"model_name: {name}\n{CONFIG}")
    (folder / "data/server.py").write_text(SERVER)
    if payload_bytes:
        (folder / "data/payload").write_bytes(os.urandom(payload_bytes))
    return folder


def push(running: RunningPlatform, folder: Path) -> dict[str, Any]:
    done = running.cli("push", str(folder), "--json")
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def settled(running: RunningPlatform, said: dict[str, Any]) -> dict[str, Any]:
    path = f"/v1/models/{said['model_id']}/deployments/{said['deployment_id']}"

    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = running.get(path).json()
        return None if found["status"] in {"BUILDING", "DEPLOYING", "LOADING_MODEL"} else found

    found: dict[str, Any] = wait_until(look, 120, running.output)
    return found


def log_of(running: RunningPlatform, said: dict[str, Any]) -> str:
    path = f"/v1/models/{said['model_id']}/deployments/{said['deployment_id']}/logs"
    return "\n".join(line["message"] for line in running.get(path).json()["logs"])


def names(running: RunningPlatform) -> list[str]:
    return sorted(model["name"] for model in running.get("/v1/models").json()["models"])


def test_a_push_to_a_full_disk(disk: Disk, running: RunningPlatform, tmp_path: Path) -> None:
    steady = push(running, truss(tmp_path / "steady", "steady"))
    assert settled(running, steady)["status"] == "ACTIVE", log_of(running, steady)
    control = running.pid_of("control")
    path = f"/model/{steady['model_id']}/production/predict"
    with Load(running.address + path, running.headers, {}, workers=1) as load:
        wait_until(lambda: load.good > 20)
        disk.fill()
        refused = running.cli("push", str(truss(tmp_path / "large", "large", 2 * MIB)), "--json")
        assert refused.returncode != 0, refused.stdout
        assert "full" in json.loads(refused.stderr)["message"]
        for text in (refused.stderr, refused.stdout):
            assert "Traceback" not in text
            assert str(disk.root) not in text
        assert names(running) == ["steady"]
        assert running.pid_of("control") == control
        before = load.good
        wait_until(lambda: load.good > before + 20)
        disk.empty()
        large = push(running, tmp_path / "large")
        assert settled(running, large)["status"] == "ACTIVE", log_of(running, large)
    assert set(load.stop()) == {"200"}
    assert running.pid_of("control") == control


def test_what_dies_while_the_disk_is_full_comes_back(
    disk: Disk, running: RunningPlatform, tmp_path: Path
) -> None:
    said = push(running, truss(tmp_path / "steady", "steady"))
    assert settled(running, said)["status"] == "ACTIVE", log_of(running, said)
    path = f"/model/{said['model_id']}/production/predict"
    disk.fill()
    control, (replica,) = running.pid_of("control"), servers(running)
    os.kill(control, signal.SIGKILL)
    assert running.post(path, json={}).status_code == 200
    os.kill(replica, signal.SIGKILL)
    wait_until(lambda: replica not in servers(running))
    disk.empty()
    wait_until(lambda: running.post(path, json={}).status_code == 200, 60, running.output)
    wait_until(lambda: names(running) == ["steady"], 60, running.output)
    assert len(servers(running)) == 1
    assert running.pid_of("control") != control


def servers(running: RunningPlatform) -> list[int]:
    """Pids of the models' own processes."""
    replicas = {path.name for path in (running.data / "replicas").iterdir()}
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "cmdline").read_bytes().startswith(COMMAND):
                words = (entry / "environ").read_bytes().decode(errors="replace").split("\0")
                if any(word.partition("KINGPOST_REPLICA_ID=")[2] in replicas for word in words):
                    found.append(int(entry.name))
    return found


@pytest.mark.parametrize("left_mib", [6, 13])
def test_a_build_on_a_disk_with_too_little_room(
    disk: Disk, running: RunningPlatform, tmp_path: Path, left_mib: int
) -> None:
    disk.fill(left_bytes=left_mib * MIB)
    said = push(running, truss(tmp_path / "large", "large", 4 * MIB))
    assert_failed_for_space(disk, running, said)


def test_a_disk_that_fills_up_during_a_build(
    disk: Disk, running: RunningPlatform, tmp_path: Path
) -> None:
    folder = truss(tmp_path / "large", "large", 20 * MIB)
    with ThreadPoolExecutor() as pool:
        filled = pool.submit(fill_when_building, disk)
        said = push(running, folder)
        filled.result()
    assert_failed_for_space(disk, running, said)


def fill_when_building(disk: Disk) -> None:
    wait_until(lambda: list(disk.root.glob("cache/builds/*")))
    disk.fill()


def assert_failed_for_space(disk: Disk, running: RunningPlatform, said: dict[str, Any]) -> None:
    """BUILD_FAILED in words, nothing left of it; once there is room a retry is ACTIVE."""
    assert settled(running, said)["status"] == "BUILD_FAILED"
    log = log_of(running, said)
    assert "disk" in log
    assert "Free space" in log
    assert "Traceback" not in log
    assert str(disk.root) not in log
    assert list((disk.root / "cache/builds").iterdir()) == []
    assert list(disk.root.glob("*/*.new-*")) == []
    disk.empty()
    deployment = f"/v1/models/{said['model_id']}/deployments/{said['deployment_id']}"
    assert running.post(f"{deployment}/retry").status_code == 200
    assert settled(running, said)["status"] == "ACTIVE", log_of(running, said)
