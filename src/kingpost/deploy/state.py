"""What was deployed where, in one local SQLite file: written before and after each step."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from kingpost.deploy.plan import Plan, money
from kingpost.deploy.provider import Endpoint, Resource, State
from kingpost.errors import ConflictError, InvalidInputError, NotFoundError

VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE services (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL, provider TEXT NOT NULL, remote TEXT,
  state TEXT NOT NULL, plan TEXT NOT NULL, usd_per_hour TEXT, price_as_of TEXT,
  endpoint TEXT, health TEXT, created_at TEXT NOT NULL, updated_at TEXT NOT NULL
);
CREATE UNIQUE INDEX one_at_a_time ON services (name) WHERE state != 'destroyed';
CREATE TABLE resources (
  id INTEGER PRIMARY KEY, service INTEGER NOT NULL REFERENCES services (id), kind TEXT NOT NULL,
  name TEXT NOT NULL, ref TEXT, deleted INTEGER NOT NULL DEFAULT 0, at TEXT NOT NULL
);
CREATE TABLE changes (
  service INTEGER NOT NULL REFERENCES services (id), state TEXT NOT NULL, note TEXT NOT NULL,
  at TEXT NOT NULL
);
"""


@dataclass(frozen=True)
class Service:
    """One row; `plan` is as `Plan.to_json` gives it. `remote` is which platform was meant."""

    id: int
    name: str
    provider: str
    remote: str | None
    state: State
    plan: Mapping[str, Any]
    usd_per_hour: str | None
    price_as_of: str | None
    endpoint: str | None
    health: str | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class Change:
    state: State
    note: str
    at: datetime


def state_path(env: Mapping[str, str]) -> Path:
    """`$XDG_STATE_HOME/kingpost/deployments.sqlite3`, below `~/.local/state` when it is not set."""
    base = env.get("XDG_STATE_HOME") or ""
    home = Path(env.get("HOME", "~")).expanduser()
    root = Path(base) if base.startswith("/") else home / ".local/state"
    return root / "kingpost" / "deployments.sqlite3"


class Deployments:
    """Services by name. Of several processes that claim one name, one wins."""

    def __init__(self, path: Path) -> None:
        self._file = File(path)

    def close(self) -> None:
        self._file.db.close()

    def claim(self, plan: Plan, remote: str | None) -> ServiceRecord:
        """Write the plan down under its name. Raises ConflictError when the name is in use."""
        now = _now()
        values = (plan.service, plan.provider, remote, State.DEPLOYING, json.dumps(plan.to_json()))
        prices = (money(plan.usd_per_hour), plan.price_as_of, now, now)
        try:
            with self._file.transaction():
                cursor = self._file.db.execute(
                    "INSERT INTO services (name, provider, remote, state, plan, usd_per_hour, "
                    "price_as_of, created_at, updated_at) VALUES (?,?,?,?,?,?,?,?,?)",
                    values + prices,
                )
                made = int(cursor.lastrowid or 0)
                self._file.change(made, State.DEPLOYING, "planned")
        except sqlite3.IntegrityError:
            there = self.get(plan.service)
            raise ConflictError(
                f"{plan.service} is {there.state} since {there.updated_at:%Y-%m-%d %H:%M} UTC. "
                f"Choose another --service-name, or: kingpost destroy {plan.service}"
            ) from None
        return ServiceRecord(self._file, made)

    def get(self, name: str) -> Service:
        """The service of that name, or the last one that had it. Raises NotFoundError."""
        found = self.find(name)
        if found is None:
            known = ", ".join(sorted({service.name for service in self.all()})) or "none yet"
            raise NotFoundError(f"Nothing was deployed as {name!r} from here (known: {known}).")
        return found

    def find(self, name: str) -> Service | None:
        row = self._file.db.execute(
            "SELECT * FROM services WHERE name = ? ORDER BY state = 'destroyed', id DESC", (name,)
        ).fetchone()
        return None if row is None else _service(row)

    def all(self) -> tuple[Service, ...]:
        rows = self._file.db.execute("SELECT * FROM services ORDER BY id").fetchall()
        return tuple(_service(row) for row in rows)

    def changes(self, service: Service) -> tuple[Change, ...]:
        rows = self._file.db.execute(
            "SELECT * FROM changes WHERE service = ? ORDER BY rowid", (service.id,)
        )
        return tuple(Change(State(r["state"]), r["note"], _moment(r["at"])) for r in rows)

    def record(self, service: Service) -> ServiceRecord:
        return ServiceRecord(self._file, service.id)


class ServiceRecord:
    """What one service's provider reads and writes; a `Record` of `kingpost.deploy.provider`."""

    def __init__(self, file: File, service_id: int) -> None:
        self._file = file
        self._id = service_id

    @property
    def row(self) -> Service:
        found = self._file.db.execute("SELECT * FROM services WHERE id = ?", (self._id,))
        return _service(found.fetchone())

    @property
    def service(self) -> str:
        return self.row.name

    @property
    def plan(self) -> Mapping[str, Any]:
        return self.row.plan

    def resources(self) -> tuple[Resource, ...]:
        rows = self._file.db.execute(
            "SELECT * FROM resources WHERE service = ? AND NOT deleted ORDER BY id", (self._id,)
        )
        return tuple(Resource(r["id"], r["kind"], r["name"], r["ref"]) for r in rows)

    def intend(self, kind: str, name: str) -> Resource:
        with self._file.transaction() as db:
            if self.row.state is not State.DEPLOYING:
                raise ConflictError(
                    f"{self.service} is {self.row.state} by another command, so nothing more is "
                    "created for it."
                )
            cursor = db.execute(
                "INSERT INTO resources (service, kind, name, at) VALUES (?,?,?,?)",
                (self._id, kind, name, _now()),
            )
        return Resource(int(cursor.lastrowid or 0), kind, name, None)

    def created(self, resource: Resource, ref: str) -> None:
        with self._file.transaction() as db:
            db.execute("UPDATE resources SET ref = ? WHERE id = ?", (ref, resource.id))

    def deleted(self, resource: Resource) -> None:
        with self._file.transaction() as db:
            db.execute("UPDATE resources SET deleted = 1 WHERE id = ?", (resource.id,))

    def set_state(self, state: State, note: str, *, only_from: State | None = None) -> bool:
        """Whether it was changed; with `only_from`, only when that is the state now."""
        with self._file.transaction() as db:
            if only_from is not None and self.row.state is not only_from:
                return False
            db.execute(
                "UPDATE services SET state = ?, updated_at = ? WHERE id = ?",
                (state, _now(), self._id),
            )
            self._file.change(self._id, state, note)
        return True

    def set_endpoint(self, endpoint: Endpoint) -> None:
        with self._file.transaction() as db:
            db.execute(
                "UPDATE services SET endpoint = ?, health = ? WHERE id = ?",
                (endpoint.url, endpoint.health_url, self._id),
            )


class File:
    """The open file. Several processes may have it open at once."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        self.db = sqlite3.connect(path, timeout=30.0, isolation_level=None)
        self.db.row_factory = sqlite3.Row
        self.db.execute("PRAGMA synchronous = FULL")
        self._migrate(path)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield self.db
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    def change(self, service_id: int, state: State, note: str) -> None:
        self.db.execute(
            "INSERT INTO changes (service, state, note, at) VALUES (?,?,?,?)",
            (service_id, state, note, _now()),
        )

    def _migrate(self, path: Path) -> None:
        with self.transaction():
            (version,) = self.db.execute("PRAGMA user_version").fetchone()
            if version > VERSION:
                raise InvalidInputError(
                    f"{path} was written by a newer kingpost (its version is {version}, this one "
                    f"knows {VERSION}). Use that one, or move the file away."
                )
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    self.db.execute(statement)
                self.db.execute(f"PRAGMA user_version = {VERSION}")


def _service(row: sqlite3.Row) -> Service:
    values = {name: row[name] for name in row.keys()}  # noqa: SIM118  # iterating gives values
    values["state"] = State(values["state"])
    values["plan"] = json.loads(values["plan"])
    for name in ("created_at", "updated_at"):
        values[name] = _moment(values[name])
    return Service(**values)


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
