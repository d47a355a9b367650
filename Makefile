# Every target does the set-up it needs; a machine with Go and make is enough.
# Say "make help" for what there is.

SHELL := /bin/bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

GO           ?= go
VERSION      ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
# "make soak" goes through its loops once, and again until so many minutes have
# passed. "make fuzz" gives each target so many seconds.
SOAK_MINUTES ?= 0
FUZZ_SECONDS ?= 20
# What runs under the race detector: the rooms that are pure or concurrent.
# With -short, because SQLite is 16 times slower under it.
RACE ?= ./internal/image/... ./internal/clock/... ./internal/blob/... ./internal/db/... ./internal/usage/... ./internal/content/... ./internal/retention/... ./internal/access/... ./internal/registry/... ./internal/work/...
# What "make cluster" starts: real nodes, and nodes that only pretend.
NODES ?= 1
FAKE  ?= 0
CLUSTER_PARTS = keeper kubernetes kwok containerd containerd-shim-runc-v2 ctr bridge loopback host-local portmap
# Rooms that have tests of the long kind: those that read CAIRN_SOAK.
SOAK = $(shell grep -rl --include='*_test.go' CAIRN_SOAK internal test | xargs -r -n1 dirname | sort -u | sed 's,^,./,')
CI   = $(GO) run ./test/ci

help: ## print this
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

build: ## the static binary, dist/cairn
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o dist/cairn ./cmd/cairn

worker: ## the worker alone, which is carried into other people's images: dist/cairn-worker
	CGO_ENABLED=0 GOOS=linux $(GO) build -trimpath -ldflags '-s -w' -o dist/cairn-worker ./cmd/cairn-worker

demo: ## the main job on the embedded default, until Ctrl-C
	$(GO) run ./cmd/cairn demo

test: setup lint unit race real ## set-up, lint, all tests, the race detector, conformance, real clients

setup: compiler
	$(CI) step parts -- $(GO) run ./test/parts/build conformance crane regctl

# The race detector needs a C compiler and its headers.
compiler:
	@echo '#include <stdlib.h>' | $${CC:-gcc} -E - >/dev/null 2>&1 || $(GO) run ./test/parts/build -none -apt 'gcc libc6-dev'

lint: ## gofmt, go vet, staticcheck
	$(CI) step gofmt -- bash -c 'out=$$(gofmt -l .); echo -n "$$out"; test -z "$$out"'
	$(CI) step vet -- $(GO) vet ./...
	$(CI) step staticcheck -- $(GO) tool staticcheck ./...

unit: ## the tests of every room
	$(CI) test unit -- -timeout 15m ./cmd/... ./internal/... ./bench/...

race: compiler ## the race detector over the rooms that are pure or concurrent
	CGO_ENABLED=1 $(CI) test race -- -race -short -timeout 15m $(RACE)

real: ## tests against real programs: conformance, clients, kills, documentation
	$(CI) test real -- -count=1 -timeout 15m -skip '^TestPublished$$' $$($(GO) list ./test/... | grep -v -e /test/cluster -e /test/agent -e /test/e2e -e /test/gitea -e /test/catalog -e /test/bump -e /test/objects -e /test/kube)

soak: compiler ## the long loops: all kill rounds, all simulation steps, again for SOAK_MINUTES=0
	@test -n '$(SOAK)' || { echo 'no test reads CAIRN_SOAK'; exit 1; }
	@set -e; export CAIRN_SOAK=1; end=$$(( $$(date +%s) + 60 * $(SOAK_MINUTES) )); while true; do \
		$(CI) test soak -- -count=1 -timeout 60m $(SOAK); \
		CGO_ENABLED=1 $(CI) test soak-race -- -race -count=1 -timeout 60m -run Soak ./internal/content/...; \
		test $$(date +%s) -lt $$end || break; \
	done

# One target each, so that with -k a part that fails does not hide the others.
E2E = CAIRN_E2E=$${CAIRN_E2E-required} $(CI) test

e2e: e2e-clients e2e-cluster e2e-agent e2e-stories e2e-argo e2e-objects e2e-kube e2e-argo-kube e2e-bump e2e-demo ## real clients, real clusters, and the demo as a stranger runs it: from a fresh clone

e2e-clients:
	$(E2E) clients -- -count=1 -timeout 15m ./test/clients/...

cluster-parts:
	$(CI) step cluster-parts -- $(GO) run ./test/parts/build -apt 'iproute2' $(CLUSTER_PARTS)

e2e-cluster: cluster-parts
	$(E2E) cluster -- -count=1 -timeout 20m ./test/cluster/...

e2e-agent: cluster-parts
	$(E2E) agent -- -count=1 -timeout 20m ./test/agent/...

e2e-stories: cluster-parts
	$(E2E) stories -- -count=1 -timeout 12m ./test/e2e/...

e2e-bump:
	$(CI) step bump-parts -- $(GO) run ./test/parts/build -apt 'git gcc libc6-dev' gitea registry tofu terraform-provider-kubernetes terraform-provider-kubectl
	$(E2E) bump -- -count=1 -timeout 15m ./test/gitea/... ./test/catalog/... ./test/bump/...

# Three clusters at a time: what they do most is wait.
e2e-kube: cluster-parts
	$(CI) step tofu-parts -- $(GO) run ./test/parts/build tofu terraform-provider-kubectl
	$(E2E) kube -- -count=1 -parallel 3 -timeout 30m -skip '^TestPublished$$' ./test/kube/...

# Argo's own examples in real pods, where ARGO_EXAMPLES names them.
e2e-argo-kube: cluster-parts
	$(CI) step objects-parts -- $(GO) run ./test/parts/build versitygw
	$(E2E) argo-kube -- -count=1 -timeout 12m -run '^TestPublished$$' ./test/kube

e2e-argo:
	$(E2E) argo -- -count=1 -timeout 10m ./test/argo/...

e2e-objects:
	$(CI) step objects-parts -- $(GO) run ./test/parts/build versitygw
	$(E2E) objects -- -count=1 -timeout 5m ./test/objects/...

e2e-demo:
	$(CI) step demo -- test/stranger

parts: ## build everything that tests and benchmarks use, resumably
	$(GO) run ./test/parts/build -apt 'gcc libc6-dev skopeo podman buildah nginx-light iproute2'

cluster: ## leave a Kubernetes cluster running, with Cairn as its registry (NODES=1 FAKE=0)
	$(GO) run ./test/cluster/up -nodes $(NODES) -fake $(FAKE)

cluster-stop: ## end what "make cluster" left running
	$(GO) run ./test/cluster/up -stop

vuln: ## govulncheck; says NOT RUN where its database cannot be had
	$(CI) step vuln -- test/vuln

fuzz: ## each fuzz target for FUZZ_SECONDS=20
	@set -e; for dir in $$(grep -rlE --include='*_test.go' '^func Fuzz' cmd internal test | xargs -r -n1 dirname | sort -u); do \
		for target in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]+' $$dir/*_test.go | sed 's/^func //'); do \
			$(CI) step "fuzz-$$target" -- $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZ_SECONDS)s ./$$dir; \
		done; \
	done

bench-registry: ## the registry against its peers, side by side; writes bench/registry.md
	$(GO) run ./bench/registry -o bench/registry.md

bench-usage: ## a million running containers, stated over HTTP
	$(GO) run ./bench/registry -only containers

bench-agent: ## what the agent costs, and how late it is; writes bench/agent.md
	$(GO) run ./bench/agent -o bench/agent.md

bench-bump: ## reading a monorepo of ten thousand files, beside Renovate; writes bench/bump.md
	$(GO) run ./bench/bump -o bench/bump.md

bench-work: ## tasks through the work server; a million items; lists of a million runs; writes bench/work.md
	$(GO) run ./bench/work -o bench/work.md

bench-kube: ## what runs cost a Kubernetes control plane, beside a plain Job; writes bench/kube.md
	$(GO) run ./bench/kube -o bench/kube.md

bench-process: ## programs that a worker starts, beside xargs, and what isolation costs; writes bench/process.md
	$(GO) run ./bench/work/process -o bench/process.md

clean: ## remove what was built here (not the cache of parts)
	rm -rf dist cairn bench/out

.PHONY: help build worker bench-process demo test setup compiler lint unit race real soak e2e e2e-clients cluster-parts e2e-cluster e2e-agent e2e-stories e2e-argo e2e-objects e2e-kube e2e-argo-kube e2e-bump e2e-demo parts cluster cluster-stop vuln fuzz bench-registry bench-usage bench-agent bench-bump bench-work bench-kube clean
