# make run    serves the app on http://127.0.0.1:7860 (PORT=… and HOST=… change that)
# make test   format, lint, types and tests
# make setup  what both do first: .venv with requirements.txt and the `markovgen` command
# make clean  removes .venv and caches; weights/ and runs/ stay

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for python in python3 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$python && break; done)
HOST ?= $(or $(MARKOVGEN_HOST),127.0.0.1)
PORT ?= $(or $(MARKOVGEN_PORT),7860)
# One more than there are cores: browser tests wait a lot.
WORKERS := $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
PYTEST_ARGS ?= -n $(WORKERS) --dist worksteal
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.PHONY: run test setup system-packages clean

run: setup
	MARKOVGEN_HOST="$(HOST)" MARKOVGEN_PORT="$(PORT)" $(BIN)/python app.py

test: $(VENV)/.installed-dev system-packages
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest $(PYTEST_ARGS)

setup: $(VENV)/.installed

$(BIN)/python:
	@test -n "$(PYTHON)" || { \
		echo "MarkovGen needs Python 3.11 or 3.12, and python3 here is: $$(python3 --version 2>&1 || true)" >&2; \
		echo "Install python3.12, or name one that you have: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "$(PYTHON) cannot make a virtual environment (on Debian: apt-get install python3-venv)." >&2; exit 1; }

$(VENV)/.installed: requirements.txt pyproject.toml | $(BIN)/python
	@echo "Installing requirements.txt into $(VENV) (PyTorch is large: minutes the first time) …"
	$(PIP) -r requirements.txt "setuptools>=77"
	$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(PIP) -r requirements-dev.txt
	@touch $@

# The scenes are drawn with this font, and the app is driven in this browser.
system-packages:
	@missing=""; \
	command -v chromium >/dev/null || missing="$$missing chromium"; \
	find /usr/share/fonts /Library/Fonts -name NotoColorEmoji.ttf 2>/dev/null | grep -q . \
		|| missing="$$missing fonts-noto-color-emoji"; \
	test -z "$$missing" && exit 0; \
	if test -f /etc/debian_version && test "$$(id -u)" = 0; then \
		apt-get update -qq && apt-get install -qq -y --no-install-recommends $$missing; \
	else \
		echo "The tests need these Debian packages:$$missing" >&2; \
		echo "On Debian: sudo apt-get install$$missing. Elsewhere: put the command chromium on the PATH," >&2; \
		echo "and the font Noto Color Emoji under /usr/share/fonts or /Library/Fonts." >&2; \
		exit 1; \
	fi

clean:
	rm -rf $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .gradio test-results
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
