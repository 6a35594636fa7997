"""Deploys to Baseten, or to any platform that speaks its contract, over the management API."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from kingpost.client import archive, inference, logs, remotes
from kingpost.client.push import PushOptions, push
from kingpost.client.remote import Remote, segment
from kingpost.client.resolve import Json, model_by_name
from kingpost.client.rest import RestClient
from kingpost.client.wait import Outcome, wait_ready
from kingpost.contract import PRODUCTION
from kingpost.contract import DeploymentStatus as S
from kingpost.deploy.catalog import Catalog, Gpu
from kingpost.deploy.plan import Plan
from kingpost.deploy.provider import Check, Endpoint, Record, Resource, Say, State, Status
from kingpost.deploy.providers import baseten_checks as checks
from kingpost.deploy.providers.baseten_plan import make_plan, model_name, render
from kingpost.deploy.providers.truss_push import push_by_truss
from kingpost.deploy.request import DeployRequest
from kingpost.errors import (
    BuildFailedError,
    ConflictError,
    KingpostError,
    NotFoundError,
    UnavailableError,
)

MODEL: Final = "model"
DEPLOYMENT: Final = "deployment"
SETTLE_S: Final = 120.0
"""How long a deletion or a promotion may take to show."""

STATES: Final = {
    S.BUILDING: State.DEPLOYING,
    S.DEPLOYING: State.DEPLOYING,
    S.LOADING_MODEL: State.DEPLOYING,
    S.UPDATING: State.DEPLOYING,
    S.WAKING_UP: State.DEPLOYING,
    S.ACTIVE: State.ACTIVE,
    S.SCALED_TO_ZERO: State.IDLE,
    S.UNHEALTHY: State.UNHEALTHY,
    S.DEACTIVATING: State.STOPPED,
    S.INACTIVE: State.STOPPED,
    S.DEPLOY_FAILED: State.FAILED,
    S.BUILD_FAILED: State.FAILED,
    S.BUILD_STOPPED: State.FAILED,
    S.FAILED: State.FAILED,
}


def on_baseten(remote: str | None) -> BasetenProvider:  # noqa: ARG001  # it has one address
    return BasetenProvider("baseten", _resolve("baseten"))


def on_platform(remote: str | None) -> BasetenProvider:
    return BasetenProvider("local", _resolve(remote))


class BasetenProvider:
    def __init__(self, name: str, remote: Remote) -> None:
        self.name = name
        self.remote = remote

    def auth_headers(self) -> dict[str, str]:
        return {"Authorization": f"Api-Key {self.remote.api_key or ''}"}

    def offers(self, gpu: Gpu | None) -> bool:
        return checks.offers(self.remote, gpu)

    def preflight(self, request: DeployRequest, catalog: Catalog) -> tuple[Check, ...]:
        return checks.preflight(self.remote, request, catalog)

    def plan(self, request: DeployRequest, catalog: Catalog) -> Plan:
        return make_plan(self.name, request, catalog, priced=self.name == "baseten")

    def deploy(self, plan: Plan, record: Record, say: Say) -> Endpoint:
        name = model_name(plan.request)
        with RestClient(self.remote) as api:
            if model_by_name(api, name) is not None:
                raise ConflictError(
                    f"A model {name} is there already and was not made by this command, so it is "
                    "left alone. Choose another --service-name."
                )
            model_resource = record.intend(MODEL, name)
            model, deployment = self._push(api, plan, deployment_name(record, model_resource))
            record.created(model_resource, model["id"])
            record.created(record.intend(DEPLOYMENT, deployment["name"]), deployment["id"])
            say(f"Pushed {name}; its log: {self.remote.logs_url(model['id'], deployment['id'])}")
            self._wait(api, deployment, say)
            self._wait_promoted(api, model["id"], deployment["id"])
            self._scale(api, model["id"], plan)
        endpoint = self._endpoint(model["id"], plan.request.model)
        say("Ready. Asking for one completion.")
        self._verify(model["id"], plan.request.model)
        return endpoint

    def status(self, record: Record) -> Status:
        found = {resource.kind: resource for resource in record.resources()}
        model, deployment = found.get(MODEL), found.get(DEPLOYMENT)
        if model is None or model.ref is None or deployment is None or deployment.ref is None:
            return Status(State.FAILED, "never made")
        path = f"/v1/models/{segment(model.ref)}/deployments/{segment(deployment.ref)}"
        try:
            with RestClient(self.remote) as api:
                now = api.get(path)
        except NotFoundError:
            return Status(State.DESTROYED, "gone", 0, "The provider no longer has it.")
        return Status(
            state_of(now["status"]),
            now["status"],
            now.get("active_replica_count"),
            now.get("status_reason"),
        )

    def logs(self, record: Record, since_ms: int) -> Iterator[str]:
        found = {resource.kind: resource.ref for resource in record.resources()}
        model, deployment = found.get(MODEL), found.get(DEPLOYMENT)
        if model is None or deployment is None:
            return
        path = logs.deployment_path(model, deployment)
        end_ms = time.time_ns() // 1_000_000 + 60_000
        with RestClient(self.remote) as api:
            for line in logs.read(api, path, {}, since_ms, end_ms):
                yield line.message

    def destroy(self, record: Record, say: Say) -> None:
        with RestClient(self.remote) as api:
            resources = record.resources()
            for resource in resources:
                if resource.kind == MODEL:
                    self._destroy_model(api, record, resource, say)
            for resource in resources:
                record.deleted(resource)  # deployments go with their model

    def _destroy_model(self, api: RestClient, record: Record, resource: Resource, say: Say) -> None:
        ref = resource.ref or self._ours(api, record, resource)
        if ref is None:
            say(f"{resource.name} was never made.")
            return
        path = f"/v1/models/{segment(ref)}"
        try:
            api.delete(path)
        except NotFoundError:
            say(f"{resource.name} is gone already.")
            return
        deadline = time.monotonic() + SETTLE_S
        while time.monotonic() < deadline:
            try:
                api.get(path)
            except NotFoundError:
                say(f"Deleted {resource.name} ({ref}).")
                return
            time.sleep(0.5)
        raise UnavailableError(
            f"{resource.name} ({ref}) was deleted but still shows after {SETTLE_S:g} s. Run "
            "destroy again, and look at the provider's console."
        )

    def _ours(self, api: RestClient, record: Record, resource: Resource) -> str | None:
        """The id of a model whose making was interrupted, told by its deployment's name."""
        model = model_by_name(api, resource.name)
        if model is None:
            return None
        path = f"/v1/models/{segment(model['id'])}/deployments"
        names = {deployment["name"] for deployment in api.get(path)["deployments"]}
        if names and deployment_name(record, resource) not in names:
            raise ConflictError(
                f"The model {resource.name} holds deployments of somebody else, so it was not "
                f"deleted. If it is yours: kingpost models delete {resource.name}"
            )
        return str(model["id"])

    def _push(self, api: RestClient, plan: Plan, deployment: str) -> tuple[Json, Json]:
        with tempfile.TemporaryDirectory(prefix="kingpost-deploy-") as folder:
            (Path(folder) / "config.yaml").write_text(render(plan.config), encoding="ascii")
            if plan.request.via_truss_cli:
                return push_by_truss(api, self.remote.name, Path(folder), deployment)
            options = PushOptions(
                model_name=model_name(plan.request),
                environment=PRODUCTION,
                deployment_name=deployment,
            )
            pushed = push(api, archive.read_truss(Path(folder)), options)
        return pushed.model, pushed.deployment

    def _wait(self, api: RestClient, deployment: Json, say: Say) -> None:
        path = logs.deployment_path(deployment["model_id"], deployment["id"])
        follower = logs.follower_for(api, logs.created_ms(deployment))
        told = [""]

        def on_poll(now: Json) -> None:
            try:
                for line in logs.poll(api, path, {}, follower):
                    say(f"  {line.message}")
            except KingpostError:
                pass  # the log is a help; the status decides
            if now["status"] != told[0]:
                told[0] = now["status"]
                say(now["status"])

        ended, outcome = wait_ready(api, deployment, timeout_s=None, on_poll=on_poll)
        if outcome is not Outcome.READY:
            reason = ended.get("status_reason") or "its log says why"
            raise BuildFailedError(f"The deployment is {ended['status']}: {reason}.")

    def _wait_promoted(self, api: RestClient, model_id: str, deployment_id: str) -> None:
        deadline = time.monotonic() + SETTLE_S
        while time.monotonic() < deadline:
            now = api.get(_environment(model_id))
            if (now["current_deployment"] or {}).get("id") == deployment_id:
                return
            time.sleep(0.5)
        raise UnavailableError(
            f"The deployment is ready, but {PRODUCTION} does not point to it after {SETTLE_S:g} s."
        )

    def _scale(self, api: RestClient, model_id: str, plan: Plan) -> None:
        """Set autoscaling on the environment, which outlives its deployments, and read it back."""
        scaling = plan.request.scaling
        wanted = {
            "min_replica": scaling.min_replica,
            "max_replica": scaling.max_replica,
            "concurrency_target": scaling.concurrency,
            "scale_down_delay": scaling.scale_down_delay_s,
        }
        api.patch(_environment(model_id), {"autoscaling_settings": wanted})
        deadline = time.monotonic() + SETTLE_S
        while time.monotonic() < deadline:
            settings = api.get(_environment(model_id))["autoscaling_settings"]
            if {name: settings.get(name) for name in wanted} == wanted:
                return
            time.sleep(0.5)
        raise UnavailableError(
            f"The environment did not take the autoscaling settings {wanted}; it has {settings}."
        )

    def _endpoint(self, model_id: str, served: str) -> Endpoint:
        base = self.remote.inference_url(model_id, f"environments/{PRODUCTION}")
        return Endpoint(f"{base}/sync/v1", f"{base}/sync/health", served)

    def _verify(self, model_id: str, served: str) -> None:
        """One real completion, which wakes what has gone to zero meanwhile."""
        ask = {"model": served, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}
        route = f"environments/{PRODUCTION}/sync/v1/chat/completions"
        with inference.call(
            self.remote,
            model_id,
            route,
            json.dumps(ask).encode(),
            content_type="application/json",
        ) as answered:
            body = b"".join(answered.chunks)
        if not _is_completion(body):
            raise BuildFailedError(
                "It serves, but what it answered is no chat completion: "
                f"{body[:200].decode(errors='replace')}"
            )


def deployment_name(record: Record, model: Resource) -> str:
    """Tells our own deployment from others' of that name."""
    return f"kingpost-{record.service}-{record.plan['request']['revision'][:8]}-{model.id}"


def state_of(status: str) -> State:
    """What a provider's state means; one that is not known may still change."""
    try:
        return STATES[S(status)]
    except ValueError:
        return State.DEPLOYING


def _environment(model_id: str) -> str:
    return f"/v1/models/{segment(model_id)}/environments/{PRODUCTION}"


def _is_completion(body: bytes) -> bool:
    try:
        answer: Any = json.loads(body)
        return isinstance(answer["choices"][0]["message"]["role"], str)
    except (ValueError, LookupError, TypeError):
        return False


def _resolve(named: str | None) -> Remote:
    stored = remotes.load(remotes.remotes_path(os.environ))
    return remotes.resolve(named, stored, os.environ)
