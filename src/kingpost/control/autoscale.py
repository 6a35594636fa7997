"""How many replicas a deployment shall have, by its load: the contract's rule. Pure.

Knows neither deployments nor messages; `scaler` brings the load and carries decisions out. Times
are seconds of one monotonic clock.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import Final

from kingpost.control.domain import AutoscalingSettings

MIN_RECENT_S: Final = 2.0
MIN_IDLE_S: Final = 3.0
"""The last replica stays for so long, so that somebody who looks can see it ACTIVE."""
_MAX_SAMPLES: Final = 8192


class History:
    """Requests in flight and held, over time: each sample counts until the next one."""

    def __init__(self) -> None:
        self._at_s: list[float] = []
        self._load: list[float] = []
        self._area: list[float] = []
        """Request-seconds up to the sample."""

    @property
    def now(self) -> float:
        return self._load[-1] if self._load else 0.0

    def add(self, at_s: float, load: float, *, keep_s: float) -> None:
        """A new sample; those that no window of `keep_s` needs any more are dropped."""
        if load != self.now:
            area = self._area_at(at_s)
            self._at_s.append(at_s)
            self._load.append(load)
            self._area.append(area)
        old = bisect_right(self._at_s, at_s - keep_s) - 1
        if old > 64 or len(self._at_s) > _MAX_SAMPLES:
            gone = max(1, old)
            del self._at_s[:gone], self._load[:gone], self._area[:gone]

    def mean(self, start_s: float, end_s: float) -> float:
        """Over that time; nothing is taken to have been there before the first sample."""
        if end_s <= start_s:
            return 0.0
        return (self._area_at(end_s) - self._area_at(start_s)) / (end_s - start_s)

    def _area_at(self, at_s: float) -> float:
        index = bisect_right(self._at_s, at_s) - 1
        if index < 0:
            return self._area[0] if self._area else 0.0
        return self._area[index] + self._load[index] * (at_s - self._at_s[index])


@dataclass(frozen=True)
class Load:
    """`mean` over the window, `recent` over its last part, both of what is in flight and held.

    `active`: something is or was asked for since the last decision. `whole`: reports cover all of
    the window.
    """

    mean: float
    recent: float
    active: bool
    whole: bool


@dataclass(frozen=True)
class Count:
    """`goal` as it is; replicas `ready` and `loading`. `starting`: its first start isn't over."""

    goal: int
    ready: int = 0
    loading: int = 0
    starting: bool = False


@dataclass(frozen=True)
class Timer:
    """Since when the load has been too small for the goal; whether a replica was ready."""

    below_since_s: float | None = None
    ready: bool = False


@dataclass(frozen=True)
class Decision:
    """`reason` is for a person, when `goal` is another one. `recheck_s`: when time alone may
    change the decision."""

    goal: int
    timer: Timer
    recheck_s: float | None = None
    reason: str = ""


def recent_s(settings: AutoscalingSettings) -> float:
    """How long the last part of the window is that a burst is seen by."""
    return max(MIN_RECENT_S, settings.autoscaling_window / 10)


def measured(
    history: History,
    settings: AutoscalingSettings,
    *,
    known_since_s: float,
    active: bool,
    now_s: float,
) -> Load:
    """The load at `now_s`. Nothing is known of the time before `known_since_s`."""
    window, recent = settings.autoscaling_window, recent_s(settings)
    start = min(max(now_s - window, known_since_s), now_s - recent)
    return Load(
        mean=history.mean(start, now_s),
        recent=history.mean(now_s - recent, now_s),
        active=active or history.now > 0,
        whole=now_s - known_since_s >= window,
    )


def desired(settings: AutoscalingSettings, mean: float) -> int:
    """Replicas for that many requests at a time, within no bounds (contract: autoscaling)."""
    each = settings.concurrency_target * settings.target_utilization_percentage / 100
    return math.ceil(round(mean / each, 9))


def decide(
    settings: AutoscalingSettings, load: Load | None, count: Count, timer: Timer, now_s: float
) -> Decision:
    """The goal from now on. `load` is None while no reports come: then only bounds apply."""
    low, high = settings.min_replica, settings.max_replica
    goal = min(max(count.goal, low), high)
    came_up = count.ready > 0 and not timer.ready
    seen = Timer(ready=count.ready > 0)
    if goal != count.goal:
        return Decision(goal, seen, reason=f"its settings ask for {low} to {high} replicas")
    if load is None:
        return Decision(goal, seen)

    wanted = _wanted(settings, load, count)
    if wanted > goal:
        return Decision(wanted, seen, reason=_why(settings, load))
    if wanted == goal:
        return Decision(goal, seen)

    since = now_s if timer.below_since_s is None or came_up else timer.below_since_s
    waiting = Timer(below_since_s=since, ready=seen.ready)
    delay_s = float(settings.scale_down_delay)
    if wanted == 0 and goal == 1:
        delay_s = max(MIN_IDLE_S, delay_s)
    due = since + delay_s
    if now_s < due:
        return Decision(goal, waiting, recheck_s=due)
    if count.loading or count.starting:
        return Decision(goal, waiting)
    running = min(goal, count.ready) or goal
    step = max(1, running * settings.max_scale_down_rate // 100)
    fewer = max(wanted, running - step)
    again = Timer(below_since_s=now_s, ready=seen.ready)
    next_s = now_s + settings.scale_down_delay if fewer > wanted else None
    return Decision(fewer, again, recheck_s=next_s, reason=_why_fewer(settings, load, fewer))


def _wanted(settings: AutoscalingSettings, load: Load, count: Count) -> int:
    """What the load asks for, within the settings' bounds."""
    wanted, lately = desired(settings, load.mean), desired(settings, load.recent)
    # Beyond what they may have at a time requests wait, and a whole window is too long to wait.
    full = max(1, count.goal, count.ready + count.loading) * settings.concurrency_target
    wanted = max(wanted, lately if load.recent > full else min(lately, count.goal))
    if count.goal <= 1 and wanted <= 1:
        wanted = 0  # The last one goes by the delay alone, whatever is left in the window.
    elif wanted < count.goal and not load.whole:
        wanted = count.goal
    if load.active:
        wanted = max(1, wanted)
    return min(max(wanted, settings.min_replica), settings.max_replica)


def _why(settings: AutoscalingSettings, load: Load) -> str:
    return (
        f"a load of {max(load.mean, load.recent):.2g}, for {settings.concurrency_target} per "
        f"replica at {settings.target_utilization_percentage} %"
    )


def _why_fewer(settings: AutoscalingSettings, load: Load, fewer: int) -> str:
    if fewer == 0:
        return f"no request for {settings.scale_down_delay} s"
    return f"a load of {load.mean:.2g}, and too little for {settings.scale_down_delay} s"
