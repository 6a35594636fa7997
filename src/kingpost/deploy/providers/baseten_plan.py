"""The plan for Baseten, or for any platform with its contract: a Truss config as data. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from importlib import resources
from typing import Any, Final

from kingpost.deploy.catalog import Catalog, Offer
from kingpost.deploy.plan import Plan
from kingpost.deploy.request import DeployRequest, Engine
from kingpost.deploy.vllm import image_of, mount_of, start_command
from kingpost.errors import InvalidInputError

CHECKPOINT_FILES: Final = (
    "*.safetensors",
    "*.json",
    "*.model",
    "*.txt",
    "*.jinja",
    "*.tiktoken",
)
"""Weights, configs, and each form in which tokenizers and chat templates are kept."""


def make_plan(provider: str, request: DeployRequest, catalog: Catalog, *, priced: bool) -> Plan:
    """Raises InvalidInputError for a request whose weights are not pinned, and for a GPU that
    truss has no name for; with `priced`, NotFoundError for one that Baseten does not list.
    """
    request.check()
    if request.revision is None:
        raise InvalidInputError(f"{request.model} is at no revision yet; name one with --revision.")
    offer = _offer(request, catalog, required=priced)
    price = offer.usd_per_gpu_hour if offer is not None and priced else None
    version = request.vllm_version if request.engine is Engine.VLLM else image_of(request)
    secrets = (*request.secrets, *filter(None, [request.hub_secret]))
    return Plan(
        provider=provider,
        service=request.service,
        request=request,
        creates=(f"model {model_name(request)} with one deployment in production",),
        config=config(request, offer.provider_gpu_id if offer else _gpu_name(request)),
        engine_version=version,
        usd_per_hour=None if price is None else price * Decimal(request.gpu_count),
        price_as_of=offer.as_of if price is not None and offer is not None else None,
        needs_secrets=tuple(dict.fromkeys(secrets)),
    )


def model_name(request: DeployRequest) -> str:
    return f"{request.service}-serverless"


def config(request: DeployRequest, gpu: str | None) -> dict[str, Any]:
    """The template, filled. `gpu` is the name that truss takes, None for the CPU."""
    filled = _template()
    filled["model_name"] = model_name(request)
    filled["model_metadata"]["example_model_input"]["model"] = request.model
    filled["base_image"]["image"] = image_of(request)
    server = filled["docker_server"]
    server["start_command"] = start_command(request)
    server["readiness_endpoint"] = server["liveness_endpoint"] = request.health_path
    filled["weights"] = [_weights(request)]
    filled["runtime"]["predict_concurrency"] = request.scaling.concurrency
    count = f":{request.gpu_count}" if request.gpu_count > 1 else ""
    filled["resources"] = (
        {"cpu": "1", "memory": "2Gi"}
        if gpu is None
        else {"accelerator": f"{gpu}{count}", "use_gpu": True}
    )
    filled["environment_variables"] = dict(request.env)
    names = (*request.secrets, *filter(None, [request.hub_secret]))
    filled["secrets"] = dict.fromkeys(names)
    return filled


def render(config: Mapping[str, Any]) -> str:
    """`config.yaml`, in ASCII: some characters do not come out of YAML as they went in."""
    import yaml

    text: str = yaml.safe_dump(dict(config), sort_keys=False)
    return text


def _weights(request: DeployRequest) -> dict[str, Any]:
    files = [request.gguf_file] if request.gguf_file is not None else list(CHECKPOINT_FILES)
    weights: dict[str, Any] = {
        "source": f"hf://{request.model}@{request.revision}",
        "mount_location": mount_of(request),
        "allow_patterns": files,
    }
    if request.hub_secret is not None:
        weights["auth_secret_name"] = request.hub_secret
    return weights


def _offer(request: DeployRequest, catalog: Catalog, *, required: bool) -> Offer | None:
    if request.gpu is None:
        return None
    if required:
        return catalog.offer(request.gpu, "baseten")
    known = (o for o in catalog.offers_of(request.gpu) if o.provider == "baseten")
    return next(known, None)


def _gpu_name(request: DeployRequest) -> str | None:
    """A platform of one's own may have GPUs that Baseten doesn't offer; truss names each."""
    return None if request.gpu is None else request.gpu.label.replace(" ", "_")


def _template() -> dict[str, Any]:
    import yaml

    place = resources.files("kingpost.deploy").joinpath("templates", "baseten_config.yaml")
    filled: dict[str, Any] = yaml.safe_load(place.read_text(encoding="utf-8"))
    return filled
