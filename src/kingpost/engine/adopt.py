"""Tells a recorded process from another that has its number: boot id, process id, start time."""

from __future__ import annotations

import os
import signal
from functools import cache
from pathlib import Path

import msgspec


class Recorded(msgspec.Struct, frozen=True):
    """What a shim writes of itself. Start times are clock ticks after boot."""

    pid: int
    start: int
    child: int = 0
    child_start: int = 0
    init: int = 0
    init_start: int = 0


@cache
def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> int | None:
    """Clock ticks after boot, or None when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    return int(stat.rpartition(b")")[2].split()[19])


def open_process(pid: int, start: int) -> int | None:
    """A pidfd of just that process, or None when it has ended."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return None
    if start_time(pid) == start:
        return fd
    os.close(fd)
    return None


def send(pid: int, start: int, number: signal.Signals) -> bool:
    """Signal just that process; whether it was there."""
    fd = open_process(pid, start)
    if fd is None:
        return False
    try:
        signal.pidfd_send_signal(fd, number)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def children(pid: int) -> list[int]:
    """Of its first thread; empty when there is no such process."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def marked(variable: str, value: str) -> list[tuple[int, int]]:
    """(pid, start) of the processes whose environment holds `variable=value`."""
    wanted = f"{variable}={value}".encode()
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            environment = Path(f"/proc/{name}/environ").read_bytes()
        except OSError:
            continue
        if wanted in environment.split(b"\0"):
            start = start_time(int(name))
            if start is not None:
                found.append((int(name), start))
    return found
