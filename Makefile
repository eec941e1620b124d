# Every target sets itself up: .venv from requirements.lock, once, and again when that or pyproject.toml changed.
# Needed: python3 >= 3.11 and a package index; `make kafka` also Java 17 and Maven.
# ARGS goes to the command: make demo ARGS=--json, make test ARGS="-k ledger".

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: demo test unit coverage check format kafka browser chaos fuzz bench bench-lock bench-plots docs lock clean help

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
READY := .venv/ready
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --no-input

demo: $(READY)  ## run the whole pipeline on bundled servers and reconcile the four ledgers
	@$(BIN)/orderwatch demo $(ARGS)

test: $(READY)  ## unit, contract and integration suites on bundled servers
	@$(BIN)/python -m pytest -n 3 --dist loadfile $(ARGS)

unit: $(READY)  ## unit tests alone
	@$(BIN)/python -m pytest -n 3 --dist loadfile tests/unit $(ARGS)

coverage: $(READY)  ## unit tests, and which lines of the product they run
	@$(BIN)/python -m pytest -n 3 --dist loadfile tests/unit --cov --cov-report=term $(ARGS)

check: $(READY)  ## lint, format, layers and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@$(BIN)/mypy

format: $(READY)  ## format the code with ruff
	@$(BIN)/ruff format . $(ARGS)

kafka: $(READY)  ## suites that need Apache Kafka (fetched by Maven once)
	@$(BIN)/python -m pytest -m kafka -n 2 --dist loadfile $(ARGS)

browser: $(READY)  ## walk every page and every act in Chromium; screenshots in .cache/screenshots
	@$(BIN)/python -m pytest -m browser tests/browser $(ARGS)

chaos: $(READY)  ## orders flow while a seeded schedule breaks everything, then the ledgers are reconciled (ARGS=--short)
	@$(BIN)/python -m tests.chaos.run $(ARGS)

fuzz: $(READY)  ## a million bad inputs, with a table of what was found (ARGS="--inputs 50000 --seed 7")
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(INSTALL) --quiet --only-binary :all: 'atheris>=3.0' 2>/dev/null || true
	@$(BIN)/python -m tests.fuzz $(ARGS)

bench: $(READY)  ## what an order costs on this machine, on Apache Kafka (ARGS="throughput --orders 5000")
	@$(BIN)/python -m bench $(ARGS)

bench-lock: $(READY)  ## resolve bench/requirements.lock again: peers, profiler, plots
	@$(BIN)/uv pip compile bench/requirements.txt --universal --python-version 3.11 --generate-hashes --upgrade \
	    --quiet --custom-compile-command "make bench-lock" --output-file bench/requirements.lock

bench-plots: $(READY)  ## draw results written with -o (ARGS="results/*.json --into docs/images")
	@$$($(BIN)/python -c 'from bench.extras import environment; print(environment())')/python -m bench.plots $(ARGS)

docs: $(READY)  ## build the documentation site into .cache/site; a broken link fails
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet $(ARGS)

lock: $(READY)  ## resolve requirements.lock again, to the newest versions that pyproject.toml allows
	@$(BIN)/uv pip compile pyproject.toml --extra dev --extra docs --universal --python-version 3.11 --generate-hashes --upgrade \
	    --quiet --custom-compile-command "make lock" --output-file requirements.lock

clean:  ## remove everything that make and the tests made, .venv included
	@rm -rf .venv .cache .orderwatch build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

help:
	@awk -F ':.*## *' '/^[a-z-]+:.*## /{ printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "Orderwatch needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)." >&2; \
	    echo "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null
	@total=$$(grep -c '==' requirements.lock); echo "Installing about $$total packages into .venv (once)"; \
	    $(INSTALL) --require-hashes -r requirements.lock \
	    | awk -v total=$$total '/^(Collecting|Requirement already)/ { if (++n % 10 == 0) { print "  " n " of " total; fflush() } }'
	@$(INSTALL) --quiet --no-deps --no-build-isolation --editable .
	@touch $@
