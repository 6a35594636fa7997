"""A network beyond the host, made of a namespace, with a server in it. Needs root."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from kingpost.engine.base import Address
from tests.support.engine import DEADLINE_S, PYTHON

_SERVE = """
import socket
server = socket.create_server(("0.0.0.0", {port}))
while True:
    made, _ = server.accept()
    made.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\n")
    made.close()
"""


@dataclass(frozen=True)
class Outside:
    """`link_local` is a metadata-like address (169.254.0.0/16) that the host routes there too."""

    namespace: str
    address: str
    link_local: str
    port: int

    def reaches(self, address: Address) -> bool:
        where = (address.host, address.port)
        program = f"import socket; socket.create_connection({where!r}, timeout=2)"
        words = ["ip", "netns", "exec", self.namespace, PYTHON, "-c", program]
        return subprocess.run(words, capture_output=True, check=False).returncode == 0


@contextmanager
def outside_network() -> Iterator[Outside]:
    number = secrets.randbelow(250)
    name = f"kpout{secrets.token_hex(3)}"
    ours, theirs = f"203.0.113.{number}", f"203.0.113.{number ^ 1}"
    link_local = f"169.254.{secrets.randbelow(250)}.{secrets.randbelow(250)}"
    batch = [
        f"netns add {name}",
        f"link add {name} type veth peer name eth0 netns {name}",
        f"addr add {ours}/31 dev {name}",
        f"link set {name} up",
        f"route add {link_local}/32 via {theirs}",
    ]
    inner = [
        f"addr add {theirs}/31 dev eth0",
        f"addr add {link_local}/32 dev eth0",
        "link set eth0 up",
        "link set lo up",
        f"route add default via {ours}",
    ]
    port = 8000
    try:
        _ip(["-batch", "-"], batch[:4])
        _ip(["-n", name, "-batch", "-"], inner)
        _ip(["-batch", "-"], batch[4:])
        server = subprocess.Popen(
            ["ip", "netns", "exec", name, PYTHON, "-c", _SERVE.format(port=port)]
        )
        try:
            _wait_for(theirs, port)
            _wait_for(link_local, port)
            yield Outside(name, theirs, link_local, port)
        finally:
            server.kill()
            server.wait()
    finally:
        subprocess.run(["ip", "link", "del", name], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def _ip(words: list[str], lines: list[str]) -> None:
    subprocess.run(["ip", *words], input="\n".join(lines), text=True, check=True)


def _wait_for(host: str, port: int) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            with socket.create_connection((host, port), timeout=5) as probe:
                if probe.recv(1):
                    return
        except OSError:
            if time.monotonic() > deadline:
                raise
        os.sched_yield()
        time.sleep(0.02)
