"""After a crash of ours: what a replica's folder says has become of it, and ending what is left."""

from __future__ import annotations

import logging
import os
import signal
import time
from dataclasses import dataclass

from kingpost.engine import adopt, plain
from kingpost.engine.adopt import Recorded
from kingpost.engine.base import Exit
from kingpost.engine.folder import Record, ReplicaFolder
from kingpost.engine.limits import Groups

log = logging.getLogger(__name__)

_SHIM_START_S = 30.0
_END_S = 10.0
SHIM_GONE = "its supervising process was killed, so the replica was ended with it"


@dataclass(frozen=True)
class Running:
    record: Record
    shim: Recorded


@dataclass(frozen=True)
class Ended:
    record: Record
    exit: Exit


def inspect(folder: ReplicaFolder, groups: Groups | None) -> Running | Ended | None:
    """What became of it; None when nothing is to be kept. Blocks, ends the rest of a dead one.

    The lock is the truth: a shim holds it as long as it lives, and so does an engine that starts
    one.
    """
    deadline = time.monotonic() + _SHIM_START_S
    while (lock := folder.lock()) is None:
        record, shim = folder.record(), folder.shim()
        if record is not None and shim is not None and adopt.start_time(shim.pid) == shim.start:
            return Running(record, shim)
        if time.monotonic() > deadline:
            return None
        time.sleep(0.01)
    try:
        return _of_dead(folder, groups)
    finally:
        os.close(lock)


def end_rest(folder: ReplicaFolder, groups: Groups | None) -> None:
    """Kill whatever of a replica outlived its shim, and wait until it is gone. Blocks."""
    shim = folder.shim()
    if shim is not None:
        left = [
            (shim.pid, shim.start),
            (shim.child, shim.child_start),
            (shim.init, shim.init_start),
        ]
        _kill([process for process in left if process[0]])
    record = folder.record()
    if record is not None and record.interface is None and record.boot_id == adopt.boot_id():
        while left := adopt.marked(plain.MARK, folder.replica_id):
            _kill(left)
    if groups is not None:
        groups.remove(folder.replica_id)


def _of_dead(folder: ReplicaFolder, groups: Groups | None) -> Ended | None:
    record = folder.record()
    same_boot = record is not None and record.boot_id == adopt.boot_id()
    if same_boot:
        end_rest(folder, groups)
    ended = folder.exit()
    if record is not None and ended is not None:
        folder.clear()
        return Ended(record, ended)
    if record is None or not same_boot or folder.shim() is None:
        folder.remove()
        return None
    ended = Exit(code=None, signal=None, at_ns=time.time_ns(), reason=SHIM_GONE)
    keep_exit(folder, ended)
    folder.clear()
    return Ended(record, ended)


def keep_exit(folder: ReplicaFolder, ended: Exit) -> None:
    """Record how it ended. On a full disk there is no record, and the next start says the same."""
    try:
        folder.put_exit(ended)
    except OSError as error:
        extra = {"replica_id": folder.replica_id, "error": error.strerror}
        log.warning("the end of a replica was not recorded", extra=extra)


def _kill(processes: list[tuple[int, int]]) -> None:
    for pid, start in processes:
        adopt.send(pid, start, signal.SIGKILL)
    deadline = time.monotonic() + _END_S
    for pid, start in processes:
        while _alive(pid, start) and time.monotonic() < deadline:
            time.sleep(0.005)


def _alive(pid: int, start: int) -> bool:
    """Whether it still runs; a dead one that its parent has not reaped does not."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            words = file.read().rpartition(b")")[2].split()
    except OSError:
        return False
    return int(words[19]) == start and words[0] not in {b"Z", b"X"}
