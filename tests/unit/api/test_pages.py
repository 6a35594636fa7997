"""The pages: served without a key and without data, shut against scripts from anywhere else."""

from __future__ import annotations

import re
from importlib.resources import files

import httpx
import pytest

PAGES = ["/", "/models/abc12345/logs/dep00001", "/models/abc12345/logs/dep00001/"]


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_is_shut_against_foreign_scripts(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(path, headers={"Authorization": ""})
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "set-cookie" not in response.headers
    assert not re.search(
        r"<script(?![^>]*src=)|<style|\son\w+=|style=|https?://(?!localhost)", response.text
    )
    for link in re.findall(r'(?:src|href)="(/static/[^"]+)"', response.text):
        assert (await client.get(link)).status_code == 200


async def test_ids_in_a_page_are_only_ids(client: httpx.AsyncClient) -> None:
    page = (await client.get(PAGES[1])).text
    assert 'data-model="abc12345"' in page
    assert 'data-deployment="dep00001"' in page
    for wrong in ('"><script>alert(1)</script>', "..%2f..", "A B"):
        response = await client.get(f"/models/abc12345/logs/{wrong}")
        assert response.status_code == 404
        assert response.headers["content-type"] == "application/json"


async def test_a_strange_host_can_not_write_into_a_page(client: httpx.AsyncClient) -> None:
    response = await client.get("/", headers={"Host": "x<script>"})
    assert "<script>" not in response.text
    assert "http://localhost:8000" in response.text


async def test_static_files_are_those_there_are(client: httpx.AsyncClient) -> None:
    names = {entry.name for entry in files("kingpost.api.pages").joinpath("static").iterdir()}
    for name in names:
        response = await client.get(f"/static/{name}")
        assert response.status_code == 200
        assert response.headers["x-content-type-options"] == "nosniff"
        etag = response.headers["etag"]
        again = await client.get(f"/static/{name}", headers={"If-None-Match": etag})
        assert again.status_code == 304
    for wrong in ("nothing.js", "..%2froutes.py", "%2e%2e/routes.py"):
        assert (await client.get(f"/static/{wrong}")).status_code == 404
    assert (await client.post("/static/api.js")).status_code == 405
