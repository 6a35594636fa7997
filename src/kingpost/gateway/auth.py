"""Who calls: API keys by the digest of what was presented, and what each may invoke. No I/O."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from typing import Final

from kingpost.contract import KeyCategory
from kingpost.gateway.answers import Refusal
from kingpost.messages import KeyRecord

_INVOKERS: Final = frozenset(
    {KeyCategory.PERSONAL, KeyCategory.WORKSPACE_MANAGE_ALL, KeyCategory.WORKSPACE_INVOKE}
)
_SCHEMES: Final = frozenset({b"api-key", b"bearer"})


class Key:
    """A known key. `models` is None when it may call every model of its team."""

    __slots__ = ("digest", "id", "may_invoke", "models", "record", "team_id")

    def __init__(self, record: KeyRecord) -> None:
        self.record = record
        self.id = record.id
        self.team_id = record.team_id
        self.digest = bytes.fromhex(record.digest)
        self.may_invoke = record.category in _INVOKERS
        self.models = None if record.model_ids is None else frozenset(record.model_ids)


class Keys:
    """All keys, found by digest."""

    def __init__(self) -> None:
        self._by_digest: dict[bytes, Key] = {}
        self._by_id: dict[str, Key] = {}

    def put(self, record: KeyRecord) -> None:
        self.remove(record.id)
        key = Key(record)
        self._by_digest[key.digest] = self._by_id[key.id] = key

    def remove(self, key_id: str) -> None:
        key = self._by_id.pop(key_id, None)
        if key is not None:
            self._by_digest.pop(key.digest, None)

    def records(self) -> Iterable[KeyRecord]:
        return (key.record for key in self._by_id.values())

    def authenticate(self, authorization: bytes) -> Key:
        """The key of an `Authorization: Api-Key K` or `Bearer K`. Raises `Refusal` (401)."""
        scheme, _, secret = authorization.partition(b" ")
        if scheme.lower() in _SCHEMES:
            digest = hashlib.sha256(secret.strip(b" \t")).digest()
            key = self._by_digest.get(digest)
            if key is not None and hmac.compare_digest(key.digest, digest):
                return key
            raise Refusal(401, "This API key is not known here: it is mistyped, or was revoked.")
        if authorization:
            raise Refusal(
                401, "Use 'Authorization: Api-Key <key>' or 'Authorization: Bearer <key>'."
            )
        raise Refusal(401, "An API key is needed: send 'Authorization: Api-Key <key>'.")
