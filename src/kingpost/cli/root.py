"""The root of the command tree. Each subcommand's module is imported when it is called."""

from __future__ import annotations

import importlib
from typing import Final, NamedTuple

import click

import kingpost


class Entry(NamedTuple):
    """Where a command is (`module:attribute` below kingpost.cli) and how the help names it."""

    target: str
    section: str
    help: str


COMMANDS: Final[dict[str, Entry]] = {
    "push": Entry("push:push", "Deploy and call", "Push a Truss as a new deployment."),
    "predict": Entry(
        "predict:predict", "Deploy and call", "Call a model and print its answer as it comes."
    ),
    "logs": Entry("logs:logs", "Deploy and call", "Show the log of a deployment."),
    "promote": Entry(
        "promote:promote", "Deploy and call", "Promote a deployment into an environment."
    ),
    "deploy": Entry(
        "deploy:deploy",
        "Deploy anywhere",
        "Deploy a model to a GPU somewhere, and wait until it serves.",
    ),
    "check": Entry(
        "deploy:check",
        "Deploy anywhere",
        "Check what a deployment needs, and say how to fix what is missing.",
    ),
    "list": Entry(
        "services:list_services",
        "Deploy anywhere",
        "List what was deployed from here with `kingpost deploy`.",
    ),
    "cost": Entry(
        "services:cost",
        "Deploy anywhere",
        "Estimate what a service has cost, beside an always-on machine and the next provider.",
    ),
    "destroy": Entry(
        "services:destroy",
        "Deploy anywhere",
        "Delete what `kingpost deploy` made, and confirm that it is gone.",
    ),
    "show-gpus": Entry(
        "gpus:show_gpus", "Deploy anywhere", "List GPUs, who offers them, and their prices."
    ),
    "models": Entry("models:models", "Look and manage", "List models, show or delete one."),
    "deployments": Entry(
        "deployments:deployments", "Look and manage", "List, show and handle deployments."
    ),
    "env": Entry("env:env", "Look and manage", "List, create and set up a model's environments."),
    "secrets": Entry("secret:secrets", "Look and manage", "Set, list and remove secrets."),
    "keys": Entry("key:keys", "Look and manage", "List, create and revoke API keys."),
    "login": Entry(
        "account:login", "Platforms", "Keep a platform's address and API key under a name."
    ),
    "remotes": Entry(
        "account:remotes_group", "Platforms", "List remotes, choose the default, remove one."
    ),
    "whoami": Entry("account:whoami", "Platforms", "Show whose key is used, and where."),
    "status": Entry(
        "status:status", "Platforms", "Show whether the platform is up, and what it lacks."
    ),
    "up": Entry("up:up", "This machine", "Run the platform on this machine, in the foreground."),
    "doctor": Entry(
        "doctor:doctor", "This machine", "Check this machine and say how to fix what is missing."
    ),
    "images": Entry(
        "images:images", "This machine", "Map base images to folders that are installed here."
    ),
    "truss": Entry("truss:truss", "Deploy and call", "Run the truss command against a platform."),
    "completion": Entry(
        "completion:completion", "This machine", "Print a completion script for a shell."
    ),
}


class LazyGroup(click.Group):
    """Knows its commands by name; imports one when it is called or its own help is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.target.partition(":")
        command: click.Command = getattr(
            importlib.import_module(f"kingpost.cli.{module}"), attribute
        )
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(_no_such_command(args[0]))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        sections: dict[str, list[tuple[str, str]]] = {}
        for name, entry in COMMANDS.items():
            sections.setdefault(entry.section, []).append((name, entry.help))
        width = max(len(name) for name in COMMANDS)
        for section, rows in sections.items():
            with formatter.section(section):
                formatter.write_dl([(name.ljust(width), text) for name, text in rows])


def _no_such_command(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, COMMANDS, n=3)
    hint = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    return f"No command is named {name!r}.{hint}"


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 can't be done as asked, 2 wrong usage, 3 the platform is "
    "unavailable or failed.",
)
@click.version_option(kingpost.__version__, "-V", "--version", prog_name="kingpost")
def root() -> None:
    """Run models and agents as autoscaled HTTP endpoints, anywhere."""
