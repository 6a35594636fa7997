from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kingpost.engine import sandbox
from kingpost.engine.base import Bind

PLACE = sandbox.Place(
    name="r1",
    etc=Path("/d/etc"),
    launch=Path("/d/launch"),
    home=Path("/d/home"),
    tmp=Path("/d/tmp"),
    links={"bin": "usr/bin", "lib": None},
    secrets=Path("/s"),
    dynamic=Path("/d/dynamic"),
)
NAMES = st.from_regex(r"[A-Za-z_.][A-Za-z0-9_.-]{0,20}", fullmatch=True)
VALUES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)


def sources(words: list[str], flag: str) -> dict[str, str]:
    return {words[at + 2]: words[at + 1] for at, word in enumerate(words) if word.startswith(flag)}


def test_nothing_of_the_host_is_shown_whole() -> None:
    words = sandbox.options(PLACE, [])
    shown = {**sources(words, "--ro-bind"), **sources(words, "--bind"), **sources(words, "--dev-b")}
    assert not {"/", "/etc", "/root", "/home", "/var", "/run", "/dev", "/proc", "/sys"} & set(
        shown.values()
    )
    assert sources(words, "--bind") == {"/tmp": "/d/tmp", "/home/app": "/d/home"}
    assert sources(words, "--ro-bind")["/secrets"] == "/s"
    assert sources(words, "--symlink")["/bin"] == "usr/bin"
    assert sources(words, "--ro-bind")["/lib"] == "/lib"


def test_capabilities_are_dropped_but_for_changing_the_user() -> None:
    words = sandbox.options(PLACE, [])
    kept = [words[at + 1] for at, word in enumerate(words) if word == "--cap-add"]
    assert words[words.index("--cap-drop") + 1] == "ALL"
    assert kept == ["CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"]
    assert "--bounding-set=-all" in sandbox.unprivileged("setpriv", 5)


@given(st.lists(st.sampled_from(["/a", "/a/b", "/a/b/c", "/z", "/z/y"]), unique=True))
def test_a_bind_inside_another_comes_after_it(targets: list[str]) -> None:
    words = sandbox.options(PLACE, [Bind("/x", target) for target in targets])
    order = [words[at + 2] for at, word in enumerate(words) if word == "--ro-bind"]
    order = [target for target in order if target in targets]
    assert sorted(order) == sorted(targets)
    for at, target in enumerate(order):
        assert not any(target.startswith(later + "/") for later in order[at + 1 :])


def test_gpus_bring_their_devices() -> None:
    words = sandbox.options(PLACE, [], gpus=("1", "3"))
    devices = sources(words, "--dev-bind-try")
    assert {"/dev/nvidia1", "/dev/nvidia3", "/dev/nvidiactl"} <= set(devices)
    assert "/dev/nvidia0" not in devices
    assert not sources(sandbox.options(PLACE, []), "--dev-bind-try")
    environment = sandbox.environment({}, gpus=("1", "3"))
    assert environment["CUDA_VISIBLE_DEVICES"] == "1,3"
    assert sandbox.environment({"CUDA_VISIBLE_DEVICES": "0"})["CUDA_VISIBLE_DEVICES"] == ""


@given(st.dictionaries(NAMES, VALUES, max_size=6))
@settings(max_examples=25, deadline=None)
def test_variables_reach_the_application_as_they_are(env: dict[str, str]) -> None:
    env = {f"T_{name}": value for name, value in env.items()}
    script = sandbox.launch_script(["/usr/bin/env", "-0"], env, "/")
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, check=True)
    found = dict(part.split(b"=", 1) for part in done.stdout.split(b"\0") if b"=" in part)
    for name, value in env.items():
        assert found[name.encode()] == value.encode()


@given(st.lists(VALUES, max_size=5))
@settings(max_examples=25, deadline=None)
def test_arguments_reach_the_application_as_they_are(words: list[str]) -> None:
    argv = ["/bin/sh", "-c", 'printf "%s\\0" "$@"', "sh", "first", *words]
    script = sandbox.launch_script(argv, {}, "/")
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, check=True)
    assert done.stdout.split(b"\0")[:-1] == [word.encode() for word in ["first", *words]]


def test_the_applications_directory_may_have_an_odd_name(tmp_path: Path) -> None:
    folder = tmp_path / "-it's a $folder"
    folder.mkdir()
    script = sandbox.launch_script(["/bin/pwd"], {}, str(folder))
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(folder)


@pytest.mark.parametrize("target", ["relative", "/a/../etc", "/", "/proc", "/etc", "/usr/"])
def test_targets_that_can_not_be(target: str) -> None:
    assert sandbox.problem_of_bind(target)


@pytest.mark.parametrize(
    "target", ["/app", "/etc/b10_dynamic_config", "/usr/local/thing", "/tmp/x"]
)
def test_targets_that_can_be(target: str) -> None:
    assert sandbox.problem_of_bind(target) is None
