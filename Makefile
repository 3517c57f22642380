# Every command of the project. `make` alone lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
BENCH_INSTALLED := $(VENV)/.installed-bench
PIPELINE ?= sinusoid
BENCH ?=

.DEFAULT_GOAL := help
.PHONY: help install run list up serve test bench lint format types clean distclean

help:  ## show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  PIPELINE=name chooses the pipeline of make run; PYTHON=python3.12 the interpreter of the first make install."

install: $(INSTALLED)  ## make .venv and install metaopt into it (nothing to do where nothing changed)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "metaopt needs Python 3.11 or newer; name one: make install PYTHON=python3.12" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m flows.embedded_server prepare
	@touch $@

run: install  ## run a pipeline, embedded: make run PIPELINE=sinusoid
	$(BIN)/metaopt run $(PIPELINE)

list: install  ## the pipelines of pipelines.yaml
	$(BIN)/metaopt list

up: install  ## start Prefect's and MLflow's servers, to browse results
	$(BIN)/metaopt up

serve: install  ## run scheduled pipelines (needs `make up` in another terminal)
	$(BIN)/metaopt serve

test: install  ## run all tests
	$(BIN)/python -m pytest

bench: $(BENCH_INSTALLED)  ## speed and memory beside other libraries: make bench BENCH="--only W1,W3"
	$(BIN)/python -m benchmarks $(BENCH)

$(BENCH_INSTALLED): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	@touch $@

lint: install  ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: install  ## put style and formatting right
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: install  ## check types
	$(BIN)/mypy

clean:  ## remove caches (not .metaopt, which holds all results)
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean  ## clean, and remove .venv too
	rm -rf $(VENV)
