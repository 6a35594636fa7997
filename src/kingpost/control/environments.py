"""Environments: named, stable places that a deployment is promoted to."""

from __future__ import annotations

from typing import Any

import msgspec

from kingpost import contract
from kingpost.contract import CleanupStrategy, PromotionStatus
from kingpost.contract import DeploymentStatus as S
from kingpost.control import scaling_settings
from kingpost.control.deployments import activated, check_model, woken
from kingpost.control.domain import (
    FAILED_STATES,
    ON_THE_WAY,
    Deployment,
    Environment,
    InstanceType,
    Promotion,
    PromotionSettings,
    RollingDeployConfig,
    Wanted,
    utc_now,
)
from kingpost.control.events import Events
from kingpost.control.store import Store, Transaction
from kingpost.errors import ConflictError, InvalidInputError, NotFoundError, NotSupportedError

UNDER_WAY = frozenset(
    {
        PromotionStatus.RELEASING,
        PromotionStatus.RAMPING_UP,
        PromotionStatus.RAMPING_DOWN,
        PromotionStatus.PAUSED,
    }
)


class Environments:
    def __init__(self, store: Store, events: Events) -> None:
        self._store = store
        self._events = events

    def get(self, team_id: str, model_id: str, name: str) -> Environment:
        with self._store.begin() as tx:
            return find(tx, team_id, model_id, name)

    def list(self, team_id: str, model_id: str) -> tuple[Environment, ...]:
        with self._store.begin() as tx:
            check_model(tx, team_id, model_id)
            found = tx.environments.find(model_id=model_id)
        return tuple(sorted(found, key=lambda e: (e.name != contract.PRODUCTION, e.name)))

    def promotion(self, model_id: str, name: str) -> Promotion | None:
        """The promotion that is under way, if any."""
        with self._store.begin() as tx:
            return under_way(tx, model_id, name)

    def create(
        self,
        team_id: str,
        model_id: str,
        name: str,
        *,
        autoscaling: dict[str, Any] | None = None,
        promotion: dict[str, Any] | None = None,
        backpressure: str | None = None,
    ) -> Environment:
        if not contract.is_environment_name(name):
            raise InvalidInputError(
                f"{name!r} can't name an environment. Use up to 40 lowercase letters, digits and "
                "`-`; `development` is reserved."
            )
        with self._store.begin() as tx:
            check_model(tx, team_id, model_id)
            if tx.environments.get(model_id=model_id, name=name):
                raise ConflictError(f"This model has an environment {name!r} already.")
            fresh = Environment(
                model_id=model_id, name=name, created_at=utc_now(), backpressure=backpressure
            )
            environment = tx.environments.insert(_with(fresh, autoscaling, promotion))
        self._events.model(model_id)
        return environment

    def update(
        self,
        team_id: str,
        model_id: str,
        name: str,
        *,
        autoscaling: dict[str, Any] | None = None,
        promotion: dict[str, Any] | None = None,
        backpressure: str | msgspec.UnsetType | None = msgspec.UNSET,
    ) -> tuple[Environment, bool]:
        """The environment and whether anything changed.

        New autoscaling settings reach the current deployment at once; a candidate gets them when
        its promotion has succeeded.
        """
        with self._store.begin() as tx:
            old = find(tx, team_id, model_id, name)
            new = _with(old, autoscaling, promotion)
            if not isinstance(backpressure, msgspec.UnsetType):
                new = msgspec.structs.replace(new, backpressure=backpressure)
            if new == old:
                return old, False
            new = tx.environments.update(new)
            current = tx.deployments.get(id=new.current) if new.current else None
            if current is not None:
                tx.deployments.update(with_environment(current, new))
        self._events.model(model_id)
        if current is not None:
            self._events.deployment(current.id)
        return new, True

    def delete(self, team_id: str, model_id: str, name: str) -> Environment:
        if name == contract.PRODUCTION:
            raise InvalidInputError("The production environment can't be deleted.")
        with self._store.begin() as tx:
            old = find(tx, team_id, model_id, name)
            if under_way(tx, model_id, name):
                raise ConflictError(
                    f"A promotion to {name!r} is under way. Cancel it or wait for its end first."
                )
            current = tx.deployments.get(id=old.current) if old.current else None
            if current is not None:
                tx.deployments.update(msgspec.structs.replace(current, environment=None))
            tx.environments.delete(model_id=model_id, name=name)
        self._events.model(model_id)
        return old

    def promote(
        self,
        team_id: str,
        model_id: str,
        name: str,
        deployment_id: str,
        *,
        scale_down_previous: bool = True,
        preserve_env_instance_type: bool = True,
    ) -> Deployment:
        """Begin to promote a deployment; the switch comes when it is ready, not before.

        The answer is the deployment that will serve: the one named, or a copy of it when it
        serves another environment already, the environment asks for a fresh one, or keeps an
        instance type that is not the deployment's (contract).
        """
        with self._store.begin() as tx:
            environment = find(tx, team_id, model_id, name)
            source = tx.deployments.get(id=deployment_id)
            if source is None or source.model_id != model_id or source.wanted is Wanted.DELETED:
                raise NotFoundError(f"There is no deployment {deployment_id!r} of this model.")
            size = _size_to_keep(environment, source) if preserve_env_instance_type else None
            candidate = _candidate(tx, environment, source, scale_down_previous, size)
        self._events.deployment(candidate.id)
        self._events.model(model_id)
        return candidate

    def cancel_promotion(self, team_id: str, model_id: str, name: str) -> None:
        """Stop waiting for the candidate; the current deployment goes on as it was."""
        with self._store.begin() as tx:
            environment = find(tx, team_id, model_id, name)
            promotion = under_way(tx, model_id, name)
            if promotion is None:
                raise NotFoundError(f"No promotion to {name!r} is under way.")
            end_promotion(tx, environment, promotion, PromotionStatus.CANCELED, "canceled")
        self._events.deployment(promotion.deployment_id)
        self._events.model(model_id)


def find(tx: Transaction, team_id: str, model_id: str, name: str) -> Environment:
    check_model(tx, team_id, model_id)
    environment = tx.environments.get(model_id=model_id, name=name)
    if environment is None:
        known = ", ".join(sorted(e.name for e in tx.environments.find(model_id=model_id)))
        raise NotFoundError(f"There is no environment {name!r} of this model. It has: {known}.")
    return environment


def under_way(tx: Transaction, model_id: str, name: str) -> Promotion | None:
    for promotion in tx.promotions.find(model_id=model_id, environment=name):
        if promotion.status in UNDER_WAY:
            return promotion
    return None


def begin_promotion(tx: Transaction, environment: Environment, candidate: Deployment) -> Promotion:
    """Record that `candidate` is on its way to `environment`."""
    tx.environments.update(msgspec.structs.replace(environment, candidate=candidate.id))
    return tx.promotions.insert(
        Promotion(
            id=contract.new_id(),
            model_id=environment.model_id,
            environment=environment.name,
            deployment_id=candidate.id,
            previous_id=environment.current,
            scale_down_previous=candidate.scale_down_previous,
            status=PromotionStatus.RELEASING,
            created_at=utc_now(),
        )
    )


def end_promotion(
    tx: Transaction,
    environment: Environment,
    promotion: Promotion,
    status: PromotionStatus,
    error: str | None,
) -> None:
    """End a promotion that did not succeed. The candidate stays as it is, without the target."""
    tx.promotions.put(msgspec.structs.replace(promotion, status=status, error=error))
    tx.environments.update(msgspec.structs.replace(environment, candidate=None))
    candidate = tx.deployments.get(id=promotion.deployment_id)
    if candidate is not None and candidate.target_environment == environment.name:
        tx.deployments.update(msgspec.structs.replace(candidate, target_environment=None))


def with_environment(deployment: Deployment, environment: Environment) -> Deployment:
    """The deployment as it serves in the environment: with the environment's settings."""
    return msgspec.structs.replace(
        deployment,
        environment=environment.name,
        autoscaling=environment.autoscaling,
        backpressure=environment.backpressure,
    )


def wants_previous_kept(environment: Environment, promotion: Promotion) -> bool:
    return (
        not promotion.scale_down_previous
        or environment.promotion.promotion_cleanup_strategy is CleanupStrategy.KEEP
    )


def _candidate(
    tx: Transaction,
    environment: Environment,
    source: Deployment,
    scale_down_previous: bool,
    size: InstanceType | None,
) -> Deployment:
    if source.status in FAILED_STATES:
        raise ConflictError(
            f"The deployment is {source.status.value} and can't be promoted. "
            "Retry it or push a new one."
        )
    if environment.current == source.id and not environment.promotion.redeploy_on_promotion:
        raise ConflictError(f"The deployment serves {environment.name!r} already.")
    running = under_way(tx, environment.model_id, environment.name)
    if running is not None:
        raise ConflictError(
            f"A promotion of {running.deployment_id} to {environment.name!r} is under way. Cancel "
            "it or wait for its end; there is one at a time."
        )
    copied = (
        source.environment is not None
        or source.is_development
        or source.target_environment not in {None, environment.name}
        or environment.promotion.redeploy_on_promotion
        or size is not None
    )
    if copied:
        copy = _copy(tx, source, environment.name, scale_down_previous)
        kept = size or source.size
        candidate = tx.deployments.insert(
            msgspec.structs.replace(
                copy, size=kept, instance_type=kept.id if kept else copy.instance_type
            )
        )
    else:
        started = woken(activated(source)) if source.status not in ON_THE_WAY else source
        candidate = tx.deployments.update(
            msgspec.structs.replace(
                started,
                target_environment=environment.name,
                scale_down_previous=scale_down_previous,
            )
        )
    begin_promotion(tx, environment, candidate)
    return candidate


def _size_to_keep(environment: Environment, source: Deployment) -> InstanceType | None:
    """The environment's instance type, if it serves already with another than the source's."""
    if environment.current is None or environment.size is None:
        return None
    return environment.size if environment.size.id != source.instance_type else None


def _copy(
    tx: Transaction, source: Deployment, environment: str, scale_down_previous: bool
) -> Deployment:
    """A new deployment of the same archive. What was built is found by its content again."""
    now = utc_now()
    names = {d.name for d in tx.deployments.find(model_id=source.model_id)}
    number = 2
    while (name := f"{source.name[:240]}-{number}") in names:
        number += 1
    return Deployment(
        id=contract.new_id(),
        model_id=source.model_id,
        name=name,
        created_at=now,
        status=S.BUILDING,
        status_at=now,
        target_environment=environment,
        archive=source.archive,
        config=source.config,
        raw_config=source.raw_config,
        labels=source.labels,
        user_env=source.user_env,
        instance_type=source.instance_type,
        scale_down_previous=scale_down_previous,
        deploy_timeout_s=source.deploy_timeout_s,
    )


def _with(
    old: Environment, autoscaling: dict[str, Any] | None, promotion: dict[str, Any] | None
) -> Environment:
    return msgspec.structs.replace(
        old,
        autoscaling=scaling_settings.changed(old.autoscaling, autoscaling or {}),
        promotion=_promotion_settings(old.promotion, promotion or {}),
    )


def _promotion_settings(old: PromotionSettings, changes: dict[str, Any]) -> PromotionSettings:
    wanted = {name: value for name, value in changes.items() if value is not None}
    if wanted.get("rolling_deploy") or wanted.get("ramp_up_while_promoting"):
        raise NotSupportedError(
            "Rolling and canary promotions are not available here yet; a promotion switches all "
            "traffic once the new deployment is ready. Leave rolling_deploy and "
            "ramp_up_while_promoting unset."
        )
    rolling = wanted.pop("rolling_deploy_config", None)
    try:
        if rolling:
            merged = msgspec.structs.asdict(old.rolling_deploy_config) | {
                name: value for name, value in rolling.items() if value is not None
            }
            wanted["rolling_deploy_config"] = msgspec.convert(merged, RollingDeployConfig)
        fields = {name: getattr(old, name) for name in old.__struct_fields__} | wanted
        return msgspec.convert(fields, PromotionSettings, from_attributes=True)
    except msgspec.ValidationError as error:
        raise InvalidInputError(f"The promotion settings can't be used: {error}.") from error
