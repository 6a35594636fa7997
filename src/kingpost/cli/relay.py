"""Two loopback doors for a child process that must reach one platform and nothing else.

The plain one takes HTTP proxy requests and passes every byte on to the platform over TLS, whatever
host they name: what the platform does not own it refuses itself (421), so a key can reach only the
platform that it belongs to. The closed one stands where HTTPS requests would go and refuses all.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from kingpost.client.remote import Remote

_CHUNK_BYTES: Final = 64 * 1024
_HEAD_BYTES: Final = 64 * 1024
_CONNECT_S: Final = 10.0
_OWN_HOSTS: Final = (b"localhost", b".localhost")

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Doors:
    """Proxy addresses for a child. `plain` is the platform itself where that speaks plain HTTP."""

    plain: str
    closed: str


@contextmanager
def open_doors(remote: Remote, tls: ssl.SSLContext | None) -> Iterator[Doors]:
    """Serve both doors in a thread until the block ends."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="relay", daemon=True)
    thread.start()
    servers: list[asyncio.Server] = []
    try:
        servers.append(_listen(loop, _refuser(remote)))
        if tls is not None:
            servers.append(_listen(loop, _relay(remote, tls)))
        addresses = [f"http://127.0.0.1:{s.sockets[0].getsockname()[1]}" for s in servers]
        yield Doors(remote.url if tls is None else addresses[1], addresses[0])
    finally:
        asyncio.run_coroutine_threadsafe(_end_all(servers), loop).result(timeout=10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def proxied_host(head: bytes) -> bytes | None:
    """The host that a proxy request's head names, in lower case; None if it is no such request."""
    words = head.split(b"\r\n", 1)[0].split(b" ")
    if len(words) != 3 or not words[1].lower().startswith(b"http://"):
        return None
    authority = words[1][len(b"http://") :].split(b"/", 1)[0].split(b"?", 1)[0]
    if b"@" in authority:
        return None
    return authority.rpartition(b":")[0].lower() or authority.lower()


def is_own_host(host: bytes) -> bool:
    """`localhost` and names below it: what a platform calls itself in the answers to a child."""
    return host == _OWN_HOSTS[0] or host.endswith(_OWN_HOSTS[1])


def _listen(loop: asyncio.AbstractEventLoop, serve: Serve) -> asyncio.Server:
    started = asyncio.start_server(serve, "127.0.0.1", 0, limit=_HEAD_BYTES)
    return asyncio.run_coroutine_threadsafe(started, loop).result(timeout=10)


async def _end_all(servers: list[asyncio.Server]) -> None:
    for server in servers:
        server.close()
    tasks = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _refuser(remote: Remote) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            await reader.readuntil(b"\r\n\r\n")
            await _answer(writer, "403 Only the platform", f"Nothing but {remote.url} is reached.")
        writer.close()

    return serve


def _relay(remote: Remote, tls: ssl.SSLContext) -> Serve:
    parts = urlsplit(remote.url)
    host, port = parts.hostname or "", parts.port or 443

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = await reader.readuntil(b"\r\n\r\n")
            asked = proxied_host(head)
            if asked is None or not is_own_host(asked):
                await _answer(writer, "421 Misdirected", f"Nothing but {remote.url} is reached.")
            else:
                await _pass_on(reader, writer, head, host, port, tls)
        writer.close()

    return serve


async def _pass_on(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    head: bytes,
    host: str,
    port: int,
    tls: ssl.SSLContext,
) -> None:
    try:
        async with asyncio.timeout(_CONNECT_S):
            up_reader, up_writer = await asyncio.open_connection(
                host, port, ssl=tls, server_hostname=host
            )
    except (OSError, TimeoutError) as error:
        await _answer(writer, "502 Bad Gateway", f"{host}:{port} can't be reached: {error}")
        return
    up_writer.write(head)
    directions = [
        asyncio.ensure_future(_copy(reader, up_writer)),
        asyncio.ensure_future(_copy(up_reader, writer)),
    ]
    try:
        await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for direction in directions:
            direction.cancel()
        await asyncio.gather(*directions, return_exceptions=True)
        up_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK_BYTES):
        writer.write(data)
        await writer.drain()


async def _answer(writer: asyncio.StreamWriter, status: str, message: str) -> None:
    body = message.encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
    writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)
    await writer.drain()
