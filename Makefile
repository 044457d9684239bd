# The front door. `make help` lists what there is.
SHELL := /bin/sh
PYTHON ?= python3
BIN := .venv/bin
# Tests that touch the kernel run in namespaces of their own: as root or not, the machine's network is out of reach,
# and whatever a test leaves behind ends with them. Its files lie in a folder that ends with it as well, also by Ctrl-C.
SANDBOX := scratch=$$(mktemp -d) && trap 'rm -rf "$$scratch"' EXIT && trap : INT && \
  TMPDIR="$$scratch" PYTEST_DEBUG_TEMPROOT="$$scratch" \
  unshare --user --map-root-user --mount --net --pid --fork --mount-proc --kill-child
# Most tests wait more than they compute, so more workers than CPUs share them, each in namespaces of its own.
WORKERS ?= $(shell expr $$(nproc) + 1)
TESTS ?=
# The base of the tests' folders is short, as some of them hold sockets, whose path may have 107 bytes (unix(7)).
# How workers share the tests is in tests/workers.py; one that dies is a failure.
PYTEST := $(SANDBOX) $(BIN)/python -m pytest --basetemp="$$scratch/t" --tx '$(WORKERS)*popen//python=.ci/worker' \
  --dist load -p tests.workers --no-loadscope-reorder --max-worker-restart=0 $(TESTS)

# Genuine Go flannel, to measure against: the newest module of it that Go can build by itself.
FLANNEL_VERSION := v0.26.7
# Its CNI plugins: bridge and host-local as of today; the flannel plugin in the newest module that has it.
PLUGINS := github.com/containernetworking/plugins/plugins
PLUGINS_VERSION := v1.6.2
CHAINED := meta/portmap meta/tuning meta/bandwidth meta/firewall
FLANNEL_PLUGIN_VERSION := v0.9.1
# WireGuard in user space, for kernels that have none.
WIREGUARD_VERSION := v0.0.0-20260522210424-ecfc5a8d5446
PEERS := .cache/peers
BENCH_ARGS ?= all --quick

# Kubernetes' own programs, to test against: built once for all checkouts.
KUBE_SOURCE := tools/kubernetes
KUBE_VERSION := $(shell sed -n 's#^.*k8s.io/kubernetes ##p' $(KUBE_SOURCE)/go.mod)
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/flanneld-py
KUBE_PROGRAMS ?= $(CACHE)/kubernetes-$(KUBE_VERSION)
export KUBE_PROGRAMS

# Another kernel than the machine's, to test on: Debian's source of one that users have, built once for all checkouts.
GUEST := tools/guest-kernel
GUEST_SOURCE ?= /usr/src/linux-source-6.1.tar.xz
GUEST_KERNEL ?= $(CACHE)/guest-$(basename $(basename $(notdir $(GUEST_SOURCE))))
GUEST_TESTS ?= -m guest

VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' flanneld_py/__init__.py)
DEBIAN_BASE := $(CACHE)/debian-bookworm.tar
IMAGE := dist/flanneld-py_$(VERSION)_image.tar

.PHONY: help venv check format test test-full test-kubernetes kubernetes test-kernels guest-kernel demo \
  peers pictures bench bench-codec bench-guard wheels deb image lock docs proto clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

venv: .venv/.ready ## prepare .venv with flanneld, flannelctl and netns-lab
	@# Where PYTHONDONTWRITEBYTECODE is set, every start would compile all that it imports.
	@$(BIN)/python -m compileall -q flanneld_py cni_plugin netns_lab

.venv/.ready: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "flanneld-py needs Python 3.11 or newer as $(PYTHON): apt-get install python3, or make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "Python's venv module is missing: apt-get install python3-venv" >&2; exit 1; }
	@echo "preparing .venv (a minute when nothing is cached) ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(BIN)/python .ci/quote_paths.py .venv/bin
	@touch $@

check: venv ## format, lint, types and unit tests; no root needed; under a minute
	@$(BIN)/ruff format --check --quiet . || { echo "run: make format" >&2; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q -m "not kernel and not etcd and not lab and not full and not kubernetes"

format: venv ## rewrite the code in the house format
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --quiet --fix .

test: venv ## all tests but the long ones, on a real kernel and a real etcd, in namespaces of their own
	@unshare --user --map-root-user --net true 2>/dev/null || \
	  { echo "this kernel lets $$(id -un) make no user namespace: run as root, or sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000" >&2; exit 1; }
	@$(PYTEST) -m "not full and not kubernetes" --cov --cov-report=term:skip-covered

test-full: venv ## what takes longer than make test allows
	@# The tests have no network, which the libraries of the package and of the image come by.
	@$(MAKE) --no-print-directory --keep-going -j3 deb image wheels || \
	  echo "what could not be built is not tested: see above"
	@$(PYTEST) -m full

test-kubernetes: venv kubernetes ## the tests on a real Kubernetes
	@$(MAKE) --no-print-directory image || echo "the DaemonSet is not tested: see above"
	@$(PYTEST) -m kubernetes

kubernetes: $(KUBE_PROGRAMS)/kubernetes ## build Kubernetes' own programs to test against (needs go; 8 minutes, once)

# One executable is all of them, by the name that it is called by: most of each is the same.
$(KUBE_PROGRAMS)/kubernetes:
	@command -v go >/dev/null || { echo "Go is missing, which builds Kubernetes: install Go 1.24 or newer" >&2; exit 1; }
	@mkdir -p $(@D)
	@echo "building Kubernetes $(KUBE_VERSION) (8 minutes when nothing is cached) ..."
	@cd $(KUBE_SOURCE) && go build -trimpath -o $@.new \
	  -ldflags '-s -w -X k8s.io/component-base/version.gitVersion=$(KUBE_VERSION)' .
	@cd $(@D) && for name in kube-apiserver kube-controller-manager kube-proxy kube-scheduler kubectl kubelet; do \
	  ln -sf kubernetes $$name; done
	@mv $@.new $@

test-kernels: venv guest-kernel ## the tests that want ipip and the kernel's WireGuard, in a guest kernel (others: GUEST_TESTS=...)
	@# Where it could not be built, that has been said.
	@[ ! -x $(GUEST_KERNEL) ] || $(SANDBOX) $(GUEST)/run $(GUEST_KERNEL) $(BIN)/python -m pytest $(GUEST_TESTS)

guest-kernel: ## build the guest kernel, a user-mode Linux (5 minutes, once; needs its source and a compiler)
	@$(GUEST)/build $(GUEST_SOURCE) $(GUEST_KERNEL)

demo: venv ## three nodes, pods on each, every pod pings every other
	@$(BIN)/netns-lab demo

peers: ## build genuine Go flannel to measure against, and wireguard-go (needs go)
	@command -v go >/dev/null || { echo "Go is missing, which builds Go flannel: apt-get install golang-go" >&2; exit 1; }
	@command -v gcc >/dev/null || { echo "a C compiler is missing, which builds Go flannel's udp backend: apt-get install gcc" >&2; exit 1; }
	@mkdir -p $(PEERS)
	@echo "building Go flannel $(FLANNEL_VERSION) (some minutes when nothing is cached) ..."
	@CGO_ENABLED=1 GOBIN=$(CURDIR)/$(PEERS) go install github.com/flannel-io/flannel@$(FLANNEL_VERSION)
	@echo $(FLANNEL_VERSION) > $(PEERS)/flannel.version
	@GOBIN=$(CURDIR)/$(PEERS)/cni go install $(PLUGINS)/meta/flannel@$(FLANNEL_PLUGIN_VERSION)
	@GOBIN=$(CURDIR)/$(PEERS)/cni go install \
	  $(foreach plugin,main/bridge main/loopback main/ptp ipam/host-local ipam/static $(CHAINED),$(PLUGINS)/$(plugin)@$(PLUGINS_VERSION))
	@GOBIN=$(CURDIR)/$(PEERS)/cni go install github.com/containernetworking/cni/cnitool@v1.2.3
	@GOBIN=$(CURDIR)/$(PEERS)/wg go install golang.zx2c4.com/wireguard@$(WIREGUARD_VERSION)
	@mv $(PEERS)/wg/wireguard $(PEERS)/wireguard-go && rmdir $(PEERS)/wg

pictures: venv ## draw the pictures of the lab's page and of flannelctl that the documents show (needs chromium)
	@$(SANDBOX) env NETNS_LAB_PICTURES=$(CURDIR)/docs/images $(BIN)/python -m pytest -q -k "browser or terminal" \
	  tests/netns_lab/test_lab_web.py tests/netns_lab/test_lab_terminal.py

bench: venv ## time this daemon, beside Go flannel after make peers (BENCH_ARGS='all' for all sizes)
	@if [ -x $(PEERS)/flannel ]; then \
	  $(BIN)/netns-lab bench $(BENCH_ARGS) --beside '$(PEERS)/flannel --iptables-forward-rules=false'; \
	else \
	  echo "this daemon alone: make peers builds Go flannel to measure it against"; \
	  $(BIN)/netns-lab bench $(BENCH_ARGS); \
	fi

bench-codec: venv ## time the netlink codec beside pyroute2 (a minute and a half)
	@$(SANDBOX) $(BIN)/python tests/bench/codec.py

bench-guard: venv ## time a tunnel with and without the guard (half a minute)
	@$(SANDBOX) env PYTHONPATH=. $(BIN)/python tests/bench/guard.py

wheels: venv ## gather in dist/wheels what pipx and uv install beside us, for tests that have no network
	@$(BIN)/python -m pip wheel -qq --disable-pip-version-check -w dist/wheels '.[ctl]' hatchling pip setuptools wheel

deb: venv ## build a Debian package into dist (needs dpkg-deb)
	@$(BIN)/python deploy/debian/build.py dist

image: $(IMAGE) ## build the container image into dist (needs buildah and mmdebstrap)

$(IMAGE): $(shell find cni_plugin deploy flanneld_py tools/image pyproject.toml requirements.lock -type f ! -name '*.pyc') | $(DEBIAN_BASE)
	@tools/image "$(CURDIR)/$@" flanneld-py:$(VERSION) $(DEBIAN_BASE)

$(DEBIAN_BASE):
	@command -v mmdebstrap >/dev/null || { echo "mmdebstrap is missing, which makes a Debian root: apt-get install mmdebstrap" >&2; exit 1; }
	@mkdir -p $(@D)
	@mmdebstrap --quiet --variant=minbase bookworm $@.tar && mv $@.tar $@

lock: venv ## pin and hash every dependency anew
	@$(BIN)/uv pip compile --upgrade --generate-hashes --universal --python-version 3.11 --no-header --no-annotate \
	  --no-emit-index-url --no-emit-find-links --no-strip-extras --all-extras --group dev pyproject.toml -o requirements.lock

docs: venv ## write the tables of flags and commands in docs/ anew
	@$(BIN)/python .ci/write_docs.py

proto: venv ## generate the etcd messages from their .proto
	@$(BIN)/python -m grpc_tools.protoc -Iflanneld_py/store --python_out=flanneld_py/store \
	  --pyi_out=flanneld_py/store flanneld_py/store/etcd.proto

clean: ## remove what the targets above made in this folder
	@rm -rf .venv $(PEERS) .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage dist build
