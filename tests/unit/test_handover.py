"""Listening sockets pass from process to process."""

from __future__ import annotations

import asyncio
import socket
import stat
from pathlib import Path

from kingpost import handover


def test_nobody_offers(tmp_path: Path) -> None:
    assert handover.take(tmp_path / "none.sock") is None


async def test_a_socket_on_offer_is_the_same_socket(tmp_path: Path) -> None:
    path = tmp_path / "run" / "listener.sock"
    with socket.create_server(("127.0.0.1", 0)) as original:
        offer = handover.Offer(path, [original])
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        taken = await asyncio.to_thread(handover.take, path)
        offer.close()
        assert taken is not None
        address = original.getsockname()
    with taken:
        assert taken.getsockname() == address
        with socket.create_connection(address, timeout=5) as client:
            accepted, peer = taken.accept()
            accepted.close()
            assert peer == client.getsockname()
    assert not path.exists()
