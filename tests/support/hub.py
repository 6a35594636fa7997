"""A Hugging Face hub on the loopback: serves folders as model repositories, with byte ranges."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

_MODEL = re.compile(r"/api/models/(.+?)/revision/([^/]+)")
_FILE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
LARGE_BYTES = 1024
"""Files from this size on are told with a SHA-256, as large files of a hub are."""


@dataclass
class Hub:
    """`root` holds `owner/repo` folders. `break_after` cuts the next download after so many."""

    root: Path
    url: str = ""
    token: str | None = None
    break_after: int | None = None
    asked: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)

    def commit(self, repo: str) -> str:
        """Changes with the content, as a commit does."""
        digest = hashlib.sha1(usedforsecurity=False)
        for path in sorted((self.root / repo).rglob("*")):
            if path.is_file():
                digest.update(str(path).encode() + path.read_bytes())
        return digest.hexdigest()

    def fetched(self) -> list[str]:
        """The files that were asked for, in order."""
        return [path for path in self.asked if "/resolve/" in path]


@contextmanager
def hub(root: Path) -> Iterator[Hub]:
    made = Hub(root)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            _answer(self, made, send_body=True)

        def do_HEAD(self) -> None:
            _answer(self, made, send_body=False)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _answer(request: BaseHTTPRequestHandler, hub: Hub, *, send_body: bool) -> None:
    path = unquote(urlsplit(request.path).path)
    hub.asked.append(path)
    if hub.token and request.headers.get("authorization") != f"Bearer {hub.token}":
        _send(request, 401, b'{"error": "unauthorized"}', send_body=send_body)
    elif found := _MODEL.fullmatch(path):
        _listing(request, hub, found[1], found[2])
    elif found := _FILE.fullmatch(path):
        _file(request, hub, hub.root / found[1] / found[3], send_body=send_body)
    else:
        _file(request, hub, hub.root / path.lstrip("/"), send_body=send_body)


def _listing(request: BaseHTTPRequestHandler, hub: Hub, repo: str, revision: str) -> None:
    folder = hub.root / repo
    commit = hub.commit(repo) if folder.is_dir() else ""
    if revision not in {"main", commit} or not commit:
        _send(request, 404, b'{"error": "not found"}')
        return
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    answer = {"sha": commit, "siblings": [_entry(path, folder) for path in files]}
    _send(request, 200, json.dumps(answer).encode())


def _entry(path: Path, folder: Path) -> dict[str, Any]:
    data = path.read_bytes()
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    entry: dict[str, Any] = {"rfilename": str(path.relative_to(folder)), "blobId": blob}
    entry["size"] = len(data)
    if len(data) >= LARGE_BYTES:
        entry["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    return entry


def _file(request: BaseHTTPRequestHandler, hub: Hub, path: Path, *, send_body: bool) -> None:
    if not path.is_file() or not path.resolve().is_relative_to(hub.root.resolve()):
        _send(request, 404, b"not found")
        return
    data = path.read_bytes()
    start, status = 0, 200
    if asked := request.headers.get("range"):
        hub.ranges.append(asked)
        start, status = int(asked.removeprefix("bytes=").rstrip("-")), 206
    body = data[start:]
    request.send_response(status)
    request.send_header("content-length", str(len(body)))
    request.send_header("etag", f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"')
    if status == 206:
        request.send_header("content-range", f"bytes {start}-{len(data) - 1}/{len(data)}")
    request.end_headers()
    if not send_body:
        return
    if hub.break_after is not None and len(body) > hub.break_after:
        request.wfile.write(body[: hub.break_after])
        request.wfile.flush()
        hub.break_after = None
        request.close_connection = True
        return
    request.wfile.write(body)


def _send(
    request: BaseHTTPRequestHandler, status: int, body: bytes, *, send_body: bool = True
) -> None:
    request.send_response(status)
    request.send_header("content-length", str(len(body)))
    request.end_headers()
    if send_body:
        request.wfile.write(body)
