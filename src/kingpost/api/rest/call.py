"""One management call: who asks, with what, and the door that answers it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import msgspec
from starlette.requests import Request

from kingpost.api import address, inputs
from kingpost.api.auth import Access
from kingpost.api.download import Downloads
from kingpost.api.views import Views
from kingpost.control.domain import ApiKey
from kingpost.control.platform import Platform
from kingpost.errors import NotFoundError

T = TypeVar("T", bound=msgspec.Struct)


@dataclass(frozen=True)
class Call:
    platform: Platform
    views: Views
    downloads: Downloads
    key: ApiKey
    request: Request

    @property
    def team_id(self) -> str:
        return self.key.team_id

    @property
    def base_url(self) -> str:
        return address.base_url(self.request, self.platform.settings)

    def path(self, name: str) -> str:
        return str(self.request.path_params[name])

    def query(self, kind: type[T]) -> T:
        return inputs.query(self.request, kind)

    async def body(self, kind: type[T]) -> T:
        return inputs.decode(await inputs.read_body(self.request), kind)

    def named_team(self) -> str:
        """The team in the path. Another team than the key's own does not exist for it."""
        return self.own_team(self.path("team_id"))

    def own_team(self, team_id: str) -> str:
        if team_id != self.team_id:
            raise NotFoundError(f"There is no team with the id {team_id!r}.")
        return team_id


Handler = Callable[[Call], Awaitable[msgspec.Struct]]


@dataclass(frozen=True)
class Door:
    """One operation of the management API. `path` is a template of its OpenAPI document."""

    method: str
    path: str
    handler: Handler
    access: Access = Access.MANAGE
