"""The management API over HTTP: timeouts, careful retries, errors as the exception tree.

A key goes to the remote's own origin and nowhere else: redirects are not followed, loopback
addresses never go through a proxy, and an unencrypted address elsewhere needs consent.
"""

from __future__ import annotations

import os
import random
import ssl
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self

import httpx

import kingpost
from kingpost import errors
from kingpost.client.remote import Remote, is_loopback, refuse_clear_key
from kingpost.client.remotes import LOCAL

TIMEOUT: Final = httpx.Timeout(connect=10.0, read=60.0, write=60.0, pool=10.0)
GET_ATTEMPTS: Final = 4
LONGEST_RETRY_PAUSE_S: Final = 10.0

_BY_STATUS: Final[dict[int, type[errors.KingpostError]]] = {
    400: errors.InvalidInputError,
    401: errors.UnauthorizedError,
    403: errors.ForbiddenError,
    404: errors.NotFoundError,
    409: errors.ConflictError,
    413: errors.TooLargeError,
    422: errors.InvalidInputError,
    429: errors.UnavailableError,
    501: errors.NotSupportedError,
    502: errors.UnavailableError,
    503: errors.UnavailableError,
    504: errors.UnavailableError,
    507: errors.StorageFullError,
}


class RestClient:
    """One remote's management API. Answers are decoded JSON; every failure is a KingpostError.

    Only GET is repeated, on a broken connection or 503, at most `GET_ATTEMPTS` times.
    """

    def __init__(self, remote: Remote, *, pause: Callable[[float], None] = time.sleep) -> None:
        refuse_clear_key(remote)
        self.remote = remote
        self._pause = pause
        self._http = http_client(remote, TIMEOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        for attempt in range(1, GET_ATTEMPTS + 1):
            last = attempt == GET_ATTEMPTS
            try:
                response = self._send("GET", path, params=_present(params))
            except errors.UnavailableError:
                if last:
                    raise
                self._pause(_backoff_s(attempt, None))
                continue
            if response.status_code == httpx.codes.SERVICE_UNAVAILABLE and not last:
                self._pause(_backoff_s(attempt, retry_after_s(response)))
                continue
            return decode(self.remote, response)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return decode(self.remote, self._send("POST", path, json=dict(body or {})))

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        return decode(self.remote, self._send("PATCH", path, json=dict(body)))

    def delete(self, path: str) -> Any:
        return decode(self.remote, self._send("DELETE", path))

    def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            return self._http.request(method, self.remote.url + path, **arguments)
        except httpx.HTTPError as error:
            raise unreachable(self.remote, error) from error


def http_client(remote: Remote, timeout: httpx.Timeout) -> httpx.Client:
    """A client that carries the remote's key and follows no redirect."""
    headers = {"User-Agent": f"kingpost/{kingpost.__version__}"}
    if remote.api_key:
        headers["Authorization"] = f"Api-Key {remote.api_key}"
    return httpx.Client(
        headers=headers,
        timeout=timeout,
        verify=tls_context(remote) if remote.url.startswith("https:") else True,
        trust_env=not is_loopback(remote.url),
        follow_redirects=False,
    )


def decode(remote: Remote, response: httpx.Response) -> Any:
    """The JSON of a good answer; raises the error that a bad one stands for."""
    if response.is_redirect:
        raise errors.UnavailableError(
            f"{remote.url} answered with a redirect to another address. Keys are not sent on; "
            "check the remote's address."
        )
    if response.is_error:
        raise error_of(remote, response)
    if not response.content:
        return None
    try:
        return response.json()
    except ValueError:
        raise errors.UnavailableError(
            f"{remote.url} answered with something other than JSON. Is this a Kingpost or "
            "Baseten address?"
        ) from None


def error_of(remote: Remote, response: httpx.Response) -> errors.KingpostError:
    """The error of an answer in either form: `{"code", "message"}` or the gateway's `{"error"}`."""
    status = response.status_code
    message = _message(response) or f"{remote.url} answered {status} {response.reason_phrase}."
    if status == httpx.codes.UNAUTHORIZED:
        message = f"{message.rstrip('.')}. {_key_advice(remote)}"
    fallback = errors.InvalidInputError if status < 500 else errors.KingpostError
    kind = _BY_STATUS.get(status, fallback)
    return kind(message, retry_after_s=retry_after_s(response))


def unreachable(remote: Remote, error: httpx.HTTPError) -> errors.UnavailableError:
    """What a user is told when no answer came."""
    if isinstance(error, httpx.TimeoutException):
        return errors.UnavailableError(
            f"{remote.url} did not answer in time. Look at `kingpost status`, then try again."
        )
    reason = str(error) or type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        return errors.UnavailableError(
            f"The certificate of {remote.url} is not trusted ({reason}). If it is your own, name "
            "its authority: kingpost login NAME --url URL --ca-file FILE"
        )
    advice = (
        "Start the platform with `kingpost up`, or name another with --remote."
        if remote.name == LOCAL
        else "Check the address (`kingpost remotes`) and the network."
    )
    return errors.UnavailableError(f"Could not reach {remote.url}: {reason}. {advice}")


def retry_after_s(response: httpx.Response) -> int | None:
    value = response.headers.get("Retry-After", "")
    return int(value) if value.isascii() and value.isdigit() else None


def _backoff_s(attempt: int, asked_s: int | None) -> float:
    pause_s: float = 0.2 * 2 ** (attempt - 1) if asked_s is None else asked_s
    jitter = random.uniform(0.9, 1.1)  # noqa: S311  # spreads retries, keeps no secret
    return min(pause_s, LONGEST_RETRY_PAUSE_S) * jitter


def _present(params: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (params or {}).items() if value is not None}


def _message(response: httpx.Response) -> str | None:
    try:
        body = response.json()
    except ValueError:
        return None
    if not isinstance(body, dict):
        return None
    for name in ("message", "error", "detail"):
        if isinstance(body.get(name), str) and body[name]:
            return str(body[name])
    return None


def _key_advice(remote: Remote) -> str:
    if remote.is_baseten and remote.name == "baseten":
        return "Set BASETEN_API_KEY, or log in: kingpost login baseten"
    if remote.name == LOCAL or "://" in remote.name:
        return "Set KINGPOST_API_KEY, or log in: kingpost login NAME --url " + remote.url
    return f"Log in again: kingpost login {remote.name}"


def tls_context(remote: Remote) -> ssl.SSLContext:
    if remote.ca_file is not None:
        try:
            return ssl.create_default_context(cafile=remote.ca_file)
        except (OSError, ssl.SSLError):
            raise errors.InvalidInputError(
                f"{remote.ca_file}, the certificate authority of remote {remote.name!r}, "
                "can't be read. Expected a PEM file."
            ) from None
    context = ssl.create_default_context()
    if "SSL_CERT_FILE" not in os.environ and "SSL_CERT_DIR" not in os.environ:
        import certifi  # comes with httpx; machines without a store of their own need it

        context.load_verify_locations(cafile=certifi.where())
    return context
