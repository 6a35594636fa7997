"""Routes of the pages and of their static files, with the headers that keep them shut."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

import kingpost
from kingpost.api.address import base_url
from kingpost.api.errors import MethodNotAllowedError
from kingpost.control.platform import Platform
from kingpost.errors import NotFoundError
from kingpost.settings import Settings

HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-cache",
}
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_ID = re.compile(r"[0-9a-z]{1,64}")


def routes(platform: Platform) -> list[Route]:
    def page(template: str) -> ASGIApp:
        return _Page(platform.settings, template)

    logs = page("logs.html")
    return [
        Route("/", page("start.html")),
        Route("/models/{model_id}/logs/{deployment_id}", logs),
        Route("/models/{model_id}/logs/{deployment_id}/", logs),
        Route("/static/{name}", _Static()),
    ]


class _Page:
    def __init__(self, settings: Settings, template: str) -> None:
        self._settings = settings
        self._template = template

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        _only_get(request)
        for name, value in request.path_params.items():
            if not _ID.fullmatch(value):
                raise NotFoundError(f"{value!r} is no {name.replace('_', ' ')}.")
        values = {"base": base_url(request, self._settings), **request.path_params}
        await _html(self._template, values)(scope, receive, send)


class _Static:
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        _only_get(request)
        file = _static_files().get(request.path_params["name"])
        if file is None:
            raise NotFoundError("There is no such file.")
        headers = {**HEADERS, "ETag": file.etag}
        response = (
            Response(status_code=304, headers=headers)
            if request.headers.get("if-none-match") == file.etag
            else Response(file.content, headers=headers, media_type=file.media_type)
        )
        await response(scope, receive, send)


@dataclass(frozen=True)
class _File:
    content: bytes
    media_type: str
    etag: str


@cache
def _static_files() -> dict[str, _File]:
    """All there are, read once: a request's name is only looked up."""
    found = {}
    for entry in files(__package__).joinpath("static").iterdir():
        media_type = _TYPES.get("." + entry.name.rpartition(".")[2])
        if media_type:
            content = entry.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            found[entry.name] = _File(content, media_type, etag)
    return found


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("kingpost.api.pages"), autoescape=True, undefined=StrictUndefined
    )


def _html(template: str, values: dict[str, Any]) -> Response:
    body = _templates().get_template(template).render(version=kingpost.__version__, **values)
    return Response(body, headers=HEADERS, media_type="text/html")


def _only_get(request: Request) -> None:
    if request.method not in {"GET", "HEAD"}:
        raise MethodNotAllowedError(request.method, ("GET",))
