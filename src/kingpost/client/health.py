"""Asks a platform whether it is ready, without a key."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import httpx

from kingpost.client.remote import Remote
from kingpost.client.rest import RestClient, http_client, unreachable
from kingpost.errors import UnavailableError

_TIMEOUT: Final = httpx.Timeout(5.0)


def ask(remote: Remote) -> dict[str, Any]:
    """What `/healthz` says, and `ready`; for Baseten, whether its API takes the key.

    Raises UnavailableError when nobody answers, or somebody who is no platform.
    """
    if remote.is_baseten:
        with RestClient(remote) as api:
            api.get("/v1/models", {"name": "-"})
        return {"status": "ok", "ready": True}
    with http_client(replace(remote, api_key=None), _TIMEOUT) as http:
        try:
            response = http.get(f"{remote.url}/healthz")
        except httpx.HTTPError as error:
            raise unreachable(remote, error) from error
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise UnavailableError(f"{remote.url} answers, but it is no Kingpost platform.")
    return {**body, "ready": response.is_success}
