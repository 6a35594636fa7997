"""Promotions: when a candidate takes an environment over, and when it does not. Pure decision,
then its writing in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from kingpost.contract import CleanupStrategy, PromotionStatus
from kingpost.contract import DeploymentStatus as S
from kingpost.control import instances
from kingpost.control.deployments import deactivated, scaled_to_zero
from kingpost.control.domain import FAILED_STATES, Deployment, InstanceType, Wanted
from kingpost.control.environments import (
    begin_promotion,
    end_promotion,
    under_way,
    wants_previous_kept,
    with_environment,
)
from kingpost.control.store import Transaction

_READY = frozenset({S.ACTIVE, S.SCALED_TO_ZERO})


@dataclass(frozen=True)
class Verdict:
    """`switch` and `waiting` are the candidate's id; `failed` and `superseded` lose the target."""

    switch: str | None = None
    waiting: str | None = None
    failed: tuple[str, ...] = ()
    superseded: tuple[str, ...] = ()


def decide(candidates: Sequence[Deployment]) -> Verdict:
    """Which of the deployments that are on their way to one environment may take it over.

    The newest wins: an older one that is still on its way when a newer was asked for never
    becomes current after it. A failed one changes nothing for the environment.
    """
    hopeful = [
        d for d in candidates if d.wanted is Wanted.RUNNING and d.status not in FAILED_STATES
    ]
    failed = tuple(d.id for d in candidates if d not in hopeful)
    if not hopeful:
        return Verdict(failed=failed)
    newest = max(hopeful, key=lambda d: (d.created_at, d.id))
    superseded = tuple(d.id for d in hopeful if d is not newest)
    if newest.status in _READY:
        return Verdict(switch=newest.id, failed=failed, superseded=superseded)
    return Verdict(waiting=newest.id, failed=failed, superseded=superseded)


def carry_on(
    tx: Transaction, model_id: str, name: str, types: Sequence[InstanceType]
) -> tuple[str, ...]:
    """Take the promotions of one environment a step further. The answer: changed deployments."""
    environment = tx.environments.get(model_id=model_id, name=name)
    everyone = {d.id: d for d in tx.deployments.find(model_id=model_id)}
    candidates = [d for d in everyone.values() if d.target_environment == name]
    if environment is None:
        return tuple(_drop_target(tx, d) for d in candidates)
    if not candidates:
        return ()
    verdict = decide(candidates)
    changed = [
        _drop_candidate(tx, everyone[i], PromotionStatus.CANCELED, "a newer one was asked for")
        for i in verdict.superseded
    ] + [
        _drop_candidate(tx, everyone[i], PromotionStatus.FAILED, everyone[i].reason)
        for i in verdict.failed
    ]
    if verdict.switch:
        changed += _switch(tx, model_id, name, everyone[verdict.switch], types)
    elif verdict.waiting:
        _note(tx, model_id, name, everyone[verdict.waiting])
    return tuple(changed)


def _note(tx: Transaction, model_id: str, name: str, candidate: Deployment) -> None:
    """A push goes to its environment without a promotion of its own: record one."""
    environment = tx.environments.get(model_id=model_id, name=name)
    if environment is not None and under_way(tx, model_id, name) is None:
        begin_promotion(tx, environment, candidate)


def _switch(
    tx: Transaction,
    model_id: str,
    name: str,
    candidate: Deployment,
    types: Sequence[InstanceType],
) -> list[str]:
    _note(tx, model_id, name, candidate)
    environment = tx.environments.get(model_id=model_id, name=name)
    promotion = under_way(tx, model_id, name)
    if environment is None or promotion is None:
        return []
    previous = tx.deployments.get(id=environment.current) if environment.current else None
    tx.environments.update(
        msgspec.structs.replace(
            environment,
            current=candidate.id,
            candidate=None,
            instance_type=candidate.instance_type,
            size=candidate.size or instances.for_config(types, candidate.config),
        )
    )
    tx.deployments.update(
        msgspec.structs.replace(with_environment(candidate, environment), target_environment=None)
    )
    tx.promotions.put(msgspec.structs.replace(promotion, status=PromotionStatus.SUCCEEDED))
    changed = [candidate.id]
    if previous is not None and previous.id != candidate.id:
        kept = wants_previous_kept(environment, promotion)
        strategy = environment.promotion.promotion_cleanup_strategy
        tx.deployments.update(_cleaned_up(previous, CleanupStrategy.KEEP if kept else strategy))
        changed.append(previous.id)
    return changed


def _cleaned_up(previous: Deployment, strategy: CleanupStrategy) -> Deployment:
    """The deployment that was replaced: out of the environment, with settings of its own again."""
    freed = msgspec.structs.replace(previous, environment=None)
    if strategy is CleanupStrategy.KEEP:
        return freed
    alone = msgspec.structs.replace(
        freed, autoscaling=msgspec.structs.replace(freed.autoscaling, min_replica=0)
    )
    if strategy is CleanupStrategy.SCALE_TO_ZERO:
        return scaled_to_zero(alone)
    return deactivated(alone)


def _drop_candidate(
    tx: Transaction, deployment: Deployment, status: PromotionStatus, error: str | None
) -> str:
    environment = tx.environments.get(
        model_id=deployment.model_id, name=deployment.target_environment or ""
    )
    promotion = environment and under_way(tx, deployment.model_id, environment.name)
    if environment and promotion and promotion.deployment_id == deployment.id:
        end_promotion(tx, environment, promotion, status, error)
        return deployment.id
    return _drop_target(tx, deployment)


def _drop_target(tx: Transaction, deployment: Deployment) -> str:
    tx.deployments.update(msgspec.structs.replace(deployment, target_environment=None))
    return deployment.id
