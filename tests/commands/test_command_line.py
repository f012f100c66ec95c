"""The command line as a user meets it: the exit code, and every line that is printed."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lab.influxd import Influxd, free_port
from nodes.metrics import MEMORY_FREE, RX_CPU, getAnomalyColumns, getFeatures
from service.store import FILE_NAME
from simulators.edge import Attack, simulate
from tests.support.influx import Database, connect
from tests.support.load import seconds_to_start
from tests.support.program import Done, run_here
from tests.support.prometheus_writer import write_samples

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
SECOND = 10**9
STATES = tempfile.TemporaryDirectory()
LOG_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR) (.*)")
KEYS = (
    "cpu_threshold, cpu_rx_threshold, cpu_tx_threshold, net_down_threshold, net_up_threshold,"
    " net_5g_down_threshold, net_5g_up_threshold, mem_threshold, overall_threshold"
)


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "find_anomalies.py"), *map(str, arguments)]


def environment(**given: object) -> dict[str, str]:
    """Of ours only what a process needs: the test run may have set options there."""
    needed = {name: os.environ[name] for name in ("PATH", "HOME", "LD_LIBRARY_PATH") if name in os.environ}
    # What one daemon keeps is not taken up by the next.
    needed["FIND_ANOMALIES_STATE_DIR"] = tempfile.mkdtemp(dir=STATES.name)
    return needed | {name: str(value) for name, value in given.items()}


def run(*arguments: object, cwd: Path = ROOT, absent: Sequence[str] = (), **given: object) -> Done:
    """One run in the folder `cwd`, with the options `given` in its environment; see run_here()."""
    return run_here(*arguments, cwd=cwd, environment=environment(**given), absent=absent)


def run_process(
    *arguments: object, cwd: Path = ROOT, timeout: float = 120, **given: object
) -> subprocess.CompletedProcess[str]:
    """The same in a process of its own."""
    return subprocess.run(
        command(*arguments),
        cwd=cwd,
        env=environment(**given),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def fault(message: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a fault that the user can fix."""
    return 1, "", f"find_anomalies.py: {message}\n"


def outcome(done: Done | subprocess.CompletedProcess[str]) -> tuple[int, str, str]:
    return done.returncode, done.stdout, done.stderr


def logged(stderr: str) -> list[str]:
    """What is said on standard error, without the log's times and levels."""
    return [match[2] if (match := LOG_LINE.fullmatch(line)) else line for line in stderr.splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- wrong usage and help: test_options.py has all of it, in process ------------------------------


def test_wrong_usage_ends_with_exit_code_2() -> None:
    done = run("--mode", "test", "--epochs", 3)
    message = "--epochs does nothing in --mode test; it serves --mode train"
    assert outcome(done) == (2, "", f"find_anomalies.py: {message}\n")
    done = run("--mode", "test", INFLUX_PORT="abc", INFLUX_PASS="secret")
    message = "INFLUX_PORT in the environment: 'abc' is not a number from 1 to 65535"
    assert outcome(done) == (2, "", f"find_anomalies.py: {message}\n")


def test_help_goes_to_standard_output() -> None:
    done = run("--mode", "test", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: find_anomalies.py --mode test [options]\n")


def test_the_environment_chooses_the_mode_and_the_command_line_outranks_it() -> None:
    done = run("--thresholds_file", "none.json", FIND_ANOMALIES_MODE="Test")
    assert outcome(done) == fault("none.json: no such file; check the path")
    done = run("--mode", "test", FIND_ANOMALIES_MODE="train", FIND_ANOMALIES_THRESHOLDS_FILE="none.json")
    assert outcome(done) == fault("none.json: no such file; check the path")


def test_a_switch_and_a_port_can_be_set_in_the_environment() -> None:
    port = free_port("127.0.0.1")
    here = {"INFLUX_HOST": "127.0.0.1", "INFLUX_PORT": port, "INFLUX_DB": "edge"}
    done = run(FIND_ANOMALIES_MODE="test", FIND_ANOMALIES_ONCE="true", **here)
    assert (done.returncode, done.stdout) == (1, "")
    assert logged(done.stderr) == [
        f"watching 127.0.0.1:{port}, database edge, every 15 s",
        f"find_anomalies.py: InfluxDB at 127.0.0.1:{port} cannot be reached;"
        " check --influx_host, --influx_port and that it runs",
    ]


# --- replay --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def replayed() -> subprocess.CompletedProcess[str]:
    """The shipped CPU attack, with no InfluxDB anywhere."""
    port = free_port("127.0.0.1")
    options = ("--mode", "TEST", "--replay", "data/cpu_attack.csv")
    return run_process(*options, INFLUX_HOST="127.0.0.1", INFLUX_PORT=port)


def nanoseconds(text: str) -> int:
    moment = datetime.fromisoformat(text)
    return int(moment.replace(microsecond=0).timestamp()) * SECOND + moment.microsecond * 1000


def record_times(dataset: str) -> list[int]:
    with (ROOT / dataset).open(newline="") as file:
        return [nanoseconds(row["time"]) for row in csv.DictReader(file)]


def attack_windows(dataset: str) -> list[tuple[int, int]]:
    windows = json.loads((ROOT / "data/attacks.json").read_text())[Path(dataset).name]
    return [(nanoseconds(window["start"]), nanoseconds(window["end"])) for window in windows]


def test_replay_prints_anomalies_as_json_lines_and_nothing_else(
    replayed: subprocess.CompletedProcess[str],
) -> None:
    assert replayed.returncode == 0
    times = []
    for line in replayed.stdout.splitlines():
        anomaly = json.loads(line)
        assert list(anomaly) == ["time", "possible_cause", "severity", "rmse", "values"]
        assert anomaly["severity"] in ("anomaly", "alert")
        assert list(anomaly["rmse"]) == [*(key.removesuffix("_threshold") for key in KEYS.split(", "))]
        assert list(anomaly["values"]) == [
            "cpu_usage",
            "mem_usage",
            "net_down_usage",
            "net_up_usage",
            "cpu_rx_usage",
            "cpu_tx_usage",
            "net_down_5g_usage",
            "net_up_5g_usage",
        ]
        times.append(nanoseconds(anomaly["time"]))
    # Each at the time of a record, and each once.
    assert times == sorted(set(times) & set(record_times("data/cpu_attack.csv")))


def test_replay_flags_the_shipped_cpu_attack_in_whole(replayed: subprocess.CompletedProcess[str]) -> None:
    anomalies = {nanoseconds(a["time"]): a for a in map(json.loads, replayed.stdout.splitlines())}
    ((start, end),) = attack_windows("data/cpu_attack.csv")
    attacked = [time for time in record_times("data/cpu_attack.csv") if start <= time < end]
    assert len(attacked) == 72
    flagged = [anomalies[time] for time in attacked if time in anomalies]
    assert len(flagged) >= 0.98 * len(attacked)
    assert all("cpu" in anomaly["possible_cause"].split(" | ") for anomaly in flagged)
    # What is stored is what was measured, and an attack that lasts is an alert.
    assert all(anomaly["values"]["cpu_usage"] > 90 for anomaly in flagged[2:])
    assert {anomaly["severity"] for anomaly in flagged[6:]} == {"alert"}


def test_replay_ends_with_a_summary_of_what_it_printed(replayed: subprocess.CompletedProcess[str]) -> None:
    severities = [json.loads(line)["severity"] for line in replayed.stdout.splitlines()]
    counts = re.fullmatch(
        r"data/cpu_attack\.csv: (\d+) records: (\d+) normal, (\d+) anomaly, (\d+) alert, (\d+) unknown",
        logged(replayed.stderr)[-1],
    )
    assert counts
    records, normal, anomaly, alert, unknown = map(int, counts.groups())
    assert (anomaly, alert) == (severities.count("anomaly"), severities.count("alert"))
    assert records == normal + anomaly + alert + unknown
    assert records >= len(record_times("data/cpu_attack.csv"))
    # The first record has no rates, and a window needs nine predictions.
    assert unknown >= 11


def test_replay_can_draw_what_it_found(tmp_path: Path) -> None:
    picture = tmp_path / "plots" / "iperf.png"
    done = run("--mode", "test", "--replay", "data/iperf_attack.csv", "--plot", picture)
    assert done.returncode == 0
    assert logged(done.stderr)[-1] == f"{picture}: picture of the dataset written"
    assert picture.read_bytes().startswith(b"\x89PNG\r\n")
    causes = {
        cause
        for line in done.stdout.splitlines()
        for cause in json.loads(line)["possible_cause"].split(" | ")
    }
    assert {"net_down", "net_5g_down"} <= causes


def pictures_of(lines: list[str], interval_seconds: int = 15) -> list[str]:
    """File names of the pictures of the alerts among these lines: by the first anomaly of each row."""
    names, first, before = [], 0, 0
    for anomaly in (json.loads(line) for line in lines if line.startswith("{")):
        moment = nanoseconds(anomaly["time"])
        # No record is missing here, so a row ends where a slot has no anomaly.
        if moment - before > 1.5 * interval_seconds * SECOND:
            first = moment
        if anomaly["severity"] == "alert":
            names.append(datetime.fromtimestamp(first // SECOND, UTC).strftime("alert_%Y%m%dT%H%M%SZ.png"))
        before = moment
    return list(dict.fromkeys(names))


@pytest.mark.parametrize("name", ["cpu_attack", "iperf_attack"])
def test_replay_can_draw_each_alert(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "plots" / "alerts"
    done = run("--mode", "test", "--replay", f"data/{name}.csv", "--plot_dir", folder)
    assert done.returncode == 0
    expected = pictures_of(done.stdout.splitlines())
    assert expected
    assert logged(done.stderr)[1:] == [
        f"{folder}/{picture}: picture of an alert written" for picture in expected
    ]
    assert sorted(path.name for path in folder.iterdir()) == expected
    for path in folder.iterdir():
        assert path.read_bytes().startswith(b"\x89PNG\r\n")
        assert path.stat().st_size > 50_000


def test_replay_draws_an_alert_that_is_open_at_the_end(tmp_path: Path) -> None:
    ((start, _),) = attack_windows("data/cpu_attack.csv")
    lines = (ROOT / "data/cpu_attack.csv").read_text().splitlines(keepends=True)
    before = sum(time < start for time in record_times("data/cpu_attack.csv"))
    for flagged, expected in ((3, []), (4, ["alert_20260306T120014Z.png"])):
        folder = tmp_path / str(flagged)
        (tmp_path / "part.csv").write_text("".join(lines[: 1 + before + flagged]))
        done = run("--mode", "test", "--replay", tmp_path / "part.csv", FIND_ANOMALIES_PLOT_DIR=folder)
        assert done.returncode == 0
        assert [path.name for path in folder.iterdir()] == expected


def test_replay_needs_no_tensorflow(tmp_path: Path) -> None:
    few = dataset(tmp_path / "few.csv")
    wires = tripwires(tmp_path, "tensorflow", "keras")
    done = run_process("--mode", "test", "--replay", few, PYTHONPATH=wires)
    assert done.returncode == 0
    assert logged(done.stderr)[-1].startswith(f"{few}: 60 records: ")


@pytest.mark.parametrize("reads", [0, 1])
def test_a_reader_that_goes_away_is_no_fault(reads: int) -> None:
    with subprocess.Popen(
        command("--mode", "test", "--replay", "data/cpu_attack.csv"),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        for _ in range(reads):
            assert json.loads(process.stdout.readline())["severity"] == "anomaly"
        process.stdout.close()
        stderr = process.stderr.read()
        assert process.wait(120) == 0
    assert "Error" not in stderr
    assert "Traceback" not in stderr


# --- datasets that cannot be trusted -------------------------------------------------------------


def dataset(path: Path, count: int = 60, change: Callable[[list[list[str]]], None] | None = None) -> Path:
    """A dataset in which every column changes, `change`d as rows of cells, the header first."""
    columns = list(dict.fromkeys([*getFeatures(), *getAnomalyColumns()]))
    rows = [["time", *columns]]
    for i in range(count):
        moment = datetime.fromtimestamp(1_772_409_600 + 15 * i, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        rows.append([moment, *(f"{10 + k + (i * (k + 1)) % 17}" for k in range(len(columns)))])
    if change:
        change(rows)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def cell(line: int, column: str, value: str) -> Callable[[list[list[str]]], None]:
    """Writes a cell of a line, the header being line 1."""

    def change(rows: list[list[str]]) -> None:
        rows[line - 1][rows[0].index(column)] = value

    return change


def without(*columns: str) -> Callable[[list[list[str]]], None]:
    def change(rows: list[list[str]]) -> None:
        places = [rows[0].index(column) for column in columns]
        rows[:] = [[value for i, value in enumerate(row) if i not in places] for row in rows]

    return change


def swap_lines(rows: list[list[str]]) -> None:
    rows[4], rows[5] = rows[5], rows[4]


def repeat_line(rows: list[list[str]]) -> None:
    rows.insert(5, rows[4])


def keep(count: int) -> Callable[[list[list[str]]], None]:
    def change(rows: list[list[str]]) -> None:
        del rows[count:]

    return change


COLLECT = "--mode collect writes all columns"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("time"), f": has no column time; {COLLECT}"),
        (without("mem_rate", "bytes_received"), f": has no column mem_rate, bytes_received; {COLLECT}"),
        (keep(0), ": is empty; a dataset has a header and records"),
        (keep(1), ": has 0 records; at least 2 are needed"),
        (keep(2), ": has 1 record; at least 2 are needed"),
        (
            cell(7, "cpu_user_percentage", "busy"),
            ", line 7: cpu_user_percentage is 'busy', not a finite number; correct it or leave it empty",
        ),
        (
            cell(2, "mem_rate", "inf"),
            ", line 2: mem_rate is 'inf', not a finite number; correct it or leave it empty",
        ),
        (
            cell(61, "dl_bytes", "-1e999"),
            ", line 61: dl_bytes is '-1e999', not a finite number; correct it or leave it empty",
        ),
        (
            cell(9, "time", "noon"),
            ", line 9: time 'noon' is not a date and time; write it like 2021-01-12T09:13:15Z",
        ),
        (swap_lines, ", line 6: is earlier than the line before; sort by time, each time once"),
        (repeat_line, ", line 6: repeats the time of the line before; sort by time, each time once"),
    ],
)
def test_replay_refuses_a_faulty_dataset_in_one_line_and_writes_nothing(
    change: Callable, message: str, tmp_path: Path
) -> None:
    faulty = dataset(tmp_path / "faulty.csv", change=change)
    picture = tmp_path / "picture.png"
    picture.write_text("of yesterday")
    before = contents(tmp_path)
    done = run("--mode", "test", "--replay", faulty, "--plot", picture)
    assert outcome(done) == fault(f"{faulty}{message}")
    assert contents(tmp_path) == before


def test_replay_refuses_a_dataset_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    missing = tmp_path / "none.csv"
    assert outcome(run("--mode", "test", "--replay", missing)) == fault(
        f"{missing}: no such file; check the path"
    )
    binary = tmp_path / "picture.csv"
    binary.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\r")
    code, stdout, stderr = outcome(run("--mode", "test", "--replay", binary))
    assert (code, stdout, stderr.count("\n")) == (1, "", 1)
    assert stderr.startswith(f"find_anomalies.py: {binary}: cannot be read as comma separated values (")


def gaps(rows: list[list[str]]) -> None:
    for row in rows[1::4]:
        row[1:] = [""] * (len(row) - 1)


def pace(seconds: int) -> Callable[[list[list[str]]], None]:
    """The records are so many seconds apart."""

    def change(rows: list[list[str]]) -> None:
        for i, row in enumerate(rows[1:]):
            row[0] = datetime.fromtimestamp(1_772_409_600 + seconds * i, UTC).isoformat()

    return change


def half_rows(rows: list[list[str]]) -> None:
    """Two exporters, each scraped every 15 s, 7 s after the other: half of each row is empty."""
    place = rows[0].index("mem_rate")
    whole = rows[1:]
    del rows[1:]
    for i, row in enumerate(whole):
        for late, kept in ((0, slice(1, place)), (7, slice(place, None))):
            moment = datetime.fromtimestamp(1_772_409_600 + 15 * i + late, UTC).isoformat()
            half = [moment, *[""] * (len(row) - 1)]
            half[kept] = row[kept]
            rows.append(half)


FAR_APART = (
    "has a value of cpu_user_rate only every {every} s, but --interval is {interval} s; give --interval"
    " {every}, or collect it with --interval {interval}"
)


@pytest.mark.parametrize(
    ("change", "interval", "every"),
    [(None, 1, 15), (None, 10, 15), (pace(60), 15, 60), (half_rows, 7.5, 15), (half_rows, 1, 15)],
)
def test_replay_refuses_a_dataset_that_is_further_apart_than_the_interval(
    change: Callable | None, interval: float, every: int, tmp_path: Path
) -> None:
    path = dataset(tmp_path / "far.csv", change=change)
    done = run("--mode", "test", "--replay", path, "--interval", interval)
    words = FAR_APART.format(every=every, interval=f"{interval:g}")
    assert outcome(done) == fault(f"{path}: {words}")


@pytest.mark.parametrize(("change", "interval"), [(half_rows, 15), (pace(16), 15), (pace(1), 15), (gaps, 15)])
def test_replay_takes_a_dataset_of_two_exporters_a_slow_one_a_quick_one_and_one_with_gaps(
    change: Callable, interval: int, tmp_path: Path
) -> None:
    path = dataset(tmp_path / "near.csv", change=change)
    done = run("--mode", "test", "--replay", path, "--interval", interval)
    assert done.returncode == 0
    assert re.search(r"near\.csv: \d+ records: ", done.stderr)


# --- training that cannot succeed ----------------------------------------------------------------


def tripwires(folder: Path, *modules: str) -> Path:
    """A folder for PYTHONPATH in which importing one of these ends the process with exit code 99."""
    wires = folder / "tripwires"
    wires.mkdir()
    for module in modules:
        (wires / f"{module}.py").write_text(
            f"import os\nos.write(2, b'{module} was imported\\n')\nos._exit(99)\n"
        )
    return wires


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A folder with the files of an earlier training, and with datasets to train on."""
    folder = tmp_path / "edge"
    (folder / "model").mkdir(parents=True)
    for name in ("edge.h5", "edge.tflite", "edge.json", "edge_normalization_stats.json"):
        (folder / "model" / name).write_text(f"{name} of yesterday")
    (folder / "thresholds.json").write_text('{"cpu_threshold": 0.2}')
    for name in ("normal.csv", "cpu.csv", "iperf.csv"):
        dataset(folder / name, 100)
    return folder


TRAIN = (
    *("--mode", "train", "--model", "model/edge.h5", "--thresholds_file", "thresholds.json"),
    *("--trainset", "normal.csv"),
)
# They serve only with --evaluate; without it the environment's are ignored.
TESTSETS = {"FIND_ANOMALIES_CPU_TESTSET": "cpu.csv", "FIND_ANOMALIES_IPERF_TESTSET": "iperf.csv"}


def train(folder: Path, *arguments: object) -> Done:
    """--mode train in `folder`, where Keras is not installed."""
    return run(*TRAIN, *arguments, cwd=folder, absent=("tensorflow", "keras"), **TESTSETS)


def train_process(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The same in a process of its own, which ends with exit code 99 when it imports TensorFlow."""
    wires = tripwires(folder.parent, "tensorflow", "keras")
    return run_process(*TRAIN, *arguments, cwd=folder, PYTHONPATH=wires, **TESTSETS)


def test_a_sound_training_set_gets_as_far_as_tensorflow(earlier: Path) -> None:
    before = contents(earlier)
    assert train_process(earlier, "--evaluate").returncode == 99
    assert contents(earlier) == before


def constant(column: str, value: str) -> Callable[[list[list[str]]], None]:
    def change(rows: list[list[str]]) -> None:
        place = rows[0].index(column)
        for row in rows[1:]:
            row[place] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            constant("ul_bytes_rate", ""),
            "the training set (--trainset) has no value of ul_bytes_rate; collect records that have it,"
            ' or switch net_5g_up off ("off": ["net_5g_up"] in --node_file)',
        ),
        (
            keep(43),
            "the training set (--trainset) has only 39 sequences of 4 records without gaps;"
            " collect at least a day of records",
        ),
        (
            gaps,
            "the training set (--trainset) has only 0 sequences of 4 records without gaps;"
            " collect at least a day of records",
        ),
        (without("cpu_rx_rate"), f"normal.csv: has no column cpu_rx_rate; {COLLECT}"),
        (keep(0), "normal.csv: is empty; a dataset has a header and records"),
    ],
)
def test_a_training_set_that_cannot_be_learnt_from_is_refused_at_once(
    change: Callable, message: str, earlier: Path
) -> None:
    dataset(earlier / "normal.csv", 100, change)
    before = contents(earlier)
    assert outcome(train(earlier)) == fault(message)
    assert contents(earlier) == before


def test_a_training_set_that_is_further_apart_than_the_interval_is_refused_at_once(earlier: Path) -> None:
    before = contents(earlier)
    words = FAR_APART.format(every=15, interval=1)
    assert outcome(train(earlier, "--evaluate", "--interval", 1)) == fault(f"normal.csv: {words}")
    assert contents(earlier) == before


def test_a_testset_that_is_further_apart_than_the_interval_is_said_and_left_out(earlier: Path) -> None:
    dataset(earlier / "cpu.csv", 100, pace(60))
    done = train_process(earlier, "--evaluate")
    left_out, few = logged(done.stderr)
    words = FAR_APART.format(every=60, interval=15)
    assert left_out == f"cpu.csv: {words}. It is left out: it is not judged, and no threshold is made from it"
    assert few == (
        "the training set (--trainset) has only 97 sequences without gaps, 24 min 15 s: expect false alerts,"
        " and collect normal data of a day or more (--mode collect --since 3d)"
    )
    assert done.returncode == 99


def for_other_metrics(folder: Path) -> tuple[str, str]:
    """The shipped test sets, and a node file of metrics that only the training set has."""
    (folder / "node.json").write_text('{"metrics": {"mem": {}, "snr": {}}}')
    (folder / "thresholds.json").write_text("{}")
    (folder / "data").mkdir()
    for name in ("cpu", "iperf"):
        dataset(folder / "data" / f"{name}_attack.csv", 100)

    def rename(rows: list[list[str]]) -> None:
        rows[0][rows[0].index("ul_bytes_rate")] = "snr"

    dataset(folder / "normal.csv", 100, rename)
    return "--node_file", "node.json"


@pytest.mark.parametrize(
    ("is_other", "why"),
    [
        (False, "there is no such file"),
        (True, "its metrics are the documented ones, not those of --node_file"),
    ],
)
def test_a_shipped_testset_that_plays_no_part_is_said(is_other: bool, why: str, earlier: Path) -> None:
    node = for_other_metrics(earlier) if is_other else ()
    done = run(*TRAIN, *node, "--evaluate", cwd=earlier, absent=("tensorflow", "keras"))
    *said, _, no_keras = logged(done.stderr)
    assert said == [
        f"data/{name}_attack.csv: plays no part, since {why}; --{name}_testset names another"
        for name in ("cpu", "iperf")
    ]
    assert "is not installed" in no_keras


def test_a_shipped_testset_that_a_person_names_is_needed(earlier: Path) -> None:
    words = ("--evaluate", "--iperf_testset", "data/iperf_attack.csv")
    before = contents(earlier)
    assert outcome(train(earlier, *words)) == fault("data/iperf_attack.csv: no such file; check the path")
    assert contents(earlier) == before
    done = run(*TRAIN, *words, *for_other_metrics(earlier), cwd=earlier)
    *_, refused = logged(done.stderr)
    assert done.returncode == 1
    assert refused.startswith("find_anomalies.py: data/iperf_attack.csv: has no column snr;")


def test_damaged_proposals_are_refused_before_the_training(earlier: Path) -> None:
    (earlier / "thresholds.proposed.json").write_text("{")
    before = contents(earlier)
    assert outcome(train(earlier)) == fault(
        "thresholds.proposed.json, line 1: not valid JSON (Expecting property name enclosed in double"
        " quotes); fix that line, or delete the file: all thresholds then count as set by a person"
    )
    assert contents(earlier) == before


@pytest.mark.parametrize("testset", ["cpu.csv", "iperf.csv"])
def test_a_faulty_testset_is_refused_before_the_training(testset: str, earlier: Path) -> None:
    dataset(earlier / testset, change=swap_lines)
    before = contents(earlier)
    message = f"{testset}, line 6: is earlier than the line before; sort by time, each time once"
    assert outcome(train(earlier, "--evaluate")) == fault(message)
    assert contents(earlier) == before


def test_faulty_attack_windows_are_refused_before_the_training(earlier: Path) -> None:
    (earlier / "attacks.json").write_text('{"cpu.csv": [{"start": "2026-03-02T00:10:00Z"}]}')
    before = contents(earlier)
    assert outcome(train(earlier, "--evaluate")) == fault(
        "attacks.json: the windows of cpu.csv must be a list of"
        ' {"start": "2021-01-12T09:13:15Z", "end": "2021-01-12T09:31:15Z"}'
    )
    assert contents(earlier) == before


def test_testsets_that_cannot_be_told_apart_are_refused_before_the_training(earlier: Path) -> None:
    before = contents(earlier)
    assert outcome(train(earlier, "--evaluate", "--cpu_testset", "iperf.csv")) == fault(
        "--cpu_testset, --iperf_testset and --trainset must have three different file names"
    )
    assert contents(earlier) == before


@pytest.mark.parametrize("name", ["edge", "edge.tflite", "edge.json", "edge.txt"])
def test_a_model_file_that_keras_cannot_write_is_refused_before_the_training(
    name: str, earlier: Path
) -> None:
    before = contents(earlier)
    code, stdout, stderr = outcome(train(earlier, "--model", f"model/{name}"))
    assert (code, stdout, stderr.count("\n")) == (1, "", 1)
    assert stderr.startswith(f"find_anomalies.py: model/{name}: ")
    assert ".h5" in stderr
    assert contents(earlier) == before


# --- thresholds that cannot be meant -------------------------------------------------------------

ENDINGS = ("h5", "tflite", "json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "{cpu_threshold: 0.1}",
            ", line 1: not valid JSON (Expecting property name enclosed in double quotes)",
        ),
        ('{"cpu_treshold": 0.1}', f": unknown key 'cpu_treshold'; the keys are {KEYS}"),
        ('{"mem_threshold": -0.5}', ": mem_threshold is -0.5; it must be a number, 0 or more"),
        ('{"mem_threshold": "0.5"}', ': mem_threshold is "0.5"; it must be a number, 0 or more'),
        ('{"mem_threshold": NaN}', ": mem_threshold is NaN; it must be a number, 0 or more"),
    ],
)
@pytest.mark.parametrize("mode", ["test", "train"])
def test_a_faulty_thresholds_file_is_refused_in_one_line(
    mode: str, text: str, message: str, earlier: Path
) -> None:
    (earlier / "thresholds.json").write_text(text)
    # The model comes first: it can tell that its metrics are not those of the node.
    (earlier / "data").mkdir()
    for name in ("data/normalization_stats.json", *(f"model/5g_edge_autoencoder.{end}" for end in ENDINGS)):
        shutil.copy(ROOT / name, earlier / name)
    before = contents(earlier)
    if "not valid JSON" in message:
        message += "; fix that line"
    done = (
        train(earlier)
        if mode == "train"
        else run("--mode", "test", "--once", "--thresholds_file", "thresholds.json", cwd=earlier)
    )
    assert outcome(done) == fault(f"thresholds.json{message}")
    assert contents(earlier) == before


# --- models that cannot be used ------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the shipped bundle; its statistics then lie beside it."""
    for ending in (".h5", ".tflite", ".json"):
        shutil.copy(ROOT / f"model/5g_edge_autoencoder{ending}", tmp_path / f"edge{ending}")
    shutil.copy(ROOT / "data/normalization_stats.json", tmp_path / "edge_normalization_stats.json")
    return tmp_path / "edge.h5"


def replay_with(model: Path) -> Done:
    few = dataset(model.with_name("few.csv"))
    return run("--mode", "test", "--model", model, "--replay", few)


def test_a_bundle_can_be_used_elsewhere_than_it_is_shipped(model: Path) -> None:
    assert replay_with(model).returncode == 0


def test_a_model_and_statistics_that_do_not_belong_together_are_refused_in_one_line(model: Path) -> None:
    path = model.with_name("edge_normalization_stats.json")
    stats = json.loads(path.read_text())
    path.write_text(json.dumps(stats | {"mem_percentage_max": 99.5}))
    assert outcome(replay_with(model)) == fault(
        f"{path}: does not belong to {model.with_suffix('.json')};"
        f" restore all files of one training, or train again with --mode train --model {model}"
    )


@pytest.mark.parametrize("content", [None, b"", b"garbage", 100_000, 900_000])
def test_a_damaged_network_is_refused_in_one_line_though_its_checksum_matches(
    content: bytes | int | None, model: Path
) -> None:
    network, identity = model.with_suffix(".tflite"), model.with_suffix(".json")
    whole = network.read_bytes()
    if content is None:
        # Cut nowhere, but altered.
        content = whole.replace(b"\x0c\x00\x00\x00", b"\x0d\x00\x00\x00")
    content = whole[:content] if isinstance(content, int) else content
    network.write_bytes(content)
    about = json.loads(identity.read_text())
    about["sha256"]["litert"] = hashlib.sha256(content).hexdigest()
    identity.write_text(json.dumps(about))
    assert outcome(replay_with(model)) == fault(
        f"{network}: is damaged, or not a network for these features; restore all files of one training, or"
        f" train again with --mode train --model {model}"
    )


@pytest.mark.parametrize("text", ["{}", '{"cpu_user_rate_min": "low"}'])
def test_damaged_statistics_are_refused_in_one_line_though_their_checksum_matches(
    text: str, model: Path
) -> None:
    stats, identity = model.with_name("edge_normalization_stats.json"), model.with_suffix(".json")
    stats.write_text(text)
    about = json.loads(identity.read_text())
    about["sha256"]["stats"] = hashlib.sha256(text.encode()).hexdigest()
    identity.write_text(json.dumps(about))
    assert outcome(replay_with(model)) == fault(
        f"{stats}: has no minimum and maximum for each feature; restore all files of one training, or train"
        f" again with --mode train --model {model}"
    )


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("--thresholds_file", "thresholds.json"),
        ("--node_file", "node.json"),
        ("--model", "edge.tflite"),
        ("--influx_ca", "ca.pem"),
    ],
)
def test_a_fifo_in_place_of_a_file_is_refused_in_one_line_at_the_start(
    option: str, name: str, model: Path
) -> None:
    path = model.with_name(name)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    given = model if option == "--model" else path
    done = run_process("--mode", "test", "--once", option, given, "--influx_ssl")
    assert outcome(done) == fault(f"{path}: cannot be read: it is a FIFO; put a regular file there")


def test_a_missing_model_is_refused_in_one_line(tmp_path: Path) -> None:
    model = tmp_path / "none.h5"
    assert outcome(run("--mode", "test", "--model", model, "--once")) == fault(
        f"{tmp_path / 'none.json'}: no such file; --mode train --model {model} writes it"
    )


# --- thresholds ----------------------------------------------------------------------------------


def test_check_thresholds_shows_each_beside_its_proposal_and_what_it_flags(tmp_path: Path) -> None:
    file = tmp_path / "thresholds.json"
    proposed = json.loads((ROOT / "data/thresholds.json").read_text())
    (tmp_path / "thresholds.proposed.json").write_text(json.dumps(proposed))
    file.write_text(json.dumps(proposed | {"mem_threshold": 0.001, "cpu_tx_threshold": 1000}))
    dataset = "data/cpu_attack.csv"
    judged = run("--mode", "test", "--replay", dataset, "--thresholds_file", file)
    causes = [json.loads(line)["possible_cause"].split(" | ") for line in judged.stdout.splitlines()]
    records = int(re.search(r"(\d+) records", judged.stderr)[1])
    done = run("--check_thresholds", "--thresholds_file", file, "--trainset", dataset)
    assert (done.returncode, done.stderr) == (0, "")
    heading, *rows, empty, total = done.stdout.splitlines()
    finds = ["found", "in", "4", "still", "after", "30"]
    assert heading.split() == ["threshold", "in", "force", "proposed", *finds, "anomalies", "in", dataset]
    assert empty == ""
    assert total == (
        f"{file} is valid; together they make anomalies of {len(causes) / records:.3%} of {records} records"
    )
    by_key = {row.split()[0]: row for row in rows}
    assert list(by_key) == KEYS.split(", ")
    for name in ("cpu", "mem", "cpu_tx"):
        key = f"{name}_threshold"
        share = sum(name in named for named in causes) / records
        given = json.loads(file.read_text())[key]
        origin = {"cpu": "", "mem": "  set by a person", "cpu_tx": "  set by a person  blind"}[name]
        before, after = f"{key:<22} {given:>9.4f} {proposed[key]:>9.4f}", f"  {share:.3%}{origin}"
        assert by_key[key].startswith(before) and by_key[key].endswith(after)
        # Twice 16 columns, each after a space, say what is found.
        assert len(by_key[key]) == len(before) + 34 + len(after)
    # A threshold that is never reached finds nothing.
    assert by_key["cpu_tx_threshold"].split()[3:5] == ["nothing", "nothing"]
    assert by_key["cpu_threshold"].split()[3:7] == ["+4", "points", "+3", "points"]
    assert sum("mem" in named for named in causes) > 100


def test_check_thresholds_counts_only_what_was_learnt(tmp_path: Path) -> None:
    for ending in (".h5", ".json", ".tflite"):
        shutil.copy(ROOT / f"model/5g_edge_autoencoder{ending}", tmp_path / f"edge{ending}")
    shutil.copy(ROOT / "data/normalization_stats.json", tmp_path / "edge_normalization_stats.json")
    (attack,) = json.loads((ROOT / "data/attacks.json").read_text())["cpu_attack.csv"]
    identity = tmp_path / "edge.json"
    left_out = [{"start": attack["start"], "end": attack["end"], "metrics": ["cpu"]}]
    identity.write_text(json.dumps(json.loads(identity.read_text()) | {"left_out": left_out}))
    done = run("--check_thresholds", "--model", tmp_path / "edge.h5", "--trainset", "data/cpu_attack.csv")
    assert done.returncode == 0
    # 73 records are in what was left out, whose end counts, and the windows of 29 more reach into it.
    assert done.stdout.splitlines()[-1].endswith(f"% of {1920 - 73 - 29} records")
    assert re.search(r"^cpu_threshold .* 0\.\d+%$", done.stdout, re.MULTILINE)


def test_thresholds_of_another_model_are_said_when_checked_and_at_a_replay(tmp_path: Path) -> None:
    file = tmp_path / "thresholds.json"
    shutil.copy(ROOT / "data/thresholds.json", file)
    proposed = tmp_path / "thresholds.proposed.json"
    values = json.loads(file.read_text())
    proposed.write_text(json.dumps({"model": "of yesterday", "proposed": values}))
    few = dataset(tmp_path / "few.csv")
    line = (
        f"{file}: has thresholds that were proposed for another model than model/5g_edge_autoencoder.h5"
        " (all); run --mode train --evaluate, or set them by hand"
    )
    checked = run("--check_thresholds", "--thresholds_file", file, "--trainset", few)
    assert (checked.returncode, logged(checked.stderr)) == (0, [line])
    replayed = run("--mode", "test", "--replay", few, "--thresholds_file", file)
    assert (replayed.returncode, logged(replayed.stderr)[0]) == (0, line)
    # What is damaged decides nothing here.
    proposed.write_text("{")
    replayed = run("--mode", "test", "--replay", few, "--thresholds_file", file)
    assert replayed.returncode == 0
    assert logged(replayed.stderr)[0].startswith(f"{proposed}, line 1: not valid JSON")


def test_check_thresholds_without_pandas_still_says_whether_the_file_is_valid(tmp_path: Path) -> None:
    code = "import sys; sys.modules['pandas'] = None; import find_anomalies; sys.exit(find_anomalies.main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "--check_thresholds"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert logged(done.stderr) == [
        "pandas is not installed here, so the anomalies in data/normal.csv are not shown"
    ]
    assert done.stdout.splitlines()[-1] == "data/thresholds.json is valid"


def test_check_thresholds_refuses_a_broken_file_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "thresholds.json"
    file.write_text('{"cpu_threshold": 0.1,\n "mem_threshold": 0.1,,}')
    done = run("--check_thresholds", "--thresholds_file", file)
    assert outcome(done) == fault(
        f"{file}, line 2: not valid JSON (Expecting property name enclosed in double quotes); fix that line"
    )


# --- InfluxDB ------------------------------------------------------------------------------------


def influx(server: Influxd, db_name: str) -> list[object]:
    return ["--influx_host", server.host, "--influx_port", server.port, "--influx_db", db_name]


def no_sample(server: Influxd, db_name: str) -> str:
    return (
        f"find_anomalies.py: {server.host}:{server.port}, database {db_name}: no recent sample of this node"
        " in the database; check the exporters, --influx_db and --node_file"
    )


def test_once_without_a_server_is_one_fault() -> None:
    port = free_port("127.0.0.1")
    done = run("--mode", "test", "--once", "--influx_host", "127.0.0.1", "--influx_port", port)
    assert (done.returncode, done.stdout) == (1, "")
    assert logged(done.stderr) == [
        f"watching 127.0.0.1:{port}, database metrics_db, every 15 s",
        f"find_anomalies.py: InfluxDB at 127.0.0.1:{port} cannot be reached;"
        " check --influx_host, --influx_port and that it runs",
    ]


def test_once_with_an_empty_database_is_a_fault_and_never_normal(
    influxd: Influxd, database: Database
) -> None:
    done = run("--mode", "test", "--once", *influx(influxd, database.name))
    assert (done.returncode, done.stdout) == (1, "")
    assert logged(done.stderr) == [
        f"watching 127.0.0.1:{influxd.port}, database {database.name}, every 15 s",
        no_sample(influxd, database.name),
    ]


def test_a_database_that_does_not_exist_is_created(influxd: Influxd) -> None:
    done = run("--mode", "test", "--once", *influx(influxd, "made_by_test_mode"))
    try:
        assert done.returncode == 1
        assert logged(done.stderr)[1:] == [
            "created the database made_by_test_mode",
            no_sample(influxd, "made_by_test_mode"),
        ]
        with connect(influxd) as client:
            assert {"name": "made_by_test_mode"} in client.get_list_database()
    finally:
        with connect(influxd) as client:
            client.drop_database("made_by_test_mode")


def test_once_judges_the_newest_record_with_what_the_edge_node_has_installed(
    influxd: Influxd, database: Database, tmp_path: Path
) -> None:
    end = int(time.time()) // 15 * 15
    samples = simulate(6, end - 60 * 15, 60 * 15)
    write_samples(database.client, samples)
    newest = max(point["time"] for points in samples.values() for point in points)
    wires = tripwires(tmp_path, "tensorflow", "keras", "pandas", "matplotlib", "tqdm")
    for module in wires.iterdir():
        module.write_text("raise ImportError('not installed here')")
    options = ("--mode", "test", "--once", *influx(influxd, database.name))
    done = run_process(*options, PYTHONPATH=wires)
    assert (done.returncode, done.stdout) == (0, "")
    watching, verdict = logged(done.stderr)
    assert watching == f"watching 127.0.0.1:{influxd.port}, database {database.name}, every 15 s"
    moment = datetime.fromtimestamp(newest // SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    assert re.match(rf'({{"time": ")?{moment}\.{newest // 10**6 % 1000:03d}Z', verdict)
    assert "unknown:" not in verdict


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influxd]:
    """A server that asks for a password: admin may all, reader nothing."""
    with Influxd(tmp_path_factory.mktemp("guarded"), auth=True) as server:
        with connect(server) as client:
            client.query("CREATE USER admin WITH PASSWORD 'right' WITH ALL PRIVILEGES", method="POST")
        with connect(server, username="admin", password="right") as client:
            client.create_database("edge")
            client.create_user("reader", "right")
        yield server


@pytest.mark.parametrize(
    ("user", "password", "message"),
    [
        ("admin", "wrong", "refused the credentials; check --influx_user and --influx_pass"),
        ("nobody", "right", "refused the credentials; check --influx_user and --influx_pass"),
        ("", "", "refused the credentials; check --influx_user and --influx_pass"),
    ],
)
def test_wrong_credentials_are_one_fault(guarded: Influxd, user: str, password: str, message: str) -> None:
    done = run("--mode", "test", "--once", *influx(guarded, "edge"), INFLUX_USER=user, INFLUX_PASS=password)
    assert (done.returncode, done.stdout) == (1, "")
    assert logged(done.stderr)[1:] == [f"find_anomalies.py: InfluxDB at 127.0.0.1:{guarded.port} {message}"]


def test_a_user_without_rights_is_one_fault(guarded: Influxd) -> None:
    done = run(
        "--mode", "test", "--once", *influx(guarded, "edge"), INFLUX_USER="reader", INFLUX_PASS="right"
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert logged(done.stderr)[1:] == [
        f"find_anomalies.py: InfluxDB at 127.0.0.1:{guarded.port}: the user has no right to the database"
        " edge; grant it READ and WRITE"
    ]


def test_the_password_of_the_environment_opens_the_server(guarded: Influxd) -> None:
    done = run("--mode", "test", "--once", *influx(guarded, "edge"), INFLUX_USER="admin", INFLUX_PASS="right")
    assert logged(done.stderr)[-1] == no_sample(guarded, "edge")


# --- the end of a daemon -------------------------------------------------------------------------


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_running_daemon_in_order(influxd: Influxd, database: Database, end: int) -> None:
    with subprocess.Popen(
        command("--mode", "test", "--interval", "1", *influx(influxd, database.name)),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            said = [process.stderr.readline() for _ in range(4)]
            process.send_signal(end)
            stdout, rest = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0
    assert stdout == ""
    silence = "unknown: no recent sample of this node in the database"
    watching = f"watching 127.0.0.1:{influxd.port}, database {database.name}, every 1 s"
    other_interval = (
        "the model was trained on records of 15 s, --interval is 1 s: changes between records differ"
    )
    blind = [
        "blind: net_5g_down misses +67000 B/s, and finds +70000 B/s; net_5g_up misses +3300 B/s, and finds"
        " +4000 B/s; lower the threshold, or train on steadier records"
    ]
    assert logged("".join(said)) == [other_interval, watching, *blind, silence]
    assert rest == ""


def said_by(log: Path) -> list[str]:
    """The whole lines of a log that is being written."""
    return logged(log.read_text().rpartition("\n")[0])


def wait_for(log: Path, wanted: Callable[[list[str]], object], seconds: float = 120) -> list[str]:
    """What is logged, once `wanted` of it is true."""
    deadline = time.monotonic() + seconds
    while not wanted(lines := said_by(log)):
        assert time.monotonic() < deadline, lines
        time.sleep(0.05)
    return lines


# Pictures are drawn at the lowest priority, as test_monitor.py has it: never, beside other tests.
AT_ANY_PRIORITY = (
    "import os, sys; os.nice = lambda more: 0; import find_anomalies; sys.exit(find_anomalies.main())"
)


def test_the_daemon_draws_each_alert_when_it_ends_and_outlives_a_folder_that_goes_away(
    influxd: Influxd, database: Database, tmp_path: Path
) -> None:
    # So that the first picture is there before the second alert ends on a busy machine, too.
    pause = seconds_to_start(5)
    begin = int(time.time()) - 60
    early, late = 60 + pause, 67 + 3 * pause
    attacks = [Attack("cpu", begin + attack, begin + attack + 7) for attack in (early, late)]
    seconds = late + 67
    lives = (simulate(seed, begin, seconds, attacks, interval_seconds=1) for seed in range(1000))
    series = (MEMORY_FREE, RX_CPU)
    write_samples(
        database.client, next(life for life in lives if {len(life[name]) for name in series} == {seconds})
    )
    folder, log = tmp_path / "alerts", tmp_path / "log"
    with (
        log.open("wb") as stderr,
        subprocess.Popen(
            [
                *(sys.executable, "-c", AT_ANY_PRIORITY, "--mode", "test", "--interval", "1"),
                *map(str, influx(influxd, database.name)),
            ],
            cwd=ROOT,
            env=environment(FIND_ANOMALIES_PLOT_DIR=folder),
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        ) as process,
    ):
        try:
            wait_for(log, lambda lines: [line for line in lines if "database" in line])
            # It is there from the start.
            assert list(folder.iterdir()) == []
            lines = wait_for(log, lambda lines: [line for line in lines if ".png" in line])
            # The next alert may be up already where drawing is slow.
            drawn = pictures_of(lines, 1)[0]
            place = lines.index(f"{folder}/{drawn}: picture of an alert written")
            alert = next(at for at, line in enumerate(lines) if '"severity": "alert"' in line)
            assert [line for line in lines[alert:place] if " normal (" in line]
            assert [path.name for path in folder.iterdir()] == [drawn]
            assert (folder / drawn).read_bytes().startswith(b"\x89PNG\r\n")

            shutil.rmtree(folder)
            folder.write_text("no folder any more")
            fault = "cannot be written (File exists); check the folder and the disk"
            lines = wait_for(log, lambda lines: [line for line in lines if fault in line])
            before, next_one = pictures_of(lines, 1)
            assert before == drawn
            place = lines.index(f"{folder}/{next_one}: {fault}")
            assert " ERROR " in log.read_text().splitlines()[place]
            wait_for(log, lambda later: [line for line in later[place:] if " normal (" in line])
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_what_an_edge_installation_lacks_is_named_in_one_line() -> None:
    code = "import sys; sys.modules['pandas'] = None; import find_anomalies; sys.exit(find_anomalies.main())"
    arguments = ["--mode", "test", "--replay", "data/cpu_attack.csv"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, env=environment(), capture_output=True, text=True
    )
    assert outcome(done) == fault("pandas is not installed; pip install -r requirements.txt")


def test_a_picture_that_cannot_be_drawn_is_refused_at_once() -> None:
    done = run("--mode", "test", "--replay", "data/cpu_attack.csv", "--plot", "x.foo")
    assert outcome(done) == fault("x.foo: a picture's name must end in .png")


@pytest.mark.parametrize("source", [[], ["--replay", "data/cpu_attack.csv"]])
def test_a_folder_that_cannot_hold_pictures_is_refused_at_once(source: list[str], tmp_path: Path) -> None:
    (tmp_path / "plots").write_text("a file")
    for folder, reason in (("plots", "File exists"), ("plots/alerts", "Not a directory")):
        assert outcome(run("--mode", "test", *source, "--plot_dir", tmp_path / folder)) == fault(
            f"{tmp_path / folder}: pictures cannot be written there ({reason}); name another --plot_dir"
        )


def test_that_no_point_could_be_written_is_said_before_the_first_poll(tmp_path: Path) -> None:
    # Where a state is, the server is not asked how many nodes there are.
    (tmp_path / FILE_NAME).touch()
    done = run("--mode", "test", "--state_dir", tmp_path, absent=["influxdb"])
    assert outcome(done) == fault("influxdb is not installed; pip install -r requirements.txt")


def test_pictures_of_alerts_without_matplotlib_are_refused_at_once(tmp_path: Path) -> None:
    wires = tripwires(tmp_path, "matplotlib")
    (wires / "matplotlib.py").write_text("raise ModuleNotFoundError('not here', name='matplotlib')\n")
    done = run_process("--mode", "test", "--plot_dir", tmp_path / "alerts", PYTHONPATH=wires)
    assert outcome(done) == fault("matplotlib is not installed; pip install -r requirements.txt")
    assert not (tmp_path / "alerts").exists()
