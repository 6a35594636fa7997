"""GPUs that are absent are said to be, or emulated and said so; weights come from a hub, once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.hub import Hub, hub
from tests.support.platform import RunningPlatform, platform, wait_until
from tests.support.trusses import write_truss

ROOT = Path(__file__).resolve().parents[3]
REPO = "kingpost/tiny-chat"
READER = """
    import os
    from pathlib import Path


    class Model:
        def predict(self, model_input):
            folder = Path("/models/tiny")
            try:
                (folder / "mine").write_text("x")
                writable = True
            except OSError:
                writable = False
            return {
                "files": {p.name: p.stat().st_size for p in folder.rglob("*") if p.is_file()},
                "writable": writable,
                "cuda": os.environ.get("CUDA_VISIBLE_DEVICES"),
            }
"""


@pytest.fixture(scope="module")
def weights_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """Serves the checkpoint of examples/tiny-chat, to those who have the token."""
    root = tmp_path_factory.mktemp("hub")
    shutil.copytree(ROOT / "examples" / "tiny-chat" / "hf", root / REPO)
    with hub(root) as running:
        running.token = "hf-token-of-the-test"
        yield running


@pytest.fixture(scope="module")
def emulating(
    weights_hub: Hub, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningPlatform]:
    """A platform that emulates accelerators and finds the hub on loopback."""
    with platform(
        tmp_path_factory.mktemp("emulating") / "data",
        "--emulate-accelerators",
        environment={"HF_ENDPOINT": weights_hub.url},
    ) as running:
        yield running


def push(running: RunningPlatform, folder: Path, *flags: str) -> dict[str, Any]:
    done = running.cli("push", str(folder), "--json", *flags)
    said: dict[str, Any] = json.loads(done.stdout) if done.stdout else {"error": done.stderr}
    return said


def deployment(running: RunningPlatform, said: dict[str, Any]) -> dict[str, Any]:
    path = f"/v1/models/{said['model_id']}/deployments/{said['deployment_id']}"
    found: dict[str, Any] = running.get(path).json()
    return found


def test_an_absent_accelerator_is_named(shared_platform: RunningPlatform, tmp_path: Path) -> None:
    folder = write_truss(tmp_path, "wants-h100", resources={"accelerator": "H100:2"})
    said = push(shared_platform, folder)
    found = wait_until(
        lambda: (d := deployment(shared_platform, said))["status"] == "DEPLOY_FAILED" and d, 120
    )
    assert "2 x H100" in found["status_reason"]
    assert "--emulate-accelerators" in found["status_reason"]
    assert found["instance_type_name"].startswith("H100:2")


def test_an_emulated_accelerator_is_said_to_be(emulating: RunningPlatform, tmp_path: Path) -> None:
    code = """
        import os


        class Model:
            def predict(self, model_input):
                return os.environ.get("CUDA_VISIBLE_DEVICES")
    """
    folder = write_truss(tmp_path, "emulated", code=code, resources={"accelerator": "L4"})
    said = push(emulating, folder, "--wait")
    found = deployment(emulating, said)
    assert found["status"] == "ACTIVE"
    assert "emulated" in found["status_reason"]
    assert found["instance_type_name"].endswith("(emulated)")
    answer = emulating.post(f"/model/{said['model_id']}/production/predict", json={})
    assert answer.json() in ("", None)
    assert "emulated" in emulating.cli("logs", "emulated").stdout


def test_weights_are_fetched_once_with_the_teams_secret_and_mounted_read_only(
    emulating: RunningPlatform, weights_hub: Hub, tmp_path: Path
) -> None:
    weights = [
        {
            "source": f"hf://{REPO}@main",
            "mount_location": "/models/tiny",
            "auth_secret_name": "hf_access_token",
            "ignore_patterns": ["*.md"],
        }
    ]
    folder = write_truss(tmp_path / "one", "weighty", code=READER, weights=weights)
    refused = push(emulating, folder)
    found = wait_until(
        lambda: (d := deployment(emulating, refused))["status"] == "BUILD_FAILED" and d, 120
    )
    assert "hf_access_token" in found["status_reason"]

    secret = {"name": "hf_access_token", "value": weights_hub.token}
    assert emulating.post("/v1/secrets", json=secret).status_code == 200
    said = push(emulating, folder, "--wait", "--promote")
    assert deployment(emulating, said)["status"] == "ACTIVE"
    seen = emulating.post(f"/model/{said['model_id']}/production/predict", json={}).json()
    expected = {p.name: p.stat().st_size for p in (weights_hub.root / REPO).iterdir()}
    assert seen["files"] == expected
    assert seen["writable"] is False

    fetched = len(weights_hub.fetched())
    other = write_truss(tmp_path / "two", "weighty-too", code=READER, weights=weights)
    again = push(emulating, other, "--wait")
    assert deployment(emulating, again)["status"] == "ACTIVE"
    assert len(weights_hub.fetched()) == fetched
    assert weights_hub.token not in emulating.output()
    assert weights_hub.token not in emulating.cli("logs", "weighty").stdout
