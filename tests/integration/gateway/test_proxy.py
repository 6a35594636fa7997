"""The way of a request to a replica and back."""

import json
from pathlib import Path

from tests.support.gateway import (
    AUTH,
    DEPLOYMENT,
    KEY,
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
)


async def test_predict_reaches_the_replica_and_its_answer_comes_back(tmp_path: Path) -> None:
    async with replica() as server, gateway_here(tmp_path, snapshot(route(server.port))) as gateway:
        client = await gateway.connect()
        for _ in range(3):
            answer = await client.ask(post(PREDICT + "?a=%2F&b", b'{"x": 1}'))
            assert answer.status == 200
            assert answer.body == b'{"x": 1}'
            assert len(answer.headers["x-baseten-request-id"]) == 32
        assert server.connections == 1
        exchange = server.requests[-1]
        assert exchange.target == "/v1/models/model:predict?a=%2F&b"
        assert exchange.header("authorization") == f"Api-Key {KEY}"
        assert exchange.header("x-forwarded-for") == "127.0.0.1"
        assert exchange.header("x-forwarded-proto") == "http"
        assert exchange.header("x-forwarded-host") == "localhost:8000"
        assert exchange.header("x-baseten-request-id") == answer.headers["x-baseten-request-id"]


async def test_what_a_client_says_of_itself_is_not_believed(tmp_path: Path) -> None:
    lies = (
        b"X-Forwarded-For: 1.2.3.4\r\nx_forwarded_for: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\n"
        b"X-Baseten-Request-Id: mine\r\nX-Kingpost-Authority: evil\r\nConnection: x-secret\r\n"
        b"X-Secret: 1\r\nProxy-Connection: keep-alive\r\nTE: trailers\r\n"
        b"X-Baseten-Customer-Request-Id: kept\r\n"
    )
    async with replica() as server, gateway_here(tmp_path, snapshot(route(server.port))) as gateway:
        assert (await gateway.ask(post(more=lies))).status == 200
        names = {name for name, _ in server.requests[0].headers}
        assert names == {
            "host",
            "content-length",
            "authorization",
            "x-baseten-customer-request-id",
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-forwarded-host",
            "x-baseten-request-id",
        }
        assert server.requests[0].header("x-forwarded-for") == "127.0.0.1"


async def test_answer_is_forwarded_piece_by_piece(tmp_path: Path) -> None:
    async def stream(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while data := await exchange.reader.read(1):
            await exchange.send(b"1\r\n" + data + b"\r\n")
            if data == b"!":
                await exchange.send(b"0\r\nX-Trailer: dropped\r\n\r\n")
                return

    async with (
        replica(stream) as server,
        gateway_here(tmp_path, snapshot(route(server.port))) as gateway,
    ):
        client = await gateway.connect()
        await client.send(post())
        status, headers = await client.head()
        assert (status, headers["transfer-encoding"]) == (200, "chunked")
        for letter in b"abc!":
            server.requests[0].reader.feed_data(bytes([letter]))
            assert await client.chunk() == bytes([letter])
        assert await client.chunk() == b""
        answer = await client.ask(get("/healthz"))
        assert json.loads(answer.body)["status"] == "ok"


async def test_the_control_plane_gets_everything_else(tmp_path: Path) -> None:
    control = Replica()
    async with gateway_here(tmp_path, snapshot(route())) as gateway:
        away = await gateway.ask(get("/v1/models", host="api.localhost:8000"))
        assert away.status == 503
        assert "retry-after" in away.headers
        assert set(json.loads(away.body)) == {"code", "message"}
        await control.start(path=gateway.data.control_socket)
        try:
            answer = await gateway.ask(
                post("/v1/models/a%2Fb?x=1", b"hello", host="api.localhost:8000")
            )
        finally:
            await control.stop()
        assert (answer.status, answer.body) == (200, b"hello")
        exchange = control.requests[0]
        assert exchange.target == "/v1/models/a%2Fb?x=1"
        assert exchange.header("host") == "api.localhost:8000"
        assert exchange.header("x-kingpost-authority") == "localhost:8000"


async def test_absolute_form_is_served_for_our_hosts_alone(tmp_path: Path) -> None:
    async with replica() as server, gateway_here(tmp_path, snapshot(route(server.port))) as gateway:
        ours = await gateway.ask(
            post(f"http://model-{MODEL}.localhost:8000/production/predict", b"x")
        )
        assert (ours.status, ours.body) == (200, b"x")
        theirs = await gateway.ask(get("http://example.com/"))
        assert theirs.status == 421
        tunnel = await gateway.ask(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n")
        assert tunnel.status == 405


async def test_keys(tmp_path: Path) -> None:
    async with replica() as server, gateway_here(tmp_path, snapshot(route(server.port))) as gateway:
        bearer = post().replace(b"Api-Key", b"bEARER")
        assert (await gateway.ask(bearer)).status == 200
        none = await gateway.ask(post().replace(AUTH, b""))
        assert none.status == 401
        assert json.loads(none.body)["error_code"] == "unauthorized"
        assert (await gateway.ask(post().replace(KEY.encode(), b"wrong"))).status == 401
        assert (
            await gateway.ask(post(f"/model/{MODEL}/deployment/{DEPLOYMENT}/predict"))
        ).status == 200
        assert (await gateway.ask(post("/model/zzzzzzzz/production/predict"))).status == 404
