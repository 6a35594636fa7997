"""`kingpost images`: local to a data folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kingpost.build.images import ImageTable
from kingpost.settings import DataFolder


def test_map_list_and_unmap(kingpost, home: Path) -> None:
    prefix = home / "env"
    (prefix / "bin").mkdir(parents=True)
    assert "No images are mapped" in kingpost("images").out
    ran = kingpost("images", "map", "example/server:v1", str(prefix))
    assert ran.exit_code == 0
    assert str(prefix) in ran.out
    assert ImageTable(DataFolder(home / "data/kingpost")).find("example/server:v1") == prefix
    listed = json.loads(kingpost("images", "list", "--json").out)
    assert listed == [{"image": "example/server:v1", "prefix": str(prefix)}]
    assert "example/server:v1" in kingpost("images").out
    ran = kingpost("images", "unmap", "example/server:v1", "--json")
    assert json.loads(ran.out) == {"image": "example/server:v1"}
    assert json.loads(kingpost("images", "--json").out) == []


def test_another_data_folder(kingpost, home: Path) -> None:
    (home / "env/bin").mkdir(parents=True)
    data = str(home / "elsewhere")
    said = kingpost("images", "map", "a/b", str(home / "env"), "--data-dir", data, "--json")
    assert json.loads(said.out) == {"image": "a/b", "prefix": str(home / "env")}
    assert json.loads(kingpost("images", "--json").out) == []
    assert len(json.loads(kingpost("images", "list", "--json", "--data-dir", data).out)) == 1
    assert (home / "elsewhere").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("prefix", ["relative", "/nowhere/at/all", "/etc/hostname"])
def test_what_is_no_prefix(kingpost, prefix: str) -> None:
    ran = kingpost("images", "map", "a/b", prefix)
    assert ran.exit_code == 1
    assert prefix in ran.err
    assert "bin" in ran.err
    assert json.loads(kingpost("images", "--json").out) == []


def test_what_is_not_mapped(kingpost) -> None:
    ran = kingpost("images", "unmap", "a/b", "--json")
    assert ran.exit_code == 1
    assert "kingpost images list" in json.loads(ran.err)["message"]
