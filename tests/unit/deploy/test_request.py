"""What may be asked for: everything else is refused in words before anything is made."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kingpost.deploy.request import Engine, Placement, Scaling
from kingpost.deploy.vllm import start_command
from kingpost.errors import InvalidInputError, KingpostError, NotSupportedError


@pytest.mark.parametrize(
    "changes",
    [
        {"model": 'owner/"quoted"'},
        {"model": "owner/model\nname"},
        {"model": "owner/{{template}}"},
        {"model": "owner/$(run)"},
        {"model": "owner/../other"},
        {"model": "no-owner"},
        {"service": "Has Space"},
        {"service": "a" * 49},
        {"vllm_version": "latest"},
        {"quantization": "awq --flag"},
        {"dtype": ""},
        {"image": "image; rm"},
        {"health_path": "health"},
        {"gguf_file": "a.gguf", "engine": Engine.VLLM},
        {"gguf_file": "../a.gguf", "engine": Engine.LLAMACPP},
        {"quantization": "awq", "engine": Engine.LLAMACPP},
        {"gpu_count": 0},
        {"gpu_count": 2, "tensor_parallel": 4},
        {"scaling": Scaling(min_replica=2, max_replica=1)},
        {"scaling": Scaling(scale_down_delay_s=-1)},
        {"env": {"A B": "x"}},
        {"secrets": ("../etc",)},
    ],
)
def test_refused(asked: Any, changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError) as raised:
        asked(**changes).check()
    assert raised.value.message


def test_a_cpu_is_for_llamacpp(asked: Any) -> None:
    with pytest.raises(InvalidInputError, match="--engine llamacpp"):
        asked(gpu=None).check()
    asked(gpu=None, engine=Engine.LLAMACPP).check()


def test_hybrid_has_a_place_and_is_not_available(asked: Any) -> None:
    with pytest.raises(NotSupportedError, match="not available yet"):
        asked(placement=Placement.HYBRID).check()


@given(st.text(max_size=60))
def test_any_models_name_is_refused_or_harmless(asked: Any, text: str) -> None:
    request = asked(model=f"owner/{text}")
    refused = False
    try:
        request.check()
    except KingpostError:
        refused = True
    harmless = all(char.isascii() and (char.isalnum() or char in "._-") for char in text)
    assert refused or (harmless and f" --served-model-name owner/{text} " in start_command(request))
