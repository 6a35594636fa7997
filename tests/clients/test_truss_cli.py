"""The unmodified truss CLI: what a team does with it every day."""

from __future__ import annotations

import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.support.platform import RunningPlatform, wait_until
from tests.support.truss_cli import TrussCli, make_truss_cli, running_truss
from tests.support.trusses import write_truss


@pytest.fixture(scope="module")
def truss(shared_platform: RunningPlatform, tmp_path_factory: pytest.TempPathFactory) -> TrussCli:
    return make_truss_cli(shared_platform, tmp_path_factory.mktemp("home"))


def pushed(truss: TrussCli, folder: Path, *flags: str) -> dict[str, str]:
    """Push with `--output json` and return what it printed."""
    text = truss("push", str(folder), "--output", "json", *flags).stdout
    answer: dict[str, str] = json.loads(text[text.index("{") :])
    return answer


def deployment(platform: RunningPlatform, model: str, reference: str) -> dict[str, object]:
    answer = platform.get(f"/v1/models/{model}/deployments/{reference}")
    found: dict[str, object] = answer.json()
    return found


def when_settled(platform: RunningPlatform, model: str, reference: str) -> dict[str, object]:
    def settled() -> dict[str, object] | None:
        found = deployment(platform, model, reference)
        on_the_way = found.get("status") in {"BUILDING", "DEPLOYING", "LOADING_MODEL"}
        return None if on_the_way or "status" not in found else found

    found: dict[str, object] = wait_until(settled, 180)
    return found


def test_whoami(truss: TrussCli) -> None:
    assert "default" in truss("whoami").stdout


def test_a_new_model_becomes_production_and_answers(truss: TrussCli, tmp_path: Path) -> None:
    folder = write_truss(tmp_path / "t", "cli-new")
    out = truss("push", str(folder), "--wait").stdout
    assert "successfully pushed" in out
    assert "Deployment succeeded" in out
    said = truss("predict", "--published", "-d", '{"a": 1}', cwd=folder).stdout
    assert json.loads(said[said.index("{") :])["echo"] == {"a": 1}
    streamed = truss("predict", "--published", "-d", '{"stream": 3}', cwd=folder).stdout
    assert "part 0\npart 1\npart 2" in streamed


def test_without_a_draft_predict_says_to_use_published(truss: TrussCli, tmp_path: Path) -> None:
    """The CLI looks for a draft itself; who posts there all the same is told the flag."""
    folder = write_truss(tmp_path / "t", "cli-no-draft")
    model = pushed(truss, folder)["model_id"]
    done = truss("predict", "-d", "{}", cwd=folder, check=False)
    assert done.returncode != 0
    assert "development model" in done.stdout + done.stderr
    answer = truss.platform.post(f"/model/{model}/development/predict", json={})
    assert answer.status_code == 404
    assert "--published" in answer.text


def test_flags_of_a_push_reach_the_deployment(truss: TrussCli, tmp_path: Path) -> None:
    platform = truss.platform
    folder = write_truss(tmp_path / "t", "cli-flags")
    for command in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=t", "-c", "user.email=t@example.invalid", "commit", "-qm", "x"],
    ):
        subprocess.run(["git", *command], cwd=folder, check=True, capture_output=True)
    first = pushed(truss, folder)
    model = first["model_id"]
    assert when_settled(platform, model, first["model_version_id"])["environment"] == "production"

    canary = pushed(
        truss, folder, "--publish", "--deployment-name", "canary-1", "--include-git-info",
        "--labels", '{"team": "ml"}', "--no-cache",
    )  # fmt: skip
    found = when_settled(platform, model, canary["model_version_id"])
    assert found["name"] == "canary-1"
    assert found["labels"] == {"team": "ml"}
    assert found["environment"] is None
    assert found["status"] == "ACTIVE"

    promoted = pushed(truss, folder, "--promote")
    when_settled(platform, model, promoted["model_version_id"])
    production = wait_until(
        lambda: (
            (p := deployment(platform, model, "production"))["id"] == promoted["model_version_id"]
            and p
        )
    )
    assert production["is_production"] is True

    again = truss("push", str(folder), "--deployment-name", "canary-1", check=False)
    assert again.returncode != 0
    assert "canary-1" in again.stdout + again.stderr


def test_an_environment_must_exist_and_then_gets_the_push(truss: TrussCli, tmp_path: Path) -> None:
    platform = truss.platform
    folder = write_truss(tmp_path / "t", "cli-environment")
    model = pushed(truss, folder)["model_id"]
    refused = truss("push", str(folder), "--environment", "staging", check=False)
    assert refused.returncode != 0
    assert "staging" in refused.stdout + refused.stderr
    made = platform.post(f"/v1/models/{model}/environments", json={"name": "staging"})
    assert made.status_code == 200
    staged = pushed(truss, folder, "--environment", "staging")
    when_settled(platform, model, staged["model_version_id"])
    path = f"/model/{model}/environments/staging/predict"
    answer = wait_until(lambda: (r := platform.post(path, json={"b": 2})).status_code == 200 and r)
    assert answer.json()["echo"] == {"b": 2}


def test_tail_shows_the_build_and_the_model_as_they_go(truss: TrussCli, tmp_path: Path) -> None:
    folder = write_truss(tmp_path / "t", "cli-tail")
    with running_truss(truss, "push", "--tail", cwd=folder) as tailing:
        wait_until(lambda: "echo is loaded" in tailing.text(), 120, tailing.text)
        assert "Python environment" in tailing.text()


def test_wait_and_tail_together_end_when_it_is_active(truss: TrussCli, tmp_path: Path) -> None:
    """The CLI tails in the background then, so a quick push may end before its first look."""
    folder = write_truss(tmp_path / "t", "cli-wait-tail")
    assert "Deployment succeeded" in truss("push", str(folder), "--wait", "--tail").stdout


def test_a_failing_push_is_told_as_such(truss: TrussCli, tmp_path: Path) -> None:
    code = """
        class Model:
            def load(self):
                raise RuntimeError("no weights on this shelf")

            def predict(self, model_input):
                return model_input
    """
    folder = write_truss(tmp_path / "t", "cli-broken", code=code)
    done = truss("push", str(folder), "--wait", check=False)
    assert done.returncode != 0
    assert "DEPLOY_FAILED" in done.stdout + done.stderr


def test_an_invalid_config_is_refused_before_anything_is_made(
    truss: TrussCli, tmp_path: Path
) -> None:
    folder = write_truss(tmp_path / "t", "cli-invalid", resources={"accelerator": "NOSUCH"})
    done = truss("push", str(folder), check=False)
    assert done.returncode != 0
    names = [m["name"] for m in truss.platform.get("/v1/models").json()["models"]]
    assert "cli-invalid" not in names


def test_logs_config_and_download(truss: TrussCli, tmp_path: Path) -> None:
    folder = write_truss(tmp_path / "t", "cli-looks")
    made = pushed(truss, folder)
    model, version = made["model_id"], made["model_version_id"]
    when_settled(truss.platform, model, version)
    ids = ("--model-id", model, "--deployment-id", version)
    log = wait_until(lambda: "echo is loaded" in (out := truss("model-logs", *ids).stdout) and out)
    assert log.index("Python environment") < log.index("echo is loaded")
    assert "cli-looks" in truss("model-config", *ids).stdout
    archive = tmp_path / "archive.tar"
    truss("download", *ids, "--out-file", str(archive))
    with tarfile.open(archive) as tar:
        assert any(name.endswith("model/model.py") for name in tar.getnames())


def test_a_large_archive_goes_up_in_parts(truss: TrussCli, tmp_path: Path) -> None:
    folder = write_truss(tmp_path / "t", "cli-large")
    (folder / "data").mkdir()
    (folder / "data" / "weights.bin").write_bytes(bytes(range(256)) * 4096 * 20)
    made = pushed(truss, folder)
    found = when_settled(truss.platform, made["model_id"], made["model_version_id"])
    assert found["status"] == "ACTIVE"


def test_a_wrong_key_is_refused_in_words(shared_platform: RunningPlatform, tmp_path: Path) -> None:
    truss = make_truss_cli(shared_platform, tmp_path / "home")
    rc = truss.home / ".trussrc"
    rc.write_text(rc.read_text().replace(shared_platform.key, "wrong.key-wrong-key-wrong"))
    done = truss("push", str(write_truss(tmp_path / "t", "cli-key")), check=False)
    assert done.returncode != 0
    assert "key" in (done.stdout + done.stderr).lower()


def test_through_uvx_with_the_current_release(
    shared_platform: RunningPlatform, tmp_path: Path
) -> None:
    import uv

    truss = make_truss_cli(
        shared_platform, tmp_path / "home", uv.find_uv_bin(), "tool", "run", "truss"
    )
    folder = write_truss(tmp_path / "t", "cli-uvx")
    out = truss("push", str(folder), "--promote", "--wait", timeout_s=280).stdout
    assert "Deployment succeeded" in out
