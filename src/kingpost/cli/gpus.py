"""`kingpost show-gpus`: GPUs, who offers them, and at what price."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import click

from kingpost.cli.session import Session, with_json

if TYPE_CHECKING:
    from datetime import date

    from kingpost.deploy.catalog import Catalog, Gpu, Offer


@click.command("show-gpus")
@click.option("--gpu", metavar="GPU", help="Only this one, in detail.")
@click.option("--provider", metavar="NAME", help="Only what this provider offers.")
@click.option(
    "--max-price",
    callback=lambda _ctx, _param, value: _price(value),
    metavar="USD",
    help="At most, per GPU and hour.",
)
@click.option("--min-vram", type=click.IntRange(0), default=0, metavar="GB", help="At least.")
@click.option("--refresh", is_flag=True, help="Ask Baseten for its prices of now.")
@with_json
def show_gpus(
    session: Session,
    /,
    gpu: str | None,
    provider: str | None,
    max_price: Decimal | None,
    min_vram: int,
    refresh: bool,
) -> None:
    """List GPUs, who offers them, and their prices.

    Prices are in US dollars per GPU and hour; * marks the cheapest of a row.
    """
    from kingpost.deploy import catalog

    whole = _refreshed(catalog.load()) if refresh else catalog.load()
    named = whole.gpu(gpu) if gpu is not None else None
    chosen = whole.provider(provider).name if provider is not None else None
    shown = whole.select(gpu=named, provider=chosen, max_price=max_price, min_vram_gb=min_vram)
    today = datetime.now(UTC).date()
    data = [_entry(shown, each, today) for each in shown.sorted_gpus()]

    def human() -> None:
        if named is not None and data:
            _detail(session, shown, named, today)
        else:
            _table(session, shown, today)

    session.out.result(data, human)


def _refreshed(catalog: Catalog) -> Catalog:
    import os

    from kingpost.client import remotes
    from kingpost.client.rest import RestClient
    from kingpost.deploy.prices import with_instance_prices

    stored = remotes.load(remotes.remotes_path(os.environ))
    with RestClient(remotes.resolve(remotes.BASETEN, stored, os.environ)) as api:
        answer = api.get("/v1/instance_type_prices")["instance_types"]
    return with_instance_prices(catalog, "baseten", answer, datetime.now(UTC).date())


def _price(text: str | None) -> Decimal | None:
    if text is None:
        return None
    try:
        price = Decimal(text.removeprefix("$"))
    except InvalidOperation:
        price = Decimal("NaN")
    if not price.is_finite() or price < 0:
        raise click.BadParameter(f"{text!r} is no price: expected US dollars, such as 2.50.")
    return price


def _entry(catalog: Catalog, gpu: Gpu, today: date) -> dict[str, Any]:
    from kingpost.deploy.catalog import cheapest

    offers = catalog.offers_of(gpu)
    best = cheapest(offers)
    return {
        "gpu": gpu.name,
        "name": gpu.label,
        "vram_gb": gpu.vram_gb,
        "architecture": gpu.architecture,
        "cheapest": best.provider if best else None,
        "offers": [
            {
                "provider": offer.provider,
                "provider_gpu_id": offer.provider_gpu_id,
                "usd_per_gpu_hour": _money(offer),
                "as_of": offer.as_of,
                "old": offer.is_old(today),
                "source": offer.source,
            }
            for offer in offers
        ],
    }


def _table(session: Session, catalog: Catalog, today: date) -> None:
    from kingpost.deploy.catalog import cheapest

    columns = ("GPU", "MEMORY", *(provider.label.upper() for provider in catalog.providers))
    rows = []
    for gpu in catalog.sorted_gpus():
        offers = {offer.provider: offer for offer in catalog.offers_of(gpu)}
        best = cheapest(offers.values()) if len(offers) > 1 else None
        cells = [_cell(offers.get(p.name), best) for p in catalog.providers]
        rows.append((gpu.label, f"{gpu.vram_gb} GB", *cells))
    session.out.table(columns, rows, "No GPU meets all of these conditions.")
    if rows:
        session.out.note(_dates(catalog.offers, today))


def _detail(session: Session, catalog: Catalog, gpu: Gpu, today: date) -> None:
    from kingpost.deploy.catalog import cheapest

    session.out.pairs(
        [
            ("gpu", gpu.label),
            ("memory", f"{gpu.vram_gb} GB"),
            ("architecture", gpu.architecture),
            ("also named", ", ".join({gpu.name, *gpu.aliases} - {gpu.label}) or "-"),
        ]
    )
    session.out.line()
    offers = catalog.offers_of(gpu)
    best = cheapest(offers) if len(offers) > 1 else None
    grains = {provider.name: provider.billing_grain_s for provider in catalog.providers}
    rows = [
        (o.provider, _cell(o, best), o.provider_gpu_id, _grain(grains[o.provider]), o.as_of)
        for o in offers
    ]
    columns = ("PROVIDER", "USD/HOUR", "ITS NAME THERE", "BILLED BY", "PRICE OF")
    session.out.table(columns, rows, "Nobody known offers it.")
    session.out.note(_dates(offers, today))


def _cell(offer: Offer | None, best: Offer | None) -> str:
    if offer is None:
        return "-"
    if offer.usd_per_gpu_hour is None:
        return "?"
    mark = "*" if best and offer.usd_per_gpu_hour == best.usd_per_gpu_hour else ""
    return f"{offer.usd_per_gpu_hour:.2f}{mark}"


def _money(offer: Offer) -> str | None:
    return None if offer.usd_per_gpu_hour is None else f"{offer.usd_per_gpu_hour:.2f}"


def _grain(seconds: int | None) -> str:
    if seconds is None:
        return "not known"
    return {1: "second", 60: "minute"}.get(seconds, f"{seconds} s")


def _dates(offers: tuple[Offer, ...], today: date) -> str:
    """How old the prices are, said where it matters."""
    days = sorted({offer.as_of for offer in offers})
    told = f"US dollars per GPU and hour, list prices of {', '.join(days)}."
    if any(offer.is_old(today) for offer in offers):
        told += " Some may be old: ask the provider before you rely on them."
    return told
