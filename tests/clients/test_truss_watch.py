"""`truss push --watch` and `truss watch`: a development deployment is patched live."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.platform import RunningPlatform, wait_until
from tests.support.truss_cli import TrussCli, make_truss_cli, running_truss
from tests.support.trusses import ECHO, write_truss


@pytest.fixture(scope="module")
def truss(shared_platform: RunningPlatform, tmp_path_factory: pytest.TempPathFactory) -> TrussCli:
    return make_truss_cli(shared_platform, tmp_path_factory.mktemp("home"))


def version(platform: RunningPlatform, model: str) -> str | None:
    answer = platform.post(f"/model/{model}/development/predict", json={})
    return str(answer.json()["version"]) if answer.status_code == 200 else None


def model_id(platform: RunningPlatform, name: str) -> str | None:
    found = platform.get("/v1/models", params={"name": name}).json()["models"]
    return str(found[0]["id"]) if found else None


def test_a_saved_file_is_live_without_a_new_push(truss: TrussCli, tmp_path: Path) -> None:
    platform = truss.platform
    folder = write_truss(tmp_path / "t", "watched", version="one")
    with running_truss(truss, "push", "--watch", cwd=folder) as watching:
        model = wait_until(lambda: model_id(platform, "watched"), 60, watching.text)
        wait_until(lambda: version(platform, model) == "one", 180, watching.text)
        wait_until(lambda: "atching for changes" in watching.text(), 60, watching.text)
        before = platform.get(f"/v1/models/{model}/deployments/development").json()["id"]
        write_truss(folder, "watched", version="two")
        wait_until(lambda: version(platform, model) == "two", 120, watching.text)
    after = platform.get(f"/v1/models/{model}/deployments/development").json()
    assert after["id"] == before
    assert after["is_development"] is True

    with running_truss(truss, "watch", cwd=folder) as watching:
        wait_until(lambda: "atching for changes" in watching.text(), 120, watching.text)
        write_truss(folder, "watched", version="three")
        wait_until(lambda: version(platform, model) == "three", 120, watching.text)
        broken = ECHO.replace("def predict(self, model_input):", "def predict(self, model_input:")
        write_truss(folder, "watched", code=broken)
        wait_until(lambda: watching.text().count("patched") > 1, 120, watching.text)
        write_truss(folder, "watched", version="four")
        wait_until(lambda: version(platform, model) == "four", 180, watching.text)

    replica = platform.get(f"/v1/models/{model}/deployments/development").json()
    assert replica["active_replica_count"] == 1
    restart = platform.post(f"/v1/models/{model}/deployments/development/deactivate")
    assert restart.status_code == 200
    wait_until(
        lambda: (
            platform.get(f"/v1/models/{model}/deployments/development").json()["status"]
            == "INACTIVE"
        )
    )
    platform.post(f"/v1/models/{model}/deployments/development/activate")
    wait_until(lambda: version(platform, model) == "four", 120)
