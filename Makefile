# The commands of everyday work. `make` alone lists them.

CARGO ?= cargo
# Where cargo puts what it builds.
TARGET := $(or $(CARGO_TARGET_DIR),target)
# The Envoy of the demo and the tests; another one: make test ENVOY_BIN=/path/to/envoy
ENVOY_BIN ?= $(CURDIR)/.venv/bin/envoy
export ENVOY_BIN

# make demo STORE=redis PORTS=free DEMO_ONCE=1
STORE ?= memory
PORTS ?= default
DEMO_ONCE ?=

.PHONY: help setup demo test fmt lint

help: ## lists the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## installs Envoy (into .venv) and redis-server, if they are missing
	scripts/setup

demo: ## shows a real Envoy limited by sluicegate [STORE=memory|redis] [PORTS=default|free] [DEMO_ONCE=1]
	@scripts/setup envoy
	@test "$(STORE)" != redis || scripts/setup redis
	$(CARGO) build --release --bin sluicegate
	@python3 deploy/demo/demo.py --binary $(TARGET)/release/sluicegate --envoy $(ENVOY_BIN) \
		--store $(STORE) --ports $(PORTS) $(if $(DEMO_ONCE),--once)

test: ## every test: unit, conformance, real Redis, real Envoy
	scripts/setup
	$(CARGO) test --locked

fmt: ## formats the code
	$(CARGO) fmt

lint: ## what review would find by itself: formatting and clippy, warnings are errors
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
