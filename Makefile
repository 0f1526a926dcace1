# Each target makes the environment it needs. On a machine that has the environment already: make test PYTHON=python
VENV ?= .venv
PYTHON ?= $(VENV)/bin/python
READY := $(if $(filter $(VENV)/bin/python,$(PYTHON)),$(VENV)/.installed,)

.PHONY: demo evidence ablations test test-slow drills fuzz mutants test-lowest bench results style docs clean

demo: $(READY)  ## the main job on the grounded world: world, teacher, students, probe, report
	$(PYTHON) examples/demo.py

evidence: $(READY)  ## the demo over three seeds of world and training, cell by cell
	$(PYTHON) examples/demo.py --output_dir outputs/evidence --seeds 1 2 3 --thorough

ablations: $(READY)  ## every comparison of the paper on the grounded world, one seed, cell by cell
	$(PYTHON) examples/ablate.py

# Models this small do not share out over threads, and threads that wait for a busy core cost a factor of ten.
test: $(READY)  ## the tests that take seconds
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -m "not slow" -n 2 --dist loadfile

test-slow: $(READY)  ## all tests
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest

drills: $(READY)  ## kills, full disks, preemption, NaN, hangs, 10,000 steps: what survives (within an hour on 2 cores)
	OMP_NUM_THREADS=1 $(PYTHON) tests/drills/run.py

fuzz: $(READY)  ## damaged files of every kind that is read from outside, ten minutes a kind
	OMP_NUM_THREADS=1 $(PYTHON) tests/drills/fuzz.py

mutants: $(READY)  ## small changes to the losses and collators that the fast tests must notice
	OMP_NUM_THREADS=1 $(PYTHON) tests/drills/mutants.py

test-lowest:  ## the fast tests on the lowest versions that setup.py allows, in an environment of their own
	python3 -m venv .venv-lowest
	.venv-lowest/bin/pip install -q -e ".[test]" torch==2.6.0 transformers==5.20.0 accelerate==1.10.0 datasets==4.0.0
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest -m "not slow"

bench: $(READY)  ## the step against the original's arithmetic and the stock way; fails below the committed ratios
	$(PYTHON) benchmarks/step.py --precisions fp32 --rounds 3 --floors benchmarks/floors.json

results: $(READY)  ## the tables, numbers and figures of README and docs, from docs/evidence
	$(PYTHON) docs/make_results.py --figures

style: $(READY)  ## lint and format
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

docs: $(READY)  ## the documentation, strictly, into site/
	$(PYTHON) -m mkdocs build --strict

clean:
	rm -rf $(VENV) .venv-lowest site build *.egg-info

$(VENV)/.installed: setup.py constraints.txt
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install -q -c constraints.txt -e ".[dev]"
	touch $@
