"""The plan for Baseten: a Truss config as data, valid, with everything that vLLM needs."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kingpost.build import config as build_config
from kingpost.client.remote import BASETEN_URL, Remote
from kingpost.contract import DeploymentStatus
from kingpost.deploy import catalog
from kingpost.deploy.plan import Plan
from kingpost.deploy.provider import State
from kingpost.deploy.providers.baseten import BasetenProvider, state_of
from kingpost.deploy.providers.baseten_plan import render
from kingpost.deploy.request import ColdStart, Engine, Scaling
from kingpost.errors import InvalidInputError, NotFoundError

KNOWN = catalog.load()
BASETEN = BasetenProvider("baseten", Remote("baseten", BASETEN_URL, "abc.secret-of-the-test"))
LOCAL = BasetenProvider("local", Remote("local", "http://localhost:8000", "abc.key"))


def plan(request: Any) -> Plan:
    return BASETEN.plan(request, KNOWN)


def test_the_whole_config(asked: Any) -> None:
    config = plan(asked()).config
    assert config["model_name"] == "chat-serverless"
    assert config["model_metadata"]["example_model_input"] == {
        "model": "owner/model",
        "messages": [{"role": "user", "content": "Hello"}],
        "stream": True,
        "max_tokens": 128,
    }
    assert config["base_image"] == {"image": "vllm/vllm-openai:v0.15.1"}
    server = dict(config["docker_server"])
    assert server.pop("start_command").startswith("vllm serve /models/owner--model ")
    assert server == {
        "readiness_endpoint": "/health",
        "liveness_endpoint": "/health",
        "predict_endpoint": "/v1/chat/completions",
        "server_port": 8000,
    }
    assert config["runtime"] == {"predict_concurrency": 32}
    assert config["resources"] == {"accelerator": "L4", "use_gpu": True}
    assert config["secrets"] == {}


def test_weights_are_pinned_and_have_every_file_of_a_tokenizer(asked: Any) -> None:
    (weights,) = plan(asked(hub_secret="hf_access_token")).config["weights"]
    assert weights["source"] == f"hf://owner/model@{asked().revision}"
    assert weights["mount_location"] == "/models/owner--model"
    assert weights["auth_secret_name"] == "hf_access_token"
    for name in ("tokenizer.model", "merges.txt", "vocab.json", "chat_template.jinja"):
        assert any(Path(name).match(pattern) for pattern in weights["allow_patterns"])


def test_weights_without_a_revision_are_refused(asked: Any) -> None:
    with pytest.raises(InvalidInputError, match="--revision"):
        plan(asked(revision=None))


@pytest.mark.parametrize(
    ("gpu", "count", "accelerator"),
    [
        ("T4", 1, "T4"),
        ("L4", 2, "L4:2"),
        ("A10G", 1, "A10G"),
        ("A100", 4, "A100:4"),
        ("H100", 8, "H100:8"),
        ("H100 MIG", 1, "H100_40GB"),
        ("B200", 1, "B200"),
    ],
)
def test_gpus_by_the_names_that_truss_takes(
    asked: Any, gpu: str, count: int, accelerator: str
) -> None:
    config = plan(asked(gpu, gpu_count=count)).config
    assert config["resources"]["accelerator"] == accelerator


def test_a_gpu_that_baseten_lacks_names_who_has_it(asked: Any) -> None:
    with pytest.raises(NotFoundError, match="runpod"):
        plan(asked("A40"))
    assert LOCAL.plan(asked("A40"), KNOWN).config["resources"]["accelerator"] == "A40"


@pytest.mark.parametrize("mode", ColdStart)
def test_both_cold_start_modes(asked: Any, mode: ColdStart) -> None:
    command = plan(asked(cold_start=mode)).config["docker_server"]["start_command"]
    assert ("--enforce-eager" in command) is (mode is ColdStart.FAST_BOOT)


def test_prices_running_and_idle(asked: Any) -> None:
    made = plan(asked("H100", gpu_count=2, scaling=Scaling(min_replica=1, max_replica=3)))
    assert made.usd_per_hour == Decimal("13.00")
    assert made.usd_per_hour_idle == Decimal("13.00")
    assert plan(asked()).usd_per_hour_idle == 0
    assert LOCAL.plan(asked(), KNOWN).usd_per_hour is None


def test_a_plan_is_stable_and_holds_no_secret(asked: Any) -> None:
    request = asked(env={"TOKEN": "value-of-the-variable"}, secrets=("one",))
    shown = json.dumps(plan(request).to_json())
    assert shown == json.dumps(plan(request).to_json())
    assert "value-of-the-variable" not in shown
    assert "secret-of-the-test" not in shown
    assert plan(request).config["environment_variables"] == {"TOKEN": "value-of-the-variable"}
    assert plan(request).needs_secrets == ("one",)


def test_llamacpp_on_the_cpu(asked: Any) -> None:
    request = asked(None, engine=Engine.LLAMACPP, gguf_file="m.gguf")
    config = LOCAL.plan(request, KNOWN).config
    assert "accelerator" not in config["resources"]
    assert config["weights"][0]["allow_patterns"] == ["m.gguf"]


variables = st.dictionaries(st.from_regex(r"[A-Z_]{1,8}", fullmatch=True), st.text(max_size=40))


@given(variables, st.integers(1, 8), st.sampled_from(["T4", "L4", "H100 MIG"]))
def test_any_config_is_yaml_that_says_the_same(
    asked: Any, env: dict[str, str], count: int, gpu: str
) -> None:
    config = dict(plan(asked(gpu, gpu_count=count, env=env)).config)
    assert yaml.safe_load(render(config)) == config


def test_the_platform_reads_it_as_it_was_meant(asked: Any) -> None:
    config = plan(asked(gpu_count=2, hub_secret="hf_access_token")).config
    assert build_config.accelerator(config["resources"]["accelerator"]) is not None
    assert config["secrets"] == {"hf_access_token": None}


def test_every_state_of_the_contract_means_something() -> None:
    assert {status: state_of(status.value) for status in DeploymentStatus} == {
        DeploymentStatus.BUILDING: State.DEPLOYING,
        DeploymentStatus.DEPLOYING: State.DEPLOYING,
        DeploymentStatus.LOADING_MODEL: State.DEPLOYING,
        DeploymentStatus.UPDATING: State.DEPLOYING,
        DeploymentStatus.WAKING_UP: State.DEPLOYING,
        DeploymentStatus.ACTIVE: State.ACTIVE,
        DeploymentStatus.SCALED_TO_ZERO: State.IDLE,
        DeploymentStatus.UNHEALTHY: State.UNHEALTHY,
        DeploymentStatus.DEACTIVATING: State.STOPPED,
        DeploymentStatus.INACTIVE: State.STOPPED,
        DeploymentStatus.DEPLOY_FAILED: State.FAILED,
        DeploymentStatus.BUILD_FAILED: State.FAILED,
        DeploymentStatus.BUILD_STOPPED: State.FAILED,
        DeploymentStatus.FAILED: State.FAILED,
    }
    assert state_of("SOMETHING_NEW") is State.DEPLOYING


def test_addresses_and_headers() -> None:
    endpoint = BASETEN._endpoint("abcd1234", "owner/model")
    base = "https://model-abcd1234.api.baseten.co/environments/production/sync"
    assert endpoint.url == f"{base}/v1"
    assert endpoint.health_url == f"{base}/health"
    assert BASETEN.auth_headers() == {"Authorization": "Api-Key abc.secret-of-the-test"}
