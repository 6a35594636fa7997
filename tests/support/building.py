"""A builder on the real engine, with what tests need: archives in, running replicas out."""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kingpost.build.base import BuildRequest, Runnable
from kingpost.build.builder import Builder
from kingpost.engine.base import Overlay, Phase, ReplicaSpec, Resources
from kingpost.engine.process import ProcessEngine
from kingpost.settings import DataFolder, SandboxMode
from tests.support.archives import write_truss

PYTHON = f"py{sys.version_info.major}{sys.version_info.minor}"
DEADLINE_S = 60.0
MODEL = """
class Model:
    def __init__(self, **kwargs):
        pass

    def load(self):
        pass

    def predict(self, request):
        return {"answer": ANSWER, "request": request}
"""


def model(answer: str) -> str:
    return MODEL.replace("ANSWER", answer)


def config(**fields: Any) -> str:
    return json.dumps({"model_name": "m", "python_version": PYTHON, **fields})


@dataclass
class Workshop:
    """`lines` holds the log of the last build; `said` waits for a line in it."""

    data: DataFolder
    engine: ProcessEngine
    builder: Builder
    lines: list[str] = field(default_factory=list)
    count: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def build(self, files: Mapping[str, str], **request: Any) -> Runnable:
        self.count += 1
        archive = write_truss(self.data.root / f"archive{self.count}.tar", files)
        return await self.build_archive(archive, **request)

    async def build_archive(self, archive: Path, **request: Any) -> Runnable:
        self.lines = []
        asked = BuildRequest(f"dep{self.count}", "team", archive, **request)
        return await self.builder.build(asked, self._on_line)

    async def said(self, line: str) -> None:
        async with asyncio.timeout(DEADLINE_S), self.changed:
            await self.changed.wait_for(lambda: line in self.lines)

    def _on_line(self, line: str) -> None:
        self.lines.append(line)
        self.tasks.add(asyncio.create_task(self._notify()))

    async def _notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    @asynccontextmanager
    async def serving(self, runnable: Runnable, name: str = "replica") -> AsyncIterator[Replica]:
        """A replica that is ready; stopped and gone afterwards."""
        folder = str(self.data.replicas / name)
        overlays = tuple(
            Overlay(
                one.lower,
                one.upper.replace("{replica}", folder),
                one.work.replace("{replica}", folder),
                one.target,
            )
            for one in runnable.overlays
        )
        spec = ReplicaSpec(
            replica_id=name,
            deployment_id="dep",
            user="team",
            argv=runnable.argv,
            env={**runnable.user_env, **runnable.env},
            cwd=runnable.cwd,
            port=runnable.port,
            binds=runnable.binds,
            overlays=overlays,
            resources=Resources(runnable.cpu_millis, runnable.memory_bytes),
        )
        address = await self.engine.start(spec, {}, {})
        replica = Replica(self, name, runnable, f"http://{address.host}:{address.port}")
        try:
            await replica.until_ready()
            yield replica
        finally:
            await self.engine.stop(name, grace_s=2)


@dataclass
class Replica:
    workshop: Workshop
    name: str
    runnable: Runnable
    url: str

    async def until_ready(self) -> None:
        deadline = asyncio.get_running_loop().time() + DEADLINE_S
        while (await self.get(self.runnable.ready_path))[0] != 200:
            observed = self.workshop.engine.observe(self.name)
            late = asyncio.get_running_loop().time() > deadline
            if observed.phase is not Phase.RUNNING or late:
                raise AssertionError(f"not ready: {observed}\n{self.logs()}")
            await asyncio.sleep(0.05)

    async def get(self, path: str) -> tuple[int, Any]:
        return await asyncio.to_thread(call, self.url + path, None)

    async def predict(self, body: Any) -> Any:
        return await self.post(self.runnable.predict_path, body)

    async def post(self, path: str, body: Any) -> Any:
        status, answer = await asyncio.to_thread(call, self.url + path, body)
        assert status == 200, (status, answer, self.logs())
        return answer

    def logs(self) -> str:
        folder = self.workshop.data.replicas / self.name / "logs"
        return "\n".join(path.read_text() for path in sorted(folder.glob("*")))


def call(url: str, body: Any) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
            text = answer.read()
            status = answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
    except OSError:
        return 0, None
    try:
        return status, json.loads(text)
    except ValueError:
        return status, text.decode(errors="replace")


@asynccontextmanager
async def workshop(root: Path, mode: SandboxMode = SandboxMode.REQUIRE) -> AsyncIterator[Workshop]:
    data = DataFolder(root)
    engine = ProcessEngine(data, mode)
    await engine.prepare()
    builder = Builder(data, engine)
    await builder.start()
    try:
        yield Workshop(data, engine, builder)
    finally:
        await builder.close()
        await engine.close()
