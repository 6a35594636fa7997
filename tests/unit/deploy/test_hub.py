"""A model on the hub: pinned to a commit, known to be gated, its GGUF file found."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kingpost.deploy import hub as client
from kingpost.deploy.request import Engine
from kingpost.errors import InvalidInputError, NotFoundError, UnavailableError
from tests.support.hub import Hub, hub
from tests.support.platform import free_port
from tests.support.restserver import Answer, rest_server

SHA = "a" * 40


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Hub]:
    folder = tmp_path / "owner" / "model"
    folder.mkdir(parents=True)
    (folder / "one.gguf").write_bytes(b"1")
    with hub(tmp_path) as made:
        yield made


def test_pinned_to_a_commit_with_its_only_gguf_file(running: Hub, asked: Any) -> None:
    request = asked(revision=None, engine=Engine.LLAMACPP)
    made = client.pinned(request, {"HF_ENDPOINT": running.url})
    assert made.revision == running.commit("owner/model")
    assert made.gguf_file == "one.gguf"
    assert made.hub_secret is None


def test_of_several_gguf_files_one_is_to_be_named(running: Hub, asked: Any) -> None:
    shutil.copy(running.root / "owner/model/one.gguf", running.root / "owner/model/two.gguf")
    env = {"HF_ENDPOINT": running.url}
    request = asked(revision=None, engine=Engine.LLAMACPP)
    with pytest.raises(InvalidInputError, match=r"one\.gguf, two\.gguf"):
        client.pinned(request, env)
    named = asked(revision=None, engine=Engine.LLAMACPP, gguf_file="two.gguf")
    assert client.pinned(named, env).gguf_file == "two.gguf"
    wrong = asked(revision=None, engine=Engine.LLAMACPP, gguf_file="three.gguf")
    with pytest.raises(InvalidInputError, match=r"no file three\.gguf"):
        client.pinned(wrong, env)


def test_a_gated_model_gets_the_secret(asked: Any) -> None:
    with rest_server() as server:
        body = {"sha": SHA, "gated": "manual", "siblings": []}
        server.on("GET", "/api/models/owner/model/revision/main", body)
        env = {"HF_ENDPOINT": server.url, "HF_TOKEN": "token-of-the-test"}
        made = client.pinned(asked(revision=None), env)
        assert (made.revision, made.hub_secret) == (SHA, "hf_access_token")
        assert server.requests[0].headers["authorization"] == "Bearer token-of-the-test"
        named = client.pinned(asked(revision=None, hub_secret="mine"), env)
        assert named.hub_secret == "mine"


def test_what_the_hub_does_not_show(running: Hub, asked: Any) -> None:
    env = {"HF_ENDPOINT": running.url}
    with pytest.raises(NotFoundError, match="no model owner/model at gone"):
        client.pinned(asked(revision="gone"), env)
    running.token = "needed"
    with pytest.raises(NotFoundError, match="HF_TOKEN"):
        client.pinned(asked(revision=None), env)


def test_a_hub_that_is_away_or_no_hub(asked: Any) -> None:
    with pytest.raises(UnavailableError, match="HF_ENDPOINT"):
        client.pinned(asked(), {"HF_ENDPOINT": f"http://127.0.0.1:{free_port()}"})
    with rest_server() as server:
        path = f"/api/models/owner/model/revision/{asked().revision}"
        server.on("GET", path, Answer(500, {"error": "x"}), Answer(200, b"<html>"))
        for _ in range(2):
            with pytest.raises(UnavailableError):
                client.pinned(asked(), {"HF_ENDPOINT": server.url})
