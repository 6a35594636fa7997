"""`kingpost push`: a Truss folder becomes a deployment; with `--wait` its build is watched."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kingpost.cli.session import Session, with_remote
from kingpost.contract import PRODUCTION

if TYPE_CHECKING:
    from kingpost.client.archive import TrussFolder
    from kingpost.client.push import Pushed, PushOptions
    from kingpost.client.remote import Remote


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path(), metavar="[DIR]")
@click.option("--model-name", metavar="NAME", help="Instead of the config's model_name.")
@click.option("--promote", is_flag=True, help="Make it the production deployment when ready.")
@click.option("--environment", metavar="ENV", help="Promote it into this environment when ready.")
@click.option("--deployment-name", metavar="NAME", help="A name for this deployment.")
@click.option("--development", is_flag=True, help="Push to the model's development deployment.")
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Instead of DIR/config.yaml.",
)
@click.option("--no-cache", is_flag=True, help="Build everything anew.")
@click.option("--labels", metavar="JSON", help="A JSON object to keep with the deployment.")
@click.option("--include-git-info", is_flag=True, help="Record commit, tag and cleanness.")
@click.option("--deploy-timeout-minutes", type=int, metavar="N", help="Give up after N (10-1440).")
@click.option(
    "--preserve-env-instance-type/--no-preserve-env-instance-type",
    default=True,
    help="Keep the environment's instance type (default), or take the config's.",
)
@click.option(
    "--preserve-previous-production-deployment",
    is_flag=True,
    help="With --promote: leave the old one as it is. Waits, since it promotes when ready.",
)
@click.option(
    "--disable-truss-download", is_flag=True, help="New models: never give the archive out."
)
@click.option("--wait", is_flag=True, help="Show the log until it is ready; fail if it fails.")
@click.option("--timeout-seconds", type=float, metavar="S", help="With --wait: wait at most S.")
@click.option("--tail", is_flag=True, help="Show the log and go on showing it.")
@with_remote
def push(session: Session, /, folder: Path, **flags: Any) -> None:
    """Push a Truss as a new deployment.

    DIR is the folder with its config.yaml; without one it is the current folder.
    """
    chosen = Flags(**flags)
    chosen.check()
    from kingpost.client import archive
    from kingpost.client.push import push as push_truss

    truss = archive.read_truss(folder, chosen.config_file)
    options = _options(truss, chosen)
    options.check()
    api = session.api()
    with session.out.bar() as start:
        pushed = push_truss(api, truss, options, _Bars(start))
    for name in pushed.packed.skipped if pushed.packed else ():
        session.out.note(f"Left out {name}: a link to a folder, a broken link, or no plain file.")
    from kingpost.cli import following

    deployment = pushed.deployment
    if chosen.waits:
        _announce(session, pushed)
        deployment = following.watch(
            session, pushed.model, deployment, chosen.timeout_seconds, chosen.target
        )
        if chosen.preserve_previous_production_deployment:
            deployment = following.promote(
                session,
                pushed.model,
                deployment,
                PRODUCTION,
                scale_down_previous=False,
                preserve_instance_type=chosen.preserve_env_instance_type,
            )
    summary = describe(api.remote, pushed.model, deployment)
    session.out.result(summary, lambda: _print(session, summary))
    if chosen.tail:
        following.tail(session, pushed.model, deployment)


@dataclass(frozen=True)
class Flags:
    """The flags of `push` as given."""

    model_name: str | None
    promote: bool
    environment: str | None
    deployment_name: str | None
    development: bool
    config_file: Path | None
    no_cache: bool
    labels: str | None
    include_git_info: bool
    deploy_timeout_minutes: int | None
    preserve_env_instance_type: bool
    preserve_previous_production_deployment: bool
    disable_truss_download: bool
    wait: bool
    timeout_seconds: float | None
    tail: bool

    def check(self) -> None:
        if self.promote and self.environment:
            raise click.UsageError("Choose one of --promote and --environment.")
        if self.preserve_previous_production_deployment and not self.promote:
            raise click.UsageError("--preserve-previous-production-deployment needs --promote.")
        if self.development and (self.promote or self.environment or self.deployment_name):
            raise click.UsageError(
                "--development can't go with --promote, --environment or --deployment-name."
            )
        if self.timeout_seconds is not None and not self.waits:
            raise click.UsageError("--timeout-seconds needs --wait.")

    @property
    def waits(self) -> bool:
        return self.wait or self.preserve_previous_production_deployment

    @property
    def target(self) -> str | None:
        """The environment that the push itself names.

        The API's push always retires the previous deployment by the environment's own rule; to
        keep it, the deployment is pushed without one and promoted once it is ready.
        """
        if self.preserve_previous_production_deployment:
            return None
        return PRODUCTION if self.promote else self.environment


def describe(remote: Remote, model: dict[str, Any], deployment: dict[str, Any]) -> dict[str, Any]:
    """What `push --json` prints. `model_id`, `deployment_id` and `url` are fixed names."""
    url = remote.inference_url(
        model["id"],
        "development" if deployment["is_development"] else f"deployment/{deployment['id']}",
    )
    return {
        "model_id": model["id"],
        "model_name": model["name"],
        "deployment_id": deployment["id"],
        "deployment_name": deployment["name"],
        "environment": deployment["environment"],
        "status": deployment["status"],
        "url": url,
        "predict_url": f"{url}/predict",
        "openai_url": f"{url}/sync/v1",
        "logs_url": remote.logs_url(model["id"], deployment["id"]),
    }


def _options(truss: TrussFolder, flags: Flags) -> PushOptions:
    from kingpost.client import git
    from kingpost.client.push import PushOptions

    return PushOptions(
        model_name=flags.model_name or truss.model_name or _ask_model_name(),
        environment=flags.target,
        deployment_name=flags.deployment_name,
        development=flags.development,
        no_cache=flags.no_cache,
        labels=_labels(flags.labels),
        deploy_timeout_minutes=flags.deploy_timeout_minutes,
        preserve_env_instance_type=flags.preserve_env_instance_type,
        disable_download=flags.disable_truss_download,
        user_env=git.user_env(truss.root) if flags.include_git_info else None,
    )


def _labels(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        labels = json.loads(text)
    except ValueError as error:
        raise click.UsageError(f"--labels is no JSON: {error}.") from None
    if not isinstance(labels, dict):
        raise click.UsageError('--labels must be a JSON object, such as {"team": "search"}.')
    return labels


def _ask_model_name() -> str:
    if not sys.stdin.isatty():
        raise click.UsageError(
            "The Truss has no name: give config.yaml a `model_name`, or use --model-name."
        )
    return str(click.prompt("Name of the model", err=True))


@dataclass(frozen=True)
class _Bars:
    start: Callable[[str, int], Callable[[int], None]]

    def packing(self, total_bytes: int) -> Callable[[int], None]:
        return self.start("Packing", total_bytes)

    def uploading(self, total_bytes: int) -> Callable[[int], None]:
        return self.start("Uploading", total_bytes)


def _announce(session: Session, pushed: Pushed) -> None:
    new = "new model" if pushed.created_model else "model"
    session.out.note(
        f"Pushed {new} {pushed.model['name']} ({pushed.model['id']}), "
        f"deployment {pushed.deployment['name']} ({pushed.deployment['id']})."
    )


def _print(session: Session, summary: dict[str, Any]) -> None:
    shown = {
        "model": f"{summary['model_name']} ({summary['model_id']})",
        "deployment": f"{summary['deployment_name']} ({summary['deployment_id']})",
        "status": summary["status"],
        "environment": summary["environment"],
        "predict": summary["predict_url"],
        "openai": summary["openai_url"],
        "logs": summary["logs_url"],
    }
    session.out.pairs([(name, str(value)) for name, value in shown.items() if value])
