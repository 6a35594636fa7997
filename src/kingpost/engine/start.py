"""Makes what a replica needs, starts its shim in it, and removes it again. Blocks: for threads."""

from __future__ import annotations

import errno
import functools
import os
import shutil
import signal
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from kingpost.engine import adopt, network, plain, recovery, rootless, sandbox
from kingpost.engine.base import Address, Bind, Exit, Overlay, ReplicaSpec
from kingpost.engine.folder import Record, ReplicaFolder, put_file, put_files
from kingpost.engine.identity import Users, own
from kingpost.engine.launch import Fields, Shim
from kingpost.engine.limits import Group
from kingpost.engine.machine import Isolation, Machine, find_program
from kingpost.engine.namespaces import Mount, Network, in_namespaces
from kingpost.engine.spare import Spare, Spares
from kingpost.errors import EngineError
from kingpost.settings import DataFolder

_ENVIRONMENT = {"PATH": sandbox.DEFAULT_PATH}
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Starter:
    data: DataFolder
    instance: str
    machine: Machine
    users: Users
    addresses: network.Addresses
    secrets_root: Path
    spares: Spares
    active: set[str] = field(default_factory=set)
    """Names of the commands that run now."""

    @property
    def commands(self) -> Path:
        return self.data.root / "engine" / "commands"

    @property
    def sandboxed(self) -> bool:
        return self.machine.isolation is not Isolation.PLAIN

    @property
    def rooted(self) -> bool:
        return self.machine.isolation is Isolation.ROOT

    def uid(self, user: str) -> int:
        return self.users.uid(user) if self.rooted else os.geteuid()

    def folder(self, replica_id: str) -> ReplicaFolder:
        return ReplicaFolder(self.data.replicas, self.secrets_root, replica_id)

    def start(
        self,
        folder: ReplicaFolder,
        spec: ReplicaSpec,
        secrets: Mapping[str, str],
        dynamic: Mapping[str, str],
    ) -> tuple[Record, int]:
        """The record of what runs now, and its shim's process id. Leaves nothing when it fails."""
        check_shown(spec.binds, spec.overlays)
        folder.path.mkdir(parents=True, exist_ok=True)
        lock = folder.lock()
        if lock is None:
            raise EngineError(
                f"replica {spec.replica_id} is being started by another process of the platform."
            )
        record = Record(spec, adopt.boot_id(), self.sandboxed, time.time_ns())
        try:
            folder.clear()
            folder.forget_run()
            folder.put_record(record)
            self.put_secrets(folder, spec, secrets)
            put_files(folder.dynamic, dynamic, mode=0o444, uid=None)
            if self.rooted:
                return self._start_sandboxed(folder, record, lock)
            if self.sandboxed:
                return self._start_rootless(folder, record, lock)
            return self._start_plain(folder, record, secrets, lock)
        except BaseException as error:
            recovery.end_rest(folder, self.machine.groups)
            folder.remove()
            if isinstance(error, OSError):
                raise EngineError(reason_of(error)) from error
            raise
        finally:
            os.close(lock)

    def put_secrets(
        self, folder: ReplicaFolder, spec: ReplicaSpec, secrets: Mapping[str, str]
    ) -> None:
        uid = self.uid(spec.user) if self.rooted else None
        put_files(folder.secrets, secrets, mode=0o400, uid=uid)

    def close(self) -> None:
        """Let go of what runs nothing: the spares, and the folder for secrets when it is empty."""
        self.spares.close()
        with suppress(OSError):
            self.secrets_root.rmdir()

    def finish(self, folder: ReplicaFolder, record: Record) -> Exit:
        """After its shim's end: end what is left, and say how it ended."""
        recovery.end_rest(folder, self.machine.groups)
        ended = folder.exit()
        if ended is None:
            ended = Exit(None, None, time.time_ns(), reason=recovery.SHIM_GONE)
            recovery.keep_exit(folder, ended)
        self.clean(record)
        folder.clear()
        return ended

    def clean(self, record: Record) -> None:
        if record.interface is not None:
            network.remove_interface(record.interface)

    def remove_leftovers(self, running: Iterable[Record]) -> None:
        """Remove what of this platform belongs to no running replica."""
        records = list(running)
        names = {record.spec.replica_id for record in records} | self.active
        self._remove_commands()
        if self.rooted:
            interfaces = {record.interface for record in records if record.interface}
            keep = tuple(self.alias(name) for name in self.active)
            network.remove_interfaces(
                interfaces | self.spares.interfaces(), self.alias(""), keep_aliases=keep
            )
            self.spares.remove_leftovers()
        if self.machine.groups is not None:
            for name in self.machine.groups.names() - names:
                self.machine.groups.remove(name)
        for entry in os.scandir(self.secrets_root):
            if entry.name not in names:
                shutil.rmtree(entry.path, ignore_errors=True)

    def _remove_commands(self) -> None:
        """Commands end with the engine that ran them; plain ones have to be found."""
        if not self.commands.is_dir():
            return
        for entry in os.scandir(self.commands):
            if entry.name in self.active:
                continue
            for pid, start in adopt.marked(plain.MARK, f"{self.instance}-{entry.name}"):
                adopt.send(pid, start, signal.SIGKILL)
            shutil.rmtree(entry.path, ignore_errors=True)

    def place(
        self, folder: ReplicaFolder, uid: int, argv: list[str], env: Mapping[str, str], cwd: str
    ) -> sandbox.Place:
        """Make the folders and files that a sandbox is made of."""
        for scratch, mode in ((folder.home, 0o700), (folder.tmp, 0o700)):
            scratch.mkdir(mode=mode, parents=True, exist_ok=True)
            if self.rooted:
                os.chown(scratch, uid, uid)
        folder.etc.mkdir(exist_ok=True)
        name = host_name(folder.replica_id)
        for file, text in sandbox.generated_etc(uid, name, self.machine.resolvers).items():
            put_file(folder.etc / file, text.encode(), mode=0o444)
        script = sandbox.launch_script(argv, env, cwd)
        owner = uid if self.rooted else None
        put_file(folder.launch, script.encode(), mode=0o400, uid=owner)
        return sandbox.Place(
            name=name,
            etc=folder.etc,
            launch=folder.launch,
            home=folder.home,
            tmp=folder.tmp,
            links=self.machine.links,
        )

    def mounts(
        self, folder: ReplicaFolder, overlays: tuple[Overlay, ...], uid: int
    ) -> tuple[list[Mount], list[Bind]]:
        """Overlays to mount before the sandbox, and the binds that show them in it."""
        mounts, binds = [], []
        for number, overlay in enumerate(overlays):
            for made in (overlay.upper, overlay.work):
                Path(made).mkdir(parents=True, exist_ok=True)
            own(Path(overlay.upper), uid)
            at = str(folder.path / f"overlay{number}")
            Path(at).mkdir(exist_ok=True)
            mounts.append(Mount(overlay.lower, overlay.upper, overlay.work, at))
            binds.append(Bind(at, overlay.target, writable=True))
        return mounts, binds

    def _start_sandboxed(
        self, folder: ReplicaFolder, record: Record, lock: int
    ) -> tuple[Record, int]:
        spec = record.spec
        if not network.rules_present():
            network.ensure_rules(self.addresses.network)
        mounts, fields = self._prepared(folder, spec)
        fields += [("arg", word) for word in inside_command(self.uid(spec.user))]

        spare = self.spares.take() if spec.network and not mounts else None
        if spare is not None:
            return self._begin_spare(spare, folder, record, fields)

        def work(net: Network) -> tuple[Record, int]:
            shim = Shim(lock, folder.path / "shim.err")
            with _given_up_on_failure(shim):
                alias = self.alias(spec.replica_id)
                pair = self.addresses.connect(net, alias=alias, routed=spec.network)
                wired = _wired(record, pair)
                folder.put_record(wired)
                shim.begin(fields)
            return wired, shim.pid

        return in_namespaces(work, mounts)

    def _start_rootless(
        self, folder: ReplicaFolder, record: Record, lock: int
    ) -> tuple[Record, int]:
        spec = record.spec
        mounts, fields = self._prepared(folder, spec)
        address = Address(rootless.LOOPBACK, free_port())
        before, command = self.rootless_words(
            outside=spec.network, mounts=mounts, ports=(address.port, spec.port)
        )
        fields += [("outer", word) for word in before]
        fields += [("arg", word) for word in command]
        fields.append(("env", f"{plain.MARK}={spec.replica_id}"))
        record = msgspec.structs.replace(record, address=address)
        folder.put_record(record)
        shim = Shim(lock, folder.path / "shim.err")
        with _given_up_on_failure(shim):
            shim.begin(fields)
        return record, shim.pid

    def rootless_words(
        self, *, outside: bool, mounts: Sequence[Mount], ports: tuple[int, int] | None = None
    ) -> tuple[list[str], list[str]]:
        """What runs bubblewrap, and bubblewrap, to which its options are added."""
        bwrap, pasta = find_program("bwrap"), find_program("pasta")
        if bwrap is None or pasta is None:
            raise EngineError("bubblewrap or pasta is missing; run `kingpost doctor`.")
        closed = rootless.closed(self.addresses.network)
        before = rootless.outer(pasta, outside=outside, closed=closed, mounts=mounts, ports=ports)
        return before, rootless.inside_command(bwrap)

    def options(
        self, place: sandbox.Place, binds: Sequence[Bind], gpus: Sequence[str]
    ) -> list[str]:
        if self.rooted:
            return sandbox.options(place, binds, gpus=gpus)
        words = sandbox.options(place, binds, gpus=gpus, as_root=False)
        return [*rootless.options(os.geteuid(), os.getegid()), *words]

    def _prepared(
        self, folder: ReplicaFolder, spec: ReplicaSpec
    ) -> tuple[list[Mount], list[tuple[str, str]]]:
        """The mounts and the shim's job for a sandbox, but for the command."""
        uid = self.uid(spec.user)
        env = sandbox.environment(spec.env, gpus=spec.resources.gpus)
        place = replace(
            self.place(folder, uid, list(spec.argv), env, spec.cwd),
            secrets=folder.secrets,
            dynamic=folder.dynamic,
        )
        for bind in spec.binds:
            if bind.writable:
                own(Path(bind.source), uid)
        mounts, shown = self.mounts(folder, spec.overlays, uid)
        words = self.options(place, [*spec.binds, *shown], spec.resources.gpus)
        fields = [
            *self._fields(folder, spec, self._group(spec)),
            *(("option", word) for word in words),
            *(("env", f"{name}={value}") for name, value in _ENVIRONMENT.items()),
        ]
        return mounts, fields

    def _begin_spare(
        self, spare: Spare, folder: ReplicaFolder, record: Record, fields: Fields
    ) -> tuple[Record, int]:
        wired = _wired(record, spare.pair)
        try:
            folder.put_record(wired)
            spare.become(folder.path, self.alias(folder.replica_id))
            with _given_up_on_failure(spare.shim):
                spare.shim.begin(fields)
        except BaseException:
            network.remove_interface(spare.pair.interface)
            raise
        finally:
            spare.drop()
        return wired, spare.shim.pid

    def alias(self, name: str) -> str:
        return f"{network.TABLE} {self.instance} {name}"

    def _start_plain(
        self, folder: ReplicaFolder, record: Record, secrets: Mapping[str, str], lock: int
    ) -> tuple[Record, int]:
        spec = record.spec
        for scratch in (folder.home, folder.tmp):
            scratch.mkdir(mode=0o700, exist_ok=True)
        for overlay in spec.overlays:
            plain.fill(overlay)
        paths = plain.Paths(
            plain.pairs_of(
                spec.binds,
                spec.overlays,
                {sandbox.SECRETS: str(folder.secrets), sandbox.DYNAMIC: str(folder.dynamic)},
            )
        )
        port = free_port()
        env = plain.plain_environment(
            sandbox.environment(spec.env, gpus=spec.resources.gpus)
            | {"HOME": str(folder.home), "TMPDIR": str(folder.tmp), plain.MARK: spec.replica_id},
            paths,
            port=port,
            asked=spec.port,
            secrets=secrets,
        )
        argv = [paths.host(word).replace("{port}", str(port)) for word in spec.argv]
        record = msgspec.structs.replace(record, address=Address(_LOOPBACK, port))
        folder.put_record(record)
        fields = [
            *self._fields(folder, spec, self._group(spec)),
            *(("env", f"{name}={value}") for name, value in env.items()),
            *(("arg", word) for word in argv),
            ("cwd", paths.host(spec.cwd)),
        ]
        shim = Shim(lock, folder.path / "shim.err")
        with _given_up_on_failure(shim):
            shim.begin(fields)
        return record, shim.pid

    def _group(self, spec: ReplicaSpec) -> Group | None:
        groups = self.machine.groups
        return groups.make(spec.replica_id, spec.resources) if groups else None

    def _fields(
        self, folder: ReplicaFolder, spec: ReplicaSpec, group: Group | None
    ) -> list[tuple[str, str]]:
        fields = [
            ("folder", str(folder.path)),
            ("log_dir", spec.log_dir or str(folder.logs)),
            ("log_bytes", str(spec.log_bytes)),
            ("memory", str(spec.resources.memory_bytes)),
            ("secrets", str(folder.secrets)),
        ]
        if group is None:
            return [*fields, ("watch", "1")]
        fields.append(("oom", str(group.oom)))
        fields += [("procs", str(path)) for path in group.joins]
        return fields + [("rmdir", str(path)) for path in group.folders]


@contextmanager
def _given_up_on_failure(shim: Shim) -> Iterator[None]:
    try:
        yield
    except BaseException:
        shim.give_up()
        raise
    finally:
        shim.close()


def _wired(record: Record, pair: network.Pair) -> Record:
    address = Address(str(pair.replica), record.spec.port)
    return msgspec.structs.replace(record, address=address, interface=pair.interface)


def check_shown(binds: Iterable[Bind], overlays: Iterable[Overlay]) -> None:
    """Raise `EngineError` for what can't be shown in a sandbox."""
    shown: list[tuple[str, tuple[str, ...]]] = [(bind.target, (bind.source,)) for bind in binds]
    shown += [(overlay.target, overlay.lower) for overlay in overlays]
    for target, sources in shown:
        problem = sandbox.problem_of_bind(target)
        if problem is None and not all(os.path.exists(source) for source in sources):
            problem = f"what is to be shown at {target} does not exist"
        if problem is not None:
            raise EngineError(f"the process can't be started: {problem}.")


def reason_of(error: OSError) -> str:
    """What to tell of a failure of this machine while something was started, without paths."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return "the process could not be started: the disk is full. Free some space and try again."
    return f"the process could not be started on this machine ({error.strerror})."


def host_name(replica_id: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in replica_id)[:63].strip("-") or "replica"


@functools.cache
def _programs() -> tuple[str, str]:
    bwrap, setpriv = find_program("bwrap"), find_program("setpriv")
    if bwrap is None or setpriv is None:
        raise EngineError("bubblewrap or setpriv is missing; run `kingpost doctor`.")
    return bwrap, setpriv


def inside_command(uid: int) -> list[str]:
    """Bubblewrap, to which the shim adds its options, and what it runs."""
    bwrap, setpriv = _programs()
    return [bwrap, "--", *sandbox.unprivileged(setpriv, uid)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        return int(probe.getsockname()[1])
