"""The one mapping from exceptions to answers: management JSON, GraphQL and S3 XML.

An unexpected exception is logged once, with the request's id, and answered without detail.
"""

from __future__ import annotations

import errno
import logging
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from xml.sax.saxutils import escape

import msgspec
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kingpost.api.s3.errors import S3Error
from kingpost.errors import KingpostError, NotSupportedError, StorageFullError

log = logging.getLogger(__name__)

REQUEST_ID_HEADER = b"x-baseten-request-id"
_REQUEST_ID = re.compile(r"[0-9A-Za-z_\-]{1,128}")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class MethodNotAllowedError(KingpostError):
    code = "METHOD_NOT_ALLOWED"
    http_status = 405

    def __init__(self, method: str, allowed: tuple[str, ...]) -> None:
        super().__init__(f"{method} is not possible here. Use {' or '.join(allowed)}.")
        self.allowed = allowed


@dataclass(frozen=True)
class Refusal:
    """An error as a client may see it."""

    status: int
    code: str
    message: str
    request_id: str
    headers: dict[str, str] = field(default_factory=dict)


Render = Callable[[Refusal], Response]


def describe(error: Exception, request_id: str) -> Refusal:
    """What to tell a client. Logs the error when it is none of ours."""
    if isinstance(error, OSError) and error.errno in _FULL:
        error = StorageFullError(
            "The disk that holds the data folder is full; nothing was changed. "
            "Free some space and repeat the request."
        )
    if isinstance(error, S3Error):
        return Refusal(error.status, error.code, error.message, request_id)
    if isinstance(error, KingpostError):
        if error.http_status >= 500 and error.http_status != NotSupportedError.http_status:
            log.warning(
                "request refused request_id=%s code=%s message=%s",
                request_id,
                error.code,
                error.message,
            )
        return Refusal(error.http_status, error.code, error.message, request_id, _headers_of(error))
    log.error("unexpected error request_id=%s", request_id, exc_info=error)
    return Refusal(
        500,
        "INTERNAL_ERROR",
        "Something went wrong inside the platform; the request may not have been carried out. "
        f"Its operator finds the details in the log under the request id {request_id}.",
        request_id,
    )


def as_json(refusal: Refusal) -> Response:
    """Management API: `{"code", "message"}`."""
    return _json({"code": refusal.code, "message": refusal.message}, refusal)


def as_graphql(refusal: Refusal) -> Response:
    """GraphQL: status 200, the truth in `errors` (what the truss CLI reads)."""
    body = {"data": None, "errors": [graphql_error(refusal)]}
    status = 405 if refusal.status == 405 else 200
    return Response(msgspec.json.encode(body), status, refusal.headers, "application/json")


def graphql_error(refusal: Refusal) -> dict[str, Any]:
    return {"message": refusal.message, "extensions": {"code": refusal.code}}


def as_s3(refusal: Refusal) -> Response:
    """S3: an XML body whose code and message S3 clients show."""
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{escape(refusal.code)}</Code><Message>{escape(refusal.message)}</Message>"
        f"<RequestId>{escape(refusal.request_id)}</RequestId></Error>"
    )
    return Response(body, refusal.status, refusal.headers, "application/xml")


class ErrorBoundary:
    """Answers for whatever the app raises, in the form that `render` gives for the path."""

    def __init__(self, app: ASGIApp, render: Callable[[str], Render]) -> None:
        self._app = app
        self._render = render

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = scope["kingpost.request_id"] = _request_id(scope)
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except ClientDisconnect:
            return
        except Exception as error:
            if started:
                raise
            response = self._render(scope["path"])(describe(error, request_id))
            await response(scope, receive, send)


def _json(body: dict[str, Any], refusal: Refusal) -> Response:
    return Response(msgspec.json.encode(body), refusal.status, refusal.headers, "application/json")


def _headers_of(error: KingpostError) -> dict[str, str]:
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, MethodNotAllowedError):
        headers["Allow"] = ", ".join(error.allowed)
    return headers


def _request_id(scope: Scope) -> str:
    """The gateway's id of this request, else a new one."""
    for name, value in scope["headers"]:
        if name == REQUEST_ID_HEADER and _REQUEST_ID.fullmatch(text := value.decode("latin-1")):
            return str(text)
    return uuid.uuid4().hex
