"""API keys: made, shown once, listed by prefix, revoked. Checking them is a dictionary look-up."""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from kingpost.contract import KeyCategory
from kingpost.control import vault
from kingpost.control.domain import ApiKey, utc_now
from kingpost.control.events import Events
from kingpost.control.store import Store
from kingpost.errors import InvalidInputError, NotFoundError, UnauthorizedError

MANAGING = frozenset({KeyCategory.PERSONAL, KeyCategory.WORKSPACE_MANAGE_ALL})
WITH_MODELS = frozenset({KeyCategory.WORKSPACE_INVOKE, KeyCategory.WORKSPACE_EXPORT_METRICS})
MIN_KEY_LENGTH = 16


@dataclass(frozen=True)
class NewKey:
    """A key and its value, which is shown this once."""

    key: ApiKey
    value: str


class Keys:
    def __init__(self, store: Store, events: Events) -> None:
        self._store = store
        self._events = events
        with store.begin() as tx:
            self._by_digest = {key.digest: key for key in tx.api_keys.find()}

    def authenticate(self, authorization: str | None) -> ApiKey:
        """The key in an `Authorization: Api-Key K` or `Bearer K` header; else UnauthorizedError."""
        scheme, _, value = (authorization or "").partition(" ")
        if scheme.lower() in {"api-key", "bearer"} and (value := value.strip()):
            digest = vault.digest(value)
            found = self._by_digest.get(digest)
            if found is not None and hmac.compare_digest(found.digest, digest):
                return found
            raise UnauthorizedError(
                "The API key is not known here. Check it, or make one with `kingpost keys create`."
            )
        raise UnauthorizedError(
            "An API key is needed: send it as `Authorization: Api-Key <key>` or `Bearer <key>`."
        )

    def list(self, team_id: str) -> tuple[ApiKey, ...]:
        return tuple(key for key in self._by_digest.values() if key.team_id == team_id)

    def all(self) -> tuple[ApiKey, ...]:
        return tuple(self._by_digest.values())

    def create(
        self,
        team_id: str,
        *,
        name: str | None,
        category: KeyCategory,
        model_ids: tuple[str, ...] | None = None,
    ) -> NewKey:
        """Raises InvalidInputError for models on a category that has no model scope."""
        if model_ids is not None and category not in WITH_MODELS:
            raise InvalidInputError(
                f"model_ids were given for a key of type {category}, which is not limited to "
                "models. Leave them out, or use WORKSPACE_INVOKE or WORKSPACE_EXPORT_METRICS."
            )
        if model_ids is not None:
            self._check_models(team_id, model_ids)
        value, prefix = vault.new_key()
        return self._add(value, prefix, team_id, name, category, model_ids)

    def revoke(self, team_id: str, prefix: str) -> ApiKey:
        with self._store.begin() as tx:
            key = tx.api_keys.get(prefix=prefix)
            if key is None or key.team_id != team_id:
                raise NotFoundError(f"There is no API key with the prefix {prefix!r}.")
            tx.api_keys.delete(prefix=prefix)
        self._by_digest.pop(key.digest, None)
        self._events.key(prefix)
        return key

    def ensure(self, value: str, team_id: str, name: str) -> ApiKey:
        """Make `value` a managing key unless it is one; for the operator's own key."""
        if len(value) < MIN_KEY_LENGTH or not value.isascii() or not value.isprintable():
            raise InvalidInputError(
                f"The given API key can't be used: it needs at least {MIN_KEY_LENGTH} printable "
                "ASCII characters. Leave it unset and one is made."
            )
        known = self._by_digest.get(vault.digest(value))
        if known is not None:
            return known
        prefix = value.partition(".")[0] if "." in value else vault.digest(value)[:8]
        category = KeyCategory.WORKSPACE_MANAGE_ALL
        return self._add(value, prefix, team_id, name, category, None).key

    def _add(
        self,
        value: str,
        prefix: str,
        team_id: str,
        name: str | None,
        category: KeyCategory,
        model_ids: tuple[str, ...] | None,
    ) -> NewKey:
        key = ApiKey(
            prefix=prefix,
            digest=vault.digest(value),
            name=name,
            category=category,
            team_id=team_id,
            model_ids=model_ids,
            created_at=utc_now(),
        )
        with self._store.begin() as tx:
            tx.api_keys.insert(key)
        self._by_digest[key.digest] = key
        self._events.key(prefix)
        return NewKey(key, value)

    def _check_models(self, team_id: str, model_ids: tuple[str, ...]) -> None:
        with self._store.begin() as tx:
            for model_id in model_ids:
                model = tx.models.get(id=model_id)
                if model is None or model.team_id != team_id:
                    raise NotFoundError(f"There is no model {model_id!r} to limit the key to.")
