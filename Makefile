# make quickstart: set up and run the main job.  make test: set up and test.
# make docs: build the documentation, offline; it lands in docs/_build/html.
# make bench: measure everything beside its peers and write benchmarks/RESULTS.md and .json.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: quickstart test test-slow check format docs reference bench bench-small clean

quickstart: $(READY)
	$(BIN)/cnnvis quickstart

# Two processes of one thread each: a test file stays in one, so Ray starts once per process.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not slow" --numprocesses 2 --dist loadfile

test-slow: $(READY)
	$(BIN)/pytest -m slow

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY)
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet -b html docs docs/_build/html

# Two hours on a quiet machine; BENCH="--only extraction" keeps the other figures of the table.
bench: $(READY)
	$(BIN)/python benchmarks/table.py $(BENCH)

bench-small: $(READY)
	$(BIN)/python benchmarks/table.py --small

reference: $(READY)
	$(BIN)/python docs/make_reference.py

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or later is needed: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf .venv build dist docs/_build *.egg-info
