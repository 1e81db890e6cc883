# `make` alone prints this help.
.DEFAULT_GOAL := help
SHELL := bash
RUN := uv run --no-sync
# Files, the slow ones first, over three workers: these tests wait for servers more than they work.
SPREAD := -n 3 --dist loadfile --no-loadscope-reorder -p no:randomly
SLOW := tests/e2e $(addprefix tests/integration/test_,worker.py polling.py liveness.py reader.py failover.py compare.py verify.py snapshot.py preflight.py watchdog.py ddl.py server_settings.py)
export UV_PYTHON_DOWNLOADS := never
export PATH := $(HOME)/.local/bin:$(CURDIR)/.stack/uv/bin:$(PATH)

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: setup ## two hospitals, live, on this machine; ONCE=1 ends after verify; DATA=folder adds real data
	@$(RUN) python -m dev.demo $(if $(ONCE),--once) $(if $(DATA),--data "$(DATA)") $(if $(SEED),--seed $(SEED))

test: setup ## unit, integration and end-to-end tests on real servers (what takes minutes is in test-long)
	$(RUN) pytest tests/unit -m "not long"
	$(RUN) pytest $(SLOW) tests/integration -m "not long" --durations 60 $(SPREAD)

test-long: setup ## the tests that take minutes
	$(RUN) pytest tests -m long --timeout 3600 --durations 60 -v $(SPREAD)

bench-capture: setup ## the reader beside mysql-replication and Debezium; ROUNDS=1 ROWS=60000 for a short run
	@$(RUN) python -m benchmarks.capture

bench-pipeline: setup ## binlog to MongoDB: backlog, latency, first load; ROWS=40000 SECONDS=20 for a short run, PEER=1 for Kafka Connect beside it
	@$(RUN) python -m benchmarks.pipeline $(if $(PEER),--peer) $(if $(ROWS),--rows $(ROWS)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(ONLY),--only $(ONLY))

bench-portal: setup ## 500 open pages told of a new record; the API with 5,000 records at 50 requests/s
	@$(RUN) python -m benchmarks.portal

bench-isolation: setup ## what a hospital that is away costs the others; ROUNDS=1 for a short run
	@$(RUN) python -m benchmarks.isolation $(if $(ROUNDS),--rounds $(ROUNDS))

bench-scale: setup ## 1 to 8 hospitals, 1 to 4 consumers: throughput, CPU and memory; ROWS=4000 for a short run
	@$(RUN) python -m benchmarks.scale $(if $(ROWS),--rows $(ROWS))

bench-verify: setup ## verify of 1.7 million rows at both levels; ROWS=80000 for a short run
	@$(RUN) python -m benchmarks.verify $(if $(ROWS),--rows $(ROWS))

unit: setup ## unit tests alone: no I/O, seconds
	$(RUN) pytest tests/unit -m "not long"

lint: setup ## ruff, mypy --strict, import contracts, the rules of the tree
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	$(RUN) lint-imports
	$(RUN) python -m dev.rules

audit: setup ## the locked dependencies against osv.dev; STRICT=1 fails where it can't be reached
	@dev/audit.sh

soak: setup ## MINUTES=10: two hospitals at work and a random fault every half minute; SEED=n repeats one
	$(RUN) python -m tests.soak --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED)) $(if $(RATE),--rate $(RATE)) $(if $(KINDS),--kinds $(KINDS))

mutants: setup ## product code broken in many places, each of which a test must see; ONLY=pattern of a promise, as in ONLY="row [0-9]"
	$(RUN) python -m tests.mutants $(if $(ONLY),"$(ONLY)")

portal-api: setup ## write docs/reference/portal-api.json anew
	$(RUN) python -m dev.portal_api

docs: setup ## write the reference pages that are made from code
	$(RUN) python -m dev.reference
	$(RUN) python -m tests.corpus page

stack: setup ## start two hospitals, Kafka and MongoDB and leave them running; STACK=docker uses Docker
	$(RUN) python -m dev.stack up

stack-down: ## stop what `make stack` started
	$(RUN) python -m dev.stack down

setup: ## uv and the locked dependencies; says what it installs
	@dev/setup.sh

.PHONY: audit docs help portal-api demo test test-long bench-capture bench-pipeline bench-portal bench-isolation bench-scale bench-verify unit lint stack stack-down setup soak mutants
