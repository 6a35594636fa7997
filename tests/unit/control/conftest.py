"""A real store in a temporary folder, and the operations over it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kingpost.build.base import Validation
from kingpost.control.events import Events
from kingpost.control.instances import CPU_TYPES
from kingpost.control.platform import Platform, make_platform
from kingpost.control.store import Store
from kingpost.settings import DataFolder, Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data=DataFolder(tmp_path))


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    store = Store(settings.data.database)
    store.migrate()
    yield store
    store.close()


async def _valid(config: dict[str, Any]) -> Validation:
    return Validation(parsed=config)


@pytest.fixture
def platform(settings: Settings, store: Store) -> Platform:
    return make_platform(
        settings, store, events=Events(), validate=_valid, instance_types=CPU_TYPES
    )


@pytest.fixture
def uploaded(platform: Platform) -> str:
    """The s3_key of an archive that was uploaded."""
    upload = platform.uploads.begin(platform.teams.default.id)
    file = platform.uploads.folder(upload) / "whole"
    file.write_bytes(b"an archive")
    done = platform.uploads.finish(upload, file)
    assert done.digest == hashlib.sha256(b"an archive").hexdigest()
    return upload.key
