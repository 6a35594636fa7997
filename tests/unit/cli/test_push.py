"""`kingpost push` against a scripted server: what it sends, prints and how it exits."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from tests.support.contract_values import deployment, environment, log_line, model
from tests.support.restserver import Answer, Request, RestServer

CREDS = {
    "aws_access_key_id": "AKIAEXAMPLE",
    "aws_secret_access_key": "one-time-secret",
    "aws_session_token": "one-time-token",
}
NOW_NS = 1_795_258_801_000_000_000
DEPLOYMENT = "/v1/models/m1234567/deployments/d1234567"


@pytest.fixture
def truss(tmp_path: Path) -> Path:
    folder = tmp_path / "truss"
    (folder / "model").mkdir(parents=True)
    (folder / "config.yaml").write_text("model_name: tiny-chat\npython_version: py311\n")
    (folder / "model" / "model.py").write_text("class Model: ...\n")
    return folder


@pytest.fixture
def platform(server: RestServer) -> RestServer:
    server.on("GET", "/v1/models", {"models": []})
    server.on(
        "POST",
        "/v1/prepare_model_upload",
        {
            "creds": CREDS,
            "s3_bucket": "kingpost",
            "s3_key": "uploads/abc.tgz",
            "s3_region": "us-east-1",
            "endpoint_url": f"{server.url}/s3",
        },
    )
    server.on("PUT", "/s3/kingpost/uploads/abc.tgz", Answer(headers={"ETag": '"x"'}))
    server.on("POST", "/v1/models", {"model": model(), "deployment": deployment()})
    return server


def test_a_new_model(kingpost, platform: RestServer, truss: Path) -> None:
    ran = kingpost("push", str(truss), "--json")
    assert ran.exit_code == 0, ran.err
    base = f"{platform.url}/model/m1234567/deployment/d1234567"
    assert json.loads(ran.out) == {
        "model_id": "m1234567",
        "model_name": "tiny-chat",
        "deployment_id": "d1234567",
        "deployment_name": "deployment-1",
        "environment": None,
        "status": "BUILDING",
        "url": base,
        "predict_url": f"{base}/predict",
        "openai_url": f"{base}/sync/v1",
        "logs_url": f"{platform.url}/models/m1234567/logs/d1234567",
    }
    prepared = platform.asked("POST", "/v1/prepare_model_upload")[0].json()
    assert prepared["name"] == "tiny-chat"
    created = platform.asked("POST", "/v1/models")[0].json()["source"]
    assert created == {
        "kind": "model_archive",
        "name": "tiny-chat",
        "s3_key": "uploads/abc.tgz",
        "deployment": {
            "config": {"model_name": "tiny-chat", "python_version": "py311"},
            "raw_config": "model_name: tiny-chat\npython_version: py311\n",
        },
    }
    archive = platform.asked("PUT", "/s3/kingpost/uploads/abc.tgz")[0]
    with tarfile.open(fileobj=io.BytesIO(archive.body)) as tar:
        assert tar.getnames() == ["config.yaml", "model/model.py"]
    assert "abcd.secret" not in str(archive.headers)
    assert all(
        r.headers["authorization"] == "Api-Key abcd.secret"
        for r in platform.requests
        if r.path.startswith("/v1/")
    )


def test_the_flags_reach_the_api(kingpost, platform: RestServer, truss: Path) -> None:
    platform.on("GET", "/v1/models", {"models": [model()]})
    platform.on(
        "POST",
        "/v1/models/m1234567/deployments",
        {"model": model(), "deployment": deployment(environment="staging")},
    )
    ran = kingpost(
        *("push", str(truss), "--environment", "staging", "--deployment-name", "v2"),
        *("--no-cache", "--labels", '{"team": "search"}', "--deploy-timeout-minutes", "20"),
        "--no-preserve-env-instance-type",
    )
    assert ran.exit_code == 0, ran.err
    assert platform.asked("POST", "/v1/prepare_model_upload")[0].json()["model_id"] == "m1234567"
    source = platform.asked("POST", "/v1/models/m1234567/deployments")[0].json()["source"]
    assert "name" not in source
    sent = source["deployment"]
    assert sent["config"]["build"] == {"no_cache": True}
    assert "no_cache" not in sent["raw_config"]
    assert sent["environment_name"] == "staging"
    assert sent["preserve_env_instance_type"] is False
    assert (sent["deployment_name"], sent["labels"]) == ("v2", {"team": "search"})
    assert sent["deploy_timeout_minutes"] == 20


def test_wait_shows_the_log_and_ends_when_ready(
    kingpost, platform: RestServer, truss: Path
) -> None:
    platform.on("GET", DEPLOYMENT, deployment(status="LOADING_MODEL"), deployment(status="ACTIVE"))
    platform.on(
        "GET",
        f"{DEPLOYMENT}/logs",
        {"logs": [log_line(NOW_NS, "installing requirements")]},
        {"logs": [log_line(NOW_NS, "installing requirements"), log_line(NOW_NS + 1, "ready")]},
    )
    ran = kingpost("push", str(truss), "--wait")
    assert ran.exit_code == 0, ran.err
    assert ran.err.count("installing requirements") == 1
    assert ran.err.count("ready") == 1
    assert "ACTIVE" in ran.out


def test_a_failed_build_exits_1_with_the_last_lines(
    kingpost, platform: RestServer, truss: Path
) -> None:
    platform.on("GET", DEPLOYMENT, deployment(status="BUILD_FAILED"))
    platform.on("GET", f"{DEPLOYMENT}/logs", {"logs": [log_line(NOW_NS, "no such package: nope")]})
    ran = kingpost("push", str(truss), "--wait", "--json")
    assert ran.exit_code == 1
    assert ran.out == ""
    error = json.loads(ran.err)
    assert error["code"] == "BUILD_FAILED"
    assert "no such package: nope" in error["message"]


def test_waiting_survives_a_restart_of_the_platform(
    kingpost, platform: RestServer, truss: Path
) -> None:
    away = Answer(503, {"code": "UNAVAILABLE", "message": "starting"}, {"Retry-After": "0"})
    platform.on("GET", DEPLOYMENT, *[away] * 6, deployment(status="ACTIVE"))
    platform.on("GET", f"{DEPLOYMENT}/logs", {"logs": []})
    ran = kingpost("push", str(truss), "--wait", "--json")
    assert ran.exit_code == 0, ran.err
    assert json.loads(ran.out)["status"] == "ACTIVE"


def test_wait_with_promotion_ends_when_the_environment_points_to_it(
    kingpost, platform: RestServer, truss: Path
) -> None:
    active = deployment(status="ACTIVE", environment="production")
    platform.on("GET", DEPLOYMENT, active)
    platform.on("GET", f"{DEPLOYMENT}/logs", {"logs": []})
    releasing = {"status": "RELEASING", "percent_traffic_to_new_version": 0}
    platform.on(
        "GET",
        "/v1/models/m1234567/environments/production",
        environment(in_progress_promotion=releasing),
        environment(current_deployment=active),
    )
    ran = kingpost("push", str(truss), "--promote", "--wait", "--json")
    assert ran.exit_code == 0, ran.err
    assert len(platform.asked("GET", "/v1/models/m1234567/environments/production")) == 2


def test_keeping_the_previous_production_promotes_when_ready(
    kingpost, platform: RestServer, truss: Path
) -> None:
    active = deployment(status="ACTIVE")
    platform.on("GET", DEPLOYMENT, active)
    platform.on("GET", f"{DEPLOYMENT}/logs", {"logs": []})
    production = "/v1/models/m1234567/environments/production"
    platform.on("POST", f"{production}/promote", active)
    platform.on("GET", production, environment(current_deployment=active))
    ran = kingpost(
        *("push", str(truss), "--promote", "--preserve-previous-production-deployment", "--json")
    )
    assert ran.exit_code == 0, ran.err
    created = platform.asked("POST", "/v1/models")[0].json()["source"]["deployment"]
    assert "environment_name" not in created
    assert platform.asked("POST", f"{production}/promote")[0].json() == {
        "deployment_id": "d1234567",
        "scale_down_previous_deployment": False,
        "preserve_env_instance_type": True,
    }


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--promote", "--environment", "staging"], "one of --promote and --environment"),
        (["--preserve-previous-production-deployment"], "needs --promote"),
        (["--development", "--promote"], "--development can't go with"),
        (["--labels", "[1]"], "must be a JSON object"),
        (["--labels", "{"], "no JSON"),
        (["--timeout-seconds", "5"], "needs --wait"),
    ],
)
def test_flags_that_contradict_are_usage_errors(
    kingpost, platform: RestServer, truss: Path, flags: list[str], said: str
) -> None:
    ran = kingpost("push", str(truss), *flags)
    assert ran.exit_code == 2
    assert said in ran.err
    assert platform.requests == []


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--deployment-name", "a b"], "'a b'"),
        (["--deploy-timeout-minutes", "5"], "between 10 and 1440"),
    ],
)
def test_values_that_no_platform_takes_are_refused_before_anything_is_sent(
    kingpost, platform: RestServer, truss: Path, flags: list[str], said: str
) -> None:
    ran = kingpost("push", str(truss), *flags)
    assert ran.exit_code == 1
    assert said in ran.err
    assert platform.requests == []


def test_a_folder_that_is_no_truss(kingpost, platform: RestServer, tmp_path: Path) -> None:
    ran = kingpost("push", str(tmp_path / "nothing"))
    assert ran.exit_code == 1
    assert "is not a folder" in ran.err
    (tmp_path / "bare").mkdir()
    ran = kingpost("push", str(tmp_path / "bare"))
    assert ran.exit_code == 1
    assert "config.yaml does not exist" in ran.err


def test_an_error_of_the_server_is_told_in_its_words(
    kingpost, platform: RestServer, truss: Path
) -> None:
    platform.on(
        "POST",
        "/v1/prepare_model_upload",
        Answer(400, {"code": "VALIDATION_ERROR", "message": "python_version py27 is too old."}),
    )
    ran = kingpost("push", str(truss))
    assert ran.exit_code == 1
    assert "python_version py27 is too old." in ran.err
    assert "Traceback" not in ran.err


def test_a_development_push(kingpost, platform: RestServer, truss: Path) -> None:
    platform.on(
        "POST", "/v1/models", {"model": model(), "deployment": deployment(is_development=True)}
    )
    ran = kingpost("push", str(truss), "--development", "--json")
    assert ran.exit_code == 0, ran.err
    sent = platform.asked("POST", "/v1/models")[0].json()["source"]["deployment"]
    assert sent["is_development"] is True
    assert json.loads(ran.out)["url"] == f"{platform.url}/model/m1234567/development"


def test_a_broken_upload_is_sent_again(kingpost, platform: RestServer, truss: Path) -> None:
    def verified(request: Request) -> Answer:
        assert request.headers["content-length"] == str(len(request.body))
        return Answer()

    path = "/s3/kingpost/uploads/abc.tgz"
    platform.on("PUT", path, Answer(500, b"<Error><Message>hm</Message></Error>"), verified)
    ran = kingpost("push", str(truss))
    assert ran.exit_code == 0, ran.err
    first, second = platform.asked("PUT", path)
    assert first.body == second.body
