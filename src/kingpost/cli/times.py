"""Times as a user types them: `10m` ago, or a moment; and as they are shown."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Final

from kingpost.errors import InvalidInputError

_UNIT_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_PART: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhdw])", re.ASCII)


def parse_duration_s(text: str) -> float:
    """Seconds of `90s`, `10m`, `1h30m`, `2d`. Raises InvalidInputError for anything else."""
    stripped = text.strip().lower()
    parts = list(_PART.finditer(stripped))
    if not parts or "".join(m.group() for m in parts) != stripped:
        raise InvalidInputError(f"{text!r} is no duration: expected such as 90s, 10m, 1h30m or 2d.")
    return math.fsum(float(m[1]) * _UNIT_S[m[2]] for m in parts)


def parse_since_ms(text: str, now: datetime) -> int:
    """Milliseconds of the epoch for a duration before `now`, or for an ISO 8601 moment.

    A moment without an offset is local time.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        moment = None
    if moment is None or re.fullmatch(r"\d+", text.strip()):
        return int(now.timestamp() * 1000 - parse_duration_s(text) * 1000)
    try:
        return int(moment.timestamp() * 1000)
    except (OverflowError, ValueError, OSError):
        raise InvalidInputError(f"{text!r} is out of range.") from None


def age(created_at: str, now: datetime) -> str:
    """How long ago, in one unit: `42s`, `5m`, `3h`, `12d`."""
    try:
        moment = datetime.fromisoformat(created_at)
    except ValueError:
        return created_at
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    seconds = max(0, int((now - moment).total_seconds()))
    for unit in ("d", "h", "m"):
        if seconds >= _UNIT_S[unit]:
            return f"{seconds // _UNIT_S[unit]}{unit}"
    return f"{seconds}s"
