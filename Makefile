PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
# Pins and hashes, no addresses: where packages come from is the machine's own setting.
COMPILE := uv pip compile --quiet --universal --upgrade --generate-hashes --no-header --no-annotate \
	--no-emit-index-url --no-emit-find-links --python-version 3.11 pyproject.toml

.DEFAULT_GOAL := help
.PHONY: help run run-rabbitmq test screenshots compat faults fuzz abuse bench lint types dist lock clean-data clean

help:  ## List the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-14s %s\n", $$1, $$2 }'

run: $(VENV)/run  ## Run both services, with SQLite files under .data/ and no broker
	@PATH="$(CURDIR)/$(BIN):$$PATH" honcho start

run-rabbitmq: $(VENV)/run  ## The same with RabbitMQ: the one that AMQP_URL names, or a private node
	@sh scripts/install-servers.sh rabbitmq-server
	@PATH="$(CURDIR)/$(BIN):$$PATH" python -m scripts.rabbitmq honcho start

# In the order of the folders: the unit tests come last, so that no worker is left with long ones.
test: $(VENV)/dev  ## Install what the tests need, and run them
	@sh scripts/install-servers.sh rabbitmq-server postgresql pgbouncer chromium nodejs
	@$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(TESTS)

screenshots: $(VENV)/dev  ## Take the README's pictures of the page anew, into docs/
	@sh scripts/install-servers.sh chromium fonts-inter
	@SCREENSHOTS=docs $(BIN)/python -m pytest tests/browser/test_screenshots.py

compat:  ## Run the tests in a tree of another Debian, as root: SUITE=trixie TESTS=tests/unit
	@SUITE=$(SUITE) TESTS="$(TESTS)" sh scripts/compat.sh

faults: $(VENV)/dev  ## Break the whole bank at random for a while, and check it: SEED=1 MINUTES=15
	@sh scripts/install-servers.sh rabbitmq-server postgresql
	@$(BIN)/python -m tests.faults $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES))

fuzz: $(VENV)/dev  ## Send the services what nobody should send them: SEED=1 MINUTES=5
	@sh scripts/install-servers.sh rabbitmq-server
	@$(BIN)/python -m tests.fuzz $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES))

abuse: $(VENV)/dev  ## Abuse a service in every way we know, and print what that costs it: a few minutes
	@$(BIN)/python -m tests.abuse

bench: $(VENV)/dev  ## Measure every path against its peers: QUICK=1 for some four minutes
	@sh scripts/install-servers.sh rabbitmq-server postgresql wrk
	@$(BIN)/python -m benchmarks $(if $(QUICK),--quick)

lint: $(VENV)/dev  ## Check style and format
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .

types: $(VENV)/dev  ## Check types
	@$(BIN)/mypy --no-error-summary

dist: $(VENV)/dev  ## Build a wheel and a single-file executable in dist/
	@rm -rf dist build
	@$(PIP) wheel --no-deps --no-build-isolation --wheel-dir dist .
	@$(PIP) install --require-hashes --target build/site -r requirements.txt
	@$(PIP) install --no-deps --no-compile --target build/site dist/*.whl
	@$(BIN)/shiv --reproducible --compressed --entry-point counting_house:main \
		--site-packages build/site --output-file dist/counting-house.pyz
	@ls dist

lock: $(VENV)/dev  ## Pin the newest versions that pyproject.toml allows
	@$(BIN)/$(COMPILE) --extra run --output-file requirements.txt
	@$(BIN)/$(COMPILE) --extra run --extra dev --constraint requirements.txt --output-file requirements-dev.txt

clean-data: $(VENV)/run  ## Remove .data/, the event log included, after asking; not while a service runs
	@$(BIN)/python -m scripts.clean_data

clean:  ## Remove what was built, but no data
	@rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

# The stamps in the virtual environment tell which of the locked sets it holds.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'Python 3.11 or later is needed: set PYTHON, as in: make run PYTHON=python3.12' >&2; exit 1; }
	@echo 'Creating $(VENV)'
	@$(PYTHON) -m venv $(VENV) || { echo 'On Debian and Ubuntu: apt install python3-venv' >&2; exit 1; }

$(VENV)/run: requirements.txt | $(VENV)/bin/python
	@echo 'Installing $<'
	@$(PIP) install --require-hashes -r $<
	@touch $@

$(VENV)/dev: requirements-dev.txt | $(VENV)/bin/python
	@echo 'Installing $<'
	@$(PIP) install --require-hashes -r $<
	@touch $@
