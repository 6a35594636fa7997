"""A secret's whole life: set, read by a model, changed under it, removed; and seen nowhere else."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.platform import RunningPlatform, wait_until
from tests.support.trusses import write_truss

CODE = """
    import os
    import pathlib
    import uuid

    BORN = uuid.uuid4().hex


    class Model:
        def __init__(self, **kwargs):
            self._secrets = kwargs["secrets"]

        def predict(self, model_input):
            name = model_input["name"]
            file = pathlib.Path("/secrets") / name
            return {
                "value": self._secrets[name] if file.exists() else None,
                "file": file.read_text() if file.exists() else None,
                "born": BORN,
                "pid": os.getpid(),
            }
"""
NAME = "life-of-a-secret"


@dataclass(frozen=True)
class Reader:
    """A model that tells what it reads."""

    platform: RunningPlatform
    model: str
    deployment: str

    @property
    def path(self) -> str:
        return f"/v1/models/{self.model}/deployments/{self.deployment}"

    def reads(self, name: str = NAME) -> dict[str, Any]:
        path = f"/model/{self.model}/production/predict"
        answer = self.platform.post(path, json={"name": name})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def status(self) -> str:
        return str(self.platform.get(self.path).json()["status"])


def put(platform: RunningPlatform, value: str, name: str = NAME) -> dict[str, Any]:
    answer = platform.post("/v1/secrets", json={"name": name, "value": value})
    assert answer.status_code == 200, answer.text
    assert value not in answer.text
    said: dict[str, Any] = answer.json()
    return said


def fresh() -> str:
    return f"value-{secrets.token_hex(16)}"


@pytest.fixture(scope="module")
def reader(
    shared_platform: RunningPlatform, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Reader]:
    put(shared_platform, fresh())
    folder = write_truss(
        tmp_path_factory.mktemp("reader"), "reader", code=CODE, secrets={NAME: None}
    )
    done = shared_platform.cli("push", str(folder), "--wait", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    yield Reader(shared_platform, said["model_id"], said["deployment_id"])
    shared_platform.delete(f"/v1/secrets/{NAME}")


def test_a_change_reaches_a_running_replica(reader: Reader) -> None:
    before = reader.reads()
    for value in (fresh(), fresh() + ' "quoted"\nsecond line ü'):
        put(reader.platform, value)
        wait_until(lambda value=value: reader.reads()["file"] == value, 30)
        assert reader.reads()["value"] == value
    after = reader.reads()
    assert (after["born"], after["pid"]) == (before["born"], before["pid"])


def test_it_sees_only_the_secrets_that_it_names(reader: Reader) -> None:
    put(reader.platform, fresh(), "of-somebody-else")
    try:
        assert reader.reads("of-somebody-else")["file"] is None
    finally:
        assert reader.platform.delete("/v1/secrets/of-somebody-else").status_code == 200


def test_its_value_is_nowhere_but_in_memory(reader: Reader) -> None:
    platform = reader.platform
    values = [fresh(), fresh()]
    for value in values:
        put(platform, value)
        wait_until(lambda value=value: reader.reads()["value"] == value, 30)
    needles = [value.encode() for value in values]
    paths = [
        "/v1/secrets",
        "/v1/models",
        reader.path,
        f"{reader.path}/logs",
        f"{reader.path}/config",
    ]
    answers = [platform.get(path) for path in paths]
    assert NAME in answers[0].text
    assert [a.url for a in answers if _any_in(needles, a.content)] == []
    assert _processes_with(needles) == []
    assert _files_with(platform.data, needles) == []
    replicas = platform.data / "replicas"
    assert _files_with(replicas, [b"KINGPOST_REPLICA_ID"]), "the search finds what is there"


def test_a_deleted_secret_is_gone_for_new_replicas(reader: Reader) -> None:
    platform = reader.platform
    value = fresh()
    put(platform, value)
    wait_until(lambda: reader.reads()["value"] == value, 30)
    before = reader.reads()["born"]
    assert platform.delete(f"/v1/secrets/{NAME}").status_code == 200
    listed = platform.get("/v1/secrets").json()["secrets"]
    assert NAME not in {secret["name"] for secret in listed}
    wait_until(lambda: reader.reads()["value"] is None, 30)
    assert platform.post(f"{reader.path}/deactivate").status_code == 200
    wait_until(lambda: reader.status() == "INACTIVE", 60)
    assert platform.post(f"{reader.path}/activate").status_code == 200
    wait_until(lambda: reader.status() == "ACTIVE", 60, platform.output)
    found = reader.reads()
    assert found["value"] is None
    assert found["born"] != before
    assert _files_with(platform.data, [value.encode()]) == []


def _any_in(needles: list[bytes], content: bytes) -> bool:
    return any(needle in content for needle in needles)


def _processes_with(needles: list[bytes]) -> list[str]:
    found = []
    for process in Path("/proc").iterdir():
        for name in ("cmdline", "environ"):
            try:
                if process.name.isdigit() and _any_in(needles, (process / name).read_bytes()):
                    found.append(str(process / name))
            except OSError:
                continue
    return found


def _files_with(folder: Path, needles: list[bytes]) -> list[str]:
    found = []
    for path in folder.rglob("*"):
        try:
            if path.is_file() and not path.is_symlink() and _any_in(needles, path.read_bytes()):
                found.append(str(path))
        except FileNotFoundError:
            continue
    return found
