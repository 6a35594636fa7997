"""What a person sees on a real terminal: tables, bars, and prompts that echo nothing."""

import errno
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.contract_values import deployment, model
from tests.support.restserver import Answer, RestServer


def on_terminal(*arguments: str, typed: str = "", prompt: str = "") -> tuple[int, str]:
    """Run the command on a pseudo-terminal; type once the prompt is there."""
    ours, theirs = pty.openpty()
    started = subprocess.Popen(
        [sys.executable, "-m", "kingpost", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    seen = b""
    try:
        while chunk := read(ours):
            seen += chunk
            if typed and prompt.encode() in seen:
                os.write(ours, typed.encode())
                typed = ""
        return started.wait(timeout=30), seen.decode()
    finally:
        os.close(ours)
        started.kill()
        started.wait()


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError as error:
        if error.errno == errno.EIO:  # the other end has closed
            return b""
        raise


def test_a_table(server: RestServer) -> None:
    server.on("GET", "/v1/models", {"models": [model()]})
    code, seen = on_terminal("models")
    assert code == 0
    assert "tiny-chat" in seen
    assert "\x1b[" in seen


def test_a_push_with_bars(server: RestServer, tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "config.yaml").write_text("model_name: tiny-chat\n")
    (tmp_path / "t" / "weights.bin").write_bytes(bytes(3_000_000))
    place = {"s3_bucket": "b", "s3_key": "k", "endpoint_url": f"{server.url}/s3"}
    server.on("GET", "/v1/models", {"models": []})
    creds = {"aws_access_key_id": "AKIA", "aws_secret_access_key": "once"}
    server.on("POST", "/v1/prepare_model_upload", {"creds": creds, **place})
    server.on("PUT", "/s3/b/k", Answer())
    active = deployment(status="ACTIVE")
    server.on("POST", "/v1/models", {"model": model(), "deployment": deployment()})
    server.on("GET", "/v1/models/m1234567/deployments/d1234567", active)
    server.on("GET", "/v1/models/m1234567/deployments/d1234567/logs", {"logs": []})
    code, seen = on_terminal("push", str(tmp_path / "t"), "--wait")
    assert code == 0, seen
    assert "Uploading" in seen
    assert "ACTIVE" in seen


@pytest.mark.parametrize(
    ("arguments", "prompt"),
    [
        (("secrets", "set", "hf"), "Value of hf"),
        (("login", "work", "--url", "http://127.0.0.1:9", "--no-check"), "API key for"),
    ],
)
def test_what_is_typed_is_not_shown(
    server: RestServer, arguments: tuple[str, ...], prompt: str
) -> None:
    server.on("POST", "/v1/secrets", {"name": "hf", "id": "1"})
    code, seen = on_terminal(*arguments, typed="typed-secret\r", prompt=prompt)
    assert code == 0, seen
    assert "typed-secret" not in seen
