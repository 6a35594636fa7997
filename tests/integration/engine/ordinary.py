"""The suite of every engine, and what a sandbox without root must keep; for an ordinary user.

`test_rootless.py` starts it as one, so its name is not one that pytest takes by itself.
"""

from __future__ import annotations

import asyncio
import http.server
import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from kingpost.engine.base import Address, Command
from kingpost.engine.process import ProcessEngine
from kingpost.errors import EngineError
from kingpost.settings import DataFolder, SandboxMode
from tests.integration.engine.conformance import *  # noqa: F403
from tests.integration.engine.conformance import GREEDY
from tests.support.engine import (
    PYTHON,
    eventually,
    get,
    kill_shim,
    leftovers,
    processes_naming,
    python_spec,
    running_engine,
    stop_all,
)
from tests.support.probe import PROBE, ask, reaches

# Without a control group nothing counts a command's memory; SECURITY.md says so.
del test_a_command_out_of_memory_says_so  # noqa: F821


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[ProcessEngine]:
    assert os.geteuid() != 0
    async with running_engine(tmp_path / "data", SandboxMode.REQUIRE) as made:
        yield made


@pytest.fixture
async def again(
    engine: ProcessEngine,
) -> AsyncIterator[Callable[[], Awaitable[ProcessEngine]]]:
    made: list[ProcessEngine] = []

    async def make() -> ProcessEngine:
        another = ProcessEngine(DataFolder(engine._data.root), SandboxMode.REQUIRE)
        await another.prepare()
        made.append(another)
        return another

    yield make
    for another in made:
        await stop_all(another)
        assert leftovers(another) == []
        await another.close()


@pytest.fixture
def host_server() -> Iterator[int]:
    """The port of a server that listens on every address of the host."""
    server = http.server.ThreadingHTTPServer(("0.0.0.0", 0), http.server.SimpleHTTPRequestHandler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


async def probe(engine: ProcessEngine, replica_id: str = "r1", **spec: object) -> Address:
    address = await engine.start(python_spec(replica_id, PROBE, **spec), {}, {})  # type: ignore[arg-type]
    assert await get(address) == "ok"
    return address


def outside() -> tuple[str, int]:
    """A server beyond this machine."""
    return os.environ["OUTSIDE_ADDRESS"], int(os.environ["OUTSIDE_PORT"])


def host_addresses() -> list[str]:
    done = subprocess.run(["ip", "-j", "-4", "addr"], capture_output=True, text=True, check=True)
    return [
        entry["local"] for link in json.loads(done.stdout) for entry in link.get("addr_info", [])
    ]


async def test_it_says_what_is_weaker_than_as_root(engine: ProcessEngine) -> None:
    assert engine.sandboxed
    codes = [notice.code for notice in engine.notices]
    assert "sandbox_rootless" in codes
    assert "sandbox_missing" not in codes


async def test_replicas_do_not_reach_each_other(engine: ProcessEngine) -> None:
    first, second = await probe(engine, "r1"), await probe(engine, "r2")
    assert await reaches(first, "127.0.0.1", 8000)
    for name in host_addresses():
        assert not await reaches(first, name, second.port), name
    listed = "result = open('/proc/net/unix').read().count('@')"
    assert await ask(first, listed) == "0"


async def test_a_replica_does_not_reach_the_host(engine: ProcessEngine, host_server: int) -> None:
    address = await probe(engine)
    names = host_addresses()
    assert len(names) > 1
    for name in names:
        with socket.create_connection((name, host_server), timeout=5):
            pass
        assert not await reaches(address, name, host_server), name


async def test_its_port_is_on_loopback_only(engine: ProcessEngine) -> None:
    address = await probe(engine)
    assert address.host == "127.0.0.1"
    for name in host_addresses():
        if not name.startswith("127."):
            with pytest.raises(OSError):  # noqa: PT011 - refused, or no answer
                socket.create_connection((name, address.port), timeout=2).close()


async def test_egress_goes_out_unless_it_has_no_network(engine: ProcessEngine) -> None:
    host, port = outside()
    connected = await probe(engine, "r1")
    assert await reaches(connected, host, port)
    alone = await probe(engine, "r2", network=False)
    assert not await reaches(alone, host, port)


async def test_a_command_without_network_has_none(engine: ProcessEngine) -> None:
    host, port = outside()
    program = (
        "import socket, sys\n"
        f"try: socket.create_connection(({host!r}, {port}), timeout=5)\n"
        "except OSError: sys.exit(3)"
    )
    argv = (PYTHON, "-c", program)
    assert await engine.run(Command(user="t", argv=argv), lambda _: None) == 0
    assert await engine.run(Command(user="t", argv=argv, network=False), lambda _: None) == 3


async def test_link_local_addresses_are_not_reached(engine: ProcessEngine) -> None:
    address = await probe(engine)
    _, port = outside()
    link_local = os.environ["OUTSIDE_LINK_LOCAL"]
    with socket.create_connection((link_local, port), timeout=5):
        pass
    assert not await reaches(address, link_local, port)


async def test_files_of_the_host_are_not_there(engine: ProcessEngine) -> None:
    (engine._data.root / "admin.key").write_text("key")
    await engine.start(python_spec("r2", PROBE), {"token": "of-another"}, {})
    address = await probe(engine)
    hidden = [
        "/etc/shadow",
        "/root",
        "/home/" + (os.environ.get("USER") or "app2"),
        str(engine._data.root / "admin.key"),
        str(engine._ready().secrets_root / "r2" / "token"),
        "/secrets/token",
        "/run/docker.sock",
        "/dev/mem",
    ]
    assert await ask(address, f"result = [p for p in {hidden!r} if os.path.exists(p)]") == "[]"


async def test_it_has_no_capability_and_regains_none(engine: ProcessEngine) -> None:
    address = await probe(engine)
    status = await ask(address, "result = open('/proc/self/status').read()")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == [str(os.geteuid())] * 4
    assert fields["NoNewPrivs"] == "1"
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(fields[name], 16) == 0, name


async def test_it_sees_only_its_own_processes(engine: ProcessEngine) -> None:
    address = await probe(engine)
    seen = await ask(address, "result = sorted(int(n) for n in os.listdir('/proc') if n.isdigit())")
    assert seen == "[1, 2]"


async def test_it_has_no_descriptor_and_no_variable_of_ours(engine: ProcessEngine) -> None:
    address = await probe(engine)
    code = """
    result = []
    for number in range(3, 64):
        try:
            result.append(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:
            pass
    """
    found = await ask(address, code)
    assert str(engine._data.root) not in found
    assert "memfd" not in found
    assert "pipe" not in found
    assert "KINGPOST" not in await ask(address, "result = sorted(os.environ)")


async def test_secrets_and_dynamic_config_follow_changes(engine: ProcessEngine) -> None:
    spec = python_spec("r1", PROBE)
    address = await engine.start(spec, {"a": "one", "b": "two"}, {"environment": "{}"})
    read = "result = {n: open('/secrets/' + n).read() for n in sorted(os.listdir('/secrets'))}"
    assert await ask(address, read) == str({"a": "one", "b": "two"})
    await engine.put_secrets("r1", {"a": "changed", "c": "three"})
    assert await ask(address, read) == str({"a": "changed", "c": "three"})
    await engine.put_dynamic("r1", {"environment": "[]"})
    read = "result = open('/etc/b10_dynamic_config/environment').read()"
    assert await ask(address, read) == "[]"
    assert "Read-only" in await ask(address, "open('/secrets/a', 'w')")


async def test_memory_is_watched(engine: ProcessEngine) -> None:
    assert engine._ready().machine.groups is None
    slow = GREEDY.replace("held.append", "__import__('time').sleep(0.1); held.append")
    await engine.start(python_spec("r1", slow, memory_bytes=96 * 1024**2), {}, {})
    ended = await asyncio.wait_for(engine.wait("r1"), 60)
    assert (ended.oom, ended.reason) == (True, "out of memory: limit 96 MiB")
    assert leftovers(engine) == []


async def test_a_killed_shim_takes_its_replica_along(engine: ProcessEngine) -> None:
    await probe(engine)
    kill_shim(engine, "r1")
    assert (await asyncio.wait_for(engine.wait("r1"), 30)).reason
    assert [left for left in leftovers(engine) if left.startswith("process")] == []


@pytest.mark.parametrize("part", ["child", "init"])
async def test_a_killed_part_of_the_sandbox_ends_all_of_it(
    engine: ProcessEngine, part: str
) -> None:
    await probe(engine)
    shim = engine._known["r1"].folder.shim()
    assert shim is not None
    os.kill(getattr(shim, part), signal.SIGKILL)
    ended = await asyncio.wait_for(engine.wait("r1"), 30)
    assert ended.signal == 9
    root = str(engine._data.root)
    await eventually(lambda: processes_naming(root) == [], "no process of it is left")


async def test_a_taken_port_is_an_error_and_leaves_nothing(
    engine: ProcessEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr("kingpost.engine.start.free_port", lambda: port)
        with pytest.raises(EngineError, match="sandbox could not be made"):
            await engine.start(python_spec("r1", PROBE), {"a": "b"}, {})
    assert leftovers(engine) == []
