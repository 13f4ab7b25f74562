# make serve   a real search service on this machine, in the foreground (PORT=8000)
# make test    everything that CI runs
#
# torch comes from the package index that pip is set up for: on Linux that is the CUDA build, several gigabytes.
# TORCH_INDEX=https://download.pytorch.org/whl/cpu takes the CPU build.

PYTHON ?= python3
PORT ?= 8000
TORCH_INDEX ?=

BIN := .venv/bin
INSTALL := $(BIN)/pip install --disable-pip-version-check --constraint constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

.PHONY: serve test
.DEFAULT_GOAL := serve

serve: .venv/quickstart
	@exec $(BIN)/bge-serve up configs/quickstart.yaml --port $(PORT) --index stdlib:

test: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/pytest -m "not ray" --numprocesses 2 --dist loadfile
	$(BIN)/pytest -m ray

# A stamp names what is installed, so that a second `make` installs nothing.
.venv/%: pyproject.toml constraints.txt | .venv
	@echo "installing bge-serve[$*] into .venv (minutes, the first time)"
	$(INSTALL) --editable '.[$*]'
	@touch $@

.venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is too old: bge-serve needs Python 3.11 or later (make PYTHON=python3.12)"; exit 1; }
	$(PYTHON) -m venv .venv
