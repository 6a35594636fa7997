"""Makes tar archives for tests, good ones and hostile ones."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path


def tar_bytes(*members: tuple[tarfile.TarInfo, bytes | None], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
        for info, content in members:
            tar.addfile(info, io.BytesIO(content) if content is not None else None)
    return buffer.getvalue()


def file(name: str, content: bytes = b"text", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def special(name: str, kind: bytes, **fields: object) -> tuple[tarfile.TarInfo, None]:
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in fields.items():
        setattr(info, key, value)
    return info, None


def write_truss(path: Path, files: Mapping[str, str]) -> Path:
    """An archive as the truss CLI makes it: plain tar, relative names."""
    members = [file(name, text.encode(), mode=0o644) for name, text in files.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_bytes(*members))
    return path
