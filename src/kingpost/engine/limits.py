"""Holds replicas to their memory, share of CPU and number of processes, by control groups.

Version 1 and version 2 behind one interface; without either the shim watches the memory. Never
RLIMIT_AS (it ends programs that only map much) or RLIMIT_CPU. CPU is a weight, not a quota: a
replica alone may use all cores, a quota would slow its start and stretch its tail latency.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kingpost.engine.base import Resources

MAX_PROCESSES = 4096
_V1_CONTROLLERS = ("memory", "cpu", "pids")
_V2_CONTROLLERS = ("memory", "cpu", "pids")


@dataclass(frozen=True)
class Group:
    """Files and folders that a shim uses: it never needs to know of which version they are.

    A process of one thread joins by writing 0 to each of `joins`; `oom` has a line `oom_kill N`.
    `folders` are removed at the end.
    """

    joins: tuple[Path, ...]
    folders: tuple[Path, ...]
    oom: Path


class Groups(Protocol):
    """Makes groups named after replicas, below one folder per platform and controller."""

    def make(self, name: str, resources: Resources) -> Group: ...

    def names(self) -> set[str]: ...

    def remove(self, name: str) -> None:
        """Kill what is in it and remove it; nothing when there is none."""
        ...


def find_groups(instance: str) -> Groups | None:
    """The groups that this process may make, or None where it may make none."""
    mounts = Path("/proc/self/mounts").read_text()
    own = Path("/proc/self/cgroup").read_text()
    for groups in (_find_v1(mounts, own, instance), _find_v2(mounts, own, instance)):
        if groups is not None and _works(groups):
            return groups
    return None


def own_paths(text: str) -> dict[str, str]:
    """Controller to path, from the text of /proc/self/cgroup; version 2 is the empty name."""
    found = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            found[controller] = path
    return found


def mount_points(text: str) -> dict[str, Path]:
    """Controller to mount point, from /proc/self/mounts; version 2 is the empty name."""
    found: dict[str, Path] = {}
    for line in text.splitlines():
        _, point, kind, options, *_ = line.split(" ")
        if kind == "cgroup2":
            found.setdefault("", Path(point))
        elif kind == "cgroup":
            for option in options.split(","):
                if option in _V1_CONTROLLERS:
                    found.setdefault(option, Path(point))
    return found


@dataclass(frozen=True)
class GroupsV1:
    """`parents` maps each controller to the platform's folder in its tree."""

    parents: dict[str, Path]

    def make(self, name: str, resources: Resources) -> Group:
        folders = {controller: parent / name for controller, parent in self.parents.items()}
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)
        memory = folders["memory"]
        (memory / "memory.limit_in_bytes").write_text(str(resources.memory_bytes))
        swap = memory / "memory.memsw.limit_in_bytes"
        if swap.exists():
            swap.write_text(str(resources.memory_bytes))
        if "cpu" in folders:
            (folders["cpu"] / "cpu.shares").write_text(str(shares(resources.cpu_millis)))
        if "pids" in folders:
            (folders["pids"] / "pids.max").write_text(str(MAX_PROCESSES))
        paths = tuple(folders.values())
        # A thread that moves itself by `tasks` needs no lock over all threads of the machine, as
        # `cgroup.procs` does: after some idle time that took 16 ms, this 0.3.
        joins = tuple(folder / "tasks" for folder in paths)
        return Group(joins, paths, memory / "memory.oom_control")

    def names(self) -> set[str]:
        return {name for parent in self.parents.values() for name in _folders(parent)}

    def remove(self, name: str) -> None:
        for parent in self.parents.values():
            _empty(parent / name)
            _try_rmdir(parent)


@dataclass(frozen=True)
class GroupsV2:
    parent: Path

    def make(self, name: str, resources: Resources) -> Group:
        folder = self.parent / name
        folder.mkdir(parents=True, exist_ok=True)
        enable = " ".join(f"+{controller}" for controller in _V2_CONTROLLERS)
        (self.parent / "cgroup.subtree_control").write_text(enable)
        (folder / "memory.max").write_text(str(resources.memory_bytes))
        swap = folder / "memory.swap.max"
        if swap.exists():
            swap.write_text("0")
        (folder / "cpu.weight").write_text(str(weight(resources.cpu_millis)))
        (folder / "pids.max").write_text(str(MAX_PROCESSES))
        return Group((folder / "cgroup.procs",), (folder,), folder / "memory.events")

    def names(self) -> set[str]:
        return set(_folders(self.parent))

    def remove(self, name: str) -> None:
        _empty(self.parent / name)
        _try_rmdir(self.parent)


def shares(cpu_millis: int) -> int:
    """Version 1: 1024 for a core, within the kernel's 2 to 262144."""
    return min(max(cpu_millis * 1024 // 1000, 2), 262_144)


def weight(cpu_millis: int) -> int:
    """Version 2: 100 for a core, within the kernel's 1 to 10000."""
    return min(max(cpu_millis // 10, 1), 10_000)


def _find_v1(mounts: str, own: str, instance: str) -> GroupsV1 | None:
    paths = own_paths(own)
    parents = {}
    for controller, point in mount_points(mounts).items():
        if controller:
            base = point / paths.get(controller, "/").lstrip("/")
            parents[controller] = (base if base.is_dir() else point) / f"kingpost-{instance}"
    return GroupsV1(parents) if "memory" in parents else None


def _find_v2(mounts: str, own: str, instance: str) -> GroupsV2 | None:
    point = mount_points(mounts).get("")
    if point is None:
        return None
    # Our own group has processes, so it can't hand controllers on; its parent or the root may.
    base = point / own_paths(own).get("", "/").lstrip("/")
    for folder in (base, base.parent, point):
        if _offers(folder) and folder.is_relative_to(point):
            return GroupsV2(folder / f"kingpost-{instance}")
    return None


def _offers(folder: Path) -> bool:
    try:
        given = (folder / "cgroup.subtree_control").read_text().split()
    except OSError:
        return False
    return set(_V2_CONTROLLERS) <= set(given)


def _works(groups: Groups) -> bool:
    name = f"try-{os.getpid()}"
    try:
        groups.make(name, Resources())
    except OSError:
        return False
    finally:
        groups.remove(name)
    return True


def _folders(parent: Path) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(parent) if entry.is_dir()]
    except OSError:
        return []


def _empty(folder: Path) -> None:
    deadline = time.monotonic() + 5
    while folder.is_dir() and time.monotonic() < deadline:
        try:
            for pid in map(int, (folder / "cgroup.procs").read_text().split()):
                if pid > 0:  # 0 stands for a process that this one can't see
                    os.kill(pid, signal.SIGKILL)
        except (OSError, ValueError):
            pass
        if _try_rmdir(folder):
            return
        time.sleep(0.01)


def _try_rmdir(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
