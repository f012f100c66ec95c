PYTHON ?= python3
PIP_INSTALL := .venv/bin/python -m pip install --disable-pip-version-check -q

.PHONY: run test train lint data benchmark lab fuzz clean

# Standard output carries the anomalies and nothing else, so that it can be piped.
run: .venv/.run
	@.venv/bin/python find_anomalies.py --mode test --replay data/cpu_attack.csv --plot plots/cpu_attack.png
	@.venv/bin/python find_anomalies.py --mode test --replay data/iperf_attack.csv --plot plots/iperf_attack.png

test: lint
	@lab/get_parts.sh
	.venv/bin/python -m pytest -m "not alone" --numprocesses 3 --dist loadfile
	.venv/bin/python -m pytest -m alone

train: .venv/.run
	@.venv/bin/python find_anomalies.py --mode train --evaluate

lint: .venv/.dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

data: .venv/.run
	@.venv/bin/python -m simulators.edge
	@.venv/bin/python -m simulators.ports

benchmark: .venv/.run
	@.venv/bin/python -m benchmarks
	@.venv/bin/python -m benchmarks.ports
	@.venv/bin/python -m benchmarks.alerts

lab: .venv/.run
	@lab/get_parts.sh
	@.venv/bin/python -m lab

fuzz: .venv/.dev
	@lab/get_parts.sh
	FUZZ_EXAMPLES=10000 .venv/bin/python -m pytest -k fuzzed

clean:
	rm -rf .venv .cache .pytest_cache .ruff_cache .hypothesis plots/*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.run: requirements.txt requirements-edge.txt
	@echo "Installing the packages of requirements.txt into .venv: once, a few minutes, about 2.7 GB." >&2
	@$(PYTHON) -m venv .venv
	@$(PIP_INSTALL) -r requirements.txt
	@touch $@

.venv/.dev: requirements-dev.txt .venv/.run
	@$(PIP_INSTALL) -r requirements-dev.txt
	@touch $@
