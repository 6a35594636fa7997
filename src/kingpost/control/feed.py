"""Keeps the gateway's picture of the world true: a snapshot at connecting, then deltas.

Reads load reports. Knows nothing of what they lead to; `on_load` and `on_wake` do.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import msgspec

from kingpost import messages
from kingpost.control.domain import Deployment, Environment, Replica, Wanted, utc_now
from kingpost.control.events import Events
from kingpost.control.keys import Keys
from kingpost.control.routes import deployment_route, key_record, model_route
from kingpost.control.store import Store, Transaction
from kingpost.messages import (
    Delta,
    DeploymentRoute,
    Hello,
    KeyRecord,
    LoadReport,
    ModelRoute,
    Notice,
    Snapshot,
    WakeRequested,
)

log = logging.getLogger(__name__)

RECONNECT_S = 0.2
_LENGTH = struct.Struct(">I")
_decoder = msgspec.msgpack.Decoder(messages.ToControl)
_encoder = msgspec.msgpack.Encoder()


@dataclass
class World:
    """What the gateway has been told, by id."""

    models: dict[str, ModelRoute] = field(default_factory=dict)
    deployments: dict[str, DeploymentRoute] = field(default_factory=dict)
    keys: dict[str, KeyRecord] = field(default_factory=dict)


class Feed:
    """One connection at a time, made again when it breaks."""

    def __init__(
        self,
        store: Store,
        keys: Keys,
        events: Events,
        socket: Path,
        *,
        notices: Callable[[], tuple[Notice, ...]],
        on_load: Callable[[LoadReport], None],
        on_wake: Callable[[str], None],
        on_connected: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._keys = keys
        self._socket = socket
        self._notices = notices
        self._on_load = on_load
        self._on_wake = on_wake
        self._on_connected = on_connected
        self._world = World()
        self._number = 0
        self._writer: asyncio.StreamWriter | None = None
        self._dirty_models: set[str] = set()
        self._dirty_deployments: set[str] = set()
        self._keys_dirty = False
        self._flushing = False
        self.connected = asyncio.Event()
        events.model.subscribe(self._model_changed)
        events.deployment.subscribe(self._deployment_changed)
        events.route.subscribe(self._deployment_changed)
        events.key.subscribe(self._key_changed)

    @property
    def number(self) -> int:
        """The number of the last state that was sent."""
        return self._number

    async def run(self) -> None:
        """Connect and serve, for ever."""
        while True:
            try:
                reader, self._writer = await asyncio.open_unix_connection(str(self._socket))
            except OSError:
                await asyncio.sleep(RECONNECT_S)
                continue
            try:
                await self._serve(reader)
            except (OSError, asyncio.IncompleteReadError, msgspec.MsgspecError) as error:
                log.warning("gateway connection lost", extra={"error": str(error)})
            finally:
                self.connected.clear()
                self._writer.close()
                self._writer = None
            await asyncio.sleep(RECONNECT_S)

    async def _serve(self, reader: asyncio.StreamReader) -> None:
        while True:
            (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
            if length > messages.MAX_FRAME_BYTES:
                raise OSError(f"a frame of {length} bytes")
            message = _decoder.decode(await reader.readexactly(length))
            match message:
                case Hello():
                    self._send_snapshot(message)
                case LoadReport():
                    self._on_load(message)
                case WakeRequested():
                    self._on_wake(message.deployment_id)

    def _send_snapshot(self, hello: Hello) -> None:
        with self._store.begin() as tx:
            self._world = _world(tx, self._keys, utc_now())
        self._number = max(self._number, hello.number) + 1
        self._dirty_models.clear()
        self._dirty_deployments.clear()
        self._keys_dirty = False
        self._send(
            Snapshot(
                number=self._number,
                models=tuple(self._world.models.values()),
                deployments=tuple(self._world.deployments.values()),
                keys=tuple(self._world.keys.values()),
                notices=self._notices(),
            )
        )
        self.connected.set()
        self._on_connected()

    def _send(self, message: messages.ToGateway) -> None:
        if self._writer is None:
            return
        body = _encoder.encode(message)
        self._writer.write(_LENGTH.pack(len(body)) + body)

    def _model_changed(self, model_id: str) -> None:
        self._dirty_models.add(model_id)
        self._flush_soon()

    def _deployment_changed(self, deployment_id: str) -> None:
        self._dirty_deployments.add(deployment_id)
        self._flush_soon()

    def _key_changed(self, _prefix: str) -> None:
        self._keys_dirty = True
        self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        """One delta for all that changed since the last one."""
        self._flushing = False
        if not self.connected.is_set():
            return
        with self._store.begin() as tx:
            delta = self._delta(tx, utc_now())
        if delta is not None:
            self._number = delta.number
            self._send(delta)

    def _delta(self, tx: Transaction, now: datetime) -> Delta | None:
        deployments, gone_deployments, models_too = self._changed_deployments(tx, now)
        models, gone_models = self._changed_models(tx, self._dirty_models | models_too)
        keys, gone_keys = self._changed_keys()
        self._dirty_models, self._dirty_deployments, self._keys_dirty = set(), set(), False
        parts = (deployments, gone_deployments, models, gone_models, keys, gone_keys)
        if not any(parts):
            return None
        return Delta(
            number=self._number + 1,
            models=tuple(models),
            deployments=tuple(deployments),
            keys=tuple(keys),
            removed_models=tuple(gone_models),
            removed_deployments=tuple(gone_deployments),
            removed_keys=tuple(gone_keys),
        )

    def _changed_deployments(
        self, tx: Transaction, now: datetime
    ) -> tuple[list[DeploymentRoute], list[str], set[str]]:
        changed, gone, models = [], [], set()
        known = self._world.deployments
        for deployment_id in self._dirty_deployments:
            row = tx.deployments.get(id=deployment_id)
            if row is None or row.wanted is Wanted.DELETED:
                if known.pop(deployment_id, None):
                    gone.append(deployment_id)
                continue
            models.add(row.model_id)
            route = deployment_route(row, tx.replicas.find(deployment_id=deployment_id), now)
            if known.get(deployment_id) != route:
                known[deployment_id] = route
                changed.append(route)
        return changed, gone, models

    def _changed_models(
        self, tx: Transaction, dirty: set[str]
    ) -> tuple[list[ModelRoute], list[str]]:
        changed, gone = [], []
        known = self._world.models
        for model_id in dirty:
            model = tx.models.get(id=model_id)
            if model is None:
                if known.pop(model_id, None):
                    gone.append(model_id)
                continue
            route = model_route(
                model,
                tx.environments.find(model_id=model_id),
                tx.deployments.find(model_id=model_id),
            )
            if known.get(model_id) != route:
                known[model_id] = route
                changed.append(route)
        return changed, gone

    def _changed_keys(self) -> tuple[list[KeyRecord], list[str]]:
        if not self._keys_dirty:
            return [], []
        fresh = {key.prefix: key_record(key) for key in self._keys.all()}
        known = self._world.keys
        changed = [record for prefix, record in fresh.items() if known.get(prefix) != record]
        gone = [prefix for prefix in known if prefix not in fresh]
        self._world.keys = fresh
        return changed, gone


def _world(tx: Transaction, keys: Keys, now: datetime) -> World:
    """Everything, by a handful of queries."""
    deployments = {d.id: d for d in tx.deployments.find() if d.wanted is not Wanted.DELETED}
    replicas = defaultdict[str, list[Replica]](list)
    for replica in tx.replicas.find():
        replicas[replica.deployment_id].append(replica)
    environments = defaultdict[str, list[Environment]](list)
    for environment in tx.environments.find():
        environments[environment.model_id].append(environment)
    drafts = defaultdict[str, list[Deployment]](list)
    for deployment in deployments.values():
        if deployment.is_development:
            drafts[deployment.model_id].append(deployment)
    return World(
        models={
            model.id: model_route(model, environments[model.id], drafts[model.id])
            for model in tx.models.find()
        },
        deployments={d.id: deployment_route(d, replicas[d.id], now) for d in deployments.values()},
        keys={key.prefix: key_record(key) for key in keys.all()},
    )
