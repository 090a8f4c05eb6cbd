# On a fresh machine: `make quickstart` and `make test` do everything. PYTHON picks the interpreter (3.11 or newer).
PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart slurm-demo certificates test lint clean

quickstart: .venv/installed
	$(BIN)/attention-bench run quickstart --out runs/quickstart
	$(BIN)/attention-bench table quickstart --out runs/quickstart --csv runs/quickstart/table.csv > /dev/null
	@echo "the records, one JSON per cell, and what training wrote, are in runs/quickstart"

slurm-demo: .venv/installed
	PATH="$(CURDIR)/$(BIN):$$PATH" tests/slurm/demo.sh runs/slurm-demo quickstart

# The certificates that the project ships: every law for every attention, some seconds each, or most of a minute the first time. Also what a night tests.
certificates: .venv/installed
	$(BIN)/attention-bench check all "focused(kernel_size=None)" --out runs/zoo
	mkdir -p results/certificates && cp runs/zoo/certificates/*.json results/certificates

test: .venv/installed lint
	$(BIN)/python -m pytest -n 4 --dist loadgroup

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

clean:
	rm -rf .venv runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
