"""`kingpost logs`: the log of a deployment or environment, once or followed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from kingpost.cli.session import Session, with_remote
from kingpost.contract import LogLevel


@click.command()
@click.argument("model", metavar="MODEL")
@click.argument("deployment", required=False, metavar="[DEPLOYMENT]")
@click.option("--environment", metavar="ENV", help="All deployments of this environment.")
@click.option("-f", "--follow", is_flag=True, help="Go on showing lines as they come.")
@click.option("--since", metavar="TIME", help="A duration such as 10m, or a moment (ISO 8601).")
@click.option("--build", is_flag=True, help="From the deployment's beginning, to see its build.")
@click.option("-n", "--limit", type=click.IntRange(1), metavar="N", help="Only the last N lines.")
@click.option(
    "--min-level",
    type=click.Choice([x.value for x in LogLevel], case_sensitive=False),
    help="Only this level and above; drops lines without a level.",
)
@click.option("--search", metavar="REGEX", help="Only lines that match.")
@click.option("--replica", metavar="ID", help="Only lines of this replica.")
@click.option("--request-id", metavar="ID", help="Only lines of this request.")
@with_remote
def logs(session: Session, /, model: str, deployment: str | None, **flags: Any) -> None:
    """Show the log of a deployment.

    Without DEPLOYMENT it is production's, or the newest one's where production has none yet.
    MODEL may also be a service of `kingpost list`, which is looked for first.
    """
    if deployment and flags["environment"]:
        raise click.UsageError("Choose one of DEPLOYMENT and --environment.")
    if flags["build"] and flags["since"]:
        raise click.UsageError("Choose one of --build and --since.")
    from kingpost.cli import following
    from kingpost.cli.times import parse_since_ms
    from kingpost.client import logs as client
    from kingpost.client.resolve import find_environment, find_model

    now = datetime.now(UTC)
    now_ms = int(now.timestamp() * 1000)
    since_ms = parse_since_ms(flags["since"], now) if flags["since"] else now_ms - 30 * 60_000
    if deployment is None and session.remote_name is None and _service(session, model, flags):
        return
    api = session.api()
    found = find_model(api, model)
    if flags["environment"]:
        environment = find_environment(api, found, flags["environment"])
        path = client.environment_path(found["id"], environment["name"])
        begun = environment["current_deployment"]
    else:
        begun = _deployment(session, found, deployment)
        path = client.deployment_path(found["id"], begun["id"])
    # A deployment that is older than the window and has failed says why in its first lines.
    from kingpost.client.wait import Outcome, outcome

    failed = begun is not None and outcome(begun["status"]) is Outcome.FAILED
    if begun is not None and (flags["build"] or (failed and not flags["since"])):
        since_ms = max(client.created_ms(begun), now_ms - client.LONGEST_SPAN_MS)
    filters = {
        "min_level": flags["min_level"],
        "search_pattern": flags["search"],
        "replica": flags["replica"],
        "request_id": flags["request_id"],
    }
    if flags["follow"]:
        for line in client.follow(api, path, filters, since_ms):
            following.show(session, line)
        return
    lines = list(client.read(api, path, filters, since_ms, now_ms + 60_000))
    for line in lines[-flags["limit"] :] if flags["limit"] else lines:
        following.show(session, line)
    if not lines:
        session.out.note("No lines in this span. A longer one: --since 1d, or --build.")


def _service(session: Session, named: str, flags: dict[str, Any]) -> bool:
    """Show the log of a service that was deployed from here; False when there is none."""
    import os

    from kingpost.cli.services import provider_of
    from kingpost.cli.times import parse_since_ms
    from kingpost.deploy.provider import State
    from kingpost.deploy.state import Deployments, state_path

    path = state_path(os.environ)
    if not path.exists():
        return False
    deployments = Deployments(path)
    service = deployments.find(named)
    if service is None or service.state is State.DESTROYED:
        return False
    others = ("environment", "follow", "min_level", "search", "replica", "request_id")
    if any(flags[name] for name in others):
        raise click.UsageError(
            f"{named} is a service of `kingpost list`; with it go --since, --build and --limit."
        )
    begun_ms = int(service.created_at.timestamp() * 1000)
    since = flags["since"]
    since_ms = parse_since_ms(since, datetime.now(UTC)) if since else begun_ms
    lines = list(provider_of(service).logs(deployments.record(service), since_ms))
    for line in lines[-flags["limit"] :] if flags["limit"] else lines:
        if session.out.as_json:
            session.out.json({"message": line})
        else:
            session.out.line(line)
    return True


def _deployment(session: Session, model: dict[str, Any], named: str | None) -> dict[str, Any]:
    from kingpost.client.remote import segment
    from kingpost.client.resolve import find_deployment
    from kingpost.errors import NotFoundError

    api = session.api()
    if named is not None:
        return find_deployment(api, model, named)
    if model["production_deployment_id"]:
        return find_deployment(api, model, model["production_deployment_id"])
    deployments = api.get(f"/v1/models/{segment(model['id'])}/deployments")["deployments"]
    if not deployments:
        raise NotFoundError(f"{model['name']} has no deployment.")
    newest: dict[str, Any] = max(deployments, key=lambda d: str(d["created_at"]))
    return newest
