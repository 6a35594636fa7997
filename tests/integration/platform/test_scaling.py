"""Scaling on a real platform: to zero and back, to many and back, and not one request lost."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.load import Load
from tests.support.platform import RunningPlatform, platform, wait_until
from tests.support.trusses import write_truss

QUICK = {"autoscaling_window": 10, "scale_down_delay": 1, "concurrency_target": 1}


@dataclass(frozen=True)
class Scaled:
    """A model on a platform whose production scales quickly."""

    platform: RunningPlatform
    model: str
    deployment: str

    @property
    def path(self) -> str:
        return f"/model/{self.model}/production/predict"

    def tune(self, **settings: int) -> None:
        path = f"/v1/models/{self.model}/environments/production"
        answer = self.platform.patch(path, {"autoscaling_settings": settings})
        assert answer.status_code == 200, answer.text

    def load(self, workers: int, **body: object) -> Load:
        url = self.platform.address + self.path
        return Load(url, self.platform.headers, body, workers=workers)

    @property
    def described_at(self) -> str:
        return f"/v1/models/{self.model}/deployments/{self.deployment}"

    def described(self) -> tuple[str, int]:
        """(status, replicas that are ready)."""
        answer = self.platform.get(self.described_at).json()
        return answer["status"], answer["active_replica_count"]

    def becomes(self, status: str) -> None:
        wait_until(
            lambda: self.described()[0] == status,
            90,
            lambda: f"{self.described()} {self.platform.output()}",
        )


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPlatform]:
    with platform(tmp_path_factory.mktemp("scaling") / "data") as started:
        yield started


def pushed(running: RunningPlatform, folder: Path, *flags: str) -> Scaled:
    done = running.cli("push", str(folder), "--wait", "--json", *flags)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    return Scaled(running, said["model_id"], said["deployment_id"])


@pytest.fixture
def scaled(running: RunningPlatform, tmp_path: Path, request: pytest.FixtureRequest) -> Scaled:
    name = request.node.name.removeprefix("test_").replace("_", "-")[:40]
    model = pushed(running, write_truss(tmp_path / "truss", name))
    model.tune(**QUICK)
    return model


def test_idle_goes_to_zero_and_a_request_wakes_it_and_is_answered(scaled: Scaled) -> None:
    scaled.becomes("SCALED_TO_ZERO")
    wait_until(lambda: scaled.described()[1] == 0)
    answer = scaled.platform.post(scaled.path, json={"x": 1})
    assert (answer.status_code, answer.json()["echo"]) == (200, {"x": 1})
    scaled.becomes("SCALED_TO_ZERO")
    logs = scaled.platform.get(f"{scaled.described_at}/logs").text
    assert "Scaling from 1 to 0 replicas: no request for 1 s" in logs


def test_wake_brings_it_back_without_a_request(scaled: Scaled) -> None:
    scaled.tune(scale_down_delay=3)
    scaled.becomes("SCALED_TO_ZERO")
    answer = scaled.platform.post(f"/model/{scaled.model}/production/wake")
    assert answer.status_code == 202
    scaled.becomes("ACTIVE")
    scaled.becomes("SCALED_TO_ZERO")


def test_zero_to_many_and_back_again_and_again_loses_no_request(scaled: Scaled) -> None:
    scaled.tune(max_replica=3)
    for _ in range(3):
        scaled.becomes("SCALED_TO_ZERO")
        with scaled.load(4, sleep=0.2) as load:
            wait_until(lambda: scaled.described() == ("ACTIVE", 3), 60, scaled.platform.output)
        assert set(load.outcomes) == {"200"}
    scaled.becomes("SCALED_TO_ZERO")


def test_fewer_while_it_is_called_loses_no_request(scaled: Scaled) -> None:
    scaled.tune(max_replica=3)
    with scaled.load(1, sleep=0.05) as steady:
        with scaled.load(4, sleep=0.05) as more:
            wait_until(lambda: scaled.described() == ("ACTIVE", 3), 60, scaled.platform.output)
        scaled.tune(target_utilization_percentage=100)
        wait_until(lambda: scaled.described() == ("ACTIVE", 1), 60, scaled.platform.output)
        seen = steady.good
        wait_until(lambda: steady.good > seen + 20)
    assert set(steady.outcomes | more.outcomes) == {"200"}


def test_requests_that_come_as_it_goes_to_zero_are_answered(scaled: Scaled) -> None:
    """One request about each time that it is about to go: never refused, never lost."""
    said = []
    for number in range(6):
        scaled.becomes("SCALED_TO_ZERO")
        answers = [scaled.platform.post(scaled.path, json={"n": number}) for _ in range(3)]
        said += [answer.status_code for answer in answers]
    assert said == [200] * 18


def test_an_open_request_keeps_its_replica_however_long_it_takes(scaled: Scaled) -> None:
    answer = scaled.platform.post(scaled.path, json={"sleep": 8})
    assert (answer.status_code, answer.json()["echo"]) == (200, {"sleep": 8})
    assert "Scaling" not in scaled.platform.get(f"{scaled.described_at}/logs").text
    scaled.becomes("SCALED_TO_ZERO")


def test_control_killed_while_idle_it_goes_to_zero_later(scaled: Scaled) -> None:
    scaled.tune(scale_down_delay=5)
    old = scaled.platform.pid_of("control")
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: scaled.platform.pid_of("control") != old)
    answer = scaled.platform.post(scaled.path, json={"x": 1})
    assert answer.status_code == 200
    wait_until(lambda: scaled.platform.get("/v1/models").status_code == 200)
    scaled.becomes("SCALED_TO_ZERO")
    assert scaled.platform.post(scaled.path, json={"x": 1}).status_code == 200


def test_a_minimum_brings_one_at_zero_up_at_once(scaled: Scaled) -> None:
    scaled.becomes("SCALED_TO_ZERO")
    scaled.tune(min_replica=2, max_replica=2)
    wait_until(lambda: scaled.described() == ("ACTIVE", 2), 60, scaled.platform.output)


def test_a_deactivated_one_stays_down(scaled: Scaled) -> None:
    base = scaled.described_at
    assert scaled.platform.post(f"{base}/deactivate").status_code == 200
    scaled.becomes("INACTIVE")
    assert scaled.platform.post(scaled.path, json={}).status_code == 404
    assert scaled.described() == ("INACTIVE", 0)
    assert scaled.platform.post(f"{base}/activate").status_code == 200
    scaled.becomes("SCALED_TO_ZERO")


@pytest.mark.parametrize("cleanup", ["SCALE_TO_ZERO", "DEACTIVATE"])
def test_a_promotion_under_load_loses_no_request(
    running: RunningPlatform, tmp_path: Path, cleanup: str
) -> None:
    name = f"promoted-{cleanup.lower().replace('_', '-')}"
    first = pushed(running, write_truss(tmp_path / "one", name, version="one"))
    first.tune(concurrency_target=2, scale_down_delay=600)
    path = f"/v1/models/{first.model}/environments/production"
    settings = {"promotion_settings": {"promotion_cleanup_strategy": cleanup}}
    assert running.patch(path, settings).status_code == 200
    with first.load(6, sleep=0.05) as load:
        wait_until(lambda: load.good > 20)
        folder = write_truss(tmp_path / "two", name, version="two")
        second = pushed(running, folder, "--promote")
        second.becomes("ACTIVE")
        wait_until(lambda: running.post(first.path, json={}).json().get("version") == "two")
        seen = load.good
        wait_until(lambda: load.good > seen + 20)
    assert set(load.outcomes) == {"200"}
    first.becomes("SCALED_TO_ZERO" if cleanup == "SCALE_TO_ZERO" else "INACTIVE")
    assert "Scaling from 0" not in running.get(f"{first.described_at}/logs").text
