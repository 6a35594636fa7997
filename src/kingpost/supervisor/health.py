"""Asks a platform on this machine for its health, over its own port."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass

import msgspec

from kingpost.settings import Settings

TIMEOUT_S = 2.0
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (what to dial instead)


@dataclass(frozen=True)
class Health:
    """`control` is whether the gateway reaches the control plane."""

    control: bool
    notices: tuple[str, ...]


class _Notice(msgspec.Struct):
    message: str


class _Body(msgspec.Struct):
    control: str = ""
    notices: list[_Notice] = []


async def ask_health(settings: Settings) -> Health | None:
    """None when nobody answers, or it is not ready."""
    host = _ANY_ADDRESS.get(settings.host, settings.host)
    context = None
    if settings.tls_cert:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, settings.port, ssl=context)
            try:
                writer.write(
                    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
                )
                answer = await reader.read()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return None
    head, _, body = answer.partition(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n", 1)[0]:
        return None
    try:
        parsed = msgspec.json.decode(body, type=_Body)
    except msgspec.MsgspecError:
        return None
    return Health(parsed.control == "connected", tuple(notice.message for notice in parsed.notices))
