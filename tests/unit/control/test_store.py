"""The store: guarded writes, and migrations that make what the tables say."""

from __future__ import annotations

import msgspec
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from kingpost.control.domain import Deployment, utc_now
from kingpost.control.schema import metadata
from kingpost.control.store import Store
from kingpost.errors import ConflictError, StaleWriteError


def make() -> Deployment:
    return Deployment(id="d", model_id="m", name="one", created_at=utc_now(), status_at=utc_now())


def test_a_stale_write_loses(store: Store) -> None:
    with store.begin() as tx:
        first = tx.deployments.insert(make())
        tx.deployments.update(msgspec.structs.replace(first, name="two"))
    with pytest.raises(StaleWriteError), store.begin() as tx:
        tx.deployments.update(msgspec.structs.replace(first, name="three"))
    with store.begin() as tx:
        row = tx.deployments.get(id="d")
    assert row is not None
    assert (row.name, row.version) == ("two", 1)


def test_names_are_unique_within_a_model(store: Store) -> None:
    twin = msgspec.structs.replace(make(), id="other")
    with store.begin() as tx:
        tx.deployments.insert(make())
    with pytest.raises(ConflictError), store.begin() as tx:
        tx.deployments.insert(twin)
    with store.begin() as tx:
        assert [row.id for row in tx.deployments.find()] == ["d"]


def test_migrations_and_tables_agree(store: Store) -> None:
    engine = sa.create_engine(f"sqlite:///{store.path}")
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    engine.dispose()
    assert differences == []


def test_migrating_twice_changes_nothing(store: Store) -> None:
    with store.begin() as tx:
        tx.deployments.insert(make())
    store.migrate()
    with store.begin() as tx:
        assert tx.deployments.count() == 1
