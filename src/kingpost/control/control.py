"""The control plane as one object: its parts made, started in order, and ended in order."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from pathlib import Path
from typing import IO

from kingpost.build.builder import Builder
from kingpost.control import inventory, promotion
from kingpost.control.builds import BuildController
from kingpost.control.domain import Deployment
from kingpost.control.events import Events
from kingpost.control.feed import Feed
from kingpost.control.janitor import Janitor
from kingpost.control.patience import RETRY_S
from kingpost.control.platform import Platform, make_platform
from kingpost.control.replicas import Gateway, Replicas
from kingpost.control.scaler import Scaler
from kingpost.control.store import Store
from kingpost.control.upkeep import Upkeep
from kingpost.control.vault import new_key, write_private
from kingpost.engine.load import make_engine
from kingpost.errors import ConflictError, StaleWriteError, StorageFullError
from kingpost.messages import LoadReport, Notice
from kingpost.settings import DataFolder, Settings

log = logging.getLogger(__name__)


class Control:
    """Exactly one per data folder, by lock. `start` returns when everything is adopted."""

    def __init__(self, settings: Settings, *, operator_key: str | None = None) -> None:
        self.settings = settings
        self._operator_key = operator_key
        self._lock: IO[str] | None = None
        self._feed_task: asyncio.Task[None] | None = None
        self.platform: Platform

    async def start(self) -> None:
        settings = self.settings
        self._lock = _lock(settings.data)
        self.store = Store(settings.data.database)
        self.store.migrate()
        machine = inventory.look(settings)
        self.engine = make_engine(settings)
        await self.engine.prepare()
        self.builder = Builder(settings.data, self.engine, settings.limits)
        events = Events()
        self.platform = platform = make_platform(
            settings,
            self.store,
            events=events,
            validate=self.builder.validate,
            instance_types=inventory.instance_types(settings, machine),
        )
        self._ensure_operator_key()
        self.builds = BuildController(
            settings,
            self.store,
            self.builder,
            platform.secrets,
            platform.uploads,
            platform.logs,
            events,
        )
        self.replicas = Replicas(
            settings,
            self.store,
            self.engine,
            Upkeep(settings, self.store, self.engine, platform.secrets, events),
            platform.logs,
            events,
            machine,
        )
        self.janitor = Janitor(
            settings, self.store, platform.uploads, platform.logs, self.builder, events
        )
        self.scaler = Scaler(self.store, platform.logs, events)
        self.feed = Feed(
            self.store,
            platform.keys,
            events,
            settings.data.gateway_socket,
            notices=self._notices,
            on_load=self._on_load,
            on_wake=self.scaler.wake,
            on_connected=self.scaler.connected,
        )
        self.replicas.before_traffic = platform.drafts.replay
        self.replicas.gateway = Gateway(self.feed.connected.is_set, lambda: self.feed.number)
        events.route.subscribe(self._promote)
        events.deployment.subscribe(self._promote)
        await self.replicas.adopt()
        self.scaler.start()
        self.builds.resume()
        await self.builder.start()
        self._feed_task = asyncio.get_running_loop().create_task(self.feed.run())
        self.janitor.start()

    async def stop(self, *, stop_replicas: bool) -> None:
        """End in order: builds, replicas (or let them run on), then what they stood on."""
        await self.janitor.close()
        await self.builds.close()
        if stop_replicas:
            await self.replicas.stop_all(self.settings.limits.stop_grace_s)
        else:
            await self.replicas.close()
        if self._feed_task is not None:
            self._feed_task.cancel()
            await asyncio.gather(self._feed_task, return_exceptions=True)
        await self.builder.close()
        await self.engine.close()
        self.store.close()
        if self._lock is not None:
            self._lock.close()

    def _ensure_operator_key(self) -> None:
        """`KINGPOST_API_KEY` is the admin key when set; else one is made at the first start."""
        data, platform = self.settings.data, self.platform
        team = platform.teams.default.id
        if self._operator_key:
            platform.keys.ensure(self._operator_key, team, "operator")
            write_private(data.admin_key, self._operator_key.encode() + b"\n")
        elif data.admin_key.exists():
            platform.keys.ensure(data.admin_key.read_text().strip(), team, "operator")
        else:
            value, _ = new_key()
            write_private(data.admin_key, value.encode() + b"\n")
            platform.keys.ensure(value, team, "operator")

    def _notices(self) -> tuple[Notice, ...]:
        return self.engine.notices

    def _on_load(self, report: LoadReport) -> None:
        self.replicas.on_load(report)
        self.scaler.on_load(report)

    def _promote(self, deployment_id: str) -> None:
        """Carry promotions on when a deployment that is on its way somewhere has changed."""
        with self.store.begin() as tx:
            deployment = tx.deployments.get(id=deployment_id)
        if deployment is not None and deployment.target_environment is not None:
            self._carry_on(deployment)

    def _carry_on(self, deployment: Deployment) -> None:
        name = deployment.target_environment or ""
        try:
            with self.store.begin() as tx:
                changed = promotion.carry_on(
                    tx, deployment.model_id, name, self.platform.instance_types
                )
        except StaleWriteError:
            asyncio.get_running_loop().call_soon(self._promote, deployment.id)
            return
        except StorageFullError:
            asyncio.get_running_loop().call_later(RETRY_S, self._promote, deployment.id)
            return
        for changed_id in changed:
            self.platform.events.deployment(changed_id)
        if changed:
            self.platform.events.model(deployment.model_id)


def _lock(data: DataFolder) -> IO[str]:
    """One control plane per data folder. Raises ConflictError when another has it."""
    data.root.mkdir(parents=True, exist_ok=True)
    handle = Path(data.lock).open("a+")  # noqa: SIM115 (held for the process's life)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.close()
        raise ConflictError(
            "Another control plane uses this data folder. Stop it first, or start this one with "
            "another --data-dir."
        ) from error
    handle.truncate(0)
    handle.write(f"{os.getpid()}\n")
    handle.flush()
    return handle
