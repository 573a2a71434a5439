# Candelabra. `make` alone lists what there is.
.DEFAULT_GOAL := help
.PHONY: help setup setup-lint setup-clients setup-bench demo up test test-all test-times test-fast mutants soak lint proto bench lock clean

PY := .venv/bin/python
# Tests wait about as much as they work: two processes for each core, at most eight.
WORKERS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); \
  [ $$n -gt 4 ] && echo 8 || echo $$((2 * n)))
SOAK_WORKERS ?= 2
LOCK_PYTHON := 3.11
BENCH_PYTHON ?= python3.13
export PYTHONPATH := .
export DO_NOT_TRACK := 1

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' Makefile | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: ## make the environment (.venv) from requirements.txt; seconds when nothing changed
	@sh deploy/setup.sh .venv requirements.txt serving/page.txt

setup-lint:
	@sh deploy/setup.sh .venv-lint requirements-lint.txt

setup-clients:
	@sh deploy/setup.sh .venv-clients requirements-clients.txt

setup-bench:  # cryptofeed needs Python 3.13 (BENCH_PYTHON=…); without one the benchmark goes without it
	@if $(BENCH_PYTHON) -c '' >/dev/null 2>&1; then \
	  PYTHON=$(BENCH_PYTHON) sh deploy/setup.sh .venv-bench requirements-bench.txt; \
	else echo "no Python 3.13: benchmarks run without cryptofeed"; fi

demo: setup ## everything on this machine, offline: exchange, database, streamer, Airflow. ONCE=1 ends after its checks
	@$(PY) -m cli demo $(if $(ONCE),--once)

up: setup ## the same against the real exchange
	@$(PY) -m cli up

test: setup setup-lint ## lint, types, import rules and the tests of every room
	@$(PY) -m tests.run --workers $(WORKERS)

test-all: test setup-clients setup-bench ## the long tests too: client libraries, chaos, months of history, browser, containers
	@$(PY) -m tests.run --workers $(WORKERS) --long

test-times: setup ## write tests/slowest.tsv anew, the budget of make test
	@$(PY) -m tests.run --workers $(WORKERS) --update

test-fast: setup ## unit tests alone
	@$(PY) -m pytest -q -n $(WORKERS) tests/unit

mutants: setup ## plant defects in a copy of the code; each must turn a test of make test red
	@nice -n 5 $(PY) -m tests.mutants

soak: setup ## a year of history through Airflow, 200 runs of chaos, held to the exchange; SEED=N begins with another
	@HISTORY_MONTHS=12 $(PY) -m pytest -q tests/dags/processes/test_months_of_history.py
	@mkdir -p .candelabra
	@$(PY) -m tests.chaos --seed $(or $(SEED),1) --count 200 --workers $(SOAK_WORKERS) \
	  --minutes 120 --speed 300 --resume .candelabra/soak

lint: setup setup-lint ## ruff, mypy, import-linter, sqlfluff
	@.venv-lint/bin/python -m ruff check .
	@.venv-lint/bin/python -m ruff format --check .
	@.venv-lint/bin/python -m mypy --python-executable $(PY)
	@.venv-lint/bin/python -c 'from importlinter.cli import lint_imports_command as run; run()' --no-cache
	@sh deploy/make_proto.sh .venv-lint/bin/python .venv-lint/generated && \
	  diff -r .venv-lint/generated serving/protobuf/generated -x __pycache__ || \
	  { echo "the code of the .proto files is old: make proto" >&2; exit 1; }
	@.venv-lint/bin/python -m sqlfluff lint -q --disable-progress-bar dbt_project/models dbt_project/tests

proto: setup-lint ## Python of the .proto files
	@sh deploy/make_proto.sh .venv-lint/bin/python serving/protobuf/generated

bench: setup setup-bench setup-clients ## the benchmarks; prints ratios
	@$(PY) -m benchmarks

lock: setup ## compile the .in files into locked .txt files
	@for name in requirements requirements-lint requirements-clients requirements-bench streamer/requirements \
    deploy/docker/notices; do \
	  .venv/bin/python -m uv pip compile -q --universal --only-binary :all: \
	    --python-version $$([ $$name = requirements-bench ] && echo 3.13 || echo $(LOCK_PYTHON)) \
	    --generate-hashes --no-annotate --no-header $$name.in -o $$name.txt || exit 1; done
	@.venv/bin/python -m uv pip compile -q --no-deps --only-binary :all: --generate-hashes \
	  --no-annotate --no-header serving/page.in -o serving/page.txt

clean: ## remove environments, embedded services' state and caches
	@if [ -x $(PY) ]; then $(PY) -m cli clean || true; fi
	rm -rf .venv .venv-lint .venv-clients .venv-bench .candelabra .pytest_cache .mypy_cache .ruff_cache .hypothesis \
	  dbt_project/target dbt_project/logs
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
