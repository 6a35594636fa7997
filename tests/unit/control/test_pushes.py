"""Pushes and promotions over a real store."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kingpost.build.base import Runnable
from kingpost.contract import DeploymentStatus as S
from kingpost.control import promotion
from kingpost.control.domain import Deployment, Wanted
from kingpost.control.instances import CPU_TYPES
from kingpost.control.platform import Platform
from kingpost.control.pushes import Push
from kingpost.control.store import Store
from kingpost.errors import ConflictError, InvalidInputError, NotFoundError

RUNNABLE = Runnable(argv=("serve",), cwd="/app", port=8080)


@pytest.fixture
def team(platform: Platform) -> str:
    return platform.teams.default.id


def push(platform: Platform, uploaded: str, **more: Any) -> Deployment:
    fields: dict[str, Any] = {
        "team_id": platform.teams.default.id,
        "config": {"model_name": "m"},
        "s3_key": uploaded,
    }
    if "model_id" not in more:
        fields["model_name"] = "m"
    return platform.pushes.push(Push(**(fields | more)))[1]


def settle(store: Store, deployment_id: str, status: S) -> None:
    """What controllers do over time, at once: bring a deployment to a state and promotions on."""
    with store.begin() as tx:
        row = tx.deployments.get(id=deployment_id)
        assert row is not None
        row = tx.deployments.update(
            msgspec.structs.replace(row, status=status, runnable=RUNNABLE, ever_active=True)
        )
        if row.target_environment:
            promotion.carry_on(tx, row.model_id, row.target_environment, CPU_TYPES)


def test_the_first_push_becomes_production_when_it_is_ready_not_before(
    platform: Platform, store: Store, uploaded: str, team: str
) -> None:
    first = push(platform, uploaded)
    assert platform.models.get(team, first.model_id).production is None
    settle(store, first.id, S.ACTIVE)
    view = platform.models.get(team, first.model_id)
    assert view.production is not None
    assert view.production.id == first.id
    assert view.production.environment == "production"


def test_a_failed_first_deploy_leaves_production_to_the_next(
    platform: Platform, store: Store, uploaded: str, team: str
) -> None:
    first = push(platform, uploaded)
    settle(store, first.id, S.BUILD_FAILED)
    assert platform.environments.get(team, first.model_id, "production").current is None
    second = push(platform, uploaded, model_id=first.model_id)
    settle(store, second.id, S.ACTIVE)
    assert platform.environments.get(team, first.model_id, "production").current == second.id


def test_a_later_push_is_not_promoted_unless_asked(
    platform: Platform, store: Store, uploaded: str, team: str
) -> None:
    first = push(platform, uploaded)
    settle(store, first.id, S.ACTIVE)
    second = push(platform, uploaded, model_id=first.model_id)
    settle(store, second.id, S.ACTIVE)
    assert platform.environments.get(team, first.model_id, "production").current == first.id
    third = push(platform, uploaded, model_id=first.model_id, environment="production")
    settle(store, third.id, S.ACTIVE)
    environment = platform.environments.get(team, first.model_id, "production")
    assert environment.current == third.id
    assert environment.candidate is None
    old = platform.deployments.get(team, first.model_id, first.id)
    assert (old.status, old.environment) == (S.SCALED_TO_ZERO, None)


def test_the_newest_of_two_candidates_wins(
    platform: Platform, store: Store, uploaded: str, team: str
) -> None:
    first = push(platform, uploaded)
    settle(store, first.id, S.ACTIVE)
    older = push(platform, uploaded, model_id=first.model_id, environment="production")
    newer = push(platform, uploaded, model_id=first.model_id, environment="production")
    settle(store, newer.id, S.ACTIVE)
    settle(store, older.id, S.ACTIVE)
    assert platform.environments.get(team, first.model_id, "production").current == newer.id


def test_promoting_a_canary_and_back(
    platform: Platform, store: Store, uploaded: str, team: str
) -> None:
    first = push(platform, uploaded)
    settle(store, first.id, S.ACTIVE)
    canary = push(platform, uploaded, model_id=first.model_id, deployment_name="canary")
    settle(store, canary.id, S.ACTIVE)
    promoted = platform.environments.promote(team, first.model_id, "production", canary.id)
    assert promoted.id == canary.id
    assert platform.environments.promotion(first.model_id, "production") is not None
    settle(store, canary.id, S.ACTIVE)
    assert platform.environments.get(team, first.model_id, "production").current == canary.id
    back = platform.environments.promote(team, first.model_id, "production", first.id)
    assert back.status is S.WAKING_UP
    settle(store, first.id, S.ACTIVE)
    assert platform.environments.get(team, first.model_id, "production").current == first.id


def test_what_serves_elsewhere_is_promoted_as_a_copy(
    platform: Platform, store: Store, uploaded: str, team: str
) -> None:
    first = push(platform, uploaded)
    settle(store, first.id, S.ACTIVE)
    platform.environments.create(team, first.model_id, "staging")
    copy = platform.environments.promote(team, first.model_id, "staging", first.id)
    assert copy.id != first.id
    assert copy.archive == first.archive
    assert platform.environments.get(team, first.model_id, "production").current == first.id


def test_the_environments_settings_reach_a_candidate_only_when_it_has_succeeded(
    platform: Platform, store: Store, uploaded: str, team: str
) -> None:
    first = push(platform, uploaded)
    settle(store, first.id, S.ACTIVE)
    platform.environments.update(
        team, first.model_id, "production", autoscaling={"max_replica": 7, "min_replica": 2}
    )
    current = platform.deployments.get(team, first.model_id, "production")
    assert current.autoscaling.max_replica == 7
    second = push(platform, uploaded, model_id=first.model_id, environment="production")
    assert second.autoscaling.max_replica == 1
    settle(store, second.id, S.DEPLOY_FAILED)
    failed = platform.deployments.get(team, first.model_id, second.id)
    assert failed.autoscaling.max_replica == 1
    assert failed.target_environment is None
    assert platform.environments.get(team, first.model_id, "production").current == first.id


def test_refusals_say_what_to_do(platform: Platform, uploaded: str, team: str) -> None:
    first = push(platform, uploaded)
    with pytest.raises(ConflictError, match="exists already"):
        push(platform, uploaded)
    with pytest.raises(NotFoundError, match="kingpost env create"):
        push(platform, uploaded, model_id=first.model_id, environment="nowhere")
    with pytest.raises(InvalidInputError, match="letters, digits"):
        push(platform, uploaded, model_id=first.model_id, deployment_name="a b")
    with pytest.raises(InvalidInputError, match="upload"):
        push(platform, "trusses/never.tgz", model_id=first.model_id)
    named = push(platform, uploaded, model_id=first.model_id, deployment_name="v1")
    with pytest.raises(ConflictError, match="v1"):
        push(platform, uploaded, model_id=first.model_id, deployment_name=named.name)
    with pytest.raises(InvalidInputError, match="10 to 1440"):
        push(platform, uploaded, model_id=first.model_id, deploy_timeout_minutes=5)


def test_a_new_development_push_replaces_the_one_before(
    platform: Platform, uploaded: str, team: str
) -> None:
    first = push(platform, uploaded, is_development=True)
    second = push(platform, uploaded, is_development=True)
    assert second.model_id == first.model_id
    assert platform.deployments.get(team, first.model_id, "development").id == second.id
    assert [d.id for d in platform.deployments.list(team, first.model_id)] == [second.id]


def test_deleting_what_serves_an_environment_is_refused(
    platform: Platform, store: Store, uploaded: str, team: str
) -> None:
    first = push(platform, uploaded)
    settle(store, first.id, S.ACTIVE)
    with pytest.raises(ConflictError, match="production"):
        platform.deployments.delete(team, first.model_id, first.id)
    platform.models.delete(team, first.model_id)
    with pytest.raises(NotFoundError):
        platform.models.get(team, first.model_id)
    with store.begin() as tx:
        row = tx.deployments.get(id=first.id)
    assert row is not None
    assert row.wanted is Wanted.DELETED


def test_another_team_sees_nothing(platform: Platform, uploaded: str) -> None:
    first = push(platform, uploaded)
    with pytest.raises(NotFoundError):
        platform.models.get("another", first.model_id)
    with pytest.raises(NotFoundError):
        platform.deployments.by_id("another", first.id)
    with pytest.raises(InvalidInputError):
        platform.uploads.archive_of("another", uploaded)


def test_the_environments_instance_type_is_kept_unless_told_otherwise(
    platform: Platform, store: Store, uploaded: str, team: str
) -> None:
    big = {"model_name": "m", "resources": {"cpu": "4", "memory": "8Gi"}}
    first = push(platform, uploaded)
    settle(store, first.id, S.ACTIVE)
    kept = push(platform, uploaded, model_id=first.model_id, environment="production", config=big)
    assert kept.instance_type == first.instance_type
    assert kept.size is not None
    fresh = push(
        platform,
        uploaded,
        model_id=first.model_id,
        environment="production",
        config=big,
        preserve_env_instance_type=False,
    )
    assert (fresh.instance_type, fresh.size) == ("4x16", None)
    canary = push(platform, uploaded, model_id=first.model_id, config=big)
    settle(store, canary.id, S.ACTIVE)
    copy = platform.environments.promote(team, first.model_id, "production", canary.id)
    assert copy.id != canary.id
    assert copy.instance_type == first.instance_type
