PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test test-containers check fuzz format docs bench lock clean

run: .venv/installed
	@$(BIN)/digits train --if-needed
	@$(BIN)/digits up

test: .venv/installed
	$(BIN)/pytest

test-containers: .venv/installed
	$(BIN)/pytest -m containers

check: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# So long for each of the targets.
SECONDS ?= 60
fuzz: .venv/installed
	$(BIN)/python -m tests.fuzz $(SECONDS)

format: .venv/installed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: .venv/installed
	$(BIN)/python -m docs.reference

bench: .venv/installed
	@$(BIN)/digits train --if-needed
	@$(BIN)/python benchmarks/startup.py
	@$(BIN)/python -m benchmarks.throughput

lock: .venv/installed
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --upgrade --extra dev \
		--no-emit-index-url --no-annotate --no-header --output-file constraints.txt pyproject.toml

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage

.venv/installed: pyproject.toml constraints.txt
	@echo "Setting up .venv, once ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	@touch $@
