"""A timer wheel: many deadlines, a tenth of a second exact, for next to nothing each."""

from __future__ import annotations

from typing import Final, Protocol

TICK_S: Final = 0.1


class Timed(Protocol):
    """`tick` is the wheel's own; `check` is called when its time has come."""

    tick: int

    def check(self, now: float) -> float | None:
        """Act on what is due; the time of the next look, or None to be forgotten."""


class Wheel:
    """Holds each object at most once. Time is monotonic seconds, given by the caller."""

    __slots__ = ("_buckets", "_last")

    def __init__(self, now: float) -> None:
        self._buckets: dict[int, set[Timed]] = {}
        self._last = int(now / TICK_S)

    def set(self, timed: Timed, at: float) -> None:
        """Look at `timed` soon after `at`, in place of what was set before."""
        self.discard(timed)
        tick = max(int(at / TICK_S) + 1, self._last + 1)
        timed.tick = tick
        bucket = self._buckets.get(tick)
        if bucket is None:
            self._buckets[tick] = {timed}
        else:
            bucket.add(timed)

    def discard(self, timed: Timed) -> None:
        bucket = self._buckets.get(timed.tick)
        if bucket is not None:
            bucket.discard(timed)
            if not bucket:
                del self._buckets[timed.tick]

    def advance(self, now: float) -> None:
        """Look at all that is due."""
        current = int(now / TICK_S)
        if current - self._last > len(self._buckets):
            ticks = sorted(tick for tick in self._buckets if tick <= current)
        else:
            ticks = [tick for tick in range(self._last + 1, current + 1) if tick in self._buckets]
        self._last = current
        for tick in ticks:
            for timed in self._buckets.pop(tick, ()):
                timed.tick = 0
                again = timed.check(now)
                if again is not None and not timed.tick:
                    self.set(timed, again)
