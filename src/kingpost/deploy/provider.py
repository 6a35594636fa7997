"""What a provider is to the deployer, and what it tells. No provider is named here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from kingpost.deploy.catalog import Catalog, Gpu
from kingpost.deploy.plan import Plan
from kingpost.deploy.request import DeployRequest

Say = Callable[[str], None]
"""Takes a line on what happens, for people."""


class State(StrEnum):
    """What a service is, on whichever provider."""

    DEPLOYING = "deploying"
    ACTIVE = "active"
    IDLE = "idle"
    UNHEALTHY = "unhealthy"
    STOPPED = "stopped"
    FAILED = "failed"
    PARTLY_DESTROYED = "partly destroyed"
    DESTROYED = "destroyed"


@dataclass(frozen=True)
class Check:
    """One thing that must be so before a deployment; `fix` says how it comes to be."""

    name: str
    passed: bool
    message: str
    fix: str | None = None


@dataclass(frozen=True)
class Resource:
    """Something of a provider's. `ref` is its id there, None while it is only intended."""

    id: int
    kind: str
    name: str
    ref: str | None
    deleted: bool = False


@dataclass(frozen=True)
class Endpoint:
    """Where a service is called: `url` is the base of the OpenAI routes."""

    url: str
    health_url: str
    model: str


@dataclass(frozen=True)
class Status:
    """`detail` is the provider's own state, `reason` its words for it, None where it has none."""

    state: State
    detail: str
    replicas: int | None = None
    reason: str | None = None


class Record(Protocol):
    """What is written down of one service while it is made and ended."""

    @property
    def service(self) -> str: ...

    @property
    def plan(self) -> Mapping[str, Any]: ...

    def resources(self) -> tuple[Resource, ...]:
        """Those not deleted, oldest first."""
        ...

    def intend(self, kind: str, name: str) -> Resource:
        """Before something is created. Raises ConflictError when the service is being destroyed."""
        ...

    def created(self, resource: Resource, ref: str) -> None: ...

    def deleted(self, resource: Resource) -> None: ...


class Provider(Protocol):
    """One place to deploy to. `plan` is pure; the others may call out and raise KingpostErrors."""

    @property
    def name(self) -> str: ...

    def preflight(self, request: DeployRequest, catalog: Catalog) -> tuple[Check, ...]: ...

    def offers(self, gpu: Gpu | None) -> bool:
        """Whether it is set up and has the GPU."""
        ...

    def plan(self, request: DeployRequest, catalog: Catalog) -> Plan: ...

    def deploy(self, plan: Plan, record: Record, say: Say) -> Endpoint:
        """Create, wait until it serves, verify with one completion."""
        ...

    def status(self, record: Record) -> Status: ...

    def logs(self, record: Record, since_ms: int) -> Iterator[str]: ...

    def destroy(self, record: Record, say: Say) -> None:
        """Delete what is recorded and see it gone; what is gone already is no error."""
        ...

    def auth_headers(self) -> dict[str, str]: ...
