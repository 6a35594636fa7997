from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kingpost import engine

sys.path.append(str(Path(engine.__file__).parent))
import shim


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_reason_is_a_json_string(text: str) -> None:
    assert msgspec.json.decode(shim._quote(text)) == text


def test_no_reason_is_null() -> None:
    assert shim._quote("") == "null"


@pytest.mark.parametrize(
    ("status", "sandboxed", "meaning"),
    [
        (0, True, (0, None)),
        (3 << 8, True, (3, None)),
        (137 << 8, True, (None, 9)),
        (137 << 8, False, (137, None)),
        (255 << 8, True, (255, None)),
        (15, True, (None, 15)),
        (None, True, (127, None)),
    ],
)
def test_how_a_command_ended(
    status: int | None, sandboxed: bool, meaning: tuple[int | None, int | None]
) -> None:
    assert shim._meaning(status, sandboxed=sandboxed) == meaning


def test_a_job_is_read_by_its_keys() -> None:
    job = shim.Job(b"folder\0/f\0arg\0a\0arg\0\0arg\0b=c\0")
    assert job.one(b"folder") == "/f"
    assert job.all(b"arg") == [b"a", b"", b"b=c"]
    assert job.one(b"absent") == ""


def test_descendants_are_found_through_the_tree() -> None:
    child = subprocess.Popen(["/bin/sh", "-c", "sleep 60 & wait"], start_new_session=True)
    try:
        while len(shim._descendants(os.getpid())) < 2:
            os.sched_yield()
        assert child.pid in shim._descendants(os.getpid())
        assert shim._start_time(child.pid) > 0
        assert shim._resident(os.getpid()) > 0
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    assert shim._start_time(child.pid) == 0
