"""Resolvers of `truss watch`: the state of a development deployment and its patches."""

from __future__ import annotations

from typing import Any

from graphql import GraphQLResolveInfo

from kingpost.api.graphql.context import Context, context_of
from kingpost.api.graphql.encoded import patch_of
from kingpost.control.domain import Deployment
from kingpost.control.drafts import Point
from kingpost.errors import ConflictError, UnavailableError


def truss_watch_state(_root: Any, info: GraphQLResolveInfo, id: str) -> dict[str, Any]:  # noqa: A002 (the CLI's name)
    context = context_of(info)
    state = context.platform.drafts.watch_state(context.team_id, id)
    return {
        "is_container_built_from_push": True,
        "django_patch_state": _point(state.staged),
        "container_patch_state": _point(state.running),
    }


def stage_patch_for_draft_truss(
    _root: Any,
    info: GraphQLResolveInfo,
    id: str,  # noqa: A002 (the CLI's name)
    patch: str,
    **_: Any,
) -> dict[str, Any]:
    context = context_of(info)
    try:
        deployment = context.platform.drafts.stage(context.team_id, id, patch_of(patch))
    except ConflictError as error:
        found = context.platform.drafts.watch_state(context.team_id, id).deployment
        return _result(context, found, error=error.message)
    return _result(context, deployment)


async def sync_draft_truss(
    _root: Any,
    info: GraphQLResolveInfo,
    id: str,  # noqa: A002 (the CLI's name)
    **_: Any,
) -> dict[str, Any]:
    context = context_of(info)
    try:
        done = await context.platform.drafts.sync(context.team_id, id)
    except UnavailableError as error:
        found = context.platform.drafts.watch_state(context.team_id, id).deployment
        return _result(context, found, error=error.message)
    return _result(
        context, done.deployment, error=done.error, needs_full_deploy=done.needs_full_deploy
    )


def _result(
    context: Context,
    deployment: Deployment,
    *,
    error: str | None = None,
    needs_full_deploy: bool = False,
) -> dict[str, Any]:
    model = context.platform.models.get(context.team_id, deployment.model_id).model
    return {
        "id": model.id,
        "name": model.name,
        "version_id": deployment.id,
        "succeeded": error is None,
        "needs_full_deploy": needs_full_deploy,
        "error": error,
    }


def _point(point: Point) -> dict[str, str] | None:
    if not point.hash:
        return None
    return {"current_hash": point.hash, "current_signature": point.signature}
