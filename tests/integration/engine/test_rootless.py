"""Starts the suite for a sandbox without root as an ordinary user of this machine."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.outside import Outside, outside_network

USER = 12345
REPOSITORY = Path(__file__).parents[3]
SUITES = ("tests/integration/engine/ordinary.py", "tests/faults/engine", "-k", "not off")


@pytest.fixture
def outside() -> Iterator[Outside]:
    with outside_network() as network:
        yield network


@pytest.fixture
def folder() -> Iterator[Path]:
    """One of that user's, below no private folder."""
    made = Path(tempfile.mkdtemp(prefix="kp-ordinary-", dir="/tmp"))
    os.chown(made, USER, USER)
    yield made
    shutil.rmtree(made)


def running(uid: int) -> list[str]:
    """What that user has running, but for the dead that nobody has reaped."""
    told = subprocess.run(
        ["ps", "-U", str(uid), "-o", "stat=,args="], capture_output=True, text=True, check=False
    )
    return [line for line in told.stdout.splitlines() if not line.startswith("Z")]


def shown_to_all(paths: set[Path]) -> str:
    """A script for a mount namespace: makes these readable though they lie in private folders."""
    private = {parent for path in paths for parent in path.parents if not parent.stat().st_mode & 1}
    tops = [path for path in private if not private & set(path.parents)]
    hidden = sorted(path for path in paths if private & set(path.parents))
    lines = ["set -e", "kept=$(mktemp -d)"]
    for number, path in enumerate(hidden):
        lines += [f"mkdir $kept/{number}", f"mount --bind {shlex.quote(str(path))} $kept/{number}"]
    lines += [f"mount -t tmpfs -o mode=755 tmpfs {shlex.quote(str(top))}" for top in tops]
    for number, path in enumerate(hidden):
        at = shlex.quote(str(path))
        lines += [f"mkdir -p {at}", f"mount --bind $kept/{number} {at}", f"umount $kept/{number}"]
    return "\n".join([*lines, 'rm -r "$kept"', 'exec "$@"', ""])


def test_an_ordinary_user_gets_a_sandbox(folder: Path, outside: Outside) -> None:
    paths = {REPOSITORY, Path(sys.prefix), Path(sys.base_prefix)}
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", shown_to_all(paths), "-"]
    words += ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    words += [sys.executable, "-m", "pytest", *SUITES, "-p", "no:cacheprovider", "-q"]
    words += ["--basetemp", str(folder / "tests")]
    env = {
        "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
        "PYTHONDONTWRITEBYTECODE": "1",
        "CI": "1",
        "HYPOTHESIS_STORAGE_DIRECTORY": str(folder / "hypothesis"),
        "OUTSIDE_ADDRESS": outside.address,
        "OUTSIDE_LINK_LOCAL": outside.link_local,
        "OUTSIDE_PORT": str(outside.port),
    }
    done = subprocess.run(
        words, cwd=REPOSITORY, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]
    assert " passed" in done.stdout
    assert running(USER) == []
