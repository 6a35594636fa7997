"""`kingpost env`: the environments of a model and how they scale."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from kingpost.cli.groups import ListingGroup
from kingpost.cli.session import Session, with_remote

if TYPE_CHECKING:
    from collections.abc import Callable

    from kingpost.client.resolve import Json

_SETTINGS = {
    "min_replica": "Fewest replicas; 0 lets it scale to zero.",
    "max_replica": "Most replicas.",
    "autoscaling_window": "Seconds over which load is averaged.",
    "scale_down_delay": "Seconds of less load before replicas go.",
    "concurrency_target": "Requests at once per replica.",
    "target_utilization_percentage": "Part of the target to plan for.",
    "max_scale_down_rate": "Most percent of replicas to go at once.",
}

_model = click.argument("model", metavar="MODEL")
_name = click.argument("name", metavar="ENV")


def _settings(command: Callable[..., Any]) -> Callable[..., Any]:
    for name, text in reversed(_SETTINGS.items()):
        option = f"--{name.replace('_', '-')}"
        command = click.option(option, type=int, metavar="N", help=text)(command)
    return command


@click.group(cls=ListingGroup)
def env() -> None:
    """List, create and set up a model's environments."""


@env.command("list")
@_model
@with_remote
def list_environments(session: Session, model: str) -> None:
    """List the environments of a model."""
    found = _model_of(session, model)
    answer = session.api().get(_path(found))["environments"]
    columns = ("NAME", "DEPLOYMENT", "STATUS", "PROMOTING", "REPLICAS", "CONCURRENCY")
    rows = [
        (
            e["name"],
            _deployment_name(e["current_deployment"]),
            (e["current_deployment"] or {}).get("status", "-"),
            _deployment_name(e.get("candidate_deployment")),
            f"{e['autoscaling_settings']['min_replica']}-{e['autoscaling_settings']['max_replica']}",
            str(e["autoscaling_settings"]["concurrency_target"]),
        )
        for e in answer
    ]
    session.out.result(answer, lambda: session.out.table(columns, rows, "No environments."))


@env.command("show")
@_model
@_name
@with_remote
def show(session: Session, model: str, name: str) -> None:
    """Show an environment with its settings."""
    from kingpost.client.resolve import find_environment

    answer = find_environment(session.api(), _model_of(session, model), name)
    rows = [
        ("name", answer["name"]),
        ("deployment", _deployment_name(answer["current_deployment"])),
        ("promoting", _deployment_name(answer.get("candidate_deployment"))),
        ("instance type", answer["instance_type"]["name"]),
        *((k, str(v)) for k, v in answer["autoscaling_settings"].items()),
        *((k, _text(v)) for k, v in answer["promotion_settings"].items()),
    ]
    promotion = answer.get("in_progress_promotion")
    if promotion:
        percent = promotion["percent_traffic_to_new_version"]
        rows.insert(3, ("promotion", f"{promotion['status']}, {percent} % of traffic"))
    session.out.result(answer, lambda: session.out.pairs(rows))


@env.command("create")
@_model
@_name
@_settings
@with_remote
def create(session: Session, /, model: str, name: str, **settings: int | None) -> None:
    """Create an environment."""
    found = _model_of(session, model)
    body: dict[str, Any] = {"name": name}
    if chosen := _chosen(settings):
        body["autoscaling_settings"] = chosen
    answer = session.api().post(_path(found), body)
    session.out.result(answer, lambda: session.out.line(f"Created {name} of {found['name']}."))


@env.command("set")
@_model
@_name
@_settings
@with_remote
def set_settings(session: Session, /, model: str, name: str, **settings: int | None) -> None:
    """Change how an environment scales; what is not named stays."""
    chosen = _chosen(settings)
    if not chosen:
        raise click.UsageError("Nothing to change: name at least one setting.")
    from kingpost.client.resolve import find_environment

    found = _model_of(session, model)
    environment = find_environment(session.api(), found, name)
    answer = session.api().patch(
        _path(found, environment["name"]), {"autoscaling_settings": chosen}
    )
    text = f"{answer['status']}: {answer['message']}"
    session.out.result(answer, lambda: session.out.line(text))


@env.command("delete")
@_model
@_name
@click.option("-y", "--yes", is_flag=True, help="Don't ask.")
@with_remote
def delete(session: Session, model: str, name: str, yes: bool) -> None:
    """Delete an environment; its deployment stays."""
    from kingpost.cli.confirm import confirm
    from kingpost.client.resolve import find_environment

    found = _model_of(session, model)
    environment = find_environment(session.api(), found, name)
    confirm(f"Delete environment {name} of {found['name']}?", yes=yes)
    answer = session.api().delete(_path(found, environment["name"]))
    session.out.result(answer, lambda: session.out.line(f"Deleted {name}."))


def _model_of(session: Session, model: str) -> Json:
    from kingpost.client.resolve import find_model

    return find_model(session.api(), model)


def _path(model: Json, name: str | None = None) -> str:
    from kingpost.client.remote import segment

    base = f"/v1/models/{segment(model['id'])}/environments"
    return f"{base}/{segment(name)}" if name is not None else base


def _chosen(settings: dict[str, int | None]) -> dict[str, int]:
    return {name: value for name, value in settings.items() if value is not None}


def _deployment_name(deployment: Json | None) -> str:
    return f"{deployment['name']} ({deployment['id']})" if deployment else "-"


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict | list | bool) else str(value)
