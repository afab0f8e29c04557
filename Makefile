# `make demo` to use it, `make test` to work on it, `make help` for the rest.
# Plain sh, and nothing newer than GNU make 3.81: that is the version macOS ships.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
PYTEST_ARGS ?=

BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --no-input
# A stamp lies inside the environment, so removing the environment removes it too.
RUN_STAMP := $(VENV)/.installed
TRAIN_STAMP := $(VENV)/.installed-train
DEV_STAMP := $(VENV)/.installed-dev

.DEFAULT_GOAL := help
.PHONY: help demo train test env lint format lock space clean distclean

help:
	@echo "make demo       install what the page needs into $(VENV), then open the page; ARGS='...' goes to the program"
	@echo "make test       install the developer tools too, then run every check; PYTEST_ARGS='-m slow' for the slow tests"
	@echo "make train      install what training and analysis need beside it"
	@echo "make env        install only: all of that and the developer tools"
	@echo "make lint       ruff, formatting, mypy"
	@echo "make format     rewrite the code in the house style"
	@echo "make lock       write requirements.lock, -train.lock and -dev.lock anew from their ranges"
	@echo "make space      push a snapshot of the last commit to a Hugging Face Space: SPACE=https://huggingface.co/spaces/..."
	@echo "make clean      remove caches;  make distclean: $(VENV) as well. Neither touches runs/, data/ or weights/"
	@echo
	@echo "PYTHON=python3.12 picks the interpreter (3.10 or newer), VENV=path another place for the environment."

demo: $(RUN_STAMP)
	$(BIN)/python -m app $(ARGS)

test: lint
	$(BIN)/python -m pytest $(PYTEST_ARGS)

train: $(TRAIN_STAMP)

env: $(DEV_STAMP)

lint: $(DEV_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(DEV_STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(BIN)/python:
	@command -v "$(PYTHON)" >/dev/null 2>&1 || { \
	  echo "No '$(PYTHON)' here. Install Python 3.10 or newer, or name yours: make PYTHON=/path/to/python3 ..." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "MemoryGAN Studio needs Python 3.10 or newer, and '$(PYTHON)' is $$("$(PYTHON)" -V 2>&1)." >&2; \
	  echo "If a newer one is installed, name it: make PYTHON=python3.12 ..." >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments: its venv module is missing." >&2; \
	  echo "On Debian and Ubuntu: sudo apt install python3-venv" >&2; exit 1; }
	"$(PYTHON)" -m venv --clear "$(VENV)"

$(RUN_STAMP): $(BIN)/python requirements.lock
	@echo "Installing the pinned dependencies into $(VENV): 5.7 GB on Linux, where torch brings its CUDA libraries."
	$(INSTALL) -r requirements.lock
	@touch $@

$(TRAIN_STAMP): $(RUN_STAMP) requirements-train.lock
	$(INSTALL) -r requirements-train.lock
	@touch $@

$(DEV_STAMP): $(TRAIN_STAMP) requirements-dev.lock
	$(INSTALL) -r requirements-dev.lock
	@touch $@

# Why `===` for torch and torchvision: `==2.13.0` also accepts a build tagged 2.13.0+cpu, if pip is shown one, and then
# finds no torchvision that fits it. `===` accepts the plain build alone.
lock:
	@set -e; tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
	"$(PYTHON)" -m venv "$$tmp/venv"; "$$tmp/venv/bin/pip" install --quiet --disable-pip-version-check uv; \
	cp requirements*.txt pyproject.toml "$$tmp"; cd "$$tmp"; \
	compile="venv/bin/uv pip compile --quiet --universal --python-version 3.10 --no-header --annotation-style line"; \
	exact() { echo "$$1"; sed -e 's/^torch==/torch===/' -e 's/^torchvision==/torchvision===/' "$$2"; }; \
	$$compile requirements.txt -o run; \
	exact "# Exact versions for Python 3.10 to 3.13 on Linux, macOS and Windows. Written by 'make lock' from requirements.txt." \
	  run > requirements.lock; \
	$$compile requirements-analysis.txt requirements-train.txt -c requirements.lock -o train; \
	exact "# What training and analysis need beside it, exact. Written by 'make lock'; fits requirements.lock." \
	  train > requirements-train.lock; \
	$$compile --group dev -c requirements.lock -c requirements-train.lock -o dev; \
	exact "# The developer tools, exact. Written by 'make lock' from the dev group in pyproject.toml; fits both other locks." \
	  dev > requirements-dev.lock; \
	cp requirements.lock requirements-train.lock requirements-dev.lock "$(CURDIR)"

# A Space takes no binary files outside Git LFS, and this repository has none inside: so a repository of its own, with one
# commit and no history, takes what the page needs there.
SPACE_FILES := app editing memorygan weights docs requirements.txt README.md LICENSE
SPACE_LFS := "*.safetensors" "*.npz" "*.png" "*.webp"
space:
	@test -n "$(SPACE)" || { echo "Name the Space: make space SPACE=https://huggingface.co/spaces/you/studio" >&2; exit 1; }
	@git lfs version >/dev/null 2>&1 || { echo "This needs Git LFS, see https://git-lfs.com" >&2; exit 1; }
	@set -e; tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
	name=$$(git config user.name || echo studio); mail=$$(git config user.email || echo studio@localhost); \
	message="MemoryGAN Studio $$(git rev-parse --short HEAD)"; \
	git archive HEAD $(SPACE_FILES) | tar -x -C "$$tmp"; cd "$$tmp"; \
	git init --quiet .; git lfs install --local >/dev/null; git lfs track $(SPACE_LFS) >/dev/null; git add --all; \
	git -c user.name="$$name" -c user.email="$$mail" commit --quiet -m "$$message"; \
	git push --force "$(SPACE)" HEAD:main

clean:
	rm -rf .mypy_cache .pytest_cache .ruff_cache build *.egg-info
	find app editing memorygan tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf "$(VENV)"
