# Each target makes the environment it needs. On a machine that has the environment already: make test PYTHON=python
VENV ?= .venv
PYTHON ?= $(VENV)/bin/python
OWN := $(filter $(VENV)/bin/python,$(PYTHON))
READY := $(if $(OWN),$(VENV)/.installed-dev)
# What the demo needs is a part of what the tests need.
WORLD := $(if $(OWN),$(or $(wildcard $(READY)),$(VENV)/.installed-world))

.PHONY: demo evidence ablations test test-slow drills fuzz mutants test-lowest bench results style types wheel docs \
	notebook clean

demo: $(WORLD)  ## the main job on the grounded world: world, teacher, students, probe, report
	$(PYTHON) examples/demo.py

evidence: $(WORLD)  ## the demo over five seeds of world and training, with more students
	$(PYTHON) examples/demo.py --output_dir outputs/evidence --seeds 1 2 3 4 5 --thorough

ablations: $(WORLD)  ## every comparison of the paper on the grounded world, one seed
	$(PYTHON) examples/ablate.py

# Models this small gain nothing from several threads, and threads that wait for a busy core cost a factor of ten.
test: $(READY)  ## the fast tests
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -m "not slow" -n 2 --dist loadfile

test-slow: $(READY)  ## all tests
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest

drills: $(READY)  ## kills, full disks, preemption, NaN, hangs, 10,000 steps (within an hour on 2 cores)
	OMP_NUM_THREADS=1 $(PYTHON) tests/drills/run.py

fuzz: $(READY)  ## damaged input files of every kind, ten minutes per kind
	OMP_NUM_THREADS=1 $(PYTHON) tests/drills/fuzz.py

mutants: $(READY)  ## small changes to the losses and collators that the fast tests must notice
	OMP_NUM_THREADS=1 $(PYTHON) tests/drills/mutants.py

test-lowest:  ## the fast tests on the lowest versions that setup.py allows, in a separate environment
	python3 -m venv .venv-lowest
	.venv-lowest/bin/pip install -q -c constraints-lowest.txt -e ".[test]"
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest -m "not slow" -n 2 --dist loadfile

bench: $(READY)  ## step time against the original's arithmetic and the stock Trainer; fails below the committed ratios
	$(PYTHON) benchmarks/step.py --precisions fp32 --rounds 3 --floors benchmarks/floors.json

results: $(READY)  ## the tables, numbers and figures of README and docs, from docs/evidence
	$(PYTHON) docs/make_results.py --figures

style: $(READY)  ## lint and format
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

types: $(READY)  ## static types
	$(PYTHON) -m mypy

wheel:  ## build the wheel, install it without extras in a new environment, and use it outside the checkout
	.ci/wheel

notebook: $(READY)  ## run the notebook and keep its outputs
	$(PYTHON) docs/run_notebook.py

docs: $(READY)  ## the documentation, strictly, into site/
	$(PYTHON) -m mkdocs build --strict

clean:
	rm -rf $(VENV) .venv-lowest site build dist *.egg-info

$(VENV)/.installed-%: setup.py constraints.txt
	@echo "Installing into $(VENV); this takes about 5 minutes."
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install -q -c constraints.txt -e ".[$*]"
	touch $@
