# The project's commands. `make demo` and `make test` set up everything that they need.
PY := .venv/bin/python
.DEFAULT_GOAL := help

.PHONY: help setup check format test unit demo demo-stop verify-baseten lock clean

help: ## say what each target does
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: .venv/.ready ## make .venv from the locks

.venv/.ready: locks/dev.txt pyproject.toml scripts/setup.sh
	@bash scripts/setup.sh
	@touch $@

check: setup ## format, lint and types, in under a minute
	.venv/bin/ruff format --check --quiet .
	.venv/bin/ruff check --quiet .
	.venv/bin/mypy

format: setup ## put the code into the house's format
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix --quiet .

unit: setup ## the unit tests alone
	.venv/bin/pytest -q tests/unit

test: setup ## all tests, with what they need from the system
	@bash scripts/system-packages.sh
	$(MAKE) --no-print-directory check
	.venv/bin/pytest -q tests

demo: setup ## start the platform, push examples/tiny-chat, stream an answer
	@.venv/bin/python scripts/demo.py start

demo-stop: ## end what `make demo` started
	@.venv/bin/python scripts/demo.py stop

verify-baseten: setup ## deploy to a real Baseten account and back; says its price, asks first
	@.venv/bin/python scripts/verify_baseten.py

lock: setup ## renew the hash-pinned requirement files
	@bash scripts/lock.sh
