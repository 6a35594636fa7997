"""What replicas are given beside their spec, at their start and whenever it changes after.

Secrets of their team go to `/secrets`, the name of their environment to `/etc/b10_dynamic_config`.
"""

from __future__ import annotations

from collections.abc import Iterable

from kingpost.build.base import Runnable
from kingpost.control.background import Background
from kingpost.control.domain import Deployment, Replica, ReplicaState, Wanted
from kingpost.control.events import Events
from kingpost.control.secrets import Secrets
from kingpost.control.specs import dynamic_config, replica_spec
from kingpost.control.store import Store
from kingpost.engine.base import Address, Engine
from kingpost.errors import EngineError
from kingpost.settings import Settings

_RUNNING = frozenset({ReplicaState.STARTED, ReplicaState.READY})


class Upkeep:
    def __init__(
        self, settings: Settings, store: Store, engine: Engine, secrets: Secrets, events: Events
    ) -> None:
        self._settings = settings
        self._store = store
        self._engine = engine
        self._secrets = secrets
        self._dynamic: dict[str, dict[str, str]] = {}
        self._background = Background()
        events.secret.subscribe(lambda team: self._background.spawn(self._secrets_changed(team)))

    async def start(self, deployment: Deployment, runnable: Runnable, row: Replica) -> Address:
        """Start a replica with what it needs to know. Raises EngineError, OSError."""
        team = self._team(deployment)
        spec = replica_spec(deployment, runnable, row, self._settings, team)
        dynamic = dynamic_config(deployment)
        secrets = self._secrets.values(team, runnable.secret_names)
        address = await self._engine.start(spec, secrets, dynamic)
        self._dynamic[row.id] = dynamic
        changed = self._secrets.values(team, runnable.secret_names)
        if changed != secrets:  # while it was being started
            await self._engine.put_secrets(row.id, changed)
        return address

    async def refresh(self, deployment: Deployment, rows: Iterable[Replica]) -> None:
        """Tell running replicas when their environment is another than they were told."""
        wanted = dynamic_config(deployment)
        for row in rows:
            if row.state in _RUNNING and self._dynamic.get(row.id) != wanted:
                await self._engine.put_dynamic(row.id, wanted)
                self._dynamic[row.id] = wanted

    def forget(self, replica_id: str) -> None:
        self._dynamic.pop(replica_id, None)

    async def close(self) -> None:
        await self._background.close()

    async def _secrets_changed(self, team_id: str) -> None:
        with self._store.begin() as tx:
            models = {model.id for model in tx.models.find(team_id=team_id)}
            deployments = [d for d in tx.deployments.find() if d.model_id in models]
            rows = {d.id: tx.replicas.find(deployment_id=d.id) for d in deployments}
        for deployment in deployments:
            if deployment.runnable is None or deployment.wanted is Wanted.DELETED:
                continue
            secrets = self._secrets.values(team_id, deployment.runnable.secret_names)
            for row in rows[deployment.id]:
                if row.state in _RUNNING:
                    await self._engine.put_secrets(row.id, secrets)

    def _team(self, deployment: Deployment) -> str:
        """The team that the deployment's model belongs to; its replicas run as it."""
        with self._store.begin() as tx:
            model = tx.models.get(id=deployment.model_id)
        if model is None:
            raise EngineError("The model was deleted while a replica was being started.")
        return model.team_id
