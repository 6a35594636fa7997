"""The gateway's end of the link to the control plane: a Unix socket that control connects to.

Says `Hello`, takes `Snapshot` and `Delta`, gives `LoadReport` and `WakeRequested`. One control
plane at a time: a newer connection ends the older one.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

import kingpost
from kingpost.gateway.frames import Framer, frame
from kingpost.gateway.state import OutOfStepError
from kingpost.messages import Delta, Hello, LoadReport, Snapshot, WakeRequested

_log = logging.getLogger(__name__)

_MAX_WAITING_WAKES: Final = 10_000
_decoder: msgspec.msgpack.Decoder[Snapshot | Delta] = msgspec.msgpack.Decoder(Snapshot | Delta)


class Link:
    """`apply` takes what comes and may raise `OutOfStepError`; `number` is the state's."""

    def __init__(
        self,
        path: Path,
        apply: Callable[[Snapshot | Delta], None],
        number: Callable[[], int],
        connected: Callable[[], None],
    ) -> None:
        self._path = path
        self._apply = apply
        self._number = number
        self._connected = connected
        self._peer: _Peer | None = None
        self._wakes: dict[str, None] = {}
        self._server: asyncio.AbstractServer | None = None

    @property
    def connected(self) -> bool:
        return self._peer is not None

    async def start(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path.unlink(missing_ok=True)
        loop = asyncio.get_running_loop()
        old_mask = os.umask(0o177)
        try:
            self._server = await loop.create_unix_server(lambda: _Peer(self), str(self._path))
        finally:
            os.umask(old_mask)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        if self._peer is not None:
            self._peer.transport.close()

    def report(self, report: LoadReport) -> None:
        if self._peer is not None:
            self._peer.transport.write(frame(report))

    def wake(self, deployment_id: str) -> None:
        """Ask for a replica; kept until a control plane is there to hear it."""
        if self._peer is not None:
            self._peer.transport.write(frame(WakeRequested(deployment_id)))
        elif len(self._wakes) < _MAX_WAITING_WAKES:
            self._wakes[deployment_id] = None

    def opened(self, peer: _Peer) -> None:
        old, self._peer = self._peer, peer
        if old is not None:
            old.transport.close()
        peer.transport.write(frame(Hello(os.getpid(), kingpost.__version__, self._number())))
        wakes, self._wakes = self._wakes, {}
        for deployment_id in wakes:
            self.wake(deployment_id)
        _log.info("control connected")
        self._connected()

    def closed(self, peer: _Peer) -> None:
        if self._peer is peer:
            self._peer = None
            _log.warning("control is away; serving on from the last state")

    def received(self, peer: _Peer, body: bytes) -> None:
        if self._peer is not peer:
            return
        try:
            self._apply(_decoder.decode(body))
        except OutOfStepError as error:
            _log.warning("state out of step, asking for a snapshot", extra={"error": str(error)})
            self._drop(peer)
        except (ValueError, msgspec.MsgspecError) as error:
            _log.error("message from control not understood", extra={"error": str(error)})
            self._drop(peer)

    def _drop(self, peer: _Peer) -> None:
        self._peer = None
        peer.transport.close()


class _Peer(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, link: Link) -> None:
        self._link = link
        self._framer = Framer()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self._link.opened(self)

    def data_received(self, data: bytes) -> None:
        try:
            bodies = self._framer.feed(data)
        except ValueError as error:
            _log.error("frame from control not taken", extra={"error": str(error)})
            self.transport.close()
            return
        for body in bodies:
            self._link.received(self, body)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._link.closed(self)
