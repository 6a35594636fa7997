"""`kingpost list`, `destroy` and `cost`: what was deployed from here."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from kingpost.cli.session import Session, with_json

if TYPE_CHECKING:
    from kingpost.deploy.provider import Provider
    from kingpost.deploy.state import Deployments, Service


@click.command("list")
@click.option("--all", "with_destroyed", is_flag=True, help="Destroyed ones too.")
@with_json
def list_services(session: Session, /, with_destroyed: bool) -> None:
    """List what was deployed from here with `kingpost deploy`."""
    from kingpost.cli.times import age
    from kingpost.deploy.provider import State

    now = datetime.now(UTC)
    found = [
        service
        for service in _open().all()
        if with_destroyed or service.state is not State.DESTROYED
    ]
    rows = [
        (s.name, s.state, s.provider, s.plan["request"]["model"], _gpu(s), _age(s, now, age))
        for s in found
    ]
    columns = ("SERVICE", "STATE", "PROVIDER", "MODEL", "GPU", "AGE")
    empty = "Nothing is deployed from here. Deploy: kingpost deploy --model OWNER/NAME --gpu GPU"
    session.out.result(
        [summary(service) for service in found], lambda: session.out.table(columns, rows, empty)
    )


@click.command()
@click.argument("services", nargs=-1, metavar="[SERVICE]...")
@click.option("--service-name", metavar="NAME", help="The same as SERVICE.")
@click.option("--all", "everything", is_flag=True, help="All that is not destroyed.")
@click.option("-y", "--yes", is_flag=True, help="Don't ask.")
@with_json
def destroy(
    session: Session,
    /,
    services: tuple[str, ...],
    service_name: str | None,
    everything: bool,
    yes: bool,
) -> None:
    """Delete what `kingpost deploy` made, and confirm that it is gone."""
    from kingpost.cli.confirm import confirm
    from kingpost.deploy import run
    from kingpost.deploy.provider import State
    from kingpost.errors import KingpostError

    names = (*services, *filter(None, [service_name]))
    if bool(names) == everything:
        raise click.UsageError("Name services, or say --all.")
    deployments = _open()
    found = [deployments.get(name) for name in names]
    if everything:
        found = [s for s in deployments.all() if s.state is not State.DESTROYED]
    if found:
        confirm(f"Destroy {', '.join(service.name for service in found)}?", yes=yes)
    failures: list[KingpostError] = []
    for service in found:
        try:
            run.destroy(deployments, service, provider_of(service), session.out.note)
        except KingpostError as error:
            failures.append(error)
            session.out.note(f"{service.name}: {error.message}")
    done = [summary(deployments.get(service.name)) for service in found]

    def human() -> None:
        for each in done:
            session.out.line(f"{each['service']} is {each['state']}.")

    session.out.result(done, human)
    if failures:
        raise failures[0]


@click.command()
@click.argument("service", metavar="SERVICE")
@with_json
def cost(session: Session, /, service: str) -> None:
    """Estimate what a service has cost, beside an always-on machine and the next provider."""
    from decimal import Decimal

    from kingpost.deploy import catalog
    from kingpost.deploy.cost import estimate, next_cheapest
    from kingpost.deploy.plan import money
    from kingpost.deploy.provider import State
    from kingpost.errors import NotFoundError

    deployments = _open()
    found = deployments.get(service)
    if found.usd_per_hour is None:
        raise NotFoundError(
            f"No price is known for {service}: {found.provider} is a platform of one's own."
        )
    known = catalog.load()
    asked = found.plan["request"]
    end = found.updated_at if found.state is State.DESTROYED else datetime.now(UTC)
    seconds = (end - found.created_at).total_seconds()
    told = estimate(
        seconds,
        Decimal(found.usd_per_hour),
        (asked["scaling"]["min_replica"], asked["scaling"]["max_replica"]),
        known.provider(found.provider).billing_grain_s,
        next_cheapest(
            known, known.by_name(asked["gpu"]["name"]), asked["gpu_count"], found.provider
        ),
    )
    data = {
        "service": service,
        "estimate": True,
        "billed_seconds": told.billed_s,
        "usd_per_replica_hour": found.usd_per_hour,
        "price_as_of": found.price_as_of,
        "usd_at_least": money(told.at_least),
        "usd_at_most": money(told.at_most),
        "usd_always_on": money(told.always_on),
        "next_cheapest": told.other,
        "usd_next_cheapest_at_most": money(told.other_at_most),
    }
    session.out.result(data, lambda: session.out.pairs([(k, str(v)) for k, v in data.items()]))


def summary(service: Service) -> dict[str, Any]:
    """What is recorded of a service, as commands print it."""
    return {
        "service": service.name,
        "state": service.state,
        "provider": service.provider,
        "model": service.plan["request"]["model"],
        "gpu": _gpu(service),
        "endpoint": service.endpoint,
        "health": service.health,
        "usd_per_replica_hour": service.usd_per_hour,
        "price_as_of": service.price_as_of,
        "created_at": service.created_at.isoformat(),
    }


def provider_of(service: Service) -> Provider:
    from kingpost.deploy import registry

    return registry.get(service.provider, service.remote)


def _open() -> Deployments:
    from kingpost.deploy.state import Deployments, state_path

    return Deployments(state_path(os.environ))


def _gpu(service: Service) -> str:
    asked = service.plan["request"]
    if asked["gpu"] is None:
        return "CPU"
    label = str(asked["gpu"]["label"])
    return f"{asked['gpu_count']} x {label}" if asked["gpu_count"] > 1 else label


def _age(service: Service, now: datetime, age: Any) -> str:
    return str(age(service.created_at.isoformat(), now))
