"""`kingpost up`: checks, binds, starts gateway and control, says when ready, ends in order."""

from __future__ import annotations

import asyncio
import fcntl
import ipaddress
import json
import logging
import os
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from kingpost import handover
from kingpost.errors import ConflictError, InvalidInputError
from kingpost.settings import Settings, write_settings
from kingpost.supervisor import listener
from kingpost.supervisor.children import Child
from kingpost.supervisor.health import Health, ask_health

log = logging.getLogger(__name__)

READY_POLL_S = 0.05
GATEWAY_DRAIN_S = 35.0
CONTROL_STOP_S = 60.0


@dataclass(frozen=True)
class Options:
    """What `kingpost up` takes beside the settings."""

    detach_replicas: bool = False
    insecure: bool = False
    json_output: bool = False


def run(settings: Settings, options: Options) -> int:
    """Run in the foreground until SIGINT or SIGTERM. Returns the exit code."""
    check_exposure(settings, insecure=options.insecure)
    data = settings.data
    for folder in (data.root, data.run, data.process_logs):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
    lock = _lock(data.run / "supervisor.lock")
    first_start = not data.admin_key.exists() and "KINGPOST_API_KEY" not in os.environ
    try:
        return asyncio.run(_Up(settings, options, show_key=first_start).run())
    finally:
        lock.close()


def check_exposure(settings: Settings, *, insecure: bool) -> None:
    """An address that others can reach needs TLS, or a word that it is wanted without."""
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise InvalidInputError("--tls-cert and --tls-key go together; only one was given.")
    for path in (settings.tls_cert, settings.tls_key):
        if path is not None and not path.is_file():
            raise InvalidInputError(f"There is no file {path}, which was named for TLS.")
    if settings.tls_cert is None and not insecure and not _is_loopback(settings.host):
        raise InvalidInputError(
            f"{settings.host} can be reached from other machines, and keys would travel in plain "
            "text. Give --tls-cert and --tls-key, or say --insecure if a proxy in front does TLS."
        )


class _Up:
    def __init__(self, settings: Settings, options: Options, *, show_key: bool) -> None:
        self._settings = settings
        self._options = options
        self._show_key = show_key
        self._asked = asyncio.Event()
        self._again = asyncio.Event()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal)
        data = self._settings.data
        sock = self._socket()
        write_settings(self._settings, data.run / "settings.json")
        gateway = Child(
            "gateway",
            lambda: self._gateway_argv(sock.fileno()),
            data.run / "gateway.json",
            log_file=data.process_logs / "gateway.err",
            pass_fds=(sock.fileno(),),
            env={k: v for k, v in os.environ.items() if k != "KINGPOST_API_KEY"},
        )
        control = Child(
            "control",
            self._control_argv,
            data.run / "control.json",
            log_file=data.process_logs / "control.err",
        )
        children = [gateway, control]
        tasks = [loop.create_task(child.run()) for child in children]
        try:
            code = await self._until_asked(control)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await self._end(gateway, control)
        sock.close()
        return code

    def _on_signal(self) -> None:
        if self._asked.is_set():
            self._again.set()
        self._asked.set()

    def _socket(self) -> socket.socket:
        """The socket of a gateway that outlived its supervisor, if it is ours; else a new one."""
        taken = handover.take(self._settings.data.listener_socket)
        if taken is not None:
            if taken.getsockname()[1] == self._settings.port:
                return taken
            port = taken.getsockname()[1]
            taken.close()
            raise ConflictError(
                f"A gateway of this data folder still serves on port {port}. Start with --port "
                f"{port} to take it over, then stop it."
            )
        return listener.bind(self._settings.host, self._settings.port)

    async def _until_asked(self, control: Child) -> int:
        ready = asyncio.get_running_loop().create_task(self._ready(control))
        asked = asyncio.get_running_loop().create_task(self._asked.wait())
        await asyncio.wait({ready, asked}, return_when=asyncio.FIRST_COMPLETED)
        if ready.done() and not ready.result():
            asked.cancel()
            return 1
        await asked
        ready.cancel()
        return 0

    async def _ready(self, control: Child) -> bool:
        """Wait until it serves and say so. False when control can't start."""
        settings = self._settings
        while True:
            health = await ask_health(settings)
            if health is not None and health.control:
                break
            if control.starts > 2:
                error = settings.data.process_logs / "control.err"
                _say(f"The control plane does not start. Its last words, from {error}:")
                _say(_tail(error))
                return False
            await asyncio.sleep(READY_POLL_S)
        self._announce(health)
        return True

    def _announce(self, health: Health) -> None:
        settings = self._settings
        if self._options.json_output:
            _say(json.dumps({"address": settings.address, "pid": os.getpid()}))
            return
        _say(f"Kingpost is ready at {settings.address}")
        if self._show_key:
            _say(f"  admin API key: {settings.data.admin_key.read_text().strip()}")
            _say(f"  (shown this once; kept in {settings.data.admin_key})")
        else:
            _say(f"  admin API key: kept in {settings.data.admin_key}")
        _say(f"  data: {settings.data.root}   logs: {settings.data.process_logs}")
        for notice in health.notices:
            _say(f"  note: {notice}")
        _say("  Ctrl-C stops it.")

    async def _end(self, gateway: Child, control: Child) -> None:
        """In order: no new requests, running ones end, then replicas, then the rest."""
        _say("Stopping: finishing requests (Ctrl-C again to cut them off) ...")
        drain = asyncio.get_running_loop().create_task(gateway.end(wait_s=GATEWAY_DRAIN_S))
        again = asyncio.get_running_loop().create_task(self._again.wait())
        await asyncio.wait({drain, again}, return_when=asyncio.FIRST_COMPLETED)
        if not drain.done():
            drain.cancel()
            await asyncio.gather(drain, return_exceptions=True)
            await gateway.end(wait_s=0.0)
        again.cancel()
        if self._options.detach_replicas:
            _say("Stopping the control plane; replicas run on ...")
        else:
            _say("Stopping replicas and the control plane ...")
        await control.end(wait_s=CONTROL_STOP_S)
        _say("Stopped.")

    def _gateway_argv(self, descriptor: int) -> list[str]:
        settings = self._settings
        argv = [
            sys.executable,
            "-m",
            "kingpost.gateway",
            "--fd",
            str(descriptor),
            "--data-dir",
            str(settings.data.root),
            "--host-names",
            ",".join((settings.host, *settings.host_names)),
        ]
        if settings.tls_cert and settings.tls_key:
            argv += ["--tls-cert", str(settings.tls_cert), "--tls-key", str(settings.tls_key)]
        return argv

    def _control_argv(self) -> list[str]:
        settings = self._settings.data.run / "settings.json"
        argv = [sys.executable, "-m", "kingpost.control", "--settings", str(settings)]
        return [*argv, "--detach-replicas"] if self._options.detach_replicas else argv


def _lock(path: Path) -> IO[str]:
    handle = path.open("a+")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.seek(0)
        holder = handle.read().strip()
        handle.close()
        raise ConflictError(
            f"Kingpost runs already with this data folder (pid {holder or 'unknown'}). Stop that "
            "one, or start another with --data-dir and --port."
        ) from error
    handle.truncate(0)
    handle.write(f"{os.getpid()}\n")
    handle.flush()
    return handle


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _tail(path: Path, lines: int = 20) -> str:
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(nothing was written)"


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 (this is the command's own output)
