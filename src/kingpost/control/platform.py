"""What the doors of the control plane are given: every operation, by subject."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kingpost.build.base import Validation
from kingpost.control.deployments import Deployments
from kingpost.control.domain import InstanceType
from kingpost.control.drafts import Drafts
from kingpost.control.environments import Environments
from kingpost.control.events import Events
from kingpost.control.keys import Keys
from kingpost.control.logs import Logs
from kingpost.control.models import Models, Teams
from kingpost.control.pushes import Pushes
from kingpost.control.secrets import Secrets
from kingpost.control.store import Store
from kingpost.control.uploads import Uploads
from kingpost.control.vault import Vault
from kingpost.settings import Settings

Validate = Callable[[dict[str, Any]], Awaitable[Validation]]


@dataclass(frozen=True)
class Platform:
    settings: Settings
    events: Events
    teams: Teams
    models: Models
    deployments: Deployments
    environments: Environments
    pushes: Pushes
    uploads: Uploads
    secrets: Secrets
    keys: Keys
    logs: Logs
    drafts: Drafts
    instance_types: tuple[InstanceType, ...]
    validate: Validate
    """What truss itself says of a config; the builder's."""


def make_platform(
    settings: Settings,
    store: Store,
    *,
    events: Events,
    validate: Validate,
    instance_types: Sequence[InstanceType],
) -> Platform:
    vault = Vault(settings.data.secret_key)
    uploads = Uploads(store, vault, settings.data)
    deployments = Deployments(store, events)
    return Platform(
        settings=settings,
        events=events,
        teams=Teams(store),
        models=Models(store, events),
        deployments=deployments,
        environments=Environments(store, events),
        pushes=Pushes(store, uploads, events, instance_types),
        uploads=uploads,
        secrets=Secrets(store, vault, events),
        keys=Keys(store, events),
        logs=Logs(settings.data),
        drafts=Drafts(store, deployments, events),
        instance_types=tuple(instance_types),
        validate=validate,
    )
