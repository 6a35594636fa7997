"""A real platform for tests: `kingpost up` as a process, on a free port, with a data folder."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

START_LIMIT_S = 120.0
STOP_LIMIT_S = 90.0


@dataclass
class RunningPlatform:
    """`address` is on loopback; `key` manages. `process` is the supervisor."""

    data: Path
    port: int
    options: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    _starts: int = 0

    @property
    def address(self) -> str:
        return f"{'https' if self.certificate else 'http'}://127.0.0.1:{self.port}"

    @property
    def certificate(self) -> str | None:
        """The file of `--tls-cert`; clients must trust it."""
        named = "--tls-cert" in self.options
        return self.options[self.options.index("--tls-cert") + 1] if named else None

    @property
    def trust(self) -> ssl.SSLContext | bool:
        return ssl.create_default_context(cafile=self.certificate) if self.certificate else True

    @property
    def key(self) -> str:
        return (self.data / "admin.key").read_text().strip()

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Api-Key {self.key}"}

    def start(self) -> None:
        self._starts += 1
        self.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        output = (self.data / "up.out").open("ab")
        with output:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "kingpost", "up"),
                    *("--port", str(self.port), "--data-dir", str(self.data)),
                    *self.options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**clean_environment(), **self.environment},
                start_new_session=True,
            )
        wait_until(self.is_ready, START_LIMIT_S, self.output)

    def is_ready(self) -> bool:
        if self.process is not None and self.process.poll() is not None:
            raise AssertionError(f"kingpost up ended: {self.output()}")
        if (self.data / "up.out").read_text().count("Kingpost is ready") < self._starts:
            return False
        try:
            answer = httpx.get(f"{self.address}/healthz", timeout=5, verify=self.trust)
        except httpx.HTTPError:
            return False
        return answer.status_code == 200 and answer.json()["control"] == "connected"

    def output(self) -> str:
        parts = [self.data / "up.out", *sorted((self.data / "logs").glob("*"))]
        return "\n".join(
            f"--- {part.name}\n{part.read_text(errors='replace')[-4000:]}"
            for part in parts
            if part.is_file()
        )

    def stop(self) -> None:
        """SIGTERM, and wait until all of it is gone."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(STOP_LIMIT_S)
        self.process = None

    def pid_of(self, name: str) -> int:
        """The process id of `gateway` or `control`, as the supervisor recorded it."""
        import json

        return int(json.loads((self.data / "run" / f"{name}.json").read_text())["pid"])

    def get(self, path: str, **more: Any) -> httpx.Response:
        url = self.address + path
        return httpx.get(url, headers=self.headers, timeout=60, verify=self.trust, **more)

    def post(self, path: str, **more: Any) -> httpx.Response:
        url = self.address + path
        return httpx.post(url, headers=self.headers, timeout=60, verify=self.trust, **more)

    def patch(self, path: str, body: dict[str, Any]) -> httpx.Response:
        url = self.address + path
        return httpx.patch(url, headers=self.headers, json=body, timeout=60, verify=self.trust)

    def delete(self, path: str) -> httpx.Response:
        return httpx.delete(self.address + path, headers=self.headers, timeout=60)

    def cli(self, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run the `kingpost` command against this platform."""
        return subprocess.run(
            [sys.executable, "-m", "kingpost", *arguments],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env={
                **clean_environment(),
                "KINGPOST_REMOTE": self.address,
                "KINGPOST_API_KEY": self.key,
                **({"SSL_CERT_FILE": self.certificate} if self.certificate else {}),
                **self.environment,
            },
            **more,
        )


def clean_environment() -> Mapping[str, str]:
    """This process's environment without what would lead a client or a platform elsewhere."""
    doomed = ("KINGPOST_", "BASETEN_", "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy")
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(doomed) or name == "KINGPOST_CACHE_DIR"
    }


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def wait_until(
    condition: Callable[[], Any], limit_s: float = 60.0, explain: Callable[[], str] = str
) -> Any:
    """The condition's first true value. Fails, with `explain()`, when it stays false."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {limit_s:g} s: {explain()}")


@contextlib.contextmanager
def platform(
    data: Path, *options: str, environment: Mapping[str, str] | None = None
) -> Iterator[RunningPlatform]:
    """A platform that is ready; stopped at the end, with all of its replicas."""
    running = RunningPlatform(data, free_port(), options, dict(environment or {}))
    try:
        running.start()
        yield running
    finally:
        running.stop()
