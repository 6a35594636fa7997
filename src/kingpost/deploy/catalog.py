"""GPUs, who offers them, and at what price: what is known without asking a provider. No network."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import cache
from importlib import resources

from kingpost.errors import InvalidInputError, NotFoundError

OLD_AFTER_DAYS = 90


@dataclass(frozen=True)
class Gpu:
    """`label` is the name shown; `aliases` are other names that mean it."""

    name: str
    label: str
    vram_gb: int
    architecture: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Offer:
    """One GPU at one provider. A price of None is unknown; `as_of` is a year, a month or a day."""

    gpu: str
    provider: str
    provider_gpu_id: str
    usd_per_gpu_hour: Decimal | None
    as_of: str
    source: str

    def is_old(self, today: date) -> bool:
        """Whether the price may be more than `OLD_AFTER_DAYS` old."""
        return (today - earliest_day(self.as_of)).days > OLD_AFTER_DAYS


@dataclass(frozen=True)
class ProviderInfo:
    """`billing_grain_s` is the time that is billed in full; None where it is not known."""

    name: str
    label: str
    billing_grain_s: int | None


@dataclass(frozen=True)
class Catalog:
    gpus: tuple[Gpu, ...]
    offers: tuple[Offer, ...]
    providers: tuple[ProviderInfo, ...]

    def gpu(self, named: str) -> Gpu:
        """The GPU of that name, alias or provider's name, in any case and spacing.

        Raises NotFoundError that names the nearest GPUs and who has them.
        """
        names = self._names()
        found = names.get(_folded(named))
        if found is not None:
            return found
        near = difflib.get_close_matches(_folded(named), names, n=5, cutoff=0.5)
        nearest = list(dict.fromkeys(names[name] for name in near))[:3]
        if not nearest:
            raise NotFoundError(f"No GPU is named {named!r}. `kingpost show-gpus` lists them.")
        known = "; ".join(f"{gpu.label} ({self._who_has(gpu)})" for gpu in nearest)
        raise NotFoundError(
            f"No GPU is named {named!r}. The nearest: {known}. `kingpost show-gpus` lists all."
        )

    def provider(self, named: str) -> ProviderInfo:
        for provider in self.providers:
            if provider.name == named.casefold():
                return provider
        known = ", ".join(provider.name for provider in self.providers)
        raise InvalidInputError(f"No prices are known of {named!r}; of these they are: {known}.")

    def offers_of(self, gpu: Gpu) -> tuple[Offer, ...]:
        """Cheapest first, unknown prices last."""
        return tuple(sorted((o for o in self.offers if o.gpu == gpu.name), key=_by_price))

    def offer(self, gpu: Gpu, provider: str) -> Offer:
        """Raises NotFoundError that names who has the GPU instead."""
        for offer in self.offers_of(gpu):
            if offer.provider == provider:
                return offer
        has = ", ".join(dict.fromkeys(self.by_name(o.gpu).label for o in self._of(provider)))
        raise NotFoundError(
            f"{provider} has no {gpu.label}; it has {has or 'none that is known'}. "
            f"{gpu.label} is offered by: {self._who_has(gpu)}."
        )

    def by_name(self, name: str) -> Gpu:
        return next(gpu for gpu in self.gpus if gpu.name == name)

    def select(
        self,
        *,
        gpu: Gpu | None = None,
        provider: str | None = None,
        max_price: Decimal | None = None,
        min_vram_gb: int = 0,
    ) -> Catalog:
        """What is left when all conditions hold. A price limit leaves unknown prices out."""
        gpus = tuple(g for g in self.gpus if (gpu is None or g == gpu) and g.vram_gb >= min_vram_gb)
        kept = {g.name for g in gpus}
        offers = tuple(
            o
            for o in self.offers
            if o.gpu in kept
            and (provider is None or o.provider == provider)
            and (max_price is None or (o.usd_per_gpu_hour or max_price + 1) <= max_price)
        )
        if provider is not None or max_price is not None:
            offered = {o.gpu for o in offers}
            gpus = tuple(g for g in gpus if g.name in offered)
        providers = tuple(p for p in self.providers if provider is None or p.name == provider)
        return Catalog(gpus, offers, providers)

    def sorted_gpus(self) -> tuple[Gpu, ...]:
        """By memory, then by name."""
        return tuple(sorted(self.gpus, key=lambda gpu: (gpu.vram_gb, gpu.name)))

    def _of(self, provider: str) -> Iterator[Offer]:
        return (offer for offer in self.offers if offer.provider == provider)

    def _who_has(self, gpu: Gpu) -> str:
        return ", ".join(offer.provider for offer in self.offers_of(gpu)) or "nobody known"

    def _names(self) -> dict[str, Gpu]:
        """Folded names to GPUs; a GPU's own name wins over what a provider calls another."""
        by_name = {gpu.name: gpu for gpu in self.gpus}
        pairs: list[tuple[str, Gpu]] = [
            (offer.provider_gpu_id, by_name[offer.gpu])
            for offer in self.offers
            if offer.gpu in by_name
        ]
        pairs += [(alias, gpu) for gpu in self.gpus for alias in (gpu.label, *gpu.aliases)]
        pairs += [(gpu.name, gpu) for gpu in self.gpus]
        return {_folded(name): gpu for name, gpu in pairs}


def cheapest(offers: Iterable[Offer]) -> Offer | None:
    """The first of the lowest known price; None when no price is known."""
    priced = [offer for offer in offers if offer.usd_per_gpu_hour is not None]
    return min(priced, key=_by_price) if priced else None


def earliest_day(as_of: str) -> date:
    """The first day that a year, a month or a day in ISO 8601 could mean."""
    return date.fromisoformat(as_of + {4: "-01-01", 7: "-01"}.get(len(as_of), ""))


@cache
def load() -> Catalog:
    """The catalogue that comes with this package."""
    gpus = tuple(
        Gpu(
            row["gpu"],
            row["label"],
            int(row["vram_gb"]),
            row["architecture"],
            tuple(row["aliases"].split()),
        )
        for row in _rows("gpus.csv")
    )
    offers = tuple(
        Offer(
            row["gpu"],
            row["provider"],
            row["provider_gpu_id"],
            Decimal(row["usd_per_gpu_hour"]) if row["usd_per_gpu_hour"] else None,
            row["as_of"],
            row["source"],
        )
        for row in _rows("prices.csv")
    )
    providers = tuple(
        ProviderInfo(
            row["provider"],
            row["label"],
            int(row["billing_grain_s"]) if row["billing_grain_s"] else None,
        )
        for row in _rows("providers.csv")
    )
    return Catalog(gpus, offers, providers)


def _rows(name: str) -> list[dict[str, str]]:
    text = resources.files("kingpost.deploy").joinpath("data", name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def _folded(name: str) -> str:
    return "".join(char for char in name.casefold() if char.isalnum())


def _by_price(offer: Offer) -> tuple[bool, Decimal]:
    return offer.usd_per_gpu_hour is None, offer.usd_per_gpu_hour or Decimal(0)
