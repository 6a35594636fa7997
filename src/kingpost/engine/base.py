"""What an engine is: the values it takes and gives, and the interface that every engine honours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import msgspec

from kingpost.messages import Notice

OnLine = Callable[[str], None]
"""Takes one line of output, without its newline."""


class Bind(msgspec.Struct, frozen=True):
    """A file or folder of the host shown inside at `target` (absolute); read-only by default."""

    source: str
    target: str
    writable: bool = False


class Overlay(msgspec.Struct, frozen=True):
    """A writable view: `lower` folders (topmost first) stay as they are, changes go to `upper`.

    `work` is an empty folder on the file system of `upper`. A sandbox mounts it at `target`.
    """

    lower: tuple[str, ...]
    upper: str
    work: str
    target: str


class Resources(msgspec.Struct, frozen=True):
    """What a replica may use. `gpus` are device indices or UUIDs that it owns."""

    cpu_millis: int = 1000
    memory_bytes: int = 2 * 1024**3
    gpus: tuple[str, ...] = ()


class ReplicaSpec(msgspec.Struct, frozen=True, kw_only=True):
    """All that is needed to start a replica; written to disk as it is, so it holds no secret.

    `port` is where the application listens inside. `log_dir` gets its output in the form of
    `kingpost.engine.logfile`, at most `log_bytes` of it. `user` names the unprivileged identity
    (a team) that it runs as; one team's replicas never share a uid with another's.
    """

    replica_id: str
    deployment_id: str
    user: str
    argv: tuple[str, ...]
    env: dict[str, str] = {}
    cwd: str = "/"
    port: int = 8080
    binds: tuple[Bind, ...] = ()
    overlays: tuple[Overlay, ...] = ()
    resources: Resources = Resources()
    network: bool = True
    log_dir: str = ""
    log_bytes: int = 64 * 1024**2


@dataclass(frozen=True)
class Command:
    """A command that ends, such as a step of a build: in the same sandbox, without secrets."""

    user: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "/"
    binds: tuple[Bind, ...] = ()
    overlays: tuple[Overlay, ...] = ()
    network: bool = True
    memory_bytes: int | None = None
    timeout_s: float | None = None


class Phase(StrEnum):
    RUNNING = "running"
    EXITED = "exited"
    GONE = "gone"
    """Nothing of that name runs and no record of its end was kept (a reboot, say)."""


class Exit(msgspec.Struct, frozen=True):
    """How a replica ended. `reason` is for people, such as `out of memory: limit 2 GiB`."""

    code: int | None
    signal: int | None
    at_ns: int
    oom: bool = False
    reason: str | None = None


class Address(msgspec.Struct, frozen=True):
    host: str
    port: int


class Observed(msgspec.Struct, frozen=True):
    replica_id: str
    phase: Phase
    address: Address | None = None
    exit: Exit | None = None


class Engine(Protocol):
    """Starts, watches and ends replicas. Every method may be called again after a crash of ours.

    Errors: `EngineError` with what to do, for what this machine can't give. Nothing here knows of
    models, environments or HTTP.
    """

    @property
    def name(self) -> str: ...

    @property
    def notices(self) -> tuple[Notice, ...]:
        """What this machine lacks, for `/healthz` and the log; empty when all is there."""
        ...

    @property
    def sandboxed(self) -> bool:
        """Whether what runs is kept apart from the machine; else plain processes."""
        ...

    async def prepare(self) -> None:
        """Look at the machine, adopt what runs, remove leftovers of replicas that are gone."""
        ...

    async def start(
        self, spec: ReplicaSpec, secrets: Mapping[str, str], dynamic: Mapping[str, str]
    ) -> Address:
        """Start it and return as soon as its process runs. Starting a running one changes nothing.

        `secrets` become files below `/secrets`, `dynamic` below `/etc/b10_dynamic_config`.
        """
        ...

    async def stop(self, replica_id: str, *, grace_s: float) -> None:
        """SIGTERM, after `grace_s` SIGKILL for all of it; returns when nothing of it is left."""
        ...

    def observe(self, replica_id: str) -> Observed: ...

    def observe_all(self) -> list[Observed]: ...

    async def wait(self, replica_id: str) -> Exit:
        """Return when it has ended, at once if it has."""
        ...

    async def put_secrets(self, replica_id: str, secrets: Mapping[str, str]) -> None:
        """Replace the files below `/secrets` of a running replica, each atomically."""
        ...

    async def put_dynamic(self, replica_id: str, dynamic: Mapping[str, str]) -> None: ...

    async def run(self, command: Command, on_line: OnLine) -> int:
        """Run a command to its end and return its exit code; cancelling kills all of it.

        Raises `TimeoutError` after `command.timeout_s`.
        """
        ...

    async def close(self) -> None:
        """Let go of everything without stopping any replica."""
        ...
