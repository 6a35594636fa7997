"""Tells when a client leaves while its socket is not being read.

asyncio sees the end of a connection only by reading it. While reading is paused (back-pressure, a
held request) the kernel is asked instead: one epoll of our own that waits for hang-ups alone,
itself watched by the event loop.

What TCP itself hides stays hidden: behind more data than our receive window takes, the end of a
client's stream is not sent until that is read (a reset is). A deadline bounds such a wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections.abc import Callable

Departed = Callable[[], None]


class Departures:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._watched: dict[int, Departed] = {}
        loop.add_reader(self._epoll.fileno(), self._ready)

    def watch(self, fd: int, departed: Departed) -> None:
        """Call `departed` once when the peer of socket `fd` has closed its side or is gone."""
        self._watched[fd] = departed
        events = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR | select.EPOLLONESHOT
        try:
            self._epoll.register(fd, events)
        except FileExistsError:
            self._epoll.modify(fd, events)

    def unwatch(self, fd: int, departed: Departed) -> None:
        """Forget it; nothing happens when `fd` belongs to another connection by now."""
        if self._watched.get(fd) == departed:
            del self._watched[fd]
            with contextlib.suppress(OSError):
                self._epoll.unregister(fd)

    def close(self) -> None:
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _ready(self) -> None:
        for fd, _ in self._epoll.poll(0):
            departed = self._watched.pop(fd, None)
            if departed is not None:
                with contextlib.suppress(OSError):
                    self._epoll.unregister(fd)
                departed()
