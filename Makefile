# The two commands of the README. Each makes .venv, installs the pinned versions and does its job.
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
PATH_HINT = medtune is in $(BIN): ". $(BIN)/activate" puts it on the PATH

# The tests start hundreds of processes, none of which is to compile medtune again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all kill-test disk-test browser-test lint docs docs-site clean
# A demo that was interrupted goes on; a finished one is made again.
demo: $(VENV)/.installed
	@echo '$(PATH_HINT)'
	@test ! -f runs/demo/report.html || rm -rf runs/demo
	$(BIN)/medtune run demo --resume
	@echo '$(PATH_HINT)'

PYTEST := $(BIN)/python -m pytest -rs
# Two processes, each with whole files: what a file's tests share is made once.
IN_TWO := -n 2 --dist loadfile --no-loadscope-reorder --durations 20

test: $(VENV)/.installed
	$(PYTEST) $(IN_TWO)

# With kills, full disks, whole notebooks, benchmarks: all that needs neither a GPU nor a browser.
test-all: $(VENV)/.installed
	$(PYTEST) $(IN_TWO) -m "not gpu and not browser"

# kill -9 at 20 moments of small runs, spread over all stages; `make test-all` kills twice.
kill-test: $(VENV)/.installed
	MEDTUNE_KILLS=20 $(PYTEST) -s -m slow tests/faults/test_kill.py

# Disks that fill up at one writer after another.
disk-test: $(VENV)/.installed
	$(PYTEST) -m slow tests/faults/test_full_disk.py

# Needs Chromium on the PATH; without it the tests say so and are skipped.
browser-test: $(VENV)/.installed
	$(PYTEST) -m browser $$(grep -rl "mark\.browser" tests --include "test_*.py")

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.installed
	$(BIN)/python docs/reference.py docs
	cd tests && ../$(BIN)/python -m hostile.page ../docs

# The docs as a site, in site/. A warning is an error: a page or an anchor that is not there, a page that nothing names.
docs-site: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# torch comes first and by itself: the wheel that the pin selects decides between CPU and CUDA builds.
$(VENV)/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "medtune needs Python 3.11 or 3.12; name it with PYTHON=..."; exit 2; }
	@echo 'installing the pinned packages into $(VENV): some minutes and about 3 GB, several more with a CUDA build of torch'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) runs dist build site .pytest_cache .mypy_cache .ruff_cache
