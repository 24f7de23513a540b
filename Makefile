# Every target sets up what it needs. `make help` lists them.
# the first that runs, is new enough and can make an environment (a name on the PATH may be an empty shim)
NEW_ENOUGH := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
CANDIDATES := python3.13 python3.12 python3.11 python3
PYTHON = $(shell for name in $(CANDIDATES); do $$name -c '$(NEW_ENOUGH)' >/dev/null 2>&1 && echo $$name && break; done)
VENV := .venv
RUN := $(VENV)/bin/python
# tests mostly wait, so there are more workers than cores; JOBS=0 runs them one after another
JOBS ?= 6
PYTEST = $(RUN) -m pytest -n $(JOBS)

.PHONY: help demo test test-fast test-faults fuzz soak mutate run services up down migrate lint bench venv format

help: ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.run ## transcribe the sample recordings, in one process tree, and show the words
	@$(RUN) -m internal.cli.demo

run: $(VENV)/.run ## the embedded service in the foreground, http://127.0.0.1:8000
	@$(RUN) cmd/embedded/main.py

test: $(VENV)/.dev ## everything, with real PostgreSQL, RabbitMQ and MinIO (JOBS=6 at a time)
	@bash deploy/install-test-tools.sh
	@$(PYTEST)

test-fast: $(VENV)/.dev ## what needs no server
	@$(PYTEST) -m "not servers"

test-faults: $(VENV)/.dev ## every fault of tests/faults/README.md, on the real servers; part of `make test`
	@bash deploy/install-test-tools.sh
	@$(PYTEST) tests/faults

fuzz: $(VENV)/.dev ## the long run of schemathesis against the service's own OpenAPI page (EXAMPLES=200)
	@FUZZ_EXAMPLES=$(or $(EXAMPLES),200) $(RUN) -m pytest tests/clients/test_schema.py

soak: $(VENV)/.dev ## 15 minutes of mixed jobs, something killed every 20 s (MINUTES=15)
	@bash deploy/install-test-tools.sh
	@$(RUN) -m tests.soak $(MINUTES)

mutate: $(VENV)/.dev ## try the tests on a module's mutants (MODULE=worker/merger.py TESTS="tests/unit/test_merger.py" SAMPLE=100)
	@$(RUN) -m tests.mutation "$(MODULE)" --tests "$(TESTS)" --sample $(or $(SAMPLE),0) --processes $(or $(PROCESSES),1)

services: $(VENV)/.dev ## real PostgreSQL, RabbitMQ and MinIO for development, in the foreground
	@bash deploy/install-test-tools.sh
	@$(RUN) -m tests.servers

migrate: $(VENV)/.run ## bring the database named by DATABASE_URL to the newest schema
	@$(RUN) -m internal.cli.main migrate

lint: $(VENV)/.dev ## ruff, mypy strict, import-linter
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports

format: $(VENV)/.dev
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

bench: $(VENV)/.dev ## the benchmark table
	@bash deploy/install-test-tools.sh
	@$(RUN) -m tests.benchmarks

up: ## everything in containers, published on loopback
	@bash deploy/make-env.sh
	docker compose -f deploy/compose.yaml up --build --detach --wait
	@bash deploy/show-urls.sh

down: ## stop the containers, keep their data
	docker compose -f deploy/compose.yaml down

venv: $(VENV)/.dev

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with venv is needed: apt-get install python3 python3-venv"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

# an environment that has what the tests need can also run
$(VENV)/.run: requirements.lock | $(VENV)/bin/python
	@test -e $(VENV)/.dev || $(RUN) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml | $(VENV)/bin/python
	@$(RUN) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
