# Everything runs in .venv/ of this checkout and needs only Python 3.11+, a C++20 compiler and make.
# Set-up is remembered in stamp files named after a hash of what they depend on, so that a second
# call does no set-up again, whatever git did to the files' times.

SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
JOBS ?= $(shell nproc)
# A CPU build on most package mirrors. To train on accelerators: make install TORCH=torch==...
TORCH ?= torch==2.13.0
# Warnings fail the native build; `make test-native WERROR=OFF` for compilers not tried yet.
WERROR ?= ON
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

.PHONY: bench kills help install demo test test-native test-python test-sanitize lint proto clean gtest

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

$(package_stamp): $(deps_stamp)
	@echo "==> building and installing atoll (editable)"
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@rm -f $(STAMPS)/package-* && touch $@

gtest:
	@if ! echo '#include <gtest/gtest.h>' | $(CXX) -E -x c++ - >/dev/null 2>&1; then \
	    if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	        echo "==> installing GoogleTest (libgtest-dev)"; \
	        export DEBIAN_FRONTEND=noninteractive; \
	        apt-get update -qq && apt-get install -y -qq libgtest-dev >/dev/null; \
	    else \
	        echo "error: the native tests need GoogleTest; on Debian: apt-get install libgtest-dev" >&2; \
	        exit 1; fi; fi

# ---- use -----------------------------------------------------------------------------------------

demo: install  ## run examples/demo.py
	@$(BIN)/python examples/demo.py

bench: install  ## all-reduce beside gloo's, side by side
	@$(BIN)/python bench/python/allreduce.py

kills: install  ## kill islands of a real job, again and again (KILLS_ARGS="--islands 5 --kills 20")
	@OMP_NUM_THREADS=1 $(BIN)/python tests/python/processes/kill_rounds.py $(KILLS_ARGS)

proto: $(deps_stamp)  ## generate runtime/atoll/pb from proto/
	@echo "==> generating runtime/atoll/pb"
	@$(BIN)/python -m grpc_tools.protoc -I proto --python_out=runtime --grpc_python_out=runtime \
	    --pyi_out=runtime proto/atoll/pb/*.proto

# ---- tests ---------------------------------------------------------------------------------------

test: lint test-native test-python  ## lint, native tests and Python tests

lint: $(deps_stamp)  ## ruff and mypy
	@echo "==> ruff check"
	@$(BIN)/ruff check --quiet .
	@echo "==> ruff format --check"
	@$(BIN)/ruff format --quiet --check .
	@echo "==> mypy"
	@$(BIN)/mypy

# $(call build_tests,folder,cmake options)
build_tests = $(CMAKE) -S . -B $(1) -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja \
    -DATOLL_TESTS=ON $(2) --log-level=WARNING > $(1).log 2>&1 || { cat $(1).log; exit 1; }; \
    $(CMAKE) --build $(1) > $(1).log 2>&1 || { cat $(1).log; exit 1; }; rm -f $(1).log

test-native: $(deps_stamp) gtest  ## C++ tests
	@echo "==> building the native tests"
	@$(call build_tests,build-native,-DCMAKE_COMPILE_WARNING_AS_ERROR=$(WERROR))
	@echo "==> native tests"
	@cd build-native && OMP_NUM_THREADS=1 $(CTEST) $(CTEST_ARGS)

test-python: $(package_stamp)  ## Python tests
	@echo "==> Python tests"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_ARGS)

# ThreadSanitizer of GCC 12 dies where the kernel randomises addresses widely, so its tests run
# without that where the machine allows it.
test-sanitize: $(deps_stamp) gtest  ## C++ tests under ASan with UBSan, then under TSan
	@echo "==> building the native tests with ASan and UBSan"
	@$(call build_tests,build-asan,-DATOLL_SANITIZE=address$(comma)undefined $(sanitize_flags))
	@echo "==> native tests under ASan and UBSan"
	@cd build-asan && UBSAN_OPTIONS=print_stacktrace=1 $(CTEST) $(CTEST_ARGS)
	@echo "==> building the native tests with TSan"
	@$(call build_tests,build-tsan,-DATOLL_SANITIZE=thread $(sanitize_flags))
	@echo "==> native tests under TSan"
	@cd build-tsan && fixed=; setarch -R true 2>/dev/null && fixed='setarch -R'; \
	    TSAN_OPTIONS=second_deadlock_stack=1 $$fixed $(CTEST) $(CTEST_ARGS)

comma := ,
sanitize_flags := -DCMAKE_BUILD_TYPE=RelWithDebInfo

clean:  ## remove what was built; .venv stays
	@rm -rf build-*/ dist/ .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name .venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
