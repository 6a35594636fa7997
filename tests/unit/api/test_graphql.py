"""GraphQL as the truss CLI sends it: recorded requests, their answers, and what is refused."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kingpost.api.graphql.encoded import config_of, object_of, text_of
from kingpost.contract import DeploymentStatus, KeyCategory
from kingpost.errors import InvalidInputError
from tests.support.platform_app import World

RECORDED = json.loads((Path(__file__).parents[2] / "fixtures/truss-cli/graphql.json").read_text())
CONFIG = base64.b64encode(b'{"model_name": "demo", "resources": {"cpu": "2"}}').decode()


def recorded(operation: str, containing: str = "", **replaced: str) -> dict[str, Any]:
    """A recorded request, with this platform's ids in place of those recorded."""
    for request in RECORDED:
        if request["operation"] == operation and containing in request["query"]:
            query = request["query"].replace("<b64>", CONFIG)
            for old, new in replaced.items():
                query = query.replace(f'"{old}"', f'"{new}"')
            return {"query": query, "variables": request["variables"]}
    raise AssertionError(f"nothing recorded: {operation} {containing}")


async def ask(client: httpx.AsyncClient, request: dict[str, Any]) -> dict[str, Any]:
    response = await client.post("/graphql/", json=request)
    assert response.status_code == 200
    body = response.json()
    assert "errors" not in body, body
    data: dict[str, Any] = body["data"]
    return data


async def refused(client: httpx.AsyncClient, request: Any) -> tuple[str, str]:
    response = await client.post("/graphql/", json=request)
    assert response.status_code == 200
    error = response.json()["errors"][0]
    return error["extensions"]["code"], error["message"]


async def uploaded(world: World) -> str:
    """The key of a finished upload."""
    upload = world.platform.uploads.begin(world.team_id)
    file = world.platform.uploads.folder(upload) / "whole"
    file.write_bytes(b"an archive")
    return world.platform.uploads.finish(upload, file).key


async def test_a_push_as_recorded(client: httpx.AsyncClient, world: World) -> None:
    teams = (await ask(client, recorded("teams")))["teams"]
    assert teams == [{"id": world.team_id, "name": "default", "default": True}]
    assert (await ask(client, recorded("models", "all: true")))["models"] == []
    validation = (await ask(client, recorded("truss_validation")))["truss_validation"]
    assert validation == {"success": True, "details": '{"errors":[],"warnings":[]}'}

    credentials = (await ask(client, recorded("model_s3_upload_credentials")))[
        "model_s3_upload_credentials"
    ]
    assert credentials["endpoint_url"] == "http://localhost:8000/s3"
    upload = world.platform.uploads.by_access_key(credentials["aws_access_key_id"])
    assert upload is not None
    assert upload.secret_access_key == credentials["aws_secret_access_key"]

    key = {"trusses/xyz.tgz": await uploaded(world), "team1": world.team_id}
    first = await ask(client, recorded("create_model_from_truss", **key))
    version = first["create_model_from_truss"]["model_version"]
    model_id = version["oracle"]["id"]
    assert version["oracle"]["name"] == "demo"
    assert version["oracle"]["hostname"] == f"http://localhost:8000/model/{model_id}"
    assert version["instance_type"] == {"name": "2x8"}
    listed = (await ask(client, recorded("models", "team_id", **key)))["models"]
    assert [m["name"] for m in listed] == ["demo"]
    assert listed[0]["team"] == {"id": world.team_id, "name": "default"}

    ids = {"abc12345": model_id, **key}
    second = await ask(client, recorded("create_model_version_from_truss", 'name: "v1"', **ids))
    version_id = second["create_model_version_from_truss"]["model_version"]["id"]
    deployment = world.platform.deployments.by_id(world.team_id, version_id)
    assert deployment.name == "v1"
    assert deployment.labels == {"a": 1}
    assert deployment.raw_config == "model_name: demo\n"
    assert deployment.deploy_timeout_s == 1200
    assert deployment.target_environment == "production"
    draft = await ask(client, recorded("deploy_draft_truss", **ids))
    draft_id = draft["deploy_draft_truss"]["model_version"]["id"]
    assert world.platform.deployments.by_id(world.team_id, draft_id).is_development

    code, message = await refused(client, recorded("create_model_from_truss", **key))
    assert code == "CONFLICT"
    assert "exists already" in message


async def test_versions_of_a_model(client: httpx.AsyncClient, world: World) -> None:
    first = world.push("demo")
    world.activate(first.id, "production")
    second = world.push(model_id=first.model_id, config={"model_name": "demo"})
    draft = world.push("demo", is_development=True)
    request = recorded("model", "versions", abc12345=first.model_id)
    model = (await ask(client, request))["model"]
    assert model["hostname"] == f"http://localhost:8000/model/{first.model_id}"
    shown = {v["id"]: v for v in model["versions"]}
    assert [v["semver"] for v in model["versions"]] == ["0.3.0", "0.2.0", "0.1.0"]
    assert shown[first.id]["is_primary"] is True
    assert shown[first.id]["truss_hash"] == "h1"
    assert shown[first.id]["truss_signature"] == '{"a": 1}'
    assert shown[first.id]["current_model_deployment_status"] == {"status": "MODEL_READY"}
    assert shown[second.id]["truss_hash"] is None
    assert shown[second.id]["current_model_deployment_status"] == {"status": "BUILDING_MODEL"}
    assert shown[draft.id]["is_draft"] is True
    primary = recorded("model", "primary_version", abc12345=first.model_id)
    assert (await ask(client, primary))["model"]["primary_version"]["id"] == first.id
    version = (await ask(client, recorded("model_version", dep00001=second.id)))["model_version"]
    assert version["oracle"]["id"] == first.model_id
    by_name = {"query": '{ model(name: "demo") { id } }'}
    assert (await ask(client, by_name))["model"]["id"] == first.model_id


@pytest.mark.parametrize("status", list(DeploymentStatus))
async def test_every_status_has_its_name_here(
    client: httpx.AsyncClient, world: World, status: DeploymentStatus
) -> None:
    deployment = world.push("demo")
    world.change(deployment.id, status=status)
    request = recorded("model", "primary_version", abc12345=deployment.model_id)
    shown = (await ask(client, request))["model"]["primary_version"]
    assert shown["current_model_deployment_status"]["status"]


async def test_who_am_i_and_instances(client: httpx.AsyncClient, world: World) -> None:
    who = await ask(client, recorded("organization"))
    assert who == {"organization": {"workspace_name": "default"}, "user": {"email": "admin"}}
    query = """query Instances { listedInstances: listed_instances {
        id name millicpuLimit: millicpu_limit memoryLimit: memory_limit gpuCount: gpu_count
        gpuType: gpu_type gpuMemory: gpu_memory default displayName: display_name
        nodeCount: node_count price limitedCapacity: limited_capacity } }"""
    listed = (await ask(client, {"query": query}))["listedInstances"]
    assert listed[0]["id"] == "1x2"
    assert listed[0]["millicpuLimit"] == 1000
    assert [i["default"] for i in listed].count(True) == 1


async def test_chains_and_drafts_say_what_is_missing(
    client: httpx.AsyncClient, world: World
) -> None:
    assert (await ask(client, recorded("chains", "all: true")))["chains"] == []
    for operation in ("deploy_chain_atomic", "chain_s3_upload_credentials"):
        code, message = await refused(client, recorded(operation))
        assert code == "NOT_SUPPORTED"
        assert "Chains" in message
    assert (await refused(client, recorded("chain_deployment")))[0] == "RESOURCE_NOT_FOUND"
    for operation in ("truss_watch_state", "stage_patch_for_draft_truss", "sync_draft_truss"):
        assert (await refused(client, recorded(operation)))[0] == "RESOURCE_NOT_FOUND"


async def test_what_is_refused_is_explained(client: httpx.AsyncClient, world: World) -> None:
    unknown = {"query": '{ model(name: "nobody") { id } }'}
    code, message = await refused(client, unknown)
    assert code == "RESOURCE_NOT_FOUND"
    assert "nobody" in message
    model_id = world.push("demo").model_id
    ids = {"abc12345": model_id, "trusses/xyz.tgz": await uploaded(world)}
    promote = recorded("create_model_version_from_truss", 'name: "v1"', **ids)
    promote["query"] = promote["query"].replace('"production"', '"staging"')
    code, message = await refused(client, promote)
    assert code == "RESOURCE_NOT_FOUND"
    assert "staging" in message
    no_upload = recorded("create_model_version_from_truss", 'name: "v1"', abc12345=model_id)
    assert (await refused(client, no_upload))[0] == "VALIDATION_ERROR"
    labels = recorded("create_model_version_from_truss", 'name: "v1"', **ids)
    for value in ("[1]", "no json"):
        labels["variables"] = {**labels["variables"], "userDeployMetadata": value}
        assert (await refused(client, labels))[0] == "VALIDATION_ERROR"
    no_config = {"query": '{ truss_validation(config: "!!") { success } }'}
    assert (await refused(client, no_config))[0] == "VALIDATION_ERROR"
    bad = base64.b64encode(b'{"model_name": 3}').decode()
    said = await ask(
        client, {"query": f'{{ truss_validation(config: "{bad}") {{ success details }} }}'}
    )
    assert said["truss_validation"]["success"] is False
    assert "model_name" in said["truss_validation"]["details"]


@pytest.mark.parametrize(
    "query",
    [
        "{",
        "{ nothing }",
        'mutation { sync_draft_truss(id: "a" patch: 3) { id } }',
        "{ teams { id " + " ".join(f"a{i}: id" for i in range(600)) + " } }",
        "query Q { ...F } fragment F on Query { teams { id } ...F }",
        "{" + "a{" * 2000 + "}" * 2001,
        "{ __schema { types { " + "ofType { " * 30 + "name" + " }" * 33,
        "query A { teams { id } } query B { teams { id } }",
        "",
    ],
)
async def test_queries_that_can_not_be_run(client: httpx.AsyncClient, query: str) -> None:
    code, message = await refused(client, {"query": query})
    assert code == "VALIDATION_ERROR"
    assert "Traceback" not in message
    assert "/" not in message.replace("and/or", "")


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"query": 3}', b"\xff"])
async def test_bodies_that_are_no_request(client: httpx.AsyncClient, body: bytes) -> None:
    response = await client.post("/graphql", content=body)
    assert response.status_code == 200
    assert response.json()["errors"][0]["extensions"]["code"] == "VALIDATION_ERROR"


async def test_keys_are_checked(client: httpx.AsyncClient, world: World) -> None:
    invoke = world.new_key(KeyCategory.WORKSPACE_INVOKE)
    for key, expected in (("wrong", "UNAUTHORIZED"), (invoke, "FORBIDDEN")):
        response = await client.post(
            "/graphql/", json=recorded("teams"), headers={"Authorization": f"Api-Key {key}"}
        )
        assert response.json()["errors"][0]["extensions"]["code"] == expected
    assert (await client.get("/graphql/")).status_code == 405


async def test_the_whole_schema_can_be_read(client: httpx.AsyncClient) -> None:
    from graphql import build_client_schema, get_introspection_query

    query = get_introspection_query()
    schema = build_client_schema(await ask(client, {"query": query}))  # type: ignore[arg-type]
    assert schema.mutation_type is not None


@given(st.text())
def test_packed_values_are_read_or_refused(text: str) -> None:
    assert text_of(base64.b64encode(text.encode()).decode()) == text
    text_of(text)
    assert object_of(text) is None or isinstance(object_of(text), dict)
    with pytest.raises(InvalidInputError, match="config"):
        config_of(text)
