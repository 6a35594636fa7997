from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kingpost.build.archive import unpack
from kingpost.errors import StorageFullError
from kingpost.settings import Limits, SandboxMode
from tests.support.archives import file, tar_bytes
from tests.support.building import config, model, workshop


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def archive(path: Path, *sizes: int) -> Path:
    members = [file(f"data/{number}", bytes(size)) for number, size in enumerate(sizes)]
    path.write_bytes(tar_bytes(file("config.yaml", config().encode()), *members))
    return path


def test_a_large_file_is_refused_before_it_fills_the_disk(tmp_path: Path, small_disk: Path) -> None:
    with pytest.raises(StorageFullError, match="Free space"):
        unpack(archive(tmp_path / "a.tar", 5_000_000), small_disk / "out", Limits())
    assert list(small_disk.iterdir()) == []


async def test_a_full_disk_during_a_build_is_said_and_leaves_nothing(
    tmp_path: Path, small_disk: Path
) -> None:
    async with workshop(small_disk, SandboxMode.OFF) as shop:
        with pytest.raises(StorageFullError, match="full"):
            await shop.build_archive(archive(tmp_path / "a.tar", *[900_000] * 4))
        assert list((shop.data.cache / "builds").iterdir()) == []
        assert shop.builder.stores[0].all() == []


async def test_a_command_that_finds_no_space_says_what_to_do(tmp_path: Path) -> None:
    files = {
        "config.yaml": config(build_commands=["head -c 9000 /dev/zero > /dev/full"]),
        "model/model.py": model("1"),
    }
    async with workshop(tmp_path / "data") as shop:
        with pytest.raises(StorageFullError, match=r"command 1 of 1 .*Free space"):
            await shop.build(files)
