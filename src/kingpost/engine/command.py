"""Runs commands that end (steps of a build) where replicas run, without secrets or a shim.

A command lives no longer than the engine: bubblewrap ends with the thread that started it. Without
root, or as a plain process, it is found by its mark and ended when the next engine prepares.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import select
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from kingpost.engine import adopt, network, plain, sandbox
from kingpost.engine.base import Command, OnLine, Resources
from kingpost.engine.folder import ReplicaFolder
from kingpost.engine.identity import own
from kingpost.engine.limits import Group
from kingpost.engine.logwriter import size_text, split
from kingpost.engine.namespaces import Network, in_namespaces
from kingpost.engine.start import Starter, check_shown, inside_command

_CHUNK_BYTES: Final = 64 * 1024
_BATCHES_AHEAD: Final = 4
_JOIN: Final = 'for f in $1; do echo 0 >"$f"; done; shift; exec "$@"'


async def run(starter: Starter, command: Command, on_line: OnLine) -> int:
    """Run it and return its exit code (128 + N after signal N). `on_line` is called in the loop."""
    check_shown(command.binds, command.overlays)
    loop = asyncio.get_running_loop()
    running = _Running(starter, command, _Output(loop, on_line))
    done: asyncio.Future[int] = loop.create_future()

    def work() -> None:
        try:
            code = running.run()
        except BaseException as error:  # noqa: BLE001 - raised again in the loop
            loop.call_soon_threadsafe(_set_exception, done, error)
        else:
            loop.call_soon_threadsafe(_set_result, done, code)

    threading.Thread(target=work, name="kingpost-command", daemon=True).start()
    try:
        async with asyncio.timeout(command.timeout_s):
            return await asyncio.shield(done)
    except TimeoutError as error:
        raise TimeoutError(
            f"the command did not end within {command.timeout_s:g} s and was stopped."
        ) from error
    finally:
        if not done.done():
            running.kill()
            with contextlib.suppress(Exception):
                await asyncio.shield(done)
        if (failure := running.output.failure) is not None:
            raise failure


def _set_result(done: asyncio.Future[int], code: int) -> None:
    if not done.done():
        done.set_result(code)


def _set_exception(done: asyncio.Future[int], error: BaseException) -> None:
    if not done.done():
        done.set_exception(error)


class _Output:
    """Hands lines to the loop, at most a few batches ahead of it, so that a flood waits."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_line: OnLine) -> None:
        self._loop = loop
        self._on_line = on_line
        self._room = threading.Semaphore(_BATCHES_AHEAD)
        self._closed = threading.Event()
        self.failure: Exception | None = None

    def put(self, lines: Sequence[bytes]) -> None:
        while not self._room.acquire(timeout=0.2):
            if self._closed.is_set():
                return
        self._loop.call_soon_threadsafe(self._deliver, lines)

    def close(self) -> None:
        self._closed.set()

    def _deliver(self, lines: Sequence[bytes]) -> None:
        self._room.release()
        if self._closed.is_set() or self.failure is not None:
            return
        try:
            for line in lines:
                self._on_line(line.decode(errors="replace"))
        except Exception as error:  # noqa: BLE001 - raised to who gave `on_line`
            self.failure = error


@dataclass
class _Running:
    starter: Starter
    command: Command
    output: _Output
    _killed: threading.Event = field(default_factory=threading.Event)
    _process: subprocess.Popen[bytes] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> int:
        name = f"cmd-{secrets.token_hex(6)}"
        folder = ReplicaFolder(self.starter.commands, self.starter.secrets_root, name)
        self.starter.active.add(name)
        try:
            folder.path.mkdir(parents=True)
            memory = self.command.memory_bytes or _all_memory()
            groups = self.starter.machine.groups
            group = groups.make(name, Resources(memory_bytes=memory)) if groups else None
            go = self._run_sandboxed if self.starter.sandboxed else self._run_plain
            code = go(folder, group)
            if code != 0 and group is not None and _oom_kills(group) and not self._killed.is_set():
                text = f"out of memory: limit {size_text(memory)}"
                self.output.put([text.encode()])
            return code
        finally:
            self._clean(folder)

    def kill(self) -> None:
        self._killed.set()
        self.output.close()
        with self._lock:
            if self._process is not None and self._process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)

    def _clean(self, folder: ReplicaFolder) -> None:
        groups = self.starter.machine.groups
        if not self.starter.rooted:
            while left := adopt.marked(plain.MARK, self._mark(folder)):
                for pid, start in left:
                    adopt.send(pid, start, signal.SIGKILL)
        if groups is not None:
            groups.remove(folder.replica_id)
        folder.remove()
        self.starter.active.discard(folder.replica_id)

    def _mark(self, folder: ReplicaFolder) -> str:
        return f"{self.starter.instance}-{folder.replica_id}"

    def _run_sandboxed(self, folder: ReplicaFolder, group: Group | None) -> int:
        starter, command = self.starter, self.command
        uid = starter.uid(command.user)
        env = sandbox.environment(command.env)
        place = starter.place(folder, uid, list(command.argv), env, command.cwd)
        for bind in command.binds:
            if bind.writable:
                own(Path(bind.source), uid)
        mounts, shown = starter.mounts(folder, command.overlays, uid)
        words = starter.options(place, [*command.binds, *shown], ())
        if not starter.rooted:
            before, inside = starter.rootless_words(outside=command.network, mounts=mounts)
            env = {plain.MARK: self._mark(folder)}
            return self._bubblewrap(words, inside, group, before=before, env=env)

        def work(net: Network) -> int:
            interface = None
            if command.network:
                if not network.rules_present():
                    network.ensure_rules(starter.addresses.network)
                alias = starter.alias(folder.replica_id)
                interface = starter.addresses.connect(net, alias=alias, routed=True).interface
            try:
                return self._bubblewrap(words, inside_command(uid), group)
            finally:
                if interface is not None:
                    net.outside.remove(interface)

        return in_namespaces(work, mounts)

    def _bubblewrap(
        self,
        words: Sequence[str],
        inside: list[str],
        group: Group | None,
        *,
        before: Sequence[str] = (),
        env: Mapping[str, str] = MappingProxyType({}),
    ) -> int:
        """`before` runs it in namespaces of its own, so that its process ids are not ours."""
        options = os.memfd_create("options")
        info, info_end = os.pipe()
        try:
            passed = ["--info-fd", str(info_end), *words]
            os.write(options, b"".join(os.fsencode(word) + b"\0" for word in passed))
            os.lseek(options, 0, os.SEEK_SET)
            argv = [*before, inside[0], "--args", str(options), *inside[1:]]
            path = {"PATH": sandbox.DEFAULT_PATH}
            self._begin(argv, path | dict(env), "/", group, (options, info_end))
        finally:
            os.close(options)
            os.close(info_end)
        with os.fdopen(info, "rb", buffering=0) as told:
            text = b""
            while b"}" not in text and (chunk := told.read(_CHUNK_BYTES)):
                text += chunk
            init = self._open_nested_init(text) if before else _open_init(text)
        try:
            return self._follow()
        finally:
            if init is not None:
                _end_init(init)

    def _open_nested_init(self, told: bytes) -> int | None:
        process = self._process
        if process is None or b"}" not in told:
            return None
        monitor = (adopt.children(process.pid) or [0])[0]
        init = (adopt.children(monitor) or [0])[0]
        try:
            return os.pidfd_open(init) if init else None
        except ProcessLookupError:
            return None

    def _run_plain(self, folder: ReplicaFolder, group: Group | None) -> int:
        command = self.command
        for scratch in (folder.home, folder.tmp):
            scratch.mkdir(mode=0o700)
        for overlay in command.overlays:
            plain.fill(overlay)
        paths = plain.Paths(plain.pairs_of(command.binds, command.overlays, {}))
        env = {name: paths.host(text) for name, text in sandbox.environment(command.env).items()}
        env |= {"HOME": str(folder.home), "TMPDIR": str(folder.tmp), plain.MARK: self._mark(folder)}
        argv = [paths.host(word) for word in command.argv]
        self._begin(argv, env, paths.host(command.cwd), group, ())
        return self._follow()

    def _begin(
        self,
        argv: list[str],
        env: dict[str, str],
        cwd: str,
        group: Group | None,
        passed: tuple[int, ...],
    ) -> None:
        joins = " ".join(str(path) for path in group.joins) if group else ""
        with self._lock:
            if self._killed.is_set():
                raise InterruptedError
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _JOIN, "join", joins, *argv],
                env=env,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=passed,
                umask=0o022,
            )

    def _follow(self) -> int:
        """Pass its output on until it has ended and nobody writes any more."""
        process = self._process
        if process is None or process.stdout is None:
            raise InterruptedError
        ended = os.pidfd_open(process.pid)
        output = process.stdout.fileno()
        poll = select.poll()
        for fd in (output, ended):
            poll.register(fd, select.POLLIN)
        rest = b""
        try:
            over = False
            while not over:
                ready = {fd for fd, _ in poll.poll()}
                over = ended in ready and output not in ready
                if output in ready:
                    chunk = os.read(output, _CHUNK_BYTES)
                    if not chunk:
                        poll.unregister(output)
                    lines, rest = split(rest + chunk)
                    if lines:
                        self.output.put(lines)
            if rest:
                self.output.put([rest])
        finally:
            os.close(ended)
            process.stdout.close()
            code = process.wait()
        return 128 - code if code < 0 else code


def _open_init(told: bytes) -> int | None:
    digits = told.partition(b'"child-pid":')[2].split(b",")[0].split(b"}")[0].strip()
    if not digits.isdigit():
        return None
    try:
        return os.pidfd_open(int(digits))
    except ProcessLookupError:
        return None


def _end_init(init: int) -> None:
    """Kill a sandbox's first process, and so all of it, and wait until it is gone."""
    try:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(init, signal.SIGKILL)
        poll = select.poll()
        poll.register(init, select.POLLIN)
        poll.poll(5000)
    finally:
        os.close(init)


def _oom_kills(group: Group) -> bool:
    try:
        lines = group.oom.read_text().splitlines()
    except OSError:
        return False
    return any(line.startswith("oom_kill ") and line.split()[1] != "0" for line in lines)


def _all_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
