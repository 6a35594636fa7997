from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kingpost.engine.identity import RANGE, SMALL_RANGE, Users, choose, own, span_of
from kingpost.errors import EngineError

FEW = (60_000, 40)


@given(st.lists(st.text(max_size=8), unique=True, max_size=FEW[1]), st.text(max_size=4))
def test_no_two_users_share_a_uid_and_each_keeps_its_own(names: list[str], salt: str) -> None:
    table: dict[str, int] = {}
    for name in names:
        table[name] = choose(name, salt, table, FEW)
    assert len(set(table.values())) == len(names)
    assert all(FEW[0] <= uid < FEW[0] + FEW[1] for uid in table.values())
    assert all(choose(name, salt, table, FEW) == uid for name, uid in table.items())


def test_a_full_range_says_so() -> None:
    with pytest.raises(EngineError, match="2 user ids"):
        choose("c", "", {"a": 5, "b": 6}, (5, 2))


def test_the_range_is_one_that_the_machine_maps() -> None:
    assert span_of("         0          0 4294967295\n") == RANGE
    assert span_of("0 100000 65536\n") == SMALL_RANGE


def test_the_table_lasts(tmp_path: Path) -> None:
    first = Users(tmp_path / "users.json", "x")
    uids = {name: first.uid(name) for name in ("a", "b")}
    second = Users(tmp_path / "users.json", "other")
    assert {name: second.uid(name) for name in ("a", "b")} == uids
    assert first.uid("c") == second.uid("c")


def test_giving_a_folder_away_follows_no_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.touch()
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "file").touch()
    (folder / "link").symlink_to(outside)
    own(folder, 60_123)
    for path in (folder, folder / "deep", folder / "deep" / "file", folder / "link"):
        assert path.lstat().st_uid == 60_123
    assert outside.stat().st_uid != 60_123
