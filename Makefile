# Everything runs in .venv/; a target that needs it sets it up.
PYTHON ?= python3
VENV := .venv
TIMM := build/timm
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check install --quiet --no-compile --constraint constraints.txt

.PHONY: help setup demo check test test-fast test-timm test-slow fuzz lint docs bench gpu clean

help:  ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

# Python compiles and keeps what it imports; compiling all of torch's files ahead would take longer than the demo.
unexport PYTHONDONTWRITEBYTECODE
$(VENV)/runtime: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	touch $@

$(VENV)/development: $(VENV)/runtime
	$(PIP) --editable '.[dev]'
	touch $@

# torchvision that does not fit the installed torch breaks every library that imports it unasked, such as lightning:
# it gets an environment of its own, which sees all of .venv/.
$(TIMM)/installed: $(VENV)/development
	$(BIN)/python -m venv --clear --without-pip $(TIMM)
	$(BIN)/python -c "import sysconfig; print('import site; site.addsitedir(%r)' % sysconfig.get_path('purelib'))" \
		> "$$($(TIMM)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/distail.pth"
	PIP_PYTHON=$(TIMM)/bin/python $(PIP) timm torchvision
	touch $@

$(VENV)/documentation: $(VENV)/development
	$(PIP) --editable '.[docs]'
	touch $@

setup: $(VENV)/development  ## the environment in .venv/

demo: $(VENV)/runtime  ## the main job on a small data set: a table and a page under runs/
	$(BIN)/distail demo

# The fast tests are those of one process that trains no whole run: every other file says so (pytest's mark `integration`).
FAST := $(BIN)/python -m pytest -m "not integration and not slow" --numprocesses auto --dist loadfile --durations 5 --durations-min 3
ROOM_FOLDERS = $(wildcard tests/$(ROOM) src/distail/$(ROOM) src/distail/$(ROOM).py)

check: lint  ## before every commit: style, types and the fast tests, in under three minutes
	$(FAST)

test-fast: setup  ## the fast tests of one room, such as ROOM=methods
	$(if $(ROOM_FOLDERS),,$(error ROOM is '$(ROOM)'; expected a folder of tests/ or src/distail/))
	$(FAST) $(ROOM_FOLDERS)

test: setup  ## what CI runs, but for test-timm
	$(BIN)/python -m pytest -m "not slow" --numprocesses auto --dist loadfile

test-timm: $(TIMM)/installed  ## the networks of timm, with torchvision
	$(TIMM)/bin/python -m pytest -m "not slow" tests/models/test_models_timm.py

test-slow: setup  ## what takes longer than CI has
	$(BIN)/python -m pytest -m slow

FUZZ_SECONDS ?= 60
fuzz: setup  ## every reader of a user's file fed with garbage, FUZZ_SECONDS each
	$(PIP) atheris
	set -e; for target in $$($(BIN)/python tests/fuzz/fuzz_forever.py); do echo "== $$target"; \
		$(BIN)/python tests/fuzz/fuzz_forever.py $$target -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=4096; done

lint: setup  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/documentation  ## the documentation as a site in build/site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: setup  ## speed, as ratios from one run
	$(BIN)/python benchmarks/speed.py

GPU_DATA = $(wildcard build/gpu/cifar100-lt.npz)
gpu: setup  ## all that needs a GPU, in under ten minutes: build/gpu/gpu.json and gpu.md
	$(BIN)/python benchmarks/gpu.py $(if $(GPU_DATA),--data $(GPU_DATA))

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
