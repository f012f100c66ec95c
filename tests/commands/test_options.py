"""The table of options: what the parser takes and refuses, what --help shows, and docs/options.md."""

from __future__ import annotations

import ast
import inspect
import os
import re
import shlex
import textwrap
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import find_anomalies
from commands.command_line import format_docs, format_help, parse_options
from commands.options import (
    ANSWER,
    BY_NAME,
    CHECK,
    CHOICES,
    COLLECT,
    DESCRIBE,
    LIVE,
    MODES,
    OPTIONS,
    PORTS_ANSWER,
    PORTS_TEST,
    PORTS_TRAIN,
    REPLAY,
    TRAIN,
    Mode,
    Option,
    options_of,
)

ROOT = Path(__file__).resolve().parents[2]
PORT_RANGE = "is not a number from 1 to 65535"
SHORT_TIME = "is not a time of 0.1 s or more, like 15s, 90m, 24h or 3d"
# A value that the type of an option takes, and one that it refuses, where it refuses any.
VALUES = {
    "train_days": ("30", "27"),
    "drift_hours": ("6", "5"),
    "holidays": ("GB-ENG", "Italy"),
    "bucket_minutes": ("10", "7"),
    "timezone": ("Asia/Tokyo", "Rome"),
    "until": ("2023-01-31", "noon"),
    "detector": ("STL", "magic"),
    "preprocess": ("workshop", "none"),
    "interval": ("1", "0"),
    "since": ("90m", "soon"),
    "stretch": ("2023-01-31/2023-02-01T12:00:00Z", "2023-01-31"),
    "catch_up": ("2h", "-1"),
    "drift": ("1d", "nan"),
    "epochs": ("3", "0"),
    "threshold_percentile": ("98.5", "49"),
    "influx_port": ("8087", "abc"),
    "source": ("prometheus", "files"),
    "anomalies": ("influxdb", "none"),
    "metrics_port": ("9105", "0"),
    "page_port": ("9106", "0"),
    "spool_limit": ("10", "0"),
    "jobs": ("2", "0"),
}


def value_of(option: Option) -> str:
    return "true" if option.is_switch else VALUES.get(option.name, (f"of_{option.name}",))[0]


def parsed(option: Option) -> Any:
    """What value_of becomes if it is given once."""
    value = option.kind(value_of(option))
    return [value] if option.repeats else value


def needed_by(option: Option) -> dict[str, str]:
    """The options without which this one does nothing, with their values."""
    pairs = (one.partition(" ") for one in option.needed)
    return {name: value or value_of(BY_NAME[name]) for name, _, value in pairs}


def words_of(mode: Mode) -> list[str]:
    """What chooses the mode on the command line."""
    return [*mode.words.split(), "records.csv"] if mode is REPLAY else mode.words.split()


def names_of(mode: Mode) -> set[str]:
    return {option.name for option in options_of(mode)}


def refusal(
    arguments: list[str], capsys: pytest.CaptureFixture[str], environment: Mapping[str, str] = os.environ
) -> str:
    """The one line that wrong usage ends with."""
    with pytest.raises(SystemExit) as ended:
        parse_options(arguments, environment)
    out, err = capsys.readouterr()
    assert (ended.value.code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("find_anomalies.py: ")
    return err.removeprefix("find_anomalies.py: ").rstrip("\n")


# --- the table -----------------------------------------------------------------------------------


def test_names_and_defaults_are_the_documented_ones() -> None:
    values = {mode: vars(parse_options(words_of(mode), {})[1]) for mode in MODES}
    influx = {"host": "localhost", "port": 8086, "user": "", "pass": "", "ssl": False, "ca": None}
    influx = {f"influx_{name}": value for name, value in influx.items()} | {"influx_db": "metrics_db"}
    prometheus = {"url": "http://localhost:9090", "user": "", "pass": "", "ca": None}
    prometheus = {f"prometheus_{name}": value for name, value in prometheus.items()} | {"source": "influxdb"}
    judges = {
        "model": "model/5g_edge_autoencoder.h5",
        "thresholds_file": "data/thresholds.json",
        "node_file": None,
        "interval": 15,
    }
    nodes = {"node": [], "nodes_file": None, "nodes_dir": "data/nodes"}
    quiet = {"answers_file": "data/answers.json", "calendar": None}
    for_ports = {
        **quiet,
        "ports_dir": None,
        "ports_models": "model/ports",
        "detector": "profile",
        "until": None,
        "jobs": os.cpu_count(),
        "scheduler": None,
    }
    for mode in (TRAIN, COLLECT, PORTS_TRAIN, ANSWER, PORTS_ANSWER):
        zone = values[mode].pop("timezone")
        assert BY_NAME["timezone"].kind(zone) == zone
    assert values[TRAIN] == judges | nodes | prometheus | influx | quiet | {
        "since": None,
        "trainset": "data/normal.csv",
        "learn_all": False,
        "epochs": None,
        "evaluate": False,
        # The shipped ones, where they are of use.
        "cpu_testset": None,
        "iperf_testset": None,
        "threshold_percentile": 99,
        "jobs": os.cpu_count(),
        "scheduler": None,
    }
    assert values[LIVE] == judges | nodes | influx | quiet | {
        "influx_measurement": "detected_anomalies",
        "store_expected": False,
        "node_file": None,
        "once": False,
        "plot_dir": None,
        "state_dir": "state",
        "spool_limit": 100_000,
        "catch_up": 3600,
        "drift": 6 * 3600,
        "metrics_port": None,
        "page_port": None,
        "page_address": "127.0.0.1",
        "metrics_address": "127.0.0.1",
        "metrics_node": [],
        **prometheus,
        "anomalies": "influxdb",
    }
    assert values[REPLAY] == judges | {"replay": "records.csv", "plot": None, "plot_dir": None}
    assert values[DESCRIBE] == prometheus | influx | {"output": None, "node_file": None}
    assert values[COLLECT] == nodes | prometheus | influx | {
        "output": None,
        "node_file": None,
        "plot": None,
        "interval": 15,
        "since": 86400,
        "stretch": [],
        "add": False,
        "leave_out": None,
        "jobs": os.cpu_count(),
    }
    assert values[CHECK] == judges | {"trainset": "data/normal.csv"}
    assert values[PORTS_TRAIN] == for_ports | prometheus | influx | {
        "preprocess": "default",
        "bucket_minutes": None,
        "devices": None,
        "holidays": None,
        "train_days": 63,
        "drift_hours": 12,
        "evaluate": False,
        "plot_dir": "plots/ports",
    }
    assert values[PORTS_TEST] == for_ports | prometheus | influx | {
        "anomalies": "influxdb",
        "influx_measurement": "detected_port_anomalies",
        "store_expected": False,
        "once": False,
        "plot_dir": None,
        "state_dir": "state",
        "metrics_port": None,
        "page_port": None,
        "page_address": "127.0.0.1",
        "metrics_address": "127.0.0.1",
    }
    switches = dict.fromkeys(("normal", "attack", "maintenance", "take_back", "yes"), False)
    assert (
        values[ANSWER]
        == values[PORTS_ANSWER]
        == {
            **switches,
            "answers_file": "data/answers.json",
            "state_dir": "state",
            "incident": None,
            "node": [],
            "since": None,
            "until": None,
        }
    )


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.words)
def test_the_rows_of_the_table_agree(mode: Mode) -> None:
    names = [option.name for option in options_of(mode)]
    assert len(names) == len(set(names))
    for option in options_of(mode):
        other = BY_NAME[option.name]
        same = ("kind", "metavar", "fallback")
        assert [getattr(option, key) for key in same] == [getattr(other, key) for key in same]
        assert {one.split()[0] for one in option.needed} <= set(names)


def read_by(function: Callable) -> set[str]:
    """The options that a function takes from the namespace, with all of commands/ that it calls."""
    read, todo, seen = set(), [function], set()
    while todo:
        one = todo.pop()
        seen.add(one)
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(one)))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                read |= {node.attr} if node.value.id == "options" else set()
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                called = one.__globals__.get(node.func.id)
                is_ours = inspect.isfunction(called) and called.__module__.startswith("commands.")
                todo += [called] if is_ours and called not in seen else []
    return read


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.words)
def test_each_command_reads_the_options_that_serve_it_and_no_others(mode: Mode) -> None:
    assert read_by(find_anomalies.command_of(mode)) == names_of(mode)


# --- wrong usage ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ("", "--mode is needed: train, test, collect, describe or answer"),
        (
            "--mode fly",
            "argument --mode: invalid choice: 'fly' (choose from 'train', 'test', 'collect', 'describe',"
            " 'answer')",
        ),
        ("--mode test --speed 9", "unrecognized arguments: --speed 9; --help shows all options"),
        ("--mode test now", "unrecognized arguments: now; --help shows all options"),
        (
            "--mode describe --node all",
            "--node does nothing in --mode describe; it serves --mode train, --mode test, --mode collect,"
            " --mode answer and --target ports --mode answer",
        ),
        ("--mode test --nodes_file x", "--nodes_file does nothing without --node; give both or neither"),
        ("--mode test --nodes_dir x", "--nodes_dir does nothing without --node; give both or neither"),
        ("--mode test --node a --model x", "--model does nothing with --node; leave one of them out"),
        ("--mode collect --node a --output x", "--output does nothing with --node; leave one of them out"),
        (
            "--mode test --node a --metrics_node a",
            "--metrics_node does nothing without --metrics_port; give both or neither",
        ),
        ("--mode", "argument --mode: expected one argument"),
        ("--mode test --influx_port abc", f"argument --influx_port: 'abc' {PORT_RANGE}"),
        ("--mode test --influx_port 0", f"argument --influx_port: '0' {PORT_RANGE}"),
        ("--mode test --influx_port 65536", f"argument --influx_port: '65536' {PORT_RANGE}"),
        ("--mode test --influx_port 80.5", f"argument --influx_port: '80.5' {PORT_RANGE}"),
        ("--mode test --interval 0", f"argument --interval: '0' {SHORT_TIME}"),
        ("--mode test --interval nan", f"argument --interval: 'nan' {SHORT_TIME}"),
        ("--mode train --epochs 0", "argument --epochs: '0' is not a number from 1 to 10000"),
        ("--mode train --epochs 1.5", "argument --epochs: '1.5' is not a number from 1 to 10000"),
        (
            "--mode train --threshold_percentile 101",
            "argument --threshold_percentile: '101' is not a number from 50 to 100",
        ),
        (
            "--mode train --threshold_percentile nan",
            "argument --threshold_percentile: 'nan' is not a number from 50 to 100",
        ),
        ("--mode train --evaluate perhaps", "argument --evaluate: 'perhaps' is neither true nor false"),
        (
            "--target ports --mode collect",
            "--target ports has no --mode collect; its --mode train reads the samples directly",
        ),
        (
            "--target ports --mode describe",
            "--target ports has no --mode describe; its --mode train reads the samples directly",
        ),
        (
            "--target ports --check_thresholds",
            "--target ports has no --check_thresholds and no thresholds file",
        ),
        (
            "--mode test --check_thresholds",
            "--check_thresholds needs no --mode; leave one of them out",
        ),
        # What does nothing in the mode, or without or with another option.
        ("--mode test --epochs 3", "--epochs does nothing in --mode test; it serves --mode train"),
        (
            "--mode test --plot x.png",
            "--plot does nothing in --mode test; it serves --mode test --replay and --mode collect",
        ),
        (
            "--target ports --mode train --node_file x",
            "--node_file does nothing in --target ports --mode train; it serves --mode train, --mode test,"
            " --mode test --replay, --mode describe, --mode collect and --check_thresholds",
        ),
        (
            "--mode train --influx_host x",
            "--influx_host does nothing without --since; give both or neither",
        ),
        (
            "--check_thresholds --evaluate",
            "--evaluate does nothing in --check_thresholds; it serves --mode train and"
            " --target ports --mode train",
        ),
        (
            "--target ports --mode test --train_days 30",
            "--train_days does nothing in --target ports --mode test; it serves --target ports --mode train",
        ),
        (
            "--mode train --cpu_testset x",
            "--cpu_testset does nothing without --evaluate; give both or neither",
        ),
        (
            "--mode train --evaluate false --threshold_percentile 98",
            "--threshold_percentile does nothing without --evaluate; give both or neither",
        ),
        (
            "--mode test --influx_ca x.pem",
            "--influx_ca does nothing without --influx_ssl; give both or neither",
        ),
        (
            "--mode test --metrics_address 0.0.0.0",
            "--metrics_address does nothing without --metrics_port; give both or neither",
        ),
        (
            "--target ports --mode train --plot_dir x",
            "--plot_dir does nothing without --evaluate; give both or neither",
        ),
        (
            "--mode test --prometheus_url http://x:9090",
            "--prometheus_url does nothing without --source prometheus; give both or neither",
        ),
        (
            "--mode test --anomalies metrics",
            "--anomalies does nothing without --source prometheus; give both or neither",
        ),
        (
            "--mode collect --source prometheus --influx_host x",
            "--influx_host does nothing with --source prometheus; leave one of them out",
        ),
        # Anomalies go to the service's own metrics unless something else is said.
        (
            "--mode test --source prometheus --influx_db x",
            "--influx_db does nothing with --anomalies metrics; leave one of them out",
        ),
        (
            "--target ports --mode train --ports_dir x --influx_host y",
            "--influx_host does nothing with --ports_dir; leave one of them out",
        ),
        (
            "--target ports --mode test --ports_dir x --state_dir y",
            "--state_dir does nothing with --ports_dir; leave one of them out",
        ),
        ("--mode answer --normal", "--normal does nothing without --incident; give both or neither"),
        ("--mode answer --take_back", "--take_back does nothing without --incident; give both or neither"),
        (
            "--mode answer --incident x --normal --attack",
            "--normal does nothing with --attack; leave one of them out",
        ),
        (
            "--mode answer --incident x --attack --maintenance",
            "--attack does nothing with --maintenance; leave one of them out",
        ),
        (
            "--mode answer --incident x --maintenance --take_back",
            "--maintenance does nothing with --take_back; leave one of them out",
        ),
        (
            "--mode answer --incident x --maintenance --node a",
            "--node does nothing with --incident; leave one of them out",
        ),
        ("--mode answer --node a", "--node does nothing without --maintenance; give both or neither"),
        (
            "--mode answer --incident x --normal --until 2h",
            "--until does nothing with --normal; leave one of them out",
        ),
        (
            "--mode answer --incident x --take_back --yes",
            "--yes does nothing with --take_back; leave one of them out",
        ),
        (
            "--target ports --mode test --scheduler tcp://x:1 --jobs 2",
            "--jobs does nothing with --scheduler; leave one of them out",
        ),
    ],
)
def test_wrong_usage_is_one_line(arguments: str, fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(arguments.split(), capsys, {}) == fault


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.words)
def test_whatever_does_nothing_in_a_mode_is_refused_with_the_modes_that_it_serves(
    mode: Mode, capsys: pytest.CaptureFixture[str]
) -> None:
    # --replay makes another mode of --mode test.
    idle = {option.name for option in OPTIONS} - names_of(mode) - ({"replay"} if mode is LIVE else set())
    assert idle
    for name in sorted(idle):
        said = refusal([*words_of(mode), f"--{name}", value_of(BY_NAME[name])], capsys, {})
        begin, served = said.split("; it serves ")
        assert begin == f"--{name} does nothing in {mode.words}"
        served_modes = {one.words for one in MODES if name in names_of(one)}
        assert set(re.split(", | and ", served)) == served_modes


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.words)
def test_whatever_serves_a_mode_is_taken(mode: Mode) -> None:
    for option in options_of(mode):
        beside = [f"--{name}={value}" for name, value in needed_by(option).items()]
        words = [*words_of(mode), *beside, f"--{option.name}={value_of(option)}"]
        chosen, values = parse_options(words, {})
        assert chosen is mode
        assert getattr(values, option.name) == parsed(option)


def test_no_name_can_be_shortened(capsys: pytest.CaptureFixture[str]) -> None:
    for name in BY_NAME:
        for length in range(1, len(name)):
            if (short := f"--{name[:length]}") not in {f"--{one}" for one in BY_NAME}:
                said = refusal(["--mode=test", f"{short}=1"], capsys, {})
                assert said == f"unrecognized arguments: {short}=1; --help shows all options"


def test_an_option_that_repeats_has_all_values_of_the_line_or_else_of_the_environment() -> None:
    texts = ["2023-01-01/2023-01-02", "2023-02-01/2023-02-02"]
    second = 10**9
    days = [
        (1_672_531_200 * second, 1_672_617_600 * second),
        (1_675_209_600 * second, 1_675_296_000 * second),
    ]
    words, line = ["--mode", "collect"], [f"--stretch={text}" for text in texts]
    found = {"FIND_ANOMALIES_STRETCH": " ".join(texts)}
    assert parse_options([*words, *line], {})[1].stretch == days
    assert parse_options(words, found)[1].stretch == days
    assert parse_options([*words, line[1]], found)[1].stretch == days[1:]
    assert parse_options(words, {})[1].stretch == []


def test_a_switch_needs_no_value(capsys: pytest.CaptureFixture[str]) -> None:
    for given, expected in (("--once", True), ("--once=YES", True), ("--once=0", False)):
        assert parse_options(["--mode", "test", given], {})[1].once is expected


# --- the environment -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["test", "TEST", "Test"])
def test_the_mode_is_taken_in_any_case(name: str) -> None:
    assert parse_options(["--mode", name], {})[0] is LIVE
    assert parse_options([], {"FIND_ANOMALIES_MODE": name})[0] is LIVE


def test_the_names_in_the_environment() -> None:
    for option in OPTIONS:
        upper = option.name.upper()
        own = upper if upper.startswith("INFLUX_") else f"FIND_ANOMALIES_{upper}"
        fallback = ("STATE_DIRECTORY",) if option.name == "state_dir" else ()
        assert option.environment == (own, *fallback)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.words)
def test_an_option_from_the_environment_counts_and_the_command_line_outranks_it(mode: Mode) -> None:
    for option in options_of(mode):
        if option.name == "replay":
            continue
        found = {option.environment[0]: value_of(option)}
        chosen, values = parse_options(words_of(mode), found)
        assert chosen is mode
        assert getattr(values, option.name) == parsed(option)
        # An empty variable is none.
        default = getattr(parse_options(words_of(mode), {})[1], option.name)
        assert getattr(parse_options(words_of(mode), dict.fromkeys(found, ""))[1], option.name) == default
        line = [*words_of(mode), f"--{option.name}={value_of(option)}"]
        beside = {BY_NAME[name].environment[0]: value for name, value in needed_by(option).items()}
        other = {option.environment[0]: "other"} if option.kind is str else {}
        assert getattr(parse_options(line, beside | other)[1], option.name) == parsed(option)


@pytest.mark.parametrize(
    ("arguments", "environment", "mode"),
    [
        ([], {"FIND_ANOMALIES_MODE": "train"}, TRAIN),
        ([], {"FIND_ANOMALIES_MODE": "train", "FIND_ANOMALIES_TARGET": "ports"}, PORTS_TRAIN),
        (["--target", "edge"], {"FIND_ANOMALIES_MODE": "train", "FIND_ANOMALIES_TARGET": "ports"}, TRAIN),
        (["--mode", "test"], {"FIND_ANOMALIES_MODE": "train"}, LIVE),
        (["--mode", "test"], {"FIND_ANOMALIES_REPLAY": "x.csv"}, REPLAY),
        (["--mode", "test"], {"FIND_ANOMALIES_CHECK_THRESHOLDS": "true"}, LIVE),
        (["--check_thresholds"], {"FIND_ANOMALIES_MODE": "test", "FIND_ANOMALIES_TARGET": "ports"}, CHECK),
        ([], {"FIND_ANOMALIES_CHECK_THRESHOLDS": "true", "FIND_ANOMALIES_MODE": "test"}, CHECK),
    ],
)
def test_the_mode_that_the_environment_chooses(
    arguments: list[str], environment: dict[str, str], mode: Mode
) -> None:
    assert parse_options(arguments, environment)[0] is mode


def test_where_state_is_kept() -> None:
    systemd = {"STATE_DIRECTORY": "/var/lib/of_systemd"}
    own = {"FIND_ANOMALIES_STATE_DIR": "of_environment"}
    assert parse_options(["--mode=test"], systemd)[1].state_dir == "/var/lib/of_systemd"
    assert parse_options(["--mode=test"], systemd | own)[1].state_dir == "of_environment"
    assert parse_options(["--mode=test", "--state_dir=of_line"], systemd | own)[1].state_dir == "of_line"


def test_a_stray_variable_changes_nothing() -> None:
    stray = {name.upper(): "fly" for name in BY_NAME if not name.startswith("influx_")}
    stray |= {f"FIND_ANOMALIES_INFLUX_{name}": "fly" for name in ("HOST", "PORT", "DB")}
    assert {"MODE", "JOBS", "PLOT", "OUTPUT", "TARGET", "MODEL"} <= set(stray)
    for mode in MODES:
        chosen, values = parse_options(words_of(mode), stray)
        assert (chosen, values) == (mode, parse_options(words_of(mode), {})[1])


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.words)
def test_a_bad_value_in_the_environment_counts_only_where_its_option_serves(
    mode: Mode, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, option in BY_NAME.items():
        bad = {"evaluate": "perhaps", "once": "perhaps"}.get(name) or VALUES.get(name, ("", ""))[-1]
        if not bad:
            continue
        (variable, *_) = option.environment
        if name in names_of(mode):
            said = refusal(words_of(mode), capsys, {variable: bad})
            assert said.startswith(f"{variable} in the environment: '{bad}' is n") or "invalid choice" in said
            assert variable in said
        else:
            assert parse_options(words_of(mode), {variable: bad})[1] == parse_options(words_of(mode), {})[1]


def test_what_needs_another_option_is_satisfied_by_the_environment() -> None:
    found = {"FIND_ANOMALIES_EVALUATE": "true"}
    assert parse_options(["--mode=train", "--cpu_testset=x"], found)[1].cpu_testset == "x"


def test_where_anomalies_go_is_ignored_in_the_environment_if_samples_come_from_influxdb(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = {"FIND_ANOMALIES_ANOMALIES": "metrics"}
    for words in ("--mode=test", "--target=ports --mode=test"):
        arguments = [*words.split(), "--influx_host=edge1"]
        assert parse_options(arguments, found) == parse_options(arguments, {})
        assert parse_options(arguments, found)[1].anomalies == "influxdb"
        assert refusal([*arguments, "--source=prometheus"], capsys, found) == (
            "--influx_host does nothing with --anomalies metrics; leave one of them out"
        )


def test_an_authority_in_the_environment_without_tls_is_no_leave_to_talk_without_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("INFLUX_CA", "ca.pem")
    assert find_anomalies.main(["--mode=collect", f"--output={tmp_path / 'x.csv'}"]) == 1
    assert capfd.readouterr().err == (
        "find_anomalies.py: --influx_ca is for TLS; give --influx_ssl as well\n"
    )


# --- help and docs -------------------------------------------------------------------------------


def shown_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        find_anomalies.main(arguments)
    out, err = capsys.readouterr()
    assert (ended.value.code, err) == (0, "")
    return out


def named_in(text: str) -> set[str]:
    """The options that stand at the beginning of a line."""
    return set(re.findall(r"^  --(\w+)", text, re.MULTILINE))


def test_help_alone_shows_what_the_program_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    # It is the command line that says what is asked for.
    monkeypatch.setenv("FIND_ANOMALIES_MODE", "train")
    text = shown_help(["--help"], capsys)
    assert named_in(text) == {option.name for option in CHOICES}
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    for mode in MODES:
        assert lines[lines.index(f"{mode.does}:") + 1] == f"  python find_anomalies.py {mode.example}"
    assert "  python find_anomalies.py --mode train --help" in lines
    assert shown_help(["-h"], capsys) == shown_help(["--target", "ports", "--help"], capsys) == text


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.words)
def test_help_of_a_mode_shows_its_options_in_groups_and_no_others(
    mode: Mode, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = shown_help([*words_of(mode), "--help"], capsys)
    # --mode test tells of recorded datasets as well.
    assert named_in(text) == names_of(mode) | ({"replay", "plot"} if mode is LIVE else set())
    assert max(map(len, text.splitlines())) <= 80
    groups = re.findall(r"^(\w[\w ]*?)(?: \(.*\))?:$", text, re.MULTILINE)
    expected = list(dict.fromkeys(option.group for option in options_of(mode)))
    assert groups == ["example", *expected, *(["recorded dataset"] if mode is LIVE else [])]
    upper = [word if word.startswith("--") else word.upper() for word in words_of(mode)]
    assert shown_help(["--help", *upper], capsys) == text


def test_defaults_and_conditions_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = format_help(PORTS_TRAIN)
    assert "InfluxDB (not with --ports_dir; not with --source prometheus):" in text
    assert "(default: plots/ports; only with --evaluate)" in text
    assert "(default: this machine's)" in text
    assert "(default: one for each CPU; not with --scheduler)" in text


def test_the_page_of_options_is_that_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    remedy = "run python -m commands.command_line > docs/options.md"
    assert (ROOT / "docs/options.md").read_text() == format_docs(), remedy
    # It is the same in another time zone.
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert parse_options(["--target=ports", "--mode=train"], {})[1].timezone == "Asia/Tokyo"
    assert format_docs() == (ROOT / "docs/options.md").read_text()


def test_the_page_has_each_option_of_each_mode_with_default_and_variable() -> None:
    _, *sections = re.split(r"^## `", (ROOT / "docs/options.md").read_text(), flags=re.MULTILINE)
    assert len(sections) == len(MODES)
    for mode, section in zip(MODES, sections, strict=True):
        assert section.startswith(f"{mode.words}`\n")
        lines = [line for line in section.splitlines() if line.startswith("| `--")]
        rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
        assert {re.match(r" `--(\w+)", row[0])[1] for row in rows} == names_of(mode)
        assert {len(row) for row in rows} == {4}
        for row, option in zip(rows, sorted(options_of(mode), key=lambda o: _place(o, mode)), strict=True):
            assert row[0].startswith(f" `--{option.name} ")
            assert option.shown_default in row[1]
            assert f"`{option.environment[0]}`" in row[2]


def _place(option: Option, mode: Mode) -> int:
    """Where the group of an option stands among those of a mode."""
    groups = list(dict.fromkeys(one.group for one in options_of(mode)))
    return groups.index(option.group)


def documented_commands() -> list[str]:
    """All command lines in the documentation, the units and the Makefile."""
    files = [ROOT / "README.md", ROOT / "Makefile", *ROOT.glob("docs/*.md"), *ROOT.glob("deploy/*.service")]
    files += ROOT.glob("nodes/*.md")
    text = "\n".join(file.read_text() for file in files).replace("\\\n", " ")
    return sorted({line.strip() for line in re.findall(r"find_anomalies\.py ([^`\n]*--\w[^`\n]*)", text)})


@pytest.mark.parametrize("line", documented_commands())
def test_every_documented_command_is_taken(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = shlex.split(line)
    if "--help" in arguments:
        assert shown_help(arguments, capsys).startswith("usage: ")
    else:
        assert isinstance(parse_options(arguments, {})[1], Namespace)


def test_the_readme_names_no_option_that_is_not_there() -> None:
    lines = re.findall(r"find_anomalies\.py [^\n`]*", (ROOT / "README.md").read_text())
    named = {name for line in lines for name in re.findall(r"--([a-z]\w*)", line)}
    assert named
    assert sorted(named - {*BY_NAME, "help"}) == []
