"""`kingpost keys`: API keys of the platform."""

from __future__ import annotations

import click

from kingpost.cli.groups import ListingGroup
from kingpost.cli.session import Session, with_remote
from kingpost.contract import KeyCategory

_CATEGORIES = {
    "personal": KeyCategory.PERSONAL,
    "manage": KeyCategory.WORKSPACE_MANAGE_ALL,
    "invoke": KeyCategory.WORKSPACE_INVOKE,
    "metrics": KeyCategory.WORKSPACE_EXPORT_METRICS,
}


@click.group(cls=ListingGroup)
def keys() -> None:
    """List, create and revoke API keys."""


@keys.command("list")
@with_remote
def list_keys(session: Session) -> None:
    """List API keys by their prefix."""
    answer = session.api().get("/v1/api_keys")["keys"]
    columns = ("PREFIX", "NAME", "TYPE", "MODELS")
    rows = [
        (k["prefix"], k.get("name") or "-", k["type"], " ".join(k.get("model_ids") or ["all"]))
        for k in answer
    ]
    session.out.result(answer, lambda: session.out.table(columns, rows, "No API keys."))


@keys.command("create")
@click.argument("name", metavar="NAME")
@click.option(
    "--type",
    "kind",
    type=click.Choice(list(_CATEGORIES)),
    default="invoke",
    show_default=True,
    help="What it may do.",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="MODEL",
    help="Only this model (repeatable); for invoke and metrics keys.",
)
@with_remote
def create_key(session: Session, name: str, kind: str, models: tuple[str, ...]) -> None:
    """Create an API key and print it, this once."""
    if models and kind not in {"invoke", "metrics"}:
        raise click.UsageError("--model goes with --type invoke or metrics.")
    from kingpost.client.resolve import find_model

    api = session.api()
    body: dict[str, object] = {"name": name, "type": _CATEGORIES[kind].value}
    if models:
        body["model_ids"] = [find_model(api, model)["id"] for model in models]
    answer = api.post("/v1/api_keys", body)

    def show() -> None:
        session.out.line(answer["api_key"])
        session.out.note("It is not shown again; keep it in a safe place.")

    session.out.result(answer, show)


@keys.command("revoke")
@click.argument("prefix", metavar="PREFIX")
@with_remote
def revoke_key(session: Session, prefix: str) -> None:
    """Revoke the API key that begins with PREFIX."""
    from kingpost.client.remote import segment

    shown = prefix.partition(".")[0]  # a whole key, pasted: its secret part must not travel
    answer = session.api().delete(f"/v1/api_keys/{segment(shown)}")
    session.out.result(answer, lambda: session.out.line(f"Revoked {shown}."))
