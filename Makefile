# Every target sets up .venv by itself when it is missing or older than what it is made from.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: figures test lab lint

figures: $(STAMP)
	$(BIN)/medv figures

test: $(STAMP)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile tests

lab: $(STAMP)
	$(BIN)/jupyter lab notebooks

lint: $(STAMP)
	$(BIN)/ruff check medv_lab tests
	$(BIN)/ruff format --check medv_lab tests

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "medv-lab needs Python 3.11 or newer; '$(PYTHON)' is older. Use: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,demo]'
	touch $(STAMP)
