"""Readiness, looked for at a real socket."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from kingpost.control.health import (
    MAX_STARTUP_INTERVAL_S,
    MIN_STARTUP_INTERVAL_S,
    probe,
    startup_interval_s,
    until_ready,
)
from kingpost.engine.base import Address


@given(st.floats(0, 10_000), st.floats(0, 10_000))
def test_looking_adds_little_to_a_start_and_slows_down(one: float, other: float) -> None:
    early, late = sorted((one, other))
    assert startup_interval_s(early) <= startup_interval_s(late)
    assert MIN_STARTUP_INTERVAL_S <= startup_interval_s(one) <= MAX_STARTUP_INTERVAL_S
    assert startup_interval_s(one) <= max(MIN_STARTUP_INTERVAL_S, one / 20)


async def test_ready_when_it_answers_2xx_and_not_before() -> None:
    statuses = [b"503 Service Unavailable", b"503 Service Unavailable", b"200 OK"]
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        status = statuses[min(len(asked), len(statuses)) - 1]
        writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        await asyncio.wait_for(until_ready(Address("127.0.0.1", port), "/ready"), 30)
        assert asked == [b"GET /ready HTTP/1.1\r\n"] * 3
    assert not await probe(Address("127.0.0.1", port), "/ready")
