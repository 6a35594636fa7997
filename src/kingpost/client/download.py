"""Fetches an archive from the address that the platform gave; the key goes to the platform only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import BinaryIO, Final

import httpx

from kingpost.client.archive import OnBytes
from kingpost.client.remote import Remote
from kingpost.client.rest import error_of, http_client, unreachable

_TIMEOUT: Final = httpx.Timeout(connect=10.0, read=120.0, write=60.0, pool=10.0)


def fetch(remote: Remote, url: str, out: BinaryIO, on_start: Callable[[int], OnBytes]) -> int:
    """Write what lies at `url` and return its size; `on_start` gets the announced size or 0."""
    same = url.startswith(f"{remote.url}/")
    size = 0
    with http_client(remote if same else replace(remote, api_key=None), _TIMEOUT) as http:
        try:
            with http.stream("GET", url) as response:
                if not response.is_success:
                    response.read()
                    raise error_of(remote, response)
                on_bytes = on_start(int(response.headers.get("Content-Length", 0)))
                for chunk in response.iter_bytes():
                    out.write(chunk)
                    size += len(chunk)
                    on_bytes(len(chunk))
        except httpx.HTTPError as error:
            raise unreachable(remote, error) from error
    return size
