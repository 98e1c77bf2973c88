# Two commands for a newcomer: `make demo` and `make test`. The rest is for contributors.
# Works with nothing but Python 3.11+, make and a package index.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# What a user installs, and what contributors need beside it.
USED := $(VENV)/.installed-demo
STAMP := $(VENV)/.installed
WORKERS ?= auto

.DEFAULT_GOAL := help
.PHONY: help demo test lint types contracts check bench clean

help:
	@echo "make demo       install, then run the main job on a made dataset: extract, fit, export, eval, register, score"
	@echo "make test       install, then run every test"
	@echo "make lint       ruff; make types: mypy --strict; make contracts: import-linter; make check: all three"
	@echo "make clean      remove the demo's output (the environment stays)"

# Torch comes first and from constraints.txt: a looser request elsewhere would pull a build with CUDA libraries.
$(USED): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (the first time takes a few minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[demo]"
	@touch $@

$(STAMP): $(USED)
	@echo "installing what the tests need into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[demo,dev]"
	@touch $@

demo: $(USED)
	@$(BIN)/python tools/demo.py

test: $(STAMP)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

contracts: $(STAMP)
	$(BIN)/lint-imports

check: lint types contracts

clean:
	rm -rf demo
