# The two commands of the README. Each makes .venv, installs the pinned versions and does its job.
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test kill-test disk-test browser-test lint docs clean
demo: $(VENV)/.installed
	rm -rf runs/demo
	$(BIN)/medtune run demo

# Two processes: most of a test's time goes into programs that it starts and waits for.
test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 20

# kill -9 at 20 moments of small runs, spread over all stages; `make test` kills twice.
kill-test: $(VENV)/.installed
	MEDTUNE_KILLS=20 $(BIN)/python -m pytest -s tests/faults/test_kill.py

# Disks that fill up at one writer after another; `make test` has the quicker of these tests.
disk-test: $(VENV)/.installed
	MEDTUNE_DISKS=1 $(BIN)/python -m pytest -rs tests/faults/test_full_disk.py

# Needs Chromium on the PATH; without it the tests say so and are skipped.
browser-test: $(VENV)/.installed
	$(BIN)/python -m pytest -m browser -rs

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.installed
	$(BIN)/python docs/reference.py docs
	cd tests && ../$(BIN)/python -m hostile.page ../docs

# torch comes first and by itself: the wheel that the pin selects decides between CPU and CUDA builds.
$(VENV)/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "medtune needs Python 3.11 or 3.12; name it with PYTHON=..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) runs dist build .pytest_cache .mypy_cache .ruff_cache
