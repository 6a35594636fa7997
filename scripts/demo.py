"""`make demo` and `make demo-stop`: a platform, a real model on it, and a streamed answer."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import httpx

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".demo"
DATA = HOME / "data"
STATE = HOME / "state.json"
LOG = HOME / "up.log"
KINGPOST = [sys.executable, "-m", "kingpost"]
MODEL = "tiny-chat"
START_LIMIT_S = 180.0
QUESTION = "What is Kingpost?"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["start", "stop"])
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "8000")))
    arguments = parser.parse_args()
    return stop() if arguments.action == "stop" else start(arguments.port)


def start(port: int) -> int:
    began = time.monotonic()
    state = running()
    if state is None:
        say(f"Starting the platform on http://localhost:{port} ...")
        state = start_platform(port)
        if state is None:
            return 1
    else:
        say(f"The platform runs already on http://localhost:{state['port']}.")
    port = state["port"]
    address = f"http://localhost:{port}"
    key = (DATA / "admin.key").read_text().strip()
    model = active_model(address, key)
    if model is None:
        say(f"Pushing examples/{MODEL} (the first push makes its Python environment) ...")
        model = push(address, key)
        if model is None:
            return 1
    base = f"{address}/model/{model}/environments/production/sync/v1"
    say(f"\n> {QUESTION}")
    stream(base, key)
    finish(address, key, base, model, time.monotonic() - began)
    return 0


def start_platform(port: int) -> dict[str, int] | None:
    DATA.mkdir(parents=True, exist_ok=True, mode=0o700)
    with LOG.open("wb") as log:
        process = subprocess.Popen(
            [*KINGPOST, "up", "--port", str(port), "--data-dir", str(DATA)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=ROOT,
        )
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            say(LOG.read_text(errors="replace").strip())
            say(f"To use another port for the demo: make demo PORT={port + 1}")
            return None
        if healthy(port):
            state = {"pid": process.pid, "port": port}
            STATE.write_text(json.dumps(state))
            return state
        time.sleep(0.1)
    say(f"The platform was not ready within {START_LIMIT_S:.0f} s. Its output is in {LOG}.")
    process.terminate()
    return None


def running() -> dict[str, int] | None:
    """The platform that an earlier run started, if it still answers."""
    try:
        state: dict[str, int] = json.loads(STATE.read_text())
        os.kill(state["pid"], 0)
    except (OSError, ValueError, KeyError):
        return None
    return state if healthy(state["port"]) else None


def healthy(port: int) -> bool:
    try:
        answer = httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=2)
    except httpx.HTTPError:
        return False
    return answer.status_code == httpx.codes.OK and answer.json().get("control") == "connected"


def active_model(address: str, key: str) -> str | None:
    """The id of the model, when its production deployment can answer."""
    headers = {"Authorization": f"Api-Key {key}"}
    models = httpx.get(f"{address}/v1/models", params={"name": MODEL}, headers=headers).json()
    for model in models.get("models", []):
        if model.get("production_deployment_id"):
            return str(model["id"])
    return None


def push(address: str, key: str) -> str | None:
    environment = {
        **os.environ,
        "KINGPOST_API_KEY": key,
        "KINGPOST_REMOTE": address,
    }
    done = subprocess.run(
        [*KINGPOST, "push", f"examples/{MODEL}", "--promote", "--wait", "--json"],
        stdout=subprocess.PIPE,
        env=environment,
        cwd=ROOT,
        check=False,
        text=True,
    )
    if done.returncode:
        say("The push failed; its messages are above.")
        return None
    return str(json.loads(done.stdout)["model_id"])


def stream(base: str, key: str) -> None:
    """One chat answer, token by token, through the OpenAI API."""
    from openai import OpenAI

    with OpenAI(base_url=base, api_key=key) as client:
        events = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": QUESTION}],
            stream=True,
            temperature=0,
        )
        for event in events:
            text = event.choices[0].delta.content if event.choices else None
            print(text or "", end="", flush=True)
    print()


def finish(address: str, key: str, base: str, model: str, seconds: float) -> None:
    say(f"""
Done in {seconds:.1f} s. The platform is still running.

  address  {address}
  API key  {key}

Three commands to try next:

  curl {base}/chat/completions \\
    -H "Authorization: Api-Key {key}" -H "Content-Type: application/json" \\
    -d '{{"model": "{MODEL}", "messages": [{{"role": "user", "content": "What is 12 + 30?"}}]}}'

  KINGPOST_API_KEY={key} KINGPOST_REMOTE={address} .venv/bin/kingpost logs {MODEL}

  KINGPOST_API_KEY={key} KINGPOST_REMOTE={address} .venv/bin/kingpost deployments {MODEL}

`make demo-stop` ends it.""")
    del model


def stop() -> int:
    """End what `start` started, and wait until it is gone."""
    try:
        state = json.loads(STATE.read_text())
        pid = int(state["pid"])
        os.kill(pid, signal.SIGTERM)
    except (OSError, ValueError, KeyError):
        say("No demo is running.")
        STATE.unlink(missing_ok=True)
        return 0
    with contextlib.suppress(OSError):
        wait_for_end(pid)
    STATE.unlink(missing_ok=True)
    say("The demo's platform has stopped.")
    return 0


def wait_for_end(pid: int, limit_s: float = 120.0) -> None:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        os.kill(pid, 0)
        if "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
            return
        time.sleep(0.05)


def say(text: str, file: IO[str] = sys.stdout) -> None:
    print(text, file=file, flush=True)


if __name__ == "__main__":
    sys.exit(main())
