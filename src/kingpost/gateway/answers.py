"""What the gateway answers by itself: the contract's error bodies, and how they go on the wire."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

import msgspec

_CODES: Final = {
    401: "unauthorized",
    403: "unauthorized",
    404: "model_does_not_exist",
    413: "payload_too_large",
    429: "rate_limited",
    500: "internal_baseten_error",
    502: "model_unavailable",
    503: "model_not_ready",
    504: "timeout",
}

_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}
STATUS_LINES: Final[dict[int, bytes]] = {
    status: f"HTTP/1.1 {status} {_PHRASES.get(status, 'Unknown')}".encode()
    for status in range(100, 600)
}
"""Without the line end."""

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Refusal(Exception):  # noqa: N818 - an answer, not a fault
    """An answer that ends a request here. `close` says that the connection can't be used on.

    Body (inference API: errors): `{"error", "error_code"}`; with `management`, the management
    API's `{"code", "message"}`.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        retry_after_s: int | None = None,
        allow: str | None = None,
        close: bool = False,
        management: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code or _CODES.get(status, "client_error")
        self.retry_after_s = retry_after_s
        self.allow = allow
        self.close = close
        self.management = management

    def body(self) -> bytes:
        if self.management:
            return msgspec.json.encode({"code": self.code, "message": self.message})
        return msgspec.json.encode({"error": self.message, "error_code": self.code})

    def extra_headers(self) -> bytes:
        lines = []
        if self.retry_after_s is not None:
            lines.append(f"Retry-After: {self.retry_after_s}\r\n")
        if self.allow is not None:
            lines.append(f"Allow: {self.allow}\r\n")
        if self.status == HTTPStatus.UNAUTHORIZED:
            lines.append("WWW-Authenticate: Bearer\r\n")
        return "".join(lines).encode()


def render(
    status: int,
    body: bytes,
    request_id: bytes,
    *,
    keep_alive: bool,
    with_body: bool = True,
    extra: bytes = b"",
) -> bytes:
    """A whole JSON answer. `with_body=False` is the answer to HEAD: same headers, no body."""
    return b"".join(
        (
            STATUS_LINES[status],
            b"\r\nContent-Type: application/json\r\nContent-Length: ",
            str(len(body)).encode(),
            b"\r\nX-Baseten-Request-Id: ",
            request_id,
            b"\r\n",
            extra,
            b"\r\n" if keep_alive else b"Connection: close\r\n\r\n",
            body if with_body else b"",
        )
    )
