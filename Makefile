# make demo: BP, FA and DFA side by side on scikit-learn's digits, ending in a table and a figure.
# make test, make lint: what .ci/run runs. make test-all: the slow tests too, and every notebook.
# make docs: the site, in site/. Each installs what it needs into .venv. make test-oldest: the core
# of the tests with the lowest versions that pyproject.toml admits, in .venv-oldest (8 GB).
# make benchmark: all rules on digits, tuned under one budget. make release-check: builds what is
# released, and runs the demo from it, without the checkout.

PYTHON ?= python3
OLDEST_PYTHON ?= $(shell python3.10 -c 'import sys; print(sys.executable)' 2>/dev/null || echo $(PYTHON))
BIN := .venv/bin

.PHONY: demo benchmark test test-all notebooks test-oldest lint docs dist release-check

demo: .venv/installed
	@$(BIN)/lit-credit demo

benchmark: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/lit-credit benchmark --suite digits --trainer.accelerator cpu

# Every test, with few of the cases that take long.
test: .venv/installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

test-all: .venv/installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

notebooks: .venv/installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal tests/test_notebooks.py

# Deprecations of old versions by newer ones below them are not ours to mend.
test-oldest: .venv-oldest/installed
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -n 2 --dist worksteal \
		$(addprefix -W ignore::,DeprecationWarning FutureWarning PendingDeprecationWarning) \
		tests/functional tests/feedback tests/rules tests/callbacks/test_contract.py \
		tests/callbacks/test_contract_refusals.py tests/cli/test_cli.py

lint: .venv/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: .venv/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# The files of a release, in dist/.
dist: .venv-release/installed
	rm -rf dist
	.venv-release/bin/python -m build
	.venv-release/bin/python -m twine check --strict dist/*

# Installs the wheel and what it requires into an empty environment (8 GB), and runs the demo there.
# make release-check RELEASE="--site .venv/lib/python3.11/site-packages" borrows the requirements.
release-check: dist
	.venv-release/bin/python tools/release_check.py dist $(RELEASE)

.venv-release/installed:
	test -x .venv-release/bin/python || $(PYTHON) -m venv .venv-release
	.venv-release/bin/python -m pip install --disable-pip-version-check -q "build>=1.2" "twine>=6.1"
	touch $@

.venv/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -q -e .
	touch $@

.venv/installed-%: pyproject.toml .venv/installed
	$(BIN)/python -m pip install --disable-pip-version-check -q -e ".[$*]"
	touch $@

.venv-oldest/installed: pyproject.toml tools/lowest.py
	test -x .venv-oldest/bin/python || $(OLDEST_PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --disable-pip-version-check -q --no-deps -e .
	.venv-oldest/bin/python tools/lowest.py test > .venv-oldest/lowest.txt
	.venv-oldest/bin/python -m pip install --disable-pip-version-check -q -r .venv-oldest/lowest.txt
	touch $@
