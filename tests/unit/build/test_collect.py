from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from kingpost.build.base import Runnable
from kingpost.build.collect import (
    GRACE_S,
    Kept,
    Quota,
    bytes_below,
    collect,
    hide,
    oversized,
    paths_in_use,
    quotas,
    survey,
)
from kingpost.build.store import Store
from kingpost.engine.base import Bind, Overlay
from kingpost.settings import DataFolder, Limits

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
    sizes: dict[Path, int] = {}
    stores = [store, Store(tmp_path / "none")]
    found = {entry.path.name: entry for entry in survey(stores, sizes)}
    assert set(found) == {"k", "half.partial"}
    assert found["k"].used_at == NOW
    assert found["k"].bytes >= 100_000
    assert sizes == {final: found["k"].bytes}
    hidden = hide(final)
    assert store.find("k") is None
    assert not final.exists()
    assert bytes_below(hidden) >= 100_000
    assert {entry.path.name for entry in survey(stores, sizes)} == {"half.partial"}
    assert sizes == {}


def test_each_kind_has_a_quota_of_the_limits(tmp_path: Path) -> None:
    rules = quotas(Limits(max_layers_bytes=7, unused_cache_s=5.0))
    assert rules["layers"] == Quota(7, 5.0)
    data = DataFolder(tmp_path)
    folders = (data.environments, data.bundles, data.layers, data.weights)
    assert set(rules) == {folder.name for folder in folders}


@given(sizes=st.dictionaries(st.integers(0, 50), st.integers(0, 100)), most=st.integers(0, 1000))
def test_the_largest_go_and_no_more_than_needed(sizes: dict[int, int], most: int) -> None:
    folders = {Path(f"/d/{name}"): size for name, size in sizes.items()}
    gone = oversized(folders.items(), most)
    left = [size for path, size in folders.items() if path not in gone]
    assert sum(left) <= most
    assert all(folders[path] >= max(left, default=0) for path in gone)
    if gone:
        assert sum(left) + folders[gone[-1]] > most


@given(entries=ENTRIES, grace_s=st.floats(0, 10 * GRACE_S))
def test_what_was_used_within_the_grace_time_stays(entries: list[Kept], grace_s: float) -> None:
    gone = collect(entries, [], NOW, {kind: Quota(0) for kind in KINDS}, grace_s)
    assert {e.path for e in gone} == {
        e.path for e in entries if e.bytes and NOW - e.used_at >= grace_s
    } | {e.path for e in gone if not e.bytes}
    assert all(NOW - e.used_at >= grace_s for e in gone)
