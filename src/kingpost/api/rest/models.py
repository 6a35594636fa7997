"""Models: listed, made by a push, shown, deleted; and what precedes a push."""

from __future__ import annotations

from kingpost.api import address, bodies, shapes
from kingpost.api.rest.call import Call, Door
from kingpost.api.views import credentials_view
from kingpost.control.pushes import Push
from kingpost.control.uploads import REGION
from kingpost.errors import InvalidInputError, NotSupportedError


async def list_models(call: Call) -> shapes.Models:
    if "team_id" in call.request.path_params:
        call.named_team()
    found = call.platform.models.list(call.team_id, call.query(bodies.ByName).name)
    return shapes.Models(models=tuple(map(call.views.model, found)))


async def get_model(call: Call) -> shapes.Model:
    return call.views.model(call.platform.models.get(call.team_id, call.path("model_id")))


async def delete_model(call: Call) -> shapes.ModelTombstone:
    gone = call.platform.models.delete(call.team_id, call.path("model_id"))
    return shapes.ModelTombstone(id=gone.id, deleted=True)


async def prepare_upload(call: Call) -> shapes.PreparedUpload:
    """Check all that can be checked, then give one-time credentials for the archive."""
    body = await call.body(bodies.PrepareUpload)
    if (body.name is None) == (body.model_id is None):
        raise InvalidInputError(
            "Give exactly one of name (for a new model) and model_id (for a new deployment of one)."
        )
    if body.team_id is not None:
        call.own_team(body.team_id)
    call.platform.pushes.check(
        push_of(call, body.deployment, model_name=body.name, model_id=body.model_id)
    )
    said = await call.platform.validate(body.deployment.config)
    if said.errors:
        raise InvalidInputError("The config can't be used: " + " ".join(said.errors))
    if body.dry_run:
        return shapes.PreparedUpload()
    upload = call.platform.uploads.begin(call.team_id)
    return shapes.PreparedUpload(
        creds=credentials_view(upload),
        s3_bucket=upload.bucket,
        s3_key=upload.key,
        s3_region=REGION,
        endpoint_url=address.upload_url(call.base_url),
    )


async def blob_credentials(call: Call) -> shapes.BlobCredentials:
    upload = call.platform.uploads.begin(call.team_id)
    return shapes.BlobCredentials(
        creds=credentials_view(upload),
        s3_bucket=upload.bucket,
        s3_key=upload.key,
        endpoint_url=address.upload_url(call.base_url),
    )


async def create_model(call: Call) -> shapes.CreatedModelDeployment:
    if "team_id" in call.request.path_params:
        call.named_team()
    source = (await call.body(bodies.CreateModel)).source
    if isinstance(source, bodies.LibraryListing):
        raise NotSupportedError(
            "Library listings are not available on this platform. Push the model's archive "
            "instead (source.kind `model_archive`)."
        )
    return created(
        call,
        push_of(
            call,
            source.deployment,
            model_name=source.name,
            s3_key=source.s3_key,
            allow_download=not source.disable_archive_download,
        ),
    )


def created(call: Call, push: Push) -> shapes.CreatedModelDeployment:
    model, deployment = call.platform.pushes.push(push)
    return shapes.CreatedModelDeployment(
        model=call.views.model(call.platform.models.get(call.team_id, model.id)),
        deployment=call.views.deployment(deployment),
    )


def push_of(
    call: Call,
    payload: bodies.Payload,
    *,
    model_name: str | None = None,
    model_id: str | None = None,
    s3_key: str | None = None,
    allow_download: bool = True,
) -> Push:
    return Push(
        team_id=call.team_id,
        config=payload.config,
        s3_key=s3_key,
        model_name=model_name,
        model_id=model_id,
        deployment_name=payload.deployment_name,
        environment=payload.environment_name,
        raw_config=payload.raw_config,
        labels=payload.labels,
        user_env=payload.user_env,
        deploy_timeout_minutes=payload.deploy_timeout_minutes,
        is_development=payload.is_development,
        preserve_env_instance_type=payload.preserve_env_instance_type,
        allow_download=allow_download,
    )


DOORS = (
    Door("POST", "/v1/prepare_model_upload", prepare_upload),
    Door("GET", "/v1/blobs/credentials/model", blob_credentials),
    Door("GET", "/v1/models", list_models),
    Door("POST", "/v1/models", create_model),
    Door("GET", "/v1/teams/{team_id}/models", list_models),
    Door("POST", "/v1/teams/{team_id}/models", create_model),
    Door("GET", "/v1/models/{model_id}", get_model),
    Door("DELETE", "/v1/models/{model_id}", delete_model),
)
