# make demo: from a fresh checkout to a report.   make test: the test suite.   make docs: docs/_build/html.   All set everything up first.
# make bench: every method in the quick benchmark, to see that all work.   make quick: the tests that take seconds.   make hostile: kills, damaged and hostile files, about 25 minutes.   make coverage: the test suite, and how much of the program it runs.
# uv and uv.lock are used where uv is on PATH; make UV= ... installs with pip and constraints.txt, as happens without uv.
PYTHON ?= python3
UV ?= $(shell command -v uv 2>/dev/null)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO ?= demo
BENCH ?= bench
# The tests are checked less strictly than the program, with a cache of their own.
TYPES_OF_TESTS := --cache-dir .mypy_cache/tests --implicit-reexport --no-warn-return-any \
  --allow-untyped-defs --allow-incomplete-defs --allow-untyped-calls --allow-any-generics

.PHONY: demo bench test quick hostile coverage lint docs setup clean
demo: $(STAMP)
	$(BIN)/anofield demo -o $(DEMO) $(ARGS)

bench: $(STAMP)
	$(BIN)/anofield benchmark -o $(BENCH) --suite straight --quick $(ARGS)

# Threads of torch and BLAS spin: with a test on every core, more of them are slower.
test quick hostile coverage: export OMP_NUM_THREADS ?= 1

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 $(ARGS)

quick: $(STAMP)
	$(BIN)/python -m pytest -n 2 -m "not slow and not browser and not kill" $(ARGS)

hostile: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m hostile tests/hostile $(ARGS)

coverage: $(STAMP)
	$(BIN)/python -m pytest -n 2 --cov $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy $(TYPES_OF_TESTS) tests
	$(BIN)/lint-imports

docs: $(STAMP)
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

setup: $(STAMP)

ifneq ($(UV),)
$(STAMP): pyproject.toml uv.lock
	$(UV) sync --frozen --all-groups --extra cluster --extra baselines $(if $(filter file,$(origin PYTHON)),,--python $(PYTHON))
	touch $(STAMP)
else
# Debian and Ubuntu keep venv in a package of its own; it is installed if it is missing and the user may.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "installing python3-venv"; SUDO=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	  $$SUDO apt-get update -qq && $$SUDO apt-get install -y -qq python3-venv; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt pip
	$(BIN)/python -m pip install --quiet -c constraints.txt --group dev -e '.[cluster,baselines]'
	touch $(STAMP)
endif

clean:
	rm -rf $(VENV) demo build dist docs/_build
