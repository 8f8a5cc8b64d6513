# The commands of everyday work. `make` alone lists them.

CARGO ?= cargo
# Where cargo puts what it builds.
TARGET := $(or $(CARGO_TARGET_DIR),target)
# Builds the binary that the demo and the tests run. The tests' crates add features to the server's dependencies (tokio's
# clock that stands still), and cargo would build those dependencies, and the server, once more for the tests; naming one
# small test here makes it add them now, so that `make test` goes on from what `make demo` built.
BUILD = $(CARGO) build --locked --bin sluicegate --test fuzz
# The Envoy of the demo and the tests; another one: make test ENVOY_BIN=/path/to/envoy
ENVOY_BIN ?= $(CURDIR)/.venv/bin/envoy
export ENVOY_BIN

# make demo STORE=redis MODE=llm PORTS=free DEMO_ONCE=1
STORE ?= memory
MODE ?= ratelimit
PORTS ?= default
DEMO_ONCE ?=

.PHONY: help setup demo demo-compose test test-deploy test-console stores chaos quotas soak fuzz image-steps test-containers bench ablation fmt lint deny simulate

help: ## lists the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## installs what is missing of what the demo and the tests run: Envoy, redis-server, libfaketime, checkers of deploy/
	scripts/setup

demo: ## shows a real Envoy limited by sluicegate [STORE=memory|redis] [MODE=ratelimit|ext_authz|llm|rlqs] [PORTS=default|free] [DEMO_ONCE=1]
	@scripts/setup compiler envoy
	@test "$(STORE)" != redis || scripts/setup redis
	$(BUILD)
	@python3 deploy/demo/demo.py --binary $(TARGET)/debug/sluicegate --envoy $(ENVOY_BIN) \
		--store $(STORE) --mode $(MODE) --ports $(PORTS) $(if $(DEMO_ONCE),--once)

demo-compose: ## what deploy/compose/compose.yaml describes, without containers [ADDRESSES=published|private] [SECONDS_LONG=60]
	@scripts/setup
	$(BUILD)
	@.venv/bin/python deploy/compose/native.py --binary $(TARGET)/debug/sluicegate --envoy $(ENVOY_BIN) \
		--addresses $(or $(ADDRESSES),published) --seconds $(or $(SECONDS_LONG),0)

test: ## every test: unit, conformance, real Redis, real Envoy
	scripts/setup
	$(CARGO) test --locked --no-fail-fast
	$(MAKE) --no-print-directory test-deploy
	$(MAKE) --no-print-directory test-console

test-console: ## the admin API by its OpenAPI document, and the console in a real Chromium
	@scripts/setup console envoy
	$(BUILD)
	.venv/bin/python -m pytest -q -p no:cacheprovider tests/console

test-deploy: ## deploy/ alone: schemas, chart, dashboard, and everything in it that can run here, run
	@scripts/setup deploy
	$(BUILD)
	.venv/bin/python -m pytest -q -p no:cacheprovider tests/deploy

stores: ## the conformance suite and the Redis store's tests against Redis 6.2 to 8 and Valkey 8 and 9
	@scripts/setup redis stores
	scripts/store-matrix

chaos: ## every fault, one after the other, on real processes; writes the table of docs/reliability.md [CHAOS_ONLY=part-of-a-name]
	@scripts/setup faults
	CHAOS=full $(CARGO) test --locked --release --test faults -- --include-ignored --nocapture every_fault

simulate: ## whole installations on virtual time with every fault, SEEDS=10000 from FIRST=0 on
	SEEDS=$(or $(SEEDS),10000) FIRST=$(or $(FIRST),0) $(CARGO) test --locked --profile simulate --test simulate -- --ignored --exact many::seeds --nocapture

quotas: ## RLQS for minutes: 16 real Envoys, failover, hot restart, stores away; windows of an hour on virtual time
	@scripts/setup redis envoy
	$(CARGO) test --locked --release --test envoy -- --ignored --nocapture --test-threads 1 rlqs::long
	$(CARGO) test --locked --release --test rlqs -- --ignored --nocapture --test-threads 1 hours many_buckets

soak: ## a steady load for MINUTES=5; fails when memory or open files grow
	@scripts/setup faults
	MINUTES=$(or $(MINUTES),5) $(CARGO) test --locked --release --test faults -- --ignored --nocapture memory_and_files

fuzz: ## every input that comes from outside, broken at random, for SECONDS=60 each
	FUZZ_SECONDS=$(or $(SECONDS),60) $(CARGO) test --locked --release --test fuzz

bench: ## measures every target of docs/benchmarks.md and writes it anew; about ten minutes on a quiet machine. PEERS=1: beside E_BIN and LIMITADOR_BIN (docs/peers.md)
	@scripts/setup redis envoy
	$(CARGO) build --release --locked --features bench --bins
	@python3 benches/run.py --binary $(TARGET)/release/sluicegate --bench-binary $(TARGET)/release/sluicegate-bench $(if $(PEERS),--peers)

ablation: ## what each stage on the path to Redis costs and is worth; writes docs/ablation.md
	@scripts/setup redis
	$(CARGO) build --release --locked --features bench --bins
	@python3 benches/ablation.py --bench-binary $(TARGET)/release/sluicegate-bench --system-binary $(TARGET)/release/sluicegate-bench-system

deny: ## what may come in from outside (deny.toml): crates, licences, sources; advisories, too: make deny DENY="advisories bans licenses sources"
	@scripts/setup deny
	.cache/cargo-deny/bin/cargo-deny --locked check $(or $(DENY),bans licenses sources)

fmt: ## formats the code
	$(CARGO) fmt

lint: ## what review would find by itself: formatting and clippy, warnings are errors
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings

test-containers: ## deploy/docker/Dockerfile and deploy/compose/compose.yaml in a container engine, on stand-ins for their base images
	@scripts/setup envoy deploy
	scripts/stand-in-images
	CONTAINERS=1 .venv/bin/python -m pytest -q -rs -p no:cacheprovider tests/deploy/test_containers.py

image-steps: ## the Dockerfile's build steps in a clean directory, without a container engine (slow: compiles everything)
	@scripts/setup deploy
	IMAGE_STEPS=release .venv/bin/python -m pytest -q -s -p no:cacheprovider tests/deploy/test_image.py
