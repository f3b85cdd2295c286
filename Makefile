# Every target does the set-up it needs (.venv, once), says what it does, and is quick the second time.
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3; do command -v $$name && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check
TORCH := $(shell grep '^torch==' constraints.txt)
DEMO_PROMPT := A cat running on the street

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-fast check bench docs

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(READY) ## set-up only: .venv with the tested versions

# torch first and alone: the tested version, from whichever index pip is set up to use (see README for one without CUDA)
$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "make: no Python found; install Python 3.11 or newer, or say which: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "make: $(PYTHON) is no Python of 3.11 or newer; say which to use: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { echo "Creating $(VENV) with $$($(PYTHON) -V)"; $(PYTHON) -m venv --clear $(VENV); } || { echo "make: $(PYTHON) cannot create a virtual environment; on Debian: apt install python3-venv" >&2; exit 1; }
	@echo "Installing $(TORCH), the largest part"
	@$(PIP) '$(TORCH)'
	@echo "Installing streamingt2v and its other dependencies"
	@$(PIP) -c constraints.txt -e '.[dev]'
	@$(BIN)/python -m compileall -q src
	@touch $@

demo: $(READY) ## make demo.mp4: 240 frames of a prompt through all three stages
	@echo "Making demo.mp4: 240 frames of \"$(DEMO_PROMPT)\" with the embedded model"
	@if [ -f demo.run/request.json ]; then $(BIN)/streamingt2v resume demo.run --overwrite; \
	else $(BIN)/streamingt2v generate "$(DEMO_PROMPT)" --frames 240 --preset full --overwrite -o demo.mp4; fi

test: $(READY) ## run all tests, as continuous integration does
	@echo "Running the tests"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder --max-worker-restart 0

test-fast: $(READY) ## the tests that start no Ray, server, browser or training: under 2 minutes on two cores
	@echo "Running the fast tests"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder --max-worker-restart 0 -m 'not slow'

check: $(READY) ## lint, types, and the tests of the house's rules
	@echo "Checking with ruff, mypy and the import-direction test"
	@$(BIN)/ruff check src tests lab
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/test_layers.py tests/test_public_names.py tests/test_docs.py

bench: $(READY) ## speed and memory of the trip on this machine
	@echo "Measuring speed and peak memory"
	@$(BIN)/streamingt2v bench

docs: $(READY) ## write docs/cli.md again from --help
	@$(BIN)/python -m lab.reference > docs/cli.md
