# Two commands do everything on a fresh machine with Python and make: `make demo`, `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
DATA   ?= ../shared/data

.DEFAULT_GOAL := help
.PHONY: help install demo test lint types unit-tests test-kernels torchvision docs dist bench results models stale clean

help: ## Say what each target does
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(VENV)/.installed ## Set up .venv with rankwise and what its tests need

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

$(VENV)/.docs-installed: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

demo: install ## Train on the digits embedded in scikit-learn and show what came out
	$(BIN)/rankwise demo --out demo-out

test: lint types unit-tests ## Lint, types and tests

lint: install ## Check style and formatting
	$(BIN)/ruff check src tests benchmarks examples docs
	$(BIN)/ruff format --check src tests benchmarks examples docs

types: install ## Check types
	$(BIN)/mypy

unit-tests: install ## Run the tests on all cores
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

test-kernels: install ## The numerical tests again, as other processors round
	$(BIN)/python tests/kernels.py

torchvision: ## Try backbones of the real torchvision, in an environment of its own (5.5 GB)
	$(PYTHON) tests/real_torchvision.py

docs: $(VENV)/.docs-installed ## Build the site into site/; a warning or a dead link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

dist: install ## Build wheel and sdist into dist/, install each into an empty environment, try it
	$(BIN)/python tests/dist.py

bench: install ## Every benchmark in its quick form, a minute or two
	$(BIN)/python benchmarks/run_all.py --quick

results: install ## Most figures of docs/results.md, measured anew: days (DATA=folder of the data sets)
	$(BIN)/python benchmarks/run_all.py --data $(DATA)
	$(BIN)/python benchmarks/render.py

models: install ## Train the models that come with the package anew, an hour (DATA=folder of the data sets)
	$(BIN)/python benchmarks/models.py --data $(DATA)

stale: install ## Which figures were measured with code that has changed since
	$(BIN)/python benchmarks/render.py --stale

clean: ## Remove what the other targets made
	rm -rf $(VENV) demo-out build dist site src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
