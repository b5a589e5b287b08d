# Everything starts from a bare checkout: each target sets up what it needs first.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# Run by an interpreter, prints its version if it is one that prunepool runs on.
SUPPORTED := -c 'import sys; v = sys.version_info; (3, 11) <= v < (3, 15) and print("%d.%d.%d" % v[:3])'
# The interpreter the virtual environment is made from.
PYTHON ?= $(firstword $(foreach p,python3.13 python3.12 python3.11 python3.14 python3,$(if $(shell $(p) $(SUPPORTED) 2>/dev/null),$(p))))
BIN := .venv/bin
STAMP := .venv/.installed

# uv installs what is locked in a fraction of pip's time. It is the machine's, or the locked one, which pip puts into .venv
# first; INSTALLER=pip does without. uv does not read pip's settings, so an index that is set there is handed on.
INSTALLER ?= uv
UV ?= $(or $(shell command -v uv),$(BIN)/uv)
pip_index = $(BIN)/python -m pip config list | sed -nE "s/.*\.index-url='(.*)'/\1/p" | tail -n 1
install_with_uv = UV_DEFAULT_INDEX="$${UV_DEFAULT_INDEX:-$$($(pip_index))}" $(UV) pip install --python $(1)/bin/python
install_with_pip = $(1)/bin/python -m pip install --disable-pip-version-check
install_into = $(call install_with_$(INSTALLER),$(1))

# In an argument of `call`.
, := ,

# What an interpreter compiles is kept, whatever the environment says: to compile PyTorch again in each process takes 6 s.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help
help: ## Show what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

ifeq ($(INSTALLER)$(UV),uv$(BIN)/uv)
define INSTALL_UV
	@echo "Installing uv, which installs the rest."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r <(sed -n '/^uv==/,/[^\\]$$/p' requirements-dev.lock)
endef
endif

# A virtual environment and the installer, if they are not there yet; the argument says how much is to come.
define environment
	@version="$$($(PYTHON) $(SUPPORTED) 2>/dev/null)"; \
	test -n "$$version" || { echo "prunepool needs Python 3.11 to 3.14 on the PATH, or PYTHON=/path/to/python$(if $(PYTHON),; $(PYTHON) is none)"; exit 1; }; \
	test -x $(BIN)/python || { \
		echo "Making .venv with Python $$version: $(1)"; \
		$(PYTHON) -m venv .venv || { echo "could not make a virtual environment: on Debian and Ubuntu, install python3-venv"; exit 1; }; }
	$(INSTALL_UV)
endef

.PHONY: setup
setup: $(STAMP) ## Make .venv with all locked dependencies, PyTorch among them, and prunepool in it

$(STAMP): requirements-dev.lock pyproject.toml
	$(call environment,3 GB to download if they are not in the cache$(,) 6 GB on the disk; most of it is PyTorch.)
	@$(call install_into,.venv) --require-hashes -r requirements-dev.lock
	@$(call install_into,.venv) --quiet --no-deps --no-build-isolation --editable .
	@touch $@
	@echo "Set up: $(BIN)/prunepool"

# Part of what `setup` installs, in the same versions, so that either can follow the other.
RUNTIME := .venv/.runtime

.PHONY: runtime
runtime: $(RUNTIME) ## Make .venv with what serves compiled models, without PyTorch

$(RUNTIME): docker/cpu.lock pyproject.toml
	$(call environment,110 MB to download if they are not in the cache$(,) 400 MB on the disk; no PyTorch.)
	@$(call install_into,.venv) --require-hashes -r docker/cpu.lock
	@$(call install_into,.venv) --quiet --no-deps --editable .
	@touch $@

.PHONY: serve
serve: $(if $(wildcard $(STAMP)),setup,runtime) ## Serve the embedded model on 127.0.0.1:8000
	@echo "Loading the model; this takes some seconds."
	@exec $(BIN)/prunepool serve

.PHONY: wheel
wheel: setup ## Build the wheel, with the embedded models in it, into dist/
	$(BIN)/python -m hatchling build -t wheel -d dist

# Processes that share the tests, a file at a time. The order stays: the long files are not the last ones.
TEST_WORKERS ?= 2

.PHONY: test
test: setup ## Run the tests
	$(BIN)/python -m pytest -q -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: lint
lint: setup ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.PHONY: format
format: setup ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Each after the first takes its versions from one before it, so that what is tested is what is served.
COMPILE = $(UV) pip compile --universal --python-version 3.11 --no-emit-index-url --no-emit-find-links --no-header --no-annotate --generate-hashes

.PHONY: lock
lock: ## Resolve the lock files again, the images' too (with uv: the machine's or .venv's)
	$(COMPILE) pyproject.toml -o requirements.lock
	$(COMPILE) pyproject.toml --extra grpc --extra otel --constraint requirements.lock -o docker/cpu.lock
	$(COMPILE) pyproject.toml --extra gpu --extra grpc --extra otel --constraint docker/cpu.lock -o docker/torch.lock
	$(COMPILE) pyproject.toml --extra dev --constraint docker/torch.lock -o requirements-dev.lock
	$(COMPILE) tests/interop/requirements.in -o tests/interop/requirements.lock

# What CI has no time for in every run; PARTS="forms chaos" runs those alone.
PARTS ?=

.PHONY: nightly
nightly: interop ## Everything that takes long: rare forms, fuzzing, faults, load, overhead (half an hour)
	.ci/nightly $(PARTS)

# So many examples for each test that takes random ones, times a factor of the test's own; and which tests.
FUZZ_EXAMPLES ?= 1500
FUZZ_TESTS ?= tests

.PHONY: fuzz
fuzz: setup ## Run the tests that take random inputs with many more of them
	FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(BIN)/python -m pytest -q -rP -p no:logging --timeout=0 -n $(TEST_WORKERS) --dist load --hypothesis-profile=fuzz -m "hypothesis or fuzz" $(FUZZ_TESTS)

# The model, and flags of lab/all_methods.py.
METHODS ?= deit_tiny_imagenet1k --images photos --labels photos/labels.csv

.PHONY: methods
methods: setup ## Every reduction method at equal cost: accuracy, and the time of a step
	$(BIN)/python -m prunepool.lab.all_methods $(METHODS)

SCREENSHOTS ?= docs/images

.PHONY: screenshots
screenshots: setup ## Take the documentation's pictures of the page again (needs Chromium)
	PRUNEPOOL_SCREENSHOTS=$(SCREENSHOTS) $(BIN)/python -m pytest -q -m "" tests/e2e/page/test_access.py -k picture

INTEROP := .venv-interop/.installed

.PHONY: interop
interop: $(INTEROP) ## Install the clients that tests call the server with, and that need a .venv of their own

$(INTEROP): tests/interop/requirements.lock | $(STAMP)
	$(BIN)/python -m venv .venv-interop
	@$(call install_into,.venv-interop) --require-hashes -r tests/interop/requirements.lock
	@touch $@

.PHONY: dashboards
dashboards: setup ## Write the Grafana dashboards from the code in dashboards/
	$(BIN)/python dashboards/generate.py

.PHONY: compose-test
compose-test: ## Build and run the containers, kill one, drain one (needs Docker)
	tests/e2e/compose.sh

# Flags of loadtests/validate.py, as in LOADTEST="--architecture deit_small_patch16_224 --images photos".
LOADTEST ?=

.PHONY: loadtest
loadtest: setup ## Load a server with Locust; fails if a claimed speedup is not there
	$(BIN)/python loadtests/validate.py $(LOADTEST)

# Flags of prunepool benchmark, on top of the standard set.
BENCHMARK ?=

# Figures of one kind of processor take no other's place.
KIND = $(shell $(BIN)/python -c 'from prunepool.processor import kind; print(kind())')

.PHONY: benchmark
benchmark: setup ## Time DeiT-S across the dial, beside other ways to run it
	$(BIN)/prunepool benchmark --architecture deit_small_patch16_224 --operations --openvino --json docs/benchmarks/deit-small-$(KIND)-float32.json --plot docs/benchmarks/deit-small-$(KIND)-float32.png $(BENCHMARK)

# Flags of loadtests/peers/compare.py.
PEERS ?=

.PHONY: peers
peers: .venv-peers/.installed ## Measure prunepool beside other servers, in turns
	$(BIN)/python loadtests/peers/compare.py $(PEERS)

# It sees the libraries of .venv, so that torch is the same for all and is there once; pip looks for them there, uv does not.
.venv-peers/.installed: $(STAMP) loadtests/peers/requirements.txt
	$(BIN)/python -m venv .venv-peers
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > "$$(.venv-peers/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/prunepool-venv.pth"
	$(call install_with_pip,.venv-peers) --quiet -r loadtests/peers/requirements.txt
	@touch $@

.PHONY: ray-test
ray-test: .venv-ray/.installed ## A Ray cluster on this machine: the same answers, replicas killed, replaced, scaled
	.venv-ray/bin/python loadtests/ray_cluster.py --json docs/benchmarks/ray.json

# It sees the libraries of .venv, as .venv-peers does, and prunepool itself.
.venv-ray/.installed: $(STAMP)
	$(BIN)/python -m venv .venv-ray
	printf '%s\n' "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" "$(CURDIR)/service" > "$$(.venv-ray/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/prunepool-venv.pth"
	$(call install_with_pip,.venv-ray) --quiet "$$($(BIN)/python -c 'import tomllib; print(tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["ray"][0])')"
	@touch $@

.PHONY: capacity
capacity: setup ## How many replicas? A simulation, held against a measurement first (5 minutes)
	$(BIN)/python loadtests/capacity.py --json docs/benchmarks/capacity.json --plot docs/benchmarks/capacity.png

.PHONY: audit
audit: ## Look for known weaknesses of the locked dependencies (with uv, over the network)
	$(UV) tool run pip-audit --strict --require-hashes --disable-pip -r docker/torch.lock

.PHONY: elastic
elastic: setup ## Does auto hold its latency target where the dense model cannot? (15 minutes)
	$(BIN)/python loadtests/elastic.py --architecture deit_small_patch16_224 --target-ms 1000 --rounds 3 --json docs/benchmarks/elastic.json --plot docs/benchmarks/elastic.png

.PHONY: chaos
chaos: setup ## Break things on purpose, and see that nothing is lost (5 minutes; needs libfaketime)
	$(BIN)/python loadtests/chaos.py --json docs/benchmarks/chaos.json

.PHONY: families
families: setup ## Which of timm's weights are served? Compares each architecture with timm, writes docs/models.md
	$(BIN)/python -m prunepool.lab.model_families docs/models.md

# A ViT with a class token, images to fit another head on, and others to measure on, as in
# WITHOUT_CLASS_TOKEN="vit --fit-on samples --images photos --labels photos/labels.csv".
WITHOUT_CLASS_TOKEN ?=

.PHONY: without-class-token
without-class-token: setup ## What can stand for the class token where a network has none? (5 minutes)
	$(BIN)/python -m prunepool.lab.token_importance $(WITHOUT_CLASS_TOKEN) --json docs/benchmarks/without-class-token.json

# Flags of loadtests/overhead.py, as in OVERHEAD="--images photos".
OVERHEAD ?=

.PHONY: overhead
overhead: setup ## What does the service cost beside the bare model? (5 minutes on an idle machine)
	$(BIN)/python loadtests/overhead.py --json docs/benchmarks/overhead.json $(OVERHEAD)

# Flags of loadtests/resident.py.
RESIDENT ?=

.PHONY: resident
resident: setup ## How much memory does a server hold, and does it grow? (10 minutes)
	$(BIN)/python loadtests/resident.py --json docs/benchmarks/resident.json $(RESIDENT)

# Flags of loadtests/decoding.py, as in DECODING="--images photos".
DECODING ?=

.PHONY: decoding
decoding: setup ## What does it cost to decode a JPEG, and are the pixels right?
	$(BIN)/python loadtests/decoding.py --json docs/benchmarks/decoding.json $(DECODING)

# Flags of loadtests/footprint.py.
FOOTPRINT ?=

.PHONY: footprint
footprint: setup .venv-cpu/.installed ## What does the service take without PyTorch? Disk, start, memory (2 minutes)
	$(BIN)/python loadtests/footprint.py --json docs/benchmarks/footprint.json $(FOOTPRINT)

.venv-cpu/.installed: $(STAMP) docker/cpu.lock
	$(BIN)/python -m venv --without-pip .venv-cpu
	@$(call install_into,.venv-cpu) --require-hashes -r docker/cpu.lock
	@$(call install_into,.venv-cpu) --quiet --no-deps --editable .
	@touch $@

# Flags of loadtests/gpu/check.py, as in GPU_CHECK="--photos photos".
GPU_CHECK ?=

.PHONY: gpu-check
gpu-check: setup ## On a machine with a GPU: test, measure and serve there (9 minutes)
	$(BIN)/python loadtests/gpu/check.py $(GPU_CHECK)

.PHONY: soak
soak: setup ## Half an hour of everything: nothing may grow or get lost
	$(BIN)/python loadtests/soak.py --json docs/benchmarks/soak.json --plot docs/benchmarks/soak.png
