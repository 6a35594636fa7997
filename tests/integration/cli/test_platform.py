"""The `kingpost` command against a real platform, from the first push to the last."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.certificates import make_certificate
from tests.support.platform import RunningPlatform, clean_environment, platform, wait_until
from tests.support.trusses import write_truss


def ok(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, f"{done.args}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def echo(shared_platform: RunningPlatform, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that answers; its name."""
    folder = write_truss(tmp_path_factory.mktemp("truss"), "kingpost-echo")
    ok(shared_platform.cli("push", str(folder), "--wait"))
    return "kingpost-echo"


def test_a_first_push_is_watched_to_its_end(
    shared_platform: RunningPlatform, tmp_path: Path
) -> None:
    folder = write_truss(tmp_path / "t", "kingpost-first")
    done = shared_platform.cli("push", str(folder), "--wait")
    out = ok(done)
    assert "ACTIVE" in out
    assert "echo is loaded" in done.stderr
    assert json.loads(ok(shared_platform.cli("predict", "kingpost-first", "-d", '{"a": 1}')))[
        "echo"
    ] == {"a": 1}


def test_json_has_the_fixed_names_and_they_work(
    shared_platform: RunningPlatform, tmp_path: Path
) -> None:
    folder = write_truss(tmp_path / "t", "kingpost-json")
    data = json.loads(ok(shared_platform.cli("push", str(folder), "--wait", "--json")))
    assert {"model_id", "deployment_id", "url"} <= set(data)
    assert data["status"] == "ACTIVE"
    answer = shared_platform.post(
        data["predict_url"].removeprefix(shared_platform.address), json={"b": 2}
    )
    assert answer.json()["echo"] == {"b": 2}
    assert data["url"].startswith(shared_platform.address)


def test_the_same_files_make_the_same_archive(
    shared_platform: RunningPlatform, tmp_path: Path
) -> None:
    folder = write_truss(tmp_path / "t", "kingpost-same")
    first = json.loads(ok(shared_platform.cli("push", str(folder), "--wait", "--json")))
    os.utime(folder / "config.yaml", (1, 1))
    second = json.loads(ok(shared_platform.cli("push", str(folder), "--wait", "--json")))
    assert first["deployment_id"] != second["deployment_id"]
    for number, pushed in enumerate((first, second)):
        ok(
            shared_platform.cli(
                *("deployments", "download", pushed["model_id"], pushed["deployment_id"]),
                *("--output", str(tmp_path / f"{number}.tar")),
            )
        )
    assert (tmp_path / "0.tar").read_bytes() == (tmp_path / "1.tar").read_bytes()


def test_a_failed_build_says_why_and_exits_1(
    shared_platform: RunningPlatform, tmp_path: Path
) -> None:
    folder = write_truss(
        tmp_path / "t", "kingpost-broken", requirements=["no-such-package-at-all-kingpost==9.9"]
    )
    done = shared_platform.cli("push", str(folder), "--wait", "--json")
    assert done.returncode == 1
    error = json.loads(done.stderr)
    assert "BUILD_FAILED" in error["message"]
    assert "no-such-package-at-all-kingpost" in error["message"]
    assert done.stdout == ""
    logs = ok(shared_platform.cli("logs", "kingpost-broken", "--build"))
    assert "no-such-package-at-all-kingpost" in logs


def test_an_invalid_config_is_refused_before_the_upload(
    shared_platform: RunningPlatform, tmp_path: Path
) -> None:
    folder = write_truss(tmp_path / "t", "kingpost-invalid", python_version="py2")
    done = shared_platform.cli("push", str(folder))
    assert done.returncode == 1
    assert "python_version" in done.stderr
    assert "Traceback" not in done.stderr
    assert shared_platform.cli("models", "show", "kingpost-invalid").returncode == 1


def test_answers_stream(shared_platform: RunningPlatform, echo: str) -> None:
    started = subprocess.Popen(
        [sys.executable, "-m", "kingpost", "predict", echo, "-d", '{"stream": 200}'],
        stdout=subprocess.PIPE,
        text=True,
        env={
            **clean_environment(),
            "KINGPOST_REMOTE": shared_platform.address,
            "KINGPOST_API_KEY": shared_platform.key,
        },
    )
    assert started.stdout is not None
    with started.stdout:
        assert started.stdout.readline() == "part 0\n"
        assert started.poll() is None
        assert started.stdout.read().endswith("part 199\n")
    assert started.wait(timeout=30) == 0


def test_a_canary_is_promoted(shared_platform: RunningPlatform, echo: str, tmp_path: Path) -> None:
    folder = write_truss(tmp_path / "t", echo, version="two")
    pushed = json.loads(
        ok(shared_platform.cli("push", str(folder), "--deployment-name", "v2", "--wait", "--json"))
    )

    def version(*flags: str) -> str:
        answer = json.loads(ok(shared_platform.cli("predict", echo, "-d", "{}", *flags)))
        return str(answer["version"])

    assert version("--deployment", "v2") == "two"
    before = version()
    promoted = json.loads(ok(shared_platform.cli("promote", echo, "v2", "--wait", "--json")))
    assert promoted["deployment_id"] == pushed["deployment_id"]
    assert promoted["environment"] == "production"
    assert (before, version()) == ("one", "two")
    listed = json.loads(ok(shared_platform.cli("deployments", echo, "--json")))
    assert [d["name"] for d in listed if d["is_production"]] == ["v2"]


def test_environments_and_their_settings(shared_platform: RunningPlatform, tmp_path: Path) -> None:
    folder = write_truss(tmp_path / "t", "kingpost-env")
    ok(shared_platform.cli("push", str(folder), "--wait"))
    ok(shared_platform.cli("env", "create", "kingpost-env", "staging", "--max-replica", "3"))
    ok(shared_platform.cli("env", "set", "kingpost-env", "staging", "--scale-down-delay", "60"))
    shown = json.loads(ok(shared_platform.cli("env", "show", "kingpost-env", "staging", "--json")))
    settings = shown["autoscaling_settings"]
    assert (settings["max_replica"], settings["scale_down_delay"]) == (3, 60)
    pushed = ok(shared_platform.cli("push", str(folder), "--environment", "staging", "--wait"))
    assert "staging" in pushed
    answer = ok(
        shared_platform.cli("predict", "kingpost-env", "--environment", "staging", "-d", "{}")
    )
    assert json.loads(answer)["version"] == "one"
    missing = shared_platform.cli("push", str(folder), "--environment", "stagign")
    assert missing.returncode == 1
    assert "stagign" in missing.stderr


def test_a_secret_reaches_a_model(shared_platform: RunningPlatform, tmp_path: Path) -> None:
    ok(shared_platform.cli("secrets", "set", "kingpost-token", input="s3cret-value\n"))
    folder = write_truss(tmp_path / "t", "kingpost-secret", secrets={"kingpost-token": None})
    ok(shared_platform.cli("push", str(folder), "--wait"))
    ask = ("predict", "kingpost-secret", "-d", '{"secret": "kingpost-token"}')
    assert json.loads(ok(shared_platform.cli(*ask)))["secret"] == "s3cret-value"
    listed = ok(shared_platform.cli("secrets", "list", "--json"))
    assert "kingpost-token" in listed
    assert "s3cret-value" not in listed
    ok(shared_platform.cli("secrets", "rm", "kingpost-token"))
    assert "kingpost-token" not in ok(shared_platform.cli("secrets", "list"))


def test_deactivate_and_activate(shared_platform: RunningPlatform, tmp_path: Path) -> None:
    folder = write_truss(tmp_path / "t", "kingpost-off")
    pushed = json.loads(ok(shared_platform.cli("push", str(folder), "--wait", "--json")))
    which = ("kingpost-off", pushed["deployment_id"])
    ok(shared_platform.cli("deployments", "deactivate", *which))

    def status() -> str:
        shown = json.loads(ok(shared_platform.cli("deployments", "show", *which, "--json")))
        return str(shown["status"])

    wait_until(lambda: status() == "INACTIVE", 60)
    refused = shared_platform.cli("predict", "kingpost-off", "-d", "{}")
    assert refused.returncode == 1
    ok(shared_platform.cli("deployments", "activate", *which, "--wait"))
    assert status() == "ACTIVE"
    ok(shared_platform.cli("models", "delete", "kingpost-off", "--yes"))
    assert shared_platform.cli("models", "show", "kingpost-off").returncode == 1


def test_logs_are_followed(shared_platform: RunningPlatform, echo: str) -> None:
    started = subprocess.Popen(
        [sys.executable, "-m", "kingpost", "logs", echo, "-f"],
        stdout=subprocess.PIPE,
        text=True,
        env={
            **clean_environment(),
            "KINGPOST_REMOTE": shared_platform.address,
            "KINGPOST_API_KEY": shared_platform.key,
            "PYTHONUNBUFFERED": "1",
        },
    )
    assert started.stdout is not None
    with started.stdout:
        ok(shared_platform.cli("predict", echo, "-d", '{"print": "a line to follow"}'))
        found = next(line for line in started.stdout if "a line to follow" in line)
        assert found
        started.send_signal(signal.SIGINT)
        assert started.wait(timeout=20) == 130


def test_keys_are_made_and_revoked(shared_platform: RunningPlatform, echo: str) -> None:
    made = ok(shared_platform.cli("keys", "create", "ci", "--type", "invoke")).strip()
    environment = {
        **clean_environment(),
        "KINGPOST_REMOTE": shared_platform.address,
        "KINGPOST_API_KEY": made,
    }
    called = subprocess.run(
        [sys.executable, "-m", "kingpost", "secrets", "list"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert called.returncode == 1
    prefix = made.partition(".")[0]
    assert prefix in ok(shared_platform.cli("keys", "list"))
    ok(shared_platform.cli("keys", "revoke", prefix))
    assert prefix not in ok(shared_platform.cli("keys", "list"))


def test_a_wrong_key_is_told_what_to_do(shared_platform: RunningPlatform) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kingpost", "models"],
        capture_output=True,
        text=True,
        check=False,
        env={
            **clean_environment(),
            "KINGPOST_REMOTE": shared_platform.address,
            "KINGPOST_API_KEY": "wrong.key",
        },
    )
    assert done.returncode == 1
    assert "KINGPOST_API_KEY" in done.stderr
    assert "wrong.key" not in done.stderr


def test_status_and_whoami(shared_platform: RunningPlatform) -> None:
    assert json.loads(ok(shared_platform.cli("status", "--json")))["ready"] is True
    assert json.loads(ok(shared_platform.cli("whoami", "--json")))["url"] == shared_platform.address


def test_truss_needs_nothing_configured(shared_platform: RunningPlatform, tmp_path: Path) -> None:
    assert "default" in ok(shared_platform.cli("truss", "whoami"))
    folder = write_truss(tmp_path / "t", "kingpost-truss")
    ok(shared_platform.cli("truss", "push", str(folder), "--wait"))
    said = ok(
        shared_platform.cli(*("truss", "predict", "--published", "-d", '{"a": 1}'), cwd=str(folder))
    )
    assert json.loads(said[said.index("{") :])["echo"] == {"a": 1}


def test_over_tls_everything_works_too(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    options = ("--tls-cert", str(certificate), "--tls-key", str(key))
    with platform(tmp_path / "data", *options) as running:
        assert running.address.startswith("https://")
        folder = write_truss(tmp_path / "t", "kingpost-tls")
        ok(running.cli("status"))
        data = json.loads(ok(running.cli("push", str(folder), "--wait", "--json")))
        assert data["url"].startswith(running.address)
        assert json.loads(ok(running.cli("predict", "kingpost-tls", "-d", "{}")))["echo"] == {}
        ok(running.cli("truss", "push", str(folder), "--wait"))
        said = ok(running.cli("truss", "predict", "--published", "-d", '{"a": 1}', cwd=str(folder)))
        assert json.loads(said[said.index("{") :])["echo"] == {"a": 1}
