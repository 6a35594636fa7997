"""Turns every error into one message and an exit code: 1 the user's, 2 usage, 3 the server's.

130 stands for an interrupt. A traceback is shown only with `KINGPOST_DEBUG=1`.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import click

USER: Final = 1
USAGE: Final = 2
SERVER: Final = 3
INTERRUPTED: Final = 130


@dataclass(frozen=True)
class Failure:
    code: str
    message: str
    exit_code: int


def run(command: click.Command, arguments: Sequence[str]) -> int:
    """Run the command tree and return the exit code; errors go to stderr."""
    try:
        result = command.main(args=list(arguments), prog_name="kingpost", standalone_mode=False)
    except BrokenPipeError:
        # Whoever read our output has gone; without this Python complains at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return USER
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  # nothing above explains it
        if os.environ.get("KINGPOST_DEBUG"):
            traceback.print_exc()
        failure = explain(error)
        _show(failure, error, as_json=wants_json(arguments))
        return failure.exit_code
    return result if isinstance(result, int) else 0


def explain(error: BaseException) -> Failure:
    """What to tell a user of an error, and how to exit."""
    from kingpost.errors import KingpostError

    if isinstance(error, KingpostError):
        exit_code = SERVER if error.http_status >= 500 and error.http_status != 501 else USER
        return Failure(error.code, error.message, exit_code)
    if isinstance(error, click.exceptions.Abort | KeyboardInterrupt):
        return Failure("INTERRUPTED", "Interrupted.", INTERRUPTED)
    if isinstance(error, click.UsageError):
        return Failure("USAGE", error.format_message(), USAGE)
    if isinstance(error, click.ClickException):
        return Failure("ERROR", error.format_message(), USER)
    if isinstance(error, OSError) and error.strerror:
        shown = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        return Failure("SYSTEM", f"{shown}.", USER)
    return Failure(
        "UNEXPECTED",
        f"Unexpected error: {type(error).__name__}: {error}. KINGPOST_DEBUG=1 shows where; "
        "please report it.",
        USER,
    )


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether errors are to be JSON too. What follows `truss` or `--` belongs to someone else."""
    own = list(arguments)
    for stop in ("--", "truss"):
        if stop in own:
            own = own[: own.index(stop)]
    return "--json" in own


def _show(failure: Failure, error: BaseException, *, as_json: bool) -> None:
    if as_json:
        body = {"code": failure.code, "message": failure.message}
        click.echo(json.dumps(body, ensure_ascii=False), err=True)
        return
    if isinstance(error, click.UsageError) and error.ctx is not None:
        click.echo(error.ctx.get_usage(), err=True)
        click.echo(f"Try '{error.ctx.command_path} --help'.", err=True)
    prefix = "" if failure.exit_code == INTERRUPTED else click.style("Error: ", fg="red")
    click.echo(prefix + failure.message, err=True)
