"""Asks the Hugging Face hub for a model: the commit that a name means, and whether it is gated."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import httpx

from kingpost.client.remote import is_loopback, segment
from kingpost.deploy.request import DeployRequest, Engine
from kingpost.errors import InvalidInputError, NotFoundError, UnavailableError

HUB: Final = "https://huggingface.co"
SECRET: Final = "hf_access_token"  # noqa: S105  # a secret's name
_TIMEOUT: Final = httpx.Timeout(20.0)


@dataclass(frozen=True)
class Repository:
    """A model at one commit. `gated` says that its files are not given to everybody."""

    revision: str
    gated: bool
    files: tuple[str, ...]


def look_up(model: str, revision: str | None, env: Mapping[str, str]) -> Repository:
    """Raises NotFoundError for what the hub doesn't show, UnavailableError when it is away.

    `HF_ENDPOINT` and `HF_TOKEN` are the hub's own variables; the token goes to the hub alone.
    """
    hub = (env.get("HF_ENDPOINT") or HUB).rstrip("/")
    token = env.get("HF_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    name = "/".join(segment(part) for part in model.split("/"))
    url = f"{hub}/api/models/{name}/revision/{segment(revision or 'main')}"
    try:
        answer = httpx.get(url, headers=headers, timeout=_TIMEOUT, trust_env=not is_loopback(hub))
        body: Any = answer.json() if answer.is_success else None
    except (httpx.HTTPError, ValueError) as error:
        reason = str(error) or type(error).__name__
        raise UnavailableError(
            f"The hub at {hub} could not be asked for {model}: {reason}. "
            "Check the network and HF_ENDPOINT."
        ) from error
    if answer.status_code in {401, 403, 404}:
        at = f" at {revision}" if revision else ""
        raise NotFoundError(
            f"The hub at {hub} shows no model {model}{at}. Check its name; if it is private, set "
            "HF_TOKEN to a token that may read it."
        )
    if not isinstance(body, dict) or not isinstance(body.get("sha"), str):
        raise UnavailableError(f"The hub at {hub} answered {answer.status_code} for {model}.")
    siblings = body.get("siblings") or []
    files = tuple(str(entry.get("rfilename")) for entry in siblings if isinstance(entry, dict))
    gated = bool(body.get("gated")) or bool(body.get("private"))
    return Repository(body["sha"], gated, files)


def pinned(request: DeployRequest, env: Mapping[str, str] | None = None) -> DeployRequest:
    """The request with its weights at a commit, the secret of a gated model, and the GGUF file."""
    found = look_up(request.model, request.revision, os.environ if env is None else env)
    secret = request.hub_secret or (SECRET if found.gated else None)
    request = replace(request, revision=found.revision, hub_secret=secret)
    if request.engine is Engine.LLAMACPP:
        request = replace(request, gguf_file=_gguf(request, found))
    request.check()
    return request


def _gguf(request: DeployRequest, found: Repository) -> str:
    files = sorted(name for name in found.files if name.endswith(".gguf"))
    named = request.gguf_file
    if named is not None and named in files:
        return named
    if named is None and len(files) == 1:
        return files[0]
    has = ", ".join(files) or "none"
    asked = f"no file {named}" if named is not None else "no single GGUF file"
    raise InvalidInputError(
        f"{request.model} has {asked}; it has: {has}. Name one with --gguf-file."
    )
