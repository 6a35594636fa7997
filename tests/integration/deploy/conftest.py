"""What the deployer's tests share: a hub with a small model, and a stand-in for an image."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import llamacpp
from tests.support.hub import Hub, hub

ROOT = Path(__file__).resolve().parents[3]
REPO = "kingpost/tiny-chat"
IMAGE = "ghcr.io/ggml-org/llama.cpp"


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    root = tmp_path_factory.mktemp("hub")
    (root / REPO).mkdir(parents=True)
    shutil.copy(ROOT / "examples/tiny-chat/data/model.gguf", root / REPO / "model.gguf")
    with hub(root) as running:
        yield running


@pytest.fixture(scope="session")
def llama_prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that stands for llama.cpp's image."""
    return llamacpp.install(tmp_path_factory.mktemp("llamacpp") / "env")
