"""Serves a GGUF model through llama.cpp behind the OpenAI routes of a Truss.

llama.cpp does the work in this process and listens on a free loopback port; this file only
passes requests on, so that sampling, batching, streaming and error bodies are llama.cpp's own.
"""

import asyncio
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
import xllamacpp  # type: ignore[import-untyped]
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

SLOTS = 4  # requests decoded side by side; further ones wait inside llama.cpp
DEFAULT_CONTEXT = 512  # tokens a slot can hold, prompt and answer together
THREADS = 1
DEFAULT_MAX_TOKENS = 256
DISCONNECT_POLL_SECONDS = 0.2
CLIENT_CLOSED_REQUEST = 499


def _bad_request(message: str) -> JSONResponse:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return JSONResponse({"error": error}, status_code=HTTPStatus.BAD_REQUEST)


def _server_parameters(weights: Path, name: str, context: int) -> xllamacpp.CommonParams:
    params = xllamacpp.CommonParams()
    params.model.path = str(weights)
    params.model_alias = {name}
    params.hostnames = ["127.0.0.1"]
    params.port = 0  # any free port
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * context
    params.n_predict = DEFAULT_MAX_TOKENS
    params.cpuparams.n_threads = THREADS
    params.cpuparams_batch.n_threads = THREADS
    params.sampling.temp = 0.0  # greedy, unless a request asks otherwise
    params.cache_ram_mib = 0  # slots keep their own cache; no second one in main memory
    params.ui = False
    params.verbosity = 1
    return params


class Model:
    """The model class that Truss loads; each method named like an OpenAI route serves it."""

    def __init__(self, config: dict[str, Any], data_dir: str | Path, **_: object) -> None:
        metadata = config.get("model_metadata") or {}
        self._name = str(config.get("model_name") or "tiny-chat")
        self._weights = Path(metadata.get("gguf_path") or Path(data_dir) / "model.gguf")
        self._context = int(metadata.get("context_tokens") or DEFAULT_CONTEXT)
        self._llama: xllamacpp.Server | None = None
        self._http: aiohttp.ClientSession | None = None

    def load(self) -> None:
        """Start llama.cpp on the weights."""
        if not self._weights.is_file():
            raise FileNotFoundError(
                f"No model file at {self._weights}. Run train.py, or set gguf_path in the "
                "model_metadata of config.yaml."
            )
        parameters = _server_parameters(self._weights, self._name, self._context)
        self._llama = xllamacpp.Server(parameters)

    async def is_healthy(self) -> bool:
        """Whether llama.cpp answers."""
        if self._llama is None:
            return False
        try:
            async with self._client().get("/health") as answer:
                return answer.status == HTTPStatus.OK
        except aiohttp.ClientError:
            return False

    async def predict(self, model_input: Any, request: Request) -> Response:
        """Answer a chat body, or a prompt given as {"prompt": ...} as one user message."""
        if isinstance(model_input, dict) and "messages" not in model_input:
            if not isinstance(prompt := model_input.get("prompt"), str):
                return _bad_request('The body needs "messages" (a list) or "prompt" (a string).')
            rest = {key: value for key, value in model_input.items() if key != "prompt"}
            model_input = {**rest, "messages": [{"role": "user", "content": prompt}]}
        return await self.chat_completions(model_input, request)

    async def chat_completions(self, model_input: Any, request: Request) -> Response:
        """Serve POST /v1/chat/completions."""
        if isinstance(model_input, dict) and model_input.get("messages") == []:
            return _bad_request('"messages" must not be empty.')
        return await self._forward("/v1/chat/completions", model_input, request)

    async def completions(self, model_input: Any, request: Request) -> Response:
        """Serve POST /v1/completions; the prompt is used as it is, without the chat template."""
        return await self._forward("/v1/completions", model_input, request)

    async def responses(self, model_input: Any, request: Request) -> Response:
        """Serve POST /v1/responses."""
        return await self._forward("/v1/responses", model_input, request)

    async def messages(self, model_input: Any, request: Request) -> Response:
        """Serve POST /v1/messages."""
        return await self._forward("/v1/messages", model_input, request)

    def _client(self) -> aiohttp.ClientSession:
        # Made on first use because it has to belong to the event loop that serves requests.
        if self._http is None:
            if self._llama is None:
                raise RuntimeError("load() has to run before a request is served")
            self._http = aiohttp.ClientSession(
                self._llama.listening_address,
                timeout=aiohttp.ClientTimeout(total=None),
                connector=aiohttp.TCPConnector(limit=0),
            )
        return self._http

    async def _forward(self, path: str, body: Any, request: Request) -> Response:
        if not isinstance(body, dict):
            return _bad_request("The body has to be a JSON object.")
        answer = await self._answer_unless_gone(path, body, request)
        if answer is None:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        if answer.content_type == "text/event-stream":
            return StreamingResponse(_chunks(answer), media_type="text/event-stream")
        async with answer:
            return Response(
                await answer.read(), status_code=answer.status, media_type=answer.content_type
            )

    async def _answer_unless_gone(
        self, path: str, body: dict[str, Any], request: Request
    ) -> aiohttp.ClientResponse | None:
        """llama.cpp's answer; none, with the work stopped, if the caller hangs up first."""
        call = asyncio.create_task(self._client().post(path, json=body))
        try:
            while not (await asyncio.wait({call}, timeout=DISCONNECT_POLL_SECONDS))[0]:
                if await request.is_disconnected():
                    return None
            return call.result()
        finally:
            if not call.done():
                call.cancel()


async def _chunks(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The event stream as it arrives; leaving early hangs up on llama.cpp, which then stops."""
    async with answer:
        async for chunk in answer.content.iter_any():
            yield chunk
