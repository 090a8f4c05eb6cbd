# On a fresh machine, `make quickstart` and `make test` do everything. PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
BIN := .venv/bin
SHELL := /bin/bash

.PHONY: quickstart slurm-demo certificates nightly test lint clean

quickstart: .venv/installed
	@echo "quickstart: measuring and training 4 attentions in 2 micro backbones, 24 cells: 5 to 10 minutes on 2 cores"
	@$(BIN)/attention-bench run quickstart --out runs/quickstart
	@$(BIN)/attention-bench table quickstart --out runs/quickstart --csv runs/quickstart/table.csv > /dev/null
	@$(BIN)/attention-bench report quickstart --out runs/quickstart -o runs/quickstart/report.html
	@echo "quickstart: records (one JSON file per cell), run folders and table.csv are in runs/quickstart"
	@echo "quickstart: open runs/quickstart/report.html in a browser: tables, figures, and what each number rests on"
	@echo "quickstart: next, source $(BIN)/activate; the README goes on from here with six commands"

slurm-demo: .venv/installed
	PATH="$(CURDIR)/$(BIN):$$PATH" tests/slurm/demo.sh runs/slurm-demo quickstart

# The certificates that the project ships: every law for every attention. Each takes seconds, the first one most of a minute.
certificates: .venv/installed
	$(BIN)/attention-bench check all "focused(kernel_size=None)" --out runs/zoo
	mkdir -p results/certificates && cp runs/zoo/certificates/*.json results/certificates

# What takes too long to wait for: tests at their full length (tests/nightly.py), then the certificates.
nightly: export NIGHTLY = 1
nightly: test certificates

test: .venv/installed lint
	$(BIN)/python -m pytest -n 4

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Of pip's lines, those that say what takes the time; errors are shown in full, and end the recipe.
.venv/installed: pyproject.toml
	@echo "install: creating .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv
	@echo "install: torch, timm and what they need, about 6 GB on disk: 2 to 15 minutes, of which the last one or two are silent"
	@set -o pipefail; $(BIN)/python -m pip install --disable-pip-version-check --editable '.[dev]' \
		| { grep --line-buffered -oE '(Downloading|Using cached|Processing) [^ ]+\.(whl|tar\.gz)( \(.*\))?$$|Installing collected packages' || true; }
	@touch $@
	@echo "install: done"

clean:
	rm -rf .venv runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
