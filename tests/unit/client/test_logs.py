"""A followed log gives each line once, whatever pages it comes in."""

from hypothesis import given, settings
from hypothesis import strategies as st

from kingpost.client.logs import Follower, Line

MS = 1_000_000
times_ms = st.lists(st.integers(0, 50), max_size=60)


def lines_of(stamps_ms: list[int]) -> list[Line]:
    return [Line(ms * MS, f"line {n}") for n, ms in enumerate(sorted(stamps_ms))]


def answer(log: list[Line], start_ms: int, page: int) -> list[Line]:
    """What the logs API gives: oldest first from `start_ms` on, at most a page."""
    return sorted((x for x in log if x.at_ns >= start_ms * MS), key=lambda x: x.at_ns)[:page]


@settings(max_examples=200)
@given(times_ms, st.lists(st.integers(1, 10), max_size=20), st.integers(0, 5))
def test_each_line_once_while_the_log_grows(
    stamps: list[int], steps: list[int], overlap: int
) -> None:
    log = lines_of(stamps)
    follower = Follower(0, overlap_ms=overlap, page=100)
    got: list[Line] = []
    written = 0
    for step in [*steps, len(log)]:
        written = min(len(log), written + step)
        fresh, _ = follower.take(answer(log[:written], follower.start_ms, 100))
        got += fresh
    assert got == log


@settings(max_examples=200)
@given(times_ms, st.integers(2, 7))
def test_pages_end_and_lose_only_what_one_millisecond_overfills(
    stamps: list[int], page: int
) -> None:
    log = lines_of(stamps)
    follower = Follower(0, overlap_ms=0, page=page)
    got: list[Line] = []
    more, asked = True, 0
    while more:
        fresh, more = follower.take(answer(log, follower.start_ms, page))
        got += fresh
        asked += 1
        assert asked <= 2 * len(log) + 60
    assert len(set(got)) == len(got)
    crowded = {ms for ms in stamps if stamps.count(ms) >= page}
    assert {x for x in log if x.at_ns // MS not in crowded} <= set(got)


def test_a_line_that_comes_late_is_still_given() -> None:
    follower = Follower(0, overlap_ms=10, page=100)
    young, late = Line(20 * MS, "young"), Line(12 * MS, "late")
    assert follower.take([young])[0] == [young]
    assert follower.take(answer([young, late], follower.start_ms, 100))[0] == [late]
