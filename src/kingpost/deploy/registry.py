"""Providers by name, imported when they are asked for; other packages add theirs."""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import Final

from kingpost.deploy.provider import Provider
from kingpost.errors import InvalidInputError, NotFoundError

GROUP: Final = "kingpost.providers"
PROVIDERS: Final = {
    "baseten": "kingpost.deploy.providers.baseten:on_baseten",
    "local": "kingpost.deploy.providers.baseten:on_platform",
}
INSTALL_HINTS: Final[dict[str, str]] = {}
"""What to install for a provider whose module needs more than this package."""


def names() -> tuple[str, ...]:
    """Ours, then those of other packages; ours can't be replaced."""
    return tuple(dict.fromkeys([*PROVIDERS, *(point.name for point in entry_points(group=GROUP))]))


def get(name: str, remote: str | None = None) -> Provider:
    """The provider of that name; `remote` is which platform `local` means.

    Raises NotFoundError for an unknown name, InvalidInputError when something is not installed.
    """
    target = PROVIDERS.get(name)
    if target is None:
        found = next((p for p in entry_points(group=GROUP) if p.name == name), None)
        if found is None:
            known = ", ".join(names())
            raise NotFoundError(f"No provider is named {name!r}; one can deploy to: {known}.")
        target = found.value
    module, _, attribute = target.partition(":")
    try:
        make = getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        hint = INSTALL_HINTS.get(name, f"install the package that brings {name!r} completely")
        raise InvalidInputError(
            f"Provider {name!r} can't be loaded: {error.name or error} is missing; {hint}."
        ) from error
    provider: Provider = make(remote)
    return provider
