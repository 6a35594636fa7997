"""A push over REST: prepare, pack, upload, create. The same against Kingpost and Baseten."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from kingpost import contract
from kingpost.client import archive, upload
from kingpost.client.archive import OnBytes, Packed, TrussFolder
from kingpost.client.remote import segment
from kingpost.client.resolve import Json, model_by_name
from kingpost.client.rest import RestClient
from kingpost.errors import InvalidInputError

MAX_RAW_CONFIG_BYTES = 100 * 1024


@dataclass(frozen=True)
class PushOptions:
    """What a push may choose; the defaults are the contract's. `model_name` is required here."""

    model_name: str
    environment: str | None = None
    deployment_name: str | None = None
    development: bool = False
    no_cache: bool = False
    labels: Mapping[str, Any] | None = None
    deploy_timeout_minutes: int | None = None
    preserve_env_instance_type: bool = True
    disable_download: bool = False
    user_env: Mapping[str, Any] | None = field(default=None)

    def check(self) -> None:
        """Raises InvalidInputError for what no platform takes, before anything is sent."""
        name = self.deployment_name
        if not self.model_name.strip():
            raise InvalidInputError("The model's name is empty.")
        if name is not None and not contract.is_deployment_name(name):
            raise InvalidInputError(
                f"Deployment name {name!r}: expected at most 255 letters, digits, '-', '_', '.'."
            )
        low, high = contract.DEPLOY_TIMEOUT_MINUTES
        minutes = self.deploy_timeout_minutes
        if minutes is not None and not low <= minutes <= high:
            raise InvalidInputError(f"A deploy timeout is between {low} and {high} minutes.")
        if self.development and (self.environment is not None or name is not None):
            raise InvalidInputError(
                "A development deployment has no name and no environment of its own. Leave out "
                "--development, or the others."
            )


@dataclass(frozen=True)
class Pushed:
    model: Json
    deployment: Json
    created_model: bool
    packed: Packed | None


class Progress(Protocol):
    """Told how a push gets on. Each returns what takes the number of bytes done since."""

    def packing(self, total_bytes: int) -> OnBytes: ...

    def uploading(self, total_bytes: int) -> OnBytes: ...


class Silent:
    """A Progress that shows nothing."""

    def packing(self, total_bytes: int) -> OnBytes:  # noqa: ARG002
        return _drop

    def uploading(self, total_bytes: int) -> OnBytes:  # noqa: ARG002
        return _drop


def push(
    api: RestClient, truss: TrussFolder, options: PushOptions, progress: Progress | None = None
) -> Pushed:
    """Push a Truss and return at once; the deployment is then BUILDING or further."""
    options.check()
    shown = progress or Silent()
    model = model_by_name(api, options.model_name)
    if model is not None and options.disable_download:
        raise InvalidInputError(
            f"{options.model_name} exists; only a new model can have its download disabled."
        )
    payload = deployment_payload(truss, options)
    which = {"name": options.model_name} if model is None else {"model_id": model["id"]}
    answer = api.post("/v1/prepare_model_upload", {**which, "deployment": payload})
    packed = None
    source: Json = {"kind": "model_archive", "deployment": payload}
    if answer.get("s3_key"):
        packed = _upload(api, truss, upload.UploadTarget.of(answer), shown)
        source["s3_key"] = answer["s3_key"]
    if model is None:
        source["name"] = options.model_name
        if options.disable_download:
            source["disable_archive_download"] = True
        created = api.post("/v1/models", {"source": source})
    else:
        path = f"/v1/models/{segment(model['id'])}/deployments"
        created = api.post(path, {"source": source})
    return Pushed(created["model"], created["deployment"], model is None, packed)


def deployment_payload(truss: TrussFolder, options: PushOptions) -> Json:
    """The `deployment` of a push (management API: DeploymentArchivePayloadV1)."""
    config = _plain({**truss.config, "model_name": options.model_name})
    if options.no_cache:
        build = config.get("build")
        config["build"] = {**(build if isinstance(build, dict) else {}), "no_cache": True}
    payload: Json = {"config": config}
    if len(truss.config_text.encode()) <= MAX_RAW_CONFIG_BYTES:
        payload["raw_config"] = truss.config_text
    if options.development:
        payload["is_development"] = True
    if options.environment is not None:
        payload["environment_name"] = options.environment
        payload["preserve_env_instance_type"] = options.preserve_env_instance_type
    optional = {
        "deployment_name": options.deployment_name,
        "deploy_timeout_minutes": options.deploy_timeout_minutes,
        "labels": options.labels,
        "user_env": options.user_env,
    }
    return payload | {name: value for name, value in optional.items() if value is not None}


def _upload(
    api: RestClient, truss: TrussFolder, target: upload.UploadTarget, progress: Progress
) -> Packed:
    with tempfile.TemporaryFile(prefix="kingpost-push-") as file:
        packed = archive.pack(truss, file, progress.packing(archive.total_bytes(truss)))
        on_bytes = progress.uploading(packed.size_bytes)
        upload.put(target, file, packed.sha256, remote=api.remote, on_bytes=on_bytes)
    return packed


def _plain(value: Any) -> Any:
    """YAML values as JSON has them: dates become text, keys too."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)


def _drop(_: int) -> None:
    return None
