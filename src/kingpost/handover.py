"""Gives listening sockets to the process that asks for them, over a private Unix socket.

The gateway offers the sockets that it serves, so that a new supervisor can take over from one
that was killed. Only the same user can connect: the socket's mode is 600.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Sequence
from pathlib import Path

MARK = b"kingpost"
TAKE_TIMEOUT_S = 5.0


class Offer:
    """Made in a running event loop; open until `close`."""

    def __init__(self, path: Path, sockets: Sequence[socket.socket]) -> None:
        self._path = path
        self._descriptors = [sock.fileno() for sock in sockets]
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.unlink(missing_ok=True)
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            self._server.bind(str(path))
        finally:
            os.umask(mask)
        self._server.listen(4)
        self._server.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._server.fileno(), self._give)

    def close(self) -> None:
        self._loop.remove_reader(self._server.fileno())
        self._server.close()
        self._path.unlink(missing_ok=True)

    def _give(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._server.accept()
            with connection:
                socket.send_fds(connection, [MARK], self._descriptors)


def take(path: Path) -> socket.socket | None:
    """The first socket on offer at `path`; None when nobody offers one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(TAKE_TIMEOUT_S)
        try:
            client.connect(str(path))
            _, descriptors, _, _ = socket.recv_fds(client, len(MARK), 8)
        except OSError:
            return None
    for extra in descriptors[1:]:
        os.close(extra)
    return socket.socket(fileno=descriptors[0]) if descriptors else None
