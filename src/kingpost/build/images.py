"""Which installed folder of this machine stands for which container image."""

from __future__ import annotations

import json
from pathlib import Path

from kingpost.errors import InvalidInputError
from kingpost.settings import DataFolder


class ImageTable:
    """Image name to prefix (a folder with `bin`), in one file of the data folder.

    A name without tag stands for each of its tags; the longest match wins.
    """

    def __init__(self, data: DataFolder) -> None:
        self._path = data.root / "images.json"

    def all(self) -> dict[str, str]:
        if not self._path.exists():
            return {}
        try:
            table: dict[str, str] = json.loads(self._path.read_text())
        except ValueError as error:
            raise InvalidInputError(
                "The table of mapped images (images.json in the data folder) can't be read. Remove "
                "it and map the images again with `kingpost images map`."
            ) from error
        return table

    def map(self, image: str, prefix: Path) -> None:
        """Raises `InvalidInputError` for a prefix that has no programs."""
        if not image or image != image.strip():
            raise InvalidInputError("Name the image as in base_image, such as vllm/vllm-openai.")
        if not prefix.is_absolute() or not (prefix / "bin").is_dir():
            raise InvalidInputError(
                f"{prefix} can't stand for an image. Name the absolute path of a folder that has "
                "a `bin` folder in it, such as a Python environment."
            )
        self._write({**self.all(), image: str(prefix)})

    def unmap(self, image: str) -> None:
        """Raises `InvalidInputError` when it was not mapped."""
        table = self.all()
        if image not in table:
            raise InvalidInputError(f"{image} is not mapped. `kingpost images list` shows what is.")
        del table[image]
        self._write(table)

    def find(self, image: str) -> Path | None:
        """The prefix for an image, by its name with digest or tag, else by its name alone."""
        table = self.all()
        for name in names(image):
            if name in table:
                return Path(table[name])
        return None

    def _write(self, table: dict[str, str]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(table, indent=2, sort_keys=True) + "\n")
        fresh.rename(self._path)


def names(image: str) -> list[str]:
    """`a/b:tag@sha256:x` as itself, `a/b:tag` and `a/b`: from the narrowest to the widest."""
    without_digest = image.split("@", 1)[0]
    head, _, last = without_digest.rpartition("/")
    bare = f"{head}/{last.split(':', 1)[0]}" if head else last.split(":", 1)[0]
    return list(dict.fromkeys([image, without_digest, bare]))
