# make train and make test need Python 3.11 and make, nothing else; `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCE ?= petseg_lightning/serving/chelsea.jpg

.DEFAULT_GOAL := help
.PHONY: help setup train predict test test-slow lint format tensorboard lock check-dependencies clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 24

# Without the bytecode a first start compiles what it imports for 8 seconds, and where Python may not write it, every one.
setup: $(VENV)/.installed  ## a virtual environment in .venv with the pinned versions

$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	sed -n '/^uv==/,/[^\\]$$/p' requirements.lock | $(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--require-hashes -r /dev/stdin
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes \
		--build-constraint requirements.lock -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

train: setup  ## train the quickstart model on drawn pets and write its report
	$(BIN)/python -m petseg_lightning.train experiment=quickstart

predict: setup  ## masks, overlays and cut-outs of SOURCE, a picture or folder (a cat), by the model in the box
	$(BIN)/python -m petseg_lightning.predict ckpt=builtin source=$(SOURCE)

test: setup  ## the tests, in minutes, two at a time
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: setup  ## the tests that take longer
	$(BIN)/python -m pytest -m slow

lint: setup  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

tensorboard: setup  ## TensorBoard over all runs
	$(BIN)/tensorboard --logdir logs

lock: setup  ## pin the newest versions that pyproject.toml allows
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate \
		--no-emit-index-url --no-emit-find-links --generate-hashes --upgrade --extra dev pyproject.toml -o requirements.lock

check-dependencies:  ## whether a version in the lock has a known vulnerability, where the advisories can be reached
	$(PYTHON) .ci/check_dependencies.py requirements.lock

clean:  ## remove the environment and caches; runs and data stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache
