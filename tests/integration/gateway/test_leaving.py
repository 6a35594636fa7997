"""A client that leaves takes its request along, wherever it is by then."""

import asyncio
import json
import socket
from pathlib import Path

import pytest

from tests.support.gateway import (
    Exchange,
    RawClient,
    TestGateway,
    gateway_here,
    post,
    replica,
    route,
    snapshot,
    until,
)


def close(client: RawClient) -> None:
    client.close()


def reset(client: RawClient) -> None:
    client.reset()


def finish_sending(client: RawClient) -> None:
    client.writer.write_eof()


def shut_down(client: RawClient) -> None:
    """Finish sending now, with bytes still waiting to be sent."""
    raw = client.writer.get_extra_info("socket")
    with socket.socket(fileno=socket.dup(raw.fileno())) as duplicate:
        duplicate.shutdown(socket.SHUT_WR)


LEAVING = pytest.mark.parametrize("leave", [close, reset, finish_sending])


async def gone(exchange: Exchange) -> None:
    async with asyncio.timeout(5):
        await exchange.gone.wait()


@LEAVING
async def test_while_streaming(tmp_path: Path, leave: object) -> None:
    async def stream(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        await exchange.left()

    async with (
        replica(stream) as server,
        gateway_here(tmp_path, snapshot(route(server.port))) as gateway,
    ):
        client = await gateway.connect()
        await client.send(post())
        await client.head()
        assert await client.chunk() == b"a"
        leave(client)  # type: ignore[operator]
        await gone(server.requests[0])
        await log_says(gateway, "client_left")


@LEAVING
async def test_before_the_first_byte(tmp_path: Path, leave: object) -> None:
    async def silent(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.left()

    async with (
        replica(silent) as server,
        gateway_here(tmp_path, snapshot(route(server.port))) as gateway,
    ):
        client = await gateway.connect()
        await client.send(post())
        await until(lambda: server.requests)
        leave(client)  # type: ignore[operator]
        await gone(server.requests[0])
        assert gateway.gateway
        assert gateway.gateway.admission.report()[1] == {}


@LEAVING
async def test_while_sending_to_a_replica_that_does_not_read(tmp_path: Path, leave: object) -> None:
    seen = asyncio.Event()

    async def deaf(exchange: Exchange) -> None:
        seen.set()
        exchange.reader._limit = 1 << 30  # type: ignore[attr-defined]
        await asyncio.sleep(0.2)
        await exchange.left()

    async with (
        replica(deaf) as server,
        gateway_here(tmp_path, snapshot(route(server.port))) as gateway,
    ):
        client = await gateway.connect()
        client.writer.write(post(body=b"x" * 40_000_000))
        await seen.wait()
        (connection,) = gateway.gateway.connections if gateway.gateway else ()
        await until(lambda: connection._paused)
        if leave is finish_sending:
            shut_down(client)
        elif leave is close:
            client.writer.transport.abort()
        else:
            client.reset()
        await until(lambda: gateway.gateway and not gateway.gateway.connections)
        await gone(server.requests[0])


@LEAVING
@pytest.mark.parametrize("size", [2, 1_300_000], ids=["read", "reading paused"])
async def test_while_held(tmp_path: Path, leave: object, size: int) -> None:
    """With a body that is not all sent yet; what was sent fits into the kernel's buffers."""
    async with gateway_here(tmp_path, snapshot(route())) as gateway:
        assert gateway.gateway
        admission = gateway.gateway.admission
        client = await gateway.connect()
        client.writer.write(post(body=b"x" * 4_000_000)[: size + 200])
        await until(lambda: admission.held == 1)
        (connection,) = gateway.gateway.connections
        if size > 2:
            await until(lambda: connection._paused)
            if leave is finish_sending:
                shut_down(client)
            else:
                client.reset()
        else:
            leave(client)  # type: ignore[operator]
        await until(lambda: admission.held == 0)
        assert admission.held_bytes == 0
        await log_says(gateway, "client_left")


async def test_while_connecting(tmp_path: Path) -> None:
    """A replica whose listen queue is full: the connection is never made."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = []
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
            fillers.append(filler)
        async with gateway_here(tmp_path, snapshot(route(full.getsockname()[1]))) as gateway:
            assert gateway.gateway
            client = await gateway.connect()
            await client.send(post())
            admission = gateway.gateway.admission
            await until(lambda: admission.report()[1])
            client.close()
            await until(lambda: not admission.report()[1])
        for filler in fillers:
            filler.close()


async def log_says(gateway: TestGateway, ended: str) -> None:
    """The request's line in the access log has this end."""
    path = gateway.data.process_logs / "gateway-access.log"
    await until(path.exists)
    await until(lambda: path.read_text().endswith("\n"))
    line = json.loads(path.read_text().splitlines()[-1])
    assert line["ended"] == ended
