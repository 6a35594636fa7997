"""SIGKILL for each of the platform's processes: models answer, nothing is lost, nothing doubled."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import leftovers
from tests.support.load import Load
from tests.support.platform import RunningPlatform, platform, wait_until
from tests.support.trusses import write_truss


@dataclass(frozen=True)
class Served:
    """A model on a platform, ACTIVE, and where to call it."""

    platform: RunningPlatform
    model: str
    deployment: str

    @property
    def path(self) -> str:
        return f"/model/{self.model}/production/predict"

    def load(self, **body: object) -> Load:
        return Load(self.platform.address + self.path, self.platform.headers, body)

    def status(self) -> str:
        answer = self.platform.get(f"/v1/models/{self.model}/deployments/{self.deployment}")
        return str(answer.json()["status"]) if answer.status_code == 200 else answer.text

    def replicas(self) -> list[str]:
        """The replicas of this deployment, by what is recorded of them on disk."""
        folders = (self.platform.data / "replicas").iterdir()
        return sorted(f.name for f in folders if _deployment_of(f) == self.deployment)

    def app_pid(self) -> int:
        """The pid, on the host, of the application of the only replica."""
        (replica,) = self.replicas()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and _environment(entry).get("KINGPOST_REPLICA_ID") == replica:
                return int(entry.name)
        raise AssertionError(f"no process of {replica}")


def _deployment_of(folder: Path) -> str | None:
    try:
        return str(json.loads((folder / "spec.json").read_text())["spec"]["deployment_id"])
    except (OSError, ValueError, KeyError):
        return None


def _environment(process: Path) -> dict[str, str]:
    try:
        parts = (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    return dict(part.decode(errors="replace").partition("=")[::2] for part in parts if part)


@pytest.fixture(scope="module")
def killable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPlatform]:
    """One platform for this module: each test leaves it as well as it found it."""
    with platform(tmp_path_factory.mktemp("killable") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def steady(killable: RunningPlatform, tmp_path_factory: pytest.TempPathFactory) -> Served:
    folder = write_truss(tmp_path_factory.mktemp("truss"), "steady")
    return pushed(killable, folder, "--wait")


@pytest.fixture
def served(steady: Served) -> Served:
    wait_until(lambda: steady.status() == "ACTIVE", 60, steady.platform.output)
    return steady


def pushed(running: RunningPlatform, folder: Path, *flags: str) -> Served:
    done = running.cli("push", str(folder), "--json", *flags)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    return Served(running, said["model_id"], said["deployment_id"])


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def control_is_back(platform: RunningPlatform, old_pid: int) -> bool:
    return platform.pid_of("control") != old_pid and platform.get("/v1/models").status_code == 200


def test_control_killed_while_serving(served: Served) -> None:
    before = served.replicas()
    with served.load(x=1) as load:
        wait_until(lambda: load.good > 20)
        old = served.platform.pid_of("control")
        kill(old)
        wait_until(lambda: control_is_back(served.platform, old), 60, served.platform.output)
        seen = load.good
        wait_until(lambda: load.good > seen + 20)
    assert set(load.outcomes) == {"200"}
    assert served.status() == "ACTIVE"
    assert served.replicas() == before


def test_gateway_killed_and_back_on_the_same_port(served: Served) -> None:
    old = served.platform.pid_of("gateway")
    kill(old)
    answer = wait_until(
        lambda: (
            served.platform.pid_of("gateway") != old and served.platform.post(served.path, json={})
        )
    )
    assert answer.status_code == 200
    assert served.status() == "ACTIVE"


def test_supervisor_killed_everything_runs_on_and_a_new_one_takes_over(served: Served) -> None:
    running = served.platform
    assert running.process is not None
    gateway, control = running.pid_of("gateway"), running.pid_of("control")
    before = served.replicas()
    with served.load(x=1) as load:
        wait_until(lambda: load.good > 20)
        running.process.kill()
        running.process.wait(10)
        seen = load.good
        wait_until(lambda: load.good > seen + 20)
        running.start()
        seen = load.good
        wait_until(lambda: load.good > seen + 20)
    assert set(load.outcomes) == {"200"}
    assert (running.pid_of("gateway"), running.pid_of("control")) == (gateway, control)
    assert served.replicas() == before


def test_replica_killed_under_load_only_its_own_requests_fail(served: Served) -> None:
    (before,) = served.replicas()
    with served.load(x=1) as load:
        wait_until(lambda: load.good > 20)
        kill(served.app_pid())
        wait_until(lambda: served.replicas() not in ([], [before]))
        wait_until(lambda: served.status() == "ACTIVE")
        seen = load.good
        wait_until(lambda: load.good > seen + 20)
    failed = sum(load.outcomes.values()) - load.outcomes["200"]
    assert failed <= load.workers, load.outcomes
    log = served.platform.cli("logs", "steady").stdout
    assert "ended" in log


def test_shim_killed_the_replica_is_replaced(served: Served) -> None:
    (before,) = served.replicas()
    record = json.loads((served.platform.data / "replicas" / before / "shim.json").read_text())
    kill(record["pid"])
    wait_until(lambda: served.replicas() not in ([], [before]))
    wait_until(lambda: served.status() == "ACTIVE")
    assert served.platform.post(served.path, json={}).status_code == 200
    assert len(served.replicas()) == 1


@pytest.mark.parametrize("state", ["BUILDING", "LOADING_MODEL"])
def test_control_killed_on_the_way_to_active(
    killable: RunningPlatform, tmp_path: Path, state: str
) -> None:
    code = """
        import time


        class Model:
            def load(self):
                time.sleep(3)

            def predict(self, model_input):
                return model_input
    """
    name = f"killed-{state.lower().replace('_', '-')}"
    version = {"BUILDING": "1.16.0", "LOADING_MODEL": "1.17.0"}[state]
    folder = write_truss(tmp_path / "truss", name, code=code, requirements=[f"six=={version}"])
    served = pushed(killable, folder)
    wait_until(lambda: served.status() == state, 120, killable.output)
    old = killable.pid_of("control")
    kill(old)
    wait_until(lambda: control_is_back(killable, old), 60, killable.output)
    wait_until(lambda: served.status() == "ACTIVE", 180, killable.output)
    answer = killable.post(served.path, json={"a": 1})
    assert answer.json() == {"a": 1}
    assert len(served.replicas()) == 1
    listed = killable.get(f"/v1/models/{served.model}/deployments").json()["deployments"]
    assert [d["id"] for d in listed] == [served.deployment]


def test_stopped_with_replicas_detached_they_are_adopted_and_the_last_stop_leaves_nothing(
    served: Served,
) -> None:
    running = served.platform
    running.stop()
    assert leftovers.of(running.data) == {"processes": [], "mounts": [], "replica folders": []}
    running.options = ("--detach-replicas",)
    running.start()
    wait_until(lambda: served.status() == "ACTIVE", 60, running.output)
    before, pid = served.replicas(), served.app_pid()
    running.stop()
    assert Path(f"/proc/{pid}").exists()
    running.options = ()
    running.start()
    assert served.replicas() == before
    assert running.post(served.path, json={}).status_code == 200
    assert served.app_pid() == pid
    running.stop()
    assert not Path(f"/proc/{pid}").exists()
    assert leftovers.of(running.data) == {"processes": [], "mounts": [], "replica folders": []}
    running.start()
