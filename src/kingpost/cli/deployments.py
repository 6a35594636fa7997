"""`kingpost deployments`: look at and handle the deployments of a model."""

from __future__ import annotations

import json
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kingpost.cli.groups import ListingGroup
from kingpost.cli.session import Session, with_remote

if TYPE_CHECKING:
    from kingpost.client.resolve import Json

_model = click.argument("model", metavar="MODEL")
_deployment = click.argument("deployment", metavar="DEPLOYMENT")


@click.group(cls=ListingGroup)
def deployments() -> None:
    """List, show and handle deployments.

    MODEL and DEPLOYMENT are names or ids; DEPLOYMENT may be `production` or `development`.
    """


@deployments.command("list")
@_model
@with_remote
def list_deployments(session: Session, model: str) -> None:
    """List the deployments of a model."""
    from kingpost.cli.times import age
    from kingpost.client.remote import segment
    from kingpost.client.resolve import find_model

    found = find_model(session.api(), model)
    answer = session.api().get(f"/v1/models/{segment(found['id'])}/deployments")["deployments"]
    now = datetime.now(UTC)
    columns = ("NAME", "ID", "STATUS", "REPLICAS", "ENVIRONMENT", "INSTANCE", "AGE")
    rows = [
        (
            d["name"],
            d["id"],
            d["status"],
            str(d["active_replica_count"]),
            d["environment"] or ("development" if d["is_development"] else "-"),
            d["instance_type_name"] or "-",
            age(d["created_at"], now),
        )
        for d in sorted(answer, key=lambda d: str(d["created_at"]), reverse=True)
    ]
    session.out.result(answer, lambda: session.out.table(columns, rows, "No deployments."))


@deployments.command("show")
@_model
@_deployment
@with_remote
def show(session: Session, model: str, deployment: str) -> None:
    """Show one deployment."""
    from kingpost.cli.push import describe

    found, chosen = _find(session, model, deployment)
    remote = session.api().remote
    urls = {k: v for k, v in describe(remote, found, chosen).items() if k.endswith("url")}
    data = {**chosen, **urls}
    rows = [(name, _text(value)) for name, value in data.items()]
    session.out.result(data, lambda: session.out.pairs(rows))


@deployments.command("activate")
@_model
@_deployment
@click.option("--wait", is_flag=True, help="Wait until it is ready.")
@with_remote
def activate(session: Session, model: str, deployment: str, wait: bool) -> None:
    """Start an inactive deployment again."""
    from kingpost.cli import following

    found, chosen = _find(session, model, deployment)
    answer = session.api().post(_path(chosen, "activate"))
    if wait:
        since_ms = int(datetime.now(UTC).timestamp() * 1000)
        answer = following.watch(
            session, found, {**chosen, "status": "DEPLOYING"}, None, since_ms=since_ms
        )
    session.out.result(answer, lambda: session.out.line(f"Activated {chosen['name']}."))


@deployments.command("deactivate")
@_model
@_deployment
@with_remote
def deactivate(session: Session, model: str, deployment: str) -> None:
    """Stop a deployment; calls to it are answered 404 until it is activated."""
    _, chosen = _find(session, model, deployment)
    answer = session.api().post(_path(chosen, "deactivate"))
    session.out.result(answer, lambda: session.out.line(f"Deactivated {chosen['name']}."))


@deployments.command("retry")
@_model
@_deployment
@with_remote
def retry(session: Session, model: str, deployment: str) -> None:
    """Try a failed deployment again."""
    from kingpost.errors import ConflictError

    _, chosen = _find(session, model, deployment)
    answer = session.api().post(_path(chosen, "retry"))
    if not answer["retried"]:
        raise ConflictError(answer.get("reason") or f"{chosen['name']} was not tried again.")
    session.out.result(answer, lambda: session.out.line(f"Trying {chosen['name']} again."))


@deployments.command("delete")
@_model
@_deployment
@click.option("-y", "--yes", is_flag=True, help="Don't ask.")
@with_remote
def delete(session: Session, model: str, deployment: str, yes: bool) -> None:
    """Delete a deployment for ever."""
    from kingpost.cli.confirm import confirm

    found, chosen = _find(session, model, deployment)
    confirm(f"Delete deployment {chosen['name']} ({chosen['id']}) of {found['name']}?", yes=yes)
    answer = session.api().delete(_path(chosen))
    session.out.result(answer, lambda: session.out.line(f"Deleted {chosen['name']}."))


@deployments.command("config")
@_model
@_deployment
@with_remote
def config(session: Session, model: str, deployment: str) -> None:
    """Print the config.yaml that was pushed; with --json, the parsed one."""
    _, chosen = _find(session, model, deployment)
    form = "parsed" if session.out.as_json else "raw"
    answer = session.api().get(_path(chosen, "config"), {"output_format": form})
    if session.out.as_json:
        session.out.json(answer["config"])
    else:
        session.out.line((answer["raw_config"] or _dumped(session, chosen)).rstrip("\n"))


@deployments.command("download")
@_model
@_deployment
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Default: MODEL-DEPLOYMENT.tar here.",
)
@with_remote
def download(session: Session, model: str, deployment: str, output: Path | None) -> None:
    """Download the Truss archive that was pushed."""
    from kingpost.client.download import fetch

    found, chosen = _find(session, model, deployment)
    url = session.api().get(_path(chosen, "download"))["download_url"]
    file = output or Path(f"{_plain(found['name'])}-{_plain(chosen['name'])}.tar")
    if file.exists():
        raise click.UsageError(f"{file} exists; choose another with --output.")
    handle, temporary = tempfile.mkstemp(prefix=".kingpost-", dir=file.absolute().parent)
    try:
        with os.fdopen(handle, "wb") as out, session.out.bar() as start:
            size = fetch(session.api().remote, url, out, lambda total: start("Fetching", total))
        os.link(temporary, file)  # fails if somebody else made the file meanwhile
    finally:
        Path(temporary).unlink(missing_ok=True)
    data = {"file": str(file), "size_bytes": size}
    session.out.result(data, lambda: session.out.line(f"{file} ({size} bytes)"))


def _find(session: Session, model: str, deployment: str) -> tuple[Json, Json]:
    from kingpost.client.resolve import find_deployment, find_model

    found = find_model(session.api(), model)
    return found, find_deployment(session.api(), found, deployment)


def _path(deployment: Json, action: str | None = None) -> str:
    from kingpost.client.remote import segment

    base = f"/v1/models/{segment(deployment['model_id'])}/deployments/{segment(deployment['id'])}"
    return f"{base}/{action}" if action else base


def _dumped(session: Session, deployment: Json) -> str:
    import yaml

    answer = session.api().get(_path(deployment, "config"), {"output_format": "parsed"})
    return str(yaml.safe_dump(answer["config"], sort_keys=False, allow_unicode=True))


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return json.dumps(value) if isinstance(value, dict | list) else str(value)


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name).lstrip(".") or "model"
