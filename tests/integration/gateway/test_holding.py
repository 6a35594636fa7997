"""Requests that wait: for a first replica, for a free one, or until their time is over."""

import asyncio
import json
import time
from pathlib import Path

from kingpost.messages import Hello, LoadReport
from kingpost.settings import Limits
from tests.support.gateway import (
    DEPLOYMENT,
    MODEL,
    Exchange,
    gateway_here,
    post,
    replica,
    route,
    snapshot,
    until,
)

UNLOADED = b'{"error":"Model with name model is not ready."}'
UNLOADED_HEADERS = b"X-BASETEN-ERROR-SOURCE: 04\r\nX-BASETEN-ERROR-CODE: 600\r\n"


def counts(report: LoadReport) -> tuple[int, int, int] | None:
    load = report.loads.get(DEPLOYMENT)
    return (load.in_flight, load.held, load.requests) if load else None


async def test_held_while_cold_and_reported_at_once(tmp_path: Path) -> None:
    async with replica() as server, gateway_here(tmp_path, snapshot(route())) as gateway:
        control = gateway.control
        clients = [await gateway.connect() for _ in range(3)]
        for number, client in enumerate(clients):
            await client.send(post(body=b"%d" % number))
        await until(lambda: any(counts(r) == (0, 3, 3) for r in control.loads()))
        control.delta(route(server.port))
        for number, client in enumerate(clients):
            assert (await client.answer()).body == b"%d" % number
        await until(lambda: counts(control.loads()[-1]) == (0, 0, 3))


async def test_a_large_body_waits_without_being_read(tmp_path: Path) -> None:
    async with replica() as server, gateway_here(tmp_path, snapshot(route())) as gateway:
        client = await gateway.connect()
        body = b"x" * 30_000_000
        client.writer.write(post(body=body))
        admission = gateway.gateway.admission if gateway.gateway else None
        assert admission is not None
        await until(lambda: admission.held_bytes > 1_000_000)
        (connection,) = gateway.gateway.connections if gateway.gateway else ()
        await until(lambda: connection._paused)
        assert admission.held_bytes < 2_000_000
        gateway.control.delta(route(server.port))
        assert (await client.answer()).body == body
        assert admission.held_bytes == 0


async def test_no_replica_gets_more_than_its_concurrency(tmp_path: Path) -> None:
    running = most = 0

    async def count(exchange: Exchange) -> None:
        nonlocal running, most
        await exchange.body()
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        await exchange.reply()

    state = snapshot(route(concurrency_target=2))
    async with replica(count) as server, gateway_here(tmp_path, state) as gateway:
        gateway.control.delta(route(server.port, concurrency_target=2))
        answers = await asyncio.gather(*(gateway.ask(post()) for _ in range(12)))
        assert {answer.status for answer in answers} == {200}
        assert most == 2


async def test_reject_on_full(tmp_path: Path) -> None:
    async def never(exchange: Exchange) -> None:
        await exchange.left()

    async with replica(never) as server:
        state = snapshot(route(server.port, concurrency_target=1, backpressure="REJECT_ON_FULL"))
        async with gateway_here(tmp_path, state) as gateway:
            first = await gateway.connect()
            await first.send(post())
            await until(lambda: server.requests)
            answer = await gateway.ask(post())
            assert answer.status == 429
            assert answer.headers["retry-after"] == "1"


async def test_past_the_bounds_429_with_retry_after(tmp_path: Path) -> None:
    limits = Limits(max_held_requests=2)
    async with gateway_here(tmp_path, snapshot(route()), limits=limits) as gateway:
        for _ in range(2):
            client = await gateway.connect()
            await client.send(post())
        admission = gateway.gateway.admission if gateway.gateway else None
        assert admission is not None
        await until(lambda: admission.held == 2)
        answer = await gateway.ask(post())
        assert (answer.status, json.loads(answer.body)["error_code"]) == (429, "rate_limited")
        assert "retry-after" in answer.headers


async def test_the_deadline_is_the_clients_or_the_models(tmp_path: Path) -> None:
    async with gateway_here(tmp_path, snapshot(route())) as gateway:
        started = time.monotonic()
        answer = await gateway.ask(post(more=b"Request-Timeout-Ms: 300\r\n"))
        assert (answer.status, json.loads(answer.body)["error_code"]) == (504, "timeout")
        assert time.monotonic() - started >= 0.3
        gateway.control.delta(route(predict_timeout_s=0.2))
        assert (await gateway.ask(post())).status == 504


async def test_a_stream_that_passes_its_deadline_is_cut_off(tmp_path: Path) -> None:
    async def endless(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        await exchange.left()

    async with (
        replica(endless) as server,
        gateway_here(tmp_path, snapshot(route(server.port))) as gateway,
    ):
        answer = await gateway.ask(post(more=b"Request-Timeout-Ms: 200\r\n"))
        assert (answer.status, answer.complete) == (200, False)
        await until(server.requests[0].gone.is_set)


async def test_another_replica_takes_what_one_refuses(tmp_path: Path) -> None:
    async with replica() as dead, replica() as server:
        await dead.stop()
        state = snapshot(route(dead.port, server.port))
        async with gateway_here(tmp_path, state) as gateway:
            answer = await gateway.ask(post(body=b"x"))
            assert (answer.status, answer.body) == (200, b"x")
            assert answer.headers["x-baseten-model-prediction-attempts"] == "2"
            again = await gateway.ask(post(body=b"y"))
            assert again.headers["x-baseten-model-prediction-attempts"] == "1"


async def test_a_replica_that_comes_back_is_tried_again(tmp_path: Path) -> None:
    async with replica() as server:
        await server.stop()
        async with gateway_here(tmp_path, snapshot(route(server.port))) as gateway:
            client = await gateway.connect()
            await client.send(post(body=b"late"))
            admission = gateway.gateway.admission if gateway.gateway else None
            assert admission is not None
            await until(lambda: admission.held == 1)
            await server.start(server.port)
            assert (await client.answer()).body == b"late"
            assert not admission.lanes[DEPLOYMENT].slots[0].ejected_until_s


async def test_not_loaded_is_tried_again_elsewhere_with_the_body(tmp_path: Path) -> None:
    async def unloaded(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.reply(UNLOADED, 503, UNLOADED_HEADERS)

    async with (
        replica(unloaded) as cold,
        replica() as warm,
        gateway_here(tmp_path, snapshot(route(cold.port, warm.port))) as gateway,
    ):
        answer = await gateway.ask(post(body=b"hello"))
        assert (answer.status, answer.body) == (200, b"hello")
        assert len(cold.requests) == 1


async def test_a_503_of_the_models_own_is_passed_on(tmp_path: Path) -> None:
    async def own(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.reply(b'{"error":"upstream of mine is down"}', 503, UNLOADED_HEADERS)

    async with (
        replica(own) as server,
        gateway_here(tmp_path, snapshot(route(server.port))) as gateway,
    ):
        answer = await gateway.ask(post())
        assert (answer.status, answer.body) == (503, b'{"error":"upstream of mine is down"}')
        assert answer.headers["x-baseten-error-code"] == "600"
        assert len(server.requests) == 1


async def test_a_request_that_was_sent_is_never_sent_twice(tmp_path: Path) -> None:
    async def die(exchange: Exchange) -> None:
        await exchange.body()
        exchange.writer.transport.abort()

    async with (
        replica(die) as server,
        replica() as other,
        gateway_here(tmp_path, snapshot(route(server.port, other.port))) as gateway,
    ):
        assert (await gateway.ask(post())).status == 502
        assert (len(server.requests), len(other.requests)) == (1, 0)


async def test_an_answer_cut_off_in_the_middle_is_seen_to_be(tmp_path: Path) -> None:
    async def half(exchange: Exchange) -> None:
        await exchange.body()
        framing = exchange.header("x-framing") or ""
        await exchange.send(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n3\r\nabc\r\n".encode())
        exchange.writer.transport.abort()

    async with (
        replica(half) as server,
        gateway_here(tmp_path, snapshot(route(server.port))) as gateway,
    ):
        for framing in (b"Content-Length: 100", b"Transfer-Encoding: chunked"):
            answer = await gateway.ask(post(more=b"X-Framing: " + framing + b"\r\n"))
            assert (answer.status, answer.complete) == (200, False)


async def test_statuses_that_do_not_answer(tmp_path: Path) -> None:
    async with gateway_here(tmp_path, snapshot(route())) as gateway:
        for status, code, retry in (
            ("BUILDING", 503, True),
            ("UNHEALTHY", 503, True),
            ("BUILD_FAILED", 503, False),
            ("INACTIVE", 404, False),
        ):
            gateway.control.delta(route(status=status, wakes=False, reason="It says why."))
            await until(
                lambda: gateway.gateway and gateway.gateway.world.number == gateway.control.number
            )
            answer = await gateway.ask(post())
            assert answer.status == code
            assert ("retry-after" in answer.headers) is retry
            assert "It says why." in json.loads(answer.body)["error"]
        draft = await gateway.ask(post(f"/model/{MODEL}/development/predict"))
        assert draft.status == 404
        assert "--published" in json.loads(draft.body)["error"]


async def test_held_requests_hear_that_their_deployment_will_not_come(tmp_path: Path) -> None:
    async with gateway_here(tmp_path, snapshot(route())) as gateway:
        admission = gateway.gateway.admission if gateway.gateway else None
        assert admission is not None
        first, second = await gateway.connect(), await gateway.connect()
        await first.send(post())
        await until(lambda: admission.held == 1)
        gateway.control.delta(route(status="DEPLOY_FAILED", wakes=False))
        assert (await first.answer()).status == 503
        gateway.control.delta(route())
        await until(
            lambda: gateway.gateway and gateway.gateway.world.number == gateway.control.number
        )
        await second.send(post())
        await until(lambda: admission.held == 1)
        gateway.control.delta(removed_deployments=(DEPLOYMENT,))
        assert (await second.answer()).status == 404


async def test_wake(tmp_path: Path) -> None:
    wake = post(f"/model/{MODEL}/production/wake")
    async with gateway_here(tmp_path, snapshot(route())) as gateway:
        assert (await gateway.ask(wake)).status == 202
        await until(lambda: [w.deployment_id for w in gateway.control.wakes()] == [DEPLOYMENT])
        await gateway.control.close()
        await until(lambda: gateway.gateway and not gateway.gateway._link.connected)
        assert (await gateway.ask(wake)).status == 202
        gateway.control.received.clear()
        assert isinstance(await gateway.control.connect(), Hello)
        await until(lambda: [w.deployment_id for w in gateway.control.wakes()] == [DEPLOYMENT])


async def test_what_is_not_there_yet_says_so(tmp_path: Path) -> None:
    async with gateway_here(tmp_path, snapshot(route())) as gateway:
        for action in ("async_predict", "async_run_remote"):
            answer = await gateway.ask(post(f"/model/{MODEL}/production/{action}"))
            assert answer.status == 501
            assert "not available yet" in json.loads(answer.body)["error"]
