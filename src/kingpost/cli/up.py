"""`kingpost up`: the options of a platform, checked and handed to the supervisor."""

from __future__ import annotations

import os
from pathlib import Path

import click

_FILE = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--host-names",
    default="",
    metavar="NAMES",
    help="Further names that clients call it by, with commas between; * is any.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=8000,
    show_default=True,
    help="The one port for everything.",
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Default: $KINGPOST_DATA_DIR, else $XDG_DATA_HOME/kingpost.",
)
@click.option(
    "--sandbox",
    type=click.Choice(["auto", "require", "off"]),
    help="Whether replicas are sandboxed. Default: auto; require on another host.",
)
@click.option(
    "--emulate-accelerators",
    is_flag=True,
    help="Run Trusses that want a GPU on the CPU, and say so.",
)
@click.option("--detach-replicas", is_flag=True, help="Leave replicas running when it stops.")
@click.option("--tls-cert", type=_FILE, metavar="FILE", help="A certificate chain (PEM).")
@click.option("--tls-key", type=_FILE, metavar="FILE", help="Its private key (PEM).")
@click.option(
    "--insecure",
    is_flag=True,
    help="Allow another host than loopback without TLS: keys cross the network in clear.",
)
@click.option(
    "--instance-types",
    type=_FILE,
    metavar="FILE",
    help="Instance types and prices of this machine.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How it says on the terminal what it does.",
)
@click.pass_context
def up(
    context: click.Context,
    host: str,
    host_names: str,
    port: int,
    data_dir: Path | None,
    sandbox: str | None,
    emulate_accelerators: bool,
    detach_replicas: bool,
    tls_cert: Path | None,
    tls_key: Path | None,
    insecure: bool,
    instance_types: Path | None,
    log_format: str,
) -> None:
    """Run the platform on this machine, in the foreground.

    The first start makes an admin API key and shows it once; KINGPOST_API_KEY, when set, is that
    key. Ctrl-C ends it in order.
    """
    from kingpost.client.remote import is_loopback
    from kingpost.client.remotes import data_folder
    from kingpost.settings import DataFolder, SandboxMode, Settings
    from kingpost.supervisor.up import Options, check_exposure, run

    shown_host = f"[{host}]" if ":" in host else host
    # On another host than loopback, others can push code here: never outside a sandbox unasked.
    default = SandboxMode.AUTO if is_loopback(f"http://{shown_host}") else SandboxMode.REQUIRE
    settings = Settings(
        data=DataFolder(data_dir.absolute()) if data_dir else data_folder(os.environ),
        host=host,
        host_names=tuple(name.strip() for name in host_names.split(",") if name.strip()),
        port=port,
        sandbox=SandboxMode(sandbox) if sandbox else default,
        emulate_accelerators=emulate_accelerators,
        tls_cert=tls_cert.absolute() if tls_cert else None,
        tls_key=tls_key.absolute() if tls_key else None,
        instance_types=instance_types.absolute() if instance_types else None,
    )
    check_exposure(settings, insecure=insecure)
    options = Options(
        detach_replicas=detach_replicas, insecure=insecure, json_output=log_format == "json"
    )
    context.exit(run(settings, options))
