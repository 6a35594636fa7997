"""`kingpost promote`: an existing deployment takes an environment over."""

from __future__ import annotations

import click

from kingpost.cli.session import Session, with_remote
from kingpost.contract import PRODUCTION


@click.command()
@click.argument("model", metavar="MODEL")
@click.argument("deployment", metavar="DEPLOYMENT")
@click.option("--environment", default=PRODUCTION, metavar="ENV", help="Default: production.")
@click.option("--wait", is_flag=True, help="Wait until the environment points to it.")
@click.option("--timeout-seconds", type=float, metavar="S", help="With --wait: wait at most S.")
@click.option("--keep-previous", is_flag=True, help="Leave the deployment it replaces as it is.")
@click.option(
    "--preserve-env-instance-type/--no-preserve-env-instance-type",
    default=True,
    help="Keep the environment's instance type (default), or take the deployment's.",
)
@with_remote
def promote(
    session: Session,
    model: str,
    deployment: str,
    environment: str,
    wait: bool,
    timeout_seconds: float | None,
    keep_previous: bool,
    preserve_env_instance_type: bool,
) -> None:
    """Promote a deployment into an environment.

    It is made ready first; only then does the environment point to it.
    """
    if timeout_seconds is not None and not wait:
        raise click.UsageError("--timeout-seconds needs --wait.")
    from kingpost.cli import following
    from kingpost.cli.push import describe
    from kingpost.client.resolve import find_deployment, find_model

    api = session.api()
    found = find_model(api, model)
    chosen = find_deployment(api, found, deployment)
    promoted = following.promote(
        session,
        found,
        chosen,
        environment,
        scale_down_previous=not keep_previous,
        preserve_instance_type=preserve_env_instance_type,
        wait=wait,
        timeout_s=timeout_seconds,
    )
    data = {**describe(api.remote, found, promoted), "environment": environment}
    target = PRODUCTION if environment == PRODUCTION else f"environments/{environment}"
    data["environment_url"] = api.remote.inference_url(found["id"], target)
    verb = "is now" if wait else "will be, once it is ready,"
    name = f"{promoted['name']} ({promoted['id']})"
    text = f"{name} {verb} {environment} of {found['name']}: {data['environment_url']}"
    session.out.result(data, lambda: session.out.line(text))
