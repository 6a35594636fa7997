"""Resolvers of the mutations: the three kinds of push."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from graphql import GraphQLResolveInfo

from kingpost.api.graphql import drafts
from kingpost.api.graphql.context import VersionNode, context_of, version_node
from kingpost.api.graphql.encoded import config_of, labels_of, object_of, text_of
from kingpost.api.graphql.queries import NO_CHAINS, no_chains
from kingpost.control.pushes import Push
from kingpost.errors import NotFoundError, NotSupportedError

Result = dict[str, VersionNode]


def create_model_from_truss(
    _root: Any,
    info: GraphQLResolveInfo,
    name: str,
    version_name: str | None = None,
    allow_truss_download: bool | None = None,
    **arguments: Any,
) -> Result:
    return _push(
        info,
        arguments,
        model_name=name,
        deployment_name=version_name,
        allow_download=allow_truss_download is not False,
    )


def create_model_version_from_truss(
    _root: Any,
    info: GraphQLResolveInfo,
    model_id: str,
    name: str | None = None,
    scale_down_old_production: bool | None = None,
    preserve_env_instance_type: bool | None = None,
    **arguments: Any,
) -> Result:
    return _push(
        info,
        arguments,
        model_id=model_id,
        deployment_name=name,
        scale_down_previous=scale_down_old_production is not False,
        preserve_env_instance_type=preserve_env_instance_type is not False,
    )


def deploy_draft_truss(
    _root: Any,
    info: GraphQLResolveInfo,
    name: str,
    allow_truss_download: bool | None = None,
    **arguments: Any,
) -> Result:
    return _push(
        info,
        arguments,
        model_name=name,
        is_development=True,
        allow_download=allow_truss_download is not False,
    )


def create_model_version_from_inference_template(
    _root: Any, _info: GraphQLResolveInfo, **_: Any
) -> None:
    raise NotSupportedError(
        "Inference templates are not available on this platform. Push a Truss instead."
    )


def _push(info: GraphQLResolveInfo, arguments: dict[str, Any], **rest: Any) -> Result:
    """`arguments` are those that the kinds of push share, `rest` is what sets them apart."""
    context = context_of(info)
    if arguments.get("model_origin") == "CHAINS":
        raise NotSupportedError(NO_CHAINS)
    team_id = arguments.get("team_id")
    if team_id not in {None, context.team_id}:
        raise NotFoundError(f"There is no team with the id {team_id!r}.")
    _, deployment = context.platform.pushes.push(
        Push(
            team_id=context.team_id,
            config=config_of(arguments["config"]),
            s3_key=arguments["s3_key"],
            environment=arguments.get("environment_name"),
            raw_config=text_of(arguments.get("raw_config")),
            labels=labels_of(arguments.get("user_deploy_metadata")),
            user_env=object_of(arguments.get("truss_user_env")),
            deploy_timeout_minutes=arguments.get("deploy_timeout_minutes"),
            **rest,
        )
    )
    return {"model_version": version_node(context, deployment)}


RESOLVERS: Final[dict[str, Callable[..., Any]]] = {
    "create_model_from_truss": create_model_from_truss,
    "create_model_version_from_truss": create_model_version_from_truss,
    "deploy_draft_truss": deploy_draft_truss,
    "stage_patch_for_draft_truss": drafts.stage_patch_for_draft_truss,
    "sync_draft_truss": drafts.sync_draft_truss,
    "deploy_chain_atomic": no_chains,
    "create_model_version_from_inference_template": create_model_version_from_inference_template,
}
