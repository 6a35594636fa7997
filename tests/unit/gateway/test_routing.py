"""Hosts and paths lead where the contract says, and nowhere else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kingpost.gateway.answers import Refusal
from kingpost.gateway.routing import (
    Action,
    Call,
    Destination,
    Health,
    Internal,
    Nowhere,
    Router,
    reaches_control_server,
)


def find(host: bytes, target: bytes, *names: str) -> Destination:
    return Router(names).resolve(host, target)[0]


@pytest.mark.parametrize(
    ("host", "target", "call"),
    [
        (
            b"localhost:8000",
            b"/model/m1/production/predict",
            Call("m1", Action.PREDICT, "production"),
        ),
        (b"10.1.2.3", b"/model/m1/environments/qa/run_remote", Call("m1", Action.RUN_REMOTE, "qa")),
        (
            b"model-m1.api.localhost",
            b"/development/websocket?x",
            Call("m1", Action.WEBSOCKET, development=True),
        ),
        (
            b"MODEL-m1.Localhost:1",
            b"/deployment/d1/sync/v1/chat?x=/",
            Call("m1", Action.SYNC, deployment_id="d1", path=b"/v1/chat"),
        ),
        (b"model-m1-qa.api.localhost", b"/predict", Call("m1", Action.PREDICT, "qa")),
        (b"model-m1-qa.api.127.0.0.1", b"/sync/", Call("m1", Action.SYNC, "qa", path=b"/")),
        (b"model-m1.localhost", b"/async_request/r1", Call("m1", Action.ASYNC_REQUEST)),
        (
            b"[::1]:8000",
            b"/model/m1/production/sync",
            Call("m1", Action.SYNC, "production", path=b"/"),
        ),
    ],
)
def test_calls(host: bytes, target: bytes, call: Call) -> None:
    assert find(host, target) == call


@pytest.mark.parametrize(
    ("host", "target", "destination"),
    [
        (b"api.localhost:8000", b"/v1/models", Internal(b"localhost:8000")),
        (b"localhost:8000", b"/graphql/", Internal(b"localhost:8000")),
        (b"127.0.0.1", b"/", Internal(b"127.0.0.1")),
        (b"localhost", b"/models/m1/logs/d1", Internal(b"localhost")),
        (b"localhost", b"/healthz?x", Health()),
        (b"api.localhost", b"http://api.localhost:8000/v1/x", Internal(b"localhost:8000")),
    ],
)
def test_other_places(host: bytes, target: bytes, destination: Destination) -> None:
    assert find(host, target) == destination


@pytest.mark.parametrize(
    ("host", "target", "status"),
    [
        (b"example.com", b"/", 421),
        (b"localhost.example.com", b"/", 421),
        (b"model-m1.example.com", b"/production/predict", 421),
        (b".", b"/", 421),
        (b"a b", b"/", 400),
        (b"a,localhost", b"/", 400),
        (b"a@localhost", b"/", 400),
        (b"localhost/", b"/", 400),
        (b"\xc3\xa9", b"/", 400),
        (b"localhost", b"http://local%68ost/", 400),
        (b"localhost", b"http://example.com/", 421),
        (b"localhost", b"/model/m1/../../v1/models", 404),
        (b"localhost", b"/model/m1/production%2Fpredict", 404),
        (b"localhost", b"/model/m1/production/predict/", 404),
        (b"localhost", b"/model/m1", 404),
        (b"localhost", b"/model/", 404),
        (b"model-m1.localhost", b"/healthz", 404),
        (b"model-m1.localhost", b"/v1/models", 404),
        (b"localhost", b"/model/m1/production/sync/../control/patch", 400),
        (b"localhost", b"/model/m1/production/sync/a/%2e%2E/b", 400),
        (b"localhost", b"/model/m1/production/sync/a%2F..%2Fb", 400),
    ],
)
def test_refused(host: bytes, target: bytes, status: int) -> None:
    destination = find(host, target)
    assert isinstance(destination, Nowhere)
    assert destination.status == status


def test_names_given_at_start() -> None:
    assert find(b"models.example.com", b"/", "Models.example.com") == Internal(
        b"models.example.com"
    )
    assert find(
        b"model-m1.models.example.com", b"/production/predict", "models.example.com"
    ) == Call("m1", Action.PREDICT, "production")
    assert isinstance(find(b"evil.example.com", b"/", "models.example.com"), Nowhere)
    assert find(b"anything.example.com", b"/", "*") == Internal(b"anything.example.com")


@pytest.mark.parametrize(
    "target", [b"*", b"ftp://localhost/", b"http://a@localhost/", b"http:///x"]
)
def test_targets_that_are_none(target: bytes) -> None:
    with pytest.raises(Refusal):
        find(b"localhost", target)


@pytest.mark.parametrize(
    ("path", "reaches"),
    [
        (b"/control/patch", True),
        (b"//Control/patch", True),
        (b"/%63ontrol/patch", True),
        (b"/%2563ontrol", True),
        (b"/control%2Fpatch", True),
        (b"/v1/control", False),
        (b"/controls", False),
        (b"/", False),
        (b"/100%", False),
    ],
)
def test_the_control_server_is_the_platforms_own(path: bytes, reaches: bool) -> None:
    assert reaches_control_server(path) is reaches


ascii_bytes = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=40).map(
    str.encode
)


@given(ascii_bytes, st.sampled_from([b"localhost", b"model-m1.localhost", b"api.localhost"]))
def test_no_path_breaks_the_router(path: bytes, host: bytes) -> None:
    router = Router()
    first = router.resolve(host, b"/" + path)
    assert router.resolve(host, b"/" + path) == first
    assert first[2] + first[3] == b"/" + path


@given(ascii_bytes, ascii_bytes)
def test_only_our_own_hosts_are_answered(name: bytes, path: bytes) -> None:
    host = name + b".example.com"
    destination = find(host, b"/" + path)
    assert isinstance(destination, Nowhere)
    assert destination.status in {400, 421}
