"""The store: typed tables over SQLAlchemy Core, one transaction at a time, writes guarded.

Not for decisions. A transaction is short and holds no network call. SQLite runs in WAL mode with
`synchronous=NORMAL`: what was committed survives the death of any process; the last moments
before a power cut may be lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError, OperationalError

from kingpost.control import domain, schema
from kingpost.errors import ConflictError, StaleWriteError, StorageFullError

T = TypeVar("T", bound=msgspec.Struct)


class Patch(msgspec.Struct, frozen=True):
    """A patch of a development deployment, as the truss CLI makes it (signatures are objects)."""

    prev_hash: str
    next_hash: str
    patch_ops: list[dict[str, Any]]
    next_signature: Any = None


class Documents(Generic[T]):
    """One table of values within a transaction."""

    def __init__(
        self,
        connection: Connection,
        table: sa.Table,
        kind: type[T],
        columns: Callable[[T], dict[str, str]],
    ) -> None:
        self._connection = connection
        self._table = table
        self._kind = kind
        self._columns = columns

    def get(self, **key: str) -> T | None:
        body = self._connection.execute(
            sa.select(self._table.c.body).where(*self._where(key))
        ).scalar_one_or_none()
        return None if body is None else msgspec.json.decode(body, type=self._kind)

    def find(self, **filters: str) -> list[T]:
        rows = self._connection.execute(
            sa.select(self._table.c.body).where(*self._where(filters))
        ).scalars()
        return [msgspec.json.decode(body, type=self._kind) for body in rows]

    def count(self, **filters: str) -> int:
        query = sa.select(sa.func.count()).select_from(self._table).where(*self._where(filters))
        return int(self._connection.execute(query).scalar_one())

    def insert(self, value: T) -> T:
        """Raises `ConflictError` when a row of that key or name is there already."""
        columns = self._columns(value)
        try:
            self._connection.execute(
                sa.insert(self._table).values(
                    **columns, version=_version(value), body=msgspec.json.encode(value)
                )
            )
        except IntegrityError as error:
            raise ConflictError(
                f"{self._table.name} already holds {', '.join(columns.values())}."
            ) from error
        return value

    def put(self, value: T) -> T:
        """Insert or replace, whatever was there. For values without a version."""
        columns = self._columns(value)
        self._connection.execute(sa.delete(self._table).where(*self._primary(columns)))
        return self.insert(value)

    def update(self, value: T) -> T:
        """Write `value` and return it with its new version.

        Raises `StaleWriteError` when the row is no longer at `value.version`.
        """
        columns = self._columns(value)
        fresh = msgspec.structs.replace(value, version=_version(value) + 1)
        result = self._connection.execute(
            sa.update(self._table)
            .where(*self._primary(columns), self._table.c.version == _version(value))
            .values(**columns, version=_version(fresh), body=msgspec.json.encode(fresh))
        )
        if result.rowcount != 1:
            raise StaleWriteError(
                f"This {self._table.name.removesuffix('s')} was changed by somebody else at the "
                "same time. Look at it again and repeat the request."
            )
        return fresh

    def delete(self, **key: str) -> bool:
        result = self._connection.execute(sa.delete(self._table).where(*self._where(key)))
        return result.rowcount > 0

    def _where(self, filters: dict[str, str]) -> list[sa.ColumnElement[bool]]:
        return [self._table.c[name] == value for name, value in filters.items()]

    def _primary(self, columns: dict[str, str]) -> list[sa.ColumnElement[bool]]:
        return [column == columns[column.name] for column in self._table.primary_key.columns]


class Transaction:
    """All tables, within one transaction."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

        def documents(
            table: sa.Table, kind: type[T], columns: Callable[[T], dict[str, str]]
        ) -> Documents[T]:
            return Documents(connection, table, kind, columns)

        self.teams = documents(schema.teams, domain.Team, lambda t: {"id": t.id, "name": t.name})
        self.models = documents(
            schema.models,
            domain.Model,
            lambda m: {"id": m.id, "team_id": m.team_id, "name": m.name},
        )
        self.deployments = documents(
            schema.deployments,
            domain.Deployment,
            lambda d: {
                "id": d.id,
                "model_id": d.model_id,
                "name": d.name,
                "status": d.status.value,
            },
        )
        self.environments = documents(
            schema.environments,
            domain.Environment,
            lambda e: {"model_id": e.model_id, "name": e.name},
        )
        self.promotions = documents(
            schema.promotions,
            domain.Promotion,
            lambda p: {
                "id": p.id,
                "model_id": p.model_id,
                "environment": p.environment,
                "status": p.status.value,
            },
        )
        self.replicas = documents(
            schema.replicas,
            domain.Replica,
            lambda r: {"id": r.id, "deployment_id": r.deployment_id, "state": r.state.value},
        )
        self.secrets = documents(
            schema.secrets, domain.Secret, lambda s: {"team_id": s.team_id, "name": s.name}
        )
        self.api_keys = documents(
            schema.api_keys, domain.ApiKey, lambda k: {"prefix": k.prefix, "digest": k.digest}
        )
        self.uploads = documents(
            schema.uploads,
            domain.Upload,
            lambda u: {"key": u.key, "access_key_id": u.access_key_id},
        )

    def secret_value(self, secret_id: str) -> bytes | None:
        """The ciphertext of a secret."""
        query = sa.select(schema.secret_values.c.ciphertext).where(
            schema.secret_values.c.id == secret_id
        )
        value = self.connection.execute(query).scalar_one_or_none()
        return None if value is None else bytes(value)

    def put_secret_value(self, secret_id: str, ciphertext: bytes) -> None:
        self.drop_secret_value(secret_id)
        self.connection.execute(
            sa.insert(schema.secret_values).values(id=secret_id, ciphertext=ciphertext)
        )

    def drop_secret_value(self, secret_id: str) -> None:
        self.connection.execute(
            sa.delete(schema.secret_values).where(schema.secret_values.c.id == secret_id)
        )

    def patches(self, deployment_id: str) -> list[tuple[str, Patch]]:
        """State and content of each, in the order in which they were staged."""
        rows = self.connection.execute(
            sa.select(schema.patches.c.state, schema.patches.c.body)
            .where(schema.patches.c.deployment_id == deployment_id)
            .order_by(schema.patches.c.number)
        )
        return [(state, msgspec.json.decode(body, type=Patch)) for state, body in rows]

    def add_patch(self, deployment_id: str, state: str, patch: Patch) -> None:
        table = schema.patches
        last = self.connection.execute(
            sa.select(sa.func.max(table.c.number)).where(table.c.deployment_id == deployment_id)
        ).scalar_one()
        self.connection.execute(
            sa.insert(table).values(
                deployment_id=deployment_id,
                number=(last or 0) + 1,
                state=state,
                body=msgspec.json.encode(patch),
            )
        )

    def mark_patches(self, deployment_id: str, old: str, new: str) -> None:
        table = schema.patches
        self.connection.execute(
            sa.update(table)
            .where(table.c.deployment_id == deployment_id, table.c.state == old)
            .values(state=new)
        )

    def drop_patches(self, deployment_id: str, state: str | None = None) -> None:
        table = schema.patches
        where = [table.c.deployment_id == deployment_id]
        if state is not None:
            where.append(table.c.state == state)
        self.connection.execute(sa.delete(table).where(*where))


class Store:
    """The database of one control plane."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": 10})
        sa.event.listen(self._engine, "connect", _on_connect)

    def migrate(self) -> None:
        """Bring the schema to this release's, from any older one."""
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", "kingpost.control:migrations")
        with self._engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    @contextmanager
    def begin(self) -> Iterator[Transaction]:
        """A transaction: committed at the end, rolled back by any exception."""
        try:
            with self._engine.begin() as connection:
                yield Transaction(connection)
        except OperationalError as error:
            if "full" in str(error.orig):
                raise StorageFullError(
                    "The disk that holds the data folder is full; nothing was changed. "
                    "Free some space and repeat the request."
                ) from error
            raise

    def close(self) -> None:
        self._engine.dispose()


def _version(value: msgspec.Struct) -> int:
    return int(getattr(value, "version", 0))


def _on_connect(connection: Any, _record: Any) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
