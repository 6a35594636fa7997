from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kingpost.build.interpreters import Interpreter, choose, find, probe
from kingpost.errors import BuildFailedError


def python(*version: int, implementation: str = "cpython") -> Interpreter:
    major, minor, patch = version
    path = Path(f"/opt/python{major}.{minor}.{patch}")
    return Interpreter((major, minor, patch), implementation, path / "bin/python", path)


MACHINE = [python(3, 9, 18), python(3, 11, 2), python(3, 11, 7), python(3, 12, 1)]


def test_the_newest_of_the_wanted_version() -> None:
    choice = choose(MACHINE, (3, 11), explicit=True)
    assert choice.interpreter.version == (3, 11, 7)
    assert choice.warning is None


def test_a_default_falls_back_to_the_nearest_with_a_warning() -> None:
    choice = choose(MACHINE, (3, 13), explicit=False)
    assert choice.interpreter.version == (3, 12, 1)
    assert choice.warning is not None
    assert "3.13" in choice.warning
    assert choose([python(3, 14, 0)], (3, 13), explicit=False).interpreter.version == (3, 14, 0)


def test_an_explicit_one_that_is_missing_fails_and_names_where_it_was_looked_for() -> None:
    with pytest.raises(BuildFailedError) as caught:
        choose([*MACHINE, python(3, 13, 0, implementation="pypy")], (3, 13), explicit=True)
    for word in ("3.13", "pyenv", "PATH", "3.9, 3.11, 3.12"):
        assert word in caught.value.message


def test_no_interpreter_at_all_fails() -> None:
    with pytest.raises(BuildFailedError, match="found: none"):
        choose([], (3, 13), explicit=False)


VERSIONS = st.builds(python, st.just(3), st.integers(9, 15), st.integers(0, 20))


@given(found=st.lists(VERSIONS, min_size=1), minor=st.integers(9, 15))
def test_the_choice_is_one_of_those_and_none_is_nearer(
    found: list[Interpreter], minor: int
) -> None:
    chosen = choose(found, (3, minor), explicit=False).interpreter
    assert chosen in found
    older = [one for one in found if one.version[1] <= minor]
    if older:
        assert chosen.version[1] == max(one.version[1] for one in older)


def test_this_interpreter_is_found() -> None:
    me = probe(Path(sys.executable))
    assert me is not None
    assert me.version == sys.version_info[:3]
    assert me.version in {one.version for one in find()}


def test_what_is_no_python_is_none(tmp_path: Path) -> None:
    other = tmp_path / "python3"
    other.write_text("#!/bin/sh\necho hello\n")
    other.chmod(0o755)
    assert probe(other) is None
    assert probe(tmp_path / "missing") is None
