# `make demo` and `make test` set up everything they need in .venv, from a bare Python >= 3.11.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# One thread a process where tests run side by side: two torch processes of two threads each thrash two cores.
PYTEST := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2

.PHONY: help demo test check lint bench docs clean
help:           ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,test,dev]'
	@touch $@

demo: $(READY)  ## train, guard, compare on the built-in sandbox; then open demo/report/index.html
	$(BIN)/flipguard demo --out demo

test: lint      ## everything: style, types, all tests
	$(PYTEST)

check: lint     ## the fast lane: style, types, and the tests that take no training
	$(PYTEST) -m "not slow"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY) ## measure; rows go to the .csv files in benchmarks/
	$(BIN)/python benchmarks/compare_start.py
	$(BIN)/python benchmarks/sequential.py
	$(BIN)/python benchmarks/coverage.py
	$(BIN)/python benchmarks/compare_million.py
	$(BIN)/python benchmarks/data_loading.py
	$(BIN)/python benchmarks/dpo_step.py
	$(BIN)/python benchmarks/guard_cost.py
	$(BIN)/python benchmarks/refusal_detector.py

docs: $(READY)  ## the reference of every public function, in build/docs/index.html
	$(BIN)/python -m pdoc --output-directory build/docs --math flipguard

clean:          ## remove what the targets made
	rm -rf $(VENV) demo build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
