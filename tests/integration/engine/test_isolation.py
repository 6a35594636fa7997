"""What a sandboxed replica can't see, reach or do; each test tries it from the inside."""

from __future__ import annotations

import asyncio
import http.server
import socket
import stat
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from kingpost.engine.base import Address, Bind, Command
from kingpost.engine.logfile import read_lines
from kingpost.engine.process import ProcessEngine
from tests.support.engine import PYTHON, get, python_spec, running_engine
from tests.support.outside import Outside, outside_network
from tests.support.probe import PROBE, ask, reaches


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[ProcessEngine]:
    async with running_engine(tmp_path / "data") as made:
        yield made


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


@pytest.fixture
def outside() -> Iterator[Outside]:
    with outside_network() as network:
        yield network


async def probe(engine: ProcessEngine, replica_id: str = "r1", **spec: object) -> Address:
    address = await engine.start(python_spec(replica_id, PROBE, **spec), {}, {})  # type: ignore[arg-type]
    assert await get(address) == "ok"
    return address


def host_addresses() -> list[str]:
    told = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True)
    return [name for name in told.stdout.split() if ":" not in name]


def kind_of_file_system(path: Path) -> str:
    words = ["stat", "-f", "-c", "%T", str(path)]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def host_side(address: Address) -> str:
    """The host's end of a replica's /31."""
    head, _, last = address.host.rpartition(".")
    return f"{head}.{int(last) - 1}"


async def test_replicas_do_not_reach_each_other(engine: ProcessEngine) -> None:
    first, second = await probe(engine, "r1"), await probe(engine, "r2")
    assert await reaches(first, "127.0.0.1", first.port)
    assert await reaches(first, first.host, first.port)
    assert not await reaches(first, second.host, second.port)
    assert not await reaches(second, first.host, first.port)


async def test_a_replica_does_not_reach_the_host(engine: ProcessEngine, host_server: int) -> None:
    address = await probe(engine)
    with socket.create_connection(("127.0.0.1", host_server), timeout=5):
        pass
    for name in ["127.0.0.1", "localhost", host_side(address), *host_addresses()]:
        assert not await reaches(address, name, host_server), name


async def test_egress_goes_out_but_not_to_link_local_and_not_back_in(
    engine: ProcessEngine, outside: Outside
) -> None:
    address = await probe(engine)
    assert await reaches(address, outside.address, outside.port)
    assert not await reaches(address, outside.link_local, outside.port)
    assert not outside.reaches(address)


async def test_without_network_nothing_is_reached_but_the_replica_is(
    engine: ProcessEngine, outside: Outside
) -> None:
    address = await probe(engine, network=False)
    assert not await reaches(address, outside.address, outside.port)
    assert await get(address) == "ok"


async def test_a_command_without_network_has_none(engine: ProcessEngine, outside: Outside) -> None:
    program = (
        "import socket, sys\n"
        f"try: socket.create_connection(({outside.address!r}, {outside.port}), timeout=5)\n"
        "except OSError: sys.exit(3)"
    )
    argv = (PYTHON, "-c", program)
    with_network = Command(user="t", argv=argv)
    without = Command(user="t", argv=argv, network=False)
    assert await engine.run(with_network, lambda _: None) == 0
    assert await engine.run(without, lambda _: None) == 3


async def test_other_users_of_the_host_do_not_reach_a_replica(engine: ProcessEngine) -> None:
    address = await probe(engine)
    program = (
        f"import socket; socket.create_connection(({address.host!r}, {address.port}), timeout=2)"
    )
    for uid, allowed in (("0", True), ("65534", False)):
        words = ["setpriv", f"--reuid={uid}", "--clear-groups", PYTHON, "-c", program]
        done = await asyncio.to_thread(subprocess.run, words, capture_output=True, check=False)
        assert (done.returncode == 0) is allowed, uid


async def test_the_address_of_a_dead_replica_leads_nowhere(engine: ProcessEngine) -> None:
    address = await probe(engine)
    await engine.stop("r1", grace_s=5)
    with pytest.raises(OSError, match=r"unreachable|No route to host"):
        socket.create_connection((address.host, address.port), timeout=5)


async def test_files_of_the_host_are_not_there(engine: ProcessEngine) -> None:
    (engine._data.root / "admin.key").write_text("key")
    other = python_spec("r2", PROBE, user="team-b")
    await engine.start(other, {"token": "of-team-b"}, {})
    address = await probe(engine)
    hidden = [
        "/etc/shadow",
        "/root",
        str(engine._data.root / "admin.key"),
        str(engine._data.root),
        str(engine._ready().secrets_root / "r2" / "token"),
        "/secrets/token",
        "/run/docker.sock",
        "/dev/mem",
        "/dev/vda",
        "/sys/fs/cgroup",
    ]
    seen = await ask(address, f"result = [p for p in {hidden!r} if os.path.exists(p)]")
    assert seen == "[]"


async def test_it_is_nobody_special(engine: ProcessEngine) -> None:
    address = await probe(engine)
    status = await ask(address, "result = open('/proc/self/status').read()")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    uid = str(engine.user_id("team-a"))
    assert fields["Uid"].split() == [uid] * 4
    assert fields["Gid"].split() == [uid] * 4
    assert fields["Groups"].strip() == ""
    assert fields["NoNewPrivs"] == "1"
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(fields[name], 16) == 0, name


async def test_teams_have_users_of_their_own(engine: ProcessEngine) -> None:
    first = await probe(engine, "r1", user="team-a")
    second = await probe(engine, "r2", user="team-b")
    third = await probe(engine, "r3", user="team-a")
    users = [await ask(each, "result = os.getuid()") for each in (first, second, third)]
    assert users[0] == users[2] != users[1]
    assert "0" not in users


async def test_it_sees_only_its_own_processes(engine: ProcessEngine) -> None:
    address = await probe(engine)
    seen = await ask(address, "result = sorted(int(n) for n in os.listdir('/proc') if n.isdigit())")
    assert seen == "[1, 2]"


async def test_it_writes_only_where_it_may(engine: ProcessEngine) -> None:
    address = await probe(engine)
    code = """
    result = []
    for folder in ("/", "/usr", "/etc", "/run", "/secrets", "/var", "/tmp", "/home/app",
                   "/dev/shm", os.environ["HOME"]):
        try:
            open(folder + "/written", "w").write("x")
            result.append(folder)
        except OSError:
            pass
    """
    assert await ask(address, code) == "['/tmp', '/home/app', '/dev/shm', '/home/app']"


async def test_secrets_are_files_that_follow_changes(engine: ProcessEngine) -> None:
    address = await engine.start(python_spec("r1", PROBE), {"a": "one", "b": "two"}, {})
    read = "result = {n: open('/secrets/' + n).read() for n in sorted(os.listdir('/secrets'))}"
    assert await ask(address, read) == str({"a": "one", "b": "two"})
    await engine.put_secrets("r1", {"a": "changed", "c.d-e": "three"})
    assert await ask(address, read) == str({"a": "changed", "c.d-e": "three"})


async def test_secrets_are_never_on_disk(engine: ProcessEngine) -> None:
    value = "a-value-that-is-nowhere-else"
    await engine.start(python_spec("r1", PROBE), {"token": value}, {})
    await engine.put_secrets("r1", {"token": value + "-2"})
    files = [path for path in engine._data.root.rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if value.encode() in path.read_bytes()] == []
    folder = engine._ready().secrets_root
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "r1" / "token").stat().st_mode) == 0o400
    assert kind_of_file_system(folder) == "tmpfs"
    await engine.stop("r1", grace_s=5)
    assert not (folder / "r1").exists()


async def test_dynamic_config_follows_changes(engine: ProcessEngine) -> None:
    address = await engine.start(python_spec("r1", PROBE), {}, {"environment": "{}"})
    read = "result = open('/etc/b10_dynamic_config/environment').read()"
    assert await ask(address, read) == "{}"
    await engine.put_dynamic("r1", {"environment": '{"name": "production"}'})
    assert await ask(address, read) == '{"name": "production"}'


async def test_a_read_only_bind_refuses_writing(engine: ProcessEngine, tmp_path: Path) -> None:
    private = tmp_path / "private"
    shown = private / "environment"
    shown.mkdir(parents=True)
    (shown / "file").write_text("shown")
    shown.chmod(0o777)
    private.chmod(0o700)
    address = await probe(engine, binds=(Bind(str(shown), "/opt/environment"),))
    assert await ask(address, "result = open('/opt/environment/file').read()") == "shown"
    answer = await ask(address, "open('/opt/environment/new', 'w')")
    assert "Read-only file system" in answer


async def test_variables_of_the_application_do_not_act_on_root(
    engine: ProcessEngine, tmp_path: Path
) -> None:
    """The loader complains once, for the application: nothing before it took the variable."""
    logs = tmp_path / "logs"
    spec = python_spec("r1", "print('ran')", env={"LD_PRELOAD": "/evil.so"}, log_dir=logs)
    await engine.start(spec, {}, {})
    assert (await engine.wait("r1")).code == 0
    texts = [line.text for line in read_lines(logs, newest_first=False)]
    assert len([text for text in texts if "/evil.so" in text]) == 1
    assert "ran" in texts


async def test_the_platforms_own_variables_stay_outside(
    engine: ProcessEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KINGPOST_API_KEY", "the-admin-key")
    address = await probe(engine, env={"MINE": "a 'quoted' $HOME\nvalue", "odd.name": "kept"})
    found = await ask(address, "result = sorted(os.environ)")
    assert "KINGPOST_API_KEY" not in found
    assert await ask(address, "result = os.environ['MINE']") == "a 'quoted' $HOME\nvalue"
    assert await ask(address, "result = os.environ['odd.name']") == "kept"


async def test_it_has_no_descriptor_of_ours(engine: ProcessEngine) -> None:
    address = await probe(engine)
    code = "result = [os.readlink(f'/proc/1/fd/{n}') for n in os.listdir('/proc/1/fd')]"
    assert "Permission" in await ask(address, code)
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


async def test_the_number_of_its_processes_is_bounded(
    engine: ProcessEngine, tmp_path: Path
) -> None:
    program = """
import _thread, os
end, _ = os.pipe()
count = 0
try:
    while count < 6000:
        _thread.start_new_thread(os.read, (end, 1))
        count += 1
except RuntimeError:
    print(count, flush=True)
os._exit(0)
"""
    logs = tmp_path / "logs"
    spec = python_spec("r1", program, log_dir=logs, memory_bytes=2 * 1024**3)
    await engine.start(spec, {}, {})
    assert (await engine.wait("r1")).code == 0
    counts = [int(line.text) for line in read_lines(logs)]
    assert len(counts) == 1
    assert 1000 < counts[0] < 4096


async def test_a_link_made_inside_leads_no_write_of_ours_astray(engine: ProcessEngine) -> None:
    address = await probe(engine)
    answer = await ask(address, "os.symlink('/etc/passwd', '/secrets/token')")
    assert "Read-only" in answer
    await engine.put_secrets("r1", {"token": "x"})
    assert await ask(address, "result = open('/secrets/token').read()") == "x"
