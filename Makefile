# Try it: make demo. While you work: make quick, make fix. Before you push: make test. Each target installs what it needs.

VENV := .venv
PYTHON := $(VENV)/bin/python
SHELL := /bin/bash
# Python keeps what it has compiled. Otherwise each start of singfactory in a test takes 0.1 to 0.2 s longer.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test quick fix lint workflows types unit quick-unit integration engine fuzz bench requirements clean
# What two cores do at the same time; the output of each target is shown in one piece.
PARALLEL := $(MAKE) --no-print-directory --jobs 3 --output-sync=target

demo: $(VENV)/.ready
	$(PYTHON) scripts/demo

test:
	$(PARALLEL) $(VENV)/.ready engine
	$(PARALLEL) lint types
	$(MAKE) --no-print-directory unit integration

# Two minutes on two cores: all checks without an engine or a registry, except unit tests marked slow.
quick: $(VENV)/.ready
	$(PARALLEL) lint types quick-unit

quick-unit: $(VENV)/.ready
	scripts/in-memory $(PYTHON) -m pytest -q -n auto --dist worksteal -m "not slow" tests/unit tests/test_architecture.py

# Installs the engine, and then what tests need: both may use the system's package manager.
engine:
	scripts/install-apptainer >/dev/null && scripts/install-test-tools >/dev/null

# Formats the code and applies ruff's safe fixes.
fix: $(VENV)/.ready
	$(VENV)/bin/ruff check --fix --exit-zero --quiet
	$(VENV)/bin/ruff format
	$(VENV)/bin/ruff check

lint: $(VENV)/.ready workflows
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/shellcheck -x scripts/in-memory scripts/install-apptainer scripts/install-test-tools scripts/setup .ci/run
	$(VENV)/bin/singfactory lint

# Checks the GitHub workflow files: security (zizmor), published schemas, syntax and expressions (actionlint).
workflows: $(VENV)/.ready
	$(VENV)/bin/zizmor --quiet --offline --persona=pedantic .github
	$(VENV)/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(VENV)/bin/check-jsonschema --builtin-schema vendor.github-actions .github/actions/*/action.yml
	tools=$$(scripts/install-test-tools actionlint) && "$$tools/actionlint" .github/workflows/*.yml

types: $(VENV)/.ready
	$(VENV)/bin/mypy

# These tests pack images with mksquashfs. If the machine has none, the engine brings it.
unit: $(VENV)/.ready
	PATH="$$PATH:/usr/sbin:/sbin" command -v mksquashfs >/dev/null || scripts/install-apptainer >/dev/null
	scripts/in-memory $(PYTHON) -m pytest -n auto --dist worksteal tests/unit tests/test_architecture.py

# Uses a real engine and real registries; the scripts install what is missing. One worker per core. All tests of a file run
# in the same worker and share its engine, registry and fixtures. Attacks go first: one of their files takes longest.
integration: $(VENV)/.ready
	engine=$$(scripts/install-apptainer) && tools=$$(scripts/install-test-tools) && \
	  PATH="$$tools:$$PATH" SINGFACTORY_ENGINE="$$engine" \
	  scripts/in-memory $(PYTHON) -m pytest -n auto --dist loadfile --no-loadscope-reorder --durations=10 tests/attacks tests/integration

# Fuzzes the parsers of untrusted input for MINUTES. `make integration` includes one minute of it.
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

# Locks the packages of the workflows at their newest versions, with hashes. No index is written: pip uses its own.
LOCK := $(VENV)/bin/uv pip compile --quiet --upgrade --universal --python-version 3.10 --generate-hashes --no-build \
  --no-emit-index-url --custom-compile-command "make requirements"
requirements: $(VENV)/.ready
	$(LOCK) --extra factory pyproject.toml requirements/build.in -o requirements/factory.txt >/dev/null
	$(LOCK) requirements/audit.in -o requirements/audit.txt >/dev/null
	$(subst 3.10,3.11,$(filter-out --no-build,$(LOCK))) requirements/front-doors.in -o requirements/front-doors.txt >/dev/null

$(VENV)/.ready: pyproject.toml scripts/setup
	scripts/setup $(VENV)

clean:
	rm -rf $(VENV) .singfactory .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
