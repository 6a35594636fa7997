"""`kingpost status`: whether the platform is up and what it lacks."""

from __future__ import annotations

from typing import Any

import click

from kingpost.cli.session import Session, with_remote


@click.command()
@with_remote
def status(session: Session) -> None:
    """Show whether the platform is up, and what it lacks."""
    from kingpost.client.health import ask
    from kingpost.errors import UnavailableError

    remote = session.remote()
    data: dict[str, Any] = {"remote": remote.name, "url": remote.url, **ask(remote)}
    session.out.result(data, lambda: _show(session, data))
    if not data["ready"]:
        raise UnavailableError(f"{remote.url} is not ready.")


def _show(session: Session, data: dict[str, Any]) -> None:
    notices = data.get("notices") or []
    plain = {k: v for k, v in data.items() if k not in {"notices", "ready"}}
    session.out.pairs([(name, str(value)) for name, value in plain.items()])
    for notice in notices:
        message = notice.get("message") if isinstance(notice, dict) else notice
        session.out.line(f"{click.style('notice', fg='yellow')}  {message}")
