"""The one table of options, from which command_line.py makes the parser, the help and docs/options.md."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from zoneinfo import ZoneInfo

from common.public_holidays import parse_country
from common.times import parse_time
from edge.defaults import DEFAULT_EPOCHS, DEFAULT_PERCENTILE, ENOUGH_STEPS
from edge.paths import (
    DEFAULT_MODEL,
    cpu_testset,
    data_prefix,
    iperf_testset,
    model_prefix,
    plots_prefix,
    trainset,
)
from nodes.series import RECORD_SECONDS

EDGE_ANOMALIES, PORT_ANOMALIES = "detected_anomalies", "detected_port_anomalies"
# Where samples are read, and where anomalies go.
INFLUXDB, PROMETHEUS, METRICS_ALONE = "influxdb", "prometheus", "metrics"
# The first is the default. ports.detectors has them too, but is imported only when ports are watched.
PORT_DETECTORS = ("profile", "stl", "sarimax", "random-forest", "isolation-forest", "one-class-svm")


# --- types of options ----------------------------------------------------------------------------


def _one_of(*choices: str) -> Callable[[str], str]:
    """Parse a choice in any case. argparse checks its own choices only on the command line."""

    def parse(text: str) -> str:
        if text.lower() not in choices:
            named = ", ".join(f"'{choice}'" for choice in choices)
            raise argparse.ArgumentTypeError(f"invalid choice: '{text}' (choose from {named})")
        return text.lower()

    return parse


def _moment(text: str) -> int:
    """Parse a date and time (UTC if it has no zone), or how far it is from now, into seconds since 1970."""
    if re.fullmatch(r"\d+(\.\d+)?[smhd]", text.strip()):
        return int(time.time() + _seconds(text))
    try:
        return parse_time(text) // 10**9
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a time like 2023-01-31 or 2023-01-31T12:00:00Z, or like 2h from now"
        ) from None


def _stretch(text: str) -> tuple[int, int]:
    """Parse two times like START/END into ns since 1970."""
    try:
        start, end = map(parse_time, text.split("/"))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"'{text}' is not START/END, with times like 2023-01-31 or 2023-01-31T12:00:00Z"
        ) from None
    if end <= start:
        raise argparse.ArgumentTypeError(f"'{text}' does not end after its start")
    return start, end


def _zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (ValueError, OSError, KeyError):
        raise argparse.ArgumentTypeError(f"'{text}' is not a time zone like Europe/Rome or UTC") from None
    return text


def _country(text: str) -> str:
    try:
        return parse_country(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    except ModuleNotFoundError as error:
        raise argparse.ArgumentTypeError(
            f"{error.name} is not installed; pip install -r requirements.txt"
        ) from None


def _machine_zone() -> str:
    """The name of this machine's time zone."""
    for name in (
        os.environ.get("TZ", "").lstrip(":"),
        os.path.realpath("/etc/localtime").partition("zoneinfo/")[2],
    ):
        with contextlib.suppress(argparse.ArgumentTypeError):
            return _zone(name)
    return "UTC"


def _machine_cpus() -> int:
    return os.cpu_count() or 1


def _boolean(text: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in words:
        raise argparse.ArgumentTypeError(f"'{text}' is neither true nor false")
    return words[text.lower()]


def _seconds(text: str) -> float:
    """Parse a time like 15, 15s, 90m, 24h or 3d into seconds."""
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
        raise argparse.ArgumentTypeError(f"'{text}' is not one of 5, 10, 15, 20, 30 and 60")
    return int(text)


# Options with the same name have the same type, so that they can be parsed before the mode is known.
_PORT = _number(int, 1, 65535)
_JOBS = _number(int, 1, 1024)


# --- what the program does -----------------------------------------------------------------------


@dataclass(frozen=True)
class Mode:
    """One thing that the program does. `words` choose it on the command line; `example` shows its use.

    name: what --mode calls it; None for --check_thresholds, which needs no --mode.
    """

    target: str
    name: str | None
    words: str
    does: str
    example: str


TRAIN = Mode(
    "edge",
    "train",
    "--mode train",
    "Train the model of the edge node on normal records",
    "--mode train --evaluate",
)
LIVE = Mode(
    "edge",
    "test",
    "--mode test",
    "Watch the edge node: judge its records in InfluxDB, and store anomalies there",
    "--mode test --influx_host localhost",
)
REPLAY = Mode(
    "edge",
    "test",
    "--mode test --replay",
    "Judge a recorded dataset without InfluxDB, and print anomalies as JSON",
    "--mode test --replay data/cpu_attack.csv",
)
COLLECT = Mode(
    "edge",
    "collect",
    "--mode collect",
    "Write the history of the edge node from InfluxDB to a dataset to train on",
    "--mode collect --output data/normal.csv",
)
DESCRIBE = Mode(
    "edge",
    "describe",
    "--mode describe",
    "Look into the database, and print a node file for what is there",
    "--mode describe --output node.json",
)
CHECK = Mode(
    "edge",
    None,
    "--check_thresholds",
    "Check the thresholds file; show the anomalies that it makes of normal data",
    "--check_thresholds",
)
PORTS_TRAIN = Mode(
    "ports",
    "train",
    "--target ports --mode train",
    "Train the models of port traffic: the nightly job",
    "--target ports --mode train --evaluate",
)
PORTS_TEST = Mode(
    "ports",
    "test",
    "--target ports --mode test",
    "Judge the newest port traffic: the hourly job, for ever or once",
    "--target ports --mode test --once",
)
ANSWER = Mode(
    "edge",
    "answer",
    "--mode answer",
    "List incidents of the edge node, and answer what they were",
    "--mode answer",
)
PORTS_ANSWER = Mode(
    "ports",
    "answer",
    "--target ports --mode answer",
    "List incidents of ports, and answer what they were",
    "--target ports --mode answer",
)
MODES = (TRAIN, LIVE, REPLAY, DESCRIBE, COLLECT, CHECK, ANSWER, PORTS_TRAIN, PORTS_TEST, PORTS_ANSWER)


# --- the table -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Option:
    """A row of the table. An option that differs between modes has a row for each, with the same type.

    name: without the dashes. kind: parses a text into the value; raises argparse.ArgumentTypeError. default:
    the value, or a text for `kind`, or a function that finds it on this machine. default_text: the default in
    help and docs, if its value would say nothing or differ between machines. needs, unless: the option
    without which, or with which, this one does nothing; with a value, like `source prometheus`, only that one
    counts, and each of several, separated by commas. follows: another option, and for each value of
    that one the default. fallback: another environment variable, which counts if the option's own is not set.
    repeats: it can be given several times, and has a list of values, with spaces between them in the
    environment.
    """

    name: str
    group: str
    modes: tuple[Mode, ...]
    help: str
    default: Any = None
    kind: Callable[[str], Any] = str
    metavar: str = "FILE"
    default_text: str = ""
    needs: str | None = None
    unless: str | None = None
    follows: tuple[str, Mapping[str, str]] | None = None
    fallback: str | None = None
    repeats: bool = False

    @property
    def environment(self) -> tuple[str, ...]:
        """The environment variables of the option; the first one that is set counts."""
        upper = self.name.upper()
        own = upper if upper.startswith("INFLUX_") else f"FIND_ANOMALIES_{upper}"
        return (own, self.fallback) if self.fallback else (own,)

    @property
    def is_switch(self) -> bool:
        """Whether the option can be given without a value, for true."""
        return self.kind is _boolean

    @property
    def shown_default(self) -> str:
        """The default in help and docs, the same on every machine; empty if there is none."""
        if self.default_text or self.default is None or self.is_switch:
            return self.default_text
        return f"{self.default:g}" if isinstance(self.default, float) else str(self.default)

    def find_value(self, environment: Mapping[str, str]) -> Any:
        """The value if the command line has none. Raises argparse.ArgumentError, which names the variable."""
        for variable in self.environment:
            if text := environment.get(variable):
                try:
                    return [self.kind(word) for word in text.split()] if self.repeats else self.kind(text)
                except argparse.ArgumentTypeError as error:
                    raise argparse.ArgumentError(None, f"{variable} in the environment: {error}") from None
        if self.repeats:
            return []
        if callable(self.default):
            return self.default()
        return self.kind(self.default) if isinstance(self.default, str) else self.default

    def conditions(self, mode: Mode) -> list[str]:
        """The options of this mode with or without which this one does something, in words."""
        others = {option.name for option in options_of(mode)}
        only = [f"only with --{one}" for one in self.needed if one.split()[0] in others]
        return only + [f"not with --{one}" for one in self.excluding if one.split()[0] in others]

    @property
    def needed(self) -> list[str]:
        """The conditions without which the option does nothing."""
        return self.needs.split(", ") if self.needs else []

    @property
    def excluding(self) -> list[str]:
        """The conditions with which the option does nothing."""
        return self.unless.split(", ") if self.unless else []

    def add_to(self, parser: argparse._ActionsContainer, text: str = "") -> None:
        """Add the option to a parser or group, with `text` as its help."""
        settings: dict[str, Any] = {"nargs": "?", "const": True} if self.is_switch else {}
        if self.repeats:
            settings["action"] = "append"
        parser.add_argument(
            f"--{self.name}",
            type=self.kind,
            metavar=self.metavar,
            default=argparse.SUPPRESS,
            # argparse takes a percent sign for the start of a format.
            help=text.replace("%", "%%"),
            **settings,
        )


# Groups of options that tell where samples are.
SERVER_GROUPS = ("samples", "InfluxDB")
_SWITCH: dict[str, Any] = {"kind": _boolean, "default": False, "metavar": "true|false"}
_JUDGES = (TRAIN, LIVE, REPLAY, CHECK)
_PORTS = (PORTS_TRAIN, PORTS_TEST)
_ANSWERS = (ANSWER, PORTS_ANSWER)
_MANY = (TRAIN, LIVE, COLLECT)
_SOURCES = (LIVE, DESCRIBE, COLLECT, PORTS_TRAIN, PORTS_TEST)
_OF_PROMETHEUS: dict[str, Any] = {"needs": "source prometheus", "unless": "ports_dir"}


def _influx(name: str, help_text: str, **settings: Any) -> tuple[Option, Option]:
    """The rows of an option of InfluxDB: where anomalies go there, and where only samples are read."""
    return (
        Option(
            name, "InfluxDB", (LIVE, PORTS_TEST), help_text, unless="anomalies metrics, ports_dir", **settings
        ),
        Option(
            name,
            "InfluxDB",
            (DESCRIBE, COLLECT, PORTS_TRAIN),
            help_text,
            unless="source prometheus, ports_dir",
            **settings,
        ),
    )


# The options that choose the mode.
CHOICES = (
    Option(
        "target",
        "mode",
        MODES,
        "what to watch: the edge node, or the ports of network devices",
        default="edge",
        kind=_one_of("edge", "ports"),
        metavar="{edge,ports}",
    ),
    Option(
        "mode",
        "mode",
        MODES,
        "describe a node, collect its records, train models on them, test new data with the models, or answer"
        " incidents",
        kind=_one_of("train", "test", "collect", "describe", "answer"),
        metavar="{train,test,collect,describe,answer}",
    ),
    Option(
        "check_thresholds",
        "mode",
        MODES,
        "check the thresholds file and show the anomalies in normal data; needs no --mode",
        **_SWITCH,
    ),
)

# In the order of help and docs. A group is where its first option is.
OPTIONS = (
    Option(
        "model",
        "files",
        _JUDGES,
        "file of the trained model; its other files are beside it",
        DEFAULT_MODEL,
        unless="node",
    ),
    Option(
        "thresholds_file",
        "files",
        _JUDGES,
        "JSON file of the thresholds; a missing key counts as 0.1",
        default=f"{data_prefix}thresholds.json",
        unless="node",
    ),
    Option(
        "trainset",
        "files",
        (TRAIN, CHECK),
        "normal records, a day or more",
        trainset,
        metavar="CSV",
        unless="node",
    ),
    Option("output", "files", (COLLECT,), "dataset to write, a CSV file; required", unless="node"),
    Option(
        "output",
        "files",
        (DESCRIBE,),
        "node file to write, a new one",
        default_text="standard output",
    ),
    Option(
        "node_file",
        "files",
        (*_JUDGES, COLLECT),
        "JSON file that describes the node: CPUs, interfaces, cell, memory, exporters, metrics",
        default_text="the documented testbed",
    ),
    Option(
        "node_file",
        "files",
        (DESCRIBE,),
        "JSON file that chooses among several nodes: of its keys, the cell, instances and tags count",
        default_text="the first node",
    ),
    Option(
        "ports_dir",
        "files",
        _PORTS,
        "folder of samples, with one <device>_<port>_<in|out>.csv for each series",
        metavar="DIR",
        default_text="InfluxDB",
    ),
    Option(
        "ports_models",
        "files",
        _PORTS,
        "folder of the trained models",
        default=f"{model_prefix}ports",
        metavar="DIR",
    ),
    Option(
        "calendar",
        "files",
        (TRAIN, LIVE, *_PORTS),
        "JSON file of windows (maintenance, events) in which there are no alerts and nothing is learnt",
    ),
    Option(
        "answers_file",
        "files",
        (TRAIN, LIVE, *_PORTS, *_ANSWERS),
        "JSON file of what people said of incidents: that they were normal, attacks or maintenance",
        default=f"{data_prefix}answers.json",
    ),
    Option(
        "incident",
        "answer",
        _ANSWERS,
        "the incident to answer, by its id in the log",
        metavar="ID",
        default_text="none: list answers and incidents",
    ),
    Option(
        "normal",
        "answer",
        _ANSWERS,
        "it was normal: the same levels at the same time of day are kept quiet",
        **_SWITCH,
        needs="incident",
        unless="attack, maintenance, take_back",
    ),
    Option(
        "attack",
        "answer",
        _ANSWERS,
        "it was an attack, or another fault: its records are not learnt",
        **_SWITCH,
        needs="incident",
        unless="maintenance, take_back",
    ),
    Option(
        "maintenance",
        "answer",
        _ANSWERS,
        "it was, or is, a maintenance: anomalies are kept quiet for a time, and are still stored",
        **_SWITCH,
        unless="take_back",
    ),
    Option(
        "take_back",
        "answer",
        _ANSWERS,
        "take the answer to the incident back",
        **_SWITCH,
        needs="incident",
    ),
    Option(
        "node",
        "answer",
        (ANSWER,),
        "a node that is under maintenance, by its name, or a pattern, or all; can be given several times",
        metavar="NAME",
        default_text="that of the incident",
        needs="maintenance",
        unless="incident",
        repeats=True,
    ),
    Option(
        "node",
        "answer",
        (PORTS_ANSWER,),
        "a series or device under maintenance, by its name, or a pattern, or all; can be given several times",
        metavar="NAME",
        default_text="that of the incident",
        needs="maintenance",
        unless="incident",
        repeats=True,
    ),
    Option(
        "since",
        "answer",
        _ANSWERS,
        "how long ago the maintenance began, like 30m",
        kind=_seconds,
        metavar="TIME",
        default_text="now",
        needs="maintenance",
        unless="incident",
    ),
    Option(
        "until",
        "answer",
        _ANSWERS,
        "end of the maintenance, or of the attack: a time, or like 2h from now",
        kind=_moment,
        metavar="TIME",
        default_text="the end of the incident",
        unless="normal, take_back",
    ),
    Option(
        "timezone",
        "answer",
        _ANSWERS,
        "time zone of the time of day that is normal",
        default=_machine_zone,
        kind=_zone,
        metavar="ZONE",
        default_text="this machine's",
        needs="incident, normal",
    ),
    Option("yes", "answer", _ANSWERS, "do not ask first", **_SWITCH, unless="take_back"),
    Option(
        "plot",
        "files",
        (COLLECT,),
        "file for a picture of the dataset: the level of each metric, gaps, and what was left out",
        metavar="PNG",
        unless="node",
    ),
    Option(
        "plot_dir",
        "files",
        (LIVE, REPLAY),
        "folder for a picture of each alert, drawn when the alert ends; needs matplotlib",
        metavar="DIR",
    ),
    Option(
        "plot_dir",
        "files",
        (PORTS_TEST,),
        "folder for a picture of each series with an anomaly",
        metavar="DIR",
    ),
    Option(
        "node",
        "nodes",
        _MANY,
        "a node among many, by its name, which is its host; all, or a pattern with * and ?; can be given"
        " several times",
        metavar="NAME",
        default_text="the only one in the database",
        repeats=True,
    ),
    Option(
        "nodes_file",
        "nodes",
        _MANY,
        'JSON file of nodes that differ, like {"milan": {"node_instance": "10.0.0.1:9100", "cpus": ["0"]}}',
        needs="node",
    ),
    Option(
        "nodes_dir",
        "nodes",
        _MANY,
        "folder that has a folder for each node, with its records, model and thresholds",
        default=f"{data_prefix}nodes",
        metavar="DIR",
        needs="node",
    ),
    Option(
        "source",
        "samples",
        _SOURCES,
        "where samples are read: InfluxDB, or Prometheus or VictoriaMetrics by the API of Prometheus",
        default=INFLUXDB,
        kind=_one_of(INFLUXDB, PROMETHEUS),
        metavar="{influxdb,prometheus}",
        unless="ports_dir",
    ),
    Option(
        "prometheus_url",
        "samples",
        _SOURCES,
        "URL of Prometheus or VictoriaMetrics; with https:// it must prove its identity",
        default="http://localhost:9090",
        metavar="URL",
        **_OF_PROMETHEUS,
    ),
    Option(
        "prometheus_user",
        "samples",
        _SOURCES,
        "user for basic authentication",
        default="",
        metavar="USER",
        **_OF_PROMETHEUS,
    ),
    Option(
        "prometheus_pass",
        "samples",
        _SOURCES,
        "password of that user; better set FIND_ANOMALIES_PROMETHEUS_PASS, which no list of processes shows",
        default="",
        metavar="PASSWORD",
        **_OF_PROMETHEUS,
    ),
    Option(
        "prometheus_ca",
        "samples",
        _SOURCES,
        "certificate authority of Prometheus, if it is not a public one",
        metavar="PEM",
        **_OF_PROMETHEUS,
    ),
    Option(
        "anomalies",
        "samples",
        (LIVE, PORTS_TEST),
        "where anomalies go: to the service's own metrics alone, or also to InfluxDB, or VictoriaMetrics, at"
        " --influx_host",
        kind=_one_of(INFLUXDB, METRICS_ALONE),
        metavar="{influxdb,metrics}",
        default_text="metrics",
        **_OF_PROMETHEUS,
        follows=("source", {INFLUXDB: INFLUXDB, PROMETHEUS: METRICS_ALONE}),
    ),
    *_influx(
        "influx_host",
        "host of InfluxDB",
        default="localhost",
        metavar="HOST",
    ),
    *_influx(
        "influx_port",
        "port of InfluxDB",
        default=8086,
        kind=_PORT,
        metavar="PORT",
    ),
    *_influx(
        "influx_user",
        "user of InfluxDB",
        default="",
        metavar="USER",
    ),
    *_influx(
        "influx_pass",
        "password of that user, or a token; better set INFLUX_PASS, which no list of processes shows",
        default="",
        metavar="PASSWORD",
    ),
    *_influx(
        "influx_ssl",
        "use TLS, and refuse a server that does not prove its identity",
        **_SWITCH,
    ),
    *_influx(
        "influx_ca",
        "certificate authority of InfluxDB, if it is not a public one",
        metavar="PEM",
        needs="influx_ssl",
    ),
    *_influx(
        "influx_db",
        "database of samples and anomalies",
        default="metrics_db",
        metavar="DB",
    ),
    Option(
        "influx_measurement",
        "InfluxDB",
        (LIVE,),
        "measurement to store anomalies in",
        default=EDGE_ANOMALIES,
        metavar="NAME",
        unless="anomalies metrics",
    ),
    Option(
        "influx_measurement",
        "InfluxDB",
        (PORTS_TEST,),
        "measurement to store anomalies in",
        default=PORT_ANOMALIES,
        metavar="NAME",
        unless="anomalies metrics, ports_dir",
    ),
    Option(
        "store_expected",
        "InfluxDB",
        (LIVE, PORTS_TEST),
        "also store what is expected and allowed, for every record: points of the measurement `expected`, for"
        " dashboards",
        unless="anomalies metrics, ports_dir",
        **_SWITCH,
    ),
    Option(
        "learn_all",
        "training",
        (TRAIN,),
        "also learn what is unlike the rest of the training set",
        **_SWITCH,
    ),
    Option(
        "epochs",
        "training",
        (TRAIN,),
        "how many times to go over the training set",
        kind=_number(int, 1, 10_000),
        metavar="N",
        default_text=f"{DEFAULT_EPOCHS}, or more for a short training set: at least {ENOUGH_STEPS} steps",
    ),
    Option(
        "preprocess",
        "training",
        (PORTS_TRAIN,),
        "how to prepare samples: default, or workshop, which finds less and is for comparison",
        default="default",
        kind=_one_of("default", "workshop"),
        metavar="NAME",
    ),
    Option(
        "bucket_minutes",
        "training",
        (PORTS_TRAIN,),
        "minutes to judge together: 5, 10, 15, 20, 30 or 60; more for a port that is sampled less often",
        kind=_bucket_minutes,
        metavar="N",
        default_text="15, or 30 with --preprocess workshop",
    ),
    Option(
        "timezone",
        "training",
        (TRAIN, PORTS_TRAIN),
        "time zone of the people who use the node or the ports, and of its daily jobs",
        default=_machine_zone,
        kind=_zone,
        metavar="ZONE",
        default_text="this machine's",
    ),
    Option(
        "devices",
        "training",
        (PORTS_TRAIN,),
        'JSON file of the devices that differ, like {"lon1": {"timezone": "Europe/London"}}',
    ),
    Option(
        "holidays",
        "training",
        (PORTS_TRAIN,),
        "country whose public holidays the users of the ports keep, or a part of it, like IT or GB-ENG",
        kind=_country,
        metavar="COUNTRY",
        default_text="none",
    ),
    Option(
        "train_days",
        "training",
        (PORTS_TRAIN,),
        "local days of history up to the last midnight, 28 to 366",
        default=63,
        kind=_number(int, 28, 366),
        metavar="N",
    ),
    Option(
        "drift_hours",
        "training",
        (PORTS_TRAIN,),
        "how many hours an anomaly of a port lasts until it counts as the new level, 6 to 18",
        default=12,
        kind=_number(int, 6, 18),
        metavar="N",
    ),
    Option(
        "evaluate",
        "evaluation",
        (TRAIN,),
        "propose thresholds, keep those that a person set, and report how well they detect",
        **_SWITCH,
        unless="node",
    ),
    Option(
        "evaluate",
        "evaluation",
        (PORTS_TRAIN,),
        "compare all detectors on the last fifth of the samples",
        **_SWITCH,
    ),
    Option(
        "cpu_testset",
        "evaluation",
        (TRAIN,),
        "records with a CPU attack; attacks.json beside the file says when it took place",
        default_text=cpu_testset,
        metavar="CSV",
        needs="evaluate",
    ),
    Option(
        "iperf_testset",
        "evaluation",
        (TRAIN,),
        "records with an iperf attack; attacks.json beside the file says when it took place",
        default_text=iperf_testset,
        metavar="CSV",
        needs="evaluate",
    ),
    Option(
        "threshold_percentile",
        "evaluation",
        (TRAIN,),
        "percentile of the window RMSEs to take as threshold, 50 to 100",
        default=DEFAULT_PERCENTILE,
        kind=_number(float, 50, 100),
        metavar="P",
        needs="evaluate",
    ),
    Option(
        "plot_dir",
        "evaluation",
        (PORTS_TRAIN,),
        "folder for the comparison and its pictures",
        default=f"{plots_prefix}ports",
        metavar="DIR",
        needs="evaluate",
    ),
    Option(
        "interval",
        "records",
        (TRAIN, REPLAY, CHECK),
        "seconds between records; a dataset must have records at least that often",
        default=RECORD_SECONDS,
        kind=_seconds,
        metavar="SECONDS",
    ),
    Option(
        "interval",
        "records",
        (COLLECT,),
        "seconds between records",
        default=RECORD_SECONDS,
        kind=_seconds,
        metavar="SECONDS",
    ),
    Option(
        "interval",
        "judging",
        (LIVE,),
        "seconds between records, and between polls",
        default=RECORD_SECONDS,
        kind=_seconds,
        metavar="SECONDS",
    ),
    Option(
        "since",
        "records",
        (COLLECT,),
        "how much of the newest history to write, like 90m, 24h or 3d",
        default="24h",
        kind=_seconds,
        metavar="TIME",
        unless="stretch",
    ),
    Option(
        "since",
        "records",
        (TRAIN,),
        "collect so much of the newest history first, like 24h or 3d, into --trainset, a new file",
        kind=_seconds,
        metavar="TIME",
    ),
    Option(
        "stretch",
        "records",
        (COLLECT,),
        "a stretch of the history to write, from START to before END; can be given several times",
        kind=_stretch,
        metavar="START/END",
        repeats=True,
    ),
    Option(
        "add",
        "records",
        (COLLECT,),
        "add to the records of the file that is there, instead of replacing them",
        **_SWITCH,
    ),
    Option(
        "leave_out",
        "records",
        (COLLECT,),
        "JSON file of windows (incidents, maintenance) whose records are not written",
    ),
    Option(
        "timezone",
        "records",
        (COLLECT,),
        "time zone of the weekly windows",
        default=_machine_zone,
        kind=_zone,
        metavar="ZONE",
        default_text="this machine's",
        needs="leave_out",
    ),
    Option(
        "catch_up",
        "judging",
        (LIVE,),
        "how far back to judge records that were missed",
        default="1h",
        kind=_seconds,
        metavar="TIME",
    ),
    Option(
        "drift",
        "judging",
        (LIVE,),
        "log a new normal for a metric that was over its threshold for most of this time",
        default="6h",
        kind=_seconds,
        metavar="TIME",
    ),
    Option(
        "detector",
        "judging",
        _PORTS,
        ", ".join(PORT_DETECTORS) + " or all",
        default=PORT_DETECTORS[0],
        kind=_one_of(*PORT_DETECTORS, "all"),
        metavar="NAME",
    ),
    Option(
        "until",
        "judging",
        _PORTS,
        "act as if it were this time; later samples do not count",
        kind=_moment,
        metavar="TIME",
        default_text="now",
    ),
    Option("once", "service", (LIVE, PORTS_TEST), "judge what is new once, then exit", **_SWITCH),
    Option(
        "state_dir",
        "service",
        (LIVE,),
        "folder that keeps anomalies not yet in InfluxDB, and where judging stopped",
        default="state",
        metavar="DIR",
        fallback="STATE_DIRECTORY",
    ),
    Option(
        "state_dir",
        "service",
        (PORTS_TEST,),
        "folder that keeps where judging stopped",
        default="state",
        metavar="DIR",
        unless="ports_dir",
        fallback="STATE_DIRECTORY",
    ),
    Option(
        "state_dir",
        "service",
        _ANSWERS,
        "folder in which test mode keeps its incidents",
        default="state",
        metavar="DIR",
        fallback="STATE_DIRECTORY",
    ),
    Option(
        "spool_limit",
        "service",
        (LIVE,),
        "how many anomalies to keep while InfluxDB is away; the oldest are dropped first",
        default=100_000,
        kind=_number(int, 1, 10_000_000),
        metavar="N",
    ),
    Option(
        "metrics_port",
        "service",
        (LIVE, PORTS_TEST),
        "serve the service's own metrics to Prometheus on this port; deploy/alerts.yml has alert rules",
        kind=_PORT,
        metavar="PORT",
        unless="once",
    ),
    Option(
        "metrics_address",
        "service",
        (LIVE, PORTS_TEST),
        "address to serve these metrics on",
        default="127.0.0.1",
        metavar="IP",
        needs="metrics_port",
    ),
    Option(
        "metrics_node",
        "service",
        (LIVE,),
        "a node with series of its own among these metrics, or a pattern; others are only counted; can be"
        " given several times",
        metavar="NAME",
        default_text="none",
        needs="node, metrics_port",
        repeats=True,
    ),
    Option(
        "page_port",
        "service",
        (LIVE, PORTS_TEST),
        "serve a page for browsers on this port: what is going on, and the last hours of each metric",
        kind=_PORT,
        metavar="PORT",
        unless="once",
    ),
    Option(
        "page_address",
        "service",
        (LIVE, PORTS_TEST),
        "address to serve this page on; who can reach it can read it",
        default="127.0.0.1",
        metavar="IP",
        needs="page_port",
    ),
    Option(
        "replay",
        "recorded dataset",
        (REPLAY,),
        "judge this dataset instead of InfluxDB",
        metavar="CSV",
    ),
    Option(
        "plot",
        "recorded dataset",
        (REPLAY,),
        "file for a picture of the dataset's metrics, RMSEs, anomalies and alerts",
        metavar="PNG",
    ),
    Option(
        "jobs",
        "processes",
        (COLLECT, TRAIN),
        "how many processes to use for many nodes",
        default=_machine_cpus,
        kind=_JOBS,
        metavar="N",
        default_text="one for each CPU",
        needs="node",
        unless="scheduler",
    ),
    Option(
        "scheduler",
        "processes",
        (TRAIN,),
        "Dask scheduler whose workers do the work instead, like tcp://HOST:8786; they need the packages of"
        " requirements.txt, and access to the folder --nodes_dir",
        metavar="URL",
        needs="node",
    ),
    Option(
        "jobs",
        "processes",
        _PORTS,
        "how many processes to use",
        default=_machine_cpus,
        kind=_JOBS,
        metavar="N",
        default_text="one for each CPU",
        unless="scheduler",
    ),
    Option(
        "scheduler",
        "processes",
        _PORTS,
        "Dask scheduler whose workers do the work instead, like tcp://HOST:8786; they need the packages of"
        " requirements.txt, and access to the folder --ports_dir",
        metavar="URL",
    ),
)

# What collecting needs to reach a database, training needs if it collects first.
OPTIONS += tuple(
    replace(one, modes=(TRAIN,), needs=", ".join(filter(None, ("since", one.needs))))
    for one in OPTIONS
    if COLLECT in one.modes and one.group in SERVER_GROUPS
)


# One row for each name; all rows of a name have the same type.
BY_NAME = {option.name: option for option in (*CHOICES, *OPTIONS)}


def options_of(mode: Mode) -> list[Option]:
    """The options that do something in a mode."""
    return [option for option in OPTIONS if mode in option.modes]


def words_for(mode: Mode, values: Mapping[str, Any]) -> list[str]:
    """The words that give options of a mode these values, by name; those of defaults are left out."""
    words = []
    for option in options_of(mode):
        value = values.get(option.name)
        if value is not None and value != option.find_value({}):
            words += [f"--{option.name}", f"{value:g}" if isinstance(value, float) else str(value)]
    return words


def environment_names() -> set[str]:
    """All environment variables that options are read from."""
    return {name for option in BY_NAME.values() for name in option.environment}
