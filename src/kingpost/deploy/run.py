"""A service's life: chosen, claimed, deployed, destroyed; each step is in the record first."""

from __future__ import annotations

from decimal import Decimal

from kingpost.deploy import registry
from kingpost.deploy.catalog import Catalog
from kingpost.deploy.plan import Plan
from kingpost.deploy.provider import Provider, Say, State
from kingpost.deploy.request import DeployRequest
from kingpost.deploy.state import Deployments, Service, ServiceRecord
from kingpost.errors import KingpostError, NotFoundError


def choose(request: DeployRequest, catalog: Catalog, remote: str | None) -> Provider:
    """The cheapest provider that is set up and has the GPU; one's own platform counts as free.

    Raises NotFoundError that says who has the GPU and how to set one up.
    """
    found: list[tuple[Decimal, Provider]] = []
    for name in registry.names():
        provider = registry.get(name, remote)
        if provider.offers(request.gpu):
            price = next(
                (
                    offer.usd_per_gpu_hour
                    for offer in (catalog.offers_of(request.gpu) if request.gpu else ())
                    if offer.provider == name
                ),
                Decimal(0) if name == "local" else None,
            )
            found.append((Decimal("Infinity") if price is None else price, provider))
    if found:
        return min(found, key=lambda pair: pair[0])[1]
    wanted = request.gpu.label if request.gpu is not None else "a CPU"
    who = ", ".join(o.provider for o in catalog.offers_of(request.gpu)) if request.gpu else ""
    listed = f" By the catalogue these offer it: {who}." if who else ""
    raise NotFoundError(
        f"No provider that is set up offers {wanted}.{listed} Set BASETEN_API_KEY for Baseten, "
        "start a platform here with `kingpost up`, or name one with --provider."
    )


def deploy(
    deployments: Deployments, provider: Provider, plan: Plan, remote: str | None, say: Say
) -> Service:
    """Returns the service, active. What goes wrong, an interrupt too, is in the record."""
    record = deployments.claim(plan, remote)
    try:
        record.set_endpoint(provider.deploy(plan, record, say))
        record.set_state(State.ACTIVE, "serving", only_from=State.DEPLOYING)
    except BaseException as error:
        _failed(record, error, say)
        raise
    return record.row


def destroy(deployments: Deployments, service: Service, provider: Provider, say: Say) -> None:
    """Deletes what the record holds; doing it again is no error. What fails is in the record."""
    if service.state is State.DESTROYED:
        say(f"{service.name} is destroyed already.")
        return
    record = deployments.record(service)
    record.set_state(State.PARTLY_DESTROYED, "destroying")
    try:
        provider.destroy(record, say)
    except KingpostError as error:
        record.set_state(State.PARTLY_DESTROYED, error.message)
        raise
    record.set_state(State.DESTROYED, "everything recorded is gone")


def _failed(record: ServiceRecord, error: BaseException, say: Say) -> None:
    message = error.message if isinstance(error, KingpostError) else type(error).__name__
    if not record.resources():
        record.set_state(State.DESTROYED, f"nothing was made: {message}")
        return
    record.set_state(State.FAILED, message, only_from=State.DEPLOYING)
    say(f"What was made is recorded. Remove it: kingpost destroy {record.service}")
