"""From a request's key to who asks, and whether that key may do this."""

from __future__ import annotations

from enum import Enum, auto

from kingpost.contract import KeyCategory
from kingpost.control.domain import ApiKey
from kingpost.control.keys import MANAGING, Keys
from kingpost.errors import ForbiddenError


class Access(Enum):
    """What a door asks of a key."""

    MANAGE = auto()
    KEYS = auto()
    """Managing API keys: managing keys, and those made for that alone."""
    ANY = auto()


_ALLOWED = {
    Access.MANAGE: MANAGING,
    Access.KEYS: MANAGING | {KeyCategory.WORKSPACE_MANAGE_API_KEYS},
    Access.ANY: frozenset(KeyCategory),
}


def authorize(keys: Keys, authorization: str | None, access: Access) -> ApiKey:
    """The key that asks. Raises UnauthorizedError, or ForbiddenError when it may not."""
    key = keys.authenticate(authorization)
    if key.category not in _ALLOWED[access]:
        raise ForbiddenError(
            f"This API key is of type {key.category.value} and may not do this. "
            "Use a key of type PERSONAL or WORKSPACE_MANAGE_ALL."
        )
    return key
