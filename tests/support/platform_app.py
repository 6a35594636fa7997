"""A platform over a folder of its own, its app, and a client for it. No processes."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import msgspec
from starlette.types import ASGIApp

from kingpost.api.app import make_app
from kingpost.build.base import Runnable, Validation
from kingpost.contract import DeploymentStatus, KeyCategory
from kingpost.control import instances
from kingpost.control.domain import Deployment, Replica, ReplicaState, utc_now
from kingpost.control.events import Events
from kingpost.control.platform import Platform, make_platform
from kingpost.control.pushes import Push
from kingpost.control.store import Store
from kingpost.settings import DataFolder, Limits, Settings

AUTHORITY = "localhost:8000"
BASE_URL = f"http://{AUTHORITY}"


async def validate(config: dict[str, Any]) -> Validation:
    """What truss says where these tests ask: a config needs a model_name that is text."""
    if not isinstance(config.get("model_name"), str):
        return Validation(errors=("model_name: a text is needed.",))
    warnings = ("python_version is old",) if config.get("python_version") == "py38" else ()
    return Validation(warnings=warnings, parsed=config)


@dataclass(frozen=True)
class World:
    """A platform with everything that tests look behind the doors with."""

    platform: Platform
    store: Store
    app: ASGIApp
    key: str

    @property
    def team_id(self) -> str:
        return self.platform.teams.default.id

    def auth(self, key: str | None = None) -> dict[str, str]:
        return {"Authorization": f"Api-Key {key or self.key}"}

    def new_key(self, category: KeyCategory) -> str:
        return self.platform.keys.create(self.team_id, name="test", category=category).value

    @asynccontextmanager
    async def client(self, key: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
        transport = httpx.ASGITransport(app=self.app)
        async with httpx.AsyncClient(
            transport=transport, base_url=BASE_URL, headers=self.auth(key)
        ) as client:
            yield client

    def push(self, name: str = "demo", content: bytes = b"an archive", **more: Any) -> Deployment:
        """A deployment of a new model, or of an existing one with `model_id=`."""
        digest = self.archive(content)
        target = {} if "model_id" in more else {"model_name": name}
        config = more.pop("config", {"model_name": name})
        _, deployment = self.platform.pushes.push(
            Push(team_id=self.team_id, config=config, archive=digest, **target, **more)
        )
        return deployment

    def archive(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        file = self.platform.uploads.archive(digest)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return digest

    def change(self, deployment_id: str, **fields: Any) -> Deployment:
        """What a controller would have written."""
        with self.store.begin() as tx:
            old = tx.deployments.get(id=deployment_id)
            assert old is not None
            return tx.deployments.update(msgspec.structs.replace(old, **fields))

    def activate(self, deployment_id: str, environment: str | None = None) -> Deployment:
        """As after a good start: built, one replica ready, serving `environment` if named."""
        runnable = Runnable(
            argv=("true",), cwd="/", port=8080, truss_hash="h1", truss_signature='{"a": 1}'
        )
        done = self.change(
            deployment_id,
            status=DeploymentStatus.ACTIVE,
            runnable=runnable,
            ever_active=True,
            environment=environment,
            target_environment=None,
        )
        with self.store.begin() as tx:
            tx.replicas.insert(
                Replica(
                    id=f"r{deployment_id}",
                    deployment_id=deployment_id,
                    state=ReplicaState.READY,
                    created_at=utc_now(),
                )
            )
            if environment is not None:
                row = tx.environments.get(model_id=done.model_id, name=environment)
                assert row is not None
                tx.environments.update(
                    msgspec.structs.replace(row, current=deployment_id, candidate=None)
                )
        return done


def make_world(folder: Path, *, limits: Limits | None = None) -> World:
    settings = Settings(data=DataFolder(folder), limits=limits or Limits())
    settings.data.database.write_bytes(_migrated())
    store = Store(settings.data.database)
    platform = make_platform(
        settings,
        store,
        events=Events(),
        validate=validate,
        instance_types=instances.CPU_TYPES,
    )
    key = platform.keys.create(
        platform.teams.default.id, name="admin", category=KeyCategory.WORKSPACE_MANAGE_ALL
    )
    return World(platform, store, make_app(platform), key.value)


@cache
def _migrated() -> bytes:
    """An empty database of today's schema, made once."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "empty.sqlite3"
        store = Store(path)
        store.migrate()
        with store.begin() as tx:
            tx.connection.exec_driver_sql("SELECT 1")
        store.close()
        return path.read_bytes()
