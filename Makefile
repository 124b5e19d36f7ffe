# Every verb sets up what it needs. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3.14 || command -v python3)
PIP := .venv/bin/python -m pip --disable-pip-version-check --quiet
UV := .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	--no-emit-index-url --no-emit-find-links

TORCH ?= torch==2.13.0

.PHONY: help serve demo demo-calendar demo-text test test-images check format bench soak conformance lock clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.venv/.default: requirements/default.txt pyproject.toml
	@echo "Setting up .venv (about 50 MB to fetch, once) ..." >&2
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Convene needs Python 3.11 or newer; set PYTHON=/path/to/it" >&2; exit 1; }
	@test -x .venv/bin/python || "$(PYTHON)" -m venv .venv
	@$(PIP) install --require-hashes --only-binary :all: -r requirements/default.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@.venv/bin/python -m compileall -q src
	@touch $@

.venv/.dev: .venv/.default requirements/dev.txt
	@echo "Adding the development tools to .venv ..." >&2
	@$(PIP) install --require-hashes --only-binary :all: -r requirements/dev.txt
	@touch $@

serve: .venv/.default ## Serve on port 8000 (PORT=...) with a real embedded model; prints a key and a curl line
	@exec .venv/bin/convene serve

.venv-demo/.ready: requirements/conformance-uagents.txt
	@echo "Setting up .venv-demo with uagents for the agents (150 MB on disk, once) ..." >&2
	@"$(PYTHON)" -m venv .venv-demo
	@.venv-demo/bin/python -m pip --disable-pip-version-check --quiet install \
		--require-hashes --only-binary :all: -r requirements/conformance-uagents.txt
	@touch $@

demo: .venv/.default .venv-demo/.ready ## A marketplace in a minute: three agents, one question (UPSTREAM=URL UPSTREAM_MODEL=NAME: a better model)
	@exec .venv/bin/python examples/agents/demo.py --agents-python .venv-demo/bin/python \
		--upstream "$(UPSTREAM)" --upstream-model "$(UPSTREAM_MODEL)"

.venv-a2a/.ready .venv-mcp/.ready: .venv-%/.ready: requirements/conformance-%.txt
	@echo "Setting up .venv-$* for an example (once) ..." >&2
	@"$(PYTHON)" -m venv .venv-$*
	@.venv-$*/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes --only-binary :all: -r $<
	@touch $@

demo-calendar: .venv-a2a/.ready ## An A2A agent on port 8104 (AGENT_PORT=...), to be added to a server
	@exec .venv-a2a/bin/python examples/agents/calendar_a2a.py --port $(or $(AGENT_PORT),8104)

demo-text: .venv-mcp/.ready ## An MCP server on port 8105 (AGENT_PORT=...), to be added to a server
	@exec .venv-mcp/bin/python examples/agents/text_mcp.py --port $(or $(AGENT_PORT),8105)

.venv-images/.ready: requirements/images.txt Makefile
	@echo "Setting up .venv-images with $(TORCH) for the processor (1.3 GB on disk, once) ..." >&2
	@"$(PYTHON)" -m venv .venv-images
	@.venv-images/bin/python tests/images/at_hand.py "$(TORCH)"
	@.venv-images/bin/python -m pip --disable-pip-version-check --quiet install "$(TORCH)"
	@.venv-images/bin/python -m pip --disable-pip-version-check --quiet install \
		--require-hashes --only-binary :all: -r requirements/images.txt
	@touch $@

test: .venv/.dev ## Run all tests
	@.venv/bin/python -m compileall -q src # the tests start some hundred programs; PYTHONDONTWRITEBYTECODE costs each 1 s
	@.venv/bin/python tests/run_all.py

test-images: .venv/.dev .venv-images/.ready ## Run the tests of local pictures with torch and diffusers in .venv-images
	@CONVENE_TEST_IMAGES_PYTHON="$(CURDIR)/.venv-images/bin/python" .venv/bin/python -m pytest tests/images

check: .venv/.dev ## Format, lint, types, import layers, rules of the house
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/python -m pytest -q tests/repo

format: .venv/.dev ## Format and mend what the linter can
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

bench: .venv/.dev ## Measure speed as ratios to yardsticks (nginx, wrk; says what is missing)
	@.venv/bin/python bench/run.py

soak: .venv/.dev ## The long runs: a race for limits, hundreds of kill -9, 50,000 requests with aborts (an hour; SOAK_URL=postgresql://...)
	@.venv/bin/python tests/process/limit_race.py --url "$(or $(SOAK_URL),sqlite)"
	@CONVENE_TEST_KILLS=300 .venv/bin/python -m pytest -q tests/process/test_ledger_kill.py
	@CONVENE_TEST_RUN_KILLS=300 .venv/bin/python -m pytest -q tests/process/test_run_store_kill.py
	@CONVENE_SOAK_CREDENTIALS=500000 CONVENE_SOAK_WALK=34000 .venv/bin/python -m pytest -q \
		tests/api/test_credential_fuzz.py tests/api/test_account_walks.py
	@CONVENE_SOAK_HOSTILE=10000 .venv/bin/python -m pytest -q tests/unit/serving/test_hostile_model.py
	@.venv/bin/python tests/process/run_kill.py --kills 200
	@.venv/bin/python tests/process/run_kill.py --kills 90 --kills-per-run 3
	@.venv/bin/python tests/process/run_kill.py --kills 10 --workers 2
	@.venv/bin/python tests/process/books_soak.py --requests 50000 --kills 200
	@.venv/bin/python tests/process/books_soak.py --requests 5000 --kills 50 --workers 2

conformance: .venv/.default ## Run other people's test suites against a server (see docs/conformance.md)
	@.venv/bin/python tests/conformance/run.py

lock: .venv/.dev ## Write the hash-pinned requirements anew
	$(UV) pyproject.toml requirements/build.in -o requirements/default.txt
	$(UV) --extra postgres --extra redis pyproject.toml requirements/build.in requirements/dev.in -c requirements/default.txt -o requirements/dev.txt
	$(UV) requirements/images.in -c requirements/default.txt -o requirements/images.txt

clean: ## Remove what was built
	rm -rf .venv .venv-demo .venv-a2a .venv-mcp .venv-images .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist out
