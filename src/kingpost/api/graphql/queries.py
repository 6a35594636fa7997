"""Resolvers of the queries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
from graphql import GraphQLResolveInfo

from kingpost.api.graphql import drafts
from kingpost.api.graphql.context import ModelNode, VersionNode, context_of, version_node
from kingpost.api.graphql.encoded import config_of
from kingpost.control.domain import InstanceType
from kingpost.errors import InvalidInputError, NotFoundError, NotSupportedError

NO_CHAINS: Final = (
    "Chains are not available on this platform yet. Push each part as a Truss of its own."
)


def teams(_root: Any, info: GraphQLResolveInfo) -> list[Any]:
    return [context_of(info).team]


def organization(_root: Any, info: GraphQLResolveInfo) -> dict[str, str]:
    team = context_of(info).team
    return {"id": team.id, "workspace_name": team.name}


def user(_root: Any, info: GraphQLResolveInfo) -> dict[str, str]:
    """This platform has keys, not accounts: the key stands for its user."""
    key = context_of(info).key
    return {"email": key.name or key.prefix}


def models(
    _root: Any,
    info: GraphQLResolveInfo,
    team_id: str | None = None,
    chainlets_only: bool | None = None,
    **_: Any,
) -> list[ModelNode]:
    context = context_of(info)
    if chainlets_only or team_id not in {None, context.team_id}:
        return []
    return [ModelNode(context, v.model) for v in context.platform.models.list(context.team_id)]


def model(
    _root: Any,
    info: GraphQLResolveInfo,
    id: str | None = None,  # noqa: A002 (the schema's name)
    name: str | None = None,
) -> ModelNode:
    context = context_of(info)
    if (id is None) == (name is None):
        raise InvalidInputError("Give exactly one of id and name to find a model.")
    if id is not None:
        return ModelNode(context, context.platform.models.get(context.team_id, id).model)
    found = context.platform.models.list(context.team_id, name)
    if not found:
        raise NotFoundError(f"There is no model named {name!r}.")
    return ModelNode(context, found[0].model)


def model_version(_root: Any, info: GraphQLResolveInfo, id: str) -> VersionNode:  # noqa: A002
    context = context_of(info)
    return version_node(context, context.platform.deployments.by_id(context.team_id, id))


async def truss_validation(
    _root: Any, info: GraphQLResolveInfo, config: str, **_: Any
) -> dict[str, Any]:
    said = await context_of(info).platform.validate(config_of(config))
    details = msgspec.json.encode({"errors": said.errors, "warnings": said.warnings})
    return {"success": not said.errors, "details": details.decode()}


def model_s3_upload_credentials(_root: Any, info: GraphQLResolveInfo) -> dict[str, str]:
    context = context_of(info)
    upload = context.platform.uploads.begin(context.team_id)
    return {
        "s3_bucket": upload.bucket,
        "s3_key": upload.key,
        "aws_access_key_id": upload.access_key_id,
        "aws_secret_access_key": upload.secret_access_key,
        "aws_session_token": upload.session_token,
    }


def listed_instances(_root: Any, info: GraphQLResolveInfo) -> list[dict[str, Any]]:
    types = context_of(info).platform.instance_types
    return [_listed(instance, default=instance is types[0]) for instance in types]


def chains(_root: Any, _info: GraphQLResolveInfo, **_: Any) -> list[Any]:
    return []


def chain(_root: Any, _info: GraphQLResolveInfo, id: str) -> None:  # noqa: A002
    raise NotFoundError(f"There is no chain {id!r}. {NO_CHAINS}")


def no_chains(_root: Any, _info: GraphQLResolveInfo, **_: Any) -> None:
    raise NotSupportedError(NO_CHAINS)


def _listed(instance: InstanceType, *, default: bool) -> dict[str, Any]:
    """Memory in MiB."""
    return {
        "id": instance.id,
        "name": instance.name,
        "display_name": instance.name,
        "millicpu_limit": instance.millicpu,
        "memory_limit": instance.memory_mib,
        "gpu_count": instance.gpu_count,
        "gpu_type": instance.gpu_type,
        "gpu_memory": instance.gpu_memory_mib,
        "default": default,
        "node_count": 1,
        "price": float(instance.price_per_minute_usd),
        "limited_capacity": None,
    }


RESOLVERS: Final[dict[str, Callable[..., Any]]] = {
    "teams": teams,
    "organization": organization,
    "user": user,
    "models": models,
    "model": model,
    "model_version": model_version,
    "truss_validation": truss_validation,
    "truss_watch_state": drafts.truss_watch_state,
    "model_s3_upload_credentials": model_s3_upload_credentials,
    "listed_instances": listed_instances,
    "chains": chains,
    "chain": chain,
    "chain_deployment": chain,
    "chain_s3_upload_credentials": no_chains,
}
