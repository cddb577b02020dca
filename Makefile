# Atoll's few commands. `make` alone lists them. Each makes .venv first, if it is not there.

PYTHON ?= $(shell command -v python3.11 || echo python3)
BIN := .venv/bin

# At most 4 threads, so that a large machine is left to its other users.
export OMP_NUM_THREADS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN) && echo $$((n < 4 ? n : 4)))
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help .venv demo test e2e siege lint types clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z0-9.]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile

demo: .venv ## run a federation of shops in one process; ends with runs/demo/report.html
	HF_HUB_OFFLINE=1 $(BIN)/atoll-sim compare demo --out runs/demo

test: lint types ## lint, types, then every test
	HF_HUB_OFFLINE=1 $(BIN)/pytest

e2e: .venv ## server and platforms as real processes, killed and betrayed in every way: 15 min
	HF_HUB_OFFLINE=1 $(BIN)/pytest -m e2e tests/e2e

siege: .venv ## attack real server processes on loopback; ends with runs/siege.md: 25 min
	@mkdir -p runs
	HF_HUB_OFFLINE=1 $(BIN)/atoll-sim bench siege --out runs/siege.md

lint: .venv ## ruff: faults and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv ## mypy, strict
	$(BIN)/mypy

clean: ## remove .venv, runs and caches
	rm -rf .venv runs dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv: .venv/installed ## pinned versions of everything, in .venv

# torch goes first and alone: whichever build of its version pip finds then stays, and a CPU build in
# reach saves gigabytes of CUDA libraries. The stamp is written last: a broken install is done again.
.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import ensurepip, sys, venv; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null \
	  || { echo "Atoll needs Python 3.11 with its venv module; install it, or name it: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo 'Installing into .venv: a few minutes the first time.'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -qq --constraint constraints.txt torch
	$(BIN)/pip install -qq --constraint constraints.txt --editable '.[dev]'
	@touch $@
