"""The management API's routing: one route per path, which knows its methods."""

from __future__ import annotations

from collections import defaultdict
from functools import partial

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from kingpost.api.auth import authorize
from kingpost.api.download import Downloads
from kingpost.api.errors import MethodNotAllowedError
from kingpost.api.rest import (
    deployments,
    environments,
    keys,
    logs,
    models,
    secrets,
    workspace,
)
from kingpost.api.rest.call import Call, Door
from kingpost.api.rest.unsupported import UNSUPPORTED
from kingpost.api.views import Views
from kingpost.control.platform import Platform
from kingpost.errors import NotSupportedError

SERVED = (
    *models.DOORS,
    *deployments.DOORS,
    *environments.DOORS,
    *logs.DOORS,
    *secrets.DOORS,
    *keys.DOORS,
    *workspace.DOORS,
)


def routes(platform: Platform, downloads: Downloads) -> list[Route]:
    """Literal parts of a path win over placeholders (`{` sorts behind every letter)."""
    views = Views(platform)
    by_path: defaultdict[str, dict[str, Door]] = defaultdict(dict)
    for door in (*_refusals(), *SERVED):
        by_path[door.path][door.method] = door
    given = (platform, views, downloads)
    return [Route(path, _Resource(given, by_path[path])) for path in sorted(by_path)]


class _Resource:
    """All that can be done with one path."""

    def __init__(self, given: tuple[Platform, Views, Downloads], doors: dict[str, Door]) -> None:
        self._given = given
        self._keys = given[0].keys
        self._doors = doors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        method = "GET" if request.method == "HEAD" else request.method
        door = self._doors.get(method)
        if door is None:
            raise MethodNotAllowedError(request.method, tuple(sorted(self._doors)))
        key = authorize(self._keys, request.headers.get("authorization"), door.access)
        answer = await door.handler(Call(*self._given, key, request))
        response = Response(msgspec.json.encode(answer), media_type="application/json")
        await response(scope, receive, send)


def _refusals() -> list[Door]:
    return [
        Door(method, path, partial(_refuse, feature))
        for feature, operations in UNSUPPORTED.items()
        for operation in operations
        for method, path in (operation.split(),)
    ]


async def _refuse(feature: str, _call: Call) -> msgspec.Struct:
    raise NotSupportedError(f"{feature} not available on this platform yet.")
