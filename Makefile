# `make demo` runs the main job, `make test` runs everything that CI requires.
# Every target installs missing programs where it can (as root, by apt-get), or names them.

SHELL := /bin/bash
.DEFAULT_GOAL := help
SOAK_MINUTES ?= 10
DEMO_FLAGS ?=
NODES ?= 3
PREFIX ?= $(HOME)/.local
REPLICAS ?= 0
ARCH ?= $(shell uname -m)
# What an image for another processor needs besides.
IMAGE_NEEDS := $(if $(filter-out $(shell uname -m),$(ARCH)),cross-$(ARCH))

.PHONY: help setup demo report-demo cluster node node-demo crd image manifest plugin-archive install-plugin test test-node check lint deny \
	bench soak doc

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what building and testing need
	@scripts/need build test

demo: ## the demo on this machine: 12 apps, one master; nine masters on etcd (DEMO_FLAGS="--keep --report FILE")
	@scripts/need build
	@scripts/need demo || echo "the demo's last act, which needs it, is left out" >&2
	@cargo build --quiet --workspace
	@target/debug/kubervisor demo $(DEMO_FLAGS)

report-demo: ## a report about a made-up day in a real Prometheus: prints the page's path (REPORT_DEMO=DIRECTORY)
	@scripts/need build report
	@cargo build --quiet --bin kubervisor
	@scripts/report-demo $(REPORT_DEMO)

cluster: ## a real Kubernetes control plane on free ports, until Ctrl-C (NODES=3 REPLICAS=0: that many controllers on it)
	@scripts/need cluster
	@scripts/cluster >/dev/null
ifeq ($(REPLICAS),0)
	@exec target/cluster/cluster --nodes $(NODES)
else
	@scripts/need build
	@cargo build --quiet
	@exec scripts/replicas $(NODES) $(REPLICAS)
endif

node: ## a shell beside a control plane and one real node: kubelet, containerd, kube-proxy, pods (as root)
	@scripts/need cluster node
	@scripts/node

node-demo: ## an installation from install to uninstall on a real node, under load, with a table of its figures (as root)
	@scripts/need build test cluster node image
	@scripts/cluster >/dev/null
	@KUBERVISOR_NODE=demo cargo test --quiet --test node

crd: ## regenerate crds/kubervisorservices.yaml from the code
	@scripts/need build
	@UPDATE=1 cargo test --quiet --test crd definition
	@cp crds/kubervisorservices.yaml charts/kubervisor/files/

image: ## the container image, as an OCI archive: target/image/kubervisor.tar (ARCH=x86_64 or aarch64)
	@scripts/need build image $(IMAGE_NEEDS)
	@scripts/image $(ARCH)

manifest: ## one plain manifest, rendered from the chart: target/kubervisor.yaml
	@scripts/need build test
	@scripts/manifest >target/kubervisor.yaml
	@echo target/kubervisor.yaml

plugin-archive: ## the kubectl plugin as target/plugin/*.tar.gz, with its checksum and krew's manifest
	@scripts/need build
	@scripts/plugin-archive

install-plugin: ## the kubectl plugin and its completion in PREFIX/bin (PREFIX=~/.local)
	@scripts/need build
	@cargo build --quiet --release --bin kubectl-kubervisor
	@install -D -m 755 -t $(PREFIX)/bin target/release/kubectl-kubervisor plugins/kubectl-kubervisor/kubectl_complete-kubervisor
	@echo "installed in $(PREFIX)/bin, which has to be in the PATH"

test: ## everything: format, lints, licences, unit, property, wire, store and end-to-end tests
	@scripts/need build test cluster
	@$(MAKE) --no-print-directory lint deny
	@scripts/cluster >/dev/null
	@scripts/test

test-node: ## what needs the machine for itself: a real node, the image, a browser
	@scripts/need build test cluster node browser image
	@scripts/cluster >/dev/null
	@scripts/test-node

check: ## the fast part: format, clippy, unit and property tests
	@scripts/need build
	@$(MAKE) --no-print-directory lint
	@cargo test --quiet --workspace --lib --bins --test architecture --test properties --test gate

lint:
	@scripts/need lint
	@cargo fmt --all --check
	@cargo clippy --quiet --workspace --all-targets -- -D warnings
	@cargo check --quiet --locked --manifest-path fuzz/Cargo.toml --target-dir target/fuzz

deny:
	@scripts/need deny
	@cargo deny --log-level error check bans licenses sources

bench: ## every figure beside its goal; a table here and in target/bench.json
	@scripts/need build test
	@scripts/bench

soak: ## long sweeps: fuzzing, properties, 50 000 pods, a control plane that fails (SOAK_MINUTES=10)
	@scripts/need build test fuzz cluster
	@SOAK_MINUTES=$(SOAK_MINUTES) scripts/soak

doc: ## the API documentation, warnings denied
	@RUSTDOCFLAGS="-D warnings" cargo doc --quiet --workspace --no-deps
