# Every target sets up .venv by itself when it is missing or older than what it is made from.
PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)
VENV = .venv
CONSTRAINTS = constraints.txt
BIN = $(VENV)/bin
STAMP := $(VENV)/.installed
PHANTOM := results/panels/pictures/test-00.png
PIP = $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint $(CONSTRAINTS)

.PHONY: figures test floors fuzz crash conformance browser lab lint

# Asks the embedded model about a phantom, then draws every figure and table anew.
figures: $(STAMP)
	$(BIN)/medv ask $(PHANTOM) "Describe the image." --preset embedded-description --gif build/answer.gif
	@echo "build/answer.gif shows how that answer was unmasked. Now the figures:"
	$(BIN)/medv figures

test: $(STAMP)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile \
		--nbval-lax --nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg tests notebooks

# The default tests with the oldest version of everything that pyproject.toml allows, in an environment of 8 GB.
floors: VENV = .venv-floors
floors: CONSTRAINTS = tests/floors.txt
floors: .venv-floors/.installed
	$(BIN)/python -m pytest -q -n 2 --dist loadfile tests

# Damaged pictures, checkpoints, settings, data, traces, journals, replies and commands, each read or refused by name.
# The seeds are fixed: MEDV_FUZZ_INPUTS=2000 make fuzz tries more of each kind.
fuzz: $(STAMP)
	$(BIN)/python -m pytest -q -n 2 -m fuzz tests/fuzz

# Every command that writes: killed, without room, where nothing may be written, and two at a time; 105 faults.
crash: $(STAMP)
	$(BIN)/python -m pytest -q -n 2 -m crash tests/fuzz

# transformers' own test mixins on our classes; they come from its source distribution, so this needs a package index.
conformance: $(STAMP)
	$(BIN)/python -m pytest -q -n 2 -m conformance tests/conformance

# Real JupyterLab in Debian's chromium, which is installed where it is missing: needs apt, and the right to use it.
# Screenshots of every state go to build/browser, the README's picture to figures/explorer.png.
browser: $(STAMP)
	@command -v chromium >/dev/null || { apt-get update && apt-get install --yes --no-install-recommends chromium; }
	$(BIN)/python -m pytest -q -m browser tests/browser

lab: $(STAMP)
	$(BIN)/jupyter lab notebooks

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

$(STAMP): constraints.txt
.venv-floors/.installed: tests/floors.txt
$(STAMP) .venv-floors/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "medv-lab needs Python 3.11 or newer, and '$(PYTHON)' is not."; \
		echo "Name another one: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) setuptools
	$(PIP) --no-build-isolation --editable '.[demo,test]'
	@touch $@
