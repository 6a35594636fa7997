"""`kingpost status`: whether the platform is up and what it lacks, or how a service is."""

from __future__ import annotations

from typing import Any

import click

from kingpost.cli.session import Session, with_remote


@click.command()
@click.argument("service", required=False, metavar="[SERVICE]")
@click.option("--service-name", metavar="NAME", help="The same as SERVICE.")
@with_remote
def status(session: Session, /, service: str | None, service_name: str | None) -> None:
    """Show whether the platform is up, and what it lacks.

    With SERVICE, as `kingpost list` names it: what its provider says of its deployment.
    """
    if named := service or service_name:
        _service(session, named)
        return
    from kingpost.client.health import ask
    from kingpost.errors import UnavailableError

    remote = session.remote()
    data: dict[str, Any] = {"remote": remote.name, "url": remote.url, **ask(remote)}
    session.out.result(data, lambda: _show(session, data))
    if not data["ready"]:
        raise UnavailableError(f"{remote.url} is not ready.")


def _service(session: Session, named: str) -> None:
    import os

    from kingpost.cli.services import provider_of, summary
    from kingpost.deploy.provider import State
    from kingpost.deploy.state import Deployments, state_path

    deployments = Deployments(state_path(os.environ))
    found = deployments.get(named)
    data = summary(found)
    if found.state is not State.DESTROYED:
        now = provider_of(found).status(deployments.record(found))
        data |= {
            "recorded": found.state,
            "state": now.state,
            "provider_state": now.detail,
            "replicas": now.replicas,
            "reason": now.reason,
        }
    data["history"] = [
        {"at": change.at.isoformat(), "state": change.state, "note": change.note}
        for change in deployments.changes(found)
    ]
    plain = [(name, str(value)) for name, value in data.items() if name != "history"]
    session.out.result(data, lambda: session.out.pairs(plain))


def _show(session: Session, data: dict[str, Any]) -> None:
    notices = data.get("notices") or []
    plain = {k: v for k, v in data.items() if k not in {"notices", "ready"}}
    session.out.pairs([(name, str(value)) for name, value in plain.items()])
    for notice in notices:
        message = notice.get("message") if isinstance(notice, dict) else notice
        session.out.line(f"{click.style('notice', fg='yellow')}  {message}")
