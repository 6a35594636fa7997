"""The last state on disk, so that a restarted gateway serves without its control plane.

One file of frames: a snapshot, then the deltas since. A delta is appended; the whole is written
anew (aside, then renamed) for a snapshot and when the deltas outgrow it. A torn last frame is
dropped.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from kingpost.gateway.frames import Framer, frame
from kingpost.messages import Delta, Snapshot

_log = logging.getLogger(__name__)

DEBOUNCE_S: Final = 0.1
_MIN_REWRITE_BYTES: Final = 64 * 1024


class StateFile:
    """`snapshot` gives the whole state when it is to be written anew."""

    def __init__(self, path: Path, snapshot: Callable[[], Snapshot]) -> None:
        self._path = path
        self._snapshot = snapshot
        self._pending: list[bytes] = []
        self._whole = True
        self._base_bytes = 0
        self._added_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def read(self) -> list[Snapshot | Delta]:
        """What was saved last, to be applied in order; empty when there is nothing usable."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            _log.warning("saved state not readable", extra={"error": str(error)})
            return []
        messages: list[Snapshot | Delta] = []
        try:
            messages.extend(map(_decoder.decode, Framer().feed(data)))
        except (ValueError, msgspec.MsgspecError) as error:
            _log.warning("saved state damaged at its end", extra={"error": str(error)})
        if messages and not isinstance(messages[0], Snapshot):
            return []
        return messages

    def changed(self, message: Snapshot | Delta) -> None:
        """Write `message`, already applied, within `DEBOUNCE_S`."""
        if isinstance(message, Snapshot):
            self._whole = True
            self._pending.clear()
        elif not self._whole:
            self._pending.append(frame(message))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(DEBOUNCE_S, self.flush)

    def flush(self) -> None:
        """Write now what is to be written."""
        if self._timer is None:
            return
        self._timer.cancel()
        self._timer = None
        added = b"".join(self._pending)
        self._pending.clear()
        grown = self._added_bytes + len(added)
        try:
            if self._whole or grown > max(self._base_bytes, _MIN_REWRITE_BYTES):
                self._rewrite()
            elif added:
                with open(self._path, "ab") as file:
                    file.write(added)
                self._added_bytes = grown
        except OSError as error:
            self._whole = True
            _log.error("state not saved", extra={"error": str(error)})

    def _rewrite(self) -> None:
        data = frame(self._snapshot())
        self._path.parent.mkdir(parents=True, exist_ok=True)
        aside = self._path.with_name(self._path.name + ".new")
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            file.write(data)
        aside.replace(self._path)
        self._whole = False
        self._base_bytes = len(data)
        self._added_bytes = 0


_decoder: msgspec.msgpack.Decoder[Snapshot | Delta] = msgspec.msgpack.Decoder(Snapshot | Delta)
