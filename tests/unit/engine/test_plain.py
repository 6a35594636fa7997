from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kingpost.engine import plain
from kingpost.engine.base import Bind, Overlay

PATHS = plain.Paths(
    plain.pairs_of(
        [Bind("/d/bundle", "/app"), Bind("/d/weights", "/app/data")],
        [Overlay(("/d/env",), "/d/up", "/d/work", "/env")],
        {"/secrets": "/s/r1"},
    )
)


@pytest.mark.parametrize(
    ("inside", "host"),
    [
        ("/app", "/d/bundle"),
        ("/app/server.py", "/d/bundle/server.py"),
        ("/app/data/x", "/d/weights/x"),
        ("/app/database", "/d/bundle/database"),
        ("/application", "/application"),
        ("/srv/app/x", "/srv/app/x"),
        ("PYTHONPATH=/app:/env/lib", "PYTHONPATH=/d/bundle:/d/up/lib"),
        ("cd /app && exec '/env/bin/python'", "cd /d/bundle && exec '/d/up/bin/python'"),
        ("--dir=/secrets", "--dir=/s/r1"),
    ],
)
def test_paths_of_the_inside_are_told_as_the_hosts(inside: str, host: str) -> None:
    assert PATHS.host(inside) == host


@given(st.text())
def test_without_targets_nothing_changes(text: str) -> None:
    assert plain.Paths([]).host(text) == text


def test_the_chosen_port_is_told_where_the_asked_one_stood() -> None:
    env = {"PORT": "8080", "OTHER": "8080", "URL": "http://127.0.0.1:{port}/"}
    told = plain.plain_environment(env, PATHS, port=4711, asked=8080, secrets={"t": "v"})
    assert told == {
        "PORT": "4711",
        "INFERENCE_SERVER_PORT": "4711",
        "OTHER": "8080",
        "URL": "http://127.0.0.1:4711/",
        "TRUSS_SECRET_t": "v",
    }


def test_a_port_of_the_users_own_choice_stays() -> None:
    told = plain.plain_environment({"PORT": "9"}, PATHS, port=4711, asked=8080, secrets={})
    assert told["PORT"] == "9"


def test_an_overlay_is_copied_once_topmost_first(tmp_path: Path) -> None:
    top, low = tmp_path / "top", tmp_path / "low"
    for folder, text in ((top, "top"), (low, "low")):
        folder.mkdir()
        (folder / "both").write_text(text)
    (low / "only").write_text("low")
    upper, work = tmp_path / "upper", tmp_path / "work"
    overlay = Overlay((str(top), str(low)), str(upper), str(work), "/env")
    plain.fill(overlay)
    assert (upper / "both").read_text() == "top"
    (upper / "both").write_text("changed")
    (upper / "only").unlink()
    plain.fill(overlay)
    assert (upper / "both").read_text() == "changed"
    assert not (upper / "only").exists()
    assert (top / "both").read_text() == "top"
