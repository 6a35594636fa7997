"""Unpacks an uploaded tar that nobody vouches for: within its folder, within limits, or not at all.

What the files mean is not looked at here.
"""

from __future__ import annotations

import gzip
import io
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from kingpost import contract
from kingpost.errors import InvalidInputError, StorageFullError, TooLargeError
from kingpost.settings import Limits

_GZIP_MAGIC = b"\x1f\x8b"
_BLOCK = 512
_CHUNK_BYTES = contract.MIB
_MAX_READ_BYTES = 16 * contract.MIB
_MAX_DEPTH = 128
_MAX_PATH = 2000
_SPARE_BYTES = 64 * contract.MIB
_HEADER_BYTES_PER_FILE = 8 * 1024
_DIGITS = 64


class ArchiveError(InvalidInputError):
    """The archive is not a tar, is damaged, or holds something that is not allowed."""


@dataclass(frozen=True)
class Unpacked:
    files: int
    bytes: int


def unpack(
    archive: Path,
    target: Path,
    limits: Limits,
    *,
    stopped: Callable[[], bool] = lambda: False,
) -> Unpacked:
    """Unpack into `target`, which must not exist yet. Blocks; leaves nothing behind on an error.

    Regular files, folders, hard links to earlier files and symbolic links that stay inside are
    taken; modes become 755 or 644. Raises `ArchiveError`, `TooLargeError`, `StorageFullError`, and
    `InterruptedError` once `stopped()` is true.
    """
    size = archive.stat().st_size
    if size > limits.max_archive_bytes:
        raise TooLargeError(
            f"The archive has {size_text(size)}; at most {size_text(limits.max_archive_bytes)} are "
            "taken. Leave data out (.truss_ignore); load it through `weights` or `external_data`."
        )
    target.mkdir(parents=True)
    try:
        with archive.open("rb") as file:
            return _Unpacking(target, limits, stopped).run(_guarded(file, limits))
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


class _Unpacking:
    def __init__(self, target: Path, limits: Limits, stopped: Callable[[], bool]) -> None:
        self._target = target
        self._limits = limits
        self._stopped = stopped
        self._links: dict[PurePosixPath, str] = {}
        self._count = 0
        self._bytes = 0

    def run(self, source: _Guard) -> Unpacked:
        try:
            with _Tar(fileobj=source, mode="r") as tar:
                while (member := tar.next()) is not None:
                    if self._stopped():
                        raise InterruptedError
                    self._take(tar, member)
                    tar.members.clear()
                self._check_end(source, tar)
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError) as error:
            raise ArchiveError(
                f"The archive is damaged or not a tar: {error}. Push the Truss again."
            ) from error
        self._make_links()
        return Unpacked(self._count, self._bytes)

    def _take(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        name = _checked_name(member.name)
        self._count += 1
        if self._count > self._limits.max_archive_files:
            raise TooLargeError(
                f"The archive holds more than {self._limits.max_archive_files} files. "
                "Leave folders such as .git and virtual environments out (.truss_ignore)."
            )
        if member.isdir():
            if name.parts:
                self._folder(name)
        elif member.issparse():
            raise ArchiveError(f"{name} is a sparse file; pack it as an ordinary one.")
        elif member.isreg():
            self._file(tar, member, name)
        elif member.issym():
            self._links[name] = member.linkname
        elif member.islnk():
            self._hard_link(name, _checked_name(member.linkname))
        else:
            raise ArchiveError(
                f"{name} is a device, pipe or other special file; only files, folders and links "
                "inside the Truss are taken."
            )

    def _file(self, tar: tarfile.TarFile, member: tarfile.TarInfo, name: PurePosixPath) -> None:
        self._bytes += member.size
        if self._bytes > self._limits.max_unpacked_bytes:
            raise TooLargeError(
                f"The archive unpacks to more than {size_text(self._limits.max_unpacked_bytes)}. "
                "Load large files through `weights` or `external_data`."
            )
        if member.size > _CHUNK_BYTES:
            self._check_space(member.size)
        content = tar.extractfile(member)
        if content is None:
            raise ArchiveError(f"{name} has no content.")
        path = self._place(name)
        mode = 0o755 if member.mode & 0o100 else 0o644
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as out:
            while chunk := content.read(_CHUNK_BYTES):
                if self._stopped():
                    raise InterruptedError
                out.write(chunk)
        path.chmod(mode)

    def _hard_link(self, name: PurePosixPath, to: PurePosixPath) -> None:
        source = self._target / to
        if not source.is_file() or source.is_symlink():
            raise ArchiveError(f"{name} is a link to {to}, which is not an earlier file in it.")
        if to != name:
            os.link(source, self._place(name))

    def _folder(self, name: PurePosixPath) -> Path:
        path = self._target
        for part in name.parts:
            path = path / part
            try:
                path.mkdir(mode=0o755)
            except FileExistsError:
                if not path.is_dir():
                    raise ArchiveError(f"{name} is both a file and a folder.") from None
            else:
                path.chmod(0o755)
        return path

    def _place(self, name: PurePosixPath) -> Path:
        """Where to write a file: its folder is there, and the place is free."""
        if not name.parts:
            raise ArchiveError("The archive holds a file without a name.")
        path = self._folder(name.parent) / name.name
        if path.is_dir():
            raise ArchiveError(f"{name} is both a file and a folder.")
        path.unlink(missing_ok=True)
        return path

    def _make_links(self) -> None:
        """Symbolic links come last, so that nothing was ever written through one."""
        for name, to in self._links.items():
            if not to or "\0" in to or to.startswith("/"):
                raise ArchiveError(f"{name} is a link out of the Truss; link to a relative path.")
            self._place(name).symlink_to(to)
        root = os.path.realpath(self._target)
        for name in self._links:
            real = os.path.realpath(self._target / name)
            if real != root and not real.startswith(root + os.sep):
                raise ArchiveError(
                    f"{name} is a link out of the Truss; copy its target in instead."
                )

    def _check_end(self, source: _Guard, tar: _Tar) -> None:
        source.seek(tar.offset)
        block = source.read(_BLOCK)
        if block != bytes(_BLOCK):
            raise ArchiveError("The archive is truncated: its end mark is missing. Push it again.")

    def _check_space(self, wanted: int) -> None:
        free = shutil.disk_usage(self._target).free
        if free < wanted + _SPARE_BYTES:
            raise StorageFullError(
                f"The disk of the data folder has {size_text(free)} left, too little to unpack the "
                "archive. Free space or delete unused deployments."
            )


class _Tar(tarfile.TarFile):
    members: list[tarfile.TarInfo]
    offset: int


class _Guard(io.RawIOBase):
    """The tar's bytes, each read and their total bounded. Only forward seeks are cheap."""

    def __init__(self, source: IO[bytes] | gzip.GzipFile, most: int) -> None:
        super().__init__()
        self._source = source
        self._most = most

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > _MAX_READ_BYTES:
            raise ArchiveError("The archive has an extended header of an unreasonable size.")
        data = self._source.read(size)
        self._check()
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_SET and offset > self._most:
            self._refuse()
        return self._source.seek(offset, whence)

    def tell(self) -> int:
        return self._source.tell()

    def _check(self) -> None:
        if self._source.tell() > self._most:
            self._refuse()

    def _refuse(self) -> None:
        raise TooLargeError(
            "The archive unpacks to more than is taken. Load large files through `weights`."
        )


def _guarded(file: IO[bytes], limits: Limits) -> Any:
    most = limits.max_unpacked_bytes + limits.max_archive_files * _HEADER_BYTES_PER_FILE
    magic = file.read(2)
    file.seek(0)
    if magic == _GZIP_MAGIC:
        return _Guard(gzip.GzipFile(fileobj=file), most)
    return _Guard(file, most)


def _checked_name(name: str) -> PurePosixPath:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ArchiveError("The archive holds a file name that is not UTF-8; rename it.") from None
    shown = name[:_DIGITS]
    if any(ord(character) < 32 or ord(character) == 127 for character in name):
        raise ArchiveError(f"The file name {shown!r} holds control characters; rename it.")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ArchiveError(f"{shown!r} leads out of the archive's folder; use relative paths.")
    if len(path.parts) > _MAX_DEPTH or len(name) > _MAX_PATH:
        raise ArchiveError(f"The path {shown!r}... is too long or too deep.")
    if any(len(part.encode()) > 255 for part in path.parts):
        raise ArchiveError(f"The file name {shown!r}... is longer than 255 bytes.")
    return path


def size_text(count: int) -> str:
    for unit, factor in (("GiB", contract.GIB), ("MiB", contract.MIB), ("KiB", 1024)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} bytes"
