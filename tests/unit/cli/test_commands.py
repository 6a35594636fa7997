"""The commands that look and manage: what they ask of the API and what they print."""

import io
import json

import pytest

from tests.support.contract_values import deployment, environment, log_line, model
from tests.support.restserver import Answer, RestServer

MODEL = "/v1/models/m1234567"
DEPLOYMENT = f"{MODEL}/deployments/d1234567"
NOW_NS = 1_795_258_801_000_000_000


@pytest.fixture(autouse=True)
def _known(server: RestServer) -> None:
    server.on("GET", "/v1/models", {"models": [model(production_deployment_id="d1234567")]})
    server.on("GET", f"{MODEL}/deployments", {"deployments": [deployment(status="ACTIVE")]})
    server.on("GET", DEPLOYMENT, deployment(status="ACTIVE"))


@pytest.mark.parametrize(
    ("arguments", "columns"),
    [
        (["models"], ["NAME", "tiny-chat", "m1234567"]),
        (["models", "list"], ["tiny-chat"]),
        (["deployments", "tiny-chat"], ["STATUS", "deployment-1", "ACTIVE"]),
        (["deployments", "list", "tiny-chat"], ["d1234567"]),
        (["models", "show", "tiny-chat"], ["/model/m1234567"]),
        (["deployments", "show", "tiny-chat", "deployment-1"], ["predict_url", "logs_url"]),
    ],
)
def test_lists_are_plain_text_in_a_pipe(kingpost, arguments, columns) -> None:
    ran = kingpost(*arguments)
    assert ran.exit_code == 0, ran.err
    assert all(text in ran.out for text in columns)
    assert "\x1b" not in ran.out
    assert json.loads(kingpost(*arguments, "--json").out)


@pytest.mark.parametrize(
    ("arguments", "method", "path"),
    [
        (["deployments", "activate", "tiny-chat", "d1234567"], "POST", f"{DEPLOYMENT}/activate"),
        (
            ["deployments", "deactivate", "tiny-chat", "d1234567"],
            "POST",
            f"{DEPLOYMENT}/deactivate",
        ),
        (["deployments", "delete", "tiny-chat", "d1234567", "--yes"], "DELETE", DEPLOYMENT),
        (["models", "delete", "tiny-chat", "--yes"], "DELETE", MODEL),
    ],
)
def test_what_is_done_to_things(kingpost, server: RestServer, arguments, method, path) -> None:
    server.on(method, path, {"success": True})
    ran = kingpost(*arguments, "--json")
    assert ran.exit_code == 0, ran.err
    assert json.loads(ran.out) == {"success": True}
    assert len(server.asked(method, path)) == 1


def test_deleting_wants_a_yes(kingpost, server: RestServer, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    ran = kingpost("models", "delete", "tiny-chat")
    assert ran.exit_code == 2
    assert "--yes" in ran.err
    assert server.asked("DELETE", MODEL) == []


def test_a_retry_that_is_refused(kingpost, server: RestServer) -> None:
    answer = {"retried": False, "reason": "It is running.", "deployment": deployment()}
    server.on("POST", f"{DEPLOYMENT}/retry", answer)
    ran = kingpost("deployments", "retry", "tiny-chat", "d1234567")
    assert ran.exit_code == 1
    assert "It is running." in ran.err


def test_config_and_download(kingpost, server: RestServer, tmp_path) -> None:
    server.on(
        "GET", f"{DEPLOYMENT}/config", {"raw_config": "model_name: tiny-chat\n", "config": {"a": 1}}
    )
    assert kingpost("deployments", "config", "tiny-chat", "d1234567").out == (
        "model_name: tiny-chat\n"
    )
    server.on("GET", f"{DEPLOYMENT}/download", {"download_url": f"{server.url}/archives/x"})
    server.on("GET", "/archives/x", Answer(200, b"tar bytes"))
    target = tmp_path / "out.tar"
    ran = kingpost("deployments", "download", "tiny-chat", "d1234567", "-o", str(target))
    assert ran.exit_code == 0, ran.err
    assert target.read_bytes() == b"tar bytes"
    again = kingpost("deployments", "download", "tiny-chat", "d1234567", "-o", str(target))
    assert again.exit_code == 2
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".kingpost-")] == []


def test_a_download_from_elsewhere_gets_no_key(kingpost, server: RestServer, tmp_path) -> None:
    from tests.support.restserver import rest_server

    with rest_server() as elsewhere:
        elsewhere.on("GET", "/x", Answer(200, b"tar"))
        server.on("GET", f"{DEPLOYMENT}/download", {"download_url": f"{elsewhere.url}/x"})
        ran = kingpost(
            *("deployments", "download", "tiny-chat", "d1234567", "-o", str(tmp_path / "o"))
        )
        assert ran.exit_code == 0, ran.err
        assert "authorization" not in elsewhere.requests[0].headers


def test_promote(kingpost, server: RestServer) -> None:
    path = f"{MODEL}/environments/staging"
    server.on("POST", f"{path}/promote", deployment(environment="staging"))
    ran = kingpost(
        *("promote", "tiny-chat", "deployment-1", "--environment", "staging", "--json"),
        "--keep-previous",
    )
    assert ran.exit_code == 0, ran.err
    assert server.asked("POST", f"{path}/promote")[0].json() == {
        "deployment_id": "d1234567",
        "scale_down_previous_deployment": False,
        "preserve_env_instance_type": True,
    }
    data = json.loads(ran.out)
    assert data["environment_url"].endswith("/model/m1234567/environments/staging")


def test_a_promotion_that_fails_is_a_failure(kingpost, server: RestServer) -> None:
    path = f"{MODEL}/environments/production"
    failed = {
        "status": "FAILED",
        "percent_traffic_to_new_version": 0,
        "error_message": "The model did not load",
    }
    server.on("POST", f"{path}/promote", deployment(status="ACTIVE"))
    server.on("GET", path, environment(in_progress_promotion=failed))
    server.on("GET", f"{DEPLOYMENT}/logs", {"logs": []})
    ran = kingpost("promote", "tiny-chat", "d1234567", "--wait")
    assert ran.exit_code == 1
    assert "The model did not load" in ran.err


def test_environments(kingpost, server: RestServer) -> None:
    path = f"{MODEL}/environments"
    server.on("GET", path, {"environments": [environment()]})
    server.on("GET", f"{path}/production", environment())
    assert "production" in kingpost("env", "tiny-chat").out
    assert "scale_down_delay" in kingpost("env", "show", "tiny-chat", "production").out
    server.on("PATCH", f"{path}/production", {"status": "ACCEPTED", "message": "Changed."})
    ran = kingpost("env", "set", "tiny-chat", "production", "--max-replica", "4")
    assert ran.exit_code == 0, ran.err
    assert server.asked("PATCH", f"{path}/production")[0].json() == {
        "autoscaling_settings": {"max_replica": 4}
    }
    server.on("POST", path, environment(name="staging"))
    ran = kingpost("env", "create", "tiny-chat", "staging", "--min-replica", "0")
    assert ran.exit_code == 0, ran.err
    assert server.asked("POST", path)[0].json() == {
        "name": "staging",
        "autoscaling_settings": {"min_replica": 0},
    }
    assert kingpost("env", "set", "tiny-chat", "production").exit_code == 2
    missed = kingpost("env", "show", "tiny-chat", "prodcution")
    assert missed.exit_code == 1
    assert "Did you mean 'production'" in missed.err


def test_a_secret_comes_from_stdin_and_is_never_shown(
    kingpost, server: RestServer, monkeypatch
) -> None:
    server.on("POST", "/v1/secrets", {"name": "hf", "id": "1"})
    monkeypatch.setattr("sys.stdin", io.StringIO("two\nlines\n"))
    ran = kingpost("secrets", "set", "hf")
    assert ran.exit_code == 0, ran.err
    assert server.asked("POST", "/v1/secrets")[0].json() == {"name": "hf", "value": "two\nlines"}
    assert "lines" not in ran.out + ran.err
    assert kingpost("secrets", "set", "hf", "value-as-argument").exit_code == 2


@pytest.mark.parametrize("name", ["../x", "a/b", ".."])
def test_a_secret_needs_a_plain_name(kingpost, server: RestServer, monkeypatch, name) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("v"))
    assert kingpost("secrets", "set", name).exit_code == 1
    assert server.requests == []


def test_secrets_are_listed_and_removed(kingpost, server: RestServer) -> None:
    secret = {"id": "1", "name": "hf", "team_name": "default", "created_at": "2026-11-21T10:00:00Z"}
    server.on("GET", "/v1/secrets", {"secrets": [secret]})
    server.on("DELETE", "/v1/secrets/hf", {"name": "hf"})
    assert "hf" in kingpost("secrets").out
    assert kingpost("secrets", "rm", "hf").exit_code == 0
    missed = kingpost("secrets", "rm", "hg")
    assert missed.exit_code == 1
    assert "Did you mean 'hf'" in missed.err


def test_keys(kingpost, server: RestServer) -> None:
    server.on("POST", "/v1/api_keys", {"api_key": "pre.secret"})
    ran = kingpost("keys", "create", "ci", "--type", "invoke", "--model", "tiny-chat")
    assert ran.out == "pre.secret\n"
    assert server.asked("POST", "/v1/api_keys")[0].json() == {
        "name": "ci",
        "type": "WORKSPACE_INVOKE",
        "model_ids": ["m1234567"],
    }
    server.on("DELETE", "/v1/api_keys/pre", {"prefix": "pre"})
    assert kingpost("keys", "revoke", "pre.secret").exit_code == 0
    server.on("GET", "/v1/api_keys", {"keys": [{"prefix": "pre", "type": "PERSONAL"}]})
    assert "pre" in kingpost("keys").out
    assert kingpost("keys", "create", "x", "--type", "manage", "--model", "m").exit_code == 2


def test_predict_streams_what_comes(kingpost, server: RestServer) -> None:
    path = "/model/m1234567/production/predict"
    server.on("POST", path, Answer(200, chunks=(b"to", b"ken ", b"by token")))
    ran = kingpost("predict", "tiny-chat", "--data", '{"a": 1}')
    assert ran.exit_code == 0, ran.err
    assert ran.out == "token by token"
    assert server.asked("POST", path)[0].json() == {"a": 1}


@pytest.mark.parametrize(
    ("flags", "path"),
    [
        (["--environment", "staging"], "environments/staging/predict"),
        (["--environment", "production"], "production/predict"),
        (["--development"], "development/predict"),
        (["--deployment", "deployment-1"], "deployment/d1234567/predict"),
        (["--path", "/v1/chat/completions"], "production/sync/v1/chat/completions"),
    ],
)
def test_predict_finds_its_target(kingpost, server: RestServer, flags, path) -> None:
    server.on("POST", f"/model/m1234567/{path}", Answer(200, {"ok": True}))
    ran = kingpost("predict", "tiny-chat", "-d", "{}", "--json", *flags)
    assert ran.exit_code == 0, ran.err
    assert json.loads(ran.out)["output"] == {"ok": True}


def test_predict_reads_files_and_stdin(kingpost, server: RestServer, tmp_path, monkeypatch) -> None:
    path = "/model/m1234567/production/predict"
    server.on("POST", path, Answer(200, {}))
    (tmp_path / "in.json").write_text('{"from": "file"}')
    kingpost("predict", "tiny-chat", "-d", f"@{tmp_path / 'in.json'}")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"from": "stdin"}')))
    kingpost("predict", "tiny-chat")
    assert [r.json()["from"] for r in server.asked("POST", path)] == ["file", "stdin"]


def test_an_error_of_the_model_is_told(kingpost, server: RestServer) -> None:
    path = "/model/m1234567/production/predict"
    server.on("POST", path, Answer(500, {"error": "Internal Server Error (in model/chainlet)."}))
    ran = kingpost("predict", "tiny-chat", "-d", "{}")
    assert ran.exit_code == 3
    assert "in model/chainlet" in ran.err
    assert len(server.asked("POST", path)) == 1
    assert kingpost("predict", "tiny-chat", "-d", "{").exit_code == 2
    assert kingpost("predict", "tiny-chat", "-d", "{}", "--path", "../x").exit_code == 1


def test_logs(kingpost, server: RestServer) -> None:
    lines = [log_line(NOW_NS, "one"), log_line(NOW_NS + 1, "two", replica="abcde")]
    server.on("GET", f"{DEPLOYMENT}/logs", {"logs": lines})
    since = ("--since", "2026-11-21T10:00:00+00:00")
    ran = kingpost("logs", "tiny-chat", *since, "--min-level", "warning", "--search", "t.o")
    assert ran.exit_code == 0, ran.err
    assert [line.split(" ")[-1] for line in ran.out.splitlines()] == ["one", "two"]
    asked = server.asked("GET", f"{DEPLOYMENT}/logs")[0].query
    assert (asked["min_level"], asked["search_pattern"]) == ("WARNING", "t.o")
    assert asked["start_epoch_millis"] == "1795255200000"
    ran = kingpost("logs", "tiny-chat", "deployment-1", *since, "-n", "1", "--json")
    assert [json.loads(line)["message"] for line in ran.out.splitlines()] == ["two"]


def test_a_failed_deployment_shows_its_beginning(kingpost, server: RestServer) -> None:
    server.on("GET", DEPLOYMENT, deployment(status="BUILD_FAILED"))
    server.on("GET", f"{DEPLOYMENT}/logs", {"logs": []})
    ran = kingpost("logs", "tiny-chat", "d1234567", "--build")
    assert ran.exit_code == 0, ran.err
    assert "No lines" in ran.err
    assert kingpost("logs", "tiny-chat", "--build", "--since", "1h").exit_code == 2


def test_status(kingpost, server: RestServer) -> None:
    notice = {"code": "sandbox_missing", "message": "Install bubblewrap."}
    server.on("GET", "/healthz", {"status": "ok", "notices": [notice]})
    ran = kingpost("status")
    assert ran.exit_code == 0, ran.err
    assert "Install bubblewrap." in ran.out
    assert "authorization" not in server.asked("GET", "/healthz")[0].headers
    server.on("GET", "/healthz", Answer(503, {"status": "starting"}))
    assert kingpost("status").exit_code == 3
    server.on("GET", "/healthz", Answer(200, b"hello"))
    ran = kingpost("status")
    assert ran.exit_code == 3
    assert "no Kingpost platform" in ran.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(kingpost, shell, monkeypatch) -> None:
    ran = kingpost("completion", shell)
    assert ran.exit_code == 0, ran.err
    assert "_KINGPOST_COMPLETE" in ran.out


def test_an_interrupt_is_no_error_of_ours(kingpost, server: RestServer, monkeypatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kingpost.client.rest.RestClient.get", interrupt)
    ran = kingpost("models")
    assert ran.exit_code == 130
    assert "Traceback" not in ran.err
