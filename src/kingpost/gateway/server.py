"""The gateway's process: sockets in, signals, drain, exit."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import resource
import signal
import socket
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from kingpost.gateway.gateway import Gateway, GatewayOptions, Timeouts
from kingpost.gateway.http1 import ClientConnection
from kingpost.handover import Offer
from kingpost.settings import DataFolder

_log = logging.getLogger(__name__)

TLS_SHUTDOWN_S = 1.0
"""How long a peer may take to say goodbye; asyncio's own 30 s would hold a stop up."""


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m kingpost.gateway`: see `--help`. Runs until SIGTERM or SIGINT."""
    args = _parser().parse_args(argv)
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    if bool(args.tls_cert) != bool(args.tls_key):
        sys.stderr.write("--tls-cert and --tls-key belong together: give both or none.\n")
        return 2
    tls = None
    if args.tls_cert:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(args.tls_cert, args.tls_key)
    sockets = [socket.socket(fileno=fd) for fd in args.fd]
    sockets += [_bind(address) for address in args.listen]
    if not sockets:
        sys.stderr.write("No socket to serve: give --fd N or --listen HOST:PORT.\n")
        return 2
    options = GatewayOptions(
        data=DataFolder(Path(args.data_dir)),
        host_names=tuple(name for name in args.host_names.split(",") if name),
        timeouts=Timeouts(
            header_s=args.header_timeout,
            body_idle_s=args.body_timeout,
            idle_s=args.idle_timeout,
            drain_s=args.drain_timeout,
            look_s=min(15.0, args.header_timeout),
        ),
    )
    uvloop.run(run_gateway(options, sockets, tls=tls))
    return 0


async def run_gateway(
    options: GatewayOptions, sockets: Sequence[socket.socket], *, tls: ssl.SSLContext | None = None
) -> None:
    """Serve on listening `sockets` until SIGTERM or SIGINT, then drain and return."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    _raise_file_limit()
    gateway = Gateway(options)
    await gateway.start()
    servers = [await listen(gateway, sock, tls=tls) for sock in sockets]
    offer = Offer(options.data.listener_socket, sockets)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    _log.info("gateway serves")
    await stopping.wait()
    _log.info("gateway drains")
    offer.close()
    for server in servers:
        server.close()
    await gateway.drain()
    await gateway.stop()
    _log.info("gateway ends")


async def listen(
    gateway: Gateway, sock: socket.socket, *, tls: ssl.SSLContext | None = None
) -> asyncio.AbstractServer:
    """Take connections from a socket that is bound already."""
    sock.setblocking(False)
    shutdown_s = TLS_SHUTDOWN_S if tls is not None else None
    return await asyncio.get_running_loop().create_server(
        lambda: ClientConnection(gateway),
        sock=sock,
        ssl=tls,
        ssl_shutdown_timeout=shutdown_s,
        backlog=4096,
    )


def _bind(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, int(port)))
    return sock


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m kingpost.gateway", description="Kingpost's data plane."
    )
    add = parser.add_argument
    add("--fd", type=int, action="append", default=[], help="a listening socket, inherited")
    add("--listen", action="append", default=[], metavar="HOST:PORT", help="listen here")
    add("--data-dir", required=True, help="the platform's data folder")
    add("--host-names", default="", help="further names of this server, by commas; * is any")
    add("--tls-cert", help="certificate chain (PEM); serve TLS")
    add("--tls-key", help="its private key (PEM)")
    add("--header-timeout", type=float, default=30.0, metavar="S")
    add("--body-timeout", type=float, default=60.0, metavar="S", help="between two pieces of it")
    add("--idle-timeout", type=float, default=75.0, metavar="S", help="between two requests")
    add("--drain-timeout", type=float, default=30.0, metavar="S", help="after SIGTERM")
    return parser
