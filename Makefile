# Two commands matter: `make run` starts a node, `make test` proves the project. Both set up what they need.
PYTHON ?= python3
VENV   ?= .venv
FAST   := .venv-compiled
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
T      ?= tests/unit tests/property

.PHONY: run cluster setup compiled test check lint types layers unit faults reshaping e2e bench bench-quick bench-steady bench-tpcc kill-soak failover-soak chaos-soak spread-soak sim sim-soak fuzz proto lock clean

run: $(READY)  ## start a node on 127.0.0.1:5432 with data in ./data
	$(BIN)/shardforge start

cluster: $(READY)  ## three nodes on this machine with sample data, until Ctrl-C
	$(BIN)/shardforge demo

setup: $(READY)  ## the virtual environment with everything pinned

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $(READY)

compiled:  ## the hot modules as C extensions, in an environment of its own; then `make run VENV=.venv-compiled`
	$(MAKE) setup VENV=$(FAST)
	HATCH_BUILD_HOOK_ENABLE_CUSTOM=true $(FAST)/bin/python -m pip install --quiet --disable-pip-version-check \
	  --no-deps --no-build-isolation --force-reinstall .
	$(FAST)/bin/shardforge version

test: check  ## everything that must hold before a commit lands; what only computes, on two cores
	$(MAKE) --jobs=2 unit faults reshaping
	$(MAKE) e2e

check: lint types layers

lint: $(READY)
	$(BIN)/ruff format --check src tests bench hatch_build.py
	$(BIN)/ruff check src tests bench hatch_build.py

types: $(READY)
	$(BIN)/mypy

layers: $(READY)
	$(BIN)/lint-imports

unit: $(READY)  ## T=path runs a part
	$(BIN)/pytest -q -m "not e2e" $(T)

faults: $(READY)  ## simulated clusters under every fault
	$(BIN)/pytest -q tests/sim/test_simulation.py

reshaping: $(READY)  ## simulated clusters whose members and shards change all the time
	$(BIN)/pytest -q tests/sim --ignore tests/sim/test_simulation.py

e2e: $(READY)  ## real processes, real drivers
	$(BIN)/pytest -q -m e2e tests/e2e

bench: $(READY)  ## one node beside PostgreSQL, three beside synchronous standbys and etcd; about 45 minutes
	$(BIN)/python -m bench.versus_postgres
	$(BIN)/python -m bench.cluster

bench-quick: $(READY)
	$(BIN)/python -m bench.versus_postgres --seconds 5
	$(BIN)/python -m bench.cluster --quick

bench-steady: $(READY)  ## three nodes at rest, then ten minutes of full load: processor time, memory, elections
	$(BIN)/python -m bench.steady

bench-tpcc: $(READY)  ## TPC-C on one node, three nodes and PostgreSQL, with its consistency conditions; about 10 minutes
	$(BIN)/python -m bench.tpcc

kill-soak: $(READY)  ## kill -9 two hundred times under writers; about 15 minutes
	$(BIN)/python -m tests.e2e.kill_harness --kills 200

chaos-soak: $(READY)  ## random kills, pauses, cuts and restarts of real nodes under load; about 15 minutes
	$(BIN)/python -m tests.e2e.chaos_harness --nodes 4 --rounds 100

spread-soak: $(READY)  ## two million rows on three nodes, then two join, and nodes are killed while shards move; at most half an hour
	timeout 1800 $(BIN)/python -m tests.e2e.spread_harness --kills 2

failover-soak: $(READY)  ## kill -9 the serving node of three fifty times under writers; about 5 minutes
	$(BIN)/python -m tests.e2e.failover_harness --kills 50

sim: $(READY)  ## a simulated cluster under faults: every workload, ten seeds
	$(BIN)/shardforge sim --runs 10

sim-soak: $(READY)  ## thousands of seeds; about an hour
	SHARDFORGE_SIM_SEEDS=5000 $(BIN)/pytest -q tests/sim

fuzz: $(READY)  ## more examples for the parsers of bytes
	HYPOTHESIS_PROFILE=soak $(BIN)/pytest -q tests/property tests/e2e/test_wire_fuzz.py

proto: $(READY)  ## after a change of proto/database.proto
	$(BIN)/python -m grpc_tools.protoc --proto_path=shardforge/v1=proto --python_out=src --pyi_out=src \
	  --grpc_python_out=src shardforge/v1/database.proto

lock: $(READY)  ## after a change of dependencies
	$(BIN)/pip-compile --quiet --generate-hashes --extra dev --allow-unsafe --strip-extras --no-emit-index-url \
	  --no-emit-find-links --no-emit-trusted-host --no-header --output-file requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) $(FAST) build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
