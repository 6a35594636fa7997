"""The build log as people read it: numbered steps with their times, warnings, plain lines."""

from __future__ import annotations

import time
from collections.abc import Callable

from kingpost.engine.base import OnLine


class Progress:
    """Not for decisions. `total` may be set once it is known; the first step then follows."""

    def __init__(self, on_line: OnLine, clock: Callable[[], float] = time.monotonic) -> None:
        self._on_line = on_line
        self._clock = clock
        self._number = 0
        self._since = clock()
        self.total = 0
        self.warnings: list[str] = []

    def step(self, name: str) -> None:
        """Begin a step: the clock of `done` starts here, and nothing is said yet."""
        self._number += 1
        self._name = name
        self._since = self._clock()

    def begin(self, what: str) -> None:
        """Say that the step takes a while, before it does."""
        self._on_line(f"[{self._number}/{self.total}] {self._name}: {what}")

    def done(self, what: str) -> None:
        spent = self._clock() - self._since
        self._on_line(f"[{self._number}/{self.total}] {self._name}: {what} ({spent:.2f} s)")

    def line(self, text: str) -> None:
        self._on_line(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)
        self._on_line(f"Warning: {text}")

    def not_applied(self, text: str) -> None:
        self.warnings.append(text)
        self._on_line(f"Not applied: {text}")

    @property
    def current(self) -> str:
        return self._name
