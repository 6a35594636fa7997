"""`external_data`: files fetched into a Truss's data folder while it is built."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kingpost import contract
from kingpost.build.archive import size_text
from kingpost.build.config import ExternalFile
from kingpost.build.fetch import Expected, Fetcher, Rate
from kingpost.build.progress import Progress
from kingpost.errors import TooLargeError

MAX_BYTES = 64 * contract.GIB


async def fetch(
    files: Sequence[ExternalFile], data_dir: Path, fetcher: Fetcher, progress: Progress
) -> int:
    """Fetch each and return their bytes. A file that is there already gives way, as on Baseten."""
    total = 0
    for file in files:
        told = await fetcher.head(file.url)
        length = told.get("content-length", "")
        plain = length.isdecimal() and "content-encoding" not in told
        size = int(length) if plain else None
        if size is not None and size > MAX_BYTES:
            raise TooLargeError(
                f"external_data {file.path}: {size_text(size)} is more than "
                f"{size_text(MAX_BYTES)}; load it through `weights`."
            )
        rate = Rate(lambda text, path=file.path: progress.line(f"  {path}: {text}"), size)  # type: ignore[misc]
        target = data_dir / file.path
        target.unlink(missing_ok=True)
        await fetcher.download(file.url, target, expected=Expected(size), on_bytes=rate.add)
        total += target.stat().st_size
        progress.line(f"  {file.path}: {size_text(target.stat().st_size)} fetched")
    return total
