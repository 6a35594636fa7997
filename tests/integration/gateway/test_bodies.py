"""Bodies of all kinds, both ways: streamed, bounded, with back-pressure."""

import asyncio
import json
from pathlib import Path

from kingpost import contract
from tests.support.gateway import (
    AUTH,
    MODEL,
    PREDICT,
    Exchange,
    Replica,
    gateway_here,
    get,
    post,
    replica,
    route,
    snapshot,
    until,
)

CHUNKED = (
    f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n".encode()
    + AUTH
    + b"\r\n"
)


async def test_a_chunked_upload_streams(tmp_path: Path) -> None:
    async with replica() as server, gateway_here(tmp_path, snapshot(route(server.port))) as gateway:
        client = await gateway.connect()
        await client.send(CHUNKED + b"3\r\nabc\r\n")
        await until(lambda: server.requests)
        await client.send(b"2;x=y\r\nde\r\n0\r\n\r\n")
        assert (await client.answer()).body == b"abcde"
        assert (await client.ask(post(body=b"next"))).body == b"next"


async def test_100_megabytes_are_the_limit(tmp_path: Path) -> None:
    limit = contract.MAX_INFERENCE_BODY_BYTES
    async with replica() as server, gateway_here(tmp_path, snapshot(route(server.port))) as gateway:
        head = f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {limit + 1}\r\n"
        announced = await gateway.ask(head.encode() + AUTH + b"\r\n")
        assert announced.status == 413
        assert json.loads(announced.body)["error_code"] == "payload_too_large"
        assert not server.requests

        async def swallow(exchange: Exchange) -> None:
            await exchange.left()

        server.handler = swallow
        client = await gateway.connect()
        piece = b"%x\r\n%b\r\n" % (1_000_000, b"x" * 1_000_000)
        await client.send(CHUNKED)
        for _ in range(101):
            await client.send(piece)
        assert (await client.answer()).status == 413
        await until(lambda: server.requests and server.requests[0].gone.is_set())


async def test_expect_is_answered_once_the_request_goes_forward(tmp_path: Path) -> None:
    async with replica() as server, gateway_here(tmp_path, snapshot(route(server.port))) as gateway:
        client = await gateway.connect()
        request = post(body=b"body", more=b"Expect: 100-continue\r\n")
        await client.send(request[:-4])
        assert (await client.head())[0] == 100
        await client.send(b"body")
        assert (await client.answer()).body == b"body"
        assert server.requests[0].header("expect") is None

        await client.send(request.replace(MODEL.encode(), b"none1234")[:-4])
        refused = await client.answer()
        assert (refused.status, refused.headers["connection"]) == (404, "close")
        other = post(more=b"Expect: tea\r\n")
        assert (await gateway.ask(other)).status == 417


async def test_an_upload_to_the_control_plane_has_no_limit_of_ours(tmp_path: Path) -> None:
    size = 0

    async def count(exchange: Exchange) -> None:
        nonlocal size
        left = int(exchange.header("content-length") or 0)
        while left:
            data = await exchange.reader.read(65536)
            left -= len(data)
            size += len(data)
        await exchange.reply()

    control = Replica(count)
    async with gateway_here(tmp_path, None) as gateway:
        await control.start(path=gateway.data.control_socket)
        try:
            client = await gateway.connect()
            total = 120_000_000
            await client.send(
                f"PUT /s3/bucket/key HTTP/1.1\r\nHost: localhost:18500\r\n"
                f"Content-Length: {total}\r\nExpect: 100-continue\r\n\r\n".encode()
            )
            assert (await client.head())[0] == 100
            for _ in range(120):
                await client.send(b"x" * 1_000_000)
            assert (await client.answer()).status == 200
        finally:
            await control.stop()
        assert size == total


async def test_a_slow_replica_slows_the_client(tmp_path: Path) -> None:
    go = asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        await go.wait()
        await exchange.reply(b"%d" % len(await exchange.body()))

    async with (
        replica(slow) as server,
        gateway_here(tmp_path, snapshot(route(server.port))) as gateway,
    ):
        client = await gateway.connect()
        size = 60_000_000
        client.writer.write(post(body=b"x" * size))
        await until(lambda: server.requests)
        (connection,) = gateway.gateway.connections if gateway.gateway else ()
        await until(lambda: connection._paused)
        assert client.writer.transport.get_write_buffer_size() > size // 3
        go.set()
        assert (await client.answer()).body == b"%d" % size


async def test_a_slow_client_slows_the_replica(tmp_path: Path) -> None:
    sent = 0

    async def flood(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.body()
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 200000000\r\n\r\n")
        for _ in range(200):
            await exchange.send(b"x" * 1_000_000)
            sent += 1

    async with (
        replica(flood) as server,
        gateway_here(tmp_path, snapshot(route(server.port))) as gateway,
    ):
        client = await gateway.connect()
        await client.send(post())
        assert (await client.head())[0] == 200
        (connection,) = gateway.gateway.connections if gateway.gateway else ()
        await until(lambda: connection._full_since_s)
        size = connection.transport.get_write_buffer_size()
        assert size < 4_000_000
        assert sent < 100
        async with asyncio.timeout(30):
            assert len(await client.reader.readexactly(200_000_000)) == 200_000_000


async def test_http_1_0_clients(tmp_path: Path) -> None:
    async def chunked(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await exchange.send(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")

    async with (
        replica(chunked) as server,
        gateway_here(tmp_path, snapshot(route(server.port))) as gateway,
    ):
        client = await gateway.connect()
        old = post(body=b"").replace(b"HTTP/1.1", b"HTTP/1.0")
        answer = await client.ask(old)
        assert "transfer-encoding" not in answer.headers
        assert (answer.headers["connection"], answer.body) == ("close", b"abcde")
        server.handler = Replica().handler
        client = await gateway.connect()
        kept = post(body=b"one", more=b"Connection: keep-alive\r\n").replace(
            b"HTTP/1.1", b"HTTP/1.0"
        )
        for _ in range(2):
            answer = await client.ask(kept)
            assert (answer.headers["connection"], answer.body) == ("keep-alive", b"one")


async def test_an_answer_that_ends_with_its_connection_is_chunked_for_the_client(
    tmp_path: Path,
) -> None:
    async def until_close(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.send(b"HTTP/1.0 200 OK\r\n\r\nabc")
        await exchange.send(b"def")
        exchange.writer.close()

    async with (
        replica(until_close) as server,
        gateway_here(tmp_path, snapshot(route(server.port))) as gateway,
    ):
        client = await gateway.connect()
        for _ in range(2):
            answer = await client.ask(post())
            assert (answer.headers["transfer-encoding"], answer.body) == ("chunked", b"abcdef")


async def test_answers_without_body(tmp_path: Path) -> None:
    async def bare(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n")
        await exchange.send(b"HTTP/1.1 %b X\r\n\r\n" % exchange.target[-3:].encode())

    async with (
        replica(bare) as server,
        gateway_here(tmp_path, snapshot(route(server.port))) as gateway,
    ):
        client = await gateway.connect()
        for status in (204, 304):
            await client.send(get(f"/model/{MODEL}/production/sync/{status}"))
            assert (await client.answer()).status == status
        assert server.connections == 1


async def test_an_answer_before_the_requests_end(tmp_path: Path) -> None:
    async def early(exchange: Exchange) -> None:
        await exchange.reply(b"no", status=400)
        await exchange.left()

    async with (
        replica(early) as server,
        gateway_here(tmp_path, snapshot(route(server.port))) as gateway,
    ):
        client = await gateway.connect()
        await client.send(CHUNKED + b"3\r\nabc\r\n")
        answer = await client.answer()
        assert (answer.status, answer.body, answer.headers["connection"]) == (400, b"no", "close")
        assert await client.closed() == b""


async def test_a_slow_client_leaves_connections_that_others_can_use(tmp_path: Path) -> None:
    async def large(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.reply(b"x" * 100_000)

    async with (
        replica(large) as server,
        gateway_here(tmp_path, snapshot(route(server.port))) as gateway,
    ):
        slow = await gateway.connect()
        slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await slow.send(post())
        await until(lambda: server.requests)
        assert gateway.gateway
        (connection,) = gateway.gateway.connections
        asked = 1
        while not connection.full:
            await until(lambda: connection.relay is None)
            await slow.send(post())
            asked += 1
            await until(lambda count=asked: len(server.requests) == count)
        for _ in range(3):
            assert len((await gateway.ask(post())).body) == 100_000
        more = 50
        await slow.send(post() * more)
        await until(lambda: connection._buffer)
        assert connection.transport.get_write_buffer_size() < 1_000_000
        slow.writer.transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(asked + more):
            assert len((await slow.answer()).body) == 100_000
