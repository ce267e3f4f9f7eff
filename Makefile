# make run     adapts the shipped tiny model to drawn phantoms and writes the report
# make test    every test; make fast: without the slow ones; make lint: ruff and pyright
#
# PYTHON       the Python (3.11 or newer) that .venv is made with
# TORCH_INDEX  an extra package index for torch. On Linux, PyPI's torch is built for CUDA (some GB); for CPU:
#              make run TORCH_INDEX=https://download.pytorch.org/whl/cpu
# WORKERS      processes that share the tests

PYTHON ?= python3
TORCH_INDEX ?=
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PINS := pyproject.toml constraints.txt
PIP_INSTALL = $(BIN)/python -m pip --disable-pip-version-check --no-input install -qq \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -c constraints.txt
# One thread a process: two processes with two threads each on two cores wait for one another.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)

.PHONY: run test fast lint install clean help

run: $(STAMP)
	@$(BIN)/medkit run

test: $(STAMP)-dev
	@$(PYTEST)

fast: $(STAMP)-dev
	@$(PYTEST) -m "not slow"

lint: $(STAMP)-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright

install: $(STAMP)
	@echo "medkit is installed: $(BIN)/medkit --help"

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -7

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "medkit needs Python 3.11 or newer; name one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(STAMP): $(PINS) | $(BIN)/python
	@echo "Installing the pinned packages into $(VENV); this happens once and takes a minute or two ..."
	@$(PIP_INSTALL) -e .
	@touch $@

$(STAMP)-dev: $(STAMP)
	@echo "Installing what the tests need ..."
	@$(PIP_INSTALL) -e ".[dev]"
	@touch $@

# Run folders stay: they hold results.
clean:
	@rm -rf $(VENV) build dist .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -not -path "./$(VENV)/*" -prune -exec rm -rf {} +
