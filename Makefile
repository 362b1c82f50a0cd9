# make demo | test | test-long | lint | format | docs | lock | clean      PYTHON=python3.12 chooses the interpreter

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PYTEST_ARGS ?= --numprocesses auto --maxprocesses 4 --durations 20

SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
VENV_MODULES := import venv, ensurepip
INTEL_MAC := import platform; print(int(platform.system() == "Darwin" and platform.machine() == "x86_64"))
COMPILE = $(BIN)/uv pip compile --quiet pyproject.toml --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-annotate --no-header $(UV_ARGS)

.PHONY: help demo test test-long lint format docs lock clean

help:  ## Say what can be made.
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile

demo: $(VENV)/.runtime  ## Train SAC, MBPO and FTFL side by side on a small task.
	$(BIN)/ftfl demo

test: lint  ## Lint, types and all tests; what CI runs.
	MUJOCO_GL=disabled $(BIN)/python -m pytest $(PYTEST_ARGS)

test-long: $(VENV)/.dev  ## The long fault tests: kill harness, full disks, mutations (about half an hour).
	MUJOCO_GL=disabled $(BIN)/python -m pytest $(PYTEST_ARGS) -m long

lint: $(VENV)/.dev  ## Style, formatting and types, without changing anything.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(VENV)/.dev  ## Rewrite the sources in the house style.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.dev  ## Write the generated pages: presets, metrics, configuration.
	$(BIN)/python docs/generate.py

lock: $(VENV)/.dev  ## Resolve the locks again; UV_ARGS=--upgrade takes newer releases.
	$(COMPILE) --extra dev --group build --group lock --output-file requirements-dev.lock
	$(COMPILE) --group build --constraint requirements-dev.lock --output-file requirements.lock

clean:  ## Remove caches and build products; the environment, runs and demo results stay.
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis MUJOCO_LOG.TXT
	find src tests docs benchmarks -name __pycache__ -prune -exec rm -rf {} +

# The locks are complete, so --no-deps only spares pip a resolution; it also lets Python 3.13 go
# without labmaze (see [tool.uv] in pyproject.toml).
$(VENV)/.runtime: requirements.lock pyproject.toml | $(VENV)/pyvenv.cfg
	$(PIP) install --no-deps --require-hashes -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

# Every pin of the runtime lock stands in the development lock too (a test holds it to that).
$(VENV)/.dev: requirements-dev.lock pyproject.toml | $(VENV)/pyvenv.cfg
	$(PIP) install --no-deps --require-hashes -r requirements-dev.lock
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $(VENV)/.runtime $@

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c '$(SUPPORTED)' 2>/dev/null || { echo "ftfl needs Python 3.11, 3.12 or 3.13, and\
	 '$(PYTHON)' is not one of them: install one and name it, as in 'make demo PYTHON=python3.12'." >&2; exit 1; }
	@test "$$($(PYTHON) -c '$(INTEL_MAC)')" = 0 || { echo "ftfl needs JAX, which has no release for\
	 Intel Macs: use Linux or a Mac with Apple silicon." >&2; exit 1; }
	@$(PYTHON) -c '$(VENV_MODULES)' 2>/dev/null || { echo "'$(PYTHON)' has no venv module, which\
	 Debian and Ubuntu keep in a package of its own: run 'apt install python3-venv' and try again." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
