"""The ASGI app of the control plane: every door, behind one boundary for errors."""

from __future__ import annotations

from starlette.requests import Request
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from kingpost.api import graphql, pages, s3
from kingpost.api.download import Downloads
from kingpost.api.errors import ErrorBoundary, Render, as_graphql, as_json, as_s3
from kingpost.api.rest import routes as rest
from kingpost.control.platform import Platform
from kingpost.errors import NotFoundError


def make_app(platform: Platform) -> ASGIApp:
    """Served on one loop: control's operations are fast and are called directly."""
    downloads = Downloads(platform)
    router = Router(
        [
            *pages.routes(platform),
            *graphql.routes(platform),
            *s3.routes(platform),
            *downloads.routes(),
            *rest.routes(platform, downloads),
        ],
        redirect_slashes=False,
        default=_nothing_here,
    )
    return ErrorBoundary(router, _render)


def _render(path: str) -> Render:
    if path.startswith("/s3/"):
        return as_s3
    if path.rstrip("/") == graphql.PATH:
        return as_graphql
    return as_json


async def _nothing_here(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        await send({"type": "websocket.close", "code": 4404})
        return
    request = Request(scope, receive)
    raise NotFoundError(
        f"There is nothing at {request.method} {request.url.path}. The management API is below "
        "/v1, GraphQL at /graphql/, models at /model/<id>/."
    )
