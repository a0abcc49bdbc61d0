# The developer's interface; CI calls exactly these targets.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
DIR    ?= configs/demo
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help install install-dev install-clients install-feast install-foreign up test test-feast test-foreign check fix lock generate bench bench-hop bench-ray compare install-peers soak budget clean

help:  ## Say what each target does
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

install: $(VENV)/.installed  ## Create .venv: pinned packages by hash, then Sluice itself

$(VENV)/.installed: constraints.txt pyproject.toml
	@test -x $(BIN)/python || { echo "creating $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing pinned packages (constraints.txt)"
	@$(PIP) install --require-hashes -r constraints.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

install-dev: $(VENV)/.installed-dev  ## Add what the tests and checks need

$(VENV)/.installed-dev: $(VENV)/.installed constraints-dev.txt
	@echo "installing test tools (constraints-dev.txt)"
	@$(PIP) install --require-hashes -r constraints-dev.txt
	@touch $@

install-clients: .venv-clients/.installed  ## An environment of their own for clients whose pins conflict with ours

.venv-clients/.installed: tests/clients/constraints.txt
	@test -x .venv-clients/bin/python || $(PYTHON) -m venv .venv-clients
	@echo "installing foreign clients (tests/clients/constraints.txt)"
	@.venv-clients/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r tests/clients/constraints.txt
	@touch $@

install-feast: .venv-feast/.installed  ## An environment of its own for Feast (600 MB), for `make test-feast`

.venv-feast/.installed: tests/feast/feast.in
	@test -x .venv-feast/bin/python || $(PYTHON) -m venv .venv-feast
	@echo "installing Feast (tests/feast/feast.in)"
	@.venv-feast/bin/python -m pip --disable-pip-version-check --quiet install -r tests/feast/feast.in
	@touch $@

test-feast: install-dev install-feast  ## What the real Feast writes is read back
	$(BIN)/python -m pytest tests/feast $(ARGS)

install-foreign: .venv-foreign/.installed  ## An environment of its own for MLServer, for `make test-foreign`

.venv-foreign/.installed: tests/foreign/foreign.in
	@test -x .venv-foreign/bin/python || $(PYTHON) -m venv .venv-foreign
	@echo "installing MLServer (tests/foreign/foreign.in)"
	@.venv-foreign/bin/python -m pip --disable-pip-version-check --quiet install -r tests/foreign/foreign.in
	@touch $@

test-foreign: install-dev install-foreign  ## A version at a server that is not ours
	$(BIN)/python -m pytest tests/foreign $(ARGS)

up: install  ## Start the demo: store, engine, gateway (DIR=... for another configuration)
	@exec $(BIN)/sluice up $(DIR) $(ARGS)

test: install-dev install-clients  ## Run every test, with branch coverage and its floor
	@rm -f .coverage .coverage.*
	$(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report=term $(ARGS)

check: install-dev  ## Lint, format, types, import contracts, generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: install-dev  ## Let ruff repair what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

generate: install-dev  ## Write what is generated: configuration reference, JSON Schema, protobuf code
	$(BIN)/python -m serving.config.reference configs/
	$(BIN)/python -m serving.protocol._generated.generate

# Extras stay in the pins: pip refuses `coverage[toml]` by hash where only `coverage` is pinned and
# a newer one has come out since.
lock:  ## Resolve constraints*.txt again (hashes, no index addresses)
	@tools=$$(mktemp -d) && $(PYTHON) -m venv $$tools && $$tools/bin/pip install -q uv && \
	lock() { $$tools/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-strip-extras --no-emit-index-url "$$@"; } && \
	lock pyproject.toml --all-extras --group dev --group build -o constraints-dev.txt && \
	lock pyproject.toml --extra store --extra native-grpc --extra ray --group build -c constraints-dev.txt -o constraints.txt && \
	lock tests/clients/clients.in -o tests/clients/constraints.txt; \
	status=$$?; rm -rf $$tools; exit $$status

bench: install  ## CPU per request: floor against gateway, alternating
	$(BIN)/python loadtests/bench.py $(ARGS)

bench-hop: install  ## CPU per request: a version in the worker against one in its own process
	$(BIN)/python loadtests/bench_hop.py $(ARGS)

bench-ray: install-dev  ## CPU per request: both engines against Ray Serve, alternating
	$(BIN)/python loadtests/bench_ray_serve.py $(ARGS)

install-peers: install-dev  ## The servers that `make compare` compares with, in environments of their own (1.4 GB)
	$(BIN)/python -m loadtests.peers install $(ARGS)

compare: install-dev  ## Every server side by side: CPU, latency, memory, start (docs/performance.md)
	$(BIN)/python loadtests/compare.py $(ARGS)

soak: install  ## A million requests, 200 changes, 50 loads: does memory stay where it is? (8 minutes)
	$(BIN)/python loadtests/soak.py $(ARGS)

budget: install-dev  ## Instructions per request against loadtests/budget.yaml (needs valgrind)
	$(BIN)/python loadtests/budget.py $(ARGS)

clean:  ## Remove environments and caches
	rm -rf .venv .venv-clients .venv-feast .venv-foreign .venv-peers .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage .coverage.*
