#!/usr/bin/env bash
# Makes .venv from the hash-pinned locks. Uses `uv` from the PATH, else brings its own.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }

python=${KINGPOST_PYTHON:-}
if [ -z "$python" ]; then
  for candidate in python3.11 python3.12 python3.13 python3; do
    if command -v "$candidate" >/dev/null 2>&1 &&
      "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      python=$(command -v "$candidate")
      break
    fi
  done
fi
if [ -z "$python" ]; then
  say "setup: no Python 3.11 or newer was found. Install one (Debian: apt-get install python3 python3-venv),"
  say "       or name it: KINGPOST_PYTHON=/path/to/python make setup"
  exit 1
fi

if command -v uv >/dev/null 2>&1; then
  uv=uv
else
  if [ ! -x .venv-uv/bin/uv ]; then
    say "setup: uv is not installed; putting one into .venv-uv"
    "$python" -m venv .venv-uv || {
      say "setup: this Python can't make a venv (Debian: apt-get install python3-venv)"
      exit 1
    }
    .venv-uv/bin/python -m pip install --quiet --disable-pip-version-check "$(grep -m1 -oE '^uv==[0-9.]+' locks/runtime.txt)"
  fi
  uv=.venv-uv/bin/uv
fi

[ -x .venv/bin/python ] || "$uv" venv --quiet --python "$python" .venv
"$uv" pip install --quiet --compile-bytecode --python .venv/bin/python --require-hashes -r locks/dev.txt
"$uv" pip install --quiet --python .venv/bin/python --no-deps --editable .
