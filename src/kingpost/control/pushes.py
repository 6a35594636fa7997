"""A push: from an uploaded archive and its config to a model and a new deployment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kingpost import contract
from kingpost.control import instances
from kingpost.control.domain import Deployment, Environment, InstanceType, Model, Wanted, utc_now
from kingpost.control.events import Events
from kingpost.control.store import Store, Transaction
from kingpost.control.uploads import Uploads
from kingpost.errors import ConflictError, InvalidInputError, NotFoundError

MAX_MODEL_NAME = 255


@dataclass(frozen=True, kw_only=True)
class Push:
    """What a client asks for. Exactly one of `model_name` and `model_id` is set, except that a
    development push names its model, new or not, by name."""

    team_id: str
    config: dict[str, Any]
    s3_key: str | None = None
    archive: str | None = None
    model_name: str | None = None
    model_id: str | None = None
    deployment_name: str | None = None
    environment: str | None = None
    raw_config: str | None = None
    labels: dict[str, Any] | None = None
    user_env: dict[str, Any] | None = None
    deploy_timeout_minutes: int | None = None
    is_development: bool = False
    preserve_env_instance_type: bool = True
    scale_down_previous: bool = True
    allow_download: bool = True


class Pushes:
    def __init__(
        self,
        store: Store,
        uploads: Uploads,
        events: Events,
        instance_types: Sequence[InstanceType],
    ) -> None:
        self._store = store
        self._uploads = uploads
        self._events = events
        self._types = instance_types

    def check(self, push: Push) -> None:
        """All that can be refused before anything is uploaded. Raises what `push` would."""
        with self._store.begin() as tx:
            model = self._model(tx, push)
            self._check(tx, push, model)

    def push(self, push: Push) -> tuple[Model, Deployment]:
        """Make the deployment, BUILDING, and its model if it is new."""
        digest = push.archive or self._uploads.archive_of(push.team_id, push.s3_key or "")
        with self._store.begin() as tx:
            model = self._model(tx, push)
            self._check(tx, push, model)
            if model is None:
                model = self._new_model(tx, push)
            deployment = self._new_deployment(tx, push, model, digest)
            replaced = self._replace_development(tx, deployment) if push.is_development else None
            tx.deployments.insert(deployment)
        self._events.model(model.id)
        self._events.deployment(deployment.id)
        if replaced:
            self._events.deployment(replaced)
        return model, deployment

    def _model(self, tx: Transaction, push: Push) -> Model | None:
        if push.model_id is not None:
            model = tx.models.get(id=push.model_id)
            if model is None or model.team_id != push.team_id:
                raise NotFoundError(f"There is no model with the id {push.model_id!r}.")
            return model
        name = push.model_name or ""
        if not name.strip() or len(name) > MAX_MODEL_NAME or not name.isprintable():
            raise InvalidInputError(
                f"A model needs a name of 1 to {MAX_MODEL_NAME} printable characters. "
                "Set model_name in config.yaml."
            )
        found = tx.models.find(team_id=push.team_id, name=name)
        if found and not push.is_development:
            raise ConflictError(
                f"A model named {name!r} exists already (id {found[0].id}). "
                "Push a deployment to it by its id, or choose another name."
            )
        return found[0] if found else None

    def _check(self, tx: Transaction, push: Push, model: Model | None) -> None:
        instances.for_config(self._types, push.config)
        low, high = contract.DEPLOY_TIMEOUT_MINUTES
        minutes = push.deploy_timeout_minutes
        if minutes is not None and not low <= minutes <= high:
            raise InvalidInputError(
                f"deploy_timeout_minutes is {minutes}; expected {low} to {high}."
            )
        if push.deployment_name is not None:
            self._check_deployment_name(tx, push.deployment_name, model)
        environment = push.environment
        if environment is None:
            return
        if push.is_development:
            raise InvalidInputError(
                "A development deployment can't be pushed to an environment. Leave the "
                "environment out, or push a published deployment."
            )
        known = model and tx.environments.get(model_id=model.id, name=environment)
        if environment != contract.PRODUCTION and not known:
            raise NotFoundError(
                f"There is no environment {environment!r} for this model. Make it first: "
                f"`kingpost env create`, or POST /v1/models/<id>/environments."
            )

    def _check_deployment_name(self, tx: Transaction, name: str, model: Model | None) -> None:
        if not contract.is_deployment_name(name):
            raise InvalidInputError(
                f"{name!r} can't name a deployment. Use letters, digits, `_`, `-` and `.` only."
            )
        if model and tx.deployments.find(model_id=model.id, name=name):
            raise ConflictError(
                f"This model has a deployment named {name!r} already. Choose another name, or "
                "leave it out to get one."
            )

    def _new_model(self, tx: Transaction, push: Push) -> Model:
        now = utc_now()
        model = tx.models.insert(
            Model(
                id=contract.new_id(),
                team_id=push.team_id,
                name=push.model_name or "",
                created_at=now,
                allow_download=push.allow_download,
            )
        )
        tx.environments.insert(
            Environment(model_id=model.id, name=contract.PRODUCTION, created_at=now)
        )
        return model

    def _new_deployment(self, tx: Transaction, push: Push, model: Model, digest: str) -> Deployment:
        environment = self._target(tx, push, model)
        instance = instances.for_config(self._types, push.config)
        size = kept_size(environment, instance) if push.preserve_env_instance_type else None
        now = utc_now()
        minutes = push.deploy_timeout_minutes
        build = push.config.get("build")
        return Deployment(
            id=contract.new_id(),
            model_id=model.id,
            name=push.deployment_name or _free_name(tx, model, push.is_development),
            created_at=now,
            status_at=now,
            is_development=push.is_development,
            target_environment=environment.name if environment else None,
            archive=digest,
            config=push.config,
            raw_config=push.raw_config,
            labels=push.labels,
            user_env=push.user_env,
            instance_type=(size or instance).id,
            size=size,
            scale_down_previous=push.scale_down_previous,
            deploy_timeout_s=minutes * 60.0 if minutes else None,
            no_cache=bool(build.get("no_cache")) if isinstance(build, dict) else False,
        )

    def _target(self, tx: Transaction, push: Push, model: Model) -> Environment | None:
        """Where it goes when ready: as asked, else production while that has nothing yet."""
        if push.is_development:
            return None
        name = push.environment or contract.PRODUCTION
        environment = tx.environments.get(model_id=model.id, name=name)
        if environment is None or push.environment is not None:
            return environment
        taken = environment.current or any(
            other.target_environment == contract.PRODUCTION
            for other in tx.deployments.find(model_id=model.id)
            if other.wanted is Wanted.RUNNING
        )
        return None if taken else environment

    def _replace_development(self, tx: Transaction, fresh: Deployment) -> str | None:
        """There is one development deployment at a time: the one before is on its way out."""
        from kingpost.control.deployments import marked_deleted

        for other in tx.deployments.find(model_id=fresh.model_id):
            if other.is_development and other.wanted is not Wanted.DELETED:
                tx.deployments.update(marked_deleted(other))
                return other.id
        return None


def kept_size(environment: Environment | None, own: InstanceType) -> InstanceType | None:
    """The instance type of an environment that serves already, if it is another than `own`.

    The contract keeps it over the config's resources (`preserve_env_instance_type`).
    """
    if environment is None or environment.current is None or environment.size is None:
        return None
    return environment.size if environment.size.id != own.id else None


def _free_name(tx: Transaction, model: Model, development: bool) -> str:
    names = {d.name for d in tx.deployments.find(model_id=model.id)}
    if development:
        return contract.DEVELOPMENT
    number = len(names) + 1
    while f"deployment-{number}" in names:
        number += 1
    return f"deployment-{number}"
