# `make` takes a fresh clone to a trained GPT and its samples; needs Python ≥ 3.11, git and make.
# `make test`, `make lint`, `make clean`. PYTHON=python3.12 chooses another interpreter.

PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
PIP := .venv/bin/python -m pip --disable-pip-version-check
RESULTS := dvc.lock data/training/metrics.json data/evaluation/metrics.json

.DEFAULT_GOAL := all
.PHONY: all setup check test lint clean ablations mutants minute ten-minutes hour gpu

all: check
	python -m dvc repro
	@echo
	@echo "Next: tinygpt generate \"ROMEO:\"   (after: source .venv/bin/activate)"
	@test -z "$$(git status --porcelain -- $(RESULTS))" || { echo; \
	  echo "To compare experiments with this run, commit its results:"; \
	  echo "    git add $(RESULTS) && git commit -m \"My first run\""; }

setup: .venv/ready .dvc/plots.html

# Exact versions of all packages, including those installed later: the lock file is a constraints file.
.venv/ready: pyproject.toml requirements.lock
	@git rev-parse --git-dir > /dev/null || { echo "This is not a git repository, which DVC needs. Clone the repository instead of unpacking an archive, or make one: git init && git add -A && git commit -m start"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "TinyGPT needs Python 3.11 to 3.13; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12")'
	@echo "building .venv from pinned versions; this takes one to seven minutes"
	@.venv/bin/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@$(PIP) install -qq --constraint requirements.lock --editable .
	@touch $@

.venv/ready-for-tests: .venv/ready
	@echo "adding what the tests need to .venv"
	@$(PIP) install -qq --constraint requirements.lock --editable '.[test,lint,web]'
	@touch $@

# `dvc plots` makes a page that loads JavaScript from the web; this template contains it, so that the page works offline.
.dvc/plots.html: .venv/ready
	@.venv/bin/python -c 'import vl_convert as vl; print("<!DOCTYPE html>\n<meta charset=\"utf-8\">\n<title>TinyGPT</title>\n<script>" + vl.javascript_bundle().replace("</script", "<\\/script") + "</script>\n<body style=\"font-family: sans-serif\">\n{plot_divs}\n</body>")' > $@.partial
	@mv $@.partial $@
	@.venv/bin/python -m dvc config --local plots.html_template plots.html

# The named sizes of sizes.yaml, each as an experiment: `tinygpt compare` lists them.
minute ten-minutes hour gpu: check
	python -m dvc exp run --name $@-$$(date +%s) $$(python -m tinygpt size $@)

# The ablation study of docs/experiments.md. Half an hour on two cores; an interrupted run continues.
ablations: check
	python -m benchmark.ablations

# Mutation tests, docs/mutants.md. Two minutes on two idle cores; an interrupted run continues.
mutants: .venv/ready-for-tests
	python -m tools.mutants --update

check: setup
	@python -m tinygpt check

test: setup .venv/ready-for-tests
	python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(TESTS)

lint: .venv/ready-for-tests
	python -m ruff check
	python -m ruff format --check
	python -m mypy
	lint-imports

# Removes generated files; results and DVC's cache stay (`dvc gc --workspace` shrinks the cache).
clean:
	rm -rf .venv .dvc/plots.html dvc_plots .mypy_cache .import_linter_cache .grimp_cache .ruff_cache .pytest_cache .hypothesis
