"""The options of the command line."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import re
from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo

from commands.edge import EDGE_ANOMALIES
from common.times import parse_time
from edge import evaluation
from edge.paths import DEFAULT_MODEL, cpu_testset, data_prefix, iperf_testset, trainset
from edge.training import DEFAULT_EPOCHS
from nodes.series import RECORD_SECONDS
from ports.samples import PORT_ANOMALIES

# The first one is the default; ports/ is not imported where only the edge is watched.
PORT_DETECTORS = ("profile", "stl", "sarimax", "random-forest", "isolation-forest", "one-class-svm")


def _one_of(*choices: str) -> Callable[[str], str]:
    """In any case; argparse holds only the command line, not the environment, to its choices."""

    def parse(text: str) -> str:
        if text.lower() not in choices:
            named = ", ".join(f"'{choice}'" for choice in choices)
            raise argparse.ArgumentTypeError(f"invalid choice: '{text}' (choose from {named})")
        return text.lower()

    return parse


def _moment(text: str) -> int:
    """A date and time, UTC where it names no zone; seconds since 1970."""
    try:
        return parse_time(text) // 10**9
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"'{text}' is no time like 2023-01-31 or 2023-01-31T12:00:00Z"
        ) from None


def _zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (ValueError, OSError, KeyError):
        raise argparse.ArgumentTypeError(f"'{text}' is no time zone like Europe/Rome or UTC") from None
    return text


def _machine_zone() -> str:
    """The name of this machine's time zone."""
    for name in (
        os.environ.get("TZ", "").lstrip(":"),
        os.path.realpath("/etc/localtime").partition("zoneinfo/")[2],
    ):
        with contextlib.suppress(argparse.ArgumentTypeError):
            return _zone(name)
    return "UTC"


def _boolean(text: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in words:
        raise argparse.ArgumentTypeError(f"'{text}' is neither true nor false")
    return words[text.lower()]


def _seconds(text: str) -> float:
    """15, 15s, 90m, 24h, 3d."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    seconds = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]] if match else 0.0
    if not 0.1 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' is not a time of 0.1 s or more, like 15s, 90m, 24h or 3d")
    return seconds


def _number(kind: Callable[[str], Any], low: float, high: float) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"'{text}' is not a number from {low:g} to {high:g}")
        return value

    return parse


def _bucket_minutes(text: str) -> int:
    if text not in ("5", "10", "15", "20", "30", "60"):
        raise argparse.ArgumentTypeError(f"'{text}' is none of 5, 10, 15, 20, 30 and 60")
    return int(text)


def make_parser() -> argparse.ArgumentParser:
    """All options; the default of each is taken from the environment where its upper-case name is set."""
    parser = argparse.ArgumentParser(
        prog="find_anomalies.py",
        description="Find anomalies in the metrics of a 5G edge node.",
        epilog="Every option can also be set in the environment by its name in capitals: INFLUX_PASS=...",
    )

    def option(name: str, default: Any, text: str, **settings: Any) -> None:
        parser.add_argument(
            f"--{name}", default=os.environ.get(name.upper()) or default, help=text, **settings
        )

    switch = {"type": _boolean, "nargs": "?", "const": True, "metavar": "true|false"}
    option(
        "mode",
        None,
        "train, test or collect",
        type=_one_of("train", "test", "collect"),
        metavar="{train,test,collect}",
    )
    option(
        "target",
        "edge",
        "edge or ports (default: %(default)s)",
        type=_one_of("edge", "ports"),
        metavar="{edge,ports}",
    )
    option("model", DEFAULT_MODEL, "file of the trained model (default: %(default)s)", metavar="FILE")
    option(
        "thresholds_file",
        f"{data_prefix}thresholds.json",
        "JSON file of the thresholds (default: %(default)s)",
        metavar="FILE",
    )
    option("evaluate", False, "train: propose thresholds and report how well they detect", **switch)
    option("trainset", trainset, "train: normal records (default: %(default)s)", metavar="CSV")
    option(
        "cpu_testset",
        cpu_testset,
        "evaluate: records with a CPU attack (default: %(default)s)",
        metavar="CSV",
    )
    option(
        "iperf_testset",
        iperf_testset,
        "evaluate: records with an iperf attack (default: %(default)s)",
        metavar="CSV",
    )
    option(
        "epochs",
        DEFAULT_EPOCHS,
        "train: times to go over the training set (default: %(default)s)",
        type=_number(int, 1, 10_000),
        metavar="N",
    )
    option(
        "threshold_percentile",
        evaluation.DEFAULT_PERCENTILE,
        "evaluate: percentile of the window RMSEs that becomes a threshold (default: %(default)s)",
        type=_number(float, 50, 100),
        metavar="P",
    )
    option("influx_host", "localhost", "host of InfluxDB (default: %(default)s)", metavar="HOST")
    option(
        "influx_port",
        8086,
        "port of InfluxDB (default: %(default)s)",
        type=_number(int, 1, 65535),
        metavar="PORT",
    )
    option("influx_user", "", "InfluxDB user", metavar="USER")
    option("influx_pass", "", "that user's password; better set as INFLUX_PASS", metavar="PASSWORD")
    option("influx_ssl", False, "speak TLS to InfluxDB", **switch)
    option(
        "influx_ca", None, "certificate authority of InfluxDB, where it is not a public one", metavar="PEM"
    )
    option(
        "influx_db", "metrics_db", "database of metrics and anomalies (default: %(default)s)", metavar="DB"
    )
    option(
        "influx_measurement",
        None,
        f"measurement of anomalies (default: {EDGE_ANOMALIES}, of ports {PORT_ANOMALIES})",
        metavar="NAME",
    )
    option(
        "node_file",
        None,
        "JSON file that describes the node (default: the documented testbed)",
        metavar="FILE",
    )
    option(
        "interval",
        RECORD_SECONDS,
        "seconds between records, and between polls (default: %(default)g)",
        type=_seconds,
        metavar="SECONDS",
    )
    option("once", False, "test: poll once and end", **switch)
    option("replay", None, "test: judge a recorded dataset instead of InfluxDB", metavar="CSV")
    option("plot", None, "replay: draw metrics, RMSEs, anomalies and alerts", metavar="PNG")
    option("plot_dir", None, "test: folder for a picture of each alert, drawn when it ends", metavar="DIR")
    option(
        "state_dir",
        os.environ.get("STATE_DIRECTORY") or "state",
        "test: folder for anomalies not delivered yet, and for where judging stopped (default: %(default)s)",
        metavar="DIR",
    )
    option(
        "spool_limit",
        100_000,
        "test: anomalies kept while InfluxDB is away (default: %(default)s)",
        type=_number(int, 1, 10_000_000),
        metavar="N",
    )
    option(
        "catch_up",
        "1h",
        "test: how far back records that were missed are judged (default: %(default)s)",
        type=_seconds,
        metavar="TIME",
    )
    option(
        "drift",
        "6h",
        "test: a metric over its threshold for most of this time has a new normal (default: %(default)s)",
        type=_seconds,
        metavar="TIME",
    )
    option(
        "metrics_port",
        None,
        "test: serve metrics of the service itself to Prometheus",
        type=_number(int, 1, 65535),
        metavar="PORT",
    )
    option(
        "metrics_address", "127.0.0.1", "test: address to serve them on (default: %(default)s)", metavar="IP"
    )
    option(
        "ports_dir", None, "ports: folder of <device>_<port>_<in|out>.csv (default: InfluxDB)", metavar="DIR"
    )
    option(
        "ports_models",
        "model/ports",
        "ports: folder of the trained models (default: %(default)s)",
        metavar="DIR",
    )
    option(
        "detector",
        PORT_DETECTORS[0],
        "ports: " + ", ".join(PORT_DETECTORS) + " or all (default: %(default)s)",
        type=_one_of(*PORT_DETECTORS, "all"),
        metavar="NAME",
    )
    option(
        "preprocess",
        "default",
        "ports, train: default, or workshop for that of the reference document (default: %(default)s)",
        type=_one_of("default", "workshop"),
        metavar="NAME",
    )
    option(
        "bucket_minutes",
        None,
        "ports, train: minutes judged together: 5, 10, 15, 20, 30 or 60 (default: 15, of workshop 30)",
        type=_bucket_minutes,
        metavar="N",
    )
    option(
        "timezone",
        _machine_zone(),
        "ports, train: where the ports' users live (default: this machine's, %(default)s)",
        type=_zone,
        metavar="ZONE",
    )
    option(
        "train_days",
        63,
        "ports, train: days of history up to the last midnight (default: %(default)s)",
        type=_number(int, 28, 366),
        metavar="N",
    )
    option("until", None, "ports: as if it were then; no later sample counts", type=_moment, metavar="TIME")
    option(
        "jobs",
        os.cpu_count() or 1,
        "ports: processes at once (default: one for each CPU, %(default)s)",
        type=_number(int, 1, 1024),
        metavar="N",
    )
    option(
        "scheduler",
        None,
        "ports: Dask scheduler whose workers do the work, like tcp://HOST:8786",
        metavar="URL",
    )
    option("check_thresholds", False, "check the thresholds file and show what it flags, no --mode", **switch)
    option("output", None, "collect: file to write", metavar="CSV")
    option(
        "since",
        "24h",
        "collect: how much of the newest history (default: %(default)s)",
        type=_seconds,
        metavar="TIME",
    )
    return parser
