"""Anomaly detection for a 5G edge node: train, test and collect. See README.md.

python find_anomalies.py --mode train --evaluate
python find_anomalies.py --mode test --replay data/cpu_attack.csv
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from commands.collect import run_collect
from commands.command_line import parse_options
from commands.describe import run_describe
from commands.edge import check_thresholds, run_replay, run_test
from commands.options import CHECK, COLLECT, DESCRIBE, LIVE, PORTS_TEST, PORTS_TRAIN, REPLAY, TRAIN
from commands.ports import run_ports_test, run_ports_train
from commands.train import run_train
from common.files import UserError
from edge.evaluation import evaluate
from edge.paths import (
    cpu_testset,
    data_prefix,
    iperf_testset,
    model_prefix,
    plots_prefix,
    stats_json,
    trainset,
)
from edge.training import train
from service.log import JournalFormatter, is_journal

__all__ = [
    "cpu_testset",
    "data_prefix",
    "evaluate",
    "iperf_testset",
    "main",
    "model_prefix",
    "plots_prefix",
    "stats_json",
    "train",
    "trainset",
]

COMMANDS = {
    TRAIN: run_train,
    LIVE: run_test,
    REPLAY: run_replay,
    DESCRIBE: run_describe,
    COLLECT: run_collect,
    CHECK: check_thresholds,
    PORTS_TRAIN: run_ports_train,
    PORTS_TEST: run_ports_test,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 1 a fault that the user can fix."""
    mode, options = parse_options(arguments)
    # A program that reads the anomalies from a pipe must not wait for a full buffer.
    sys.stdout.reconfigure(line_buffering=True)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    if is_journal():
        logging.getLogger().handlers[0].setFormatter(JournalFormatter())
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    try:
        COMMANDS[mode](options)
    except UserError as error:
        print(f"find_anomalies.py: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        # Only live test mode runs with requirements-edge.txt; everything else needs requirements.txt.
        print(
            f"find_anomalies.py: {error.name} is not installed; pip install -r requirements.txt",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        return 0 if mode.name == "test" else 130
    except BrokenPipeError:
        # The reader of standard output is gone, so the rest of the buffer goes to /dev/null.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
