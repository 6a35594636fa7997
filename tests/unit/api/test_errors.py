"""Errors: one form per door, nothing of the inside, logged once with the request's id."""

from __future__ import annotations

import errno
import logging
from typing import Any

import httpx
import pytest

from kingpost.api.address import base_url
from kingpost.control.keys import Keys
from kingpost.errors import UnavailableError
from tests.support.platform_app import World

SECRET = "Api-Key s3cr3t-key-value"


def failing(error: Exception) -> Any:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    return fail


@pytest.mark.parametrize("path", ["/v1/models", "/graphql/", "/s3/bucket/key"])
async def test_what_was_not_foreseen(
    world: World,
    client: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    path: str,
) -> None:
    boom = failing(RuntimeError("secret detail in /var/lib/kingpost"))
    monkeypatch.setattr(Keys, "authenticate", boom)
    monkeypatch.setattr("kingpost.api.s3.sigv4.parse_authorization", boom)
    with caplog.at_level(logging.INFO):
        response = await client.request(
            "GET" if path.startswith("/v1") else "POST" if path != "/s3/bucket/key" else "PUT",
            path,
            headers={"x-baseten-request-id": "req-42", "Authorization": SECRET},
        )
    assert response.status_code == (200 if path == "/graphql/" else 500)
    assert "INTERNAL_ERROR" in response.text
    assert "req-42" in response.text
    for inside in ("Traceback", "RuntimeError", "secret detail", "/var/lib", "s3cr3t"):
        assert inside not in response.text
    records = [r for r in caplog.records if "req-42" in r.getMessage()]
    assert len(records) == 1
    assert records[0].exc_info is not None
    assert "s3cr3t" not in caplog.text


async def test_a_full_disk_has_a_code_of_its_own(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Keys, "authenticate", failing(OSError(errno.ENOSPC, "full", "/data/x")))
    response = await client.get("/v1/models")
    assert response.status_code == 507
    assert response.json()["code"] == "STORAGE_FULL"
    assert "/data" not in response.text


async def test_when_to_try_again(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = UnavailableError("Not now.", retry_after_s=7)
    monkeypatch.setattr(Keys, "authenticate", failing(error))
    response = await client.get("/v1/models")
    assert response.status_code == 503
    assert response.headers["retry-after"] == "7"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"host": "api.localhost:8000"}, "http://localhost:8000"),
        ({"host": "10.1.2.3:80"}, "http://10.1.2.3:80"),
        ({"host": "[::1]:8000"}, "http://[::1]:8000"),
        (
            {
                "host": "api.localhost:8000",
                "x-kingpost-authority": "kp.example.org",
                "x-forwarded-proto": "https",
            },
            "https://kp.example.org",
        ),
        ({"host": 'evil"><script>'}, "http://localhost:8000"),
        ({"host": ""}, "http://localhost:8000"),
        ({"host": "a", "x-forwarded-proto": "javascript"}, "http://localhost:8000"),
    ],
)
def test_the_address_that_answers_name(
    world: World, headers: dict[str, str], expected: str
) -> None:
    from starlette.requests import Request

    raw = [(k.encode(), v.encode()) for k, v in headers.items()]
    scope = {"type": "http", "scheme": "http", "headers": raw}
    assert base_url(Request(scope), world.platform.settings) == expected
