"""What documents name: whether a command of theirs, with its options, exists."""

from __future__ import annotations

import re
from pathlib import Path

import click

from kingpost.cli.groups import ListingGroup
from kingpost.cli.root import root

ROOT = Path(__file__).resolve().parents[2]


def problem_of_command(text: str) -> str | None:
    program, *words = text.split()
    if program == "make":
        makefile = (ROOT / "Makefile").read_text()
        missing = [w for w in words if not re.search(rf"^{re.escape(w)}:", makefile, re.MULTILINE)]
        return f"the Makefile has no target {missing}" if missing or not words else None
    if program != "kingpost":
        return f"{program!r} is neither make nor kingpost"
    return _problem_of_kingpost(root, words)


def _problem_of_kingpost(command: click.Command, words: list[str]) -> str | None:
    context = click.Context(command)
    if isinstance(command, click.Group):
        if not words:
            listing = isinstance(command, ListingGroup)
            return None if listing else f"{command.name!r} needs a command"
        below = command.get_command(context, words[0])
        if below is None:
            return f"there is no command {words[0]!r}"
        return _problem_of_kingpost(below, words[1:])
    options = {name for parameter in command.params for name in parameter.opts}
    missing = [word for word in words if word.startswith("-") and word not in options]
    return f"{command.name!r} has no {missing}" if missing else None
