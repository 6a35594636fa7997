"""The root of the command tree. Each subcommand's module is imported when it is called."""

from __future__ import annotations

import click

import kingpost


@click.group()
@click.version_option(kingpost.__version__, prog_name="kingpost")
def root() -> None:
    """Run models and agents as autoscaled HTTP endpoints, anywhere."""
