"""Reads what must not be seen: from a hidden prompt, or stdin. Never from an argument."""

from __future__ import annotations

import sys

import click


def read_hidden(what: str, *, from_stdin: bool) -> str:
    """One value; from stdin it is all of it without the last line's end."""
    if not from_stdin and sys.stdin.isatty():
        return str(click.prompt(what, hide_input=True, err=True))
    text = sys.stdin.read()
    return text.removesuffix("\n").removesuffix("\r")
