"""Watches replicas' health by HTTP: until ready, then every ten seconds. Decides nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from kingpost.contract import HEALTH_PROBE_INTERVAL_S
from kingpost.engine.base import Address

MIN_STARTUP_INTERVAL_S = 0.01
MAX_STARTUP_INTERVAL_S = 0.25
PROBE_TIMEOUT_S = 10.0

OnHealth = Callable[[bool], Awaitable[None]]


async def probe(address: Address, path: str, timeout_s: float = PROBE_TIMEOUT_S) -> bool:
    """Whether `GET path` is answered with 2xx in time."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(address.host, address.port)
            try:
                writer.write(
                    f"GET {path} HTTP/1.1\r\nHost: {address.host}\r\n"
                    "User-Agent: kingpost-health\r\nConnection: close\r\n\r\n".encode()
                )
                status_line = await reader.readline()
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError, ValueError):
        return False
    parts = status_line.split(b" ", 2)
    return len(parts) >= 2 and parts[0].startswith(b"HTTP/1.") and parts[1][:1] == b"2"


async def until_ready(address: Address, path: str) -> None:
    """Return when it is ready for the first time. The engine says when it has ended instead."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    while not await probe(address, path):
        pause_s = startup_interval_s(loop.time() - began_s)
        await asyncio.sleep(pause_s)


def startup_interval_s(elapsed_s: float) -> float:
    """Until the next look: a twentieth of what the start has taken, which is what it may add."""
    return min(max(MIN_STARTUP_INTERVAL_S, elapsed_s / 20), MAX_STARTUP_INTERVAL_S)


async def watch(
    address: Address,
    path: str,
    on_health: OnHealth,
    *,
    interval_s: float = HEALTH_PROBE_INTERVAL_S,
) -> None:
    """Call `on_health` at each change of one that is well now. Runs until cancelled."""
    well = True
    while True:
        await asyncio.sleep(interval_s)
        now_well = await probe(address, path)
        if now_well != well:
            well = now_well
            await on_health(well)
