"""From the domain's values to the answers' shapes. Reads, never changes."""

from __future__ import annotations

from kingpost.api import shapes
from kingpost.control import domain, instances
from kingpost.control.environments import UNDER_WAY
from kingpost.control.logfiles import LogLine
from kingpost.control.models import ModelView
from kingpost.control.platform import Platform
from kingpost.errors import NotFoundError


class Views:
    """`team_id` throughout is the asking key's."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._types = {t.id: t for t in platform.instance_types}

    def team_name(self, team_id: str) -> str:
        return self._platform.teams.get(team_id).name

    def model(self, view: ModelView) -> shapes.Model:
        model = view.model
        return shapes.Model(
            id=model.id,
            created_at=model.created_at,
            name=model.name,
            deployments_count=view.deployments_count,
            production_deployment_id=view.production.id if view.production else None,
            development_deployment_id=view.development.id if view.development else None,
            instance_type_name=self._model_instance_type(view),
            team_name=self.team_name(model.team_id),
        )

    def deployment(self, deployment: domain.Deployment) -> shapes.Deployment:
        replicas = self._platform.deployments.replicas(deployment.id)
        instance = self.instance_type_of(deployment).name
        emulated = any(replica.emulated for replica in replicas)
        return shapes.Deployment(
            id=deployment.id,
            created_at=deployment.created_at,
            name=deployment.name,
            model_id=deployment.model_id,
            is_production=deployment.environment == "production",
            is_development=deployment.is_development,
            status=deployment.status,
            active_replica_count=sum(r.state is domain.ReplicaState.READY for r in replicas),
            autoscaling_settings=deployment.autoscaling,
            instance_type_name=f"{instance} (emulated)" if emulated else instance,
            environment=deployment.environment,
            labels=deployment.labels,
            request_backpressure_settings=shapes.Backpressure(policy=deployment.backpressure),
            status_reason=deployment.reason,
        )

    def environment(self, team_id: str, environment: domain.Environment) -> shapes.Environment:
        current = self._deployment(team_id, environment.model_id, environment.current)
        candidate = self._deployment(team_id, environment.model_id, environment.candidate)
        promotion = self._platform.environments.promotion(environment.model_id, environment.name)
        instance_type = (
            self.instance_type_of(current)
            if current
            else instance_type_view(self._known_type(environment.instance_type))
        )
        return shapes.Environment(
            name=environment.name,
            created_at=environment.created_at,
            model_id=environment.model_id,
            current_deployment=self.deployment(current) if current else None,
            candidate_deployment=self.deployment(candidate) if candidate else None,
            in_progress_promotion=_promotion(promotion),
            autoscaling_settings=environment.autoscaling,
            promotion_settings=environment.promotion,
            instance_type=instance_type,
            request_backpressure_settings=shapes.Backpressure(policy=environment.backpressure),
        )

    def instance_type_of(self, deployment: domain.Deployment) -> shapes.InstanceType:
        """Of this platform's list, else the one made for what the config asks for."""
        known = self._types.get(deployment.instance_type)
        if known is None:
            known = instances.for_config(self._platform.instance_types, deployment.config)
        return instance_type_view(known)

    def secret(self, secret: domain.Secret) -> shapes.Secret:
        return shapes.Secret(
            id=secret.id,
            created_at=secret.created_at,
            name=secret.name,
            team_name=self.team_name(secret.team_id),
        )

    def key(self, key: domain.ApiKey) -> shapes.KeyInfo:
        return shapes.KeyInfo(
            prefix=key.prefix,
            name=key.name,
            type=key.category,
            model_ids=key.model_ids,
            team_name=self.team_name(key.team_id),
        )

    def _known_type(self, type_id: str) -> domain.InstanceType:
        return self._types.get(type_id) or self._platform.instance_types[0]

    def _deployment(
        self, team_id: str, model_id: str, deployment_id: str | None
    ) -> domain.Deployment | None:
        if deployment_id is None:
            return None
        try:
            return self._platform.deployments.get(team_id, model_id, deployment_id)
        except NotFoundError:
            return None

    def _model_instance_type(self, view: ModelView) -> str:
        """The production deployment's, else the development's, else the newest deployment's."""
        model = view.model
        shown = view.production or view.development
        if shown is None and view.deployments_count:
            shown = self._platform.deployments.list(model.team_id, model.id)[0]
        if shown is None:
            return self._platform.instance_types[0].name
        return self.instance_type_of(shown).name


def instance_type_view(instance: domain.InstanceType) -> shapes.InstanceType:
    return shapes.InstanceType(
        id=instance.id,
        name=instance.name,
        memory_limit_mib=instance.memory_mib,
        millicpu_limit=instance.millicpu,
        gpu_count=instance.gpu_count,
        gpu_type=instance.gpu_type,
        gpu_memory_limit_mib=instance.gpu_memory_mib,
    )


def team_view(team: domain.Team) -> shapes.Team:
    return shapes.Team(id=team.id, name=team.name, default=team.default, created_at=team.created_at)


def log_view(line: LogLine) -> shapes.LogLine:
    return shapes.LogLine(
        timestamp=str(line.timestamp_ns),
        message=line.message,
        replica=line.replica,
        request_id=line.request_id,
        level=line.level,
    )


def credentials_view(upload: domain.Upload) -> shapes.Credentials:
    return shapes.Credentials(
        aws_access_key_id=upload.access_key_id,
        aws_secret_access_key=upload.secret_access_key,
        aws_session_token=upload.session_token,
    )


def _promotion(promotion: domain.Promotion | None) -> shapes.InProgressPromotion | None:
    if promotion is None or promotion.status not in UNDER_WAY:
        return None
    return shapes.InProgressPromotion(
        status=promotion.status,
        percent_traffic_to_new_version=0,
        error_message=promotion.error,
        rolling_deploy=False,
    )
