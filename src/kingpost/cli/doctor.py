"""`kingpost doctor`: what this machine lacks for a platform, and how to get it."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kingpost.cli.failure import USER
from kingpost.cli.session import Session, with_json

if TYPE_CHECKING:
    from kingpost.supervisor.checks import Check


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="As for `kingpost up`.")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=8000,
    show_default=True,
    help="As for `kingpost up`.",
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="As for `kingpost up`.",
)
@click.option(
    "--sandbox",
    type=click.Choice(["auto", "require", "off"]),
    default="auto",
    show_default=True,
    help="As for `kingpost up`.",
)
@with_json
def doctor(session: Session, host: str, port: int, data_dir: Path | None, sandbox: str) -> None:
    """Check this machine and say how to fix what is missing.

    It exits with 1 if something is missing that `kingpost up` can't do without.
    """
    from kingpost.client.remotes import data_folder
    from kingpost.settings import DataFolder, SandboxMode, Settings
    from kingpost.supervisor import checks

    data = DataFolder(data_dir.absolute()) if data_dir else data_folder(os.environ)
    settings = Settings(data=data, host=host, port=port, sandbox=SandboxMode(sandbox))
    found = checks.examine(settings)
    failed = sum(1 for check in found if check.level is checks.Level.FAILED)
    data_out = {"ok": not failed, "checks": [asdict(check) for check in found]}
    session.out.result(data_out, lambda: _show(session, found))
    if failed:
        click.get_current_context().exit(USER)


def _show(session: Session, found: list[Check]) -> None:
    from kingpost.supervisor.checks import Level

    colors = {Level.OK: "green", Level.WARNING: "yellow", Level.FAILED: "red"}
    for check in found:
        level = click.style(check.level.value.ljust(8), fg=colors[check.level])
        session.out.line(f"{level} {check.name.ljust(14)} {check.found}")
        if check.fix:
            session.out.line(f"{' ' * 24}{check.fix}")
