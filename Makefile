# make demo: from a fresh clone to a page of measured numbers.   make test: what continuous integration runs.
# make help: the other targets.   PYTHON=python3.12 make demo   uses another interpreter (3.11 or newer).
# CONSTRAINTS=requirements-ci.txt make test   installs the versions of that file, as continuous integration does.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py
PIN := $(if $(CONSTRAINTS),-c $(CONSTRAINTS))

# One process for each core, one thread in each: the same threads give the same bytes.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n logical --maxprocesses 8 --dist worksteal

.PHONY: help demo test test-all lint coverage fuzz mutants docs lock
.DELETE_ON_ERROR:

help:  ## This list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do printf '%-16s %s\n' "$$name" "$$text"; done

demo: $(VENV)/.installed  ## From a fresh clone to a page of measured numbers
	@echo medlord-bench run --generator medlord --dataset phantom --workers 2
	@page=$$($(BIN)/medlord-bench run --generator medlord --dataset phantom --workers 2) && echo "$$page" && \
	  if [ -n "$$DISPLAY$$WAYLAND_DISPLAY" ] && command -v xdg-open >/dev/null; then xdg-open "$$page" || true; fi

test: lint  ## Linter, type checker and tests: what continuous integration runs
	$(PYTEST)

lint: $(VENV)/.installed-dev  ## Ruff, spelling and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy

test-all: $(VENV)/.installed-dev  ## Also the tests that take minutes each
	$(PYTEST) -m ''

coverage: $(VENV)/.installed-dev  ## The tests, with the share of lines that they execute
	$(PYTEST) --cov --cov-report=term:skip-covered

docs: $(VENV)/.installed-docs  ## The documentation as a site, in site/
	$(BIN)/mkdocs build --strict

lock: $(VENV)/.installed-dev  ## requirements-ci.txt: the versions that continuous integration installs
	$(BIN)/python -m uv pip compile pyproject.toml --extra dev --extra docs --universal --quiet --no-header \
	  --no-annotate --python-version 3.11 -o requirements-ci.txt

# Random damage to inputs for ten minutes, another one each time: executions of each target, and what was found.
FUZZ_SECONDS ?= 600

fuzz: $(VENV)/.installed-dev  ## Random damage to inputs for ten minutes
	OMP_NUM_THREADS=1 MEDLORD_BENCH_FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/pytest tests/fuzz -m ''

N ?= 200
SEED ?= 0

mutants: $(VENV)/.installed-dev  ## Random changes to the code; those that no test notices are printed
	OMP_NUM_THREADS=1 $(BIN)/python tests/mutation $(N) --seed $(SEED)

# An existing .venv is used as it is; it is made only where there is none.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  found=$$($(PYTHON) -V 2>/dev/null) || found="not there"; \
	  echo "$(PYTHON) is $$found; medlord-bench needs Python 3.11 or newer: name one, e.g.  make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 2; }

# uv installs in seconds what takes pip minutes; pip is the way where uv cannot be had. Both compile to bytecode, so that
# no process has to: importing torch and MONAI takes half the time.
define install
	@$(BIN)/python -m uv --version >/dev/null 2>&1 || $(BIN)/python -m pip install --quiet uv || true
	@if $(BIN)/python -m uv --version >/dev/null 2>&1; \
	  then echo "Installing with uv"; $(BIN)/python -m uv pip install --compile-bytecode --python $(BIN)/python $(PIN) -e '$(1)'; \
	  else echo "Installing with pip"; $(BIN)/python -m pip install $(PIN) -e '$(1)'; fi
	@touch $@
endef

$(VENV)/.installed: $(SOURCES) | $(BIN)/python
	$(call install,.)

$(VENV)/.installed-dev: $(SOURCES) | $(BIN)/python
	$(call install,.[dev])
	@touch $(VENV)/.installed

$(VENV)/.installed-docs: $(SOURCES) | $(BIN)/python
	$(call install,.[docs])
