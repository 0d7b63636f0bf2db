# AegisVM. `make help` lists the targets; `make demo` and `make check` set up all they need.

SHELL      := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
GO         ?= go
VERSION    ?=
BIN        := $(CURDIR)/bin
PROGRAMS   := $(notdir $(wildcard cmd/*))
GUEST      := aegis-harness aegis-mcp-guest aegis-agent
LDFLAGS    := -s -w $(if $(VERSION),-X github.com/xfeldman/aegisvm/internal/buildinfo.version=$(VERSION))

# Homes of the demo and the tests, and what they share: never the user's own ~/.aegis.
STATE      := $(CURDIR)/.aegis
DEMO_HOME  := $(STATE)/demo
TEST_HOME  := $(STATE)/test
export AEGIS_SETUP_CACHE ?= $(STATE)/cache

LINT       := $(GO) tool -modfile=tools/go.mod golangci-lint

.PHONY: help
help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: $(PROGRAMS:%=$(BIN)/%) ## build all programs into bin/

.PHONY: FORCE
$(BIN)/%: FORCE
	@mkdir -p $(BIN)
	CGO_ENABLED=0 $(if $(filter $*,$(GUEST)),GOOS=linux) $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $@ ./cmd/$*

.PHONY: demo
demo: build ## set up everything and say hello from a microVM
	@scripts/demo $(DEMO_HOME)

.PHONY: tools
tools: ## install what the tests need of the host (a C compiler, ip, openssl, curl)
	@scripts/ensure-tools

.PHONY: test-home
test-home: build ## set up the home that the VM tests use
	AEGIS_HOME=$(TEST_HOME) $(BIN)/aegis setup </dev/null

.PHONY: test
test: ## tests without VMs, under the race detector
	$(GO) test -race -shuffle=on -count=1 ./...

.PHONY: integration
integration: test-home ## tests in real VMs
	AEGIS_REQUIRE_VM=1 AEGIS_TEST_HOME=$(TEST_HOME) AEGIS_TEST_BIN=$(BIN) \
		$(GO) test -tags integration -count=1 -timeout 40m -v -p 2 -run "$$(scripts/integration-tests)" $$(scripts/integration-packages)

.PHONY: lint
lint: ## lint, and vet for every platform
	$(LINT) run --allow-parallel-runners --build-tags integration,dist ./...
	for target in linux/amd64 linux/arm64 darwin/arm64; do \
		CGO_ENABLED=0 GOOS=$${target%/*} GOARCH=$${target#*/} $(GO) vet ./...; \
	done

.PHONY: check
check: tools lint test integration ## set up, lint, and run all tests: what CI runs

.PHONY: check-clients
check-clients: build ## MCP clients that are not written in Go, in real VMs
	@scripts/check-clients $(STATE)/clients

.PHONY: stress
stress: test-home ## the full forms of the heavy tests, and every fuzz target
	@scripts/ensure-tools stress
	AEGIS_REQUIRE_VM=1 AEGIS_STRESS=1 AEGIS_TEST_HOME=$(TEST_HOME) AEGIS_TEST_BIN=$(BIN) \
		$(GO) test -tags integration -count=1 -timeout 150m -p 1 -v -run "$$(scripts/integration-tests)" $$(scripts/integration-packages)
	scripts/fuzz 30s

.PHONY: fuzz
fuzz: ## every decoder of hostile input, half a minute each
	scripts/fuzz 30s

.PHONY: kvm-lab
kvm-lab: test-home ## drivers on KVM, in a machine that emulates it; prints which test ran on which
	$(GO) run ./test/kvmlab -state $(STATE)/lab -bin $(BIN) -home $(TEST_HOME)

.PHONY: soak
soak: test-home ## users, killed daemons and killed VMs, for an hour or for AEGIS_SOAK
	AEGIS_REQUIRE_VM=1 AEGIS_SOAK=$${AEGIS_SOAK:-1h} AEGIS_TEST_HOME=$(TEST_HOME) AEGIS_TEST_BIN=$(BIN) \
		$(GO) test -tags integration -count=1 -timeout 0 -v -run '^TestSoak$$' ./test/e2e

.PHONY: bench
bench: test-home ## measure, each figure beside its floor from the same run
	AEGIS_HOME=$(TEST_HOME) $(BIN)/aegis bench

.PHONY: dist
dist: ## packages, archives, SBOM and checksums of a snapshot, into dist/
	@scripts/dist

.PHONY: release
release: ## make and publish what is tagged: see CONTRIBUTING.md
	@scripts/dist release

.PHONY: check-dist
check-dist: test-home ## make dist twice, compare, install it in a VM and remove it
	@scripts/check-dist $(TEST_HOME) $(BIN)

.PHONY: gen
gen: ## rewrite golden files and generated documents
	$(GO) test -count=1 $$(scripts/golden-packages) -update

.PHONY: clean
clean: ## remove what was built; homes and their VMs' data stay under .aegis
	rm -rf $(BIN)
