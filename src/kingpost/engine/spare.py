"""Shims started ahead, each in a network of its own, so that a start has to wait for neither.

A spare knows nothing of any replica; it ends by itself when the engine that made it does.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

from kingpost.engine import network
from kingpost.engine.launch import Shim
from kingpost.engine.namespaces import Network, in_namespaces
from kingpost.engine.netlink import Netlink


@dataclass(frozen=True)
class Spare:
    path: Path
    lock: int
    shim: Shim
    pair: network.Pair

    def become(self, folder: Path, alias: str) -> None:
        """Move its lock to a replica's folder, which it then holds, and rename its interface."""
        os.rename(self.path / "shim.err", folder / "shim.err")
        os.rename(self.path / "lock", folder / "lock")
        link = Netlink()
        try:
            link.set_alias(self.pair.interface, alias)
        finally:
            link.close()

    def drop(self) -> None:
        """Let go of it: it ends, unless it got a job."""
        self.shim.close()
        os.close(self.lock)
        shutil.rmtree(self.path, ignore_errors=True)


class Spares:
    """At most `count` spares below `root`. Blocks; for threads."""

    def __init__(self, root: Path, addresses: network.Addresses, alias: str, count: int) -> None:
        self._root = root
        self._addresses = addresses
        self._alias = alias
        self._count = count
        self._ready: list[Spare] = []
        self._lock = threading.Lock()
        self._closed = False

    def interfaces(self) -> set[str]:
        return {spare.pair.interface for spare in list(self._ready)}

    def processes(self) -> set[int]:
        return {spare.shim.pid for spare in list(self._ready)}

    def take(self) -> Spare | None:
        """One that still lives, or None."""
        while True:
            with self._lock:
                if not self._ready:
                    return None
                spare = self._ready.pop()
            if os.waitpid(spare.shim.pid, os.WNOHANG)[0] == 0:
                return spare
            spare.drop()

    def fill(self) -> None:
        with self._lock:
            while len(self._ready) < self._count and not self._closed:
                self._ready.append(self._make())

    def close(self) -> None:
        with self._lock:
            self._closed = True
            spares, self._ready = self._ready, []
        for spare in spares:
            spare.shim.give_up()
            network.remove_interface(spare.pair.interface)
            spare.drop()

    def remove_leftovers(self) -> None:
        """Remove the folders of spares that an earlier engine made; they ended with it."""
        ours = {spare.path.name for spare in self._ready}
        if self._root.is_dir():
            for entry in os.scandir(self._root):
                if entry.name not in ours:
                    shutil.rmtree(entry.path, ignore_errors=True)

    def _make(self) -> Spare:
        path = self._root / secrets.token_hex(6)
        path.mkdir(parents=True)
        lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)

            def work(net: Network) -> Spare:
                pair = self._addresses.connect(net, alias=f"{self._alias} {path.name}", routed=True)
                return Spare(path, lock, Shim(lock, path / "shim.err"), pair)

            return in_namespaces(work)
        except BaseException:
            os.close(lock)
            shutil.rmtree(path, ignore_errors=True)
            raise
