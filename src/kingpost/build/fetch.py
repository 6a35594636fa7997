"""Fetches files over HTTP for builds: resumable, verified, and never from this machine itself.

URLs come from users, so an address of this machine or of its link is refused unless the operator
trusts that host. What is fetched is the caller's matter.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import os
import socket
import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from kingpost.errors import BuildFailedError

OnBytes = Callable[[int], None]
"""Called with how many more bytes have come."""

_ATTEMPTS = 5
_BACKOFF_S = 0.5
_TIMEOUT = httpx.Timeout(30.0, read=120.0)
_CHUNK_BYTES = 1024 * 1024
_MAX_JSON_BYTES = 64 * 1024 * 1024
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_PORTS = {"http": 80, "https": 443}
TRUST_VARIABLE = "KINGPOST_FETCH_ALLOW"
_ENDPOINT_VARIABLES = ("HF_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


class FetchError(BuildFailedError):
    """It could not be fetched. `status` is the HTTP answer's, when there was one."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Expected:
    """What is known of a file beforehand; None where nothing is."""

    size: int | None = None
    sha256: str | None = None
    git_sha1: str | None = None


def trusted_hosts(environ: Mapping[str, str]) -> frozenset[str]:
    """`host:port` of the endpoints that the operator names, and of KINGPOST_FETCH_ALLOW."""
    hosts = {part.strip() for part in environ.get(TRUST_VARIABLE, "").split(",") if part.strip()}
    for name in _ENDPOINT_VARIABLES:
        if url := environ.get(name):
            hosts.add(_authority(urlsplit(url).scheme, urlsplit(url).hostname, urlsplit(url).port))
    return frozenset(hosts)


def is_refused(address: str) -> bool:
    """Whether an IP address is this machine, its link, or no single host. Private ones pass."""
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if ip.is_loopback or ip.is_link_local or ip.is_unspecified or ip.is_multicast or ip.is_reserved:
        return True
    return _is_local(ip)


class Fetcher:
    """One HTTP client; `close` it. Safe for several downloads at once."""

    def __init__(self, trusted: Iterable[str] | None = None) -> None:
        hosts = trusted_hosts(os.environ) if trusted is None else frozenset(trusted)
        self._client = httpx.AsyncClient(
            transport=_CheckedTransport(hosts),
            timeout=_TIMEOUT,
            follow_redirects=True,
            max_redirects=8,
            headers={"user-agent": "kingpost"},
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def get(self, url: str, headers: Mapping[str, str] | None = None) -> bytes:
        """A small answer, such as a listing. Raises `FetchError`."""
        for attempt in range(_ATTEMPTS):
            try:
                async with self._client.stream("GET", url, headers=headers) as answer:
                    _check(answer, url)
                    return await _small_body(answer, url)
            except (httpx.HTTPError, FetchError) as error:
                await _again(error, url, attempt)
        raise AssertionError("unreachable")

    async def head(self, url: str, headers: Mapping[str, str] | None = None) -> Mapping[str, str]:
        """Its headers, or none when the server does not answer HEAD."""
        try:
            answer = await self._client.head(url, headers=headers)
        except httpx.HTTPError:
            return {}
        return answer.headers if answer.is_success else {}

    async def download(
        self,
        url: str,
        target: Path,
        *,
        headers: Mapping[str, str] | None = None,
        expected: Expected | None = None,
        on_bytes: OnBytes = lambda _: None,
    ) -> None:
        """Into `target`, going on where an earlier attempt ended (`<target>.part`).

        Raises `FetchError` when it can't be had or is not what was expected.
        """
        wanted = expected or Expected()
        part = target.with_name(target.name + ".part")
        target.parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(_ATTEMPTS):
            try:
                await self._attempt(url, part, dict(headers or {}), wanted, on_bytes)
                break
            except (httpx.HTTPError, FetchError) as error:
                await _again(error, url, attempt)
        problem = await asyncio.to_thread(_problem_of, part, wanted)
        if problem is not None:
            _forget(part)
            raise FetchError(f"{shown_url(url)}: {problem}. Push again to fetch it anew.")
        _tag_of(part).unlink(missing_ok=True)
        part.rename(target)

    async def _attempt(
        self, url: str, part: Path, headers: dict[str, str], wanted: Expected, on_bytes: OnBytes
    ) -> None:
        have, tag = _left(part)
        if have and have == wanted.size:
            return
        headers["accept-encoding"] = "identity"
        if have and (tag or wanted.sha256):
            headers["range"] = f"bytes={have}-"
            if tag:
                headers["if-range"] = tag
        async with self._client.stream("GET", url, headers=headers) as answer:
            if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                _forget(part)
                raise FetchError(f"{shown_url(url)} has changed meanwhile.", status=503)
            _check(answer, url)
            resumed = answer.status_code == httpx.codes.PARTIAL_CONTENT
            strong = answer.headers.get("etag", "")
            if strong and not strong.startswith("W/"):
                _tag_of(part).write_text(strong)
            with part.open("ab" if resumed else "wb") as file:
                async for chunk in answer.aiter_bytes():
                    file.write(chunk)
                    on_bytes(len(chunk))
                    if wanted.size is not None and file.tell() > wanted.size:
                        raise FetchError(f"{shown_url(url)} is larger than it was said to be.")


class _CheckedTransport(httpx.AsyncBaseTransport):
    """Connects to the very address that was checked, so that a name can't change in between."""

    def __init__(self, trusted: frozenset[str]) -> None:
        self._trusted = trusted
        self._direct = httpx.AsyncHTTPTransport()
        self._proxies = {
            scheme: httpx.AsyncHTTPTransport(proxy=url)
            for scheme, url in urllib.request.getproxies().items()
            if scheme in _PORTS
        }

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        scheme, host = request.url.scheme, request.url.host
        if _authority(scheme, host, request.url.port) in self._trusted:
            return await self._direct.handle_async_request(request)
        proxy = self._proxies.get(scheme)
        if proxy is not None and not urllib.request.proxy_bypass(host):
            return await proxy.handle_async_request(request)
        address = await _resolve(host, request.url.port or _PORTS.get(scheme, 443))
        checked = httpx.Request(
            request.method,
            request.url.copy_with(host=address),
            headers=request.headers,
            stream=request.stream,
            extensions={**request.extensions, "sni_hostname": host},
        )
        return await self._direct.handle_async_request(checked)

    async def aclose(self) -> None:
        for transport in (self._direct, *self._proxies.values()):
            await transport.aclose()


class Rate:
    """Says how a download goes, at most every few seconds."""

    def __init__(self, say: Callable[[str], None], total: int | None, every_s: float = 3.0) -> None:
        self._say = say
        self._total = total
        self._every_s = every_s
        self._began = self._said = time.monotonic()
        self._done = 0

    def add(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._said < self._every_s:
            return
        self._said = now
        mib = self._done / 1024**2
        share = f" of {self._total / 1024**2:.0f}" if self._total else ""
        self._say(f"{mib:.0f}{share} MiB, {mib / max(now - self._began, 0.001):.1f} MiB/s")


def shown_url(url: str) -> str:
    """A URL for people and logs: without its query, which may hold a signature."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}"


async def _resolve(host: str, port: int) -> str:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise httpx.ConnectError(f"{host} has no address") from error
    addresses = [str(entry[4][0]) for entry in found]
    allowed = [address for address in addresses if not is_refused(address.split("%", 1)[0])]
    if not allowed:
        raise FetchError(
            f"{host} leads to this machine, and builds fetch nothing from it. If that is meant, "
            f"the operator trusts the host with {TRUST_VARIABLE}={host}:{port}.",
            status=403,
        )
    return allowed[0]


async def _small_body(answer: httpx.Response, url: str) -> bytes:
    body = b""
    async for chunk in answer.aiter_bytes():
        body += chunk
        if len(body) > _MAX_JSON_BYTES:
            raise FetchError(f"{shown_url(url)} answered with too much.")
    return body


async def _again(error: httpx.HTTPError | FetchError, url: str, attempt: int) -> None:
    """Wait before the next attempt, or raise when it is of no use."""
    if isinstance(error, FetchError):
        if error.status not in _AGAIN or attempt == _ATTEMPTS - 1:
            raise error
    elif attempt == _ATTEMPTS - 1 or isinstance(error, httpx.UnsupportedProtocol):
        raise FetchError(
            f"{shown_url(url)} could not be fetched: {str(error) or type(error).__name__}. "
            "Check the address and that this machine reaches it."
        ) from error
    await asyncio.sleep(_BACKOFF_S * 2**attempt)


def _check(answer: httpx.Response, url: str) -> None:
    if answer.is_success:
        return
    raise FetchError(
        f"{shown_url(url)} answered {answer.status_code} {answer.reason_phrase}.",
        status=answer.status_code,
    )


def _problem_of(path: Path, expected: Expected) -> str | None:
    size = path.stat().st_size if path.exists() else 0
    if expected.size is not None and size != expected.size:
        return f"it has {size} bytes, and {expected.size} were expected"
    for name, wanted, start in (
        ("sha256", expected.sha256, b""),
        ("sha1", expected.git_sha1, f"blob {size}\0".encode()),
    ):
        if wanted is None:
            continue
        digest: Any = hashlib.new(name, start, usedforsecurity=False)
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
        if digest.hexdigest() != wanted.lower():
            return "its checksum is not the expected one"
    return None


def _left(part: Path) -> tuple[int, str | None]:
    """How many bytes an earlier attempt left, and the version they are of."""
    tag = _tag_of(part)
    size = part.stat().st_size if part.exists() else 0
    return size, tag.read_text() if tag.exists() else None


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _tag_of(part).unlink(missing_ok=True)


def _tag_of(part: Path) -> Path:
    return part.with_name(part.name + ".etag")


def _authority(scheme: str, host: str | None, port: int | None) -> str:
    return f"{host}:{port or _PORTS.get(scheme, 443)}"


def _is_local(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Only an address of this machine can be bound."""
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(ip), 0))
        except OSError:
            return False
    return True
