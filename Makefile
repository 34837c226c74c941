# `make run` and `make test` are all that a fresh machine with Python 3.11 needs;
# each sets up the virtual environment that it uses.

PYTHON ?= python3.11
ARGS ?=

RUN_ENV := .venv/run.stamp
DEV_ENV := .venv/dev.stamp
BIN := .venv/bin

# Tests start hundreds of processes, each of which would compile every module that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help run test check unit chaos package protos lock format bench bench-find bench-rooms load picture clean

help: ## Show what there is to make.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(RUN_ENV): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV_ENV): requirements-dev.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@ $(RUN_ENV)

run: $(RUN_ENV) ## Start the server, run an example request, show it live, go on serving (ARGS=--once: end).
	@$(BIN)/spincycle demo $(ARGS)

test: check unit ## Style, types, contracts and tests.

check: $(DEV_ENV) ## Style, types and contracts.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tools/protos.py check lint breaking

unit: $(DEV_ENV) ## The tests alone, but for chaos, in 4 processes: most of them wait (ARGS is for pytest).
	$(BIN)/python -m pytest tests/builtin_jobs $(ARGS)
	$(BIN)/python -m pytest -m "not chaos and not package" -n 4 --dist worksteal --ignore tests/builtin_jobs $(ARGS)

chaos: $(DEV_ENV) ## Kill, pause and restart everything for MINUTES=5 on each DB (or one: sqlite, mariadb, postgresql), by SEED.
	SPINCYCLE_CHAOS_MINUTES=$(or $(MINUTES),5) SPINCYCLE_CHAOS_SEED=$(SEED) SPINCYCLE_CHAOS_DATABASE=$(DB) \
		$(BIN)/python -m pytest tests/e2e/test_chaos.py -s

package: $(DEV_ENV) ## Build the wheel, install it in empty environments, and run its commands there.
	$(BIN)/python -m pytest -m package tests/test_package.py $(ARGS)

protos: $(DEV_ENV) ## Write the stubs anew from the .proto files.
	$(BIN)/python tools/protos.py generate

format: $(DEV_ENV) ## Format the code.
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	$(BIN)/buf format --write protos

lock: $(DEV_ENV) ## Pin the versions of all dependencies anew.
	$(BIN)/python tools/lock.py

bench: $(DEV_ENV) ## Measure the whole system on DB=mariadb, sqlite or postgresql (ARGS=--short: a part).
	$(BIN)/python -m bench.system --database $(or $(DB),mariadb) $(ARGS)

bench-find: $(DEV_ENV) ## Measure finds in tables of a thousand and of a million requests, on DB=mariadb.
	$(BIN)/python -m bench.find --database $(or $(DB),mariadb) $(ARGS)

bench-rooms: $(DEV_ENV) ## Measure single rooms: JSON codec, building, state machine.
	$(BIN)/python bench/wire.py
	$(BIN)/python bench/graph.py
	$(BIN)/python bench/chain.py

load: $(DEV_ENV) ## Offer twice the load that the servers carry for a minute, on DB=mariadb, sqlite or postgresql (ARGS=--short).
	$(BIN)/python -m bench.load --database $(or $(DB),mariadb) $(ARGS)

picture: $(DEV_ENV) ## Render docs/architecture.dot to docs/architecture.svg (needs Graphviz).
	$(BIN)/python tools/picture.py

clean: ## Remove what the other targets made.
	rm -rf .venv .build build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
