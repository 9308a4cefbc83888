# To try it: make demo. While you work: make quick, make fix. Before a change lands: make test. Each does its own set-up.

VENV := .venv
PYTHON := $(VENV)/bin/python
SHELL := /bin/bash

.PHONY: demo test quick fix lint workflows types unit integration fuzz bench requirements clean

demo: $(VENV)/.ready
	$(PYTHON) scripts/demo

test: lint types unit integration

# Under a minute on two cores: all checks that need no engine and no registry, without the unit tests marked slow.
quick: lint types
	$(PYTHON) -m pytest -q -n auto --dist worksteal -m "not slow" tests/unit tests/test_architecture.py

# Formats the code and makes the corrections that ruff calls safe.
fix: $(VENV)/.ready
	$(VENV)/bin/ruff check --fix --exit-zero --quiet
	$(VENV)/bin/ruff format
	$(VENV)/bin/ruff check

lint: $(VENV)/.ready workflows
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/shellcheck -x scripts/install-apptainer scripts/install-test-tools scripts/setup .ci/run
	$(VENV)/bin/singfactory lint

# GitHub's workflow files: their security, and their syntax and expressions.
workflows: $(VENV)/.ready
	$(VENV)/bin/zizmor --quiet --offline --persona=pedantic .github
	tools=$$(scripts/install-test-tools actionlint) && "$$tools/actionlint" .github/workflows/*.yml

types: $(VENV)/.ready
	$(VENV)/bin/mypy

# Images for these are packed by mksquashfs; it comes with the engine where the machine has none.
unit: $(VENV)/.ready
	PATH="$$PATH:/usr/sbin:/sbin" command -v mksquashfs >/dev/null || scripts/install-apptainer >/dev/null
	$(PYTHON) -m pytest -n auto --dist loadfile tests/unit tests/test_architecture.py

# Needs real parts: an engine, registries. The scripts install what is missing. One worker for each core; all tests of a
# file run in one worker, which shares the engine, the registry and what the file sets up.
integration: $(VENV)/.ready
	engine=$$(scripts/install-apptainer) && tools=$$(scripts/install-test-tools) && \
	  PATH="$$tools:$$PATH" SINGFACTORY_ENGINE="$$engine" \
	  $(PYTHON) -m pytest -n auto --dist loadfile --no-loadscope-reorder --durations=10 tests/integration tests/attacks

# What strangers send, for as long as there is time. `make integration` tries a minute of it.
TARGET ?= all
MINUTES ?= 10
fuzz: $(VENV)/.ready
	$(PYTHON) -c 'import atheris' 2>/dev/null || $(PYTHON) -m pip install --quiet --editable '.[fuzz]'
	$(PYTHON) -m tests.attacks.fuzzing.guided $(TARGET) --minutes $(MINUTES)

bench: $(VENV)/.ready
	engine=$$(scripts/install-apptainer) && tools=$$(scripts/install-test-tools) && \
	  for name in basics plan pull soak; do \
	    PATH="$$tools:$$PATH" SINGFACTORY_ENGINE="$$engine" $(PYTHON) -m "benchmarks.$$name" || exit 1; \
	  done

# Locks what workflows install, with hashes, at the newest versions. No index is named: pip asks the one it is set up for.
LOCK := $(VENV)/bin/uv pip compile --quiet --upgrade --universal --python-version 3.10 --generate-hashes --no-build \
  --no-emit-index-url --custom-compile-command "make requirements"
requirements: $(VENV)/.ready
	$(LOCK) --extra factory pyproject.toml requirements/build.in -o requirements/factory.txt >/dev/null
	$(LOCK) requirements/audit.in -o requirements/audit.txt >/dev/null

$(VENV)/.ready: pyproject.toml scripts/setup
	scripts/setup $(VENV)

clean:
	rm -rf $(VENV) .singfactory .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
