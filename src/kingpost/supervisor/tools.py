"""What commands of the terminal use of this machine: the pinned truss CLI, mapped images."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from kingpost.errors import InvalidInputError
from kingpost.settings import DataFolder

if TYPE_CHECKING:
    from kingpost.build.images import ImageTable


def truss_command(on_install: Callable[[], None]) -> list[str]:
    """The truss CLI, installed on first use; `KINGPOST_TRUSS` names another one.

    `on_install` is called before an installation, which takes a while.
    """
    named = os.environ.get("KINGPOST_TRUSS")
    if named:
        if not os.access(named, os.X_OK) or Path(named).is_dir():
            raise InvalidInputError(f"KINGPOST_TRUSS names {named}, which is no program.")
        return [named]
    from kingpost.build import truss_env

    if not truss_env.expected().truss.exists():
        on_install()
    return [str(truss_env.ensure().truss)]


def image_table(data: DataFolder) -> ImageTable:
    """Which folders stand for which images, for the platform of this data folder."""
    from kingpost.build.images import ImageTable

    return ImageTable(data)
