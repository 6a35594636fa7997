"""What every command is given: its remote, its way of printing, and the options for both."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import click

from kingpost.cli.output import Output

if TYPE_CHECKING:
    from kingpost.client.remote import Remote
    from kingpost.client.rest import RestClient

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Session:
    """One call of a command. `api()` connects when it is first asked for."""

    out: Output
    remote_name: str | None = None
    _clients: list[RestClient] = field(default_factory=list)

    def remote(self) -> Remote:
        from kingpost.client import remotes

        stored = remotes.load(remotes.remotes_path(os.environ))
        return remotes.resolve(self.remote_name, stored, os.environ)

    def api(self) -> RestClient:
        from kingpost.client.rest import RestClient

        if not self._clients:
            self._clients.append(RestClient(self.remote()))
        return self._clients[0]

    def close(self) -> None:
        for client in self._clients:
            client.close()


def with_json(command: Callable[Concatenate[Session, P], T]) -> Callable[P, T]:
    """Give a command its session, and `--json`."""
    return _json_option(_opening(command, has_remote=False))


def with_remote(command: Callable[Concatenate[Session, P], T]) -> Callable[P, T]:
    """Give a command its session, `--remote` and `--json`."""
    return _json_option(_remote_option(_opening(command, has_remote=True)))


_json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, errors on stderr too."
)
_remote_option = click.option(
    "--remote",
    "remote_name",
    metavar="NAME",
    help="A remote's name or address; default: $KINGPOST_REMOTE, else `kingpost remotes`.",
)


def _opening(
    command: Callable[Concatenate[Session, P], T], *, has_remote: bool
) -> Callable[..., T]:
    @functools.wraps(command)
    def opened(*args: Any, as_json: bool, **options: Any) -> T:
        name = options.pop("remote_name") if has_remote else None
        session = Session(Output(as_json=as_json), name)
        try:
            return command(session, *args, **options)
        finally:
            session.close()

    return opened
