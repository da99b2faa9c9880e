# Every command of this project that a fresh checkout needs; `make help` lists them.

PYTHON ?= python3
RUNTIME := .venv/bin/python
DEVELOPMENT := .venv-dev/bin/python
GPU_PYTHON ?= $(DEVELOPMENT)
PYTEST_ARGUMENTS ?=
CHECKED_MODELS ?= detr-r34 detr-r50 detr-r101 yolo-n yolo-s yolo-m yolo-l yolo-x

.DEFAULT_GOAL := help
.PHONY: help setup-runtime setup-dev demo test test-gpu fuzz soak lint bench bench-node bench-deadline bench-models bench-training check-tensorrt lock clean check-python

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r target text; do \
		printf '  make %-14s %s\n' "$$target" "$$text"; done

check-python:
	@$(PYTHON) -c '' 2>/dev/null || { \
		echo 'setup: $(PYTHON) cannot be run: sudo apt install python3 python3-venv python3-dev, or give PYTHON=...' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "setup: $$($(PYTHON) --version 2>&1) is too old, 3.10 or newer is needed: give PYTHON=python3.11, say" >&2; exit 1; }

setup-runtime: check-python ## Create or confirm .venv: run-time packages and ROS, no torch
	@$(PYTHON) scripts/setup_environment.py runtime

setup-dev: check-python ## Create or confirm .venv-dev: that, torch, training and the tests
	@$(PYTHON) scripts/setup_environment.py development

demo: setup-runtime ## Run camera and detector under a changing load (DEMO_SECONDS sets the length)
	@$(RUNTIME) -m anydepth_perception.tools.demo

bench: setup-dev ## Measure all that docs/benchmark.md lists, within BENCH_SECONDS; prints JSON
	@$(DEVELOPMENT) -m training.bench

bench-node: setup-runtime ## Measure host time, inference per rung and transport, without torch; prints JSON
	@$(RUNTIME) -m anydepth_perception.tools.bench

bench-deadline: setup-runtime ## Measure the depth control: simulation, replay, and five minutes of the node under load; prints JSON
	@$(RUNTIME) -m anydepth_perception.tools.bench deadline

bench-models: setup-dev ## Time and memory of one forward of AnyDepth-DETR against Hugging Face's RTDetr
	$(DEVELOPMENT) -m training.bench.models

test: setup-runtime setup-dev lint ## Run lint and all tests (PYTEST_ARGUMENTS are passed on)
	$(DEVELOPMENT) -m pytest -n 2 --dist loadgroup $(PYTEST_ARGUMENTS)

test-gpu: $(if $(filter $(DEVELOPMENT),$(GPU_PYTHON)),setup-dev) ## Run the tests that need a GPU with TensorRT or TensorRT-RTX; fails where there is none
	$(GPU_PYTHON) -m pytest test/gpu -v -rP $(PYTEST_ARGUMENTS)

fuzz: setup-dev ## Try 2,000 damaged manifests, segments and cache entries, and 5,000 hostile images; make test tries fewer
	FUZZ_SHARE=1 $(DEVELOPMENT) -m pytest -s test/anydepth_perception/bundle/test_fuzz_bundle.py \
		test/anydepth_perception/detection/test_compressed_images.py $(PYTEST_ARGUMENTS)

soak: setup-runtime setup-dev ## Drive the node over DDS at random for SECONDS (1800): life cycle, parameters, cameras, hostile frames; prints JSON
	@$(DEVELOPMENT) test/soak/soak.py --seconds $(or $(SECONDS),1800)

lint: setup-dev ## Run ruff, mypy and the layers' contracts
	$(DEVELOPMENT) -m ruff check .
	$(DEVELOPMENT) -m mypy
	$(dir $(DEVELOPMENT))lint-imports

bench-training: setup-dev ## Measure what distillation adds to a training step, and the wait for images
	$(DEVELOPMENT) -m training.bench.training

check-tensorrt: setup-dev ## Build with TensorRT-RTX what the tests leave out, and record engine sizes; no GPU is needed
	$(DEVELOPMENT) -m training.bench.check_tensorrt --bundle models/aisle-yolo-t.anydepth --precision float16 \
		--record docs/engine_sizes.json
	$(DEVELOPMENT) -m training.bench.check_tensorrt $(CHECKED_MODELS:%=--model %)

lock: check-python ## Resolve requirements/*.in again into the pinned requirements/*.txt
	@$(PYTHON) scripts/lock_requirements.py

clean: ## Remove the environments, caches and outputs of demo, bench, lint and tests
	rm -rf .venv .venv-dev .cache build install log demo_output bench_output .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
