"""Gateways for tests: in this loop or as a real process, with a driver for the control link, raw
replicas whose every byte a test decides, and a raw HTTP client.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from kingpost.gateway.frames import Framer, frame
from kingpost.gateway.gateway import Gateway, GatewayOptions, Timeouts
from kingpost.gateway.server import listen
from kingpost.messages import (
    Delta,
    DeploymentRoute,
    Hello,
    KeyRecord,
    LoadReport,
    ModelRoute,
    ReplicaAddress,
    Snapshot,
    WakeRequested,
)
from kingpost.settings import DataFolder, Limits

KEY = "abcdefgh.0123456789abcdef0123456789abcdef"
AUTH = f"Authorization: Api-Key {KEY}\r\n".encode()
MODEL = "abcd1234"
DEPLOYMENT = "dep12345"
PREDICT = f"/model/{MODEL}/production/predict"
DEADLINE_S = 10.0


def key_record(key: str = KEY, **changes: object) -> KeyRecord:
    record = KeyRecord(
        id="key1",
        digest=hashlib.sha256(key.encode()).hexdigest(),
        category="PERSONAL",
        team_id="team1",
    )
    return msgspec.structs.replace(record, **changes)


def route(*ports: int, **changes: object) -> DeploymentRoute:
    """An active deployment with a replica on each of these loopback ports."""
    replicas = tuple(ReplicaAddress(f"rep{port}", "127.0.0.1", port) for port in ports)
    base = DeploymentRoute(
        id=DEPLOYMENT,
        model_id=MODEL,
        status="ACTIVE",
        replicas=replicas,
        wakes=True,
        concurrency_target=100,
    )
    return msgspec.structs.replace(base, **changes)


def snapshot(*routes: DeploymentRoute, number: int = 1, **changes: object) -> Snapshot:
    """One model whose production is the first of `routes`."""
    model = ModelRoute(
        id=MODEL,
        name="tiny",
        team_id="team1",
        environments={"production": routes[0].id} if routes else {},
    )
    base = Snapshot(number=number, models=(model,), deployments=routes, keys=(key_record(),))
    return msgspec.structs.replace(base, **changes)


async def until(condition: Callable[[], object], deadline_s: float = DEADLINE_S) -> None:
    """Wait until `condition()` is true; fails after `deadline_s`."""
    async with asyncio.timeout(deadline_s):
        while not condition():  # noqa: ASYNC110 - conditions of any kind
            await asyncio.sleep(0.005)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    """Decoded from its framing."""
    complete: bool = True


@dataclass
class RawClient:
    """An HTTP/1.1 client that sends exactly the bytes it is given."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        """The next answer's head; interim answers are returned too."""
        async with asyncio.timeout(DEADLINE_S):
            raw = await self.reader.readuntil(b"\r\n\r\n")
        lines = raw.decode("latin-1").split("\r\n")
        pairs = (line.split(":", 1) for line in lines[1:] if line)
        return int(lines[0].split(" ")[1]), {name.lower(): value.strip() for name, value in pairs}

    async def answer(self, *, head_only: bool = False) -> Answer:
        async with asyncio.timeout(DEADLINE_S):
            status, headers = await self.head()
            if head_only or status in {204, 304}:
                return Answer(status, headers, b"")
            try:
                body = await self._body(headers)
            except asyncio.IncompleteReadError as error:
                return Answer(status, headers, error.partial, complete=False)
            return Answer(status, headers, body)

    async def chunk(self) -> bytes:
        """The next chunk's data; empty for the last one."""
        async with asyncio.timeout(DEADLINE_S):
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            data = await self.reader.readexactly(size + 2)
            return data[:-2]

    async def closed(self) -> bytes:
        """What is still to be read until the connection ends."""
        async with asyncio.timeout(DEADLINE_S):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    async def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while data := await self.chunk():
                body += data
            return body
        if "content-length" in headers:
            return await self.reader.readexactly(int(headers["content-length"]))
        return await self.reader.read()

    async def ask(self, data: bytes) -> Answer:
        await self.send(data)
        return await self.answer()

    def reset(self) -> None:
        """Leave with a reset."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.writer.transport.abort()

    def close(self) -> None:
        self.writer.close()


def post(
    path: str = PREDICT, body: bytes = b"{}", *, host: str = "localhost:8000", more: bytes = b""
) -> bytes:
    """A whole POST with the test key."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n".encode()
        + AUTH
        + more
        + b"\r\n"
        + body
    )


def get(
    path: str, *, host: str = "localhost:8000", more: bytes = b"", method: str = "GET"
) -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n".encode() + AUTH + more + b"\r\n"


@dataclass
class Exchange:
    """One request as a replica got it, and the means to answer it byte by byte."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name.lower()), None)

    async def body(self) -> bytes:
        if self.header("transfer-encoding") == "chunked":
            body = b""
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readuntil(b"\r\n")
            return body
        return await self.reader.readexactly(int(self.header("content-length") or 0))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self, body: bytes = b"{}", status: int = 200, more: bytes = b"") -> None:
        await self.send(
            b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n%b"
            % (status, len(body), more, body)
        )

    async def left(self) -> None:
        """Wait until the other side has closed the connection."""
        async with asyncio.timeout(DEADLINE_S):
            with contextlib.suppress(ConnectionError):
                while await self.reader.read(65536):
                    pass
        self.gone.set()


Handler = Callable[[Exchange], Awaitable[None]]


async def echo(exchange: Exchange) -> None:
    """Answers with the request's body, and tells its target and headers in JSON headers."""
    body = await exchange.body()
    await exchange.reply(body, more=b"X-Target: " + exchange.target.encode() + b"\r\n")


class Replica:
    """A server on loopback (or a Unix socket) that gives each request to a handler."""

    def __init__(self, handler: Handler = echo) -> None:
        self.handler = handler
        self.port = 0
        self.connections = 0
        self.requests: list[Exchange] = []
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, port: int = 0, path: Path | None = None) -> None:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._server = await asyncio.start_unix_server(self._serve, str(path))
        else:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, limit=1 << 22)
            self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in tuple(self._writers):
            writer.transport.abort()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        self.connections += 1
        try:
            while True:
                raw = await reader.readuntil(b"\r\n\r\n")
                lines = raw.decode("latin-1").split("\r\n")
                method, target, _ = lines[0].split(" ")
                pairs = (line.split(": ", 1) for line in lines[1:] if line)
                headers = [(name.lower(), value) for name, value in pairs]
                exchange = Exchange(method, target, headers, reader, writer)
                self.requests.append(exchange)
                await self.handler(exchange)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            self._writers.discard(writer)
            self._tasks.discard(task)


@contextlib.asynccontextmanager
async def replica(handler: Handler = echo) -> AsyncIterator[Replica]:
    server = Replica(handler)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


class ControlDriver:
    """The control plane's end of the link, driven by a test."""

    def __init__(self, data: DataFolder) -> None:
        self._data = data
        self._framer = Framer()
        self._decoder = msgspec.msgpack.Decoder(Hello | LoadReport | WakeRequested)
        self.received: list[Hello | LoadReport | WakeRequested] = []
        self._task: asyncio.Task[None] | None = None
        self.number = 0
        self.closed = asyncio.Event()

    async def connect(self) -> Hello:
        path = str(self._data.gateway_socket)
        async with asyncio.timeout(DEADLINE_S):
            while True:
                with contextlib.suppress(OSError):
                    reader, self._writer = await asyncio.open_unix_connection(path)
                    break
                await asyncio.sleep(0.01)
        self._task = asyncio.get_running_loop().create_task(self._read(reader))
        await until(lambda: self.received)
        hello = self.received[0]
        assert isinstance(hello, Hello)
        return hello

    def send(self, message: Snapshot | Delta) -> None:
        self.number = message.number
        self._writer.write(frame(message))

    def delta(self, *deployments: DeploymentRoute, **changes: object) -> None:
        base = Delta(number=self.number + 1, deployments=deployments)
        self.send(msgspec.structs.replace(base, **changes))

    def loads(self) -> list[LoadReport]:
        return [message for message in self.received if isinstance(message, LoadReport)]

    def wakes(self) -> list[WakeRequested]:
        return [message for message in self.received if isinstance(message, WakeRequested)]

    async def close(self) -> None:
        if self._task is not None:
            self._writer.close()
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(65536):
            for body in self._framer.feed(data):
                self.received.append(self._decoder.decode(body))
        self.closed.set()


@dataclass
class TestGateway:
    """A gateway that serves on `port`, and the driver that gave it its state."""

    __test__ = False

    port: int
    data: DataFolder
    control: ControlDriver
    gateway: Gateway | None = None
    process: asyncio.subprocess.Process | None = None
    clients: list[RawClient] = field(default_factory=list)

    async def connect(self) -> RawClient:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 22)
        client = RawClient(reader, writer)
        self.clients.append(client)
        return client

    async def ask(self, data: bytes) -> Answer:
        """One request on a connection of its own."""
        client = await self.connect()
        return await client.ask(data)


@contextlib.asynccontextmanager
async def gateway_here(
    folder: Path,
    state: Snapshot | None,
    *,
    host_names: tuple[str, ...] = (),
    timeouts: Timeouts | None = None,
    limits: Limits | None = None,
) -> AsyncIterator[TestGateway]:
    """A gateway in this event loop. An exception that escapes a callback of it fails the test."""
    data = DataFolder(folder)
    escaped: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(
        lambda _, context: escaped.append(f"{context['message']}: {context.get('exception')!r}")
    )
    options = GatewayOptions(
        data=data,
        host_names=host_names,
        timeouts=timeouts or Timeouts(),
        limits=limits or Limits(),
    )
    gateway = Gateway(options)
    await gateway.start()
    sock = socket.create_server(("127.0.0.1", 0))
    server = await listen(gateway, sock)
    running = TestGateway(sock.getsockname()[1], data, ControlDriver(data), gateway=gateway)
    try:
        if state is not None:
            await running.control.connect()
            running.control.send(state)
            await until(lambda: gateway.world.number == state.number and gateway.world.loaded)
        yield running
    finally:
        for client in running.clients:
            client.writer.transport.abort()
        await running.control.close()
        server.close()
        await gateway.stop()
        loop.set_exception_handler(None)
    assert not escaped


@contextlib.asynccontextmanager
async def gateway_process(
    folder: Path, state: Snapshot | None, *arguments: str
) -> AsyncIterator[TestGateway]:
    """A real gateway process, `python -m kingpost.gateway`, with an inherited socket."""
    data = DataFolder(folder)
    sock = socket.create_server(("127.0.0.1", 0))
    sock.set_inheritable(True)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "kingpost.gateway",
        "--fd",
        str(sock.fileno()),
        "--data-dir",
        str(folder),
        *arguments,
        pass_fds=(sock.fileno(),),
    )
    running = TestGateway(sock.getsockname()[1], data, ControlDriver(data), process=process)
    try:
        await until(data.gateway_socket.exists)
        if state is not None:
            await running.control.connect()
            running.control.send(state)
            await _serving(running)
        yield running
    finally:
        sock.close()
        for client in running.clients:
            client.writer.transport.abort()
        await running.control.close()
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.wait()


async def _serving(running: TestGateway) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while (await running.ask(get("/healthz"))).status != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
