"""The tables. A row is a few columns to find it by, its version, and the value itself as JSON."""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _document(name: str, *columns: sa.Column[str], unique: tuple[str, ...] = ()) -> sa.Table:
    constraints = [sa.UniqueConstraint(*unique)] if unique else []
    return sa.Table(
        name,
        metadata,
        *columns,
        sa.Column("version", sa.Integer, nullable=False, default=0),
        sa.Column("body", sa.LargeBinary, nullable=False),
        *constraints,
    )


def _key(name: str = "id") -> sa.Column[str]:
    return sa.Column(name, sa.String(512), primary_key=True)


def _column(name: str, *, index: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(512), nullable=False, index=index)


teams = _document("teams", _key(), _column("name"), unique=("name",))
models = _document(
    "models", _key(), _column("team_id"), _column("name"), unique=("team_id", "name")
)
deployments = _document(
    "deployments",
    _key(),
    _column("model_id", index=True),
    _column("name"),
    _column("status", index=True),
    unique=("model_id", "name"),
)
environments = _document("environments", _key("model_id"), _key("name"))
promotions = _document(
    "promotions", _key(), _column("model_id"), _column("environment"), _column("status", index=True)
)
replicas = _document("replicas", _key(), _column("deployment_id", index=True), _column("state"))
secrets = _document("secrets", _key("team_id"), _key("name"))
secret_values = sa.Table(
    "secret_values",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("ciphertext", sa.LargeBinary, nullable=False),
)
api_keys = _document("api_keys", _key("prefix"), _column("digest"), unique=("digest",))
uploads = _document("uploads", _key("key"), _column("access_key_id", index=True))
patches = sa.Table(
    "patches",
    metadata,
    sa.Column("deployment_id", sa.String(64), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
)
"""Patches of a development deployment, in order; `state` is `staged` or `applied`."""
