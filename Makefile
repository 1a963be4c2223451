PYTHON ?= python3
BIN := .venv/bin
INSTALL = $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt
BUILD_INPUTS := pyproject.toml constraints.txt $(wildcard hatch_build.py $(addsuffix /*.proto, \
	$(addprefix client/digit_client/tfserving/protos/, */*/* */*)))
CHECK_PYTHON = $(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	echo "TensorFlow needs Python 3.11, 3.12 or 3.13; name one that you have: make PYTHON=python3.13 …" >&2; exit 1; }

.PHONY: run test test-slow test-containers test-all test-newest check fuzz format docs bench lock clean

run: .venv/installed
	@$(BIN)/digits train --if-needed
	@$(BIN)/digits up

# Two processes: each imports TensorFlow, which takes a gigabyte.
PYTEST = $(BIN)/pytest --numprocesses=2 --dist=loadgroup

test: .venv/installed-dev
	$(PYTEST)

test-slow: .venv/installed-dev
	$(PYTEST) -m "(e2e or slow) and not containers"

test-all: test test-slow test-containers

# Newest release of every dependency in place of constraints.txt; of Flask and Werkzeug also pre-releases.
test-newest: NEWEST := .venv-newest/bin
test-newest:
	@$(CHECK_PYTHON)
	@$(PYTHON) -m venv .venv-newest
	@$(NEWEST)/pip install --quiet --disable-pip-version-check --upgrade uv
	@$(NEWEST)/uv pip install --quiet --compile-bytecode --upgrade --python $(NEWEST)/python \
		--editable '.[dev]' 'flask>=3.1rc0' 'werkzeug>=3.1rc0'
	@touch .venv-newest/installed
	$(NEWEST)/pytest

test-containers: .venv/installed-dev
	$(BIN)/pytest -m containers

check: .venv/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/zizmor --quiet --offline --no-progress .github
	@if command -v actionlint >/dev/null; then actionlint; else echo "actionlint is not installed: skipped"; fi

# Duration of each fuzz target.
SECONDS ?= 60
fuzz: .venv/installed-dev
	$(BIN)/python -m tests.fuzz $(SECONDS)

format: .venv/installed-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# The site, in site/. Material prints an advertisement of its successor without the variable.
docs: export NO_MKDOCS_2_WARNING = 1
docs: .venv/installed-dev
	$(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html; with search: $(BIN)/python -m http.server --directory site"

bench: .venv/installed-dev
	@$(BIN)/digits train --if-needed
	@$(BIN)/python benchmarks/startup.py
	@$(BIN)/python -m benchmarks.throughput

lock: .venv/installed-dev
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --upgrade --extra dev --extra score-cluster \
		--no-emit-index-url --no-annotate --no-header --output-file constraints.txt pyproject.toml

clean:
	rm -rf .venv .venv-newest build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage

.venv/installed: $(BUILD_INPUTS)
	@$(CHECK_PYTHON)
	@echo "Setting up .venv, once ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	@$(INSTALL) --editable '.[gateway,model-server,training]'
	@touch $@

.venv/installed-dev: .venv/installed
	@echo "Adding the developers' tools, once ..."
	@$(INSTALL) --editable '.[dev]'
	@touch $@
