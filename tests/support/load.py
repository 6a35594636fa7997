"""A steady load on a model: every answer counted, from threads, until told to stop."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import httpx


@dataclass
class Load:
    """`workers` clients, each one request after another. Use as a context manager."""

    url: str
    headers: dict[str, str]
    body: dict[str, object]
    workers: int = 4
    outcomes: Counter[str] = field(default_factory=Counter)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        for _ in range(self.workers):
            thread = threading.Thread(target=self._run, daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> Counter[str]:
        """No new requests; wait for those under way. The answer: how each ended, counted."""
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
        return self.outcomes

    @property
    def good(self) -> int:
        with self._lock:
            return self.outcomes["200"]

    def _run(self) -> None:
        with httpx.Client(headers=self.headers, timeout=60, trust_env=False) as client:
            while not self._stop.is_set():
                try:
                    outcome = str(client.post(self.url, json=self.body).status_code)
                except httpx.HTTPError as error:
                    outcome = type(error).__name__
                with self._lock:
                    self.outcomes[outcome] += 1
