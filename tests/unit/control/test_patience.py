from __future__ import annotations

import pytest

from kingpost.control import patience
from kingpost.control.patience import until_stored
from kingpost.errors import ConflictError, StorageFullError


async def test_a_write_is_repeated_until_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "RETRY_S", 0.0)
    calls = []

    def write() -> str:
        calls.append(1)
        if len(calls) < 3:
            raise StorageFullError("full")
        return "written"

    assert await until_stored(write) == "written"
    assert len(calls) == 3


async def test_other_errors_pass() -> None:
    def write() -> None:
        raise ConflictError("no")

    with pytest.raises(ConflictError):
        await until_stored(write)
