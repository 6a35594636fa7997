"""`kingpost deploy` and `kingpost check`: a model and a GPU become an endpoint somewhere."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from kingpost.cli.session import Session, with_remote

if TYPE_CHECKING:
    from kingpost.deploy.plan import Plan
    from kingpost.deploy.provider import Check, Provider
    from kingpost.deploy.request import DeployRequest

_OPTIONS = (
    click.option("--model", required=True, metavar="OWNER/NAME", help="A Hugging Face model."),
    click.option("--gpu", metavar="GPU", help="As in `kingpost show-gpus`; none with llamacpp."),
    click.option(
        "--provider",
        "--serverless-provider",
        metavar="NAME",
        help="baseten, or local for this machine's platform (or --remote's). Default: the "
        "cheapest that is set up and has the GPU.",
    ),
    click.option("--service-name", metavar="NAME", help="Default: the model's name and a number."),
    click.option("--gpu-count", type=int, default=1, show_default=True, metavar="N"),
    click.option("--tp-size", type=int, metavar="N", help="GPUs per copy; default: all of them."),
    click.option("--max-model-len", type=int, default=4096, show_default=True, metavar="N"),
    click.option("--quantization", metavar="NAME", help="For vLLM, such as awq or fp8."),
    click.option("--dtype", metavar="TYPE", help="Default: the model's; half on Turing GPUs."),
    click.option(
        "--engine", type=click.Choice(["vllm", "llamacpp"]), default="vllm", show_default=True
    ),
    click.option("--vllm-version", metavar="X.Y.Z", help="Default: 0.15.1."),
    click.option("--image", metavar="IMAGE", help="Instead of the engine's own."),
    click.option("--health-path", default="/health", show_default=True, metavar="PATH"),
    click.option("--gguf-file", metavar="FILE", help="Which GGUF file of the model to serve."),
    click.option("--revision", metavar="REV", help="Of the model; pinned to its commit."),
    click.option("--hf-secret", metavar="NAME", help="Secret that opens a gated model."),
    click.option("--concurrency", type=int, default=32, show_default=True, metavar="N"),
    click.option("--min-replica", type=int, default=0, show_default=True, metavar="N"),
    click.option("--max-replica", type=int, default=1, show_default=True, metavar="N"),
    click.option("--scale-down-delay", type=int, default=900, show_default=True, metavar="S"),
    click.option(
        "--cold-start-mode",
        type=click.Choice(["fast_boot", "no_fast_boot"]),
        default="fast_boot",
        show_default=True,
        help="fast_boot adds --enforce-eager to vLLM.",
    ),
    click.option("--env", multiple=True, metavar="NAME=VALUE", help="A variable; repeatable."),
    click.option("--secret", multiple=True, metavar="NAME", help="A secret to mount; repeatable."),
    click.option("--via-truss-cli", is_flag=True, help="Push with the truss command, not REST."),
    click.option("--emulated-gpu", is_flag=True, help="Go on where no such GPU is listed."),
)


def _request_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command()
@_request_options
@click.option("--plan", "plan_only", is_flag=True, help="Show what would be created, and stop.")
@click.option("-y", "--yes", is_flag=True, help="Don't ask.")
@with_remote
def deploy(session: Session, /, plan_only: bool, yes: bool, **flags: Any) -> None:
    """Deploy a model to a GPU somewhere, and wait until it serves.

    The provider is baseten, or local for a Kingpost platform; the default is the cheapest that is
    set up and has the GPU, and the choice is always shown. Costs begin with the deployment and end
    with `kingpost destroy`.
    """
    from kingpost.cli.confirm import confirm
    from kingpost.deploy import run
    from kingpost.deploy.state import Deployments, state_path

    provider, plan = _planned(session, flags)
    if plan_only:
        session.out.result(plan.to_json(), lambda: _show_plan(session, plan))
        return
    if not session.out.as_json:
        _show_plan(session, plan)
    failed = [check for check in _checks(provider, plan.request, flags) if not check.passed]
    _refuse(failed)
    confirm(f"Deploy {plan.request.model} as {plan.service} on {provider.name}?", yes=yes)
    deployments = Deployments(state_path(os.environ))
    try:
        made = run.deploy(deployments, provider, plan, session.remote_name, session.out.note)
    finally:
        deployments.close()
    data = {
        "service": made.name,
        "provider": made.provider,
        "state": made.state,
        "endpoint": made.endpoint,
        "health": made.health,
        "model": plan.request.model,
    }
    session.out.result(data, lambda: session.out.pairs([(k, str(v)) for k, v in data.items()]))


@click.command()
@_request_options
@with_remote
def check(session: Session, /, **flags: Any) -> None:
    """Check what a deployment needs, and say how to fix what is missing."""
    provider, plan = _planned(session, flags)
    checks = _checks(provider, plan.request, flags)
    data = {
        "provider": provider.name,
        "engine_version": plan.engine_version,
        "checks": [vars(each) for each in checks],
    }

    def human() -> None:
        session.out.line(f"{provider.name}, {plan.request.engine} {plan.engine_version}")
        for each in checks:
            mark = "PASS" if each.passed else "FAIL"
            session.out.line(f"{mark}  {each.name}: {each.message}")
            if each.fix and not each.passed:
                session.out.line(f"      {each.fix}")

    session.out.result(data, human)
    _refuse([each for each in checks if not each.passed])


def _planned(session: Session, flags: dict[str, Any]) -> tuple[Provider, Plan]:
    from kingpost.deploy import catalog, hub, registry, run

    known = catalog.load()
    request = _request(flags)
    request.check()
    provider = (
        registry.get(flags["provider"], session.remote_name)
        if flags["provider"]
        else run.choose(request, known, session.remote_name)
    )
    return provider, provider.plan(hub.pinned(request), known)


def _request(flags: dict[str, Any]) -> DeployRequest:
    from kingpost.deploy import catalog
    from kingpost.deploy.request import (
        VLLM_VERSION,
        ColdStart,
        DeployRequest,
        Engine,
        Scaling,
    )

    return DeployRequest(
        model=flags["model"],
        service=flags["service_name"] or _service_name(flags["model"]),
        gpu=catalog.load().gpu(flags["gpu"]) if flags["gpu"] else None,
        gpu_count=flags["gpu_count"],
        tensor_parallel=flags["tp_size"],
        max_model_len=flags["max_model_len"],
        engine=Engine(flags["engine"]),
        vllm_version=flags["vllm_version"] or VLLM_VERSION,
        image=flags["image"],
        health_path=flags["health_path"],
        quantization=flags["quantization"],
        dtype=flags["dtype"],
        cold_start=ColdStart(flags["cold_start_mode"]),
        scaling=Scaling(
            min_replica=flags["min_replica"],
            max_replica=flags["max_replica"],
            concurrency=flags["concurrency"],
            scale_down_delay_s=flags["scale_down_delay"],
        ),
        revision=flags["revision"],
        gguf_file=flags["gguf_file"],
        hub_secret=flags["hf_secret"],
        env=dict(_variable(text) for text in flags["env"]),
        secrets=tuple(flags["secret"]),
        via_truss_cli=flags["via_truss_cli"],
    )


def _service_name(model: str) -> str:
    plain = "".join(c if c.isascii() and c.isalnum() else "-" for c in model.lower())
    words = "-".join(word for word in plain.split("-")[1:] if word) or "model"
    return f"{words[:40].strip('-')}-{secrets.token_hex(2)}"


def _variable(text: str) -> tuple[str, str]:
    name, mark, value = text.partition("=")
    if not mark:
        raise click.UsageError(f"--env {text!r}: expected NAME=VALUE.")
    return name, value


def _checks(provider: Provider, request: DeployRequest, flags: dict[str, Any]) -> list[Check]:
    from kingpost.deploy import catalog

    found = provider.preflight(request, catalog.load())
    return [each for each in found if not (flags["emulated_gpu"] and each.name == "GPU offered")]


def _refuse(failed: list[Check]) -> None:
    from kingpost.errors import ConflictError

    if failed:
        told = "; ".join(f"{each.message} (to fix it: {each.fix})" for each in failed)
        raise ConflictError(f"Not everything that is needed is there: {told}.")


def _show_plan(session: Session, plan: Plan) -> None:
    from kingpost.deploy.plan import money

    gpu = plan.request.gpu
    running, idle = money(plan.usd_per_hour), money(plan.usd_per_hour_idle)
    rows = [
        ("service", plan.service),
        ("provider", plan.provider),
        ("model", f"{plan.request.model} at {plan.request.revision}"),
        ("gpu", f"{plan.request.gpu_count} x {gpu.label}" if gpu else "none, the CPU"),
        ("engine", f"{plan.request.engine} {plan.engine_version}"),
        ("creates", "; ".join(plan.creates)),
        ("command", plan.config["docker_server"]["start_command"]),
        ("each replica", f"{running} USD/hour (of {plan.price_as_of})" if running else "no price"),
        ("idle", f"{idle} USD/hour" if idle else "no price"),
    ]
    session.out.pairs(rows)
