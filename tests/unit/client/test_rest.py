"""Retries, errors and where the key goes."""

import pytest

from kingpost import errors
from kingpost.client import rest
from kingpost.client.remote import Remote
from kingpost.client.resolve import find_deployment, find_model, miss
from kingpost.client.rest import RestClient
from tests.support.contract_values import deployment, model
from tests.support.restserver import Answer, rest_server

BUSY = Answer(503, {"code": "UNAVAILABLE", "message": "starting"}, {"Retry-After": "7"})


def client(url: str, pauses: list[float] | None = None, key: str = "k.secret") -> RestClient:
    noted = pauses if pauses is not None else []
    return RestClient(Remote("test", url, key), pause=noted.append)


def test_get_waits_as_asked_and_tries_again() -> None:
    pauses: list[float] = []
    with rest_server() as server, client(server.url, pauses) as api:
        server.on("GET", "/v1/models", BUSY, {"models": []})
        assert api.get("/v1/models") == {"models": []}
    assert len(pauses) == 1
    assert 6 < pauses[0] < 8


def test_get_gives_up_in_the_end() -> None:
    pauses: list[float] = []
    with rest_server() as server, client(server.url, pauses) as api:
        server.on("GET", "/v1/models", BUSY)
        with pytest.raises(errors.UnavailableError, match="starting"):
            api.get("/v1/models")
        assert len(server.requests) == rest.GET_ATTEMPTS


def test_what_changes_something_is_sent_once() -> None:
    with rest_server() as server, client(server.url) as api:
        for method in ("POST", "PATCH", "DELETE"):
            server.on(method, "/v1/x", BUSY)
        for call in (lambda: api.post("/v1/x"), lambda: api.patch("/v1/x", {})):
            with pytest.raises(errors.UnavailableError):
                call()
        with pytest.raises(errors.UnavailableError):
            api.delete("/v1/x")
        assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.InvalidInputError),
        (401, errors.UnauthorizedError),
        (403, errors.ForbiddenError),
        (404, errors.NotFoundError),
        (409, errors.ConflictError),
        (413, errors.TooLargeError),
        (418, errors.InvalidInputError),
        (429, errors.UnavailableError),
        (500, errors.KingpostError),
        (501, errors.NotSupportedError),
        (507, errors.StorageFullError),
    ],
)
def test_every_status_is_an_error_of_the_tree(status: int, kind: type[Exception]) -> None:
    with rest_server() as server, client(server.url) as api:
        server.on("POST", "/v1/x", Answer(status, {"code": "C", "message": "what to do"}))
        with pytest.raises(kind, match="what to do"):
            api.post("/v1/x")


def test_nobody_there() -> None:
    with rest_server() as server:
        url = server.url
    with client(url) as api, pytest.raises(errors.UnavailableError, match=r"Could not reach"):
        api.get("/v1/models")


def test_an_answer_that_is_no_json() -> None:
    with rest_server() as server, client(server.url) as api:
        server.on("GET", "/v1/models", Answer(200, b"<html>hello"))
        with pytest.raises(errors.UnavailableError, match="other than JSON"):
            api.get("/v1/models")


def test_a_redirect_is_not_followed() -> None:
    with rest_server() as elsewhere, rest_server() as server, client(server.url) as api:
        server.on("GET", "/v1/x", Answer(302, headers={"Location": f"{elsewhere.url}/v1/x"}))
        with pytest.raises(errors.UnavailableError, match="redirect"):
            api.get("/v1/x")
        assert elsewhere.requests == []


def test_loopback_never_goes_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with rest_server() as proxy, rest_server() as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        server.on("GET", "/v1/x", {})
        with client(server.url) as api:
            assert api.get("/v1/x") == {}
        assert proxy.requests == []


def test_no_client_is_made_where_the_key_would_go_in_clear() -> None:
    with pytest.raises(errors.ConflictError, match="not encrypted"):
        RestClient(Remote("gpu", "http://192.0.2.1:8000", "k.secret"))


def test_models_by_id_and_name() -> None:
    with rest_server() as server, client(server.url) as api:
        server.on("GET", "/v1/models/m1234567", model())
        server.on("GET", "/v1/models", {"models": [model()]})
        assert find_model(api, "m1234567")["name"] == "tiny-chat"
        assert find_model(api, "tiny-chat")["id"] == "m1234567"
        with pytest.raises(errors.NotFoundError, match="Did you mean 'tiny-chat'"):
            find_model(api, "tiny-chta")


def test_a_name_that_looks_like_an_id() -> None:
    with rest_server() as server, client(server.url) as api:
        server.on("GET", "/v1/models", {"models": [model(name="whisper1")]})
        assert find_model(api, "whisper1")["id"] == "m1234567"


def test_deployments_by_id_name_and_alias() -> None:
    base = "/v1/models/m1234567/deployments"
    older = deployment(id="d0000000", name="v1", created_at="2026-11-20T10:00:00Z")
    newer = deployment(id="d1111111", name="v1", created_at="2026-11-21T10:00:00Z")
    with rest_server() as server, client(server.url) as api:
        server.on("GET", base, {"deployments": [older, newer]})
        server.on("GET", f"{base}/d0000000", older)
        server.on("GET", f"{base}/production", newer)
        assert find_deployment(api, model(), "d0000000") == older
        assert find_deployment(api, model(), "v1") == newer
        assert find_deployment(api, model(), "production") == newer
        with pytest.raises(errors.NotFoundError, match="no development deployment"):
            find_deployment(api, model(), "development")
        with pytest.raises(errors.NotFoundError, match="'v1'"):
            find_deployment(api, model(), "v2")


def test_a_miss_without_anything_near() -> None:
    assert miss("model", "zzz", ["abc"], "list") == "No model is named 'zzz'. (list)"
