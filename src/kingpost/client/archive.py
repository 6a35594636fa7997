"""Reads a Truss folder and packs it: one plain tar, the same bytes for the same files."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final

from kingpost.client import ignore
from kingpost.errors import InvalidInputError

CONFIG_FILE: Final = "config.yaml"
_MTIME: Final = 315_532_800  # 1980: older than any build, so that time changes no bytes
_CHUNK_BYTES: Final = 1024 * 1024

OnBytes = Callable[[int], None]
"""Takes the number of bytes that were added since the last call."""


@dataclass(frozen=True)
class TrussFolder:
    """A Truss to push. `config_text` is the archive's config.yaml, `config` the same parsed."""

    root: Path
    config: dict[str, Any]
    config_text: str
    external: tuple[Path, ...] = ()

    @property
    def model_name(self) -> str | None:
        name = self.config.get("model_name")
        return name if isinstance(name, str) and name.strip() else None


@dataclass(frozen=True)
class Packed:
    sha256: str
    size_bytes: int
    files: int
    skipped: tuple[str, ...] = field(default=())
    """Relative paths that could not go along: links to folders, broken links, devices."""


def read_truss(folder: Path, config_file: Path | None = None) -> TrussFolder:
    """Raises InvalidInputError for what is no Truss, naming the file and line at fault."""
    path = config_file or folder / CONFIG_FILE
    if not folder.is_dir():
        raise InvalidInputError(
            f"{folder} is not a folder. Expected a Truss: a folder with a {CONFIG_FILE}."
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError):
        raise InvalidInputError(
            f"{path} does not exist, so {folder} is no Truss. To make one: "
            f"kingpost truss init {folder}"
        ) from None
    except UnicodeDecodeError:
        raise InvalidInputError(f"{path} is not UTF-8 text.") from None
    config = _parse(text, path)
    external = _external_folders(folder, config.get("external_package_dirs"), path)
    if external:
        import yaml

        config = {**config, "external_package_dirs": []}
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    return TrussFolder(folder, config, text, external)


def pack(truss: TrussFolder, out: BinaryIO, on_bytes: OnBytes | None = None) -> Packed:
    """Write the tar to `out`. External packages go into the bundled packages folder."""
    members, skipped = _members(truss)
    hashing = _Hashing(out)
    with tarfile.open(fileobj=hashing, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for name, source in sorted(members.items()):
            _add(tar, name, source, on_bytes or _ignore)
    return Packed(hashing.digest.hexdigest(), hashing.size, len(members), tuple(sorted(skipped)))


def total_bytes(truss: TrussFolder) -> int:
    """Bytes of all files that `pack` will add."""
    sources = _members(truss)[0].values()
    return sum(len(s) if isinstance(s, bytes) else s.stat().st_size for s in sources)


def _parse(text: str, path: Path) -> dict[str, Any]:
    import yaml

    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "it can't be read"
        raise InvalidInputError(f"{path}{where} is no valid YAML: {problem}.") from None
    if config is None:
        return {}
    if not isinstance(config, dict) or not all(isinstance(key, str) for key in config):
        raise InvalidInputError(f"{path}: expected `name: value` pairs at the top.")
    return config


def _external_folders(folder: Path, value: Any, path: Path) -> tuple[Path, ...]:
    if value is None or value == []:
        return ()
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise InvalidInputError(f"{path}: external_package_dirs must be a list of folders.")
    folders = tuple(folder / v for v in value)
    for external, named in zip(folders, value, strict=True):
        if not external.is_dir():
            raise InvalidInputError(f"{path}: external package folder {named} does not exist.")
    return folders


def _members(truss: TrussFolder) -> tuple[dict[str, Path | bytes], set[str]]:
    kept = ignore.Filter(ignore.patterns_of(truss.root))
    members: dict[str, Path | bytes] = {}
    skipped: set[str] = set()
    _gather(truss.root, PurePosixPath(), kept, kept, members, skipped)
    if truss.external:
        packages = truss.config.get("bundled_packages_dir")
        target = PurePosixPath(packages if isinstance(packages, str) else "packages")
        default = ignore.Filter(ignore.DEFAULT_PATTERNS)
        for folder in truss.external:
            _gather(folder, target, default, kept, members, skipped)
    members[CONFIG_FILE] = truss.config_text.encode()
    return members, skipped


def _gather(
    folder: Path,
    target: PurePosixPath,
    inside: ignore.Filter,
    outside: ignore.Filter,
    members: dict[str, Path | bytes],
    skipped: set[str],
) -> None:
    """Add a folder's files below `target`: `inside` judges them as found, `outside` as placed."""
    for relative, path in ignore.walk(folder, inside):
        name = target / relative
        if not outside.keeps_file(name):
            continue
        if path.is_file():
            members[name.as_posix()] = path
        else:
            skipped.add(name.as_posix())


def _add(tar: tarfile.TarFile, name: str, source: Path | bytes, on_bytes: OnBytes) -> None:
    info = tarfile.TarInfo(name)
    info.mtime = _MTIME
    info.mode = 0o644
    if isinstance(source, bytes):
        info.size = len(source)
        tar.addfile(info, io.BytesIO(source))
        on_bytes(len(source))
        return
    with source.open("rb") as file:
        status = source.stat()
        info.size = status.st_size
        info.mode = 0o755 if status.st_mode & 0o100 else 0o644
        try:
            tar.addfile(info, _Counting(file, on_bytes))
        except OSError as error:
            if error.errno is not None:
                raise
            raise InvalidInputError(f"{source} changed while it was packed. Push again.") from None


class _Counting(io.RawIOBase):
    def __init__(self, file: BinaryIO, on_bytes: OnBytes) -> None:
        self._file = file
        self._on_bytes = on_bytes

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(size)
        self._on_bytes(len(data))
        return data


class _Hashing(io.RawIOBase):
    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self.digest = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._out.write(data)
        self.digest.update(data)
        self.size += len(data)
        return len(data)


def _ignore(_: int) -> None:
    return None
