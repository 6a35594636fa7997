"""Unprivileged users for replicas: one uid per team, kept in a table in the data folder.

These uids exist in no passwd file of the host; the sandbox has a passwd of its own.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from kingpost.errors import EngineError

RANGE = (1_900_000_000, 1_000_000)
"""First and count: used by no distribution, subordinate id or systemd (its UIDS-GIDS document)."""
SMALL_RANGE = (60_000, 1_000)
"""Where a container maps only 65,536 users."""


def choose(name: str, salt: str, taken: Mapping[str, int], span: tuple[int, int]) -> int:
    """The uid of a name: the one it has, else the first free one from where its hash falls."""
    if name in taken:
        return taken[name]
    first, count = span
    used = set(taken.values())
    digest = hashlib.sha256(f"{salt}\0{name}".encode()).digest()
    at = int.from_bytes(digest[:8])
    for step in range(count):
        uid = first + (at + step) % count
        if uid not in used:
            return uid
    raise EngineError(
        f"all {count} user ids for teams are taken; remove teams that are no longer used."
    )


def span_of(uid_map: str) -> tuple[int, int]:
    """Which range the machine can use, from the text of /proc/self/uid_map."""
    first, count = RANGE
    for line in uid_map.splitlines():
        words = [int(word) for word in line.split()]
        if len(words) == 3 and words[0] <= first and first + count <= words[0] + words[2]:
            return RANGE
    return SMALL_RANGE


class Users:
    """The table. Safe across processes; read from disk once, then only for new names."""

    def __init__(self, path: Path, salt: str) -> None:
        self._path = path
        self._salt = salt
        self._span = span_of(Path("/proc/self/uid_map").read_text())
        self._known: dict[str, int] = {}

    def uid(self, name: str) -> int:
        if name not in self._known:
            self._known = self._add(name)
        return self._known[name]

    def _add(self, name: str) -> dict[str, int]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(
            self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            table: dict[str, int] = {}
            if self._path.exists():
                table = msgspec.json.decode(self._path.read_bytes(), type=dict[str, int])
            if name not in table:
                table[name] = choose(name, self._salt, table, self._span)
                fresh = self._path.with_suffix(".new")
                fresh.write_bytes(msgspec.json.encode(table))
                fresh.rename(self._path)
            return table
        finally:
            os.close(lock)


def own(path: Path, uid: int) -> None:
    """Give a folder or file, and all below it, to that user; nothing when it has it already.

    Follows no link. Needs root.
    """
    if path.stat().st_uid == uid:
        return
    for folder, folders, files in os.walk(path):
        for name in folders + files:
            os.lchown(os.path.join(folder, name), uid, uid)
    os.chown(path, uid, uid)
