"""The scaling rule: the contract's examples, and what must hold whatever the load does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kingpost.control.autoscale import (
    MIN_IDLE_S,
    Count,
    Decision,
    History,
    Load,
    Timer,
    decide,
    desired,
    measured,
    recent_s,
)
from kingpost.control.domain import AutoscalingSettings


def settings(**changes: int) -> AutoscalingSettings:
    return AutoscalingSettings(**{"max_replica": 10, **changes})


@st.composite
def all_settings(draw: st.DrawFn) -> AutoscalingSettings:
    low = draw(st.integers(0, 4))
    return AutoscalingSettings(
        min_replica=low,
        max_replica=max(1, low + draw(st.integers(0, 8))),
        autoscaling_window=draw(st.integers(10, 120)),
        scale_down_delay=draw(st.integers(0, 120)),
        concurrency_target=draw(st.integers(1, 20)),
        target_utilization_percentage=draw(st.integers(1, 100)),
        max_scale_down_rate=draw(st.integers(1, 50)),
    )


loads = st.builds(
    Load,
    mean=st.floats(0, 100),
    recent=st.floats(0, 100),
    active=st.booleans(),
    whole=st.booleans(),
)
counts = st.builds(
    Count,
    goal=st.integers(0, 12),
    ready=st.integers(0, 12),
    loading=st.integers(0, 3),
    starting=st.booleans(),
)
timers = st.builds(Timer, below_since_s=st.none() | st.floats(0, 1000), ready=st.booleans())


class Simulation:
    """One deployment over time: replicas come up after `load_s`, decisions once a second."""

    def __init__(self, settings: AutoscalingSettings, *, goal: int = 1, load_s: int = 0) -> None:
        self.settings = settings
        self.history = History()
        self.timer = Timer()
        self.now_s = 1000.0
        self.known_since_s = 0.0
        self.goal = goal
        self.goals = [goal]
        self._load_s = load_s
        self._born = [self.now_s - load_s] * goal

    @property
    def ready(self) -> int:
        return sum(self.now_s - born >= self._load_s for born in self._born)

    def second(self, load: int, *, reported: bool = True) -> Decision:
        self.now_s += 1.0
        if reported:
            self.history.add(self.now_s, load, keep_s=self.settings.autoscaling_window)
        known = measured(
            self.history,
            self.settings,
            known_since_s=self.known_since_s,
            active=load > 0,
            now_s=self.now_s,
        )
        count = Count(self.goal, self.ready, len(self._born) - self.ready)
        decision = decide(self.settings, known if reported else None, count, self.timer, self.now_s)
        self.timer, self.goal = decision.timer, decision.goal
        while len(self._born) > self.goal and self.now_s - self._born[-1] >= self._load_s:
            self._born.pop()
        self._born += [self.now_s] * (self.goal - len(self._born))
        if self.goal != self.goals[-1]:
            self.goals.append(self.goal)
        return decision

    def run(self, load: int, seconds: int, *, until: Callable[[], bool] = lambda: False) -> int:
        for second in range(seconds):
            if until():
                return second
            self.second(load)
        return seconds


@pytest.mark.parametrize(
    ("target", "utilization", "mean", "wanted"),
    [
        (10, 70, 25, 4),
        (1, 70, 0.71, 2),
        (1, 70, 0.7, 1),
        (1, 100, 3, 3),
        (5, 20, 7, 7),
        (1, 70, 0, 0),
    ],
)
def test_the_examples_of_the_contract(
    target: int, utilization: int, mean: float, wanted: int
) -> None:
    rule = settings(concurrency_target=target, target_utilization_percentage=utilization)
    assert desired(rule, mean) == wanted


@given(all_settings(), st.none() | loads, counts, timers, st.floats(1000, 2000))
def test_never_past_the_bounds(
    rule: AutoscalingSettings, load: Load | None, count: Count, timer: Timer, now_s: float
) -> None:
    decision = decide(rule, load, count, timer, now_s)
    assert rule.min_replica <= decision.goal <= rule.max_replica


@given(all_settings(), st.none() | loads, counts, timers, st.floats(1000, 2000))
def test_what_may_not_be_scaled_down_by_load(
    rule: AutoscalingSettings, load: Load | None, count: Count, timer: Timer, now_s: float
) -> None:
    decision = decide(rule, load, count, timer, now_s)
    within = min(max(count.goal, rule.min_replica), rule.max_replica)
    unknown = load is None or (not load.whole and within > 1)
    if (
        unknown
        or count.loading
        or count.starting
        or (timer.below_since_s is None and rule.scale_down_delay)
    ):
        assert decision.goal >= within
    if load is not None and load.active and within:
        assert decision.goal >= 1


@given(all_settings(), loads, counts, timers, st.floats(1000, 2000))
def test_a_step_down_takes_no_more_than_its_share_of_those_that_run(
    rule: AutoscalingSettings, load: Load, count: Count, timer: Timer, now_s: float
) -> None:
    decision = decide(rule, load, count, timer, now_s)
    within = min(max(count.goal, rule.min_replica), rule.max_replica)
    if decision.goal < within:
        running = min(within, count.ready) or within
        assert running - decision.goal <= max(1, running * rule.max_scale_down_rate // 100)
        assert decision.timer.below_since_s == now_s


@given(all_settings(), st.integers(0, 60), st.integers(0, 5))
def test_constant_load_settles_and_stays(rule: AutoscalingSettings, load: int, load_s: int) -> None:
    simulation = Simulation(rule, goal=max(1, rule.min_replica), load_s=load_s)
    simulation.run(load, 2 * rule.autoscaling_window + 10)
    settled = simulation.goal
    if load:
        simulation.run(load, 3 * rule.scale_down_delay + 20)
        assert simulation.goal == settled
        assert simulation.goals == sorted(simulation.goals)
        assert settled == min(max(desired(rule, load), 1, rule.min_replica), rule.max_replica)


@given(all_settings(), st.lists(st.tuples(st.integers(0, 30), st.integers(1, 30)), max_size=8))
def test_whatever_the_load_an_open_request_keeps_a_replica(
    rule: AutoscalingSettings, phases: list[tuple[int, int]]
) -> None:
    simulation = Simulation(rule, goal=max(1, rule.min_replica))
    for load, seconds in phases:
        for _ in range(seconds):
            simulation.second(load)
            assert rule.min_replica <= simulation.goal <= rule.max_replica
            assert simulation.goal >= (1 if load else 0)


@given(all_settings(), st.integers(1, 10), st.integers(1, 300))
def test_lost_reports_never_scale_down(rule: AutoscalingSettings, goal: int, seconds: int) -> None:
    goal = min(max(goal, rule.min_replica, 1), rule.max_replica)
    simulation = Simulation(rule, goal=goal)
    for _ in range(seconds):
        simulation.second(0, reported=False)
    assert simulation.goals == [goal]


def test_half_of_them_go_at_a_time_each_after_the_delay() -> None:
    simulation = Simulation(settings(scale_down_delay=30, autoscaling_window=10), goal=8)
    simulation.run(0, 200)
    assert simulation.goals == [8, 4, 2, 1, 0]


def test_each_step_down_waits_for_the_delay_anew() -> None:
    simulation = Simulation(settings(scale_down_delay=30, autoscaling_window=10), goal=8)
    took = [simulation.run(0, 99, until=lambda g=goal: simulation.goal == g) for goal in (4, 2, 1)]
    assert took == [31, 30, 30]


def test_traffic_that_recovers_within_the_delay_cancels_it() -> None:
    rule = settings(scale_down_delay=30, autoscaling_window=10, target_utilization_percentage=100)
    simulation = Simulation(rule, goal=4)
    for _ in range(5):
        simulation.run(0, 25)
        simulation.run(4, 12)
    assert simulation.goals == [4]


def test_up_comes_with_the_next_decision() -> None:
    load = Load(mean=25, recent=25, active=True, whole=True)
    rule = settings(concurrency_target=10)
    assert decide(rule, load, Count(1, ready=1), Timer(), 0.0).goal == 4


def test_a_burst_does_not_wait_for_the_window() -> None:
    simulation = Simulation(settings(autoscaling_window=600), goal=1)
    assert simulation.run(20, 600, until=lambda: simulation.goal == 10) <= 60


def test_one_request_at_a_time_is_no_burst() -> None:
    simulation = Simulation(settings(autoscaling_window=600), goal=1)
    simulation.run(1, 300)
    assert simulation.goals == [1]


def test_no_traffic_for_the_delay_goes_to_zero_whatever_the_window() -> None:
    simulation = Simulation(settings(autoscaling_window=60, scale_down_delay=10), goal=1)
    simulation.run(1, 20)
    assert simulation.run(0, 60, until=lambda: simulation.goal == 0) == 11


def test_one_that_nobody_has_called_stays_for_the_delay_after_it_came_up() -> None:
    simulation = Simulation(settings(scale_down_delay=20), goal=1, load_s=50)
    simulation._born = [simulation.now_s]
    assert simulation.run(0, 200, until=lambda: simulation.goal == 0) == 50 + 20


def test_the_last_one_stays_long_enough_to_be_seen_even_without_a_delay() -> None:
    simulation = Simulation(settings(scale_down_delay=0), goal=1)
    assert simulation.run(0, 60, until=lambda: simulation.goal == 0) == MIN_IDLE_S + 1


def test_settings_apply_at_once() -> None:
    idle = Load(mean=0, recent=0, active=False, whole=True)
    raised = decide(settings(min_replica=3), idle, Count(0), Timer(), 0.0)
    lowered = decide(settings(max_replica=2), idle, Count(7, ready=7), Timer(), 0.0)
    assert (raised.goal, lowered.goal) == (3, 2)


def test_after_a_gap_the_window_must_be_known_again_before_replicas_go() -> None:
    rule = settings(scale_down_delay=0, autoscaling_window=60)
    simulation = Simulation(rule, goal=6)
    simulation.known_since_s = simulation.now_s
    assert simulation.run(0, 100, until=lambda: simulation.goal < 6) == 60


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 50)), min_size=1, max_size=200))
def test_the_mean_is_that_of_the_samples(steps: list[tuple[int, int]]) -> None:
    history, now, values = History(), 0.0, list[int]()
    for load, seconds in steps:
        history.add(now, load, keep_s=60.0)
        now += seconds
        values += [load] * seconds
    window = min(60, len(values))
    assert history.mean(now - window, now) == pytest.approx(sum(values[-window:]) / window)


def test_history_is_bounded() -> None:
    history = History()
    for second in range(100_000):
        history.add(float(second), second % 7, keep_s=3600.0)
    assert len(history._at_s) <= 3700
    assert recent_s(settings(autoscaling_window=10)) == 2.0
