"""An engine in a folder of its own for tests of any room, and what a test asks of replicas."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from kingpost.engine import adopt
from kingpost.engine.base import Address, Bind, Overlay, ReplicaSpec, Resources
from kingpost.engine.process import ProcessEngine
from kingpost.settings import DataFolder, SandboxMode

DEADLINE_S = 30.0
PYTHON = "/usr/bin/python3"
"""An interpreter that every sandbox has."""


@asynccontextmanager
async def running_engine(
    root: Path, sandbox: SandboxMode = SandboxMode.REQUIRE
) -> AsyncIterator[ProcessEngine]:
    """A prepared engine over `root`; at the end every replica of it is stopped and gone."""
    engine = ProcessEngine(DataFolder(root), sandbox)
    await engine.prepare()
    try:
        yield engine
    finally:
        await stop_all(engine)
        await engine.close()


async def stop_all(engine: ProcessEngine) -> None:
    await asyncio.gather(
        *(engine.stop(seen.replica_id, grace_s=0) for seen in engine.observe_all())
    )


def python_spec(
    replica_id: str,
    program: str,
    *,
    user: str = "team-a",
    port: int = 8000,
    env: dict[str, str] | None = None,
    binds: tuple[Bind, ...] = (),
    overlays: tuple[Overlay, ...] = (),
    memory_bytes: int = 512 * 1024**2,
    network: bool = True,
    log_dir: Path | None = None,
    log_bytes: int = 8 * 1024**2,
) -> ReplicaSpec:
    """A replica that runs a Python program given as text; `PORT` tells it where to listen."""
    return ReplicaSpec(
        replica_id=replica_id,
        deployment_id="d",
        user=user,
        argv=(PYTHON, "-u", "-c", program),
        env={"PORT": str(port)} | (env or {}),
        port=port,
        binds=binds,
        overlays=overlays,
        resources=Resources(memory_bytes=memory_bytes),
        network=network,
        log_dir=str(log_dir) if log_dir else "",
        log_bytes=log_bytes,
    )


async def eventually(check: Callable[[], bool], what: str, *, within_s: float = DEADLINE_S) -> None:
    deadline = time.monotonic() + within_s
    while not check():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s:g} s: {what}")
        await asyncio.sleep(0.02)


async def get(address: Address, path: str = "/", *, within_s: float = DEADLINE_S) -> str:
    """The body of a GET, tried again until the replica answers with 200."""
    url = f"http://{address.host}:{address.port}{path}"
    deadline = time.monotonic() + within_s
    while True:
        try:
            return await asyncio.to_thread(_get, url)
        except (OSError, urllib.error.URLError):
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.02)


def _get(url: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=10) as answer:
        return str(answer.read().decode())


def leftovers(engine: ProcessEngine) -> list[str]:
    """What of a platform is on this machine: interfaces, groups, secrets, mounts, processes.

    Spares that wait are none of it; one that is being made is waited for.
    """
    with engine._ready().spares._lock:
        return _leftovers(engine)


def _leftovers(engine: ProcessEngine) -> list[str]:
    starter = engine._ready()
    spares = starter.spares
    found = []
    for name in os.listdir("/sys/class/net"):
        with suppress(OSError):
            alias = Path(f"/sys/class/net/{name}/ifalias").read_text().strip()
            if alias.startswith(starter.alias("")) and name not in spares.interfaces():
                found.append(f"interface {alias}")
    if starter.machine.groups is not None:
        found += [f"group {name}" for name in starter.machine.groups.names()]
    found += [f"secrets {name}" for name in os.listdir(starter.secrets_root)]
    root = str(starter.data.root)
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    found += [f"mount {line}" for line in mounts if root in line]
    found += [f"process {pid}" for pid in processes_naming(root) if pid not in spares.processes()]
    return found


def processes_naming(root: str) -> list[int]:
    """Processes that have a path below `root` open, or in their command line or environment."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        with suppress(OSError):
            folder = Path("/proc") / name
            texts = [folder / "cmdline", folder / "environ"]
            opened = [os.readlink(entry) for entry in (folder / "fd").iterdir()]
            if any(root.encode() in path.read_bytes() for path in texts) or any(
                path.startswith(root) for path in opened
            ):
                found.append(int(name))
    return found


def kill_shim(engine: ProcessEngine, replica_id: str) -> None:
    shim = engine._known[replica_id].folder.shim()
    assert shim is not None
    assert adopt.send(shim.pid, shim.start, signal.SIGKILL)


def this_python() -> tuple[str, tuple[Bind, ...]]:
    """The tests' own interpreter, and the binds that show it and its packages in a sandbox."""
    prefixes = {sys.base_prefix, sys.prefix}
    shown = tuple(
        Bind(prefix, prefix) for prefix in sorted(prefixes) if not prefix.startswith("/usr")
    )
    return sys.executable, shown
