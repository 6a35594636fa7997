"""The record of what was made: one of several wins a name, steps last, nothing newer is touched."""

from __future__ import annotations

import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from kingpost.deploy import catalog
from kingpost.deploy.plan import Plan
from kingpost.deploy.provider import Endpoint, State
from kingpost.deploy.providers.baseten_plan import make_plan
from kingpost.deploy.state import Deployments, state_path
from kingpost.errors import ConflictError, InvalidInputError, NotFoundError


@pytest.fixture
def plan(asked: Any) -> Plan:
    return make_plan("baseten", asked(), catalog.load(), priced=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "deployments.sqlite3"


def test_steps_are_there_for_another_process(path: Path, plan: Plan) -> None:
    record = Deployments(path).claim(plan, "http://localhost:8000")
    model = record.intend("model", "chat-serverless")
    seen = Deployments(path)
    (found,) = seen.record(seen.get("chat")).resources()
    assert (found.kind, found.name, found.ref) == ("model", "chat-serverless", None)
    record.created(model, "abcd1234")
    record.set_endpoint(Endpoint("https://x/v1", "https://x/health", "owner/model"))
    record.set_state(State.ACTIVE, "serving")
    service = seen.get("chat")
    assert seen.record(service).resources()[0].ref == "abcd1234"
    assert (service.state, service.endpoint) == (State.ACTIVE, "https://x/v1")
    assert (service.usd_per_hour, service.price_as_of) == ("0.85", "2026")
    assert [change.state for change in seen.changes(service)] == [State.DEPLOYING, State.ACTIVE]
    record.deleted(model)
    assert seen.record(service).resources() == ()


def test_one_of_many_wins_a_name(path: Path, plan: Plan) -> None:
    def claim(_: int) -> str:
        try:
            Deployments(path).claim(plan, None)
        except ConflictError as error:
            return error.message
        return "won"

    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(claim, range(8)))
    assert told.count("won") == 1
    assert all("kingpost destroy chat" in each for each in told if each != "won")


def test_a_name_is_free_when_its_service_is_destroyed(path: Path, plan: Plan) -> None:
    deployments = Deployments(path)
    deployments.claim(plan, None).set_state(State.DESTROYED, "gone")
    again = deployments.claim(plan, None)
    assert deployments.get("chat").id == again.row.id
    assert len(deployments.all()) == 2


def test_nothing_more_is_made_for_what_is_being_destroyed(path: Path, plan: Plan) -> None:
    record = Deployments(path).claim(plan, None)
    record.set_state(State.PARTLY_DESTROYED, "destroying")
    with pytest.raises(ConflictError, match="partly destroyed"):
        record.intend("model", "chat-serverless")
    assert not record.set_state(State.ACTIVE, "serving", only_from=State.DEPLOYING)
    assert record.row.state is State.PARTLY_DESTROYED


def test_an_unknown_name_and_a_newer_file_are_told(path: Path, plan: Plan) -> None:
    deployments = Deployments(path)
    with pytest.raises(NotFoundError, match="none yet"):
        deployments.get("chat")
    deployments.close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(InvalidInputError, match="newer kingpost"):
        Deployments(path)


def test_the_file_is_its_owners_alone(path: Path) -> None:
    Deployments(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_where_it_lies() -> None:
    assert state_path({"HOME": "/h"}) == Path("/h/.local/state/kingpost/deployments.sqlite3")
    assert state_path({"HOME": "/h", "XDG_STATE_HOME": "/s"}).is_relative_to("/s/kingpost")
    assert state_path({"HOME": "/h", "XDG_STATE_HOME": "s"}).is_relative_to("/h")
