"""A multipart upload: parts in a folder, joined when the client says which. Blocking file work."""

from __future__ import annotations

import hashlib
import re
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

from kingpost.api.s3.errors import invalid, no_such_upload
from kingpost.api.s3.receive import Received

MAX_PARTS: Final = 10_000
_UPLOAD_ID = re.compile(r"[0-9a-f]{32}")
_PREFIX: Final = "parts-"


@dataclass(frozen=True)
class Part:
    number: int
    md5: str


class Parts:
    """The parts of one multipart upload, as files `<number>.<md5>` in their folder."""

    def __init__(self, folder: Path, upload_id: str) -> None:
        """`folder` is the upload's. Raises S3Error when no such upload has begun in it."""
        self.upload_id = upload_id
        self._folder = folder / f"{_PREFIX}{upload_id}"
        if not _UPLOAD_ID.fullmatch(upload_id) or not self._folder.is_dir():
            raise no_such_upload()

    @classmethod
    def begin(cls, folder: Path) -> Parts:
        """A new multipart upload; one that was begun before under these credentials ends."""
        for old in folder.glob(f"{_PREFIX}*"):
            shutil.rmtree(old, ignore_errors=True)
        upload_id = secrets.token_hex(16)
        (folder / f"{_PREFIX}{upload_id}").mkdir(mode=0o700)
        return cls(folder, upload_id)

    def new_file(self) -> Path:
        """Where to receive a part."""
        return self._folder / f"{secrets.token_hex(8)}.tmp"

    def size_bytes(self) -> int:
        return sum(file.stat().st_size for file in self._folder.iterdir())

    def keep(self, number: int, received: Received) -> None:
        """Take what was received as this part, instead of an earlier one."""
        name = f"{number:05d}.{received.md5}"
        received.path.replace(self._folder / name)
        for other in self._folder.glob(f"{number:05d}.*"):
            if other.name != name:
                other.unlink(missing_ok=True)

    def join(self, listed: Sequence[Part]) -> tuple[Path, str]:
        """The whole object and its ETag. Each part is freed once it is copied."""
        files = [self._folder / f"{part.number:05d}.{part.md5}" for part in listed]
        for part, file in zip(listed, files, strict=True):
            if not file.is_file():
                raise invalid(f"Part {part.number} was not uploaded with this ETag.", "InvalidPart")
        whole = files[0]
        with whole.open("ab") as target:
            for file in files[1:]:
                with file.open("rb") as source:
                    shutil.copyfileobj(source, target, 1024 * 1024)
                file.unlink()
        sums = b"".join(bytes.fromhex(part.md5) for part in listed)
        digest = hashlib.md5(sums, usedforsecurity=False).hexdigest()
        return whole, f"{digest}-{len(listed)}"

    def drop(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def parse_part_number(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
    if not 1 <= number <= MAX_PARTS:
        raise invalid(f"partNumber must be 1 to {MAX_PARTS}.", "InvalidArgument")
    return number


def parse_part_list(body: bytes) -> list[Part]:
    """The parts that a CompleteMultipartUpload lists. Raises S3Error."""
    problem = invalid(
        "The list of parts can't be read; expected CompleteMultipartUpload XML.", "MalformedXML"
    )
    if b"<!" in body:
        raise problem
    try:
        root = ET.fromstring(body)  # noqa: S314 (no doctype gets here)
    except ET.ParseError as error:
        raise problem from error
    parts = []
    for node in root.findall("{*}Part"):
        etag = (node.findtext("{*}ETag") or "").strip().strip('"')
        if not re.fullmatch(r"[0-9a-f]{32}", etag):
            raise invalid("An ETag in the list of parts is none of this upload.", "InvalidPart")
        parts.append(Part(parse_part_number((node.findtext("{*}PartNumber") or "").strip()), etag))
    numbers = [part.number for part in parts]
    if not parts or numbers != sorted(set(numbers)):
        raise invalid("Parts must be listed once each, in ascending order.", "InvalidPartOrder")
    return parts
