# Every target installs what it needs. `make help` lists the targets.
# PYTHON is the first candidate that runs, is new enough and has venv; a name on the PATH may be a shim without a program.
NEW_ENOUGH := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
CANDIDATES := python3.13 python3.12 python3.11 python3
PYTHON = $(shell for name in $(CANDIDATES); do $$name -c '$(NEW_ENOUGH)' >/dev/null 2>&1 && echo $$name && break; done)
VENV := .venv
RUN := $(VENV)/bin/python
# more processes than cores, since tests mostly wait; JOBS=0 runs all tests in one process
JOBS ?= 6
# a recipe reads it from its environment, never as program text
export MODEL
# compiled tests are kept even where the environment asks for none, since every process needs them
PYTEST = PYTHONDONTWRITEBYTECODE= $(RUN) -m pytest -n $(JOBS)

.PHONY: help demo stt openvino engine engine-test test test-fast test-faults test-containers fuzz soak mutate run services up down migrate lint bench bench-engines bench-scale bench-compare screenshots docs venv format sbom

help: ## show this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.run ## transcribe the sample recordings in one process tree and print the text
	@$(RUN) -m internal.cli demo

stt: $(VENV)/.run ## make the command line, .venv/bin/stt, and print how to call it
	@bash deploy/make-launcher.sh $(VENV)

run: $(VENV)/.run ## run the embedded service in the foreground on http://127.0.0.1:8000 (MODEL=small installs that model first and uses it)
ifdef MODEL
	@name=$$($(RUN) -m internal.cli models pull "$$MODEL") && DEFAULT_MODEL="$$name" exec $(RUN) cmd/embedded/main.py
else
	@$(RUN) cmd/embedded/main.py
endif

openvino: $(VENV)/.run ## install the OpenVINO engine (70 MB to download), 3 to 4 times as fast as the wheel
	@$(RUN) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-openvino.lock

engine: openvino ## build whisper.cpp for this machine's instruction set, up to 3 times as fast as the wheel; needs g++
	@$(RUN) -m deploy.engine.build

engine-test: $(VENV)/.dev ## run `make engine` in an environment of its own, and the tests of its result
	@ENGINE_BUILD=1 $(RUN) -m pytest tests/integration/test_engine_build.py

test: $(VENV)/.dev ## run all tests, with real PostgreSQL, RabbitMQ and MinIO, and in containers (JOBS=6 processes)
	@bash deploy/install-test-tools.sh
	@bash deploy/install-container-tools.sh
	@bash deploy/install-deploy-tools.sh
	@$(MAKE) --no-print-directory .venv-sbom/.installed
	@$(PYTEST)

test-fast: $(VENV)/.dev ## run the tests that need no server
	@$(PYTEST) -m "not servers"

test-faults: $(VENV)/.dev ## run the tests of tests/faults/README.md on real servers; part of `make test`
	@bash deploy/install-test-tools.sh
	@$(PYTEST) tests/faults

test-containers: $(VENV)/.dev ## run the compose file in a Docker engine of the tests' own; part of `make test`
	@bash deploy/install-test-tools.sh
	@bash deploy/install-container-tools.sh
	@$(RUN) -m pytest tests/containers

fuzz: $(VENV)/.dev ## fuzz the service with schemathesis and its own OpenAPI schema (EXAMPLES=200)
	@FUZZ_EXAMPLES=$(or $(EXAMPLES),200) $(RUN) -m pytest tests/clients/test_schema.py

soak: $(VENV)/.dev ## run mixed jobs for 15 minutes with a fault every 20 s (MINUTES=15)
	@bash deploy/install-test-tools.sh
	@$(RUN) -m tests.soak $(MINUTES)

mutate: $(VENV)/.dev ## run the tests on mutants of a module (MODULE=worker/merger.py TESTS="tests/unit/test_merger.py" SAMPLE=100)
	@$(RUN) -m tests.mutation "$(MODULE)" --tests "$(TESTS)" --sample $(or $(SAMPLE),0) --processes $(or $(PROCESSES),1)

services: $(VENV)/.dev ## run PostgreSQL, RabbitMQ and MinIO for development in the foreground
	@bash deploy/install-test-tools.sh
	@$(RUN) -m tests.servers

migrate: $(VENV)/.run ## create or upgrade the schema of DATABASE_URL
	@$(RUN) -m internal.cli migrate

lint: $(VENV)/.dev ## run ruff, mypy (strict) and import-linter
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports

format: $(VENV)/.dev ## format the code and fix what ruff can
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

bench: $(VENV)/.dev ## run the benchmarks and print their table
	@bash deploy/install-test-tools.sh
	@$(RUN) -m tests.benchmarks

bench-engines: $(VENV)/.dev .venv-bench/.installed ## measure all engines and their peers (SHAPES="base small" MINUTES=3 REPEATS=1 ROWS="…")
	@$(RUN) -m tests.benchmarks.engines

bench-scale: $(VENV)/.dev ## measure a service with 1,000,000 ended and 100,000 waiting jobs, and write docs/scale.md
	@bash deploy/install-test-tools.sh
	@$(RUN) -m tests.benchmarks.scale

bench-compare: $(VENV)/.dev ## run benchmarks on this tree and on BASE=<revision>, and print ratios (BENCHMARKS="pipeline" ROUNDS=3)
	@$(RUN) -m tests.benchmarks.compare "$(BASE)" $(or $(BENCHMARKS),pipeline) --rounds $(or $(ROUNDS),3)

screenshots: $(VENV)/.dev ## take the screenshots of README.md anew
	@bash deploy/install-test-tools.sh
	@SCREENSHOTS=1 $(RUN) -m pytest tests/browser/test_screenshots.py

docs: $(VENV)/.dev ## generate docs/configuration.md, docs/metrics.md, config.example.yaml, deploy/grafana and the reference of docs/cli.md
	@$(RUN) -m tests.documents.configuration
	@$(RUN) -m tests.documents.commands

up: ## start everything in containers, published on loopback (COMPOSE_PROFILES=monitoring,tls adds Prometheus and HTTPS)
	@bash deploy/make-env.sh
	docker compose -f deploy/compose.yaml up --build --detach --wait
	@bash deploy/show-urls.sh

down: ## stop the containers and keep their data
	docker compose -f deploy/compose.yaml --profile '*' down

sbom: .venv-sbom/.installed ## list the packages of the image with their checksums in dist/sbom.cdx.json (CycloneDX)
	@mkdir -p dist
	@PYTHONWARNINGS=ignore .venv-sbom/bin/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible \
		--output-file dist/sbom.cdx.json requirements-openvino.lock

venv: $(VENV)/.dev

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with venv is needed: apt-get install python3 python3-venv"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

# an environment for the tests has all packages of .run as well
$(VENV)/.run: requirements.lock | $(VENV)/bin/python
	@test -e $(VENV)/.dev || $(RUN) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml | $(VENV)/bin/python
	@$(RUN) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# the peers of `make bench-engines`, kept apart from the packages of the service
.venv-bench/.installed: requirements-bench.lock | $(VENV)/bin/python
	@$(RUN) -m venv .venv-bench
	@.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bench.lock
	@touch $@

# the tool of `make sbom`, kept apart from the packages that it lists
.venv-sbom/.installed: requirements-sbom.lock | $(VENV)/bin/python
	@$(RUN) -m venv .venv-sbom
	@.venv-sbom/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-sbom.lock
	@touch $@
