"""Holds an engine and starts replicas one after another, until it is killed. Run by the tests."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from kingpost.engine.process import ProcessEngine
from kingpost.settings import DataFolder, SandboxMode
from tests.support.engine import python_spec
from tests.support.probe import PROBE


async def main(root: Path, sandbox: SandboxMode) -> None:
    engine = ProcessEngine(DataFolder(root), sandbox)
    await engine.prepare()
    print("ready", flush=True)
    for number in range(100):
        await engine.start(python_spec(f"r{number}", PROBE), {"token": "x"}, {"a": "b"})
        print(f"r{number}", flush=True)
        if number % 3 == 2:
            await engine.stop(f"r{number}", grace_s=0)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), SandboxMode(sys.argv[2])))
