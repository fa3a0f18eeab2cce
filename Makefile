# What one does here, a command each. Every target first makes .venv if it is missing or out of date.
# Needs make and Python 3.11 or newer; another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
PYPROJECTS := $(wildcard packages/*/pyproject.toml packages/*/*/pyproject.toml apps/*/pyproject.toml)
DISTS := $(PYPROJECTS:%/pyproject.toml=%)
CODE := packages apps examples benchmarks scripts

.PHONY: help demo test check bench leaderboard wheels clean

help:
	@echo "make demo         train a small model on generated rooms, print its metrics, draw its predictions"
	@echo "make test         every test"
	@echo "make check        lint, formatting and types"
	@echo "make bench        speed and memory"
	@echo "make leaderboard  every method on generated rooms, side by side, into docs/leaderboard.md"
	@echo "make wheels       a wheel of every package, into dist/"
	@echo "make clean        remove caches and dist/; .venv and runs/ stay"

# One thread computes while another process draws: for tensors this small it is as fast as two, and steadier.
demo: $(READY)
	@if [ -e runs/demo ]; then mv -v runs/demo "runs/demo-until-$$(date +%Y%m%d-%H%M%S)"; fi
	OMP_NUM_THREADS=1 $(BIN)/mtrun experiment=demo run_dir=runs/demo

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict $(CODE)

bench: $(READY)
	@set -e; for script in $$(grep -l __main__ benchmarks/*.py); do echo "== $$script"; $(BIN)/python "$$script"; done

leaderboard: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m scripts.leaderboard

wheels: $(READY)
	@set -e; for dist in $(DISTS); do $(BIN)/python -m build --wheel --no-isolation --outdir dist "$$dist"; done

clean:
	rm -rf dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find $(CODE) tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): constraints.txt requirements-dev.txt $(PYPROJECTS)
	@$(PYTHON) -c 'import sys; sys.version_info < (3, 11) and sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; name another: make PYTHON=python3.11")'
	@echo "setting up .venv; PyTorch is large, so this takes some minutes"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -q -c constraints.txt -r requirements-dev.txt
	@$(BIN)/python -m pip install -q -c constraints.txt --no-build-isolation $(DISTS:%=--editable %)
	@touch $@
