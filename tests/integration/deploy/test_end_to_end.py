"""The deployer against a running platform: from a model's name to a completion and back to nothing.

The server is llama.cpp, the accelerator emulated, the hub on loopback.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.support.hub import Hub
from tests.support.platform import (
    RunningPlatform,
    clean_environment,
    free_port,
    platform,
    wait_until,
)
from tests.support.trusses import write_truss

REPO = "kingpost/tiny-chat"
OPTIONS = (
    *("--model", REPO, "--engine", "llamacpp", "--provider", "local"),
    *("--max-model-len", "256", "--concurrency", "2"),
)


@pytest.fixture(scope="module")
def running(
    weights: Hub, llama_prefix: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningPlatform]:
    """A platform that emulates accelerators; a folder stands for llama.cpp's image."""
    state = tmp_path_factory.mktemp("state")
    with platform(
        tmp_path_factory.mktemp("platform") / "data",
        "--emulate-accelerators",
        environment={"HF_ENDPOINT": weights.url, "XDG_STATE_HOME": str(state)},
    ) as started:
        mapped = started.cli(
            *("images", "map", "ghcr.io/ggml-org/llama.cpp", str(llama_prefix)),
            *("--data-dir", str(started.data)),
        )
        assert mapped.returncode == 0, mapped.stderr
        yield started


def said(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, f"{done.args}\n{done.stdout}{done.stderr}"
    return json.loads(done.stdout)


def test_a_models_life(running: RunningPlatform) -> None:
    made = running.cli(
        *("deploy", *OPTIONS, "--gpu", "L4", "--emulated-gpu", "--service-name", "chat"),
        *("--scale-down-delay", "600", "--yes"),
    )
    assert made.returncode == 0, f"{made.stdout}{made.stderr}{running.output()}"
    assert "llama-server listens" in made.stderr + running.cli("logs", "chat").stdout

    status = said(running.cli("status", "chat", "--json"))
    assert (status["state"], status["provider_state"]) == ("active", "ACTIVE")
    assert [change["state"] for change in status["history"]] == ["deploying", "active"]
    assert status["endpoint"].endswith("/environments/production/sync/v1")

    client = openai.OpenAI(base_url=status["endpoint"], api_key=running.key)
    answer = client.chat.completions.create(
        model=REPO, messages=[{"role": "user", "content": "What is 12 + 7?"}], max_tokens=16
    )
    assert answer.choices[0].message.content

    assert httpx.get(status["health"], headers=running.headers).status_code == 200

    (model,) = [m for m in running.get("/v1/models").json()["models"] if "chat" in m["name"]]
    assert model["name"] == "chat-serverless"
    settings = running.get(f"/v1/models/{model['id']}/environments/production").json()
    scaling = settings["autoscaling_settings"]
    assert scaling["concurrency_target"] == 2
    assert scaling["scale_down_delay"] == 600

    again = running.cli("deploy", *OPTIONS, "--service-name", "chat", "--yes")
    assert again.returncode == 1
    assert "kingpost destroy chat" in again.stderr
    assert [s["service"] for s in said(running.cli("list", "--json"))] == ["chat"]

    (gone,) = said(running.cli("destroy", "chat", "--yes", "--json"))
    assert gone["state"] == "destroyed"
    assert running.get(f"/v1/models/{model['id']}").status_code == 404
    assert said(running.cli("destroy", "chat", "--yes", "--json"))[0]["state"] == "destroyed"
    assert said(running.cli("list", "--json")) == []


def test_a_plan_makes_nothing_and_check_says_what_is_missing(running: RunningPlatform) -> None:
    plan = said(running.cli("deploy", *OPTIONS, "--gpu", "L4", "--plan", "--json"))
    assert plan["config"]["resources"]["accelerator"] == "L4"
    assert len(plan["request"]["revision"]) == 40
    assert said(running.cli("list", "--json")) == []

    checked = running.cli("check", *OPTIONS, "--gpu", "L4", "--secret", "absent")
    assert checked.returncode == 1
    assert "FAIL  GPU offered" in checked.stdout
    assert "kingpost secrets set absent" in checked.stdout


def test_what_fails_is_recorded_and_destroyed(running: RunningPlatform) -> None:
    made = running.cli(
        *("deploy", *OPTIONS, "--service-name", "broken", "--yes"),
        *("--image", "example/without-llama"),
    )
    assert made.returncode == 1
    assert "BUILD_FAILED" in made.stderr
    assert "kingpost destroy broken" in made.stderr
    status = said(running.cli("status", "broken", "--json"))
    assert (status["recorded"], status["state"]) == ("failed", "failed")
    (gone,) = said(running.cli("destroy", "--all", "--yes", "--json"))
    assert gone["state"] == "destroyed"
    assert running.get("/v1/models").json()["models"] == []


@pytest.mark.parametrize("step", ["intended", "created", "recorded whole"])
def test_killed_at_each_step_leaves_what_destroy_finishes(
    running: RunningPlatform, step: str
) -> None:
    name = f"killed-{step.partition(' ')[0]}"
    process = started_deploy(running, name)
    state = Path(running.environment["XDG_STATE_HOME"]) / "kingpost/deployments.sqlite3"
    reached = {
        "intended": lambda refs: len(refs) > 0,
        "created": lambda refs: refs and refs[0] is not None,
        "recorded whole": lambda refs: len(refs) == 2 and refs[1] is not None,
    }[step]
    try:
        wait_until(lambda: reached(resources_of(state, name)), 60)
    finally:
        process.kill()
        process.wait()

    assert said(running.cli("list", "--json"))[0]["state"] == "deploying"
    taken = running.cli("deploy", *OPTIONS, "--service-name", name, "--yes")
    assert taken.returncode == 1
    assert f"kingpost destroy {name}" in taken.stderr
    (gone,) = said(running.cli("destroy", name, "--yes", "--json"))
    assert gone["state"] == "destroyed"
    assert running.get("/v1/models").json()["models"] == []


def resources_of(state: Path, name: str) -> list[str | None]:
    """The ids that are recorded of a service's resources, None for one that is intended."""
    if not state.exists():
        return []
    query = "SELECT ref FROM resources WHERE service = (SELECT MAX(id) FROM services WHERE name=?)"
    with contextlib.closing(sqlite3.connect(state, timeout=30)) as db:
        return [ref for (ref,) in db.execute(query, (name,))]


def test_two_at_once_under_one_name(running: RunningPlatform) -> None:
    command = ("deploy", *OPTIONS, "--service-name", "twice", "--yes")
    with ThreadPoolExecutor(2) as both:
        ended = list(both.map(lambda _: running.cli(*command), range(2)))
    assert sorted(done.returncode for done in ended) == [0, 1], [done.stderr for done in ended]
    loser = next(done for done in ended if done.returncode == 1)
    assert "twice is" in loser.stderr
    (gone,) = said(running.cli("destroy", "twice", "--yes", "--json"))
    assert gone["state"] == "destroyed"
    assert running.get("/v1/models").json()["models"] == []


def test_a_model_of_somebody_else_is_left_alone(running: RunningPlatform, tmp_path: Path) -> None:
    folder = write_truss(tmp_path, "theirs-serverless")
    assert running.cli("push", str(folder)).returncode == 0
    made = running.cli("deploy", *OPTIONS, "--service-name", "theirs", "--yes")
    assert made.returncode == 1
    assert "was not made by this command" in made.stderr
    assert said(running.cli("list", "--json")) == []
    (model,) = running.get("/v1/models").json()["models"]
    assert running.delete(f"/v1/models/{model['id']}").status_code == 200


def test_a_key_that_is_not_taken_and_a_platform_that_is_away(running: RunningPlatform) -> None:
    for changed, words in (
        ({"KINGPOST_API_KEY": "abcd.wrong"}, "Api-Key|key"),
        ({"KINGPOST_REMOTE": f"http://127.0.0.1:{free_port()}"}, "Could not reach"),
    ):
        done = as_user(running, changed, "deploy", *OPTIONS, "--yes")
        assert done.returncode == 1
        assert re.search(words, done.stderr)
        assert "Traceback" not in done.stderr
    assert said(running.cli("list", "--json")) == []


def test_an_interrupt_is_recorded(running: RunningPlatform) -> None:
    process = started_deploy(running, "interrupted")
    state = Path(running.environment["XDG_STATE_HOME"]) / "kingpost/deployments.sqlite3"
    try:
        wait_until(lambda: len(resources_of(state, "interrupted")) == 2, 60)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.wait()
    status = said(running.cli("status", "interrupted", "--json"))
    assert (status["recorded"], status["history"][-1]["note"]) == ("failed", "KeyboardInterrupt")
    (gone,) = said(running.cli("destroy", "interrupted", "--yes", "--json"))
    assert gone["state"] == "destroyed"
    assert running.get("/v1/models").json()["models"] == []


def test_a_key_that_is_revoked_later_fails_and_leaves_the_record(running: RunningPlatform) -> None:
    made = running.cli("deploy", *OPTIONS, "--service-name", "revoked", "--yes")
    assert made.returncode == 0, made.stderr
    wrong = {"KINGPOST_API_KEY": "abcd.wrong"}
    refused = as_user(running, wrong, "destroy", "revoked", "--yes")
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    assert said(running.cli("list", "--json"))[0]["state"] == "partly destroyed"
    assert as_user(running, wrong, "status", "revoked").returncode == 1
    (gone,) = said(running.cli("destroy", "revoked", "--yes", "--json"))
    assert gone["state"] == "destroyed"
    assert running.get("/v1/models").json()["models"] == []


def test_a_push_by_the_truss_command(running: RunningPlatform) -> None:
    made = running.cli(
        "deploy", *OPTIONS, "--service-name", "by-truss", "--via-truss-cli", "--yes", "--json"
    )
    assert made.returncode == 0, made.stderr
    (model,) = running.get("/v1/models").json()["models"]
    assert model["name"] == "by-truss-serverless"
    status = said(running.cli("status", "by-truss", "--json"))
    assert (status["state"], status["provider_state"]) == ("active", "ACTIVE")
    assert said(running.cli("destroy", "by-truss", "--yes", "--json"))[0]["state"] == "destroyed"
    assert running.get("/v1/models").json()["models"] == []


def environment_of(running: RunningPlatform, changed: dict[str, str]) -> dict[str, str]:
    return {
        **clean_environment(),
        **running.environment,
        "KINGPOST_REMOTE": running.address,
        "KINGPOST_API_KEY": running.key,
        **changed,
    }


def as_user(
    running: RunningPlatform, changed: dict[str, str], *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run the command with another key or address."""
    return subprocess.run(
        [sys.executable, "-m", "kingpost", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment_of(running, changed),
    )


def started_deploy(running: RunningPlatform, name: str) -> subprocess.Popen[bytes]:
    """A deployment in a process of its own, under way."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "kingpost", "deploy", *OPTIONS),
            *("--service-name", name, "--yes"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment_of(running, {}),
    )
