"""Request ids: 32 hexadecimal digits, unpredictable, made from entropy drawn in bulk."""

from __future__ import annotations

import os
from collections.abc import Iterator

_BATCH = 256


def _ids() -> Iterator[bytes]:
    while True:
        digits = os.urandom(16 * _BATCH).hex().encode()
        for at in range(0, len(digits), 32):
            yield digits[at : at + 32]


new_request_id = _ids().__next__
