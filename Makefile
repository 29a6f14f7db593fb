# Everything runs in .venv/ of this checkout and needs only Python 3.11+, a C++20 compiler,
# OpenSSL's headers and make.
# Set-up is remembered in stamp files named after a hash of what they depend on, so that a second
# call does no set-up again, whatever git did to the files' times.

SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
# nproc would take OMP_NUM_THREADS, which tests set to 1, for the number of cores.
JOBS ?= $(shell env -u OMP_NUM_THREADS nproc)
# A CPU build on most package mirrors. To train on accelerators: make install TORCH=torch==...
TORCH ?= torch==2.13.0
# Warnings fail the native build; `make test-native WERROR=OFF` for compilers not tried yet.
WERROR ?= ON
# Python tests at a time: they wait more than they compute. TEST_JOBS=0: one after another.
TEST_JOBS ?= 3
PYTEST_ARGS ?=
CTEST_ARGS ?=

export CMAKE_BUILD_PARALLEL_LEVEL := $(JOBS)
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
CMAKE := $(BIN)/cmake
CTEST := $(abspath $(BIN))/ctest --output-on-failure --no-tests=error -j $(JOBS)

# Names and contents of the files; 16 digits are plenty.
hash = $(shell { printf '%s\n' $(1) '$(TORCH)'; cat $(1); } 2>/dev/null | sha256sum | cut -c1-16)
core_sources := $(sort $(shell find csrc -type f 2>/dev/null))
packages := $(wildcard runtime/*/__init__.py launcher/*/__init__.py)

deps_stamp := $(STAMPS)/dependencies-$(call hash,pyproject.toml)
package_stamp := $(STAMPS)/package-$(shell { printf '%s\n' $(packages); } | sha256sum | cut -c1-8)-$(call hash,pyproject.toml CMakeLists.txt $(core_sources))

.PHONY: docs bench-peers bench-backend bench-ddp bench-scale bench-elastic test-elastic test-reach test-page test-trainers wan bench bench-recovery kills soak help install demo test test-native test-python test-rest test-sanitize lint proto clean gtest openssl etcd prometheus sshd

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# ---- set-up --------------------------------------------------------------------------------------

install: $(package_stamp)  ## set up .venv with the package, its core and all tools

$(BIN)/python:
	@set -e; for candidate in "$(PYTHON)" python3.11 python3 python3.13 python3.12; do \
	    if [ -n "$$candidate" ] && "$$candidate" -c \
	        'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	        python=$$candidate; break; fi; done; \
	if [ -z "$${python:-}" ]; then \
	    echo "error: atoll needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python" >&2; \
	    exit 1; fi; \
	echo "==> creating $(VENV) with $$($$python --version)"; \
	$$python -m venv $(VENV) || { rm -rf $(VENV); \
	    echo "error: '$$python -m venv' failed; on Debian: apt-get install python3-venv" >&2; exit 1; }

# torch comes first and by itself, so that no later requirement picks another build of it.
$(deps_stamp): | $(BIN)/python
	@mkdir -p $(STAMPS)
	@$(BIN)/python -c 'import torch' 2>/dev/null || { \
	    echo "==> installing $(TORCH)"; $(PIP) install '$(TORCH)'; }
	@echo "==> installing dependencies and build tools"
	@$(BIN)/python -c "$$LIST_REQUIREMENTS" > $(STAMPS)/requirements.txt
	@$(PIP) install -r $(STAMPS)/requirements.txt
	@rm -f $(STAMPS)/dependencies-* && touch $@

define LIST_REQUIREMENTS
import tomllib
data = tomllib.load(open("pyproject.toml", "rb"))
extras = data["project"]["optional-dependencies"]
wanted = data["build-system"]["requires"] + data["project"]["dependencies"]
print(*wanted, *extras["test"], *extras["demo"], "cmake>=3.24", "ninja", sep="\n")
endef
export LIST_REQUIREMENTS

$(package_stamp): $(deps_stamp) | openssl
	@echo "==> building and installing atoll (editable)"
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@rm -f $(STAMPS)/package-* && touch $@

openssl:
	@if ! echo '#include <openssl/ssl.h>' | $(CXX) -E -x c++ - >/dev/null 2>&1; then \
	    if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	        echo "==> installing OpenSSL's headers (libssl-dev)"; \
	        export DEBIAN_FRONTEND=noninteractive; \
	        apt-get update -qq && apt-get install -y -qq libssl-dev >/dev/null; \
	    else \
	        echo "error: the core needs OpenSSL's headers; on Debian: apt-get install libssl-dev" >&2; \
	        exit 1; fi; fi

gtest:
	@if ! echo '#include <gtest/gtest.h>' | $(CXX) -E -x c++ - >/dev/null 2>&1; then \
	    if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	        echo "==> installing GoogleTest (libgtest-dev)"; \
	        export DEBIAN_FRONTEND=noninteractive; \
	        apt-get update -qq && apt-get install -y -qq libgtest-dev >/dev/null; \
	    else \
	        echo "error: the native tests need GoogleTest; on Debian: apt-get install libgtest-dev" >&2; \
	        exit 1; fi; fi

# Only some tests need it, and they say so when they are left out.
etcd:
	@if ! command -v etcd >/dev/null; then \
	    if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	        echo "==> installing etcd (etcd-server)"; \
	        export DEBIAN_FRONTEND=noninteractive; \
	        { apt-get update -qq && apt-get install -y -qq etcd-server >/dev/null; } || \
	            echo "warning: etcd cannot be installed; tests of high availability are left out" >&2; \
	    else \
	        echo "warning: tests of high availability need etcd; on Debian: apt-get install etcd-server" >&2; \
	    fi; fi

prometheus:
	@if ! command -v prometheus >/dev/null; then \
	    if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	        echo "==> installing Prometheus (prometheus)"; \
	        export DEBIAN_FRONTEND=noninteractive; \
	        { apt-get update -qq && apt-get install -y -qq --no-install-recommends prometheus >/dev/null; } || \
	            echo "warning: Prometheus cannot be installed; tests of dashboards and alerts are left out" >&2; \
	    else \
	        echo "warning: tests of dashboards and alerts need Prometheus; on Debian: apt-get install prometheus" >&2; \
	    fi; fi

sshd:
	@if ! PATH="$$PATH:/usr/sbin" command -v sshd >/dev/null; then \
	    if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	        echo "==> installing an SSH server, which is not started (openssh-server)"; \
	        export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1; \
	        { apt-get update -qq && apt-get install -y -qq --no-install-recommends openssh-server >/dev/null; } || \
	            echo "warning: an SSH server cannot be installed; tests of atoll up are left out" >&2; \
	    else \
	        echo "warning: tests of atoll up need an SSH server; on Debian: apt-get install openssh-server" >&2; \
	    fi; fi

# ---- use -----------------------------------------------------------------------------------------

demo: install  ## run examples/demo.py
	@$(BIN)/python examples/demo.py

bench: install build-bench/floor  ## all-reduce beside gloo's and the kernel's (BENCH_ARGS="--members 2 --sizes 1MiB")
	@$(BIN)/python bench/python/allreduce.py $(BENCH_ARGS)

build-bench/floor: bench/native/floor.cpp CMakeLists.txt | $(deps_stamp)
	@echo "==> building the native benchmarks"
	@$(call build_in,build-bench,-DATOLL_BENCH=ON)

bench-recovery: install  ## how long others wait when one dies or joins (RECOVERY_ARGS="--members 3 --sizes 1MiB")
	@$(BIN)/python bench/python/recovery.py $(RECOVERY_ARGS)

bench-backend: install  ## the backend of torch.distributed beside gloo (BACKEND_ARGS="--members 2 --sizes 1MiB")
	@$(BIN)/python bench/python/backend.py $(BACKEND_ARGS)

bench-uplinks: install  ## how much faster several narrow donors are than one; needs root (UPLINKS_ARGS="--mib 48")
	@OMP_NUM_THREADS=1 $(BIN)/python tests/python/state/uplinks.py $(UPLINKS_ARGS)

bench-ddp: install  ## what a step of fault-tolerant data parallelism costs beside a plain one (DDP_ARGS="--replicas 3")
	@$(BIN)/python bench/python/ddp_step.py $(DDP_ARGS)

PEERS := .venv-peers
peers_stamp := $(PEERS)/.torchft-0.2.0-hivemind-1.1.12

# An environment of their own: their releases of protobuf and grpcio are not ours. The same torch.
$(peers_stamp): | $(package_stamp)
	@echo "==> installing torchft 0.2.0 and hivemind 1.1.12 into $(PEERS)"
	@$(BIN)/python -m venv --clear $(PEERS)
	@$(PEERS)/bin/python -m pip --disable-pip-version-check -qq install \
	    'torch=='$$($(BIN)/python -c 'import torch; print(torch.__version__.split("+")[0])') \
	    numpy torchft==0.2.0 hivemind==1.1.12
	@touch $@

bench-peers: install $(peers_stamp)  ## recovery beside TorchFT's, averaging beside hivemind's (PEERS_ARGS="--cases kill --events 10")
	@$(BIN)/python bench/python/peers/compare.py $(PEERS_ARGS)

bench-elastic: install  ## how long an elastic island's workers wait when one is killed (ELASTIC_ARGS="--kills 50")
	@$(BIN)/python bench/python/elastic_recovery.py $(ELASTIC_ARGS)
	@$(BIN)/python bench/python/elastic_overhead.py $(OVERHEAD_ARGS)
	@$(BIN)/python bench/python/elastic_baselines.py $(BASELINE_ARGS)

wan: install build-wan/wan_emulator  ## all-reduce over emulated wide-area networks; needs root (WAN_ARGS="clean --mtu 9000")
	@OMP_NUM_THREADS=1 $(BIN)/python tests/wan/wan_measure.py $(WAN_ARGS)

build-wan/wan_emulator: $(wildcard tests/wan/emulator/*) CMakeLists.txt | $(deps_stamp)
	@echo "==> building the emulator of wide-area networks"
	@$(call build_in,build-wan,-DATOLL_WAN=ON,wan_emulator) && touch $@

bench-scale: install  ## what membership costs with 10 to 10,000 peers (SCALE_ARGS="--peers 100 1000")
	@$(BIN)/python bench/python/scale.py $(SCALE_ARGS)

kills: install  ## kill islands of a real job, again and again (KILLS_ARGS="--islands 5 --kills 20")
	@PYTHONPATH=tests/python OMP_NUM_THREADS=1 $(BIN)/python tests/python/processes/kill_rounds.py $(KILLS_ARGS)

soak: install  ## islands come and are killed for ten minutes (SOAK_ARGS="--minutes 1 --seed 7")
	@PYTHONPATH=tests/python OMP_NUM_THREADS=1 $(BIN)/python tests/python/processes/soak.py $(SOAK_ARGS)

REPRODUCE := reproduce-diloco reproduce-streaming reproduce-noloco reproduce-sparseloco \
    reproduce-eager reproduce-churn reproduce-lgreco
.PHONY: reproduce $(REPRODUCE)

$(REPRODUCE): reproduce-%: install
	@$(BIN)/python bench/python/reproduce/run.py $* $(REPRODUCE_ARGS)

reproduce: install  ## train for docs/results.md (reproduce-noloco: a part; REPRODUCE_ARGS="--jobs 8")
	@$(BIN)/python bench/python/reproduce/run.py all $(REPRODUCE_ARGS)

proto: $(deps_stamp)  ## generate runtime/atoll/pb from proto/
	@echo "==> generating runtime/atoll/pb"
	@$(BIN)/python -m grpc_tools.protoc -I proto --python_out=runtime --grpc_python_out=runtime \
	    --pyi_out=runtime proto/atoll/pb/*.proto

docs: $(deps_stamp)  ## write docs/reference/ from the docstrings
	@$(BIN)/python docs/reference/generate.py

# ---- tests ---------------------------------------------------------------------------------------

test: lint test-native test-python  ## lint, native tests and Python tests

lint: $(deps_stamp)  ## ruff and mypy
	@echo "==> ruff check"
	@$(BIN)/ruff check --quiet .
	@echo "==> ruff format --check"
	@$(BIN)/ruff format --quiet --check .
	@echo "==> mypy"
	@$(BIN)/mypy

# $(call build_in,folder,cmake options,targets; none: all)
build_in = $(CMAKE) -S . -B $(1) -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja \
    $(2) --log-level=WARNING > $(1).log 2>&1 || { cat $(1).log; exit 1; }; \
    $(CMAKE) --build $(1) $(addprefix --target ,$(3)) > $(1).log 2>&1 || { cat $(1).log; exit 1; }; rm -f $(1).log
build_tests = $(call build_in,$(1),-DATOLL_TESTS=ON $(2))

test-native: $(deps_stamp) gtest openssl  ## C++ tests
	@echo "==> building the native tests"
	@$(call build_tests,build-native,-DCMAKE_COMPILE_WARNING_AS_ERROR=$(WERROR))
	@echo "==> native tests"
	@cd build-native && OMP_NUM_THREADS=1 $(CTEST) $(CTEST_ARGS)

test-python: $(package_stamp) build-wan/wan_emulator etcd prometheus sshd  ## Python tests
	@echo "==> Python tests"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_JOBS) --dist worksteal $(PYTEST_ARGS)

# All have passed, or they have not run: that is an error here.
test-rest: $(package_stamp)  ## Python tests that the last run has not seen pass, one after another
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --rest $(PYTEST_ARGS)

test-elastic: $(package_stamp)  ## elastic islands: several deaths of real processes, 300 seeds (PYTEST_ARGS)
	@ELASTIC_TESTS=full ELASTIC_SEEDS=300 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/python/elastic $(PYTEST_ARGS)

test-reach: $(package_stamp)  ## islands that others cannot dial, and paths that are cut; needs root (PYTEST_ARGS)
	@REACH_TESTS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/python/control/test_reach.py $(PYTEST_ARGS)

test-page: $(package_stamp)  ## the coordinator's page in a real Chromium; pictures in build-page/
	@if ! command -v chromium >/dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "==> installing Chromium (chromium, 113 MB)"; \
	    export DEBIAN_FRONTEND=noninteractive; \
	    apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null; fi
	@PAGE_TESTS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/python/watching/test_page.py -s $(PYTEST_ARGS)

# torch stays what it is: the libraries take any.
test-trainers: $(package_stamp)  ## callbacks for other libraries' trainers; installs them first (PYTEST_ARGS)
	@echo "==> installing the libraries of atoll[trainers]"
	@$(BIN)/python -c 'import torch; print("torch==" + torch.__version__.split("+")[0])' > $(STAMPS)/torch.txt
	@$(BIN)/python -c "$$LIST_TRAINERS" > $(STAMPS)/trainers.txt
	@$(PIP) install -c $(STAMPS)/torch.txt -r $(STAMPS)/trainers.txt
	@TRAINER_TESTS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/python/trainers $(PYTEST_ARGS)

define LIST_TRAINERS
import tomllib
import torch
extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]
print(*extras["trainers"], *(extras["torchtitan"] if torch.cuda.is_available() else []), sep="\n")
endef
export LIST_TRAINERS

# $(call sanitized,folder,before ctest): what a sanitizer reports fails the run, whatever its test does,
# also when CTEST_ARGS give a test another try.
sanitized = cd $(1) && rm -rf reports && mkdir reports && reports=$$PWD/reports/of && failed=0; \
    export ATOLL_SEEDS=1000 ASAN_OPTIONS=log_path=$$reports UBSAN_OPTIONS=print_stacktrace=1:log_path=$$reports \
        TSAN_OPTIONS=second_deadlock_stack=1:log_path=$$reports; \
    $(2) $(CTEST) $(CTEST_ARGS) || failed=1; \
    if [ -n "$$(ls reports)" ]; then \
        cat reports/*; echo "error: a sanitizer has reported what stands above" >&2; exit 1; fi; \
    exit $$failed

# Simulations of fewer seeds: each takes several times as long there.
# ThreadSanitizer of GCC 12 dies where the kernel randomises addresses widely, so its tests run
# without that where the machine allows it.
test-sanitize: $(deps_stamp) gtest openssl  ## C++ tests under ASan with UBSan, then under TSan
	@echo "==> building the native tests with ASan and UBSan"
	@$(call build_tests,build-asan,-DATOLL_SANITIZE=address$(comma)undefined $(sanitize_flags))
	@echo "==> native tests under ASan and UBSan"
	@$(call sanitized,build-asan)
	@echo "==> building the native tests with TSan"
	@$(call build_tests,build-tsan,-DATOLL_SANITIZE=thread $(sanitize_flags))
	@echo "==> native tests under TSan"
	@fixed=; setarch -R true 2>/dev/null && fixed='setarch -R'; $(call sanitized,build-tsan,$$fixed)

comma := ,
# Little optimization, and lines only of what is debugged: half the time of a build.
sanitize_flags := -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_CXX_FLAGS_RELWITHDEBINFO="-O1 -g1 -DNDEBUG"

clean:  ## remove what was built; .venv stays
	@rm -rf build-*/ dist/ .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name .venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
