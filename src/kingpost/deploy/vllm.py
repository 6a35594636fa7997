"""The command lines of the engines. What a provider does with one is not known here."""

from __future__ import annotations

import re
import shlex
from typing import Final

from kingpost.deploy.request import ColdStart, DeployRequest, Engine

PORT: Final = 8000
GPU_MEMORY_UTILIZATION: Final = "0.95"
NO_REQUEST_LOG_FLAG_FROM: Final = (0, 12, 0)
"""From here on vLLM refuses `--disable-log-requests` (vllm-project/vllm #29402)."""


def start_command(request: DeployRequest) -> str:
    """The engine's command for a shell or for what splits words as one does."""
    if request.engine is Engine.LLAMACPP:
        # The program of llama.cpp's own image lies in /app, which is on no PATH there.
        inner = f'PATH="/app:$PATH" exec {shlex.join(llamacpp_arguments(request))}'
        return shlex.join(["sh", "-c", inner])
    return shlex.join(vllm_arguments(request))


def image_of(request: DeployRequest) -> str:
    """The image that has the engine, pinned where its project pins."""
    if request.image is not None:
        return request.image
    if request.engine is Engine.VLLM:
        return f"vllm/vllm-openai:v{request.vllm_version}"
    kind = "server" if request.gpu is None else "server-cuda"
    return f"ghcr.io/ggml-org/llama.cpp:{kind}"


def vllm_arguments(request: DeployRequest) -> list[str]:
    """`vllm serve` with the weights that are mounted at `mount_of`."""
    command = ["vllm", "serve", mount_of(request), "--host", "0.0.0.0", "--port", str(PORT)]  # noqa: S104  # inside its container
    command += ["--served-model-name", request.model]
    command += ["--max-model-len", str(request.max_model_len)]
    command += ["--tensor-parallel-size", str(request.shards)]
    command += ["--gpu-memory-utilization", GPU_MEMORY_UTILIZATION]
    if (dtype := _dtype(request)) is not None:
        command += ["--dtype", dtype]
    if request.quantization is not None:
        command += ["--quantization", request.quantization]
    if request.cold_start is ColdStart.FAST_BOOT:
        command.append("--enforce-eager")
    if has_no_request_log_flag(request.vllm_version):
        command.append("--disable-log-requests")
    return command


def llamacpp_arguments(request: DeployRequest) -> list[str]:
    """llama.cpp's server; each of its slots holds `max_model_len` tokens."""
    slots = min(request.scaling.concurrency, 8)
    command = ["llama-server", "--model", f"{mount_of(request)}/{request.gguf_file}"]
    command += ["--alias", request.model, "--host", "0.0.0.0", "--port", str(PORT)]  # noqa: S104  # inside its container
    command += ["--parallel", str(slots), "--ctx-size", str(slots * request.max_model_len)]
    if request.gpu is not None:
        command += ["--n-gpu-layers", "999"]
    return command


def mount_of(request: DeployRequest) -> str:
    """Where the weights are mounted."""
    return f"/models/{request.model.replace('/', '--')}"


def has_no_request_log_flag(version: str) -> bool:
    """Whether that version takes `--disable-log-requests`; later ones log none unless told."""
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:3])
    return numbers < NO_REQUEST_LOG_FLAG_FROM


def _dtype(request: DeployRequest) -> str | None:
    """Turing GPUs have no bfloat16, which most checkpoints are stored in."""
    if request.dtype is not None:
        return request.dtype
    turing = request.gpu is not None and request.gpu.architecture == "turing"
    return "half" if turing else None
