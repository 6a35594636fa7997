"""Bytes that mean harm, or two things: each gets one clear answer, and never a second request."""

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kingpost.gateway.gateway import Timeouts
from tests.support.gateway import (
    AUTH,
    MODEL,
    PREDICT,
    Exchange,
    Replica,
    TestGateway,
    echo,
    gateway_here,
    get,
    post,
    replica,
    route,
    snapshot,
)

SYNC = f"/model/{MODEL}/production/sync/x"
START = f"POST {PREDICT} HTTP/1.1\r\n".encode() + AUTH
QUICK = Timeouts(header_s=0.3, body_idle_s=0.3, idle_s=0.3, look_s=0.1)


@pytest.fixture
async def server() -> AsyncIterator[Replica]:
    async with replica() as running:
        yield running


@pytest.fixture
async def gateway(server: Replica, tmp_path: Path) -> AsyncIterator[TestGateway]:
    async with gateway_here(tmp_path, snapshot(route(server.port))) as running:
        yield running


async def refused(gateway: TestGateway, raw: bytes) -> int:
    """The status of the one answer to `raw`, after which the connection ends."""
    client = await gateway.connect()
    await client.send(raw)
    answer = await client.answer()
    assert "error" in json.loads(answer.body)
    assert answer.headers["connection"] == "close"
    assert len(answer.headers["x-baseten-request-id"]) == 32
    assert await client.closed() == b""
    return answer.status


SECOND = post(body=b"smuggled")


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        pytest.param(START + b"Host: localhost\r\nHost: x\r\n\r\n", 400, id="two hosts"),
        pytest.param(START + b"\r\n", 400, id="no host"),
        pytest.param(
            START + b"Host: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            501,
            id="gzip, chunked",
        ),
        pytest.param(
            START.replace(b"HTTP/1.1", b"HTTP/1.0")
            + b"Host: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            id="HTTP/1.0 with transfer encoding",
        ),
        pytest.param(
            START + b"Host: localhost\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
            400,
            id="conflicting lengths",
        ),
        pytest.param(
            START + b"Host: localhost\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
            400,
            id="duplicate length",
        ),
        pytest.param(
            START
            + b"Host: localhost\r\nContent-Length: 4\r\n"
            + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            id="length and chunked",
        ),
        pytest.param(START + b"Host: localhost\n\n", 400, id="bare line feed at the end"),
        pytest.param(START + b"Host: localhost\nX: y\r\n\r\n", 400, id="bare line feed"),
        pytest.param(START + b"Host: localhost\r\nX: y\r\n z\r\n\r\n", 400, id="folded line"),
        pytest.param(START + b"Host : localhost\r\n\r\n", 400, id="space before colon"),
        pytest.param(START + b"Host: localhost\r\nX: a\x00b\r\n\r\n", 400, id="NUL in a value"),
        pytest.param(START + b"Host: localhost\r\nX\x00: a", 400, id="NUL in an unfinished head"),
        pytest.param(START + b"Host: localhost\r\nX: " + b"a" * 70_000, 431, id="large headers"),
        pytest.param(
            START + b"Host: localhost\r\n" + b"X: a\r\n" * 201 + b"\r\n", 431, id="many headers"
        ),
        pytest.param(b"GET /" + b"a" * 70_000, 414, id="long target"),
        pytest.param(b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, id="HTTP/2.0"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, id="HTTP/2 preface"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, id="TLS hello"),
        pytest.param(b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400, id="target not ASCII"),
        pytest.param(
            START + b"Host: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
            400,
            id="chunk longer than its size",
        ),
        pytest.param(
            START + b"Host: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            400,
            id="chunk size not a number",
        ),
    ],
)
async def test_refused(gateway: TestGateway, server: Replica, raw: bytes, status: int) -> None:
    assert await refused(gateway, raw + SECOND) == status
    assert all(
        exchange.target != "/v1/models/model:predict" or exchange.header("transfer-encoding")
        for exchange in server.requests
    )
    assert (await gateway.ask(post(body=b"good"))).body == b"good"


async def test_a_trailer_is_never_a_header(gateway: TestGateway, server: Replica) -> None:
    chunked = b"Host: localhost\r\nTransfer-Encoding: chunked\r\n"
    trailer = b"\r\n3\r\nabc\r\n0\r\nX-Evil: 1\r\n" + AUTH + b"\r\n"
    client = await gateway.connect()
    good = await client.ask(START + chunked + trailer)
    assert (good.status, good.body) == (200, b"abc")
    assert server.requests[0].header("x-evil") is None
    without = await client.ask(START.replace(AUTH, b"") + chunked + trailer)
    assert without.status == 401
    assert len(server.requests) == 1


async def test_the_answer_to_head_ends_with_its_headers(tmp_path: Path) -> None:
    async def long(exchange: Exchange) -> None:
        if exchange.method == "HEAD":
            await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        else:
            await exchange.reply(b"next")

    async with (
        replica(long) as server,
        gateway_here(tmp_path, snapshot(route(server.port))) as gateway,
    ):
        client = await gateway.connect()
        await client.send(get(SYNC, method="HEAD"))
        head = await client.answer(head_only=True)
        assert (head.status, head.headers["content-length"]) == (200, "1000")
        assert (await client.ask(get(SYNC))).body == b"next"
        assert server.connections == 1
        await client.send(get("/model/none/production/sync/x", method="HEAD"))
        assert (await client.answer(head_only=True)).status == 404
        assert (await client.ask(get(SYNC))).body == b"next"


@pytest.mark.parametrize("at_once", [True, False])
async def test_an_answer_nobody_asked_for_reaches_nobody(tmp_path: Path, *, at_once: bool) -> None:
    second = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"

    async def poison(exchange: Exchange) -> None:
        await exchange.body()
        good = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood"
        if at_once:
            await exchange.send(good + second)
        else:
            await exchange.send(good)
            await asyncio.sleep(0.02)
            await exchange.send(second)
        await exchange.left()

    async with (
        replica(poison) as server,
        gateway_here(tmp_path, snapshot(route(server.port))) as gateway,
    ):
        client = await gateway.connect()
        for count in (1, 2, 3):
            assert (await client.ask(post())).body == b"good"
            if not at_once:
                async with asyncio.timeout(5):
                    await server.requests[-1].gone.wait()
            assert server.connections == count


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\r\n\r\n",
        b"\x00" * 100,
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000,
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"",
    ],
)
async def test_a_replica_that_talks_nonsense_is_a_502(tmp_path: Path, answer: bytes) -> None:
    async def nonsense(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.send(answer)
        if answer:
            await exchange.left()
        else:
            exchange.writer.close()

    async with (
        replica(nonsense) as server,
        gateway_here(tmp_path, snapshot(route(server.port))) as gateway,
    ):
        client = await gateway.connect()
        bad = await client.ask(post())
        assert bad.status == 502
        assert json.loads(bad.body)["error_code"] == "model_unavailable"
        assert (await client.ask(get("/healthz"))).status == 200


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/model/x/../..", 404),
        (f"/model/{MODEL}/production%2Fpredict", 404),
        (f"/model/{MODEL}/production/predict%2F..", 404),
        (f"/model/{MODEL}/production/sync/..", 400),
        (f"/model/{MODEL}/production/sync/%2e%2e/x", 400),
        (f"/model/{MODEL}/nowhere/predict", 404),
    ],
)
async def test_no_form_of_a_path_changes_the_route(
    gateway: TestGateway, server: Replica, target: str, status: int
) -> None:
    assert (await gateway.ask(post(target))).status == status
    assert not server.requests


async def test_an_encoded_slash_stays_encoded(gateway: TestGateway, server: Replica) -> None:
    assert (await gateway.ask(get(SYNC + "%2Fy?z=%2F"))).status == 200
    assert server.requests[0].target == "/x%2Fy?z=%2F"


async def test_the_control_server_of_a_draft_is_out_of_reach(tmp_path: Path) -> None:
    async with (
        replica() as server,
        gateway_here(tmp_path, snapshot(route(server.port, development=True))) as gateway,
    ):
        for path in ("control/patch", "%63ontrol/patch", "/control/patch"):
            target = f"/model/{MODEL}/production/sync/{path}"
            assert (await gateway.ask(post(target))).status == 404
        assert not server.requests


@pytest.mark.parametrize("host", ["example.com", "localhost.example.com", "model-m1.example.com"])
async def test_a_foreign_host_is_misdirected(gateway: TestGateway, host: str) -> None:
    assert (await gateway.ask(get("/v1/models", host=host))).status == 421


async def test_slow_headers_end_in_408(server: Replica, tmp_path: Path) -> None:
    async with gateway_here(tmp_path, snapshot(route(server.port)), timeouts=QUICK) as gateway:
        assert await refused(gateway, b"GET / HTTP/1.1\r\nHost:") == 408
        silent = await gateway.connect()
        assert await silent.closed() == b""


async def test_a_body_that_stops_ends_in_408(server: Replica, tmp_path: Path) -> None:
    async with gateway_here(tmp_path, snapshot(route(server.port)), timeouts=QUICK) as gateway:
        assert (
            await refused(gateway, START + b"Host: localhost\r\nContent-Length: 9\r\n\r\nabc")
            == 408
        )
        assert await refused(gateway, post()[:-1]) == 408


async def test_an_idle_connection_is_closed(server: Replica, tmp_path: Path) -> None:
    async with gateway_here(tmp_path, snapshot(route(server.port)), timeouts=QUICK) as gateway:
        client = await gateway.connect()
        assert (await client.ask(post())).status == 200
        assert await client.closed() == b""


async def test_pipelined_requests_are_answered_in_order(gateway: TestGateway) -> None:
    client = await gateway.connect()
    bodies = [b"%d" % number for number in range(50)]
    await client.send(
        b"".join(post(body=body) + get("/healthz") + post("/nowhere", host="no") for body in bodies)
    )
    for body in bodies:
        assert (await client.answer()).body == body
        assert (await client.answer()).status == 200
        assert (await client.answer()).status == 421


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cuts=st.lists(st.integers(0, 2000), max_size=8))
def test_the_same_bytes_cut_anywhere_mean_the_same(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    stream = (
        post(body=b"one")
        + START
        + b"Host: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\nX: y\r\n\r\n"
        + get("/model/none/production/predict")
        + post(body=b"three", more=b"Connection: close\r\n")
    )

    async def run() -> None:
        async with (
            replica(echo) as server,
            gateway_here(tmp_path_factory.mktemp("data"), snapshot(route(server.port))) as gateway,
        ):
            client = await gateway.connect()
            points = sorted({0, len(stream), *(cut % len(stream) for cut in cuts)})
            for start, stop in pairwise(points):
                await client.send(stream[start:stop])
                await asyncio.sleep(0)
            assert (await client.answer()).body == b"one"
            assert (await client.answer()).body == b"two"
            assert (await client.answer()).status in {404, 405}
            assert (await client.answer()).body == b"three"
            assert await client.closed() == b""
            assert [exchange.method for exchange in server.requests] == ["POST"] * 3

    asyncio.run(run())


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(noise=st.lists(st.binary(max_size=120), min_size=1, max_size=5))
def test_arbitrary_bytes_do_no_harm(
    tmp_path_factory: pytest.TempPathFactory, noise: list[bytes]
) -> None:
    async def run() -> None:
        async with (
            replica(echo) as server,
            gateway_here(tmp_path_factory.mktemp("data"), snapshot(route(server.port))) as gateway,
        ):
            client = await gateway.connect()
            for piece in noise:
                client.writer.write(piece)
                await asyncio.sleep(0)
            client.close()
            assert (await gateway.ask(post(body=b"good"))).body == b"good"
            assert len(server.requests) == 1

    asyncio.run(run())
