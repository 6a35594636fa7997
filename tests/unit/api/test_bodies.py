"""Request bodies: whatever is sent gets an answer that says what was expected, never a 500."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kingpost.api import bodies, inputs
from kingpost.errors import InvalidInputError
from tests.support import openapi
from tests.support.platform_app import make_world

KINDS: dict[str, type[Any]] = {
    "PrepareModelUploadRequestV1": bodies.PrepareUpload,
    "CreateModelDeploymentRequestV1": bodies.CreateDeployment,
    "CreateEnvironmentRequestV1": bodies.CreateEnvironment,
    "UpdateAutoscalingSettingsV1": bodies.Autoscaling,
    "UpdateRequestBackpressureSettingsV1": bodies.BackpressureSettings,
    "PromoteToEnvironmentRequestV1": bodies.PromoteToEnvironment,
    "GetDeploymentLogsRequestV1": bodies.LogFilters,
    "UpsertSecretRequestV1": bodies.UpsertSecret,
    "CreateAPIKeyRequestV1": bodies.CreateKey,
    "UpdateDeploymentRequestV1": bodies.UpdateDeployment,
}
OURS_TO_CHECK_LATER = {"UpdateAutoscalingSettingsV1", "CreateEnvironmentRequestV1"}
"""Ranges of these are the domain's: the bodies only have the types."""

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(-1e9, 1e9).filter(lambda x: not x.is_integer())
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = {
    "autoscaling_settings",
    "config",
    "deployment",
    "deployment_id",
    "deployment_name",
    "direction",
    "includes",
    "is_development",
    "kind",
    "limit",
    "max_replica",
    "min_level",
    "model_ids",
    "name",
    "policy",
    "promotion_settings",
    "s3_key",
    "source",
    "type",
    "value",
}
objects = st.dictionaries(
    st.sampled_from(sorted(FIELDS)),
    json_values
    | st.sampled_from(["model_archive", "REJECT_ON_FULL", "asc", "INFO", "WORKSPACE_INVOKE", "x"])
    | st.dictionaries(st.sampled_from(sorted(FIELDS)), json_values, max_size=4),
    max_size=6,
)


def reads(body: bytes, kind: type[Any]) -> bool:
    """Whether it is read; any other outcome than that and a clear refusal is an error."""
    try:
        inputs.decode(body, kind)
    except InvalidInputError:
        return False
    return True


@pytest.mark.parametrize("schema", sorted(KINDS))
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(body=objects)
def test_bodies_agree_with_the_document(schema: str, body: dict[str, Any]) -> None:
    """What the document allows is read; what it does not is refused."""
    allowed = openapi.check_request(schema, body)
    read = reads(json.dumps(body).encode(), KINDS[schema])
    if allowed:
        assert read
    elif schema not in OURS_TO_CHECK_LATER:
        assert not read


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    assert reads(body, bodies.UpsertSecret) in {True, False}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "not valid JSON"),
        (b'{"name": 3, "value": "x"}', "name: expected str, got int"),
        (b"[]", "object"),
        (b"{}", "name"),
        (b'{"x":' + b"[" * 100_000, "JSON"),
        (b'{"name": "a\\ud800", "value": ""}', "JSON"),
    ],
)
def test_messages_say_what_was_expected(body: bytes, says: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        inputs.decode(body, bodies.UpsertSecret)
    assert says in caught.value.message


async def test_a_field_deep_inside_is_named(client: httpx.AsyncClient) -> None:
    body = {"name": "x", "deployment": {"config": {}, "deploy_timeout_minutes": "soon"}}
    response = await client.post("/v1/prepare_model_upload", json=body)
    assert response.status_code == 400
    assert response.json()["message"].startswith("deployment.deploy_timeout_minutes: expected int")


async def test_a_body_past_the_limit(client: httpx.AsyncClient) -> None:
    async def endless() -> Any:
        for _ in range(12):
            yield b" " * 1_000_000

    for content in (b" " * 11_000_000, endless()):
        response = await client.post("/v1/secrets", content=content)
        assert response.status_code == 413
        assert response.json()["code"] == "PAYLOAD_TOO_LARGE"


PATHS = [
    ("POST", "/v1/prepare_model_upload"),
    ("POST", "/v1/models"),
    ("POST", "/v1/models/{model}/deployments"),
    ("PATCH", "/v1/models/{model}/deployments/{deployment}"),
    ("PATCH", "/v1/models/{model}/deployments/{deployment}/autoscaling_settings"),
    ("POST", "/v1/models/{model}/environments"),
    ("PATCH", "/v1/models/{model}/environments/production"),
    ("POST", "/v1/models/{model}/environments/production/promote"),
    ("POST", "/v1/models/{model}/deployments/{deployment}/logs"),
    ("POST", "/v1/secrets"),
    ("POST", "/v1/api_keys"),
]


def test_no_body_brings_the_platform_down(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    deployment = world.push("demo")
    names = {"model": deployment.model_id, "deployment": deployment.id}

    async def send(method: str, path: str, body: dict[str, Any]) -> httpx.Response:
        async with world.client() as client:
            return await client.request(method, path.format(**names), json=body)

    @settings(max_examples=150, deadline=None)
    @given(st.sampled_from(PATHS), objects)
    def check(door: tuple[str, str], body: dict[str, Any]) -> None:
        response = asyncio.run(send(*door, body))
        assert response.status_code < 500 or response.status_code == 501, response.text
        if response.status_code != 200:
            assert set(response.json()) == {"code", "message"}

    check()
    world.store.close()
