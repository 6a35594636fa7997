"""The gateway as a real process: drain, kill, restart, TLS, a foreign end of its disk."""

import asyncio
import json
import signal
import ssl
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.gateway import (
    KEY,
    MODEL,
    Exchange,
    gateway_process,
    get,
    post,
    replica,
    route,
    snapshot,
    until,
)


async def test_sigterm_finishes_what_runs(tmp_path: Path) -> None:
    async def wait(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        await exchange.reader.readexactly(1)
        await exchange.send(b"1\r\nb\r\n0\r\n\r\n")

    async with (
        replica(wait) as server,
        gateway_process(tmp_path, snapshot(route(server.port))) as gateway,
    ):
        idle, busy = await gateway.connect(), await gateway.connect()
        assert (await idle.ask(get("/healthz"))).status == 200
        await busy.send(post())
        await busy.head()
        assert await busy.chunk() == b"a"
        assert gateway.process
        gateway.process.send_signal(signal.SIGTERM)
        assert await idle.closed() == b""
        server.requests[0].reader.feed_data(b"x")
        assert (await busy.chunk(), await busy.chunk()) == (b"b", b"")
        assert await busy.closed() == b""
        async with asyncio.timeout(10):
            assert await gateway.process.wait() == 0


async def test_the_drain_has_a_deadline(tmp_path: Path) -> None:
    async def never(exchange: Exchange) -> None:
        await exchange.left()

    async with (
        replica(never) as server,
        gateway_process(
            tmp_path, snapshot(route(server.port)), "--drain-timeout", "0.3"
        ) as gateway,
    ):
        client = await gateway.connect()
        await client.send(post())
        await until(lambda: server.requests)
        assert gateway.process
        gateway.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            assert await gateway.process.wait() == 0
        await until(server.requests[0].gone.is_set)


async def test_killed_and_restarted_it_serves_without_control(tmp_path: Path) -> None:
    async with replica() as server:
        async with gateway_process(tmp_path, snapshot(route(server.port))) as gateway:
            assert (await gateway.ask(post(body=b"1"))).body == b"1"
            await until(gateway.data.gateway_state.exists)
            assert gateway.process
            gateway.process.kill()
            await gateway.process.wait()
        async with gateway_process(tmp_path, None) as gateway:
            assert (await gateway.ask(post(body=b"2"))).body == b"2"


@pytest.mark.parametrize("damage", ["torn", "garbage", "empty"])
async def test_a_damaged_state_file_is_no_reason_not_to_start(tmp_path: Path, damage: str) -> None:
    async with replica() as server:
        async with gateway_process(tmp_path, snapshot(route(server.port))) as gateway:
            await until(gateway.data.gateway_state.exists)
            gateway.control.delta(route())
            size = gateway.data.gateway_state.stat().st_size
            await until(lambda: gateway.data.gateway_state.stat().st_size > size)
        path = gateway.data.gateway_state
        whole = path.read_bytes()
        path.write_bytes({"torn": whole[:-3], "garbage": b"\xff" * 100, "empty": b""}[damage])
        async with gateway_process(tmp_path, None) as gateway:
            health = await gateway.ask(get("/healthz"))
            assert health.status == (200 if damage == "torn" else 503)
            if damage == "torn":
                assert (await gateway.ask(post(body=b"x"))).body == b"x"


async def test_tls(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    import datetime as dt

    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert_path, key_path = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    trust = ssl.create_default_context(cafile=str(cert_path))
    arguments = ("--tls-cert", str(cert_path), "--tls-key", str(key_path))
    async with replica() as server, gateway_process(tmp_path / "data", None, *arguments) as gateway:
        await gateway.control.connect()
        gateway.control.send(snapshot(route(server.port)))
        async with httpx.AsyncClient(
            verify=trust, base_url=f"https://localhost:{gateway.port}"
        ) as client:
            async with asyncio.timeout(10):
                while (await client.get("/healthz")).status_code != 200:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            answer = await client.post(
                f"/model/{MODEL}/production/predict",
                content=b"x" * 3_000_000,
                headers={"Authorization": f"Bearer {KEY}"},
            )
            assert (answer.status_code, len(answer.content)) == (200, 3_000_000)
            assert server.requests[0].header("x-forwarded-proto") == "https"


async def test_a_replica_killed_under_load_costs_only_its_own_requests(tmp_path: Path) -> None:
    async def hang(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.left()

    async with replica(hang) as doomed, replica() as healthy:
        state = snapshot(
            route(doomed.port, healthy.port, concurrency_target=2, target_utilization=1.0)
        )
        async with gateway_process(tmp_path, state) as gateway:
            victims = [await gateway.connect() for _ in range(2)]
            for victim in victims:
                await victim.send(post())
            await until(lambda: len(doomed.requests) == 2)
            await doomed.stop()
            for victim in victims:
                assert (await victim.answer()).status == 502
            for number in range(20):
                answer = await gateway.ask(post(body=b"%d" % number))
                assert (answer.status, answer.body) == (200, b"%d" % number)


async def test_idle_connections_cost_little_and_harm_nobody(tmp_path: Path) -> None:
    async with (
        replica() as server,
        gateway_process(tmp_path, snapshot(route(server.port))) as gateway,
    ):
        clients = [await gateway.connect() for _ in range(300)]
        answers = await asyncio.gather(*(client.ask(post(body=b"x")) for client in clients))
        assert {answer.status for answer in answers} == {200}
        health = await gateway.ask(get("/healthz"))
        assert json.loads(health.body)["status"] == "ok"


def test_wrong_arguments_are_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from kingpost.gateway.server import main

    assert main(["--data-dir", str(tmp_path)]) == 2
    assert "--listen" in capsys.readouterr().err
    assert main(["--data-dir", str(tmp_path), "--tls-cert", "x", "--listen", "127.0.0.1:0"]) == 2
    assert "--tls-key" in capsys.readouterr().err
