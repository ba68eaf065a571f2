# make install | demo [SIZE=tiny] | test | lint | docs | clean
PYTHON ?= python3
SIZE ?= small
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install demo test lint docs clean

install: $(VENV)/installed

# The stamp is newer than pyproject.toml exactly when everything in it is installed.
$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@

demo: install
	$(BIN)/cupola demo --size $(SIZE) --out runs/demo-$(SIZE)

# A worker a core, each on one thread: torch's threads stall one another where there are more threads than cores.
test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: install
	$(BIN)/python -m pytest -q tests/test_docs.py

clean:
	rm -rf $(VENV) runs build dist
