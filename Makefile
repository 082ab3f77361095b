# Everything happens in .venv, which `make setup` builds from constraints.txt; the other targets call it first.

RECIPE ?= relation_digits
CHAIN ?= digits_l_m_s
ARGS ?=
MINIMUM ?= tests/test_extras.py tests/config tests/vit tests/targets tests/methods/test_distillation.py tests/tasks/test_classification.py tests/tasks/test_detection.py tests/training/test_lock.py tests/training/test_checkpoints.py tests/training/test_exact_resume.py tests/training/test_lightning_surface.py tests/data/test_hf_data.py tests/data/test_shards.py tests/cli/test_predict_command.py tests/export/test_export_forms.py tests/export/test_int8.py tests/export/test_products.py tests/report/test_run_report.py tests/scaling/test_correlations.py tests/safety/test_schemas.py
NEWEST ?= tests/behaviours $(MINIMUM)
PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup distill check chain resume report analyze study test test-minimum test-newest test-package release docs torture study-digits teacher teacher-fashion teachers lint format clean

help:  ## this list
	@echo "targets:"
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1|\2/' | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'
	@echo "recipes, chains, studies: $(BIN)/tinymim recipes"

setup: .venv/ready  ## build .venv with the pinned packages (CPU=1: PyTorch without CUDA, from PyTorch's own index)

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tinymim needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0])'
	$(PYTHON) -m venv .venv
	@echo "installing the packages of constraints.txt: minutes, and $(if $(CPU),2.5 GB,7 GB; two thirds are CUDA, which make setup CPU=1 leaves out)"
	$(BIN)/python -m pip install -q --disable-pip-version-check "$$(grep '^uv==' constraints.txt)"
	$(BIN)/uv pip install -q --python $(BIN)/python --compile-bytecode $(if $(CPU),--torch-backend cpu) -c constraints.txt -e '.[dev]'
	@touch $@

distill: setup  ## run RECIPE (default: the demo) and what it compares with, and print the table
	@$(BIN)/tinymim distill $(RECIPE) $(ARGS)

check: setup  ## check RECIPE before it runs
	@$(BIN)/tinymim check $(RECIPE) $(ARGS)

chain: setup  ## run CHAIN, or go on with it (default: teacher -> medium -> tiny on the digits)
	@$(BIN)/tinymim chain run $(CHAIN) --resume $(ARGS)

resume: setup  ## go on with the run or the chain in the folder RUN
	@$(BIN)/tinymim resume $(RUN) $(ARGS)

study: setup  ## the three papers' questions on the embedded data, one report (QUICK=1: within 20 minutes)
	@$(BIN)/tinymim papers $(if $(QUICK),--quick) $(ARGS)

study-digits: setup  ## the paper's questions on the digits, three seeds each (ARGS=--quick: one, and shorter)
	@$(BIN)/tinymim study digits $(ARGS)

report: setup  ## one HTML page of the run in the folder RUN
	@$(BIN)/tinymim report $(RUN) $(ARGS)

analyze: setup  ## where four networks look and what they share: MAE teacher, relation student, supervised, random
	@$(BIN)/tinymim fit --config relation_digits --ckpt_path last
	@$(BIN)/tinymim fit --config supervised_digits --ckpt_path last
	@$(BIN)/tinymim analyze "MAE teacher=digits_mae" "relation student=runs/relation_digits/checkpoints/last.ckpt" supervised=runs/supervised_digits/checkpoints/last.ckpt random=random:runs/relation_digits/checkpoints/last.ckpt --data digits $(ARGS)

teacher: setup  ## rebuild the digits teacher and its card
	@$(BIN)/tinymim fit --config mae_digits --overwrite true $(ARGS)
	@$(BIN)/tinymim teachers save runs/mae_digits/checkpoints/last.ckpt digits_mae

teacher-fashion: setup  ## rebuild the Fashion-MNIST teacher and its card: an hour of a core
	@$(BIN)/tinymim fit --config mae_fashion --overwrite true $(ARGS)
	@$(BIN)/tinymim teachers save runs/mae_fashion/checkpoints/last.ckpt fashion_mae

teachers: setup  ## list the teacher cards, and whether their weights are here
	@$(BIN)/tinymim teachers

test: setup lint docs  ## lint, types, documents and tests, and the slowest twenty (ARGS="--shuffle 7": in another order)
	@$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder --durations=20 tests/e2e tests $(ARGS)

docs: setup  ## the documents as a site, in site/: strict, and without a server
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

test-package: setup  ## the wheel without extras in a venv of its own, by the documents' commands (downloads; ARGS="--python 3.13")
	@$(BIN)/python -m tests.package $(ARGS)

release: setup  ## the same, and then sdist and wheel in dist/ (downloads)
	@$(BIN)/python -m tests.package --keep dist $(ARGS)

test-minimum: setup  ## a short part of the tests with the lowest versions that pyproject.toml admits (downloads them)
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	$(BIN)/uv venv -q --python $(BIN)/python "$$folder/venv" && \
	$(BIN)/uv pip install -q --python "$$folder/venv/bin/python" --resolution lowest-direct -e '.[dev]' && \
	PYTHONPATH=. "$$folder/venv/bin/python" -m pytest -p no:cacheprovider $(MINIMUM) $(ARGS)

test-newest: setup  ## the same part with the newest of everything: what moved, what is deprecated (ARGS=tests: all of them)
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	$(BIN)/uv venv -q --python $(BIN)/python "$$folder/venv" && \
	$(BIN)/uv pip install -q --python "$$folder/venv/bin/python" --resolution highest -e '.[dev]' && \
	PYTHONPATH=. "$$folder/venv/bin/python" -m pytest -p no:cacheprovider -p tests.newest -o filterwarnings= $(NEWEST) $(ARGS)

torture: setup  ## kill a chain 24 times at random moments, and compare what it ends with bit for bit
	@$(BIN)/python -m pytest tests/e2e/test_torture.py --kills 24 --dice 0 -s $(ARGS)

lint: setup  ## ruff and mypy
	@$(BIN)/ruff check tinymim tests benchmarks
	@$(BIN)/ruff format --check tinymim tests benchmarks
	@$(BIN)/mypy

format: setup  ## let ruff format the code
	@$(BIN)/ruff check --fix tinymim tests benchmarks
	@$(BIN)/ruff format tinymim tests benchmarks

clean:  ## remove .venv, the site and caches, never runs
	rm -rf .venv site .pytest_cache .mypy_cache .ruff_cache .hypothesis
