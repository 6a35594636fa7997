"""A folder that stands for llama.cpp's image: its server, as a program over the same library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

VERSION = "2026.10.11549"
SERVER = """#!@python@
import argparse, os, socket, threading
import xllamacpp

parser = argparse.ArgumentParser()
for name in ("model", "alias", "host", "port", "parallel", "ctx-size", "n-gpu-layers"):
    parser.add_argument(f"--{name}")
asked = parser.parse_args()
params = xllamacpp.CommonParams()
params.model.path = asked.model
params.model_alias = {asked.alias}
params.hostnames = [asked.host]
params.port = int(asked.port)
params.n_parallel = int(asked.parallel)
params.n_ctx = int(asked.ctx_size)
params.cpuparams.n_threads = 1
params.cpuparams_batch.n_threads = 1
params.cache_ram_mib = 0
params.ui = False
server = xllamacpp.Server(params)
print("llama-server listens", server.listening_address, flush=True)
threading.Event().wait()
"""


def install(prefix: Path) -> Path:
    """An environment with `bin/llama-server`."""
    python = prefix / "bin" / "python"
    subprocess.run(["uv", "venv", "-q", "--python", sys.executable, str(prefix)], check=True)
    wanted = f"xllamacpp=={VERSION}"
    subprocess.run(["uv", "pip", "install", "-q", "--python", str(python), wanted], check=True)
    program = prefix / "bin" / "llama-server"
    program.write_text(SERVER.replace("@python@", str(python)))
    program.chmod(0o755)
    return prefix
