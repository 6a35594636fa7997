"""A group that lists when no subcommand is named: `kingpost models`, `kingpost env MODEL`."""

from __future__ import annotations

import click


class ListingGroup(click.Group):
    """What does not name a subcommand is an argument or option of `list`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        asks_help = bool(args) and args[0] in ctx.help_option_names
        if not asks_help and (not args or args[0] not in self.commands):
            args = ["list", *args]
        return super().parse_args(ctx, args)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_paragraph()
        formatter.write_text("Without a subcommand it lists.")
        super().format_epilog(ctx, formatter)
