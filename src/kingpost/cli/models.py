"""`kingpost models`: what is deployed here."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from kingpost.cli.groups import ListingGroup
from kingpost.cli.session import Session, with_remote


@click.group(cls=ListingGroup)
def models() -> None:
    """List models, show or delete one."""


@models.command("list")
@with_remote
def list_models(session: Session) -> None:
    """List all models."""
    from kingpost.cli.times import age

    found = session.api().get("/v1/models")["models"]
    now = datetime.now(UTC)
    columns = ("NAME", "ID", "DEPLOYMENTS", "PRODUCTION", "INSTANCE", "TEAM", "AGE")
    rows = [
        (
            m["name"],
            m["id"],
            str(m["deployments_count"]),
            m["production_deployment_id"] or "-",
            m["instance_type_name"],
            m["team_name"],
            age(m["created_at"], now),
        )
        for m in sorted(found, key=lambda m: str(m["name"]))
    ]
    empty = "No models yet. Push one: kingpost push DIR"
    session.out.result(found, lambda: session.out.table(columns, rows, empty))


@models.command("show")
@click.argument("model", metavar="MODEL")
@with_remote
def show_model(session: Session, model: str) -> None:
    """Show one model."""
    from kingpost.client.resolve import find_model

    found = find_model(session.api(), model)
    shown = [(name, _text(value)) for name, value in found.items()]
    shown.append(("url", session.api().remote.inference_url(found["id"])))
    session.out.result(found, lambda: session.out.pairs(shown))


@models.command("delete")
@click.argument("model", metavar="MODEL")
@click.option("-y", "--yes", is_flag=True, help="Don't ask.")
@with_remote
def delete_model(session: Session, model: str, yes: bool) -> None:
    """Delete a model with all its deployments."""
    from kingpost.cli.confirm import confirm
    from kingpost.client.remote import segment
    from kingpost.client.resolve import find_model

    found = find_model(session.api(), model)
    confirm(f"Delete {found['name']} and its {found['deployments_count']} deployments?", yes=yes)
    answer = session.api().delete(f"/v1/models/{segment(found['id'])}")
    session.out.result(answer, lambda: session.out.line(f"Deleted {found['name']}."))


def _text(value: Any) -> str:
    return "-" if value is None else str(value)
