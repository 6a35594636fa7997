"""`kingpost completion`: the script that teaches a shell our commands."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a completion script for a shell.

    For bash: eval "$(kingpost completion bash)". For fish: kingpost completion fish | source.
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"No completion is known for {shell}.")
    click.echo(found(context.find_root().command, {}, "kingpost", "_KINGPOST_COMPLETE").source())
