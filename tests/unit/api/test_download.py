"""Archives given back by a signed, expiring address."""

from __future__ import annotations

import httpx
import pytest

from kingpost.api.download import LIFETIME_S, Downloads
from kingpost.errors import NotFoundError
from tests.support import openapi
from tests.support.platform_app import BASE_URL, World


def path_of(deployment_id: str, model_id: str) -> str:
    return f"/v1/models/{model_id}/deployments/{deployment_id}/download"


async def test_an_archive_comes_back_as_it_was(client: httpx.AsyncClient, world: World) -> None:
    deployment = world.push("my model", content=b"tar bytes")
    path = path_of(deployment.id, deployment.model_id)
    answer = (await client.get(path)).json()
    openapi.check("GET", path, answer)
    url = answer["download_url"]
    assert url.startswith(f"{BASE_URL}/downloads/")
    got = await client.get(url, headers={"Authorization": ""})
    assert got.content == b"tar bytes"
    assert "my_model-deployment-1.tar" in got.headers["content-disposition"]
    for wrong in (url[:-1], url[:-1] + ("0" if url[-1] != "0" else "1"), f"{BASE_URL}/downloads/x"):
        assert (await client.get(wrong)).status_code == 404
    assert (await client.post(url)).status_code == 405


async def test_a_model_pushed_without_download_keeps_its_archive(
    client: httpx.AsyncClient, world: World
) -> None:
    deployment = world.push("closed", allow_download=False)
    response = await client.get(path_of(deployment.id, deployment.model_id))
    assert response.status_code == 403
    assert "download disabled" in response.json()["message"]


async def test_an_address_expires(world: World) -> None:
    now = 1_000_000.0
    downloads = Downloads(world.platform, lambda: now)
    deployment = world.push("demo")
    token = downloads.url("", world.team_id, deployment).rpartition("/")[2]
    assert downloads.file(token).status_code == 200
    now += LIFETIME_S + 1
    with pytest.raises(NotFoundError, match="expired"):
        downloads.file(token)


async def test_a_deleted_deployment_is_gone(client: httpx.AsyncClient, world: World) -> None:
    deployment = world.push("demo")
    url = (await client.get(path_of(deployment.id, deployment.model_id))).json()["download_url"]
    assert (await client.delete(f"/v1/models/{deployment.model_id}")).status_code == 200
    assert (await client.get(url)).status_code == 404
