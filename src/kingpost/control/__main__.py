"""The control plane's process: `python -m kingpost.control --settings FILE`.

Serves the doors on a Unix socket; ends in order on SIGTERM. `--detach-replicas` lets them run on.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Generator
from pathlib import Path

import uvicorn

from kingpost import logs
from kingpost.control.control import Control
from kingpost.errors import KingpostError
from kingpost.settings import Settings, read_settings

log = logging.getLogger("kingpost.control")

MAX_SHUTDOWN_S = 10


class _Server(uvicorn.Server):
    """Signals are this process's own matter, not the server's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def main() -> int:
    parser = argparse.ArgumentParser(prog="kingpost.control")
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--detach-replicas", action="store_true")
    arguments = parser.parse_args()
    settings = read_settings(arguments.settings)
    logs.to_file(settings.data.process_logs / "control.log")
    operator_key = os.environ.pop("KINGPOST_API_KEY", None)
    import uvloop

    try:
        uvloop.run(_run(settings, operator_key, stop_replicas=not arguments.detach_replicas))
    except KingpostError as error:
        log.error("control could not start", extra={"error": error.message})  # noqa: TRY400
        print(error.message, file=sys.stderr)  # noqa: T201
        return 1
    return 0


async def _run(settings: Settings, operator_key: str | None, *, stop_replicas: bool) -> None:
    from kingpost.api.app import make_app

    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    control = Control(settings, operator_key=operator_key)
    await control.start()
    config = uvicorn.Config(
        make_app(control.platform),
        loop="none",
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=MAX_SHUTDOWN_S,
    )
    server = _Server(config)
    serving = loop.create_task(server.serve(sockets=[_listen(settings.data.control_socket)]))
    log.info("control is up", extra={"pid": os.getpid()})
    waiting = loop.create_task(asked.wait())
    await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
    log.info("control is stopping", extra={"stop_replicas": stop_replicas})
    server.should_exit = True
    await control.stop(stop_replicas=stop_replicas)
    await serving
    waiting.cancel()


def _listen(path: Path) -> socket.socket:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(mask)
    return listener


if __name__ == "__main__":
    sys.exit(main())
