"""Writes that must not get lost: what has happened already is written once the disk has room."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TypeVar

from kingpost.errors import StorageFullError

T = TypeVar("T")
log = logging.getLogger(__name__)

RETRY_S = 1.0


async def until_stored(write: Callable[[], T]) -> T:
    """Call `write`, again and again while it raises `StorageFullError`; its answer."""
    said = False
    while True:
        try:
            return write()
        except StorageFullError as error:
            if not said:
                log.warning("waiting for room on the disk", extra={"error": error.message})
                said = True
        await asyncio.sleep(RETRY_S)
