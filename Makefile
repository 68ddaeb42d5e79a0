# Two commands do everything on a fresh machine: `make demo` and `make test`. Both set up .venv first.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
OUT := out
FLOORS := $(OUT)/floors
EXTRAS := render train quantize app ray monitor dev
comma := ,
space := $() $()
unexport PYTHONDONTWRITEBYTECODE  # tests start hundreds of processes, which would compile the sources anew each time

.PHONY: help demo test test-floors torture fuzz explore races lint docs bench extension tiny clean

help:
	@echo "make demo   from nothing to a measured control on the tiny backbone: examples/demo.toml in $(OUT) (minutes; resumable)"
	@echo "make test   run the test suite"
	@echo "make test-floors  run the fast tests with the lowest versions that pyproject.toml allows, in $(FLOORS) (3 GB)"
	@echo "make torture  kill every command at each of its file events, let these fail, flip bits: the long form of tests/torture (an hour or two)"
	@echo "make fuzz   odd recipes, overrides, command lines and adapter cards, drawn anew (ten minutes on two cores; FUZZ=20 times the tests' number)"
	@echo "make explore  draw the property tests anew, with more examples (minutes)"
	@echo "make races  what starts, kills and waits for processes, ten times beside two busy ones (long; RACES=1 for one time)"
	@echo "make lint   run ruff and mypy"
	@echo "make docs   build the documentation with the reference of every module in $(OUT)/docs; a broken link is an error"
	@echo "make extension  build the Blender extension's zip in dist (PLATFORM=any for one without wheels)"
	@echo "make tiny   train the bundled tiny backbone from nothing in $(OUT)/tiny (hours; resumable)"
	@echo "make bench  measure speed and noise against a plain Blender loop (minutes)"
	@echo "make clean  remove $(VENV), $(OUT) and caches"

$(VENV)/.ready: pyproject.toml
	@echo "setting up $(VENV): stopdown with Blender, torch and the development tools"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable ".[render,train,quantize,app,ray,monitor,docs,dev]"
	@touch $@

demo: $(VENV)/.ready
	$(BIN)/stopdown run examples/demo.toml --out $(OUT)/runs --dataset $(OUT)/demo

# Each process begins with a stretch of the tests, so that those of a file share what they build; who is done takes from the others.
test: $(VENV)/.ready
	$(BIN)/pytest --numprocesses logical --maxprocesses 4 --dist worksteal

# The lowest version of every direct dependency; pip takes what else it needs, and no GPU libraries for a CPU build of torch.
$(FLOORS)/.ready: pyproject.toml | $(VENV)/.ready
	@echo "setting up $(FLOORS): the lowest versions that pyproject.toml allows"
	$(PYTHON) -m venv --clear $(FLOORS)
	$(BIN)/uv pip compile --quiet --no-header --no-annotate --resolution lowest-direct --python $(FLOORS)/bin/python \
	  $(addprefix --extra ,$(EXTRAS)) pyproject.toml --output-file $(FLOORS)/lowest.txt
	$(FLOORS)/bin/pip install --quiet --constraint $(FLOORS)/lowest.txt --editable ".[$(subst $(space),$(comma),$(EXTRAS))]"
	@touch $@

# One or two files for every dependency: what it is used for, on the real library.
FAST := tests/test_imports.py tests/recipe/test_recipe.py tests/trainer/adapters/test_parity.py tests/trainer/adapters/test_pipeline.py \
  tests/trainer/backbones/test_quantize.py tests/trainer/backbones/test_hub.py tests/trainer/training/test_settings.py \
  tests/trainer/training/test_tasks.py tests/trainer/evaluation/test_report.py tests/trainer/evaluation/test_features.py \
  tests/trainer/generation/test_play.py tests/export/test_readers.py tests/versions/reading/test_versions_reading.py \
  tests/farm/test_farm_s3.py tests/farm/test_monitor.py tests/dataset/test_video.py tests/dataset/test_verify_report.py \
  tests/building/test_render.py tests/commands/test_cli.py tests/scenes/test_temperature.py
test-floors: $(FLOORS)/.ready
	$(FLOORS)/bin/pytest --numprocesses logical --maxprocesses 4 --dist loadfile $(FAST)

torture: $(VENV)/.ready
	STOPDOWN_TORTURE=all $(BIN)/pytest tests/torture -s

FUZZ ?= 20
fuzz: $(VENV)/.ready
	STOPDOWN_FUZZ=$(FUZZ) $(BIN)/pytest tests/commands/test_fuzz.py tests/trainer/adapters/test_card_fuzz.py --hypothesis-profile explore

explore: $(VENV)/.ready
	$(BIN)/pytest -m hypothesis --hypothesis-profile explore

RACES ?= 10
races: $(VENV)/.ready
	PYTEST=$(BIN)/pytest tests/races.sh $(RACES)

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

extension: $(VENV)/.ready
	$(BIN)/python blender_addons/build_extension.py --out dist $(if $(PLATFORM),--platform $(PLATFORM))

tiny: $(VENV)/.ready
	$(BIN)/python -m trainer.tiny all --work $(OUT)/tiny

bench: $(VENV)/.ready
	$(BIN)/python benchmarks/render_speed.py
	$(BIN)/python benchmarks/render_noise.py

clean:
	rm -rf $(VENV) $(OUT) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
