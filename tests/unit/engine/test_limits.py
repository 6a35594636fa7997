from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from kingpost.engine import limits
from kingpost.engine.base import Resources

V1_OWN = "9:name=systemd:/\n4:memory:/jobs/one\n1:cpu,cpuacct:/\n0::/unified\n"
V1_MOUNTS = (
    "proc /proc proc rw 0 0\n"
    "cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0\n"
    "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n"
    "cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n"
)


def test_own_groups_are_read_by_controller() -> None:
    found = limits.own_paths(V1_OWN)
    assert found["memory"] == "/jobs/one"
    assert found["cpu"] == found["cpuacct"] == "/"
    assert found[""] == "/unified"


def test_mount_points_are_read_by_controller() -> None:
    assert limits.mount_points(V1_MOUNTS) == {
        "memory": Path("/sys/fs/cgroup/memory"),
        "cpu": Path("/sys/fs/cgroup/cpu,cpuacct"),
        "": Path("/sys/fs/cgroup/unified"),
    }


@given(st.integers(0, 10**9))
def test_weights_stay_within_what_the_kernel_takes(millis: int) -> None:
    assert 2 <= limits.shares(millis) <= 262_144
    assert 1 <= limits.weight(millis) <= 10_000


def test_a_core_is_the_kernels_own_unit() -> None:
    assert limits.shares(1000) == 1024
    assert limits.weight(1000) == 100


def test_version_2_writes_its_files(tmp_path: Path) -> None:
    groups = limits.GroupsV2(tmp_path / "kingpost-x")
    group = groups.make("r1", Resources(cpu_millis=2000, memory_bytes=123456))
    folder = tmp_path / "kingpost-x" / "r1"
    assert (folder / "memory.max").read_text() == "123456"
    assert (folder / "cpu.weight").read_text() == "200"
    assert (folder / "pids.max").read_text() == str(limits.MAX_PROCESSES)
    assert group.joins == (folder / "cgroup.procs",)
    assert group.folders == (folder,)
    assert groups.names() == {"r1"}


def test_the_machines_own_groups_hold_what_they_are_told() -> None:
    groups = limits.find_groups("unit-test")
    if groups is None:
        raise AssertionError("the test machine has control groups")
    try:
        group = groups.make("r1", Resources(cpu_millis=500, memory_bytes=64 * 1024**2))
        assert groups.names() == {"r1"}
        assert all(join.exists() for join in group.joins)
        assert "oom_kill 0" in group.oom.read_text()
    finally:
        groups.remove("r1")
    assert groups.names() == set()
    assert not any(folder.parent.exists() for folder in group.folders)
