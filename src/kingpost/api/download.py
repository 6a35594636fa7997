"""Archives given back: a signed, expiring URL that needs no key, and the route that serves it."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from kingpost.api.errors import MethodNotAllowedError
from kingpost.control.domain import Deployment
from kingpost.control.platform import Platform
from kingpost.errors import ForbiddenError, NotFoundError

PATH: Final = "/downloads"
LIFETIME_S: Final = 15 * 60
_TOKEN = re.compile(
    r"(?P<claim>(?P<team>\w+)-(?P<id>\w+)-(?P<until>\d{1,12}))-(?P<mac>[0-9a-f]{64})"
)
_UNSAFE = re.compile(r"[^0-9a-zA-Z_.\-]+")


class Downloads:
    """Signs with a key of this process: a restart ends the URLs that are out."""

    def __init__(self, platform: Platform, clock: Callable[[], float] = time.time) -> None:
        self._platform = platform
        self._clock = clock
        self._key = secrets.token_bytes(32)

    def routes(self) -> list[Route]:
        return [Route(PATH + "/{token}", _Endpoint(self))]

    def url(self, base_url: str, team_id: str, deployment: Deployment) -> str:
        """Raises ForbiddenError when the model was pushed without download."""
        model = self._platform.models.get(team_id, deployment.model_id).model
        if not model.allow_download:
            raise ForbiddenError(
                f"The archive of {model.name!r} can't be downloaded: the model was pushed with "
                "download disabled."
            )
        claim = f"{team_id}-{deployment.id}-{int(self._clock()) + LIFETIME_S}"
        return f"{base_url}{PATH}/{claim}-{self._mac(claim)}"

    def file(self, token: str) -> Response:
        """Raises NotFoundError for what was not signed here, has expired, or is gone."""
        found = _TOKEN.fullmatch(token)
        if (
            found is None
            or not hmac.compare_digest(found["mac"], self._mac(found["claim"]))
            or int(found["until"]) < self._clock()
        ):
            raise NotFoundError("This download address has expired. Ask for a new one.")
        deployment = self._platform.deployments.by_id(found["team"], found["id"])
        model = self._platform.models.get(found["team"], deployment.model_id).model
        archive = self._platform.uploads.archive(deployment.archive)
        if not archive.is_file():
            raise NotFoundError("The archive of this deployment is no longer kept.")
        name = _UNSAFE.sub("_", f"{model.name}-{deployment.name}")
        return FileResponse(archive, media_type="application/x-tar", filename=f"{name}.tar")

    def _mac(self, claim: str) -> str:
        return hmac.new(self._key, claim.encode(), hashlib.sha256).hexdigest()


class _Endpoint:
    def __init__(self, downloads: Downloads) -> None:
        self._downloads = downloads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if request.method not in {"GET", "HEAD"}:
            raise MethodNotAllowedError(request.method, ("GET",))
        response = self._downloads.file(request.path_params["token"])
        await response(scope, receive, send)
