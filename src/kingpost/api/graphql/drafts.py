"""Resolvers of `truss watch`: the state of a development deployment and its patches."""

from __future__ import annotations

from typing import Any, Final

from graphql import GraphQLResolveInfo

from kingpost.errors import NotSupportedError

_NOT_YET: Final = (
    "Live patches of development deployments are not available on this platform yet. "
    "Push the change with `truss push`."
)


def truss_watch_state(_root: Any, _info: GraphQLResolveInfo, **_: Any) -> None:
    raise NotSupportedError(_NOT_YET)


def stage_patch_for_draft_truss(_root: Any, _info: GraphQLResolveInfo, **_: Any) -> None:
    raise NotSupportedError(_NOT_YET)


def sync_draft_truss(_root: Any, _info: GraphQLResolveInfo, **_: Any) -> None:
    raise NotSupportedError(_NOT_YET)
