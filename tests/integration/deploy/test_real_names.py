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

ROOT = Path(__file__).resolve().parents[3]
TYPES = """
- {id: 2x8, millicpu: 2000, memory_mib: 8192}
- {id: L4, millicpu: 2000, memory_mib: 4096, gpu_type: L4, gpu_count: 1, gpu_memory_mib: 24576,
   price_per_minute_usd: "0.015"}
"""
MODEL = (
    *("--model", "kingpost/tiny-chat", "--engine", "llamacpp", "--gpu", "L4"),
    *("--max-model-len", "256", "--concurrency", "2"),
)
NAMES = ("baseten.co", "api.baseten.co", "*.api.baseten.co")


def test_with_a_key_and_no_address(weights: Hub, llama_prefix: Path, tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, *NAMES)
    types = tmp_path / "types.yaml"
    types.write_text(TYPES)
    options = (
        *("--instance-types", str(types)),
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

            made = kingpost("deploy", *MODEL, "--yes", "--json", "--service-name", "real")
            assert made.returncode == 0, f"{made.stderr}{proxy.asked}{running.output()}"
            (model,) = running.get("/v1/models").json()["models"]
            own_host = f"model-{model['id']}.api.baseten.co"
            endpoint = json.loads(made.stdout)["endpoint"]
            assert endpoint == f"https://{own_host}/environments/production/sync/v1"
            assert {"api.baseten.co:443", f"{own_host}:443"} <= set(proxy.asked)

            status = json.loads(kingpost("status", "real", "--json").stdout)
            assert (status["state"], status["provider"]) == ("active", "baseten")
            told = json.loads(kingpost("cost", "real", "--json").stdout)
            assert told["usd_per_replica_hour"] == "0.85"
            gone = kingpost("destroy", "real", "--yes")
            assert gone.stdout == "real is destroyed.\n", gone.stderr
            assert running.get("/v1/models").json()["models"] == []

            prices = json.loads(kingpost("show-gpus", "--gpu", "L4", "--refresh", "--json").stdout)
            (fresh,) = [o for o in prices[0]["offers"] if o["provider"] == "baseten"]
            assert (fresh["usd_per_gpu_hour"], fresh["old"]) == ("0.90", False)

            verified = subprocess.run(
                [sys.executable, str(ROOT / "scripts" / "verify_baseten.py"), *MODEL, "--yes"],
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
                env=environment,
            )
            assert verified.returncode == 0, verified.stderr
            assert "0.85 USD per hour, as of 2026" in verified.stdout
            assert verified.stdout.endswith("is destroyed.\n")
            assert running.get("/v1/models").json()["models"] == []
