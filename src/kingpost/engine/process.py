"""The process engine: each replica a shim and, behind it, a sandbox or a plain process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network
from typing import TypeVar

from kingpost.engine import command, network, recovery
from kingpost.engine.base import (
    Address,
    Command,
    Exit,
    Observed,
    OnLine,
    Phase,
    ReplicaSpec,
)
from kingpost.engine.folder import Record, ReplicaFolder, instance_of, put_files, secrets_root
from kingpost.engine.identity import Users
from kingpost.engine.machine import Isolation, look
from kingpost.engine.spare import Spares
from kingpost.engine.start import Starter
from kingpost.errors import EngineError
from kingpost.messages import Notice
from kingpost.settings import DataFolder, SandboxMode

T = TypeVar("T")
log = logging.getLogger(__name__)

_KILL_S = 10.0
_REFILL_S = 0.25


@dataclass
class _Known:
    """A replica that runs or has ended. `pidfd` is its shim's, while that lives."""

    folder: ReplicaFolder
    record: Record
    pidfd: int | None = None
    pid: int = 0
    exit: Exit | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class ProcessEngine:
    """An `Engine`. One per data folder and machine; `prepare` first."""

    name = "process"

    def __init__(
        self,
        data: DataFolder,
        sandbox: SandboxMode = SandboxMode.AUTO,
        *,
        addresses: IPv4Network = network.DEFAULT_RANGE,
        spares: int = 1,
    ) -> None:
        """`spares` shims are kept ready for the next starts, each in a network of its own."""
        self._data = data
        self._mode = sandbox
        self._range = addresses
        self._spares = spares
        self._known: dict[str, _Known] = {}
        self._busy: dict[str, asyncio.Lock] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._starter: Starter | None = None
        self._refill: asyncio.TimerHandle | None = None

    @property
    def notices(self) -> tuple[Notice, ...]:
        return self._starter.machine.notices if self._starter else ()

    @property
    def sandboxed(self) -> bool:
        return self._ready().sandboxed

    async def prepare(self) -> None:
        await asyncio.to_thread(self._look)
        found = await asyncio.to_thread(self._recover)
        for folder, state in found:
            if folder.replica_id in self._known:
                continue
            known = _Known(folder, state.record)
            self._known[folder.replica_id] = known
            if isinstance(state, recovery.Running):
                self._watch(known, state.shim.pid)
                log.info("replica adopted", extra={"replica_id": folder.replica_id})
            else:
                self._set_ended(known, state.exit)
        self._refill_after(0)

    async def start(
        self, spec: ReplicaSpec, secrets: Mapping[str, str], dynamic: Mapping[str, str]
    ) -> Address:
        return await self._unbroken(self._start(spec, secrets, dynamic))

    async def stop(self, replica_id: str, *, grace_s: float) -> None:
        await self._unbroken(self._stop(replica_id, grace_s))

    def observe(self, replica_id: str) -> Observed:
        known = self._known.get(replica_id)
        if known is None:
            return Observed(replica_id, Phase.GONE)
        if known.exit is not None:
            return Observed(replica_id, Phase.EXITED, known.record.address, known.exit)
        return Observed(replica_id, Phase.RUNNING, known.record.address)

    def observe_all(self) -> list[Observed]:
        return [self.observe(replica_id) for replica_id in sorted(self._known)]

    async def wait(self, replica_id: str) -> Exit:
        known = self._known.get(replica_id)
        if known is not None:
            await known.ended.wait()
        if known is None or known.exit is None:
            return Exit(None, None, time.time_ns(), reason="no record of its end was kept")
        return known.exit

    async def put_secrets(self, replica_id: str, secrets: Mapping[str, str]) -> None:
        known = self._running(replica_id)
        await asyncio.to_thread(self._ready().put_secrets, known.folder, known.record.spec, secrets)

    async def put_dynamic(self, replica_id: str, dynamic: Mapping[str, str]) -> None:
        folder = self._running(replica_id).folder
        await asyncio.to_thread(put_files, folder.dynamic, dynamic, mode=0o444, uid=None)

    async def run(self, command_: Command, on_line: OnLine) -> int:
        return await command.run(self._ready(), command_, on_line)

    async def close(self) -> None:
        if self._refill is not None:
            self._refill.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._starter is not None:
            await asyncio.to_thread(self._starter.close)
        for known in self._known.values():
            self._unwatch(known)
        self._known.clear()
        self._starter = None

    def user_id(self, user: str) -> int:
        """The uid that a team's replicas and commands run as."""
        return self._ready().uid(user)

    # What is below runs in the event loop, blocking parts in threads.

    def _look(self) -> None:
        instance = instance_of(self._data.root)
        machine = look(self._mode, self._range, instance)
        for notice in machine.notices:
            log.warning(notice.message, extra={"notice": notice.code})
        if self._starter is not None:
            self._starter = replace(self._starter, machine=machine)
            return
        users = Users(self._data.root / "engine" / "users.json", instance)
        addresses = network.Addresses(self._range)
        count = self._spares if machine.isolation is Isolation.ROOT else 0
        alias = f"{network.TABLE} {instance} spare"
        self._starter = Starter(
            data=self._data,
            instance=instance,
            machine=machine,
            users=users,
            addresses=addresses,
            secrets_root=secrets_root(instance),
            spares=Spares(self._data.root / "engine" / "spares", addresses, alias, count),
        )

    def _recover(self) -> list[tuple[ReplicaFolder, recovery.Running | recovery.Ended]]:
        starter = self._ready()
        self._data.replicas.mkdir(parents=True, exist_ok=True)
        found = []
        for name in sorted(os.listdir(self._data.replicas)):
            if name in self._known:
                continue
            folder = starter.folder(name)
            state = recovery.inspect(folder, starter.machine.groups)
            if state is not None:
                found.append((folder, state))
        running = [state.record for _, state in found if isinstance(state, recovery.Running)]
        running += [known.record for known in self._known.values() if known.exit is None]
        starter.remove_leftovers(running)
        return found

    async def _start(
        self, spec: ReplicaSpec, secrets: Mapping[str, str], dynamic: Mapping[str, str]
    ) -> Address:
        starter = self._ready()
        async with self._lock(spec.replica_id):
            known = self._known.get(spec.replica_id)
            if known is not None and known.exit is None and known.record.address is not None:
                return known.record.address
            folder = starter.folder(spec.replica_id)
            record, pid = await asyncio.to_thread(starter.start, folder, spec, secrets, dynamic)
            known = _Known(folder, record)
            self._known[spec.replica_id] = known
            self._watch(known, pid)
            self._refill_after(_REFILL_S)
            if record.address is None:
                raise EngineError(
                    f"replica {spec.replica_id} has no address; stop it and try again."
                )
            return record.address

    async def _stop(self, replica_id: str, grace_s: float) -> None:
        starter = self._ready()
        async with self._lock(replica_id):
            known = self._known.get(replica_id)
            if known is None:
                return
            await self._end(known, grace_s)
            await asyncio.to_thread(starter.clean, known.record)
            await asyncio.to_thread(known.folder.remove)
            self._known.pop(replica_id, None)
        self._busy.pop(replica_id, None)

    async def _end(self, known: _Known, grace_s: float) -> None:
        for number, patience in ((signal.SIGTERM, grace_s), (signal.SIGUSR1, _KILL_S)):
            if known.exit is not None or known.pidfd is None:
                break
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(known.pidfd, number)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(known.ended.wait(), patience)
        if known.exit is None and known.pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(known.pidfd, signal.SIGKILL)
        await known.ended.wait()

    def _watch(self, known: _Known, pid: int) -> None:
        try:
            known.pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            self._spawn(self._after_end(known))
            return
        known.pid = pid
        asyncio.get_running_loop().add_reader(known.pidfd, self._shim_ended, known)

    def _unwatch(self, known: _Known) -> None:
        if known.pidfd is not None:
            asyncio.get_running_loop().remove_reader(known.pidfd)
            os.close(known.pidfd)
            known.pidfd = None

    def _shim_ended(self, known: _Known) -> None:
        self._unwatch(known)
        with contextlib.suppress(ChildProcessError):  # not ours when it was adopted
            os.waitpid(known.pid, os.WNOHANG)
        self._spawn(self._after_end(known))

    async def _after_end(self, known: _Known) -> None:
        starter = self._ready()
        ended = await asyncio.to_thread(starter.finish, known.folder, known.record)
        self._set_ended(known, ended)
        extra = {"replica_id": known.folder.replica_id, "code": ended.code, "signal": ended.signal}
        log.info("replica ended", extra=extra | {"reason": ended.reason})

    def _set_ended(self, known: _Known, ended: Exit) -> None:
        known.exit = ended
        known.ended.set()

    def _running(self, replica_id: str) -> _Known:
        known = self._known.get(replica_id)
        if known is None or known.exit is not None:
            raise EngineError(f"replica {replica_id} does not run; start it first.")
        return known

    def _ready(self) -> Starter:
        if self._starter is None:
            raise EngineError("the engine has not been prepared; call prepare() first.")
        return self._starter

    def _refill_after(self, delay_s: float) -> None:
        """Make spares anew, not at once: what was just started needs the processor more."""
        if self._refill is not None:
            self._refill.cancel()
        loop = asyncio.get_running_loop()
        fill = self._ready().spares.fill
        self._refill = loop.call_later(delay_s, lambda: self._spawn(asyncio.to_thread(fill)))

    def _lock(self, replica_id: str) -> asyncio.Lock:
        return self._busy.setdefault(replica_id, asyncio.Lock())

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _unbroken(self, work: Coroutine[object, object, T]) -> T:
        """Go on to the end also when the caller is cancelled: half a start is worse than one."""
        task = asyncio.get_running_loop().create_task(work)
        return await asyncio.shield(task)
