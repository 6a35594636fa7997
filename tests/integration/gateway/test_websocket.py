"""WebSocket: real clients and servers through the tunnel, and what a tunnel counts as."""

import asyncio
from pathlib import Path

import pytest
import websockets
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from tests.support.gateway import (
    DEPLOYMENT,
    KEY,
    MODEL,
    Exchange,
    gateway_here,
    get,
    post,
    replica,
    route,
    snapshot,
    until,
)

HEADERS = {"Authorization": f"Api-Key {KEY}"}


async def echo(socket: ServerConnection) -> None:
    async for message in socket:
        await socket.send(message)


@pytest.mark.parametrize(
    ("path", "arrives"),
    [("websocket", "/v1/websocket"), ("sync/v1/realtime?model=x", "/v1/realtime?model=x")],
)
async def test_messages_go_both_ways(tmp_path: Path, path: str, arrives: str) -> None:
    async with serve(echo, "127.0.0.1", 0, max_size=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with gateway_here(tmp_path, snapshot(route(port))) as gateway:
            uri = f"ws://127.0.0.1:{gateway.port}/model/{MODEL}/production/{path}"
            async with connect(uri, additional_headers=HEADERS, max_size=None) as client:
                (server_side,) = server.connections
                assert server_side.request
                assert server_side.request.path == arrives
                for message in ("hello", b"\x00" * 5_000_000, "bye"):
                    await client.send(message)
                    assert await client.recv() == message
                await (await client.ping())
                assert gateway.gateway
                load = gateway.gateway.admission.report()[0][DEPLOYMENT]
                assert (load.in_flight, load.held, load.requests) == (1, 0, 1)
            await until(
                lambda: (
                    gateway.gateway and not gateway.gateway.admission.lanes[DEPLOYMENT].in_flight
                )
            )


async def test_the_server_ends_it(tmp_path: Path) -> None:
    async def goodbye(socket: ServerConnection) -> None:
        await socket.close(4000, "enough")

    async with serve(goodbye, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with gateway_here(tmp_path, snapshot(route(port))) as gateway:
            uri = f"ws://127.0.0.1:{gateway.port}/model/{MODEL}/production/websocket"
            async with connect(uri, additional_headers=HEADERS) as client:
                with pytest.raises(websockets.ConnectionClosed):
                    await client.recv()
                assert client.close_code == 4000


async def test_a_client_that_vanishes_ends_it(tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def listen(socket: ServerConnection) -> None:
        await socket.wait_closed()
        ended.set()

    async with serve(listen, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with gateway_here(tmp_path, snapshot(route(port))) as gateway:
            uri = f"ws://127.0.0.1:{gateway.port}/model/{MODEL}/production/websocket"
            client = await connect(uri, additional_headers=HEADERS)
            client.transport.abort()
            async with asyncio.timeout(5):
                await ended.wait()
            await client.wait_closed()


async def test_what_is_said_early_arrives_and_a_refusal_is_an_answer(tmp_path: Path) -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"

    async def switch(exchange: Exchange) -> None:
        if exchange.header("x-refuse"):
            await exchange.reply(b"no", 403)
            return
        await exchange.send(b"HTTP/1.1 101 Switching Protocols\r\n" + upgrade + b"\r\nhi")
        await exchange.send(await exchange.reader.readexactly(5))
        await exchange.left()

    path = f"/model/{MODEL}/production/websocket"
    async with (
        replica(switch) as server,
        gateway_here(tmp_path, snapshot(route(server.port))) as gateway,
    ):
        client = await gateway.connect()
        await client.send(get(path, more=upgrade + b"X-Refuse: 1\r\n"))
        assert (await client.answer()).status == 403
        await client.send(get(path, more=upgrade) + b"early")
        status, headers = await client.head()
        assert (status, headers["upgrade"], headers["connection"]) == (101, "websocket", "Upgrade")
        assert await client.reader.readexactly(7) == b"hiearly"
        assert server.requests[1].header("upgrade") == "websocket"


async def test_other_upgrades_are_not_taken(tmp_path: Path) -> None:
    async with replica() as server, gateway_here(tmp_path, snapshot(route(server.port))) as gateway:
        client = await gateway.connect()
        plain = await client.ask(get(f"/model/{MODEL}/production/websocket"))
        assert plain.status == 426
        h2c = await client.ask(
            post(more=b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n")
        )
        assert h2c.status == 200
        assert server.requests[0].header("upgrade") is None
