"""Calls a model: one POST whose answer is given as it comes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import httpx

from kingpost.client.remote import Remote, refuse_clear_key, segment
from kingpost.client.rest import error_of, http_client, unreachable
from kingpost.contract import DEVELOPMENT, PREDICT_TIMEOUT_S, PRODUCTION
from kingpost.errors import InvalidInputError

_TIMEOUT: Final = httpx.Timeout(connect=10.0, read=PREDICT_TIMEOUT_S + 30.0, write=60.0, pool=10.0)


@dataclass(frozen=True)
class Answered:
    """An answer whose body is still coming; `chunks` raises UnavailableError if it breaks off."""

    status: int
    content_type: str
    request_id: str | None
    chunks: Iterator[bytes]


def target_of(
    *, environment: str | None = None, deployment_id: str | None = None, development: bool = False
) -> str:
    """The part of an inference address that says which deployment (inference API: targets)."""
    if deployment_id is not None:
        return f"deployment/{segment(deployment_id)}"
    if development:
        return DEVELOPMENT
    if environment is not None and environment != PRODUCTION:
        return f"environments/{segment(environment)}"
    return PRODUCTION


def action_of(path: str | None) -> str:
    """`predict`, or the passthrough to one of the server's own paths."""
    if path is None:
        return "predict"
    inner = path.lstrip("/")
    if not inner or any(part in {"", ".", ".."} for part in inner.partition("?")[0].split("/")):
        raise InvalidInputError(f"{path!r} is no path below a model's server.")
    return f"sync/{inner}"


@contextmanager
def call(
    remote: Remote, model_id: str, route: str, body: bytes, *, content_type: str
) -> Iterator[Answered]:
    """POST to a model's `TARGET/ACTION` and give the answer as soon as its head is there.

    Never repeated, since a model may act.
    """
    refuse_clear_key(remote)
    url = remote.inference_url(model_id, route)
    headers = {"Content-Type": content_type}
    with http_client(remote, _TIMEOUT) as http:
        try:
            with http.stream("POST", url, content=body, headers=headers) as response:
                if response.is_error or response.is_redirect:
                    response.read()
                    raise error_of(remote, response)
                yield Answered(
                    response.status_code,
                    response.headers.get("Content-Type", ""),
                    response.headers.get("X-Baseten-Request-Id"),
                    response.iter_bytes(),
                )
        except httpx.HTTPError as error:
            raise unreachable(remote, error) from error
