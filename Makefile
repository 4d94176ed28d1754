# make demo: BP, FA and DFA side by side on scikit-learn's digits, ending in a table and a figure.
# make test, make lint: what CI runs. make docs: the site, in site/. Each installs what it needs into
# .venv. make test-oldest: the core of the tests with the lowest versions that pyproject.toml admits,
# in .venv-oldest (8 GB). make benchmark: all rules on digits, tuned under one budget.

PYTHON ?= python3
OLDEST_PYTHON ?= $(shell python3.10 -c 'import sys; print(sys.executable)' 2>/dev/null || echo $(PYTHON))
BIN := .venv/bin
DEMO := runs/demo
SEEDS := 42 123 456
RUNS := $(foreach rule,bp fa dfa,$(foreach seed,$(SEEDS),$(DEMO)/$(rule).$(seed).done))

.PHONY: demo benchmark test notebooks test-oldest lint docs

demo: .venv/installed
	@echo "Training BP, FA and DFA with three seeds each, two runs at a time."
	@$(MAKE) --no-print-directory -j 2 $(RUNS)
	@$(BIN)/lit-credit compare $(DEMO) --out $(DEMO)
	@echo
	@echo "Figure:      $(DEMO)/comparison.png"
	@echo "Table:       $(DEMO)/comparison.csv"
	@echo "TensorBoard: $(BIN)/tensorboard --logdir $(DEMO)"

# A run that was interrupted goes on from its last checkpoint.
$(DEMO)/%.done: | .venv/installed
	@mkdir -p $(DEMO)
	@echo "  $(basename $*), seed $(patsubst .%,%,$(suffix $*)): training 100 epochs"
	@OMP_NUM_THREADS=1 $(BIN)/lit-credit fit --config configs/residual_explosion/$(basename $*).yaml \
		--seed_everything $(patsubst .%,%,$(suffix $*)) --trainer.default_root_dir $(DEMO) \
		--trainer.accelerator cpu --trainer.enable_progress_bar false --ckpt_path last \
		> $(DEMO)/$*.log 2>&1 || { tail -n 20 $(DEMO)/$*.log; exit 1; }
	@touch $@
	@echo "  $(basename $*), seed $(patsubst .%,%,$(suffix $*)): done ($$(ls $(DEMO)/*.done | wc -l) of $(words $(RUNS)))"

benchmark: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/lit-credit benchmark --suite digits --trainer.accelerator cpu

# All but running the notebooks, which takes as long again.
test: .venv/installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -k "not test_notebook_runs"

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
