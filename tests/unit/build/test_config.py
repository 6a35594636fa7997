from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kingpost import contract
from kingpost.build import config
from kingpost.build.base import Accelerator
from kingpost.errors import BuildFailedError


def test_the_defaults() -> None:
    read = config.read({}, {})
    assert (read.python, read.python_explicit) == ((3, 13), False)
    assert (read.cpu_millis, read.memory_bytes) == (1000, 2 * contract.GIB)
    assert read.accelerator is None
    assert read.health.startup_threshold_s == contract.HEALTH_THRESHOLD_DEFAULT_S
    assert read.not_applied == ()


def test_what_a_config_says() -> None:
    parsed = {
        "python_version": "py311",
        "model_module_dir": "src/model",
        "environment_variables": {"A": "1"},
        "secrets": {"hf_access_token": None},
        "resources": {"cpu": "500m", "memory": "512Mi", "accelerator": "L4:2"},
        "runtime": {
            "predict_concurrency": 8,
            "transport": {"kind": "websocket"},
            "health_checks": {"startup_threshold_seconds": 5000, "restart_threshold_seconds": 30},
        },
        "unknown_key": {"anything": 1},
    }
    read = config.read(parsed, {"python_version": "py311"})
    assert (read.python, read.python_explicit) == ((3, 11), True)
    assert read.model_module_dir == "src/model"
    assert read.environment_variables == (("A", "1"),)
    assert read.secret_names == ("hf_access_token",)
    assert (read.cpu_millis, read.memory_bytes) == (500, 512 * contract.MIB)
    assert read.accelerator == Accelerator("L4", 2)
    assert (read.predict_concurrency, read.transport) == (8, "websocket")
    assert read.health.startup_threshold_s == 3000
    assert read.health.restart_threshold_s == 30


@pytest.mark.parametrize(
    ("text", "millis"), [("1", 1000), ("500m", 500), ("0.25", 250), ("4.0", 4000), ("0", 1)]
)
def test_cpu(text: str, millis: int) -> None:
    assert config.cpu_millis(text) == millis


@pytest.mark.parametrize(
    ("text", "size"),
    [("2Gi", 2 * 1024**3), ("500M", 500_000_000), ("1.5Ki", 1536), ("1024", 1024), ("1k", 1000)],
)
def test_memory(text: str, size: int) -> None:
    assert config.memory_bytes(text) == size


@given(text=st.text(max_size=12))
def test_amounts_are_read_or_refused(text: str) -> None:
    for read in (config.cpu_millis, config.memory_bytes):
        amount = 0
        with contextlib.suppress(BuildFailedError):
            amount = read(text)
        assert amount >= 0
    found = config.sku(text)
    assert found is None or found[0] >= 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2x8", (2000, 8 * contract.GIB, None)),
        ("L4:4x16", (4000, 16 * contract.GIB, Accelerator("L4"))),
        ("T4x4x16", (4000, 16 * contract.GIB, Accelerator("T4"))),
        ("A10G:2:24x96", (24000, 96 * contract.GIB, Accelerator("A10G", 2))),
        ("H100:2", (0, 0, Accelerator("H100", 2))),
        ("nonsense!", None),
    ],
)
def test_instance_types(text: str, expected: object) -> None:
    assert config.sku(text) == expected


def test_an_instance_type_outweighs_the_other_three() -> None:
    resources = {"cpu": "9", "memory": "9Gi", "accelerator": "H100", "instance_type": "1x2"}
    read = config.read({"resources": resources}, {})
    assert (read.cpu_millis, read.memory_bytes, read.accelerator) == (1000, 2 * contract.GIB, None)


def test_a_docker_server() -> None:
    server = {
        "start_command": "serve --port 8000",
        "server_port": 8000,
        "predict_endpoint": "/v1/chat/completions",
        "readiness_endpoint": "/health",
        "liveness_endpoint": "/live",
    }
    read = config.read({"docker_server": server}, {}).docker_server
    assert read == config.DockerServer(
        "serve --port 8000", 8000, "/v1/chat/completions", "/health", "/live"
    )
    with pytest.raises(BuildFailedError, match="no_build"):
        config.read({"docker_server": {**server, "start_command": None, "no_build": True}}, {})
    with pytest.raises(BuildFailedError, match="readiness_endpoint"):
        config.read({"docker_server": {**server, "readiness_endpoint": "health"}}, {})


def test_weights_in_both_forms() -> None:
    parsed = {
        "weights": [
            {
                "source": "hf://owner/repo@main",
                "mount_location": "/models/base",
                "auth": {"auth_method": "CUSTOM_SECRET", "auth_secret_name": "hf"},
                "allow_patterns": ["*.gguf"],
            }
        ],
        "model_cache": [
            {
                "repo_id": "owner/other",
                "revision": "abc123",
                "use_volume": True,
                "volume_folder": "other",
                "runtime_secret_name": "hf_access_token",
            }
        ],
    }
    first, second = config.read(parsed, {}).weights
    assert first == config.WeightsSource(
        "hf://owner/repo@main", "/models/base", "hf", allow=("*.gguf",)
    )
    assert (second.source, second.mount) == ("hf://owner/other@abc123", "/app/model_cache/other")


@pytest.mark.parametrize(
    "parsed",
    [
        {"weights": [{"source": "hf://a/b", "mount_location": "/app"}]},
        {"weights": [{"source": "hf://a/b", "mount_location": "/models/../etc"}]},
        {"external_data": [{"url": "https://x/y", "local_data_path": "../y"}]},
        {"external_data": [{"url": "https://x/y", "local_data_path": "/etc/y"}]},
        {"data_dir": "../data"},
        {"model_module_dir": "/model"},
        {"bundled_packages_dir": "."},
        {"python_version": "3.11"},
        {"resources": {"instance_type": "?"}},
        {"resources": {"accelerator": "L4:x"}},
    ],
)
def test_what_is_refused(parsed: dict[str, object]) -> None:
    with pytest.raises(BuildFailedError) as caught:
        config.read(parsed, {})
    assert len(caught.value.message) > 20


def test_what_is_not_applied_is_said() -> None:
    parsed = {
        "runtime": {"remote_ssh": {"enabled": True}, "transport": {"kind": "grpc"}},
        "resources": {"node_count": 2},
        "model_cache": [{"repo_id": "a/b", "use_volume": False}],
    }
    said = " ".join(config.read(parsed, {}).not_applied)
    for word in ("remote_ssh", "grpc", "node_count", "model_cache"):
        assert word in said
