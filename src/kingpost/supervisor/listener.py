"""Binds the listening socket, and says who has it when it is taken."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from pathlib import Path

from kingpost.errors import ConflictError, InvalidInputError

BACKLOG = 4096


def bind(host: str, port: int) -> socket.socket:
    """Listen on the address. Raises ConflictError saying who has the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            holder = who_listens(port)
            raise ConflictError(
                f"Port {port} is taken by {holder or 'another process'}. Stop it, or choose "
                f"another port: kingpost up --port {port + 1}"
            ) from error
        raise InvalidInputError(
            f"Can't listen on {host}:{port}: {error.strerror}. Choose an address of this machine "
            "and a port that you may use: kingpost up --host 127.0.0.1 --port 8000"
        ) from error
    except OverflowError as error:
        listener.close()
        raise InvalidInputError(f"Port {port} is no port; expected 1 to 65535.") from error
    return listener


def who_listens(port: int) -> str | None:
    """`name (pid N)` of the process that listens on a TCP port here, if it can be seen."""
    inodes = _listening_inodes(port)
    if not inodes:
        return None
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _holds(entry, inodes):
            with contextlib.suppress(OSError):
                return f"{(entry / 'comm').read_text().strip()} (pid {entry.name})"
    return None


def _listening_inodes(port: int) -> set[str]:
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
    return inodes


def _holds(process: Path, inodes: set[str]) -> bool:
    try:
        return any(os.readlink(fd) in inodes for fd in (process / "fd").iterdir())
    except OSError:
        return False
