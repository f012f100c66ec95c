"""`--mode collect` as a user runs it, on a real InfluxDB that a simulated edge node was scraped into."""

from __future__ import annotations

import csv
import json
import os
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest

import formatters
import lab.influxd
from edge.datasets import write_dataset
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
# A whole multiple of 15, but of neither 7 nor 3600.
START = 1_700_000_010
HOURS = 2
SLOTS = HOURS * 240


def collect(server: Influxd, db_name: str, *arguments: object) -> Done:
    given = {"influx_host": server.host, "influx_port": server.port, "influx_db": db_name}
    options = [str(word) for name, value in given.items() for word in (f"--{name}", value)]
    # The environment of the test run may set options.
    return run_here("--mode", "collect", *options, *arguments, cwd=ROOT, environment={})


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
    assert done.stdout == f"{output}: {SLOTS} records up to {time_text(newest)}\n"
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
    assert done.stdout.splitlines() == [
        f"{output}: 78 records up to {time_text(newest)}",
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
