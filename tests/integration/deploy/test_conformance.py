"""The provider for Baseten and platforms with its contract, against a running platform."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kingpost.client.remote import Remote
from kingpost.contract import DeploymentStatus
from kingpost.deploy.providers.baseten import BasetenProvider, state_of
from kingpost.deploy.request import DeployRequest, Engine, Scaling
from tests.support.hub import Hub
from tests.support.platform import RunningPlatform, platform
from tests.support.provider_conformance import ProviderConformance, Subject

REPO = "kingpost/tiny-chat"


@pytest.fixture(scope="module")
def running(
    weights: Hub, llama_prefix: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningPlatform]:
    data = tmp_path_factory.mktemp("conformance") / "data"
    with platform(data, environment={"HF_ENDPOINT": weights.url}) as started:
        image = ("ghcr.io/ggml-org/llama.cpp", str(llama_prefix))
        mapped = started.cli("images", "map", *image, "--data-dir", str(data))
        assert mapped.returncode == 0, mapped.stderr
        yield started


class TestPlatform(ProviderConformance):
    @pytest.fixture
    def subject(self, running: RunningPlatform, weights: Hub) -> Subject:
        def exists(service: str) -> bool:
            models = running.get("/v1/models").json()["models"]
            return any(service in model["name"] for model in models)

        return Subject(
            provider=BasetenProvider("local", Remote("local", running.address, running.key)),
            request=DeployRequest(
                REPO,
                "conform",
                gpu=None,
                engine=Engine.LLAMACPP,
                gguf_file="model.gguf",
                revision=weights.commit(REPO),
                max_model_len=256,
                scaling=Scaling(concurrency=2),
            ),
            secret=running.key,
            exists=exists,
            states=tuple(DeploymentStatus),
            state_of=state_of,
        )
