# Needs make and Python 3.11. `make demo` and `make test` do everything else.

PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1

SHARED ?= ../shared

.PHONY: help venv demo test test-all lint format bench coverage clean

help:
	@echo "make demo      optimise the small model of models/ and print what was found"
	@echo "make test      the tests that take seconds each"
	@echo "make test-all  the slow ones too"
	@echo "make lint      ruff and mypy"
	@echo "make format    let ruff put the sources in order"
	@echo "make bench     training speed of the super-network against the same network by hand"
	@echo "make coverage  check every real network of SHARED (default ../shared), writes docs/coverage.md"
	@echo "make clean     remove what make and the tools made"

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(STAMP)
	rm -rf runs/demo
	$(BIN)/onnxnas optimize models/digits_resnet.onnx --data models/digits.yaml --preset quick -o runs/demo

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile --max-worker-restart 0 $(ARGS)

test-all: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m 'slow or not slow' $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)
	$(BIN)/python tools/bench_supernet.py

coverage: $(STAMP)
	$(BIN)/python tools/coverage.py --shared $(SHARED) -o docs/coverage.md

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis runs/demo
