"""Baseten's real names, with a key alone: a proxy and an authority of the test lead to Kingpost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.support.certificates import make_certificate
from tests.support.connect_proxy import connect_proxy
from tests.support.hub import Hub
from tests.support.platform import clean_environment, platform

NAMES = ("baseten.co", "api.baseten.co", "*.api.baseten.co")


def test_with_a_key_and_no_address(weights: Hub, llama_prefix: Path, tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, *NAMES)
    options = (
        *("--tls-cert", str(certificate), "--tls-key", str(key)),
        *("--host-names", "baseten.co", "--emulate-accelerators"),
    )
    hub_address = {"HF_ENDPOINT": weights.url}
    data = tmp_path / "data"
    with platform(data, *options, environment=hub_address) as running:
        image = ("ghcr.io/ggml-org/llama.cpp", str(llama_prefix))
        assert running.cli("images", "map", *image, "--data-dir", str(data)).returncode == 0
        with connect_proxy(running.port) as proxy:
            environment = {
                **clean_environment(),
                **hub_address,
                "HOME": str(tmp_path),
                "XDG_CONFIG_HOME": str(tmp_path / "config"),
                "XDG_STATE_HOME": str(tmp_path / "state"),
                "BASETEN_API_KEY": running.key,
                "HTTPS_PROXY": proxy.url,
                "SSL_CERT_FILE": str(certificate),
            }

            def kingpost(*arguments: str) -> subprocess.CompletedProcess[str]:
                return subprocess.run(
                    [sys.executable, "-m", "kingpost", *arguments],
                    capture_output=True,
                    text=True,
                    timeout=300,
                    check=False,
                    env=environment,
                )

            made = kingpost(
                *("deploy", "--model", "kingpost/tiny-chat", "--engine", "llamacpp"),
                *("--gpu", "L4", "--provider", "baseten", "--emulated-gpu", "--yes", "--json"),
                *("--service-name", "real", "--max-model-len", "256", "--concurrency", "2"),
            )
            assert made.returncode == 0, f"{made.stderr}{proxy.asked}{running.output()}"
            (model,) = running.get("/v1/models").json()["models"]
            own_host = f"model-{model['id']}.api.baseten.co"
            endpoint = json.loads(made.stdout)["endpoint"]
            assert endpoint == f"https://{own_host}/environments/production/sync/v1"
            assert {"api.baseten.co:443", f"{own_host}:443"} <= set(proxy.asked)

            assert json.loads(kingpost("status", "real", "--json").stdout)["state"] == "active"
            told = json.loads(kingpost("cost", "real", "--json").stdout)
            assert told["usd_per_replica_hour"] == "0.85"
            gone = kingpost("destroy", "real", "--yes")
            assert gone.stdout == "real is destroyed.\n", gone.stderr
            assert running.get("/v1/models").json()["models"] == []
