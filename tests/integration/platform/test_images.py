"""A Truss whose server comes with an image, on a platform that runs none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.platform import RunningPlatform, wait_until

PROGRAM = """#!/usr/bin/python3
import http.server, json

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer()

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.answer()

    def answer(self):
        body = json.dumps({"from": "the mapped folder", "path": self.path}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
"""
CONFIG = """
model_name: comes-with-an-image
base_image:
  image: example/server:v1
docker_server:
  start_command: example-server
  server_port: 8000
  predict_endpoint: /generate
  readiness_endpoint: /health
  liveness_endpoint: /health
resources: {cpu: 100m, memory: 256Mi}
"""


def pushed(platform: RunningPlatform, folder: Path) -> tuple[dict[str, Any], str]:
    """A push, waited for: its ids and its status."""
    done = platform.cli("push", str(folder), "--json")
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    path = f"/v1/models/{said['model_id']}/deployments/{said['deployment_id']}"

    def settled() -> str | None:
        status = str(platform.get(path).json()["status"])
        return None if status in {"BUILDING", "DEPLOYING", "LOADING_MODEL"} else status

    return said, wait_until(settled, 180, platform.output)


def log_of(platform: RunningPlatform, said: dict[str, Any]) -> str:
    path = f"/v1/models/{said['model_id']}/deployments/{said['deployment_id']}/logs"
    return "\n".join(line["message"] for line in platform.get(path).json()["logs"])


def test_a_mapped_folder_makes_it_run(shared_platform: RunningPlatform, tmp_path: Path) -> None:
    truss = tmp_path / "truss"
    truss.mkdir()
    (truss / "config.yaml").write_text(CONFIG)
    said, status = pushed(shared_platform, truss)
    assert status == "BUILD_FAILED"
    log = log_of(shared_platform, said)
    assert "example-server" in log
    assert "kingpost images map" in log

    program = tmp_path / "installed/bin/example-server"
    program.parent.mkdir(parents=True)
    program.write_text(PROGRAM)
    program.chmod(0o755)
    data = ("--data-dir", str(shared_platform.data))
    mapped = shared_platform.cli(
        "images", "map", "example/server:v1", str(tmp_path / "installed"), *data
    )
    assert mapped.returncode == 0, mapped.stderr
    try:
        said, status = pushed(shared_platform, truss)
        assert status == "ACTIVE", log_of(shared_platform, said)
        answer = shared_platform.post(f"/model/{said['model_id']}/production/predict", json={})
        assert answer.json() == {"from": "the mapped folder", "path": "/generate"}
    finally:
        assert shared_platform.cli("images", "unmap", "example/server:v1", *data).returncode == 0
    listed = shared_platform.cli("images", "list", "--json", *data)
    assert json.loads(listed.stdout) == []
