from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kingpost.build.truss_client import TrussClient, TrussWorkerError
from kingpost.errors import BuildFailedError


@pytest.fixture
async def client() -> AsyncIterator[TrussClient]:
    made = TrussClient()
    yield made
    await made.close()


def truss(folder: Path, **files: str) -> Path:
    (folder / "model").mkdir(parents=True)
    (folder / "config.yaml").write_text(files.get("config", "model_name: m\n"))
    (folder / "model/__init__.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    (folder / "model/model.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    return folder


async def test_a_context_is_written_and_no_code_of_the_user_runs(
    client: TrussClient, tmp_path: Path
) -> None:
    source = truss(tmp_path / "truss")
    before = (source / "config.yaml").read_text()
    said = await client.context(source, tmp_path / "out", development=True)
    assert said["parsed"]["model_name"] == "m"
    assert (tmp_path / "out/server/main.py").exists()
    assert (tmp_path / "out/control/control/server.py").exists()
    assert (source / "config.yaml").read_text() == before
    assert not (source / "ran").exists()


async def test_truss_own_index_gives_way_to_the_operators_and_the_users_stays(
    client: TrussClient, tmp_path: Path
) -> None:
    mine = "-i https://index.example.invalid/simple"
    config = f"model_name: m\nrequirements: ['{mine}', six]\n"
    source = truss(tmp_path / "truss", config=config)
    await client.context(source, tmp_path / "out", development=False)
    lines = (tmp_path / "out" / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if line.startswith("-i")] == [mine]
    assert any(line.startswith("fastapi") for line in lines)


async def test_hashes_are_those_that_the_cli_computes(client: TrussClient, tmp_path: Path) -> None:
    """The command line's own module computes them here, in the same pinned package."""
    source = truss(tmp_path / "truss")
    said = await client.context(source, tmp_path / "out", development=False)
    code = (
        "import sys,pathlib;from truss.truss_handle.patch.hash import directory_content_hash as h;"
        "print(h(pathlib.Path(sys.argv[1])))"
    )
    process = await asyncio.create_subprocess_exec(
        client.environment.python, "-c", code, source, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert out.decode().strip() == said["truss_hash"]


async def test_a_worker_that_dies_is_replaced(client: TrussClient) -> None:
    version = await client.ping()
    assert client._process is not None
    os.kill(client._process.pid, signal.SIGKILL)
    await client._process.wait()
    assert await client.ping() == version


async def test_a_death_in_the_middle_is_an_error_and_the_next_request_works(
    client: TrussClient,
) -> None:
    await client.ping()
    assert client._process is not None
    os.kill(client._process.pid, signal.SIGSTOP)
    task = asyncio.create_task(client.ping())
    await asyncio.sleep(0)
    os.kill(client._process.pid, signal.SIGKILL)
    with pytest.raises(TrussWorkerError):
        await task
    assert await client.ping()


async def test_a_late_answer_costs_the_worker_its_life(client: TrussClient) -> None:
    await client.ping()
    assert client._process is not None
    os.kill(client._process.pid, signal.SIGSTOP)
    with pytest.raises(BuildFailedError, match="longer than"):
        await client.validate({}, deadline_s=0.2)
    assert await client.ping()


async def test_a_cancelled_request_keeps_the_worker_warm(client: TrussClient) -> None:
    await client.ping()
    process = client._process
    task = asyncio.create_task(client.validate({"model_name": "m"}))
    for _ in range(3):
        await asyncio.sleep(0)
    assert client._lock.locked()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await client.validate({"python_version": "py99"}))["errors"]
    assert client._process is process


async def test_stray_prints_do_not_break_the_protocol(client: TrussClient, tmp_path: Path) -> None:
    """Truss prints of a broken link while it copies."""
    source = truss(tmp_path / "truss")
    (source / "model/broken").symlink_to("nowhere")
    said = await client.context(source, tmp_path / "out", development=False)
    assert said["parsed"]["model_name"] == "m"


LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    "text",
    [LAUGHS, "[" * 5000, "a: !!python/object/apply:os.system [id]\n", "\x00", "a: &a [*a]\n"],
)
async def test_hostile_configs_are_refused(client: TrussClient, tmp_path: Path, text: str) -> None:
    source = truss(tmp_path / "truss", config=text)
    with pytest.raises(BuildFailedError, match=r"config\.yaml"):
        await client.context(source, tmp_path / "out", development=False, deadline_s=30)
    assert await client.ping()
