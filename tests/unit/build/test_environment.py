from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kingpost.build.environment import Recipe, server_requirements
from kingpost.build.interpreters import Interpreter
from kingpost.build.store import Store, key_of

PYTHON = Interpreter((3, 11, 7), "cpython", Path("/p/bin/python3.11"), Path("/p"))
BASE = Recipe(PYTHON, "team", "six\n", "six<2\n")


@pytest.mark.parametrize(
    "other",
    [
        Recipe(PYTHON, "team", "six==1.16\n", "six<2\n"),
        Recipe(PYTHON, "team", "six\n", "\n"),
        Recipe(PYTHON, "another", "six\n", "six<2\n"),
        Recipe(PYTHON, "team", "six\n", "six<2\n", "pip", (("user_requirements.txt", "six"),)),
        Recipe(PYTHON, "team", "six\n", "six<2\n", image=Path("/opt/image")),
        Recipe(
            Interpreter((3, 11, 8), "cpython", PYTHON.executable, PYTHON.prefix),
            "team",
            "six\n",
            "six<2\n",
        ),
    ],
)
def test_whatever_defines_an_environment_is_in_its_key(other: Recipe) -> None:
    assert other.key != BASE.key
    assert Recipe(PYTHON, "team", "six\n", "six<2\n").key == BASE.key


def test_numpy_where_the_old_one_has_no_wheels() -> None:
    text, notes = server_requirements("numpy>=1.23.5,<2.0 # why\nnumpy==1.26.4\n", (3, 13))
    assert text == "numpy>=1.23.5,<3 # why\nnumpy==1.26.4\n"
    assert len(notes) == 1


@given(parts=st.lists(st.text(), max_size=3), others=st.lists(st.text(), max_size=3))
def test_keys_differ_when_content_does(parts: list[str], others: list[str]) -> None:
    assert (key_of(*parts) == key_of(*others)) == (parts == others)


def test_an_entry_is_seen_only_once_published(tmp_path: Path) -> None:
    store = Store(tmp_path / "environments")
    work, final = store.begin("k")
    (work / "file").touch()
    assert store.find("k") is None
    store.publish(work, final, {"packages": 1})
    entry = store.find("k")
    assert entry is not None
    assert entry.manifest["packages"] == 1
    again, second = store.begin("k", again=True)
    store.publish(again, second, {"packages": 2})
    newest = store.find("k")
    assert newest is not None
    assert newest.manifest["packages"] == 2
    assert (entry.root / "file").exists()
    store.begin("k", again=True)
    store.remove_unfinished()
    assert len(list((tmp_path / "environments").iterdir())) == 2
