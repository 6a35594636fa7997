"""Builds: deployments that are BUILDING, a few at once, each with its log, deadline and stop."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Protocol

import msgspec

from kingpost.build.base import BuildRequest, Runnable
from kingpost.contract import DeploymentStatus as S
from kingpost.control.deployments import first_goal
from kingpost.control.domain import Deployment, Wanted, utc_now
from kingpost.control.events import Events
from kingpost.control.logs import Logs
from kingpost.control.patience import until_stored
from kingpost.control.secrets import Secrets
from kingpost.control.store import Store
from kingpost.control.uploads import Uploads
from kingpost.engine.base import OnLine
from kingpost.errors import BuildStoppedError, KingpostError, StaleWriteError
from kingpost.settings import Settings

log = logging.getLogger(__name__)


class Builds(Protocol):
    async def build(self, request: BuildRequest, on_line: OnLine) -> Runnable: ...


class BuildController:
    def __init__(
        self,
        settings: Settings,
        store: Store,
        builder: Builds,
        secrets: Secrets,
        uploads: Uploads,
        logs: Logs,
        events: Events,
    ) -> None:
        self._settings = settings
        self._store = store
        self._builder = builder
        self._secrets = secrets
        self._uploads = uploads
        self._logs = logs
        self._events = events
        self._slots = asyncio.Semaphore(settings.limits.concurrent_builds)
        self._running: dict[str, asyncio.Task[None]] = {}
        events.deployment.subscribe(self._look)

    def resume(self) -> None:
        """After a start of control: what was building is built again, from its archive."""
        with self._store.begin() as tx:
            building = tx.deployments.find(status=S.BUILDING.value)
        for deployment in building:
            self._look(deployment.id)

    async def close(self) -> None:
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _look(self, deployment_id: str) -> None:
        with self._store.begin() as tx:
            deployment = tx.deployments.get(id=deployment_id)
        task = self._running.get(deployment_id)
        wanted = (
            deployment is not None
            and deployment.wanted is Wanted.RUNNING
            and deployment.status is S.BUILDING
        )
        if task is not None and not wanted:
            task.cancel()
        elif task is None and wanted:
            task = asyncio.get_running_loop().create_task(self._run(deployment_id))
            self._running[deployment_id] = task
            task.add_done_callback(lambda _: self._done(deployment_id))

    def _done(self, deployment_id: str) -> None:
        """Forget the task; look again, since the wish may have changed while it ended."""
        self._running.pop(deployment_id, None)
        self._events.deployment(deployment_id)

    async def _run(self, deployment_id: str) -> None:
        with self._logs.writer(deployment_id) as say:
            if self._slots.locked():
                say("Waiting for another build to end.")
            async with self._slots:
                await self._build(deployment_id, say)

    async def _build(self, deployment_id: str, say: OnLine) -> None:
        with self._store.begin() as tx:
            deployment = tx.deployments.get(id=deployment_id)
            model = tx.models.get(id=deployment.model_id) if deployment else None
        if deployment is None or model is None:
            return

        async def secret(name: str) -> str | None:
            return self._secrets.values(model.team_id, [name]).get(name)

        request = BuildRequest(
            deployment_id=deployment.id,
            user=model.team_id,
            archive=Path(self._uploads.archive(deployment.archive)),
            no_cache=deployment.no_cache,
            development=deployment.is_development,
            secret=secret,
            deadline_s=deployment.deploy_timeout_s or self._settings.limits.build_deadline_s,
        )
        try:
            runnable = await self._builder.build(request, say)
        except BuildStoppedError as error:
            say(f"Build stopped: {error.message}")
            await self._finish(deployment_id, S.BUILD_STOPPED, error.message, None)
        except KingpostError as error:
            say(f"Build failed: {error.message}")
            await self._finish(deployment_id, S.BUILD_FAILED, error.message, None)
        except Exception:
            log.exception("build failed unexpectedly", extra={"deployment": deployment_id})
            message = "The build failed by a fault of the platform; its log has the details."
            say(message)
            await self._finish(deployment_id, S.BUILD_FAILED, message, None)
        else:
            await self._finish(deployment_id, S.DEPLOYING, None, runnable)

    async def _finish(
        self, deployment_id: str, status: S, reason: str | None, runnable: Runnable | None
    ) -> None:
        """Write the outcome, unless the deployment is no longer building."""
        await until_stored(lambda: self._write(deployment_id, status, reason, runnable))

    def _write(
        self, deployment_id: str, status: S, reason: str | None, runnable: Runnable | None
    ) -> None:
        while True:
            with self._store.begin() as tx:
                row = tx.deployments.get(id=deployment_id)
                if row is None or row.status is not S.BUILDING:
                    return
                try:
                    tx.deployments.update(_outcome(row, status, reason, runnable))
                except StaleWriteError:
                    continue
                return


def _outcome(
    row: Deployment, status: S, reason: str | None, runnable: Runnable | None
) -> Deployment:
    return msgspec.structs.replace(
        row,
        status=status,
        status_at=utc_now(),
        reason=reason,
        runnable=runnable,
        goal=first_goal(row.autoscaling),
        no_cache=False,
    )
