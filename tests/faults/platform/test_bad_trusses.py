"""Trusses that misbehave: each gets its status, and words that say what to do."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from kingpost.client.remote import Remote
from kingpost.client.upload import UploadTarget, put
from tests.support.platform import RunningPlatform, wait_until
from tests.support.trusses import write_truss

HEALTHY = """
    class Model:
        def predict(self, model_input):
            return model_input
"""
EXITS = """
    import os
    os._exit(7)
"""
RAISES = """
    class Model:
        def load(self):
            raise RuntimeError("the shelf is empty")

        def predict(self, model_input):
            return model_input
"""
SLEEPS = """
    import time


    class Model:
        def load(self):
            time.sleep(10_000)

        def predict(self, model_input):
            return model_input
"""
EATS = """
    class Model:
        def predict(self, model_input):
            hoard = []
            while True:
                hoard.append(bytearray(16 * 1024 * 1024))
"""
SHOUTS = """
    class Model:
        def load(self):
            for _ in range(100):
                print("x" * 1023 * 1024, flush=True)

        def predict(self, model_input):
            return "quiet now"
"""
FORKS = """
    import subprocess


    class Model:
        def load(self):
            self.child = subprocess.Popen(["sleep", "98765"])

        def predict(self, model_input):
            return self.child.pid
"""


def push(platform: RunningPlatform, folder: Path, *flags: str) -> dict[str, Any]:
    """Push without waiting; the answer of `--json`."""
    done = platform.cli("push", str(folder), "--json", *flags)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def settled(platform: RunningPlatform, said: dict[str, Any]) -> dict[str, Any]:
    path = f"/v1/models/{said['model_id']}/deployments/{said['deployment_id']}"

    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = platform.get(path).json()
        return None if found["status"] in {"BUILDING", "DEPLOYING", "LOADING_MODEL"} else found

    found: dict[str, Any] = wait_until(look, 180, platform.output)
    return found


def log_of(platform: RunningPlatform, said: dict[str, Any]) -> str:
    path = f"/v1/models/{said['model_id']}/deployments/{said['deployment_id']}/logs"
    lines = platform.get(path, params={"limit": 1000}).json()["logs"]
    return "\n".join(line["message"] for line in reversed(lines))


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [("bad-exit", EXITS, "exit code 7"), ("bad-load", RAISES, "the shelf is empty")],
)
def test_what_never_starts_is_deploy_failed_with_its_last_words(
    shared_platform: RunningPlatform, tmp_path: Path, name: str, code: str, words: str
) -> None:
    said = push(shared_platform, write_truss(tmp_path, name, code=code))
    assert settled(shared_platform, said)["status"] == "DEPLOY_FAILED"
    assert words in log_of(shared_platform, said)
    model = shared_platform.get(f"/v1/models/{said['model_id']}").json()
    assert model["production_deployment_id"] is None
    answer = shared_platform.post(f"/model/{said['model_id']}/production/predict", json={})
    assert answer.status_code in {404, 503}
    assert "production" in answer.text


def test_what_sleeps_for_ever_is_ended_at_its_startup_threshold(
    shared_platform: RunningPlatform, tmp_path: Path
) -> None:
    folder = write_truss(
        tmp_path,
        "bad-sleep",
        code=SLEEPS,
        runtime={"health_checks": {"startup_threshold_seconds": 10}},
    )
    said = push(shared_platform, folder)
    found = settled(shared_platform, said)
    assert found["status"] == "DEPLOY_FAILED"
    assert "startup threshold" in log_of(shared_platform, said)


def test_a_model_past_its_memory_is_named_and_restarted(
    shared_platform: RunningPlatform, tmp_path: Path
) -> None:
    said = push(shared_platform, write_truss(tmp_path, "bad-memory", code=EATS))
    assert settled(shared_platform, said)["status"] == "ACTIVE"
    path = f"/model/{said['model_id']}/production/predict"
    answer = shared_platform.post(path, json={})
    assert answer.status_code in {502, 503}
    wait_until(lambda: "out of memory" in log_of(shared_platform, said), 60)
    status = f"/v1/models/{said['model_id']}/deployments/{said['deployment_id']}"
    wait_until(lambda: shared_platform.get(status).json()["status"] == "ACTIVE", 60)


def test_a_hundred_megabytes_of_output_stay_bounded(
    shared_platform: RunningPlatform, tmp_path: Path
) -> None:
    said = push(shared_platform, write_truss(tmp_path, "bad-shout", code=SHOUTS))
    assert settled(shared_platform, said)["status"] == "ACTIVE"
    logs = shared_platform.data / "deployments" / said["deployment_id"] / "logs"
    size = sum(file.stat().st_size for file in logs.rglob("*.log"))
    assert size <= 2 * 64 * 1024 * 1024


def test_children_end_with_their_replica(shared_platform: RunningPlatform, tmp_path: Path) -> None:
    said = push(shared_platform, write_truss(tmp_path, "bad-fork", code=FORKS))
    assert settled(shared_platform, said)["status"] == "ACTIVE"
    assert _sleepers()
    path = f"/v1/models/{said['model_id']}/deployments/{said['deployment_id']}"
    assert shared_platform.post(f"{path}/deactivate").status_code == 200
    wait_until(lambda: shared_platform.get(path).json()["status"] == "INACTIVE", 60)
    assert _sleepers() == []
    gone = shared_platform.post(f"/model/{said['model_id']}/production/predict", json={})
    assert gone.status_code == 404


def _sleepers() -> list[str]:
    return _running(b"98765")


def _running(words: bytes) -> list[str]:
    """Processes with these words in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and words in (entry / "cmdline").read_bytes():
                found.append(entry.name)
        except OSError:
            continue
    return found


def upload(platform: RunningPlatform, archive: bytes, name: str) -> dict[str, Any]:
    """What a client does that sends any bytes as its archive: prepare, PUT, create."""
    config = {"model_name": name, "python_version": "py311"}
    prepared = platform.post(
        "/v1/prepare_model_upload", json={"name": name, "deployment": {"config": config}}
    ).json()
    put(
        UploadTarget.of(prepared),
        io.BytesIO(archive),
        hashlib.sha256(archive).hexdigest(),
        remote=Remote(name="test", url=platform.address, api_key=platform.key),
    )
    made = platform.post(
        "/v1/models",
        json={
            "source": {
                "kind": "model_archive",
                "name": name,
                "s3_key": prepared["s3_key"],
                "deployment": {"config": config},
            }
        },
    )
    assert made.status_code == 200, made.text
    body = made.json()
    return {"model_id": body["model"]["id"], "deployment_id": body["deployment"]["id"]}


def tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = link
    return info


CONFIG = (member("config.yaml"), b"model_name: hostile\n")


@pytest.mark.parametrize(
    ("name", "archive", "words"),
    [
        ("no-tar", b"this is no archive at all" * 100, "tar"),
        ("cut-off", tar(CONFIG, (member("model/model.py"), b"x" * 5000))[:3000], "tar"),
        ("outside", tar(CONFIG, (member("../outside.py"), b"x")), "outside"),
        ("absolute", tar(CONFIG, (member("/etc/evil"), b"x")), "leads out"),
        ("link-out", tar(CONFIG, (member("l", tarfile.SYMTYPE, "/etc/passwd"), b"")), "link"),
        ("device", tar(CONFIG, (member("d", tarfile.CHRTYPE), b"")), "device"),
        ("no-config", tar((member("model/model.py"), b"x")), "config.yaml"),
        ("bad-yaml", tar((member("config.yaml"), b"a: [")), "config.yaml"),
    ],
)
def test_hostile_archives_are_build_failed_in_words(
    shared_platform: RunningPlatform, name: str, archive: bytes, words: str
) -> None:
    said = upload(shared_platform, archive, f"hostile-{name}")
    assert settled(shared_platform, said)["status"] == "BUILD_FAILED"
    log = log_of(shared_platform, said)
    assert words in log
    assert "Traceback" not in log
    assert str(shared_platform.data) not in log


def test_a_wrong_requirement_names_itself(shared_platform: RunningPlatform, tmp_path: Path) -> None:
    folder = write_truss(tmp_path, "bad-requirement", requirements=["six==999.0"])
    said = push(shared_platform, folder)
    assert settled(shared_platform, said)["status"] == "BUILD_FAILED"
    assert "six==999.0" in log_of(shared_platform, said)


def test_a_deleted_model_is_gone_at_once(shared_platform: RunningPlatform, tmp_path: Path) -> None:
    said = push(shared_platform, write_truss(tmp_path, "to-delete", code=HEALTHY))
    assert settled(shared_platform, said)["status"] == "ACTIVE"
    path = f"/model/{said['model_id']}/production/predict"
    assert shared_platform.post(path, json={}).status_code == 200
    deleted = shared_platform.delete(f"/v1/models/{said['model_id']}")
    assert deleted.json() == {"id": said["model_id"], "deleted": True}
    assert shared_platform.post(path, json={}).status_code == 404
    replicas = shared_platform.data / "deployments" / said["deployment_id"]
    wait_until(lambda: not replicas.exists(), 60)


def test_a_build_can_be_stopped_and_retried(
    shared_platform: RunningPlatform, tmp_path: Path
) -> None:
    marker = "sleep 54321"
    folder = write_truss(tmp_path, "to-stop", code=HEALTHY, build_commands=[marker])
    said = push(shared_platform, folder)
    path = f"/v1/models/{said['model_id']}/deployments/{said['deployment_id']}"
    wait_until(lambda: _running(b"54321"), 120)
    assert shared_platform.get(path).json()["status"] == "BUILDING"
    assert shared_platform.post(f"{path}/deactivate").status_code == 200
    assert shared_platform.get(path).json()["status"] == "BUILD_STOPPED"
    wait_until(lambda: _running(b"54321") == [], 60)
    again = shared_platform.post(f"{path}/retry").json()
    assert again["retried"] is True
    wait_until(lambda: _running(b"54321"), 120)
    shared_platform.delete(f"/v1/models/{said['model_id']}")
    wait_until(lambda: _running(b"54321") == [], 60)
