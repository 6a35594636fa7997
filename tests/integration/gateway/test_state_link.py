"""The link to control, and the state that outlives it."""

import json
import stat
from pathlib import Path

from kingpost.contract import KeyCategory
from kingpost.messages import Hello, ModelRoute, Notice
from tests.support.gateway import (
    KEY,
    MODEL,
    Exchange,
    gateway_here,
    get,
    key_record,
    post,
    replica,
    route,
    snapshot,
    until,
)


async def test_health(tmp_path: Path) -> None:
    async with gateway_here(tmp_path, None) as gateway:
        cold = await gateway.ask(get("/healthz"))
        assert (cold.status, json.loads(cold.body)["status"]) == (503, "starting")
        hello = await gateway.control.connect()
        assert (hello.number, isinstance(hello, Hello)) == (0, True)
        gateway.control.send(snapshot(route(), notices=(Notice("sandbox", "There is none."),)))
        await until(lambda: gateway.gateway and gateway.gateway.world.loaded)
        warm = await gateway.ask(get("/healthz"))
        body = json.loads(warm.body)
        assert (warm.status, body["status"], body["control"]) == (200, "ok", "connected")
        assert body["notices"] == [{"code": "sandbox", "message": "There is none."}]


async def test_a_gateway_serves_from_its_last_state(tmp_path: Path) -> None:
    async with replica() as server:
        async with gateway_here(tmp_path, snapshot(route())) as gateway:
            gateway.control.delta(route(server.port))
            assert (await gateway.ask(post(body=b"1"))).body == b"1"
            path = gateway.data.gateway_state
            await until(path.exists)
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(gateway.data.gateway_socket.stat().st_mode) == 0o600
        async with gateway_here(tmp_path, None) as gateway:
            assert (await gateway.ask(post(body=b"2"))).body == b"2"
            health = json.loads((await gateway.ask(get("/healthz"))).body)
            assert (health["status"], health["control"]) == ("ok", "away")
            assert (await gateway.control.connect()).number == 2


async def test_a_delta_out_of_step_ends_the_link(tmp_path: Path) -> None:
    async with gateway_here(tmp_path, snapshot(route())) as gateway:
        gateway.control.number = 5
        gateway.control.delta(route())
        await until(gateway.control.closed.is_set)
        assert gateway.gateway
        assert gateway.gateway.world.number == 1
        await gateway.control.close()
        gateway.control.received.clear()
        assert (await gateway.control.connect()).number == 1


async def test_a_newer_control_takes_over(tmp_path: Path) -> None:
    async with gateway_here(tmp_path, snapshot(route())) as gateway:
        old, gateway.control = gateway.control, type(gateway.control)(gateway.data)
        await gateway.control.connect()
        await until(old.closed.is_set)
        gateway.control.send(snapshot(route(), number=9))
        await until(lambda: gateway.gateway and gateway.gateway.world.number == 9)
        await old.close()


async def test_a_replica_taken_away_finishes_and_gets_nothing_new(tmp_path: Path) -> None:
    async def wait(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.reader.readexactly(1)
        await exchange.reply(b"old")

    async with (
        replica(wait) as old,
        replica() as new,
        gateway_here(tmp_path, snapshot(route(old.port))) as gateway,
    ):
        client = await gateway.connect()
        await client.send(post())
        await until(lambda: old.requests)
        gateway.control.delta(route(new.port))
        await until(lambda: gateway.gateway and gateway.gateway.world.number == 2)
        assert (await gateway.ask(post(body=b"new"))).body == b"new"
        loads = gateway.control.loads
        await until(lambda: loads() and loads()[-1].replicas == {f"rep{old.port}": 1})
        old.requests[0].reader.feed_data(b"x")
        assert (await client.answer()).body == b"old"
        await until(lambda: not loads()[-1].replicas)
        assert len(old.requests) == 1


async def test_rights_of_keys(tmp_path: Path) -> None:
    other = ModelRoute(id="other123", name="o", team_id="team2", environments={"production": "x"})
    mine = snapshot(route()).models[0]
    async with replica() as server:
        state = snapshot(route(server.port), models=(mine, other))
        async with gateway_here(tmp_path, state) as gateway:
            missing = await gateway.ask(post("/model/zzzzzzzz/production/predict"))
            foreign = await gateway.ask(post("/model/other123/production/predict"))
            assert missing.status == foreign.status == 404
            assert missing.body.replace(b"zzzzzzzz", b"") == foreign.body.replace(b"other123", b"")
            for changes, status in (
                ({"category": KeyCategory.WORKSPACE_INVOKE, "model_ids": (MODEL,)}, 200),
                ({"category": KeyCategory.WORKSPACE_INVOKE, "model_ids": ("else1234",)}, 403),
                ({"category": KeyCategory.WORKSPACE_MANAGE_ALL}, 200),
                ({"category": KeyCategory.WORKSPACE_EXPORT_METRICS}, 403),
                ({"category": KeyCategory.WORKSPACE_MANAGE_API_KEYS}, 403),
            ):
                gateway.control.delta(keys=(key_record(KEY, **changes),))
                await until(
                    lambda: (
                        gateway.gateway and gateway.gateway.world.number == gateway.control.number
                    )
                )
                assert (await gateway.ask(post())).status == status
            gateway.control.delta(removed_keys=("key1",))
            await until(
                lambda: gateway.gateway and gateway.gateway.world.number == gateway.control.number
            )
            assert (await gateway.ask(post())).status == 401


async def test_access_log(tmp_path: Path) -> None:
    async with replica() as server, gateway_here(tmp_path, snapshot(route(server.port))) as gateway:
        answer = await gateway.ask(post(body=b"12345"))
        path = gateway.data.process_logs / "gateway-access.log"
        await until(lambda: path.exists() and path.read_text().endswith("\n"))
        (line,) = map(json.loads, path.read_text().splitlines())
        assert line["request_id"] == answer.headers["x-baseten-request-id"]
        assert (line["key"], line["model"], line["deployment"]) == ("key1", MODEL, "dep12345")
        assert (line["replica"], line["method"]) == (f"rep{server.port}", "POST")
        assert (line["action"], line["status"], line["ended"]) == ("predict", 200, "ok")
        assert (line["bytes_in"], line["bytes_out"]) == (5, 5)
        assert 0 <= line["held_ms"] <= line["ttfb_ms"] <= line["total_ms"]
        assert KEY not in path.read_text()
