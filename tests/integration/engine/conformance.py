"""What every engine must do, whatever it runs replicas with.

A test module takes this in by defining the fixtures `engine` (prepared) and `again` (makes
another engine over the same data folder, as after a restart of the platform) and importing
`from tests.integration.engine.conformance import *`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from kingpost.engine.base import Bind, Command, Overlay, Phase
from kingpost.engine.logfile import read_lines
from kingpost.engine.process import ProcessEngine
from kingpost.errors import EngineError
from tests.support.engine import eventually, get, leftovers, python_spec
from tests.support.probe import PROBE, ask

Again = Callable[[], Awaitable[ProcessEngine]]

LINE = "for i in range({count}): print('line', i)"
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready")
time.sleep(600)
"""
DRAINING = """
import signal, sys, time
def drain(*_):
    print("draining")
    time.sleep(0.5)
    print("drained")
    sys.exit(7)
signal.signal(signal.SIGTERM, drain)
print("ready")
time.sleep(600)
"""
FORKING = """
import os, sys, time
for _ in range(5):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(600)
        os._exit(0)
print("ready")
{end}
"""
GREEDY = """
held = []
while True:
    held.append(bytearray(b"x" * (16 << 20)))
"""


def output(folder: Path, kind: str = "o") -> list[str]:
    found = read_lines(folder, newest_first=False, limit=None)
    return [line.text for line in found if line.kind == kind]


async def started(engine: ProcessEngine, folder: Path) -> None:
    await eventually(lambda: "ready" in output(folder), "the program says that it is ready")


async def test_a_replica_starts_answers_and_is_observed(engine: ProcessEngine) -> None:
    address = await engine.start(python_spec("r1", PROBE), {}, {})
    assert await get(address) == "ok"
    seen = engine.observe("r1")
    assert (seen.phase, seen.address, seen.exit) == (Phase.RUNNING, address, None)
    assert [each.replica_id for each in engine.observe_all()] == ["r1"]


async def test_starting_a_running_replica_changes_nothing(engine: ProcessEngine) -> None:
    spec = python_spec("r1", PROBE)
    address = await engine.start(spec, {}, {})
    before = await ask(address, "result = open('/proc/self/stat').read().split()[21]")
    assert await engine.start(spec, {}, {}) == address
    assert await ask(address, "result = open('/proc/self/stat').read().split()[21]") == before


async def test_an_unknown_replica_is_gone_and_stopping_it_is_fine(engine: ProcessEngine) -> None:
    assert engine.observe("nobody").phase is Phase.GONE
    await engine.stop("nobody", grace_s=1)
    ended = await engine.wait("nobody")
    assert ended.code is None
    assert ended.reason


async def test_output_and_exit_code_are_recorded(engine: ProcessEngine, tmp_path: Path) -> None:
    program = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(5)"
    await engine.start(python_spec("r1", program, log_dir=tmp_path / "logs"), {}, {})
    ended = await engine.wait("r1")
    assert (ended.code, ended.signal, ended.oom) == (5, None, False)
    assert output(tmp_path / "logs") == ["out"]
    assert output(tmp_path / "logs", "e") == ["err"]
    assert engine.observe("r1").phase is Phase.EXITED
    assert engine.observe("r1").exit == ended


async def test_death_by_a_signal_is_told_as_one(engine: ProcessEngine) -> None:
    program = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    await engine.start(python_spec("r1", program), {}, {})
    ended = await engine.wait("r1")
    assert (ended.code, ended.signal) == (None, 11)


async def test_a_replica_that_ended_can_be_started_again(
    engine: ProcessEngine, tmp_path: Path
) -> None:
    await engine.start(python_spec("r1", "raise SystemExit(3)"), {}, {})
    assert (await engine.wait("r1")).code == 3
    address = await engine.start(python_spec("r1", PROBE), {}, {})
    assert await get(address) == "ok"
    assert engine.observe("r1").phase is Phase.RUNNING


async def test_running_out_of_memory_is_named_with_the_limit(engine: ProcessEngine) -> None:
    await engine.start(python_spec("r1", GREEDY, memory_bytes=96 * 1024**2), {}, {})
    ended = await engine.wait("r1")
    assert ended.oom
    assert ended.reason == "out of memory: limit 96 MiB"


async def test_stop_lets_an_application_drain(engine: ProcessEngine, tmp_path: Path) -> None:
    await engine.start(python_spec("r1", DRAINING, log_dir=tmp_path / "logs"), {}, {})
    await started(engine, tmp_path / "logs")
    waiting = asyncio.create_task(engine.wait("r1"))
    await engine.stop("r1", grace_s=20)
    assert (await waiting).code == 7
    assert output(tmp_path / "logs") == ["ready", "draining", "drained"]
    assert engine.observe("r1").phase is Phase.GONE
    assert leftovers(engine) == []


async def test_stop_kills_what_ignores_it(engine: ProcessEngine, tmp_path: Path) -> None:
    await engine.start(python_spec("r1", STUBBORN, log_dir=tmp_path / "logs"), {}, {})
    await started(engine, tmp_path / "logs")
    waiting = asyncio.create_task(engine.wait("r1"))
    await engine.stop("r1", grace_s=0.2)
    ended = await waiting
    assert ended.signal == 9
    assert "grace" in (ended.reason or "")
    assert leftovers(engine) == []


async def test_a_replica_stopped_before_it_has_begun_ends(engine: ProcessEngine) -> None:
    for number in range(5):
        await engine.start(python_spec(f"r{number}", PROBE), {}, {})
    await asyncio.gather(*(engine.stop(f"r{number}", grace_s=20) for number in range(5)))
    assert engine.observe_all() == []
    assert leftovers(engine) == []


@pytest.mark.parametrize("end", ["time.sleep(600)", "sys.exit(0)"])
async def test_children_that_forked_away_are_gone(
    engine: ProcessEngine, tmp_path: Path, end: str
) -> None:
    logs = tmp_path / "logs"
    await engine.start(python_spec("r1", FORKING.format(end=end), log_dir=logs), {}, {})
    await started(engine, logs)
    await engine.stop("r1", grace_s=5)
    assert leftovers(engine) == []


async def test_a_flood_of_output_is_bounded_and_does_not_block(
    engine: ProcessEngine, tmp_path: Path
) -> None:
    program = (
        "import sys\n"
        "block = ''.join(f'{i:07d} ' + 'x' * 91 + '\\n' for i in range(10_000))\n"
        "for _ in range(100): sys.stdout.write(block)\n"
        "print('the end')"
    )
    limit = 4 * 1024**2
    logs = tmp_path / "logs"
    await engine.start(python_spec("r1", program, log_dir=logs, log_bytes=limit), {}, {})
    assert (await engine.wait("r1")).code == 0
    assert sum(path.stat().st_size for path in logs.iterdir()) <= limit
    assert output(logs)[-1] == "the end"


async def test_three_replicas_listen_on_one_port(engine: ProcessEngine) -> None:
    specs = [python_spec(f"r{number}", PROBE, env={"WHO": str(number)}) for number in range(3)]
    addresses = [await engine.start(spec, {}, {}) for spec in specs]
    answers = [await ask(each, "result = os.environ['WHO']") for each in addresses]
    assert answers == ["0", "1", "2"]


async def test_binds_are_read_only_unless_writable(engine: ProcessEngine, tmp_path: Path) -> None:
    for name in ("fixed", "open"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    binds = (
        Bind(str(tmp_path / "fixed"), "/fixed"),
        Bind(str(tmp_path / "open"), "/deep/er/open", writable=True),
    )
    program = (
        "print(open('/fixed/file').read())\n"
        "print(open('/deep/er/open/file').read())\n"
        "open('/deep/er/open/new', 'w').write('written')"
    )
    logs = tmp_path / "logs"
    await engine.start(python_spec("r1", program, binds=binds, log_dir=logs), {}, {})
    assert (await engine.wait("r1")).code == 0, output(logs, "e")
    assert output(logs) == ["fixed", "open"]
    assert (tmp_path / "open" / "new").read_text() == "written"


async def test_an_overlay_keeps_what_lies_below(engine: ProcessEngine, tmp_path: Path) -> None:
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    lower.mkdir(mode=0o755)
    (lower / "kept").write_text("as it was")
    lower.chmod(0o777)
    overlay = Overlay((str(lower),), str(upper), str(tmp_path / "work"), "/env")
    lines: list[str] = []
    code = await engine.run(
        Command(
            user="team-a",
            argv=("/bin/sh", "-c", "cat /env/kept && echo new >/env/added && echo ok"),
            overlays=(overlay,),
        ),
        lines.append,
    )
    assert (code, lines) == (0, ["as it wasok"])
    assert sorted(path.name for path in lower.iterdir()) == ["kept"]
    assert (upper / "added").read_text() == "new\n"
    assert leftovers(engine) == []


async def test_what_does_not_exist_is_named(engine: ProcessEngine, tmp_path: Path) -> None:
    spec = python_spec("r1", PROBE, binds=(Bind(str(tmp_path / "absent"), "/app"),))
    with pytest.raises(EngineError, match="/app does not exist"):
        await engine.start(spec, {}, {})
    assert engine.observe("r1").phase is Phase.GONE
    await eventually(lambda: leftovers(engine) == [], "what was begun is gone")


async def test_another_engine_adopts_what_runs(engine: ProcessEngine, again: Again) -> None:
    address = await engine.start(python_spec("r1", PROBE), {"token": "s"}, {})
    await engine.start(python_spec("r2", "raise SystemExit(4)"), {}, {})
    await engine.wait("r2")
    assert await get(address) == "ok"
    await engine.close()
    second = await again()
    seen = second.observe("r1")
    assert (seen.phase, seen.address) == (Phase.RUNNING, address)
    ended = second.observe("r2")
    assert ended.exit is not None
    assert ended.exit.code == 4
    assert await second.start(python_spec("r1", PROBE), {}, {}) == address
    assert await get(address) == "ok"
    await second.stop("r1", grace_s=5)
    await second.stop("r2", grace_s=5)
    assert second.observe_all() == []
    assert leftovers(second) == []


async def test_an_adopted_replica_that_ends_is_noticed(
    engine: ProcessEngine, again: Again, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    go.mkdir()
    program = "import os, time\nwhile not os.path.exists('/go/now'): time.sleep(0.02)\nos._exit(9)"
    await engine.start(python_spec("r1", program, binds=(Bind(str(go), "/go"),)), {}, {})
    await engine.close()
    second = await again()
    waiting = asyncio.create_task(second.wait("r1"))
    (go / "now").touch()
    assert (await asyncio.wait_for(waiting, 30)).code == 9


async def test_a_command_runs_and_its_lines_come(engine: ProcessEngine) -> None:
    lines: list[str] = []
    command = Command(
        user="team-a",
        argv=("/bin/sh", "-c", "echo one; echo two >&2; printf three; exit 6"),
        env={"A": "b c"},
    )
    assert await engine.run(command, lines.append) == 6
    assert lines == ["one", "two", "three"]
    assert leftovers(engine) == []


async def test_a_command_past_its_time_is_ended(engine: ProcessEngine) -> None:
    command = Command(
        user="team-a",
        argv=("/bin/sh", "-c", "trap '' TERM; (setsid sleep 600 &) ; echo begun; sleep 600"),
        timeout_s=1.0,
    )
    with pytest.raises(TimeoutError, match="1 s"):
        await engine.run(command, lambda _: None)
    assert leftovers(engine) == []


async def test_a_cancelled_command_is_ended(engine: ProcessEngine) -> None:
    begun = asyncio.Event()
    command = Command(user="team-a", argv=("/bin/sh", "-c", "echo begun; sleep 600"))
    task = asyncio.create_task(engine.run(command, lambda _: begun.set()))
    await asyncio.wait_for(begun.wait(), 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert leftovers(engine) == []


async def test_a_command_out_of_memory_says_so(engine: ProcessEngine) -> None:
    lines: list[str] = []
    command = Command(
        user="team-a", argv=("/usr/bin/python3", "-c", GREEDY), memory_bytes=96 * 1024**2
    )
    assert await engine.run(command, lines.append) == 137
    assert lines[-1] == "out of memory: limit 96 MiB"


async def test_an_error_of_the_listener_ends_the_command(engine: ProcessEngine) -> None:
    def fail(line: str) -> None:
        raise ValueError(line)

    with pytest.raises(ValueError, match="begun"):
        await engine.run(Command(user="t", argv=("/bin/sh", "-c", "echo begun")), fail)
    assert leftovers(engine) == []
