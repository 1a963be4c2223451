SHELL := bash
.SHELLFLAGS := -o pipefail -ec
# Python 3.13 where it is installed with pip: a request costs a tenth less than on 3.11.
PYTHON ?= $(firstword $(shell for python in python3.13 python3.12 python3.11; do \
	$$python -c 'import ensurepip' 2>/dev/null && echo $$python && break; done) python3)
BIN := .venv/bin
INSTALL = $(BIN)/uv pip install --compile-bytecode --python $(BIN)/python
# The lines of an installation that tell its progress, without the list of packages at its end.
PROGRESS = 2>&1 | awk '!/^( [+~-]|Using|Resolved|Audited)/ { print; fflush() }'
# Every package must be in constraints.txt, and have one of its hashes there.
LOCKED = --constraint constraints.txt --require-hashes --requirements pyproject.toml $(CPU)
# TensorFlow without code for NVIDIA's GPUs, half of the download, where there is none of them.
CPU := $(if $(shell command -v nvidia-smi),,--extra cpu --overrides cpu-overrides.txt)
DOWNLOAD = $(if $(CPU),0.47 GB of )packages
BUILD_INPUTS := pyproject.toml constraints.txt cpu-overrides.txt $(wildcard hatch_build.py $(addsuffix /*.proto, \
	$(addprefix client/digit_core/tfserving/protos/, */*/* */*)))
CHECK_PYTHON = $(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	echo "TensorFlow needs Python 3.11, 3.12 or 3.13; name one that you have: make PYTHON=python3.13 …" >&2; exit 1; }

.PHONY: run test test-slow test-containers test-long test-all test-original test-newest check fuzz mutants format manifests docs bench
.PHONY: pictures lock audit dist clean free-ports

run: free-ports .venv/installed
	@$(BIN)/digits up

# Before anything is downloaded.
free-ports:
	@$(CHECK_PYTHON)
	@PYTHONPATH=serving $(PYTHON) -m digit_serving.ports

# Three processes: many tests wait. Each imports TensorFlow, which takes a gigabyte.
PYTEST = $(BIN)/pytest --numprocesses=3 --dist=loadgroup --no-loadscope-reorder

test: .venv/installed-dev
	$(PYTEST)

test-slow: .venv/installed-chart
	$(PYTEST) --durations=20 -m "(e2e or slow) and not containers"

# A fit of the shipped classifier by its command, for half an hour on two cores.
test-long: .venv/installed-dev
	$(BIN)/pytest -m long

test-all: test test-slow test-containers test-long

# Tests that hold for TensorFlow Serving too, with its binary in place of the drop-in.
ifdef TENSORFLOW_MODEL_SERVER
test-original: export TENSORFLOW_MODEL_SERVER := $(abspath $(TENSORFLOW_MODEL_SERVER))
test-original: .venv/installed-dev
	@$(TENSORFLOW_MODEL_SERVER) --version
	$(PYTEST) -m original
else
test-original:
	@echo "Skipped: name a binary, make test-original TENSORFLOW_MODEL_SERVER=/path/to/tensorflow_model_server"
endif

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

# Two processes: the tests of Compose take longer than all others together.
test-containers: .venv/installed-chart
	$(PYTEST) --numprocesses=2 -m containers

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

# Changes of a module that no quick test notices: make mutants MODULE=client/digit_core/feedback/votes.py
mutants: export PATH := $(abspath $(BIN)):$(PATH)
mutants: .venv/installed-dev
	$(BIN)/python -m tests.mutants $(MODULE)

format: .venv/installed-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# The objects of k8s/overlays, from the chart.
manifests: .venv/installed-chart
	$(BIN)/python k8s/render.py

# The site, in site/. Material prints an advertisement of its successor without the variable.
docs: export NO_MKDOCS_2_WARNING = 1
docs: .venv/installed-dev
	$(BIN)/python -m mkdocs build --strict --quiet
	@echo "site/index.html; with search: $(BIN)/python -m http.server --directory site"

# The pictures of the page and of the tutorial, with `make run` in another shell, after the tutorial's `digits train`.
pictures: .venv/installed-dev
	$(BIN)/python -m docs.pictures

bench: .venv/installed-dev
	@$(BIN)/digits train --if-needed
	@$(BIN)/python -m benchmarks.throughput

# `make lock UPGRADE=` keeps the versions, and adds those of new dependencies.
UPGRADE ?= --upgrade
lock: .venv/bin/uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 $(UPGRADE) --extra dev --extra cpu --extra gpu \
		--extra chart --extra ray --generate-hashes --no-emit-index-url --no-annotate --no-header \
		--output-file constraints.txt pyproject.toml

# Known vulnerabilities of the packages in constraints.txt; a package that can't be looked up is an error too.
audit: .venv/installed-dev
	$(BIN)/pip-audit --strict --disable-pip --require-hashes --requirement constraints.txt

# The same packages with their hashes as a bill of materials: CycloneDX.
build/sbom.cdx.json: constraints.txt .venv/installed-dev
	@mkdir -p build
	$(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --output-file $@ constraints.txt

dist: .venv/bin/uv
	$(BIN)/uv build --build-constraint constraints.txt --require-hashes

clean:
	rm -rf .venv .venv-newest build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage

.venv/bin/uv:
	@$(CHECK_PYTHON)
	@$(PYTHON) -c 'import sys; print("Setting up .venv with Python", sys.version.split()[0], "...")'
	@$(PYTHON) -m venv .venv
	@sed -n '/^uv==/,/[^\]$$/p' constraints.txt | \
		$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement /dev/stdin

.venv/installed: $(BUILD_INPUTS) | .venv/bin/uv
	@echo "Downloading $(DOWNLOAD), half a minute on a fast network ..."
	@$(INSTALL) $(LOCKED) --extra serve $(PROGRESS)
	@$(INSTALL) --build-constraint constraints.txt --no-deps --editable . $(PROGRESS)
	@touch $@

.venv/installed-dev: .venv/installed
	@echo "Adding the developers' tools, once ..."
	@$(INSTALL) $(LOCKED) --extra dev $(PROGRESS)
	@touch $@

.venv/installed-chart: .venv/installed-dev
	@echo "Adding Helm's engine, once ..."
	@$(INSTALL) $(LOCKED) --extra chart $(PROGRESS)
	@touch $@
