"""Secrets of a team: written, listed and removed by name; values go to replicas alone."""

from __future__ import annotations

from collections.abc import Iterable

from kingpost import contract
from kingpost.control.domain import Secret, utc_now
from kingpost.control.events import Events
from kingpost.control.store import Store
from kingpost.control.vault import Vault
from kingpost.errors import InvalidInputError, NotFoundError

MAX_VALUE_BYTES = contract.MIB


class Secrets:
    def __init__(self, store: Store, vault: Vault, events: Events) -> None:
        self._store = store
        self._vault = vault
        self._events = events

    def list(self, team_id: str) -> tuple[Secret, ...]:
        with self._store.begin() as tx:
            found = tx.secrets.find(team_id=team_id)
        return tuple(sorted(found, key=lambda secret: secret.name))

    def put(self, team_id: str, name: str, value: str) -> Secret:
        """Make or change a secret. Its id stays when it is changed (contract: upsert by name)."""
        if not contract.is_secret_name(name):
            raise InvalidInputError(
                f"{name!r} can't name a secret. Use letters, digits, `_`, `-` and `.` only, "
                "as the name becomes a file below /secrets."
            )
        if len(value.encode()) > MAX_VALUE_BYTES:
            raise InvalidInputError("The secret's value is longer than 1 MiB, which is the limit.")
        with self._store.begin() as tx:
            secret = tx.secrets.get(team_id=team_id, name=name)
            if secret is None:
                secret = tx.secrets.insert(
                    Secret(id=contract.new_id(), team_id=team_id, name=name, created_at=utc_now())
                )
            tx.put_secret_value(secret.id, self._vault.encrypt(value))
        self._events.secret(team_id)
        return secret

    def delete(self, team_id: str, name: str) -> Secret:
        with self._store.begin() as tx:
            secret = tx.secrets.get(team_id=team_id, name=name)
            if secret is None:
                raise NotFoundError(f"There is no secret named {name!r}.")
            tx.secrets.delete(team_id=team_id, name=name)
            tx.drop_secret_value(secret.id)
        self._events.secret(team_id)
        return secret

    def values(self, team_id: str, names: Iterable[str]) -> dict[str, str]:
        """The values of those of `names` that exist. For replicas and weights only."""
        values: dict[str, str] = {}
        with self._store.begin() as tx:
            for name in names:
                secret = tx.secrets.get(team_id=team_id, name=name)
                ciphertext = tx.secret_value(secret.id) if secret else None
                if ciphertext is not None:
                    values[name] = self._vault.decrypt(ciphertext)
        return values
