# `make` or `make help` lists the targets. Everything runs in .venv, which `make env` creates.

PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help env hooks demo test test-all lint types data repro verify readme ablation summary exp ui web web-dist clean

help:  ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(BIN)/.complete  ## make .venv with the pinned dependencies (some GB: PyTorch)

$(BIN)/.complete: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,phone]'
	touch $@

demo: env  ## the whole pipeline on the embedded data set, in its own folder (8 minutes on 2 cores)
	python -m dermdistill.demo demo

PYTEST := pytest --numprocesses 2 --dist worksteal

test: lint  ## lint, types, tests, the published tables recomputed (8 minutes on 2 cores)
	$(PYTEST) -m "not slow"

test-all: lint  ## the same and every slow proof (docs/testing.md; half an hour)
	$(PYTEST)

hooks: env  ## check each commit before it is made: lint, and the weight of files and history
	pre-commit install

lint: env
	ruff check .
	ruff format --check .

types: env
	mypy

verify: env  ## recompute the tables of README and model card from the committed predictions
	python -m dermdistill.reporting.verify

data: env  ## bring HAM10000 to data/raw: SOURCE=DIR for a local copy, else download; OTHER=NAME SOURCE=DIR: a further source
	dermdistill data $(if $(SOURCE),"$(SOURCE)") $(if $(OTHER),--other "$(OTHER)")

repro: env  ## run whatever changed (the same as `dvc repro` with .venv active)
	dvc repro

readme: env  ## put the tables of report, quantize and ablation into README, model card and guides
	python -m dermdistill.reporting.readme

ablation: env  ## distil one student in every way params.yaml lists, JOBS=1 at a time; goes on where it stopped
	python -m dermdistill.ablation $(or $(JOBS),1)

summary: env  ## what is complete, what is missing and its command, best so far on val (seconds)
	dermdistill summary

exp: env  ## a preset as an experiment in a copy: PRESET=demo ARGS="-S kd.alpha=0.9", ARGS=--queue to put it in line
	python -m dermdistill.presets $(or $(PRESET),laptop) $(ARGS)

ui: env  ## browse the tracked runs in MLflow
	mlflow ui --backend-store-uri sqlite:///$(CURDIR)/runtime/mlflow.db

web/node_modules: web/package-lock.json
	npm ci --prefix web --silent
	touch $@

web: web/node_modules  ## judge photos in a browser, on a phone in this network too; PORT=8000 (docs/web.md)
	$(PYTHON) -m web.serve $(PORT)

web-dist: web/node_modules  ## the same page as a folder for any static host: runtime/web, or FOLDER=DIR
	$(PYTHON) -m web.build $(FOLDER)

clean:  ## remove the demo and caches; keeps .venv, data, models and checkpoints
	rm -rf demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
