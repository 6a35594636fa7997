"""The engines' command lines, word for word where it matters."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kingpost.deploy import vllm
from kingpost.deploy.request import ColdStart, Engine


def test_the_whole_command(asked: Any) -> None:
    request = asked(gpu_count=2, cold_start=ColdStart.NO_FAST_BOOT)
    assert vllm.start_command(request) == (
        "vllm serve /models/owner--model --host 0.0.0.0 --port 8000 "
        "--served-model-name owner/model --max-model-len 4096 --tensor-parallel-size 2 "
        "--gpu-memory-utilization 0.95"
    )
    assert vllm.image_of(request) == "vllm/vllm-openai:v0.15.1"


def test_only_a_fast_boot_is_eager(asked: Any) -> None:
    assert "--enforce-eager" in vllm.vllm_arguments(asked(cold_start=ColdStart.FAST_BOOT))
    assert "--enforce-eager" not in vllm.vllm_arguments(asked(cold_start=ColdStart.NO_FAST_BOOT))


@pytest.mark.parametrize(
    ("gpu", "dtype", "told"),
    [
        ("T4", None, "half"),
        ("L4", None, None),
        ("T4", "float32", "float32"),
        ("L4", "half", "half"),
    ],
)
def test_turing_gets_half_unless_told(
    asked: Any, gpu: str, dtype: str | None, told: str | None
) -> None:
    words = vllm.vllm_arguments(asked(gpu=gpu, dtype=dtype))
    assert (words[words.index("--dtype") + 1] if "--dtype" in words else None) == told


@pytest.mark.parametrize(
    ("version", "has"),
    [("0.8.5", True), ("0.11.2", True), ("0.12.0", False), ("0.15.1", False), ("1.0.0", False)],
)
def test_the_flag_against_request_logs_goes_only_to_versions_that_have_it(
    asked: Any, version: str, has: bool
) -> None:
    words = vllm.vllm_arguments(asked(vllm_version=version))
    assert ("--disable-log-requests" in words) is has


def test_quantisation_and_an_image_of_ones_own(asked: Any) -> None:
    request = asked(quantization="awq", image="mine/vllm:v1")
    words = vllm.vllm_arguments(request)
    assert words[words.index("--quantization") + 1] == "awq"
    assert vllm.image_of(request) == "mine/vllm:v1"


def test_llamacpp_serves_the_file_on_all_of_the_gpu(asked: Any) -> None:
    request = asked(engine=Engine.LLAMACPP, gguf_file="m-Q4_K.gguf")
    shell, flag, inner = shlex.split(vllm.start_command(request))
    assert (shell, flag) == ("sh", "-c")
    assert inner.endswith(
        "exec llama-server --model /models/owner--model/m-Q4_K.gguf --alias owner/model "
        "--host 0.0.0.0 --port 8000 --parallel 8 --ctx-size 32768 --n-gpu-layers 999"
    )
    assert vllm.image_of(request) == "ghcr.io/ggml-org/llama.cpp:server-cuda"
    assert vllm.image_of(replace(request, gpu=None)) == "ghcr.io/ggml-org/llama.cpp:server"


@given(st.text(min_size=1, max_size=30))
def test_any_word_comes_out_of_a_shell_as_it_went_in(asked: Any, word: str) -> None:
    request = asked(quantization=word)
    assert shlex.split(vllm.start_command(request)) == vllm.vllm_arguments(request)
