"""The management API: every answer conforms to the contract's document, errors say what to do."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from kingpost.api.rest.routes import SERVED
from kingpost.contract import DeploymentStatus, KeyCategory
from tests.support import openapi
from tests.support.platform_app import World


async def ask(client: httpx.AsyncClient, method: str, path: str, body: Any = None) -> Any:
    """The answer to a request that succeeds, checked against the document."""
    response = await client.request(method, path, json=body)
    assert response.status_code == 200, response.text
    openapi.check(method, path, response.json())
    return response.json()


async def refused(
    client: httpx.AsyncClient, method: str, path: str, body: Any = None, **more: Any
) -> tuple[int, str, str]:
    response = await client.request(method, path, json=body, **more)
    answer = response.json()
    assert set(answer) == {"code", "message"}
    assert response.status_code >= 400
    return response.status_code, answer["code"], answer["message"]


@pytest.fixture
def served(world: World) -> tuple[str, str]:
    """A model's id and its production deployment's."""
    deployment = world.push("demo", raw_config="model_name: demo  # mine\n")
    world.activate(deployment.id, "production")
    return deployment.model_id, deployment.id


async def test_models_are_listed_by_exact_name(
    client: httpx.AsyncClient, world: World, served: tuple[str, str]
) -> None:
    world.push("other")
    both = await ask(client, "GET", "/v1/models")
    assert [m["name"] for m in both["models"]] == ["demo", "other"]
    one = await ask(client, "GET", "/v1/models?name=demo")
    assert [m["id"] for m in one["models"]] == [served[0]]
    assert one["models"][0]["production_deployment_id"] == served[1]
    assert (await ask(client, "GET", "/v1/models?name=Demo"))["models"] == []
    assert await ask(client, "GET", f"/v1/teams/{world.team_id}/models") == both


async def test_a_model_is_shown_and_deleted(
    client: httpx.AsyncClient, served: tuple[str, str]
) -> None:
    path = f"/v1/models/{served[0]}"
    assert (await ask(client, "GET", path))["instance_type_name"] == "1x2"
    assert await ask(client, "DELETE", path) == {"id": served[0], "deleted": True}
    status, code, message = await refused(client, "GET", path)
    assert (status, code) == (404, "RESOURCE_NOT_FOUND")
    assert served[0] in message


async def test_a_push_over_rest(client: httpx.AsyncClient, world: World) -> None:
    payload = {"config": {"model_name": "demo"}, "labels": {"a": 1}, "deployment_name": "v1"}
    prepared = await ask(
        client, "POST", "/v1/prepare_model_upload", {"name": "demo", "deployment": payload}
    )
    assert prepared["endpoint_url"] == "http://localhost:8000/s3"
    assert set(prepared["creds"]) == {
        "aws_access_key_id",
        "aws_secret_access_key",
        "aws_session_token",
    }
    upload = world.platform.uploads.by_access_key(prepared["creds"]["aws_access_key_id"])
    assert upload is not None
    source = {
        "kind": "model_archive",
        "name": "demo",
        "deployment": payload,
        "s3_key": prepared["s3_key"],
    }
    status, _, message = await refused(client, "POST", "/v1/models", {"source": source})
    assert status == 400
    assert "upload the archive" in message
    file = world.platform.uploads.folder(upload) / "whole"
    file.write_bytes(b"an archive")
    world.platform.uploads.finish(upload, file)
    made = await ask(client, "POST", "/v1/models", {"source": source})
    assert made["deployment"]["status"] == "BUILDING"
    assert made["deployment"]["labels"] == {"a": 1}
    assert made["model"]["deployments_count"] == 1
    source = {**source, "deployment": {**payload, "deployment_name": "v2"}}
    added = await ask(
        client, "POST", f"/v1/models/{made['model']['id']}/deployments", {"source": source}
    )
    assert added["deployment"]["name"] == "v2"
    assert added["model"]["deployments_count"] == 2


async def test_a_dry_run_only_checks(client: httpx.AsyncClient, world: World) -> None:
    body = {"name": "demo", "dry_run": True, "deployment": {"config": {"model_name": "demo"}}}
    prepared = await ask(client, "POST", "/v1/prepare_model_upload", body)
    assert set(prepared.values()) == {None}
    bad = {**body, "deployment": {"config": {"model_name": 3}}}
    status, code, message = await refused(client, "POST", "/v1/prepare_model_upload", bad)
    assert (status, code) == (400, "VALIDATION_ERROR")
    assert "model_name" in message
    for both in ({"model_id": "x"}, {"name": None}):
        status, _, message = await refused(
            client, "POST", "/v1/prepare_model_upload", {**body, **both}
        )
        assert status == 400
        assert "exactly one" in message
    world.push("demo")
    status, code, _ = await refused(client, "POST", "/v1/prepare_model_upload", body)
    assert (status, code) == (409, "CONFLICT")


async def test_deployments_by_id_and_alias(
    client: httpx.AsyncClient, world: World, served: tuple[str, str]
) -> None:
    model_id, deployment_id = served
    draft = world.push("demo", is_development=True)
    root = f"/v1/models/{model_id}/deployments"
    production = await ask(client, "GET", f"{root}/production")
    assert production["id"] == deployment_id
    assert production["is_production"] is True
    assert production["environment"] == "production"
    assert production["active_replica_count"] == 1
    assert (await ask(client, "GET", f"{root}/development"))["id"] == draft.id
    listed = await ask(client, "GET", root)
    assert [d["id"] for d in listed["deployments"]] == [draft.id, deployment_id]
    named = await ask(client, "GET", f"{root}?name={production['name']}")
    assert [d["id"] for d in named["deployments"]] == [deployment_id]


async def test_deployments_are_renamed_tuned_and_retried(
    client: httpx.AsyncClient, world: World, served: tuple[str, str]
) -> None:
    model_id, deployment_id = served
    other = world.push(model_id=model_id, config={"model_name": "demo"})
    one = f"/v1/models/{model_id}/deployments/{other.id}"
    assert (await ask(client, "PATCH", one, {"name": "canary"}))["name"] == "canary"
    assert (await refused(client, "PATCH", one, {"name": "no spaces"}))[0] == 400
    scaled = await ask(client, "PATCH", f"{one}/autoscaling_settings", {"max_replica": 3})
    assert scaled["status"] == "ACCEPTED"
    again = await ask(client, "PATCH", f"{one}/autoscaling_settings", {"max_replica": 3})
    assert again["status"] == "UNCHANGED"
    policy = {"policy": "REJECT_ON_FULL"}
    assert await ask(client, "PATCH", f"{one}/request_backpressure_settings", policy) == policy
    shown = await ask(client, "GET", one)
    assert shown["autoscaling_settings"]["max_replica"] == 3
    assert shown["request_backpressure_settings"] == policy
    not_retried = await ask(client, "POST", f"{one}/retry")
    assert not_retried["retried"] is False
    assert "BUILDING" in not_retried["reason"]
    world.change(other.id, status=DeploymentStatus.BUILD_FAILED)
    assert (await ask(client, "POST", f"{one}/retry"))["retried"] is True
    assert await ask(client, "POST", f"{one}/deactivate") == {"success": True}
    assert (await ask(client, "GET", one))["status"] == "BUILD_STOPPED"
    assert (await ask(client, "DELETE", one))["deleted"] is True
    status, code, message = await refused(
        client, "DELETE", f"/v1/models/{model_id}/deployments/{deployment_id}"
    )
    assert (status, code) == (409, "CONFLICT")
    assert "Promote another" in message


async def test_config_in_three_forms(client: httpx.AsyncClient, served: tuple[str, str]) -> None:
    path = f"/v1/models/{served[0]}/deployments/{served[1]}/config"
    parsed, raw = {"model_name": "demo"}, "model_name: demo  # mine\n"
    assert await ask(client, "GET", path) == {"config": parsed, "raw_config": raw}
    assert await ask(client, "GET", f"{path}?output_format=raw") == {
        "config": None,
        "raw_config": raw,
    }
    assert await ask(client, "GET", f"{path}?output_format=parsed") == {
        "config": parsed,
        "raw_config": None,
    }
    status, _, message = await refused(client, "GET", f"{path}?output_format=yaml")
    assert status == 400
    assert "output_format" in message


async def test_environments_and_promotion(
    client: httpx.AsyncClient, world: World, served: tuple[str, str]
) -> None:
    model_id, deployment_id = served
    root = f"/v1/models/{model_id}/environments"
    made = await ask(
        client,
        "POST",
        root,
        {"name": "staging", "autoscaling_settings": {"min_replica": 1, "max_replica": 2}},
    )
    assert made["current_deployment"] is None
    assert made["autoscaling_settings"]["max_replica"] == 2
    listed = await ask(client, "GET", root)
    assert [e["name"] for e in listed["environments"]] == ["production", "staging"]
    assert listed["environments"][0]["current_deployment"]["id"] == deployment_id
    updated = await ask(
        client,
        "PATCH",
        f"{root}/staging",
        {
            "autoscaling_settings": {"max_replica": 4},
            "promotion_settings": {"promotion_cleanup_strategy": "KEEP"},
            "request_backpressure_settings": {"policy": "QUEUE_ON_FULL"},
        },
    )
    assert updated["status"] == "ACCEPTED"
    assert updated["environment"]["promotion_settings"]["promotion_cleanup_strategy"] == "KEEP"
    same = await ask(client, "PATCH", f"{root}/staging", {})
    assert same["status"] == "UNCHANGED"
    assert same["environment"]["request_backpressure_settings"] == {"policy": "QUEUE_ON_FULL"}
    status, code, _ = await refused(client, "POST", f"{root}/staging/activate")
    assert (status, code) == (409, "CONFLICT")
    second = world.push(model_id=model_id, config={"model_name": "demo"})
    world.activate(second.id)
    promoted = await ask(client, "POST", f"{root}/staging/promote", {"deployment_id": second.id})
    assert promoted["id"] == second.id
    shown = await ask(client, "GET", f"{root}/staging")
    assert shown["candidate_deployment"]["id"] == second.id
    assert shown["in_progress_promotion"]["status"] == "RELEASING"
    canceled = await ask(client, "POST", f"{root}/staging/cancel_promotion")
    assert canceled["status"] == "CANCELED"
    await ask(client, "POST", f"/v1/models/{model_id}/deployments/{second.id}/promote")
    assert await ask(client, "POST", f"{root}/production/deactivate") == {"success": True}
    assert (await ask(client, "DELETE", f"{root}/staging"))["deleted"] is True
    assert (await refused(client, "DELETE", f"{root}/production"))[0] == 400


async def test_settings_of_the_contract_that_wait_for_later_say_so(
    client: httpx.AsyncClient, served: tuple[str, str]
) -> None:
    path = f"/v1/models/{served[0]}/environments/production"
    for body in (
        {"autoscaling_schedule_settings": {"timezone": "UTC", "schedules": []}},
        {"promotion_settings": {"rolling_deploy": True}},
    ):
        assert (await refused(client, "PATCH", path, body))[:2] == (501, "NOT_SUPPORTED")


async def test_secrets_are_set_and_never_shown(client: httpx.AsyncClient, world: World) -> None:
    body = {"name": "hf_token", "value": "s3cr3t-value"}
    made = await ask(client, "POST", "/v1/secrets", body)
    again = await ask(client, "POST", "/v1/secrets", {**body, "value": "rotated"})
    assert again["id"] == made["id"]
    listed = await client.get("/v1/secrets")
    openapi.check("GET", "/v1/secrets", listed.json())
    assert "s3cr3t" not in listed.text
    team = f"/v1/teams/{world.team_id}/secrets"
    assert (await ask(client, "GET", team))["secrets"] == listed.json()["secrets"]
    assert await ask(client, "DELETE", "/v1/secrets/hf_token") == {"name": "hf_token"}
    assert (await refused(client, "DELETE", "/v1/secrets/hf_token"))[0] == 404
    assert (await refused(client, "POST", "/v1/secrets", {"name": "../x", "value": ""}))[0] == 400


async def test_api_keys(client: httpx.AsyncClient, world: World, served: tuple[str, str]) -> None:
    made = await ask(
        client,
        "POST",
        "/v1/api_keys",
        {"type": "WORKSPACE_INVOKE", "name": "app", "model_ids": [served[0]]},
    )
    prefix = made["api_key"].partition(".")[0]
    listed = await ask(client, "GET", "/v1/api_keys")
    assert {k["prefix"]: k["type"] for k in listed["keys"]}[prefix] == "WORKSPACE_INVOKE"
    assert made["api_key"] not in str(listed)
    assert await ask(client, "DELETE", f"/v1/api_keys/{prefix}") == {"prefix": prefix}
    async with world.client(made["api_key"]) as gone:
        assert (await refused(gone, "GET", "/v1/users/me"))[0] == 401
    status, _, message = await refused(client, "POST", "/v1/api_keys", {"type": "ADMIN"})
    assert status == 400
    assert message.startswith("type: ")


async def test_the_workspace(client: httpx.AsyncClient, world: World) -> None:
    teams = await ask(client, "GET", "/v1/teams")
    assert [t["id"] for t in teams["teams"]] == [world.team_id]
    assert (await ask(client, "GET", "/v1/teams?name=nobody"))["teams"] == []
    assert (await ask(client, "GET", f"/v1/teams/{world.team_id}"))["default"] is True
    assert (await ask(client, "GET", "/v1/users/me"))["name"] == "admin"
    types = await ask(client, "GET", "/v1/instance_types")
    assert types["instance_types"][0]["id"] == "1x2"
    prices = await ask(client, "GET", "/v1/instance_type_prices")
    assert len(prices["instance_types"]) == len(types["instance_types"])
    assert len((await ask(client, "GET", "/v1/regions"))["regions"]) == 1
    await ask(client, "GET", f"/v1/teams/{world.team_id}/regions")
    await ask(client, "GET", "/v1/blobs/credentials/model")


@pytest.mark.parametrize(
    "path", ["/v1/teams/nobody1", "/v1/teams/nobody1/secrets", "/v1/teams/nobody1/models"]
)
async def test_another_team_does_not_exist(client: httpx.AsyncClient, path: str) -> None:
    assert (await refused(client, "GET", path))[:2] == (404, "RESOURCE_NOT_FOUND")


async def test_both_forms_of_the_key(world: World) -> None:
    async with world.client() as client:
        for scheme in ("Api-Key", "Bearer", "bearer"):
            headers = {"Authorization": f"{scheme} {world.key}"}
            assert (await client.get("/v1/models", headers=headers)).status_code == 200
        for wrong in ("", "Basic abc", "Api-Key", f"Api-Key {world.key}x"):
            status, code, _ = await refused(
                client, "GET", "/v1/models", headers={"Authorization": wrong}
            )
            assert (status, code) == (401, "UNAUTHORIZED")


@pytest.mark.parametrize(
    "category", [KeyCategory.WORKSPACE_INVOKE, KeyCategory.WORKSPACE_EXPORT_METRICS]
)
async def test_keys_that_may_not_manage(world: World, category: KeyCategory) -> None:
    async with world.client(world.new_key(category)) as client:
        assert (await client.get("/v1/users/me")).status_code == 200
        for door in SERVED:
            if door.path != "/v1/users/me":
                path = re.sub(r"\{[^}]+\}", "abc12345", door.path)
                assert (await refused(client, door.method, path))[:2] == (403, "FORBIDDEN")


async def test_a_key_for_keys_makes_none_that_may_do_more(world: World) -> None:
    async with world.client(world.new_key(KeyCategory.WORKSPACE_MANAGE_API_KEYS)) as client:
        await ask(client, "POST", "/v1/api_keys", {"type": "WORKSPACE_INVOKE"})
        body = {"type": "WORKSPACE_MANAGE_ALL"}
        assert (await refused(client, "POST", "/v1/api_keys", body))[0] == 403
        assert (await refused(client, "GET", "/v1/models"))[0] == 403


async def test_every_operation_of_the_document_is_served_or_says_that_it_is_not(
    client: httpx.AsyncClient,
) -> None:
    wrong = []
    for method, path, served in openapi.operations():
        concrete = re.sub(r"\{[^}]+\}", "abc12345", path)
        response = await client.request(method, concrete, json={})
        answer = response.json()
        if not served and (response.status_code != 501 or answer["code"] != "NOT_SUPPORTED"):
            wrong.append((method, path, response.status_code))
        if served and response.status_code in {405, 501}:
            wrong.append((method, path, response.status_code))
    assert wrong == []


async def test_what_is_not_there(client: httpx.AsyncClient) -> None:
    assert (await refused(client, "GET", "/v1/nothing"))[:2] == (404, "RESOURCE_NOT_FOUND")
    response = await client.put("/v1/models")
    assert response.status_code == 405
    assert response.headers["allow"] == "GET, POST"
    assert response.json()["code"] == "METHOD_NOT_ALLOWED"
    assert (await client.head("/v1/models")).status_code == 200
