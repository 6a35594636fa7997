"""The OpenAI SDK, baseten_performance_client and curl, unmodified, against a served model."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from baseten_performance_client import PerformanceClient
from openai import APIStatusError, OpenAI

from tests.support.platform import RunningPlatform
from tests.support.trusses import write_truss

ROOT = Path(__file__).resolve().parents[2]

SERVER = """
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    import json


    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self._answer({"ok": True})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if self.path.endswith("/embeddings"):
                rows = [
                    {"object": "embedding", "index": i, "embedding": [float(len(t)), 1.0]}
                    for i, t in enumerate(body["input"])
                ]
                usage = {"prompt_tokens": 1, "total_tokens": 1}
                self._answer({"object": "list", "data": rows, "model": "m", "usage": usage})
            elif self.path == "/rerank":
                self._answer([{"index": i, "score": 0.5} for i, _ in enumerate(body["texts"])])
            elif self.path == "/predict":
                self._answer([[{"label": "yes", "score": 0.9}] for _ in body["inputs"]])
            else:
                self._answer({"path": self.path, "got": body})

        def _answer(self, value):
            data = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass


    ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
"""


@dataclass(frozen=True)
class Served:
    platform: RunningPlatform
    model: str

    def url(self, path: str) -> str:
        return f"{self.platform.address}/model/{self.model}/environments/production/{path}"


def push(platform: RunningPlatform, folder: Path) -> Served:
    done = platform.cli("push", str(folder), "--wait", "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    return Served(platform, json.loads(done.stdout)["model_id"])


@pytest.fixture(scope="module")
def chat(shared_platform: RunningPlatform) -> Served:
    return push(shared_platform, ROOT / "examples" / "tiny-chat")


@pytest.fixture(scope="module")
def embedder(shared_platform: RunningPlatform, tmp_path_factory: pytest.TempPathFactory) -> Served:
    """A server of its own behind `docker_server`, on port 8000 inside."""
    import textwrap

    folder = write_truss(
        tmp_path_factory.mktemp("embedder"),
        "embedder",
        files={"data/server.py": textwrap.dedent(SERVER).lstrip()},
        docker_server={
            "start_command": "python /app/data/server.py",
            "server_port": 8000,
            "predict_endpoint": "/v1/anything",
            "readiness_endpoint": "/health",
            "liveness_endpoint": "/health",
        },
    )
    return push(shared_platform, folder)


def test_openai_plain(chat: Served) -> None:
    with OpenAI(base_url=chat.url("sync/v1"), api_key=chat.platform.key) as client:
        answer = client.chat.completions.create(
            model="tiny-chat",
            messages=[{"role": "user", "content": "What is 21 + 34?"}],
            temperature=0,
        )
    assert "55" in (answer.choices[0].message.content or "")
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0


def test_openai_streams_token_by_token(chat: Served) -> None:
    with OpenAI(base_url=chat.url("sync/v1"), api_key=chat.platform.key) as client:
        events = client.chat.completions.create(
            model="tiny-chat",
            messages=[{"role": "user", "content": "What is Kingpost?"}],
            stream=True,
            temperature=0,
        )
        parts = [e.choices[0].delta.content for e in events if e.choices]
    texts = [part for part in parts if part]
    assert len(texts) > 3
    assert "Kingpost" in "".join(texts)


def test_openai_with_a_wrong_key(chat: Served) -> None:
    with (
        OpenAI(base_url=chat.url("sync/v1"), api_key="wrong", max_retries=0) as client,
        pytest.raises(APIStatusError) as caught,
    ):
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
    assert caught.value.status_code == 401


def test_performance_client(embedder: Served) -> None:
    client = PerformanceClient(base_url=embedder.url("sync"), api_key=embedder.platform.key)
    embedded = client.embed(input=["a", "bcd"], model="m")
    assert [row.embedding[0] for row in embedded.data] == [1.0, 3.0]
    ranked = client.rerank(query="q", texts=["a", "b"])
    assert len(ranked.data) == 2
    classified = client.classify(inputs=["x"])
    assert classified.data[0][0].label == "yes"
    batch = client.batch_post(url_path="/v1/custom", payloads=[{"n": 1}, {"n": 2}])
    assert [row["got"]["n"] for row in batch.data] == [1, 2]


@pytest.mark.parametrize("scheme", ["Api-Key", "Bearer"])
def test_curl(embedder: Served, scheme: str) -> None:
    done = subprocess.run(
        ["curl", "-sS", "--fail", embedder.url("predict"), "-d", '{"n": 7}',
         "-H", f"Authorization: {scheme} {embedder.platform.key}"],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == {"path": "/v1/anything", "got": {"n": 7}}
