"""Pushes with the truss command instead of over REST, and reads its JSON, never its text."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from kingpost.client.remote import Remote, segment
from kingpost.client.resolve import Json
from kingpost.client.rest import RestClient
from kingpost.errors import BuildFailedError

TIMEOUT_S: Final = 1800.0
"""For a push that waits for nothing; the first one installs the truss command."""


def push_by_truss(
    api: RestClient, named: str, folder: Path, deployment_name: str
) -> tuple[Json, Json]:
    """Model and deployment of a push by `kingpost truss`, which keeps the key to one address.

    `named` is the remote as a command names it. Raises BuildFailedError with truss's own words.
    """
    command = [sys.executable, "-m", "kingpost", "truss", "--remote", named, "push", str(folder)]
    command += ["--promote", "--deployment-name", deployment_name, "--output", "json"]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BuildFailedError(
            f"The truss command did not push within {TIMEOUT_S:g} s. Try without --via-truss-cli."
        ) from None
    told = ids_of(done.stdout)
    if done.returncode != 0 or told is None:
        words = "\n".join((done.stderr + done.stdout).strip().splitlines()[-10:])
        raise BuildFailedError(f"The truss command failed:\n{_without_key(words, api.remote)}")
    model_id, deployment_id = told
    path = f"/v1/models/{segment(model_id)}"
    return api.get(path), api.get(f"{path}/deployments/{segment(deployment_id)}")


def ids_of(output: str) -> tuple[str, str] | None:
    """Model and deployment of what `truss push --output json` printed; None when it has none."""
    start = output.find("{")
    try:
        told: Any = json.loads(output[start:]) if start >= 0 else None
        model, deployment = told["model_id"], told["model_version_id"]
    except (ValueError, KeyError, TypeError):
        return None
    return (model, deployment) if isinstance(model, str) and isinstance(deployment, str) else None


def _without_key(text: str, remote: Remote) -> str:
    return text.replace(remote.api_key, "(key)") if remote.api_key else text
