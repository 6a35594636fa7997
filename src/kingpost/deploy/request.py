"""What a user asks the deployer for, checked. Nothing here knows a provider."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from kingpost import contract
from kingpost.deploy.catalog import Gpu
from kingpost.errors import InvalidInputError, NotSupportedError

VLLM_VERSION: Final = "0.15.1"
SCALE_DOWN_DELAY_S: Final = 900
"""Baseten's default (platform documentation: autoscaling)."""

_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._\-]{0,94}[A-Za-z0-9])?"
_MODEL = re.compile(rf"{_PART}/{_PART}")
_SERVICE = re.compile(r"[a-z0-9](?:[a-z0-9\-]{0,46}[a-z0-9])?")
_VERSION = re.compile(r"\d{1,4}\.\d{1,4}\.\d{1,4}(?:(?:rc|\.post)\d{1,3})?")
_REVISION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/\-]{0,126}[A-Za-z0-9])?")
_WORD = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.\-]{0,62}[A-Za-z0-9])?")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@\-]{0,254}")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{0,120}\.gguf")
_PATH = re.compile(r"/[A-Za-z0-9._~/\-]{0,120}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,126}")


class Engine(StrEnum):
    VLLM = "vllm"
    LLAMACPP = "llamacpp"


class ColdStart(StrEnum):
    """Whether a replica is ready sooner (`fast_boot`), or answers faster once it is."""

    FAST_BOOT = "fast_boot"
    NO_FAST_BOOT = "no_fast_boot"


class Placement(StrEnum):
    """`HYBRID` adds spot machines beside the serverless provider. It is kept a place only."""

    SERVERLESS = "serverless"
    HYBRID = "hybrid"


@dataclass(frozen=True)
class Scaling:
    """Replicas, and how many requests each is to have at once."""

    min_replica: int = 0
    max_replica: int = 1
    concurrency: int = 32
    scale_down_delay_s: int = SCALE_DOWN_DELAY_S


@dataclass(frozen=True)
class DeployRequest:
    """A model, where its weights are pinned, the GPU, and how it is served.

    `revision` is what the weights are taken at; None stands for the newest and must be resolved
    before a plan is made. `secret` names the one that opens a gated model. `gpu` is None for the
    CPU.
    """

    model: str
    service: str
    gpu: Gpu | None
    gpu_count: int = 1
    tensor_parallel: int | None = None
    max_model_len: int = 4096
    engine: Engine = Engine.VLLM
    vllm_version: str = VLLM_VERSION
    image: str | None = None
    health_path: str = "/health"
    quantization: str | None = None
    dtype: str | None = None
    cold_start: ColdStart = ColdStart.FAST_BOOT
    scaling: Scaling = Scaling()
    revision: str | None = None
    gguf_file: str | None = None
    hub_secret: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    placement: Placement = Placement.SERVERLESS
    via_truss_cli: bool = False

    @property
    def shards(self) -> int:
        """GPUs that one copy of the model is spread over."""
        return self.tensor_parallel or self.gpu_count

    def check(self) -> None:
        """Raises InvalidInputError for what no provider could run, NotSupportedError for hybrid."""
        if self.placement is Placement.HYBRID:
            raise NotSupportedError(
                "Hybrid deployments with spot machines are not available yet. Deploy serverless."
            )
        _matches(_MODEL, self.model, "--model", "OWNER/NAME as on the Hugging Face hub")
        _matches(_SERVICE, self.service, "--service-name", "at most 48 of a-z, 0-9 and '-'")
        _matches(_VERSION, self.vllm_version, "--vllm-version", "such as 0.15.1")
        _matches(_REVISION, self.revision, "--revision", "a commit, tag or branch")
        _matches(_WORD, self.quantization, "--quantization", "one word such as awq or fp8")
        _matches(_WORD, self.dtype, "--dtype", "one word such as half or bfloat16")
        _matches(_IMAGE, self.image, "--image", "an image's name such as vllm/vllm-openai:v0.15.1")
        _matches(_FILE, self.gguf_file, "--gguf-file", "a file's name that ends in .gguf")
        _matches(_PATH, self.health_path, "--health-path", "a path such as /health")
        self._check_engine()
        self._check_numbers()
        for name in self.env:
            _matches(_VARIABLE, name, "--env", "NAME=VALUE with a name of letters, digits and '_'")
        for name in (*self.secrets, *filter(None, [self.hub_secret])):
            if not contract.is_secret_name(name):
                raise InvalidInputError(
                    f"{name!r} can't name a secret: expected letters, digits, '_', '-' and '.'."
                )

    def _check_engine(self) -> None:
        if self.engine is Engine.VLLM and self.gpu is None:
            raise InvalidInputError(
                "vLLM needs a GPU: name one with --gpu, or serve a GGUF file on the CPU with "
                "--engine llamacpp."
            )
        if self.engine is Engine.VLLM and self.gguf_file is not None:
            raise InvalidInputError("--gguf-file goes with --engine llamacpp.")
        if self.engine is Engine.LLAMACPP and (self.quantization or self.dtype):
            raise InvalidInputError(
                "A GGUF file has its quantisation and type within: leave out --quantization and "
                "--dtype, or use --engine vllm."
            )

    def _check_numbers(self) -> None:
        for name, value, low, high in (
            ("--gpu-count", self.gpu_count, 1, 8),
            ("--tp-size", self.shards, 1, 8),
            ("--max-model-len", self.max_model_len, 1, 16 * 1024 * 1024),
            ("--concurrency", self.scaling.concurrency, 1, 10_000),
            ("--min-replica", self.scaling.min_replica, 0, 1000),
            ("--max-replica", self.scaling.max_replica, 1, 1000),
            ("--scale-down-delay", self.scaling.scale_down_delay_s, 0, 3600),
        ):
            if not low <= value <= high:
                raise InvalidInputError(f"{name} is {value}; expected {low} to {high}.")
        if self.shards > self.gpu_count:
            raise InvalidInputError(
                f"--tp-size {self.shards} needs as many GPUs, and --gpu-count is {self.gpu_count}."
            )
        if self.scaling.min_replica > self.scaling.max_replica:
            raise InvalidInputError("--min-replica is more than --max-replica.")


def _matches(pattern: re.Pattern[str], value: str | None, option: str, expected: str) -> None:
    if value is not None and (pattern.fullmatch(value) is None or ".." in value):
        raise InvalidInputError(f"{option} is {value!r}; expected {expected}.")
