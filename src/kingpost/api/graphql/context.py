"""What every resolver is given, and the nodes that several of them answer with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from graphql import GraphQLResolveInfo

from kingpost import contract
from kingpost.api.address import model_url
from kingpost.api.views import Views
from kingpost.control.domain import ApiKey, Deployment, Model, Team
from kingpost.control.platform import Platform


@dataclass(frozen=True)
class Context:
    platform: Platform
    views: Views
    key: ApiKey
    base_url: str

    @property
    def team_id(self) -> str:
        return self.key.team_id

    @cached_property
    def team(self) -> Team:
        return self.platform.teams.get(self.team_id)


def context_of(info: GraphQLResolveInfo) -> Context:
    context: Context = info.context
    return context


class ModelNode:
    """A model; its versions are looked up only when they are asked for."""

    def __init__(self, context: Context, model: Model) -> None:
        self._context = context
        self.id = model.id
        self.name = model.name
        self.hostname = model_url(context.base_url, model.id)
        self.team = context.team

    def versions(self, _info: GraphQLResolveInfo) -> list[VersionNode]:
        """Newest first."""
        return self._versions

    def primary_version(self, _info: GraphQLResolveInfo) -> VersionNode | None:
        """Production's, else the development version, else the newest (truss: core.py)."""
        found = self._versions
        for version in found:
            if version.is_primary:
                return version
        drafts = [version for version in found if version.is_draft]
        return next(iter(drafts or found), None)

    @cached_property
    def _versions(self) -> list[VersionNode]:
        newest_first = self._context.platform.deployments.list(self._context.team_id, self.id)
        return [
            VersionNode(self._context, deployment, self, len(newest_first) - index)
            for index, deployment in enumerate(newest_first)
        ]


class VersionNode:
    """A deployment, which the CLI calls a model version. `number` counts from the oldest."""

    def __init__(
        self, context: Context, deployment: Deployment, oracle: ModelNode, number: int
    ) -> None:
        runnable = deployment.runnable
        self._context = context
        self._deployment = deployment
        self.oracle = oracle
        self.id = deployment.id
        self.name = deployment.name
        self.model_id = deployment.model_id
        self.semver = f"0.{number}.0"
        self.truss_hash = runnable.truss_hash if runnable else None
        self.truss_signature = runnable.truss_signature if runnable else None
        self.is_draft = deployment.is_development
        self.is_primary = deployment.environment == contract.PRODUCTION
        self.current_model_deployment_status = {
            "status": contract.GRAPHQL_STATUS[deployment.status]
        }

    def instance_type(self, _info: GraphQLResolveInfo) -> dict[str, Any]:
        return {"name": self._context.views.instance_type_of(self._deployment).name}


def version_node(context: Context, deployment: Deployment) -> VersionNode:
    """The node of one deployment among its model's."""
    view = context.platform.models.get(context.team_id, deployment.model_id)
    oracle = ModelNode(context, view.model)
    siblings = context.platform.deployments.list(context.team_id, deployment.model_id)
    ids = [other.id for other in reversed(siblings)]
    number = ids.index(deployment.id) + 1 if deployment.id in ids else len(ids) + 1
    return VersionNode(context, deployment, oracle, number)
