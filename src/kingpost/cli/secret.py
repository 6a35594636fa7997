"""`kingpost secrets`: values that models read at run time. They are written, never read back."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from kingpost.cli.groups import ListingGroup
from kingpost.cli.session import Session, with_remote


@click.group(cls=ListingGroup)
def secrets() -> None:
    """Set, list and remove secrets."""


@secrets.command("list")
@with_remote
def list_secrets(session: Session) -> None:
    """List the names of secrets."""
    from kingpost.cli.times import age

    answer = session.api().get("/v1/secrets")["secrets"]
    now = datetime.now(UTC)
    rows = [(s["name"], s["team_name"], age(s["created_at"], now)) for s in answer]
    empty = "No secrets yet. Set one: kingpost secrets set NAME"
    session.out.result(answer, lambda: session.out.table(("NAME", "TEAM", "AGE"), rows, empty))


@secrets.command("set")
@click.argument("name", metavar="NAME")
@with_remote
def set_secret(session: Session, name: str) -> None:
    """Set a secret; its value comes from a hidden prompt or from stdin.

    An example: kingpost secrets set hf_access_token < token.txt
    """
    from kingpost.cli.hidden import read_hidden
    from kingpost.contract import is_secret_name
    from kingpost.errors import InvalidInputError

    if not is_secret_name(name):
        raise InvalidInputError(
            f"{name!r} can't name a secret: expected letters, digits, '_', '-' and '.'."
        )
    value = read_hidden(f"Value of {name}", from_stdin=False)
    if not value:
        raise InvalidInputError(f"No value was given for {name}, so nothing was changed.")
    answer = session.api().post("/v1/secrets", {"name": name, "value": value})
    session.out.result(answer, lambda: session.out.line(f"Set {name}."))


@secrets.command("rm")
@click.argument("name", metavar="NAME")
@with_remote
def remove_secret(session: Session, name: str) -> None:
    """Remove a secret."""
    from kingpost.client.remote import segment
    from kingpost.client.resolve import miss
    from kingpost.errors import NotFoundError

    try:
        answer = session.api().delete(f"/v1/secrets/{segment(name)}")
    except NotFoundError:
        names = [s["name"] for s in session.api().get("/v1/secrets")["secrets"]]
        hint = "`kingpost secrets list` lists them"
        raise NotFoundError(miss("secret", name, names, hint)) from None
    session.out.result(answer, lambda: session.out.line(f"Removed {name}."))
