"""Which provider is chosen, and what the record says of a deployment that ends early."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kingpost.client.remote import Remote
from kingpost.deploy import catalog, registry, run
from kingpost.deploy.provider import State
from kingpost.deploy.providers.baseten import BasetenProvider
from kingpost.deploy.providers.baseten_plan import make_plan
from kingpost.deploy.state import Deployments
from kingpost.errors import NotFoundError, UnavailableError
from tests.support.platform import free_port
from tests.support.restserver import RestServer, rest_server

KNOWN = catalog.load()


def offering(server: RestServer, *gpus: str) -> Remote:
    types = [{"gpu_type": gpu, "gpu_count": 1} for gpu in gpus]
    server.on("GET", "/v1/instance_types", {"instance_types": types})
    return Remote("local", server.url, "abc.key")


def test_the_cheapest_that_is_set_up_is_chosen(monkeypatch: pytest.MonkeyPatch, asked: Any) -> None:
    with rest_server() as one, rest_server() as two:
        made = {
            "baseten": BasetenProvider("baseten", offering(one, "L4", "H100")),
            "local": BasetenProvider("local", offering(two, "L4")),
        }
        monkeypatch.setattr(registry, "get", lambda name, _: made[name])
        monkeypatch.setattr(registry, "names", lambda: tuple(made))
        assert run.choose(asked("L4"), KNOWN, None).name == "local"
        assert run.choose(asked("H100"), KNOWN, None).name == "baseten"
        with pytest.raises(NotFoundError, match=r"runpod.*BASETEN_API_KEY"):
            run.choose(asked("A40"), KNOWN, None)


def test_what_was_never_begun_leaves_the_name_free(tmp_path: Path, asked: Any) -> None:
    deployments = Deployments(tmp_path / "state.sqlite3")
    away = Remote("local", f"http://127.0.0.1:{free_port()}", "abc.key")
    provider = BasetenProvider("local", away)
    plan = make_plan("local", asked(), KNOWN, priced=False)
    said: list[str] = []
    with pytest.raises(UnavailableError):
        run.deploy(deployments, provider, plan, None, said.append)
    assert deployments.get("chat").state is State.DESTROYED
    deployments.claim(plan, None)


def test_a_destroy_that_fails_stays_partly_destroyed(tmp_path: Path, asked: Any) -> None:
    deployments = Deployments(tmp_path / "state.sqlite3")
    plan = make_plan("local", asked(), KNOWN, priced=False)
    record = deployments.claim(plan, None)
    record.created(record.intend("model", "chat-serverless"), "abcd1234")
    away = Remote("local", f"http://127.0.0.1:{free_port()}", "abc.key")
    said: list[str] = []
    with pytest.raises(UnavailableError):
        run.destroy(deployments, record.row, BasetenProvider("local", away), said.append)
    assert record.row.state is State.PARTLY_DESTROYED
    assert "Could not reach" in deployments.changes(record.row)[-1].note
    with rest_server() as server:  # answers 404: it is gone meanwhile
        there = BasetenProvider("local", Remote("local", server.url, "abc.key"))
        run.destroy(deployments, record.row, there, said.append)
    assert record.row.state is State.DESTROYED
    assert "gone already" in said[-1]
    run.destroy(deployments, record.row, there, said.append)
    assert "destroyed already" in said[-1]
