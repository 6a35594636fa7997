#!/usr/bin/env bash
# Renews the locks: hash-pinned, for every platform, naming no index.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=.venv/bin/uv
flags=(--quiet --generate-hashes --no-header --no-annotate --universal --python-version 3.11 "$@")
"$uv" pip compile "${flags[@]}" pyproject.toml -o locks/runtime.txt
"$uv" pip compile "${flags[@]}" pyproject.toml --group dev -c locks/runtime.txt -o locks/dev.txt
"$uv" pip compile "${flags[@]}" src/kingpost/build/builder.in -o src/kingpost/build/builder.txt
