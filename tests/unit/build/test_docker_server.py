from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kingpost.build import docker_server
from kingpost.build.config import DockerServer
from kingpost.errors import BuildFailedError


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("vllm serve /models --port 8000", ["vllm"]),
        ("sh -c 'HF_HOME=/tmp exec vllm serve x'", ["vllm"]),
        ('/bin/bash -lc "cd /app && ./run.sh"', ["./run.sh"]),
        ("A=1 B=2 exec nohup python -m server", ["python"]),
        ("env A=1 uvicorn app:app", ["uvicorn"]),
        ("cd /app && pip list; python main.py", ["pip", "python"]),
        ("$(which python3) -m x", ["which"]),
        ("$PYTHON -m x", []),
        ("if true; then serve; fi", []),
        ("unclosed 'quote", []),
    ],
)
def test_programs(command: str, expected: list[str]) -> None:
    assert docker_server.programs(command)[: len(expected)] == expected
    if not expected:
        assert docker_server.programs(command) == []


@given(text=st.text(max_size=60))
def test_any_text_has_programs_or_none(text: str) -> None:
    assert all(docker_server.programs(text))


def server(command: str) -> DockerServer:
    return DockerServer(command, 8000, "/predict", "/ready", "/live")


def inside(tmp_path: Path) -> docker_server.Inside:
    for name in ("bin/there", "app/run.sh"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return docker_server.Inside(("/bin",), "/app", lambda path: tmp_path / path.removeprefix("/"))


@pytest.mark.parametrize("command", ["there --x", "./run.sh", "/app/run.sh", "exec there", "$X y"])
def test_a_program_that_is_there(tmp_path: Path, command: str) -> None:
    docker_server.check_start_command(server(command), inside(tmp_path), None)
    assert (tmp_path / "bin/there").exists()


def test_a_missing_program_is_named_with_the_image_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BuildFailedError) as caught:
        docker_server.check_start_command(server("vllm serve x"), inside(tmp_path), "vllm/vllm:1")
    for word in ("'vllm'", "vllm/vllm:1", "images map", "container engine"):
        assert word in caught.value.message


def test_rewrites() -> None:
    assert docker_server.rewrites(server("x")) == {
        "/": "/live",
        "/v1/models/model": "/ready",
        "/v1/models/model:predict": "/predict",
        "/v1/websocket": "/predict",
    }
