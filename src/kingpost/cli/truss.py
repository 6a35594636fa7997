"""`kingpost truss`: the unmodified truss command against any platform, its key for that one alone.

The truss CLI sends REST calls to Baseten, with the key, for every address but one,
`http://localhost:8000`. So it is given that address, in a configuration of its own, and a proxy
that leads there: plain HTTP reaches our platform whatever host it names, HTTPS reaches nothing.
"""

from __future__ import annotations

import configparser
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from kingpost.cli.relay import Doors
    from kingpost.client.remote import Remote

KNOWN_ADDRESS: Final = "http://localhost:8000"
BASETEN_APP: Final = "https://app.baseten.co"

_PROXIES: Final = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ws_proxy", "wss_proxy")
_OTHER_KEYS: Final = ("BASETEN_API_KEY", "KINGPOST_API_KEY", "BASETEN_BASE_URL")
_OTHER_REMOTE: Final = "BASETEN_TRUSS_AUTH_"
_FORWARDED: Final = (signal.SIGTERM, signal.SIGHUP)


@click.command(
    context_settings={
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
        "help_option_names": [],
    }
)
@click.option("--remote", "remote_name", metavar="NAME", help="The platform to use.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="ARGS...")
@click.pass_context
def truss(context: click.Context, remote_name: str | None, arguments: tuple[str, ...]) -> None:
    """Run the truss command against a platform.

    What follows is the truss CLI's own; --remote before it chooses the platform.
    """
    from kingpost.cli.relay import open_doors
    from kingpost.client import remotes, rest
    from kingpost.client.remote import refuse_clear_key
    from kingpost.supervisor.tools import truss_command

    stored = remotes.load(remotes.remotes_path(os.environ))
    remote = remotes.resolve(remote_name, stored, os.environ)
    refuse_clear_key(remote)
    argv = [*truss_command(_say_installing), *arguments]
    with _configuration(remote) as folder:
        if remote.is_baseten:
            context.exit(_run(argv, child_environment(os.environ, folder, None)))
        tls = rest.tls_context(remote) if remote.url.startswith("https:") else None
        if remote.url != KNOWN_ADDRESS:
            click.echo(f"({KNOWN_ADDRESS} below stands for {remote.url})", err=True)
        with open_doors(remote, tls) as doors:
            context.exit(_run(argv, child_environment(os.environ, folder, doors)))


def _say_installing() -> None:
    click.echo("Installing the truss CLI, this once ...", err=True)


def child_environment(ours: Mapping[str, str], folder: Path, doors: Doors | None) -> dict[str, str]:
    """The child's environment: no key but that of its configuration, no way but our doors."""
    child = {
        name: value
        for name, value in ours.items()
        if name not in _OTHER_KEYS
        and not name.startswith(_OTHER_REMOTE)
        and (doors is None or name.lower() not in _PROXIES)
    }
    child |= {
        "USER_TRUSSRC_PATH": str(folder / "trussrc"),
        "BASETEN_TRUSS_AUTH_KEYRING_DISABLED": "1",
        "TRUSS_NO_UPDATE_CHECK": "1",
        # An entry for localhost in ~/.netrc would take the place of the key.
        "NETRC": str(folder / "no-netrc"),
    }
    if doors is not None:
        for name in ("http_proxy", "HTTP_PROXY"):
            child[name] = doors.plain
        for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            child[name] = doors.closed
    return child


def trussrc(remote: Remote) -> configparser.ConfigParser:
    """The truss CLI's configuration with this remote as its only one."""
    parser = configparser.ConfigParser()
    parser[remote.name if "://" not in remote.name else "kingpost"] = {
        "remote_provider": "baseten",
        "remote_url": BASETEN_APP if remote.is_baseten else KNOWN_ADDRESS,
        "api_key": (remote.api_key or "").replace("%", "%%"),
    }
    return parser


@contextmanager
def _configuration(remote: Remote) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="kingpost-truss-") as name:
        folder = Path(name)
        handle = os.open(folder / "trussrc", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            trussrc(remote).write(file)
        yield folder


def _run(argv: list[str], environment: dict[str, str]) -> int:
    """Run the child to its end and return its exit code, 128 and the number for a signal."""
    children: list[subprocess.Popen[bytes]] = []
    early: list[int] = []

    def pass_on(received: int, _: FrameType | None) -> None:
        for child in children:
            child.send_signal(received)
        if not children:
            early.append(received)

    def leave_to_child(_: int, __: FrameType | None) -> None:
        """A terminal's Ctrl-C reaches the child by itself, and it decides what to do."""

    handlers = dict.fromkeys(_FORWARDED, pass_on) | {signal.SIGINT: leave_to_child}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        child = subprocess.Popen(argv, env=environment)
        children.append(child)
        for received in early:
            child.send_signal(received)
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 128 - code if code < 0 else code
