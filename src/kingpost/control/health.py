"""Watches replicas' health by HTTP: until ready, then every ten seconds. Decides nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from kingpost.contract import HEALTH_PROBE_INTERVAL_S
from kingpost.engine.base import Address

FIRST_INTERVAL_S = 0.01
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
    pause = FIRST_INTERVAL_S
    while not await probe(address, path):
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, MAX_STARTUP_INTERVAL_S)


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
