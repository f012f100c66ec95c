PYTHON ?= python3
# Most modules of TensorFlow are never imported: those that are, are compiled then.
PIP_INSTALL := $(PYTHON) -m venv .venv && .venv/bin/python -m pip install --disable-pip-version-check --no-compile -q
slowest := --durations=10 --durations-min=1
# Four for two CPUs: much of it waits. In the order of the files, those that take long first.
workers := --numprocesses 4 --dist loadfile --no-loadscope-reorder
# Threads of NumPy would only wait for those of the other workers.
one_thread := OMP_NUM_THREADS=1

started := $(shell date +%s)
# What is compiled is kept: hundreds of processes begin with the same modules.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test quick train lint data benchmark lab fuzz clean

# Standard output carries the anomalies and nothing else, so that it can be piped.
run: .venv/.replay
	@.venv/bin/python find_anomalies.py --mode test --replay data/cpu_attack.csv --plot plots/cpu_attack.png
	@.venv/bin/python find_anomalies.py --mode test --replay data/iperf_attack.csv --plot plots/iperf_attack.png

# What needs the machine for itself comes last: what else it does would be flagged in the lab's short run.
test: quick
	.venv/bin/python -m pytest tests/lab -m alone -rs $(slowest)
	@echo "make test took $$(($$(date +%s) - $(started))) s."

# Tests and TensorFlow are compiled once and not by each of the workers, while the lab's programs are fetched.
quick: lint
	@.venv/bin/python -m pytest --collect-only > /dev/null & .venv/bin/python -c "import keras" 2> /dev/null & \
		lab/get_parts.sh && wait
	$(one_thread) .venv/bin/python -m pytest -m "not alone" $(workers) $(slowest)

train: .venv/.all
	@.venv/bin/python find_anomalies.py --mode train --evaluate

lint: .venv/.dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

data: .venv/.all
	@.venv/bin/python -m simulators.edge
	@.venv/bin/python -m simulators.ports

benchmark: .venv/.all
	@.venv/bin/python -m benchmarks
	@.venv/bin/python -m benchmarks.ports
	@.venv/bin/python -m benchmarks.alerts
	@lab/get_parts.sh
	@.venv/bin/python -m benchmarks.speed

lab: .venv/.all
	@lab/get_parts.sh
	@.venv/bin/python -m lab

fuzz: .venv/.dev
	@lab/get_parts.sh
	FUZZ_EXAMPLES=10000 .venv/bin/python -m pytest -k fuzzed

clean:
	rm -rf .venv .cache .pytest_cache .ruff_cache .hypothesis plots/*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.replay: requirements-replay.txt requirements-edge.txt
	@echo "Installing what a replay needs (requirements-replay.txt) into .venv: once, 360 MB." >&2
	@$(PIP_INSTALL) -r requirements-replay.txt
	@touch $@

.venv/.all: requirements.txt requirements-replay.txt requirements-edge.txt
	@echo "Installing TensorFlow and all else of requirements.txt into .venv: once, a few minutes, 2.7 GB." >&2
	@$(PIP_INSTALL) -r requirements.txt
	@touch .venv/.replay $@

# All in one go: each of pip's runs looks at all packages anew.
.venv/.dev: requirements-dev.txt requirements.txt requirements-replay.txt requirements-edge.txt
	@echo "Installing TensorFlow and all else of requirements-dev.txt into .venv: once, a few minutes, 2.7 GB." >&2
	@$(PIP_INSTALL) -r requirements-dev.txt
	@touch .venv/.replay .venv/.all $@
