"""A replica's folder: what is recorded of it, and its secrets, which lie on tmpfs elsewhere."""

from __future__ import annotations

import fcntl
import os
import re
import secrets as random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from kingpost import contract
from kingpost.engine.adopt import Recorded
from kingpost.engine.base import Address, Exit, ReplicaSpec
from kingpost.errors import EngineError

T = TypeVar("T")

_REPLICA_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_TMPFS_TYPES: Final = {"tmpfs", "ramfs"}
_FRESH: Final = "~new"
"""No secret's name has a tilde, so this is never one."""


class Record(msgspec.Struct, frozen=True):
    """Written before anything is made for a replica. Holds no secret."""

    spec: ReplicaSpec
    boot_id: str
    sandboxed: bool
    started_ns: int
    address: Address | None = None
    interface: str | None = None


class ReplicaFolder:
    """Names and files below `DATA/replicas/<id>`. `secrets` is a folder on tmpfs."""

    def __init__(self, root: Path, secrets_root: Path, replica_id: str) -> None:
        if not _REPLICA_ID.fullmatch(replica_id):
            raise EngineError(
                f"{replica_id[:140]!r} can't name a replica: letters, digits, '.', '_', '-'."
            )
        self.replica_id = replica_id
        self.path = root / replica_id
        self.secrets = secrets_root / replica_id
        self.dynamic = self.path / "dynamic"
        self.etc = self.path / "etc"
        self.home = self.path / "home"
        self.tmp = self.path / "tmp"
        self.launch = self.path / "launch"
        self.logs = self.path / "logs"

    def lock(self) -> int | None:
        """A descriptor that holds the replica's lock, or None when a shim or an engine has it."""
        fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        return fd

    def put_record(self, record: Record) -> None:
        put_file(self.path / "spec.json", msgspec.json.encode(record))

    def record(self) -> Record | None:
        return _read(self.path / "spec.json", Record)

    def shim(self) -> Recorded | None:
        return _read(self.path / "shim.json", Recorded)

    def put_exit(self, ended: Exit) -> None:
        put_file(self.path / "exit.json", msgspec.json.encode(ended))

    def exit(self) -> Exit | None:
        return _read(self.path / "exit.json", Exit)

    def clear(self) -> None:
        """Remove what a run left, but not its record, its lock and its end."""
        for path in (self.secrets, self.dynamic, self.etc, self.home, self.tmp):
            shutil.rmtree(path, ignore_errors=True)
        for mount in self.path.glob("overlay*"):
            shutil.rmtree(mount, ignore_errors=True)
        self.launch.unlink(missing_ok=True)

    def forget_run(self) -> None:
        """Remove the end of an earlier run, so that a new one is not mistaken for it."""
        for name in ("exit.json", "shim.json"):
            (self.path / name).unlink(missing_ok=True)

    def remove(self) -> None:
        self.clear()
        shutil.rmtree(self.path, ignore_errors=True)


def put_file(path: Path, data: bytes, *, mode: int = 0o600, uid: int | None = None) -> None:
    """Write a file so that a reader sees the old one or the new one whole."""
    fresh = path.with_name(path.name + _FRESH)
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        os.fchmod(fd, mode)
        if uid is not None:
            os.fchown(fd, uid, uid)
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
    finally:
        os.close(fd)
    fresh.rename(path)


def put_files(folder: Path, files: Mapping[str, str], *, mode: int, uid: int | None) -> None:
    """Make a folder hold just these files, each replaced by rename. Raises on a bad name."""
    for name in files:
        if not contract.is_secret_name(name):
            raise EngineError(
                f"{name[:100]!r} can't be a file's name: letters, digits, '_', '-' and '.' only."
            )
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    for name, text in files.items():
        put_file(folder / name, text.encode(), mode=mode, uid=uid)
    for entry in os.scandir(folder):
        if entry.name not in files:
            os.unlink(entry.path)


def secrets_root(instance: str) -> Path:
    """A folder of ours (mode 700) on a file system that is never on disk. Made when missing."""
    mounts = Path("/proc/self/mounts").read_text()
    choices = [Path("/run"), Path("/dev/shm")]  # noqa: S108
    if os.geteuid() != 0:
        choices = [Path(f"/run/user/{os.geteuid()}"), Path("/dev/shm")]  # noqa: S108
    for base in choices:
        if not _in_memory(base, mounts) or not os.access(base, os.W_OK | os.X_OK):
            continue
        path = base / f"kingpost-{instance}"
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
        if found.st_uid != os.geteuid() or not path.is_dir() or path.is_symlink():
            raise EngineError(
                "the folder for secrets in memory belongs to another user; remove it, or run the "
                "platform as that user."
            )
        path.chmod(0o700)
        return path
    raise EngineError(
        "no tmpfs for secrets was found at /run or /dev/shm; mount one: "
        "`mount -t tmpfs tmpfs /dev/shm`."
    )


def instance_of(data: Path) -> str:
    """A short name for the platform with this data folder, kept in it."""
    path = data / "engine" / "instance"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        put_file(path, random.token_hex(4).encode())
    return path.read_text().strip()


def _in_memory(path: Path, mounts: str) -> bool:
    point, kind = "", ""
    for line in mounts.splitlines():
        words = line.split(" ")
        if path.is_relative_to(words[1]) and len(words[1]) >= len(point):
            point, kind = words[1], words[2]
    return kind in _TMPFS_TYPES


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError):
        return None
