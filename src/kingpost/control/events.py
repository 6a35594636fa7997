"""Who is told when something changed: controllers and the gateway's feed. No state of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

Listener = Callable[[str], None]


@dataclass
class Topic:
    """A kind of change. Listeners get the id of what changed and must not raise or block."""

    listeners: list[Listener] = field(default_factory=list)

    def __call__(self, changed_id: str) -> None:
        for listener in self.listeners:
            listener(changed_id)

    def subscribe(self, listener: Listener) -> None:
        self.listeners.append(listener)


@dataclass
class Events:
    """Published after the transaction that made the change has been committed."""

    deployment: Topic = field(default_factory=Topic)
    """A wish or a build changed: controllers look at it again."""
    route: Topic = field(default_factory=Topic)
    """A controller changed what the gateway should know of a deployment."""
    forgotten: Topic = field(default_factory=Topic)
    """A deployment that was deleted has ended, and its row is gone."""
    model: Topic = field(default_factory=Topic)
    key: Topic = field(default_factory=Topic)
    secret: Topic = field(default_factory=Topic)
    """With the team's id."""
