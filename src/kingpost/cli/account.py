"""`kingpost login`, `remotes` and `whoami`: where commands go, and as whom."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kingpost.cli.groups import ListingGroup
from kingpost.cli.session import Session, with_json, with_remote

if TYPE_CHECKING:
    from kingpost.client.remote import Remote
    from kingpost.client.remotes import Remotes


@click.command()
@click.argument("name", required=False, metavar="[NAME]")
@click.option(
    "--url", metavar="URL", help="Such as https://gpu-box:8000, or https://api.baseten.co."
)
@click.option("--api-key-stdin", is_flag=True, help="Read the key from stdin instead of asking.")
@click.option("--insecure", is_flag=True, help="Accept that the key crosses a network in clear.")
@click.option(
    "--ca-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Trust this certificate authority for this remote.",
)
@click.option("--no-default", is_flag=True, help="Don't make it the default remote.")
@click.option("--no-check", is_flag=True, help="Don't try the key.")
@with_json
def login(
    session: Session,
    name: str | None,
    url: str | None,
    api_key_stdin: bool,
    insecure: bool,
    ca_file: Path | None,
    no_default: bool,
    no_check: bool,
) -> None:
    """Keep a platform's address and API key under a name.

    The remotes `local` and `baseten` know their address. The key is tried before it is kept, in
    a file that only you can read.
    """
    from kingpost.cli.hidden import read_hidden
    from kingpost.client import remotes
    from kingpost.client.remote import Remote, check_key, refuse_clear_key

    path = remotes.remotes_path(os.environ)
    known = remotes.load(path)
    name = name or _default_name(url)
    remotes.check_name(name)
    address = _address(name, url, known)
    authority = str(ca_file.absolute()) if ca_file else None
    if ca_file is None and url is None and name in known.by_name:
        authority = known.by_name[name].ca_file
    key = check_key(
        read_hidden(f"API key for {address}", from_stdin=api_key_stdin or not sys.stdin.isatty())
    )
    remote = Remote(name, address, key, insecure, authority)
    refuse_clear_key(remote)
    if not no_check:
        _try(remote)
    with remotes.editing(path) as file:
        file.save(file.remotes.put(remote, make_default=not no_default))
    data = {"name": name, "url": address, "default": not no_default, "file": str(path)}
    session.out.result(
        data, lambda: session.out.line(f"Logged in to {name} ({address}). Kept in {path}.")
    )


@click.group("remotes", cls=ListingGroup)
def remotes_group() -> None:
    """List remotes, choose the default, remove one."""


@remotes_group.command("list")
@with_json
def list_remotes(session: Session) -> None:
    """List the remotes that commands can go to."""
    from kingpost.client import remotes

    stored = remotes.load(remotes.remotes_path(os.environ))
    chosen = remotes.resolve(None, stored, os.environ).name
    names = dict.fromkeys([*sorted(stored.by_name), remotes.LOCAL, remotes.BASETEN])
    found = [remotes.resolve(name, stored, os.environ) for name in names]
    data = [
        {"name": r.name, "url": r.url, "default": r.name == chosen, "has_key": bool(r.api_key)}
        for r in found
    ]
    rows = [
        (r.name, r.url, "yes" if r.api_key else "no", "*" if r.name == chosen else "")
        for r in found
    ]
    columns = ("NAME", "URL", "KEY", "DEFAULT")
    session.out.result(data, lambda: session.out.table(columns, rows, ""))


@remotes_group.command("use")
@click.argument("name", metavar="NAME")
@with_json
def use_remote(session: Session, name: str) -> None:
    """Make a remote the default."""
    from kingpost.client import remotes

    with remotes.editing(remotes.remotes_path(os.environ)) as file:
        file.save(file.remotes.use(name))
    session.out.result({"default": name}, lambda: session.out.line(f"Using {name}."))


@remotes_group.command("rm")
@click.argument("name", metavar="NAME")
@with_json
def remove_remote(session: Session, name: str) -> None:
    """Forget a remote and its key."""
    from kingpost.client import remotes

    with remotes.editing(remotes.remotes_path(os.environ)) as file:
        file.save(file.remotes.remove(name))
    session.out.result({"removed": name}, lambda: session.out.line(f"Removed {name}."))


@click.command()
@with_remote
def whoami(session: Session) -> None:
    """Show whose key is used, and where."""
    from kingpost.errors import NotFoundError, NotSupportedError

    api = session.api()
    try:
        user = api.get("/v1/users/me")
    except (NotFoundError, NotSupportedError):
        # A key that may list models is valid even where the platform has no user behind it.
        api.get("/v1/models", {"name": "-"})
        user = {}
    prefix, dot, _ = (api.remote.api_key or "").partition(".")
    data = {
        "remote": api.remote.name,
        "url": api.remote.url,
        "api_key_prefix": prefix if dot else None,
        **user,
    }
    rows = [(name, str(value)) for name, value in data.items() if value is not None]
    session.out.result(data, lambda: session.out.pairs(rows))


def _default_name(url: str | None) -> str:
    from kingpost.client.remote import BASETEN_URL, normalize_url
    from kingpost.client.remotes import BASETEN, LOCAL

    if url is None:
        return LOCAL
    if normalize_url(url) == BASETEN_URL:
        return BASETEN
    raise click.UsageError("Give the remote a name: kingpost login NAME --url URL")


def _address(name: str, url: str | None, known: Remotes) -> str:
    from kingpost.client.remote import BASETEN_URL, LOCAL_URL, normalize_url
    from kingpost.client.remotes import BASETEN, LOCAL

    if url is not None:
        return normalize_url(url)
    if name in known.by_name:
        return known.by_name[name].url
    built_in = {LOCAL: LOCAL_URL, BASETEN: BASETEN_URL}
    if name not in built_in:
        raise click.UsageError(f"Where is {name}? Add --url URL.")
    return built_in[name]


def _try(remote: Remote) -> None:
    from kingpost.client.rest import RestClient
    from kingpost.errors import ForbiddenError, UnavailableError

    with RestClient(remote) as api:
        try:
            api.get("/v1/models", {"name": "-"})
        except ForbiddenError:
            return  # a key for calling models only may not list them, and is still valid
        except UnavailableError as error:
            raise UnavailableError(
                f"{error.message} To keep the key untried: --no-check."
            ) from None
