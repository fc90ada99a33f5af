# The same commands for people and for CI. `make` alone lists them.
VENV := .venv
BIN := $(VENV)/bin
SOURCES := lgi LGI.py tests twisted demo bench etc setup.py

.PHONY: help demo test lint bench format clean

help:
	@echo "make demo          a whole grid on this machine: a project, its services, two jobs, their results"
	@echo "make demo KEEP=1   the same, left running, with how to use and stop it"
	@echo "make test          style, types, layers and all tests"
	@echo "make lint          style, types and layers alone"
	@echo "make bench         measures calls with up to a million jobs, for two hours, and writes docs/performance.md"
	@echo "make bench QUICK=1 the same with up to 10,000 jobs in minutes, and writes nothing"
	@echo "make format        put the sources into the house's format"
	@echo "make clean         remove what these commands made"

$(VENV)/.installed: setup.py pyproject.toml tools/make-venv
	tools/make-venv $(VENV) .
	@touch $@

$(VENV)/.installed-for-bench: $(VENV)/.installed
	tools/need-programs compiler
	tools/make-venv $(VENV) ".[bench]"
	@touch $@

$(VENV)/.installed-for-tests: $(VENV)/.installed
	tools/need-programs compiler
	tools/make-venv $(VENV) ".[test]"
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/python demo/run.py $(if $(KEEP),--keep)

lint: $(VENV)/.installed-for-tests
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

test: lint
	tools/need-programs tests
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

bench: $(VENV)/.installed-for-bench
	tools/need-programs bench
	$(BIN)/python -m bench.calls $(if $(QUICK),--quick,--write docs/performance.md)

format: $(VENV)/.installed-for-tests
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

clean:
	rm -rf $(VENV) demo/grid demo/results build lgi.egg-info .mypy_cache .ruff_cache .hypothesis _trial_temp*
