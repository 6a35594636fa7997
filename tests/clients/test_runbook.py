"""The platform's half of the operator's runbook, with its own commands: curl and the truss CLI.

The container here only says what reached it. Steps and order are the runbook's; only addresses
and names differ.
"""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import textwrap
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.platform import RunningPlatform, wait_until
from tests.support.truss_cli import TrussCli, make_truss_cli
from tests.support.trusses import write_truss

TERMINAL = {"ACTIVE", "BUILD_FAILED", "DEPLOY_FAILED"}
SECRET = "runbook_api_token"
SERVER = """
    import json
    import os
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from pathlib import Path

    VERSION = "@version@"


    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            said = {
                "version": VERSION,
                "pid": os.getpid(),
                "method": self.command,
                "path": self.path,
                "headers": {name.lower(): value for name, value in self.headers.items()},
                "body": body.decode(),
                "secret": Path("/secrets/runbook_api_token").read_text(),
                "scale": os.environ.get("RUNBOOK_SCALE"),
            }
            data = json.dumps(said).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = answer

        def log_message(self, *_):
            pass


    ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
"""


@dataclass(frozen=True)
class Operator:
    """Whoever follows the runbook: a repository, a shell with curl, and the truss CLI."""

    truss: TrussCli
    repository: Path

    @property
    def platform(self) -> RunningPlatform:
        return self.truss.platform

    @property
    def folder(self) -> Path:
        return self.repository / "deploy" / "baseten" / "agent"

    def curl(self, url: str, *arguments: str) -> Any:
        command = ["curl", "-fsS", "-H", f"Authorization: Api-Key {self.platform.key}"]
        done = subprocess.run(
            [*command, *arguments, url], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def set_secret(self, value: str) -> None:
        payload = self.repository / "payload.json"
        payload.write_text(json.dumps({"name": SECRET, "value": value}))
        self.curl(
            f"{self.platform.address}/v1/secrets",
            *("-X", "POST", "-H", "Content-Type: application/json"),
            *("--data-binary", f"@{payload}"),
        )

    def write(self, version: str) -> None:
        """The package that the container runs lies beside the Truss, not in it."""
        package = self.repository / "src" / "runbook_agent"
        package.mkdir(parents=True, exist_ok=True)
        source = textwrap.dedent(SERVER).lstrip().replace("@version@", version)
        (package / "__main__.py").write_text(source)

    def push(self, *flags: str) -> tuple[str, str]:
        """The ids of model and deployment, from the address of the logs that a push prints."""
        out = self.truss("push", str(self.folder), *flags, "--include-git-info").stdout
        found = re.search(r"/models/(\w+)/logs/(\w+)", out)
        assert found is not None, out
        return found[1], found[2]

    def until_terminal(self, model: str, deployment: str) -> str:
        url = f"{self.platform.address}/v1/models/{model}/deployments/{deployment}"

        def status() -> str | None:
            said = str(self.curl(url)["status"])
            return said if said in TERMINAL else None

        return str(wait_until(status, 180, self.platform.output))


@dataclass(frozen=True)
class Deployed:
    operator: Operator
    model: str
    deployment: str

    def endpoint(self, target: str = "production") -> str:
        return f"{self.operator.platform.address}/model/{self.model}/{target}"


@pytest.fixture(scope="module")
def operator(
    shared_platform: RunningPlatform, tmp_path_factory: pytest.TempPathFactory
) -> Operator:
    truss = make_truss_cli(shared_platform, tmp_path_factory.mktemp("home"))
    made = Operator(truss, tmp_path_factory.mktemp("repository"))
    made.write("one")
    write_truss(
        made.folder,
        "runbook-agent",
        external_package_dirs=["../../../src"],
        secrets={SECRET: None},
        environment_variables={"RUNBOOK_SCALE": "0.5"},
        docker_server={
            "start_command": "python -m runbook_agent",
            "server_port": 8000,
            "predict_endpoint": "/predict",
            "readiness_endpoint": "/v1/health",
            "liveness_endpoint": "/v1/health",
        },
    )
    for command in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=t", "-c", "user.email=t@example.invalid", "commit", "-qm", "x"],
    ):
        subprocess.run(["git", *command], cwd=made.repository, check=True, capture_output=True)
    return made


@pytest.fixture(scope="module")
def deployed(operator: Operator) -> Deployed:
    operator.set_secret("first-token")
    model, deployment = operator.push("--no-cache", "--promote", "--deployment-name", "runbook-1")
    assert operator.until_terminal(model, deployment) == "ACTIVE"
    done = Deployed(operator, model, deployment)
    url = f"{operator.platform.address}/v1/models/{model}/deployments/{deployment}"
    wait_until(lambda: operator.curl(url)["is_production"])
    return done


def test_the_commit_is_kept_with_the_deployment(deployed: Deployed) -> None:
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"],
        cwd=deployed.operator.repository,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    database = deployed.operator.platform.data / "kingpost.sqlite3"
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT * FROM deployments").fetchall()
    (row,) = [row for row in rows if deployed.deployment in row]
    assert head in str(row)


def test_predict_is_the_configured_endpoint(deployed: Deployed) -> None:
    said = deployed.operator.curl(
        deployed.endpoint() + "/predict",
        *("-X", "POST", "-H", "Content-Type: application/json"),
        *("-d", '{"detached": true}'),
    )
    assert (said["method"], said["path"]) == ("POST", "/predict")
    assert json.loads(said["body"]) == {"detached": True}


@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1/health?deep=1", "/v1/chat/completions", "/v1/cua", "/a/b%2Fc"]
)
def test_sync_reaches_any_path_of_the_container(deployed: Deployed, path: str) -> None:
    assert deployed.operator.curl(f"{deployed.endpoint()}/sync{path}")["path"] == path


def test_the_models_own_host_does_the_same(deployed: Deployed) -> None:
    port = deployed.operator.platform.port
    host = f"http://model-{deployed.model}.api.localhost:{port}"
    predicted = deployed.operator.curl(f"{host}/production/predict", "-d", "{}")
    assert predicted["path"] == "/predict"
    assert deployed.operator.curl(f"{host}/production/sync/v1/health")["path"] == "/v1/health"


def test_both_layers_of_authentication_reach_the_container(deployed: Deployed) -> None:
    said = deployed.operator.curl(
        deployed.endpoint() + "/predict", "-H", "X-Mantis-Token: tenant-token", "-d", "{}"
    )
    assert said["headers"]["authorization"] == f"Api-Key {deployed.operator.platform.key}"
    assert said["headers"]["x-mantis-token"] == "tenant-token"


def test_environment_variables_of_the_config_are_set(deployed: Deployed) -> None:
    assert deployed.operator.curl(deployed.endpoint() + "/sync/v1/health")["scale"] == "0.5"


def test_a_changed_secret_is_there_without_a_redeploy(deployed: Deployed) -> None:
    def ask() -> Any:
        return deployed.operator.curl(deployed.endpoint() + "/sync/v1/health")

    before = ask()
    deployed.operator.set_secret("rotated-token")
    after = wait_until(lambda: (said := ask())["secret"] == "rotated-token" and said)
    assert before["secret"] != after["secret"]
    assert after["pid"] == before["pid"]
    assert after["version"] == before["version"]


def test_a_canary_with_a_changed_package_is_fresh_and_is_promoted(deployed: Deployed) -> None:
    """`--no-cache` is not needed for it here, nor does it harm."""
    operator = deployed.operator

    def version(target: str = "production") -> str:
        return str(operator.curl(deployed.endpoint(target) + "/sync/v1/health")["version"])

    operator.write("two")
    model, canary = operator.push("--deployment-name", "runbook-1-canary")
    assert model == deployed.model
    assert operator.until_terminal(model, canary) == "ACTIVE"
    shown = operator.curl(f"{operator.platform.address}/v1/models/{model}/deployments/{canary}")
    assert (shown["name"], shown["environment"]) == ("runbook-1-canary", None)
    assert version(f"deployment/{canary}") == "two"
    assert version() == "one"
    predicted = operator.curl(deployed.endpoint(f"deployment/{canary}") + "/predict", "-d", "{}")
    assert predicted["path"] == "/predict"
    operator.curl(
        f"{operator.platform.address}/v1/models/{model}/deployments/{canary}/promote",
        *("-X", "POST", "-d", "{}"),
    )
    wait_until(lambda: version() == "two")
    assert version(f"deployment/{deployed.deployment}") == "one"
