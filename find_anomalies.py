"""Anomaly detection for a 5G edge node: train, test and collect. See README.md.

python find_anomalies.py --mode train --evaluate
python find_anomalies.py --mode test --replay data/cpu_attack.csv
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from commands.command_line import parse_options
from commands.options import (
    ANSWER,
    CHECK,
    COLLECT,
    DESCRIBE,
    LIVE,
    PORTS_ANSWER,
    PORTS_TEST,
    PORTS_TRAIN,
    REPLAY,
    TRAIN,
    Mode,
)
from common.files import UserError
from edge.paths import (
    cpu_testset,
    data_prefix,
    iperf_testset,
    model_prefix,
    plots_prefix,
    stats_json,
    trainset,
)
from service.log import JournalFormatter, is_journal

if TYPE_CHECKING:
    from edge.evaluation import evaluate
    from edge.training import train

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


def __getattr__(name: str) -> Any:
    """The documented functions, imported when they are first used: test mode needs neither."""
    if name == "evaluate":
        from edge.evaluation import evaluate

        return evaluate
    if name == "train":
        from edge.training import train

        return train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def command_of(mode: Mode) -> Callable[[argparse.Namespace], None]:
    """What runs a mode. Nothing else is imported, so that test mode starts sooner."""
    if mode is LIVE:
        from commands.edge import run_test

        return run_test
    if mode in (REPLAY, CHECK):
        from commands.recorded import check_thresholds, run_replay

        return {REPLAY: run_replay, CHECK: check_thresholds}[mode]
    if mode in (PORTS_TRAIN, PORTS_TEST):
        from commands.ports import run_ports_test, run_ports_train

        return {PORTS_TRAIN: run_ports_train, PORTS_TEST: run_ports_test}[mode]
    if mode in (ANSWER, PORTS_ANSWER):
        from commands.answer import run_answer, run_ports_answer

        return {ANSWER: run_answer, PORTS_ANSWER: run_ports_answer}[mode]
    from commands.collect import run_collect
    from commands.describe import run_describe
    from commands.train import run_train

    return {TRAIN: run_train, DESCRIBE: run_describe, COLLECT: run_collect}[mode]


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
        command_of(mode)(options)
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
