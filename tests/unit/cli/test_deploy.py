"""The deployer's commands as they are typed, where no provider is needed to answer."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from kingpost.deploy import catalog
from kingpost.deploy.provider import State
from kingpost.deploy.providers.baseten_plan import make_plan
from kingpost.deploy.request import DeployRequest
from kingpost.deploy.state import Deployments, state_path


@pytest.fixture
def deployed(home: Any, monkeypatch: pytest.MonkeyPatch) -> Deployments:
    """One service on Baseten in the record, serving."""
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    known = catalog.load()
    request = DeployRequest("owner/model", "chat", known.gpu("L4"), revision="a" * 40)
    deployments = Deployments(state_path(os.environ))
    plan = make_plan("baseten", request, known, priced=True)
    deployments.claim(plan, None).set_state(State.ACTIVE, "serving")
    return deployments


def test_the_help_names_baseten_and_the_default(kingpost) -> None:
    ran = kingpost("deploy", "--help")
    assert ran.exit_code == 0
    assert "baseten" in ran.out
    assert "cheapest" in ran.out
    assert "--serverless-provider" in ran.out


def test_list_shows_what_is_recorded(kingpost, deployed: Deployments) -> None:
    (entry,) = json.loads(kingpost("list", "--json").out)
    assert (entry["service"], entry["state"], entry["gpu"]) == ("chat", "active", "L4")
    assert entry["usd_per_replica_hour"] == "0.85"
    assert kingpost("list").out.splitlines()[1].split()[:5] == [
        "chat",
        "active",
        "baseten",
        "owner/model",
        "L4",
    ]


def test_an_empty_list_says_how_to_begin(kingpost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert "kingpost deploy" in kingpost("list").out


def test_cost_is_an_estimate_beside_others(kingpost, deployed: Deployments) -> None:
    told = json.loads(kingpost("cost", "chat", "--json").out)
    assert told["estimate"] is True
    assert told["billed_seconds"] % 60 == 0
    assert told["usd_at_least"] == "0.00"
    assert told["next_cheapest"] == "modal"
    assert told["price_as_of"] == "2026"


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        (["deploy", "--model", "o/m", "--gpu", "L5"], 1, "nearest"),
        (["deploy", "--model", 'o/"m"', "--gpu", "L4"], 1, "OWNER/NAME"),
        (["deploy", "--model", "o/m"], 1, "vLLM needs a GPU"),
        (["deploy", "--model", "o/m", "--gpu", "L4"], 1, "BASETEN_API_KEY"),
        (["deploy", "--model", "o/m", "--gpu", "L4", "--provider", "no"], 1, "baseten, local"),
        (["deploy", "--model", "o/m", "--gpu", "L4", "--env", "x"], 2, "NAME=VALUE"),
        (["status", "nothing"], 1, "Nothing was deployed"),
        (["cost", "nothing"], 1, "chat"),
        (["destroy"], 2, "--all"),
        (["destroy", "chat", "--all"], 2, "--all"),
        (["logs", "chat", "--follow"], 2, "is a service"),
    ],
)
def test_misses_are_told_without_a_traceback(
    kingpost, deployed: Deployments, arguments: list[str], exit_code: int, words: str
) -> None:
    ran = kingpost(*arguments)
    assert ran.exit_code == exit_code
    assert words in ran.err
    assert "Traceback" not in ran.err
