# Every task of the project. Bare `make` prints this list.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=
MODEL ?=
BRAIN ?=
VLLM_ENV ?= .venv-vllm
OVERLAY ?= bare
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

help: ## Print this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(VENV)/.stamp ## Create .venv with everything needed to run, test and lint

$(VENV)/.stamp: pyproject.toml setup.py constraints.txt tools/protos.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/voicemesh tune --build-only
	touch $@

protos: setup ## Generate gen/ from protos/ (does nothing when it is fresh)
	@$(BIN)/python tools/protos.py

baseline: protos ## Take the protos as they are as what `buf breaking` compares with (at a release)
	cd protos && ../$(BIN)/buf build --exclude-source-info -o baseline.binpb

fmt: protos ## Format Python and protos
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/buf format -w protos

lint: protos ## ruff, mypy strict, import-linter, buf lint, buf breaking
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PYTHONPATH=gen $(BIN)/lint-imports
	$(BIN)/buf format -d --exit-code protos
	cd protos && ../$(BIN)/buf lint
	cd protos && ../$(BIN)/buf breaking --against baseline.binpb

DEBIAN = chromium espeak-ng nginx prometheus
debian: ## Install the programs that some tests drive, where apt-get is there and they are not (as root)
	@missing=; for program in chromium espeak-ng nginx promtool; do command -v $$program > /dev/null || missing=yes; done; \
	command -v kubectl > /dev/null || missing="$$missing kubernetes-client"; \
	if [ -n "$$missing" ]; then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
	--no-install-recommends $(DEBIAN) $${missing#yes} > /dev/null; fi

test: protos ## All tests that need neither GPU nor weights
	$(BIN)/python -m pytest -m 'not gpu and not weights and not vllm' $(PYTEST_ARGS)

test-gpu: protos ## The tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu $(PYTEST_ARGS)

test-vllm: protos ## The tests that need vLLM, in an environment of its own (VLLM_ENV, 3.8 GB)
	$(PYTHON) tools/vllm/make_env.py $(VLLM_ENV)
	$(VLLM_ENV)/bin/python tools/vllm/run_tests.py $(PYTEST_ARGS)

test-faults: protos ## The tests that kill processes and cut connections
	$(BIN)/python -m pytest -m fault $(PYTEST_ARGS)

bench: protos ## The hop benchmark; `voicemesh bench --help` lists the others
	$(BIN)/voicemesh bench hop

regress: protos ## Speech streamed against speech from the whole text; a page to listen at
	$(BIN)/python -m tools.regress $(if $(MODEL),--model $(MODEL))

dashboards: protos ## Write deploy/monitoring/ from tools/dashboards/ and alerts.yaml
	$(BIN)/python -m tools.dashboards

dashboard-types: setup ## Check the dashboards against Grafana's own types (needs node and npm)
	$(BIN)/python -m tools.dashboards.types

images: ## Build both images (TORCH_INDEX: index of torch's CPU builds, for a small one)
	docker build -f deploy/images/cpu.Dockerfile $(if $(TORCH_INDEX),--build-arg TORCH_INDEX=$(TORCH_INDEX)) -t voicemesh/cpu:$(VERSION) .
	docker build -f deploy/images/cuda.Dockerfile -t voicemesh/cuda:$(VERSION) .

deploy: ## Show what an overlay changes in the cluster of kubectl's context, and apply it (OVERLAY=bare|gpu|scale|turn)
	-kubectl diff -k deploy/overlays/$(OVERLAY)
	kubectl apply -k deploy/overlays/$(OVERLAY)

observe: protos ## Debian's Prometheus over the running mesh, with our rules (http://127.0.0.1:9090)
	$(BIN)/python -m tools.observe

run: protos ## Start all four services on this machine
	@$(BIN)/voicemesh serve all $(if $(MODEL),--model $(MODEL)) $(if $(BRAIN),--brain $(BRAIN))

.PHONY: help setup debian protos baseline fmt lint test test-gpu test-vllm test-faults bench regress dashboards dashboard-types images deploy observe run
