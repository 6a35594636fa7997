"""Nothing that is needed goes, what is not needed does, and no more than that."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from kingpost.contract import PromotionStatus
from kingpost.control.domain import Promotion, Upload
from kingpost.control.environments import UNDER_WAY
from kingpost.control.hygiene import (
    IDLE_UPLOAD_S,
    MAX_LOG_SOURCES,
    LogSource,
    Segment,
    finished_uploads,
    old_promotions,
    orphans,
    stale_logs,
    unused_archives,
)
from kingpost.control.logfiles import BUILD

NOW = datetime(2030, 1, 1, tzinfo=UTC)
NOW_S = NOW.timestamp()
NAMES = st.sampled_from([BUILD, *"abcdef"])
SEGMENTS = st.lists(
    st.builds(
        Segment,
        st.integers(0, 9).map(lambda n: f"{n}.log"),
        st.integers(0, 100),
        st.integers(0, 1000).map(lambda age: NOW_S - age),
    ),
    max_size=6,
    unique_by=lambda segment: segment.name,
).map(tuple)
SOURCES = st.lists(
    st.builds(LogSource, NAMES, st.booleans(), SEGMENTS), unique_by=lambda source: source.name
)


def upload(key: str, expires_at: datetime) -> Upload:
    return Upload(
        key=key,
        bucket="b",
        access_key_id=key,
        secret_access_key="",
        session_token="",
        team_id="t",
        created_at=NOW,
        expires_at=expires_at,
    )


@given(SOURCES, st.floats(0, 1000), st.integers(0, 1000))
def test_logs_go_when_too_old_or_too_many(
    sources: list[LogSource], kept_s: float, max_bytes: int
) -> None:
    plan = stale_logs(sources, NOW_S, kept_s=kept_s, max_bytes=max_bytes)
    gone = set(plan.segments)
    assert len(gone) == len(plan.segments)
    left = []
    for source in sources:
        newest = max(source.segments, key=lambda s: (s.changed_at, s.name), default=None)
        for segment in source.segments:
            if (source.name, segment.name) in gone:
                assert not (source.alive and segment is newest)
            else:
                left.append(segment)
                open_ = source.alive and segment is newest
                assert open_ or NOW_S - segment.changed_at <= kept_s
    closed = [
        segment
        for source in sources
        for segment in source.segments
        if (source.name, segment.name) not in gone
        and not (source.alive and segment is max(source.segments, key=_order))
    ]
    assert not closed or sum(segment.bytes for segment in left) <= max_bytes
    for folder in plan.folders:
        source = next(s for s in sources if s.name == folder)
        assert not source.alive
        assert folder != BUILD
        assert all((folder, segment.name) in gone for segment in source.segments)


def _order(segment: Segment) -> tuple[float, str]:
    return segment.changed_at, segment.name


@given(SOURCES)
def test_logs_within_the_bounds_stay(sources: list[LogSource]) -> None:
    plan = stale_logs(sources, NOW_S, kept_s=1001, max_bytes=10**9)
    assert plan.segments == ()
    assert set(plan.folders) <= {s.name for s in sources if not s.segments}


def test_a_replica_that_keeps_crashing_does_not_pile_up_folders() -> None:
    sources = [
        LogSource(f"r{n}", alive=n == 0, segments=(Segment("1.log", 1, NOW_S - 2000 + n),))
        for n in range(MAX_LOG_SOURCES + 3)
    ]
    plan = stale_logs(sources, NOW_S, kept_s=10**6, max_bytes=10**9)
    assert set(plan.folders) == {"r1", "r2"}


@given(st.sets(st.text()), st.sets(st.text()))
def test_orphans_are_what_nothing_refers_to(listed: set[str], known: set[str]) -> None:
    assert set(orphans(listed, known)) == listed - known


@given(
    st.dictionaries(st.integers(0, 9).map(str), st.floats(0, 100)),
    st.sets(st.integers(0, 9).map(str)),
    st.floats(0, 100),
)
def test_archives_in_use_or_fresh_stay(
    changed: dict[str, float], referred: set[str], before: float
) -> None:
    gone = unused_archives(changed, referred, before)
    assert set(gone) == {d for d, at in changed.items() if d not in referred and at < before}


@given(
    st.dictionaries(st.integers(0, 9).map(str), st.integers(-3600, 3600)),
    st.dictionaries(st.integers(0, 9).map(str), st.integers(0, 3600)),
)
def test_uploads_end_when_expired_and_idle(left_s: dict[str, int], idle_s: dict[str, int]) -> None:
    uploads = [upload(key, NOW + timedelta(seconds=left)) for key, left in left_s.items()]
    changed = {key: NOW_S - idle for key, idle in idle_s.items()}
    gone = {u.key for u in finished_uploads(uploads, changed, NOW)}
    for key, left in left_s.items():
        idle = idle_s.get(key, IDLE_UPLOAD_S)
        assert (key in gone) == (left < 0 and idle >= IDLE_UPLOAD_S)


@given(st.lists(st.tuples(st.sampled_from(PromotionStatus), st.integers(0, 100))))
def test_promotions_that_ended_long_ago_go(rows: list[tuple[PromotionStatus, int]]) -> None:
    promotions = [
        Promotion(
            id=str(number),
            model_id="m",
            environment="e",
            deployment_id="d",
            previous_id=None,
            scale_down_previous=True,
            status=status,
            created_at=NOW - timedelta(seconds=age),
        )
        for number, (status, age) in enumerate(rows)
    ]
    gone = old_promotions(promotions, NOW, 50)
    assert gone == [p.id for p, (s, age) in zip(promotions, rows, strict=True) if _old(s, age)]


def _old(status: PromotionStatus, age: int) -> bool:
    return status not in UNDER_WAY and age > 50
