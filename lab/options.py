"""The options of `python -m lab`, which are read before anything that takes long to import."""

from __future__ import annotations

import argparse
import math


def make_parser() -> argparse.ArgumentParser:
    """The options of `python -m lab`."""
    parser = argparse.ArgumentParser(
        prog="python -m lab", description="Run the detector against a real edge on this machine."
    )
    parser.add_argument(
        "--interval",
        type=_interval,
        default=1.0,
        help="seconds between scrapes, and between records, 1 or more (default: %(default)g)",
    )
    parser.add_argument(
        "--short", action="store_true", help="only a little training and two attacks: about 3 minutes"
    )
    parser.add_argument(
        "--output_dir", default="plots/lab", help="each run makes a folder in it (default: %(default)s)"
    )
    parser.add_argument("--seed", type=_seed, default=1, help="seed of ordinary life (default: %(default)s)")
    return parser


def _interval(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    # The kernel counts CPU time in hundredths of a second.
    if not 1 <= seconds <= 60:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 1 to 60")
    return seconds


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number, 0 or more")
    return int(text)
