# Every command of the project. `make` alone lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
INSTALLED := $(VENV)/.installed
BENCH_INSTALLED := $(VENV)/.installed-bench
PIPELINE ?= sinusoid
BENCH ?=

.DEFAULT_GOAL := help
.PHONY: help install run list up serve test test-fast docs bench lint format types lock clean distclean

help:  ## show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  PIPELINE=name chooses the pipeline of make run; PYTHON=python3.12 the interpreter of the first make install."

install: $(INSTALLED)  ## make .venv and install metaopt into it (does nothing if nothing has changed)

# Everything by its hash, as wheels, nothing built but this project itself; then PyTorch, see constraints.txt.
$(INSTALLED): pyproject.toml requirements.lock constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "metaopt needs Python 3.11 or newer; name one: make install PYTHON=python3.12" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --require-hashes --no-deps --only-binary :all: --requirement requirements.lock
	$(PIP) --no-build-isolation --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -P -m flows.embedded_server
	@touch $@

run: install  ## run a pipeline, embedded: make run PIPELINE=sinusoid
	$(BIN)/metaopt run $(PIPELINE)

list: install  ## the pipelines of pipelines.yaml
	$(BIN)/metaopt list

up: install  ## start Prefect's and MLflow's servers, to browse results
	$(BIN)/metaopt up

serve: install  ## run scheduled pipelines (needs `make up` in another terminal)
	$(BIN)/metaopt serve

# A file's tests share fixtures and stay in one process.
SIDE_BY_SIDE := --numprocesses auto --maxprocesses 4 --dist loadfile

test: install  ## run all tests
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

test-fast: install  ## run the quick tests, for the daily loop
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not slow"

docs: install  ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	@echo "site/index.html; with a search: $(BIN)/python -m http.server --bind 127.0.0.1 --directory site"

bench: $(BENCH_INSTALLED)  ## speed and memory compared with other libraries: make bench BENCH="--only W1,W3"
	$(BIN)/python -m benchmarks $(BENCH)

$(BENCH_INSTALLED): $(INSTALLED) requirements-bench.lock
	$(PIP) --require-hashes --no-deps --only-binary :all: --requirement requirements-bench.lock
	$(PIP) --no-build-isolation --constraint constraints.txt --editable '.[bench]'
	@touch $@

lint: install  ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: install  ## fix style and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: install  ## check types
	$(BIN)/mypy

# For every platform that has wheels. uv keeps the versions that are locked, unless UPGRADE=--upgrade. What only PyTorch's CUDA build
# needs is left out: it comes with that build.
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header $(UPGRADE)
WITHOUT_TORCH := awk 'BEGIN {print "\# Made by `make lock`: versions, and the hashes of their files."} \
	/^[a-z]/ {keep = !/^(torch==|triton==|cuda-|nvidia-)/} keep'

lock: install  ## lock the versions again, after a change of the requirements in pyproject.toml
	$(PIP) uv
	$(LOCK) --constraint constraints.txt --extra dev pyproject.toml --output-file requirements.lock >/dev/null
	$(WITHOUT_TORCH) requirements.lock > .lock && mv .lock requirements.lock
	$(LOCK) --constraint constraints.txt --constraint requirements.lock --extra bench pyproject.toml --output-file requirements-bench.lock \
	  $$(sed -n 's/^\([a-z0-9-]*\)==.*/--no-emit-package \1/p' requirements.lock) >/dev/null
	$(WITHOUT_TORCH) requirements-bench.lock > .lock && mv .lock requirements-bench.lock

clean:  ## remove caches (not .metaopt, which holds all results)
	rm -rf build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean  ## clean, and remove .venv too
	rm -rf $(VENV)
