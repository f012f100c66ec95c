"""`--mode collect` as a user runs it, on a real InfluxDB that a simulated edge node was scraped into."""

from __future__ import annotations

import csv
import json
import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest

import formatters
import lab.influxd
from edge.datasets import load_records, write_dataset
from lab.influxd import Influxd, free_port
from nodes.metrics import CPU_SECONDS, DOWNLINK, MEMORY_FREE, RECEIVED, RX_CPU, TX_CPU
from nodes.node import DEFAULT_NODE, Node
from nodes.series import Record
from simulators.edge import simulate
from tests.support.influx import Database, connect
from tests.support.metrics import MEASUREMENTS, RAN_MEASUREMENTS
from tests.support.program import Done, run_here
from tests.support.prometheus_writer import write_samples

ROOT = Path(__file__).resolve().parents[2]
SECOND = 10**9
SHORT = "short: {} of records; a model needs a day or more, better three; collect others with --add"
# A whole multiple of 15, but of neither 7 nor 3600.
START = 1_700_000_010
HOURS = 2
SLOTS = HOURS * 240


def collect(
    server: Influxd,
    db_name: str,
    *arguments: object,
    environment: Mapping[str, str] | None = None,
    absent: Sequence[str] = (),
) -> Done:
    given = {"influx_host": server.host, "influx_port": server.port, "influx_db": db_name}
    options = [str(word) for name, value in given.items() for word in (f"--{name}", value)]
    # The environment of the test run may set options.
    return run_here(
        "--mode", "collect", *options, *arguments, cwd=ROOT, environment=environment or {}, absent=absent
    )


def simulate_all(seconds: float, interval_seconds: float = 15.0) -> Record:
    """A life in which no scrape is missed."""
    count = int(seconds / interval_seconds)
    lives = (simulate(seed, START, seconds, interval_seconds=interval_seconds) for seed in range(100))
    return next(samples for samples in lives if len(samples[MEMORY_FREE]) == len(samples[RX_CPU]) == count)


def dataset(file: Path, samples: Record, interval_seconds: float = 15.0, node: Node = DEFAULT_NODE) -> bytes:
    """The dataset of samples without a database in between."""
    slots = formatters.slot_records(samples, interval_seconds)
    write_dataset(file, formatters.format_records(slots, node), node)
    return file.read_bytes()


def without(samples: Record, measurements: tuple[str, ...], slots: list[int], **tags: str) -> Record:
    """Samples but those of some measurements, with these tags, in some slots."""
    return {
        name: [
            point
            for point in points
            if name not in measurements
            or (point["time"] // SECOND - START) // 15 not in slots
            or any(point[tag] != value for tag, value in tags.items())
        ]
        for name, points in samples.items()
    }


def time_text(nanoseconds: int) -> str:
    text = datetime.fromtimestamp(nanoseconds / SECOND, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z").replace(".000Z", "Z")


def rows_of(text: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(text.decode().splitlines()))


class Recorded(NamedTuple):
    """A database of HOURS of samples, and the dataset that they make."""

    server: Influxd
    db_name: str
    samples: Record
    dataset: bytes


@pytest.fixture(scope="module")
def recorded(influxd: Influxd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    name = f"recorded_{uuid.uuid4().hex}"
    samples = simulate_all(HOURS * 3600)
    with connect(influxd) as client:
        client.create_database(name)
        client.switch_database(name)
        write_samples(client, samples)
        yield Recorded(
            influxd, name, samples, dataset(tmp_path_factory.mktemp("dataset") / "all.csv", samples)
        )
        client.drop_database(name)


# --- what is written -----------------------------------------------------------------------------


class Collected(NamedTuple):
    """A finished run, and the file that it was told to write."""

    done: Done
    output: Path


@pytest.fixture(scope="module")
def collected(recorded: Recorded, tmp_path_factory: pytest.TempPathFactory) -> Collected:
    """A run over all of the recorded database."""
    output = tmp_path_factory.mktemp("collected") / "new folder" / "normal.csv"
    return Collected(collect(recorded.server, recorded.db_name, "--output", output), output)


def test_the_dataset_is_what_the_formatters_make_of_the_samples(
    recorded: Recorded, collected: Collected
) -> None:
    done, output = collected
    newest = max(point["time"] for points in recorded.samples.values() for point in points)
    oldest = recorded.samples[DOWNLINK][0]["time"]
    assert done.stdout.splitlines() == [
        f"{output}: {SLOTS} records up to {time_text(newest)}",
        f"stretch: {time_text(oldest)} to {time_text(newest)}, {SLOTS} records",
        SHORT.format("2 h"),
        f"next: python find_anomalies.py --mode train --evaluate --trainset '{output}'",
    ]
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert output.read_bytes() == recorded.dataset
    assert os.listdir(output.parent) == ["normal.csv"]


def test_no_record_or_rate_is_lost_between_the_queries(recorded: Recorded, collected: Collected) -> None:
    """The history is queried by the hour, backwards from the newest: slots 239 and 479 begin a query."""
    rows = rows_of(collected.output.read_bytes())
    node_times = [point["time"] for point in recorded.samples[MEMORY_FREE]]
    ran = recorded.samples[DOWNLINK]
    cpu = [p["value"] for p in recorded.samples[CPU_SECONDS] if p["cpu"] == "0"]
    received = [p["value"] for p in recorded.samples[RECEIVED] if p["device"] == "ppp0"]
    assert [row["time"] for row in rows] == [time_text(point["time"]) for point in ran]
    for i in range(1, SLOTS):
        seconds = (node_times[i] - node_times[i - 1]) / SECOND
        ran_seconds = (ran[i]["time"] - ran[i - 1]["time"]) / SECOND
        expected = {
            "cpu_user_0_percentage": 100 * (cpu[i] - cpu[i - 1]) / seconds,
            "ppp0_bytes_received": received[i] - received[i - 1],
            "ppp0_received_rate": (received[i] - received[i - 1]) / seconds,
            "dl_bytes": ran[i]["value"] / 8 * ran_seconds,
        }
        assert {name: float(rows[i][name]) for name in expected} == pytest.approx(expected, abs=1e-5), i
        assert "" not in rows[i].values() or i == 1, i


@pytest.mark.parametrize(("since", "count"), [("90m", 361), ("15", 2)])
def test_since_takes_the_newest_records_alone(
    recorded: Recorded, tmp_path: Path, since: str, count: int
) -> None:
    """From the slot on in which `since` before the newest sample lies, whole slots."""
    output = tmp_path / "normal.csv"
    done = collect(recorded.server, recorded.db_name, "--output", output, "--since", since)
    assert done.stdout.startswith(f"{output}: {count} records up to ")
    rows, expected = rows_of(output.read_bytes()), rows_of(recorded.dataset)[-count:]
    assert len(rows) == count
    assert rows[2:] == expected[2:]
    # The first record has no rate, and so the second no change of a rate.
    levels = {"time", "mem", "mem_percentage", "cpu_rx_percentage", "cpu_tx_percentage"}
    assert rows[0] == {name: value if name in levels else "" for name, value in expected[0].items()}
    changes = {"cpu_user_0_rate", "cpu_user_1_rate", "cpu_user_rate"}
    assert rows[1] == {name: "" if name in changes else value for name, value in expected[1].items()}


@pytest.mark.parametrize(("interval", "seconds"), [("7", 7.0), ("1.5h", 5400.0)])
def test_the_interval_need_not_be_that_of_the_scrapes(
    recorded: Recorded, tmp_path: Path, interval: str, seconds: float
) -> None:
    """7 s do not divide the hour of a query, 1.5 h do not fit into it."""
    output = tmp_path / "normal.csv"
    done = collect(recorded.server, recorded.db_name, "--output", output, "--interval", interval)
    assert done.returncode == 0
    assert output.read_bytes() == dataset(tmp_path / "expected.csv", recorded.samples, seconds)


def test_scrapes_of_every_five_seconds(influxd: Influxd, database: Database, tmp_path: Path) -> None:
    samples = simulate_all(600, interval_seconds=5)
    write_samples(database.client, samples)
    output = tmp_path / "normal.csv"
    done = collect(influxd, database.name, "--output", output, "--interval", "5")
    assert done.stdout.startswith(f"{output}: 120 records up to ")
    assert output.read_bytes() == dataset(tmp_path / "expected.csv", samples, 5)
    assert lines_of(done)[-1].endswith(f" --trainset {output} --interval 5")


def test_a_node_file_names_other_series(influxd: Influxd, database: Database, tmp_path: Path) -> None:
    names = {"enp1s0": "eth0", "enp0s20u1": "wlan0", "ppp0": "lo", "0": "3", "1": "4", "2": "7"}
    samples = {
        measurement: [
            point | {tag: names[point[tag]] for tag in ("device", "cpu", "cellId") if tag in point}
            for point in points
        ]
        for measurement, points in simulate_all(450).items()
    }
    write_samples(database.client, samples)
    other = {name: [p | {"instance": "another"} for p in points] for name, points in samples.items()}
    write_samples(database.client, other)
    node_file = tmp_path / "node.json"
    given = {"cpus": [4, 3], "interfaces": ["wlan0", "eth0"], "cell_id": 7}
    instances = {"node_instance": "edge:9100", "ran_instance": "gnb:9099"}
    node_file.write_text(json.dumps(given | instances))
    output = tmp_path / "normal.csv"
    done = collect(influxd, database.name, "--output", output, "--node_file", node_file)
    assert done.stdout.startswith(f"{output}: 30 records up to ")
    assert "gap" not in done.stdout
    command = "python find_anomalies.py --mode train --evaluate"
    assert lines_of(done)[-1] == f"next: {command} --trainset {output} --node_file {node_file}"
    node = Node(cpus=("4", "3"), interfaces=("wlan0", "eth0"), cell_id="7")
    assert output.read_bytes() == dataset(tmp_path / "expected.csv", samples, node=node)
    assert list(rows_of(output.read_bytes())[0])[1:5] == [
        "cpu_user_4_percentage",
        "cpu_user_4_rate",
        "cpu_user_3_percentage",
        "cpu_user_3_rate",
    ]


def test_gaps_are_reported_by_series_and_stay_empty(
    influxd: Influxd, database: Database, tmp_path: Path
) -> None:
    samples = simulate_all(1200)
    samples = without(samples, (RX_CPU,), [3, 4, 70])
    samples = without(samples, (RECEIVED,), [10, 11], device="ppp0")
    samples = without(samples, RAN_MEASUREMENTS, [20])
    samples = without(samples, MEASUREMENTS, [40, 41])
    write_samples(database.client, samples)
    output = tmp_path / "normal.csv"
    done = collect(influxd, database.name, "--output", output)
    newest = max(point["time"] for point in samples[RX_CPU])
    assert done.stdout.splitlines()[:-2] == [
        f"{output}: 78 records up to {time_text(newest)}",
        f"stretch: {time_text(samples[DOWNLINK][0]['time'])} to {time_text(newest)}, 78 records",
        "gap: no sample of any series in 2 slots",
        "gap: dl_bitrate{cellId=2} is missing in 1 of 78 records",
        "gap: node_network_receive_bytes_total{device=ppp0} is missing in 2 of 78 records",
        "gap: rx_cpu_time is missing in 4 of 78 records",
        "gap: tx_cpu_time is missing in 1 of 78 records",
        "gap: ul_bitrate{cellId=2} is missing in 1 of 78 records",
    ]
    assert done.returncode == 0
    assert output.read_bytes() == dataset(tmp_path / "expected.csv", samples)
    rows = rows_of(output.read_bytes())
    # Two slots are gone without a record.
    assert [i for i, row in enumerate(rows) if row["cpu_rx_percentage"] == ""] == [3, 4, 20, 68]
    assert [rows[i]["bytes_received"] for i in (10, 11)] == ["", ""]
    assert "" not in [rows[i]["bytes_transmitted"] for i in range(1, 78)]


def test_no_answer_of_the_server_holds_much_more_than_an_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: Recorded
) -> None:
    """A server that cuts answers short at 4000 samples; an hour has 240 of each of 14 series."""
    # The last section of the configuration is [http].
    monkeypatch.setattr(lab.influxd, "CONFIG", lab.influxd.CONFIG + "max-row-limit = 4000\n")
    with Influxd(tmp_path / "influxd") as server, connect(server, database="db") as client:
        client.create_database("db")
        write_samples(client, recorded.samples)
        output = tmp_path / "normal.csv"
        done = collect(server, "db", "--output", output)
        assert done.returncode == 0
        assert output.read_bytes() == recorded.dataset


# --- several stretches ---------------------------------------------------------------------------


def stretch(start: int, end: int) -> str:
    """A --stretch from one slot to before another, counted from START."""
    return f"{time_text((START + 15 * start) * SECOND)}/{time_text((START + 15 * end) * SECOND)}"


def stretches(*texts: str) -> list[str]:
    return [word for text in texts for word in ("--stretch", text)]


def begun(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Rows as they are if nothing is known of the time before them."""
    first, second, *others = rows
    levels = {"time", "mem", "mem_percentage", "cpu_rx_percentage", "cpu_tx_percentage"}
    changes = {"cpu_user_0_rate", "cpu_user_1_rate", "cpu_user_rate"}
    return [
        {name: value if name in levels else "" for name, value in first.items()},
        {name: "" if name in changes else value for name, value in second.items()},
        *others,
    ]


def lines_of(done: Done) -> list[str]:
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    return done.stdout.splitlines()


def described(rows: list[dict[str, str]]) -> str:
    return f"stretch: {rows[0]['time']} to {rows[-1]['time']}, {len(rows)} records"


@pytest.mark.parametrize("is_in_environment", [False, True])
def test_stretches_are_written_by_time_and_nothing_reaches_from_one_to_the_next(
    recorded: Recorded, tmp_path: Path, is_in_environment: bool
) -> None:
    output = tmp_path / "normal.csv"
    # The later one is longer than the hour of a query.
    texts = [stretch(200, 450), stretch(10, 130)]
    words, environment = stretches(*texts), {}
    if is_in_environment:
        words, environment = [], {"FIND_ANOMALIES_STRETCH": " ".join(texts)}
    done = collect(recorded.server, recorded.db_name, "--output", output, *words, environment=environment)
    every = rows_of(recorded.dataset)
    first, second = begun(every[10:130]), begun(every[200:450])
    assert rows_of(output.read_bytes()) == first + second
    assert lines_of(done)[:-1] == [
        f"{output}: 370 records up to {second[-1]['time']}",
        described(first),
        described(second),
        SHORT.format("1 h 32 min 30 s"),
    ]
    # What training makes of it: a window of empty slots lies between both.
    frame = load_records(output)
    assert len(frame) == 120 + 30 + 250
    assert frame.iloc[120:150].isna().all(axis=None)
    assert frame["cpu_user_rate"].isna().sum() == 2 + 30 + 2


def test_what_a_stretch_lacks_at_its_ends_is_said(recorded: Recorded, tmp_path: Path) -> None:
    output = tmp_path / "normal.csv"
    words = stretches(stretch(-400, -40), stretch(-4, 8), stretch(470, 484))
    done = collect(recorded.server, recorded.db_name, "--output", output, *words)
    every = rows_of(recorded.dataset)
    assert rows_of(output.read_bytes()) == begun(every[:8]) + begun(every[470:])
    silent = (stretch(-400, -40), stretch(-4, 0), stretch(480, 484))
    assert lines_of(done)[3:-2] == [
        f"gap: no sample of any series from {span.replace('/', ' to ')}" for span in silent
    ]


def test_stretches_that_meet_within_a_slot_write_it_once(recorded: Recorded, tmp_path: Path) -> None:
    output = tmp_path / "normal.csv"
    begin, end = stretch(90, 110).split("/")
    # Between the samples of the two exporters.
    middle = time_text((START + 15 * 100 + 14) * SECOND + SECOND // 20)
    words = stretches(f"{begin}/{middle}", f"{middle}/{end}")
    done = collect(recorded.server, recorded.db_name, "--output", output, *words)
    rows, every = rows_of(output.read_bytes()), rows_of(recorded.dataset)
    assert lines_of(done)[0] == f"{output}: 20 records up to {every[109]['time']}"
    assert rows[:10] + rows[11:] == begun(every[90:100]) + begun(every[101:110])
    # The slot in the middle has what came before the end of the first stretch.
    assert every[100]["time"] > rows[10]["time"] > every[99]["time"]


def test_nothing_reaches_over_a_gap_of_a_window(influxd: Influxd, database: Database, tmp_path: Path) -> None:
    """After 29 slots without a sample there is a rate over the gap; after 30 there is none."""
    samples = without(simulate_all(1800), MEASUREMENTS, [*range(10, 39), *range(60, 90)])
    write_samples(database.client, samples)
    output = tmp_path / "normal.csv"
    done = collect(influxd, database.name, "--output", output)
    every = rows_of(dataset(tmp_path / "expected.csv", samples))
    assert len(every) == 10 + 21 + 30
    assert rows_of(output.read_bytes()) == every[:31] + begun(every[31:])
    assert lines_of(done)[1:4] == [
        described(every[:31]),
        described(every[31:]),
        "gap: no sample of any series in 59 slots",
    ]


# --- adding to a file ----------------------------------------------------------------------------


def test_adding_makes_the_same_file_as_collecting_all_at_once(recorded: Recorded, tmp_path: Path) -> None:
    output, at_once = tmp_path / "normal.csv", tmp_path / "at_once.csv"
    early, late = stretch(0, 30), stretch(100, 140)
    collect(recorded.server, recorded.db_name, "--output", at_once, *stretches(early, late))
    newest = rows_of(recorded.dataset)[139]["time"]
    add = ("--output", output, "--add")
    # Without a file, --add makes one.
    done = collect(recorded.server, recorded.db_name, *add, "--stretch", late)
    assert lines_of(done)[0] == f"{output}: 40 records up to {newest}"
    for before, text in ((40, early), (70, late), (70, early)):
        done = collect(recorded.server, recorded.db_name, *add, "--stretch", text)
        assert lines_of(done)[0] == f"{output}: 70 records up to {newest}; there were {before}"
        assert len([line for line in lines_of(done) if line.startswith("stretch: ")]) == 2
        assert output.read_bytes() == at_once.read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["at_once.csv", "normal.csv"]


def test_of_two_records_of_a_slot_the_one_that_knows_more_stays(
    influxd: Influxd, database: Database, tmp_path: Path
) -> None:
    """The first run sees half of its newest record. The second one begins in the middle, without rates."""
    samples = simulate_all(900)
    early = without(samples, MEASUREMENTS, list(range(30, 60)))
    write_samples(database.client, without(early, RAN_MEASUREMENTS, [29]))
    output = tmp_path / "normal.csv"
    collect(influxd, database.name, "--output", output)
    assert rows_of(output.read_bytes())[29]["cpu_rx_percentage"] == ""
    write_samples(database.client, samples)
    done = collect(influxd, database.name, "--output", output, "--since", "10m", "--add")
    assert lines_of(done)[0].endswith("; there were 30")
    assert output.read_bytes() == dataset(tmp_path / "expected.csv", samples)


def test_a_fault_in_the_middle_leaves_the_file_that_is_added_to_whole(
    recorded: Recorded, influxd: Influxd, database: Database, tmp_path: Path
) -> None:
    """The first hour is read, the second has a second gNB."""
    samples = simulate_all(5400)[TX_CPU]
    other = [point | {"instance": "gnb:1"} for point in samples[-3:]]
    write_samples(database.client, {TX_CPU: samples + other})
    output = tmp_path / "normal.csv"
    output.write_bytes(recorded.dataset)
    done = collect(influxd, database.name, "--output", output, "--add")
    assert (done.returncode, done.stdout) == (1, "")
    assert output.read_bytes() == recorded.dataset
    assert os.listdir(tmp_path) == ["normal.csv"]


OTHER_NODE = "; give the --node_file that it was collected with, or another --output"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda lines: [line.replace("ppp0", "eth7") for line in lines],
            f": is not a dataset of this node: it has no column ppp0_bytes_received{OTHER_NODE}",
        ),
        (
            lambda lines: [lines[0] + ",eth7", *(line + ",1" for line in lines[1:])],
            f": is not a dataset of this node: it has the column eth7{OTHER_NODE}",
        ),
        (
            lambda lines: lines[::2],
            ": has a record every 30 s, but --interval is 15 s; give --interval 30, or another --output",
        ),
        (
            lambda lines: [*lines, "2023-11-16"],
            ", line 482: has 1 cells, but the header has 34; the file is torn, copy or collect it again",
        ),
        (lambda _: [], ": is empty; a dataset has a header and records"),
    ],
)
def test_what_cannot_be_added_to_is_refused_before_the_server_is_asked(
    recorded: Recorded, tmp_path: Path, change: Callable[[list[str]], list[str]], reason: str
) -> None:
    output = tmp_path / "normal.csv"
    output.write_text("\n".join(change(recorded.dataset.decode().splitlines())))
    before = output.read_bytes()
    done = collect(Nowhere(), "db", "--output", output, "--add")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"find_anomalies.py: {output}{reason}\n")
    assert output.read_bytes() == before


# --- windows that are left out -------------------------------------------------------------------


def window(start: int, end: int, **others: object) -> dict[str, object]:
    """A window of a calendar from one slot to before another, counted from START."""
    begin, until = stretch(start, end).split("/")
    return {"from": begin, "until": until, **others}


def calendar(folder: Path, content: object) -> Path:
    path = folder / "calendar.json"
    path.write_text(json.dumps(content))
    return path


def test_records_in_a_window_are_left_out_and_nothing_is_computed_across_it(
    recorded: Recorded, tmp_path: Path
) -> None:
    every = rows_of(recorded.dataset)
    # One second in the middle of slot 100.
    second = [time_text((START + 15 * 100 + offset) * SECOND) for offset in (7, 8)]
    content = {
        "upgrade": window(200, 260),
        "restart": {"from": second[0], "until": second[1]},
        "last year": {"from": "2022-11-14", "until": "2022-11-15"},
        "switch": window(0, 90, series=["core"]),
    }
    windows, output = calendar(tmp_path, content), tmp_path / "normal.csv"
    expected = every[:100] + begun(every[101:200]) + begun(every[260:])
    said = [
        f"stretch: {every[0]['time']} to {every[199]['time']}, 199 records",
        described(every[260:]),
        "left out: upgrade: 60 records",
        "left out: restart: 1 record",
        f"left out: last year: no record is in this window; check its times in {windows}",
        'left out: switch: nothing, since it has "series" and is for ports',
    ]
    words = ("--output", output, "--leave_out", windows)
    done = collect(recorded.server, recorded.db_name, *words)
    first_line = f"{output}: 419 records up to {every[-1]['time']}"
    assert lines_of(done)[:-2] == [first_line, *said]
    assert rows_of(output.read_bytes()) == expected
    # The same for a file that was collected before the incidents were known.
    output.write_bytes(recorded.dataset)
    done = collect(recorded.server, recorded.db_name, *words, "--add", "--since", "10m")
    assert lines_of(done)[:-2] == [f"{first_line}; there were 480", *said]
    assert rows_of(output.read_bytes()) == expected


def test_nothing_is_computed_across_a_window_without_samples(
    influxd: Influxd, database: Database, tmp_path: Path
) -> None:
    samples = without(simulate_all(900), MEASUREMENTS, list(range(20, 25)))
    write_samples(database.client, samples)
    windows, output = calendar(tmp_path, {"reboot": window(21, 24)}), tmp_path / "normal.csv"
    done = collect(influxd, database.name, "--output", output, "--leave_out", windows)
    every = rows_of(dataset(tmp_path / "expected.csv", samples))
    assert rows_of(output.read_bytes()) == every[:20] + begun(every[20:])
    assert f"left out: reboot: no record is in this window; check its times in {windows}" in lines_of(done)


def test_weekly_windows_are_in_the_time_of_a_zone(recorded: Recorded, tmp_path: Path) -> None:
    """START is on Tuesday 14 November 2023 at 22:13:30, and 23:13:30 in Rome."""
    windows = calendar(tmp_path, {"backup": {"weekly": "tue 23:30-00:15"}})
    output = tmp_path / "normal.csv"
    words = ("--output", output, "--leave_out", windows, "--timezone", "Europe/Rome")
    done = collect(recorded.server, recorded.db_name, *words)
    every = rows_of(recorded.dataset)
    assert rows_of(output.read_bytes()) == every[:66] + begun(every[246:])
    assert "left out: backup: 180 records" in lines_of(done)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"a": window(9, 3)}, '\'a\': "until" must be later than "from"'),
        ([window(3, 9)], 'must hold one JSON object, like {"key": 1.0}'),
        (
            {"a": {"start": "x"}},
            "'a': has an unknown key 'start'; use from, until, weekly, daily, holidays, series, nodes",
        ),
        (
            {"a": window(3, 9), "b": window(0, 4)},
            "'a' begins at 2023-11-14T22:14:15Z, before 'b' has ended; make one window of both, or correct"
            " the times",
        ),
    ],
)
def test_a_wrong_window_is_one_line_before_the_server_is_asked(
    tmp_path: Path, content: object, reason: str
) -> None:
    windows = calendar(tmp_path, content)
    done = collect(Nowhere(), "db", "--output", tmp_path / "x.csv", "--leave_out", windows)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"find_anomalies.py: {windows}: {reason}\n")


def test_windows_that_meet_and_those_of_ports_do_not_overlap(recorded: Recorded, tmp_path: Path) -> None:
    content = {
        "a": window(0, 9),
        "b": window(9, 20),
        "c": window(5, 15, series=["core"]),
        # From START on, and counted for the windows before it.
        "d": {"weekly": "tue 22:00-22:18"},
    }
    words = ("--leave_out", calendar(tmp_path, content), "--timezone", "UTC")
    done = collect(recorded.server, recorded.db_name, "--output", tmp_path / "x.csv", *words)
    assert lines_of(done)[2:5] == [
        "left out: a: 9 records",
        "left out: b: 11 records",
        f"left out: d: no record is in this window; check its times in {words[1]}",
    ]


@pytest.mark.parametrize("add", [[], ["--add"]])
def test_windows_that_leave_nothing_keep_the_file(recorded: Recorded, tmp_path: Path, add: list[str]) -> None:
    windows = calendar(tmp_path, {"all": {"from": "2023-11-01", "until": "2023-12-01"}})
    output = tmp_path / "normal.csv"
    output.write_bytes(recorded.dataset)
    words = ("--output", output, "--leave_out", windows, "--since", "10m", *add)
    done = collect(recorded.server, recorded.db_name, *words)
    assert (done.returncode, done.stdout) == (1, "")
    last_line = done.stderr.splitlines()[-1]
    assert last_line == f"find_anomalies.py: {windows}: the windows leave out every record; correct them"
    assert output.read_bytes() == recorded.dataset


# --- the picture ---------------------------------------------------------------------------------


def test_a_picture_is_drawn_on_request(recorded: Recorded, tmp_path: Path) -> None:
    picture = tmp_path / "new folder" / "normal.png"
    words = ("--output", tmp_path / "normal.csv", "--plot", picture, "--stretch", stretch(0, 20))
    done = collect(recorded.server, recorded.db_name, *words)
    assert lines_of(done)[2] == f"{picture}: picture of the dataset written"
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "absent", "reason"),
    [
        ("normal.pdf", (), "{}: a picture's name must end in .png"),
        (
            "normal.png",
            ("matplotlib",),
            "matplotlib is not installed; pip install -r requirements.txt",
        ),
    ],
)
def test_a_picture_that_cannot_be_drawn_is_said_before_the_server_is_asked(
    tmp_path: Path, name: str, absent: tuple[str, ...], reason: str
) -> None:
    words = ("--output", tmp_path / "normal.csv", "--plot", tmp_path / name)
    done = collect(Nowhere(), "db", *words, absent=absent)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"find_anomalies.py: {reason.format(tmp_path / name)}\n"
    assert os.listdir(tmp_path) == []


# --- what is refused -----------------------------------------------------------------------------


class Nowhere:
    """Where no server listens."""

    host = "127.0.0.1"

    def __init__(self) -> None:
        self.port = free_port(self.host)


NO_SAMPLE = (
    "database {} has no usable sample of this node; check that Prometheus writes there"
    " (deploy/prometheus.yml), --influx_db and --node_file"
)


@pytest.mark.parametrize(
    ("find_server", "find_name", "reason"),
    [
        (
            lambda _: Nowhere(),
            lambda _: "metrics_db",
            " cannot be reached; check --influx_host, --influx_port and that it runs",
        ),
        (lambda server: server, lambda name: name, f": {NO_SAMPLE}"),
        (
            lambda server: server,
            lambda _: "no_such_db",
            " has no database no_such_db; check --influx_db, or create it for Prometheus"
            " (CREATE DATABASE no_such_db)",
        ),
    ],
    ids=["no server", "empty database", "no database"],
)
def test_without_a_sample_the_output_stays_as_it_was_and_one_line_says_why(
    influxd: Influxd,
    database: Database,
    tmp_path: Path,
    find_server: Callable,
    find_name: Callable[[str], str],
    reason: str,
) -> None:
    write_samples(database.client, {"up": simulate_all(60)[RX_CPU]})
    server, name = find_server(influxd), find_name(database.name)
    output = tmp_path / "normal.csv"
    output.write_text("collected yesterday")
    done = collect(server, name, "--output", output)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (f"find_anomalies.py: InfluxDB at 127.0.0.1:{server.port}{reason.format(name)}\n")
    assert output.read_text() == "collected yesterday"
    assert os.listdir(tmp_path) == ["normal.csv"]
    assert {"name": "no_such_db"} not in database.client.get_list_database()


def test_a_fault_in_the_middle_leaves_the_output_as_it_was(
    influxd: Influxd, database: Database, tmp_path: Path
) -> None:
    """The first hour is read, the second has a second gNB."""
    samples = simulate_all(5400)[TX_CPU]
    other = [point | {"instance": "gnb:1"} for point in samples[-3:]]
    write_samples(database.client, {TX_CPU: samples + other})
    output = tmp_path / "normal.csv"
    output.write_text("collected yesterday")
    done = collect(influxd, database.name, "--output", output, "--since", "90m")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == (
        "find_anomalies.py: the database holds more than one instance: gnb:1, gnb:9099;"
        " name the one to watch as 'ran_instance' in a file given with --node_file"
    )
    assert "Traceback" not in done.stderr
    assert output.read_text() == "collected yesterday"
    assert os.listdir(tmp_path) == ["normal.csv"]


def test_without_output_one_line_asks_for_it(recorded: Recorded) -> None:
    done = collect(recorded.server, recorded.db_name)
    assert (done.returncode, done.stdout, done.stderr) == (
        1,
        "",
        "find_anomalies.py: --mode collect needs --output FILE.csv\n",
    )


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (
            ("--stretch", "2023-11-15/2023-11-14"),
            2,
            "argument --stretch: '2023-11-15/2023-11-14' does not end after its start",
        ),
        (
            ("--stretch", "2023-11-15"),
            2,
            "argument --stretch: '2023-11-15' is not START/END, with times like 2023-01-31 or"
            " 2023-01-31T12:00:00Z",
        ),
        (
            ("--stretch", "2023-11-14/2023-11-15", "--since", "3h"),
            2,
            "--since does nothing with --stretch; leave one of them out",
        ),
        (("--timezone", "UTC"), 2, "--timezone does nothing without --leave_out; give both or neither"),
        (
            ("--stretch", "2023-11-14/2023-11-16", "--stretch", "2023-11-13/2023-11-14T00:00:01Z"),
            1,
            "--stretch 2023-11-14T00:00:00Z/2023-11-16T00:00:00Z overlaps --stretch"
            " 2023-11-13T00:00:00Z/2023-11-14T00:00:01Z; give each time once",
        ),
    ],
)
def test_a_wrong_stretch_is_one_line_before_the_server_is_asked(
    words: tuple[str, ...], code: int, reason: str
) -> None:
    done = collect(Nowhere(), "db", "--output", "x.csv", *words)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", f"find_anomalies.py: {reason}\n")


def test_a_stretch_cannot_end_in_the_future() -> None:
    done = collect(Nowhere(), "db", "--output", "x.csv", "--stretch", "2023-11-14/2199-11-16")
    assert (done.returncode, done.stdout) == (1, "")
    line = (
        "find_anomalies.py: --stretch 2023-11-14T00:00:00Z/2199-11-16T00:00:00Z ends in the future;"
        r" let it end at 2\S+Z or before\n"
    )
    assert re.fullmatch(line, done.stderr)
