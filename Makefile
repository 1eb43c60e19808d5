# make demo   train and serve a small model on real text, about three minutes on two cores
# make test   the whole test suite
# make lint   formatting, style and types
# make bench  every benchmark case on this machine
#
# A machine that should get another torch build names it: make demo TORCH="torch==2.13.0 --index-url URL"

PYTHON ?= python3
TORCH  ?= torch==2.13.0
ARGS   ?=
BIN    := .venv/bin
CUDA_SOURCES = $(shell git ls-files 'csrc/*.cu' 'csrc/*.cuh' 'csrc/*.h' 'csrc/*.cpp')

.PHONY: setup demo test lint format bench clean

# torch first, by itself: a range resolved by another package would fetch the newest build, CUDA wheels and all.
.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

setup: .venv/ready

demo: .venv/ready
	$(BIN)/python -m benchmarks end_to_end $(ARGS)

test: .venv/ready
	$(BIN)/python -m pytest tests $(ARGS)

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(if $(CUDA_SOURCES),$(BIN)/clang-format --dry-run --Werror $(CUDA_SOURCES))

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(if $(CUDA_SOURCES),$(BIN)/clang-format -i $(CUDA_SOURCES))

bench: .venv/ready
	$(BIN)/python -m benchmarks run all $(ARGS)

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
