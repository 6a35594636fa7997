from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from kingpost.build.base import Runnable
from kingpost.build.collect import GRACE_S, Kept, Quota, collect, paths_in_use, remove, survey
from kingpost.build.store import Store
from kingpost.engine.base import Bind, Overlay

NOW = 1_000_000_000.0
KINDS = ("environments", "weights")
ENTRIES = st.lists(
    st.builds(
        Kept,
        st.sampled_from(KINDS),
        st.integers(0, 30).map(lambda n: Path(f"/d/e{n}")),
        st.integers(0, 100),
        st.floats(NOW - 10 * GRACE_S, NOW),
    ),
    unique_by=lambda entry: entry.path,
)


@given(
    entries=ENTRIES,
    used=st.sets(st.integers(0, 30)),
    most=st.integers(0, 500),
    unused_s=st.floats(GRACE_S, 20 * GRACE_S),
)
def test_only_what_may_go_goes_and_no_more_than_needed(
    entries: list[Kept], used: set[int], most: int, unused_s: float
) -> None:
    in_use = [Path(f"/d/e{n}/venv") for n in used]
    quotas = {"environments": Quota(most, unused_s)}
    gone = collect(entries, in_use, NOW, quotas)
    for entry in gone:
        assert entry.kind == "environments"
        assert NOW - entry.used_at >= GRACE_S
        assert entry.path / "venv" not in in_use
    left = [entry for entry in entries if entry not in gone and entry.kind == "environments"]
    over = sum(entry.bytes for entry in left) > most
    for entry in left:
        free = entry.path / "venv" not in in_use and NOW - entry.used_at >= GRACE_S
        assert not (free and (over or NOW - entry.used_at > unused_s))
    in_time = [entry for entry in gone if NOW - entry.used_at <= unused_s]
    if in_time:
        last = max(in_time, key=lambda entry: (entry.used_at, str(entry.path)))
        assert sum(entry.bytes for entry in left) + last.bytes > most


def test_what_runnables_use() -> None:
    runnable = Runnable(
        argv=("x",),
        cwd="/",
        port=1,
        binds=(Bind("/d/env/venv", "/d/env/venv"),),
        overlays=(Overlay(("/d/layer/0", "/d/bundle/app"), "u", "w", "/app"),),
    )
    assert paths_in_use([runnable]) == {
        Path("/d/env/venv"),
        Path("/d/layer/0"),
        Path("/d/bundle/app"),
    }


def test_entries_are_found_and_removed(tmp_path: Path) -> None:
    store = Store(tmp_path / "weights")
    work, final = store.begin("k")
    (work / "file").write_bytes(bytes(100_000))
    store.publish(work, final, {})
    os.utime(final / "manifest.json", (NOW, NOW))
    (tmp_path / "weights/half.partial").mkdir()
    store.begin("being made")
    found = {entry.path.name: entry for entry in survey([store, Store(tmp_path / "none")])}
    assert set(found) == {"k", "half.partial"}
    assert found["k"].used_at == NOW
    assert found["k"].bytes >= 100_000
    remove(final)
    assert store.find("k") is None
    assert not final.exists()
