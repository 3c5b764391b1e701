# README and CI call these targets and nothing else. Each sets up what it needs; each works alone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: install demo demo-clothes test unit check docs bench gpu drill lock clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@bash .ci/needs "$(PYTHON)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (about 6 GB; a few minutes on a good line)"
	@$(BIN)/pip install --quiet --disable-pip-version-check --upgrade pip
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,parity]'
	@$(BIN)/python -m vitpipe.stages.images.native.prebuild
	@touch $@

demo: install
	$(BIN)/vitpipe run configs/quickstart.yaml

CLOTHES := /usr/share/datasets/fashion-mnist
demo-clothes: install  # Fashion-MNIST, which Debian has as a package
	@test -d $(CLOTHES) || { echo "$(CLOTHES) is not there: apt-get install dataset-fashion-mnist, or make demo-clothes CLOTHES=the folder with its four files"; exit 2; }
	$(BIN)/vitpipe run configs/clothes.yaml vars.clothes=$(CLOTHES)

ALONE := tests/end_to_end tests/faults tests/infra  # heads of Ray with dashboards, of which a machine has one

test: install  # what is not alone by two processes, each with a Ray and an S3 server of its own
	$(BIN)/python -m pytest -m "not drill" -n 2 --dist loadfile --no-loadscope-reorder $(addprefix --ignore=,$(ALONE))
	$(BIN)/python -m pytest -m "not drill" $(ALONE)

unit: install  # what runs without Ray, S3 and several processes that train
	$(BIN)/python -m pytest -m "not drill and not slow and not ray and not s3" tests/test_house.py tests/infra \
	  tests/paper tests/pipeline tests/stages/training/test_rules.py tests/stages/images tests/stages/ingest tests/stages/report tests/stages/vit

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/python .ci/house

docs: install  # the site in docs/_build, where nothing may be unclear to its generator
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build
	@echo "The documentation: docs/_build/index.html"

bench: install
	PYTHONPATH=.:tests $(BIN)/python -W ignore -m tests.benchmarks

gpu: install  # ten minutes on this machine's GPU; without one shrunk to a CPU
	$(BIN)/vitpipe doctor --gpu

drill: install
	$(BIN)/python -m pytest -m drill

lock:  # exact versions of what is installed now; the lower bounds stand in pyproject.toml
	$(BIN)/pip freeze --all --exclude pip --exclude-editable | LC_ALL=C sort -f > constraints.txt
	$(BIN)/python .ci/lock_hashes

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis docs/_build docs/reference/generated
