"""What every provider of the deployer must do, as tests that a subclass gives its subject to.

class TestMine(ProviderConformance):
    @pytest.fixture
    def subject(self): return Subject(...)
"""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from kingpost.deploy import catalog
from kingpost.deploy.plan import Plan
from kingpost.deploy.provider import Provider, Resource, State
from kingpost.deploy.request import DeployRequest
from kingpost.deploy.state import Deployments, ServiceRecord
from kingpost.errors import KingpostError

KNOWN = catalog.load()
HOSTILE = ('o/"x"', "o/x\ny", "o/{x}", "o/{{ x }}", "o/$(x)", "o/x; y", "o/x y", "o/'x'", "o/%(x)s")


@dataclass(frozen=True)
class Subject:
    """A provider, a request that it can really deploy, and how to look behind it.

    `exists` says whether anything of a service is at the provider; `secret` opens the provider;
    `states` are all that the provider may tell, and `state_of` what each means.
    """

    provider: Provider
    request: DeployRequest
    secret: str
    exists: Callable[[str], bool]
    states: Iterable[str]
    state_of: Callable[[str], State]


class ProcessEndedError(Exception):
    """Stands for the end of the process."""


class Watched(ServiceRecord):
    """A record that remembers the order of what is written, and may end a deployment."""

    events: list[tuple[str, str]]
    end_at: str | None = None

    def intend(self, kind: str, name: str) -> Resource:
        made = super().intend(kind, name)
        self.events.append(("intended", kind))
        if self.end_at == "intended":
            raise ProcessEndedError
        return made

    def created(self, resource: Resource, ref: str) -> None:
        if self.end_at == "made":
            raise ProcessEndedError
        super().created(resource, ref)
        self.events.append(("created", resource.kind))
        if self.end_at == "recorded":
            raise ProcessEndedError


class ProviderConformance:
    @pytest.fixture
    def request_of(self, subject: Subject) -> DeployRequest:
        return replace(subject.request, service=f"conform-{uuid.uuid4().hex[:8]}")

    def test_a_plan_is_pure_and_stable(
        self, subject: Subject, request_of: DeployRequest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: Any, **__: Any) -> None:
            raise AssertionError("a plan called out")

        monkeypatch.setattr(socket.socket, "connect", refuse)
        monkeypatch.setattr(socket, "getaddrinfo", refuse)
        one = subject.provider.plan(request_of, KNOWN)
        assert one == subject.provider.plan(request_of, KNOWN)
        assert one.provider == subject.provider.name
        assert one.service == request_of.service
        assert subject.secret not in json.dumps(one.to_json())

    @pytest.mark.parametrize("name", HOSTILE)
    def test_a_hostile_name_is_refused(
        self, subject: Subject, request_of: DeployRequest, name: str
    ) -> None:
        with pytest.raises(KingpostError):
            subject.provider.plan(replace(request_of, model=name), KNOWN)

    def test_every_state_means_something(self, subject: Subject) -> None:
        assert {subject.state_of(state) for state in subject.states} >= {
            State.DEPLOYING,
            State.ACTIVE,
            State.FAILED,
        }

    def test_a_whole_life(
        self, subject: Subject, request_of: DeployRequest, tmp_path: Path
    ) -> None:
        plan = subject.provider.plan(request_of, KNOWN)
        record = watched(tmp_path, plan)
        said: list[str] = []
        endpoint = subject.provider.deploy(plan, record, said.append)
        assert endpoint.url.startswith("http")
        assert endpoint.model == request_of.model
        for place, (what, kind) in enumerate(record.events[::2]):
            assert what == "intended"
            assert record.events[2 * place + 1] == ("created", kind)
        assert all(resource.ref for resource in record.resources())
        assert subject.provider.status(record).state in {State.ACTIVE, State.IDLE}
        lines = list(subject.provider.logs(record, 0))
        whole = "\n".join([*said, *lines, json.dumps(dict(record.plan)), repr(record.row)])
        assert subject.secret not in whole
        assert subject.secret in json.dumps(subject.provider.auth_headers())

        resources = record.resources()
        subject.provider.destroy(record, said.append)
        assert not subject.exists(request_of.service)
        assert record.resources() == ()
        again = watched(tmp_path / "again", plan)
        for resource in resources:
            again.created(again.intend(resource.kind, resource.name), str(resource.ref))
        assert subject.provider.status(again).state is State.DESTROYED
        subject.provider.destroy(again, said.append)
        assert again.resources() == ()

    @pytest.mark.parametrize("end_at", ["intended", "made", "recorded"])
    def test_an_end_in_the_middle_leaves_what_destroy_finishes(
        self, subject: Subject, request_of: DeployRequest, tmp_path: Path, end_at: str
    ) -> None:
        plan = subject.provider.plan(request_of, KNOWN)
        record = watched(tmp_path, plan)
        record.end_at = end_at
        said: list[str] = []
        with pytest.raises(ProcessEndedError):
            subject.provider.deploy(plan, record, said.append)
        assert len(record.resources()) == 1
        assert subject.exists(request_of.service) is (end_at != "intended")
        subject.provider.destroy(record, said.append)
        assert not subject.exists(request_of.service)
        assert record.resources() == ()


def watched(folder: Path, plan: Plan) -> Watched:
    claimed = Deployments(folder / "deployments.sqlite3").claim(plan, None)
    record = Watched(claimed._file, claimed._id)
    record.events = []
    return record
