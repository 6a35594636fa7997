"""Asks before something is lost; without a terminal it wants `--yes`."""

from __future__ import annotations

import sys

import click


def confirm(question: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Say so with --yes; there is no terminal to ask on.")
    click.confirm(question, abort=True, err=True)
