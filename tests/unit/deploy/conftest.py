"""A request that providers can plan, to be changed by each test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kingpost.deploy import catalog
from kingpost.deploy.request import DeployRequest

REVISION = "0123456789abcdef0123456789abcdef01234567"
Asked = Callable[..., DeployRequest]


@pytest.fixture(scope="session")
def asked() -> Asked:
    def make(gpu: str | None = "L4", **changes: Any) -> DeployRequest:
        found = catalog.load().gpu(gpu) if gpu else None
        request = DeployRequest("owner/model", "chat", found, revision=REVISION)
        return replace(request, **changes)

    return make
