"""The node files that ship in nodes/: series as each stack writes them are collected, an attack is found."""

from __future__ import annotations

import contextlib
import csv
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from influxdb import InfluxDBClient
from influxdb.exceptions import InfluxDBClientError

from edge import training
from edge.bundle import load_bundle
from edge.daemon import Daemon, Settings
from edge.datasets import load_records
from edge.exporter import EdgeMetrics
from edge.paths import DEFAULT_MODEL
from edge.samples import InfluxSource
from edge.scores import score_dataset
from edge.thresholds import propose_thresholds, update_thresholds
from find_anomalies import main
from influx_utils import initializeConnection
from lab.influxd import Influxd
from nodes.fleet import Named
from nodes.node import DEFAULT_NODE, getColumnNames, load_node
from nodes.series import Record
from service.store import Store
from service.systemd import Ending
from simulators.edge import Attack, simulate
from simulators.stacks import JAMMER, STORM, node_exporter, ocudu_lines, open5gs
from tests.support.influx import connect
from tests.support.prometheus_writer import write_samples
from tests.support.training import quickly

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
INTERVAL = 15
START = 1_740_009_600.0  # 2025-02-20T00:00:00Z
SEED = 3
# Of a gNB whose first UE comes soon, that is without UEs for a time, and has some in the end.
GNB_SEED = 125
# The records of ordinary life; the last ones are repeated as an attack.
RECORDS, ATTACKED = 500, 6
LINES = 5000


class Stack(NamedTuple):
    """What a stack writes, the attack on it, and what the program should say of it.

    write: stores RECORDS records that begin at a time; its attacks are at the times of those from START on.
    """

    write: Callable[[InfluxDBClient, float, list[Attack]], None]
    attack: str
    cause: str
    columns: tuple[str, ...]
    is_plausible: Callable[[dict[str, float]], bool]


def write_lines(client: InfluxDBClient, lines: Iterable[str]) -> None:
    """As Telegraf does: several fields in a point."""
    lines = list(lines)
    for first in range(0, len(lines), LINES):
        client.write(lines[first : first + LINES], {"db": client._database, "precision": "ns"}, 204, "line")


def write_ocudu(client: InfluxDBClient, start: float, attacks: list[Attack]) -> None:
    lines = ocudu_lines(GNB_SEED, START, RECORDS * INTERVAL, attacks)
    later = int(start - START) * 10**9
    parts = (line.rsplit(" ", 1) for line in lines)
    write_lines(client, (f"{series} {int(time_ns) + later}" for series, time_ns in parts))


def write_open5gs(client: InfluxDBClient, start: float, attacks: list[Attack]) -> None:
    write_samples(client, moved(open5gs(SEED, START, RECORDS * INTERVAL, attacks), start))


def write_host(client: InfluxDBClient, start: float, attacks: list[Attack]) -> None:
    samples = node_exporter(simulate(SEED, START, RECORDS * INTERVAL, attacks), "eth0")
    write_samples(client, moved(samples, start))


def write_amarisoft(client: InfluxDBClient, start: float, attacks: list[Attack]) -> None:
    write_samples(client, moved(simulate(SEED, START, RECORDS * INTERVAL, attacks), start))


def moved(samples: Record, start: float) -> Record:
    """The samples as if they began at `start`: what is normal must not depend on when the test runs."""
    later = int(start - START) * 10**9
    return {
        name: [point | {"time": point["time"] + later} for point in points]
        for name, points in samples.items()
    }


STACKS = {
    "node-exporter": Stack(
        write_host,
        "cpu",
        "cpu",
        ("cpu_user_percentage", "bytes_received", "bytes_transmitted", "mem"),
        lambda fields: fields["cpu_usage"] > 95,
    ),
    "ocudu": Stack(
        write_ocudu,
        JAMMER,
        "snr | ul_failed",
        ("gnb_cpu", "gnb_mem", "latency", "ue_down", "ue_up", "snr", "ul_failed"),
        # The lower of -3 to 1 dB, and of 3 dB less; some 60 blocks are lost in a second.
        lambda fields: -6 <= fields["snr"] <= -2 and 30 < fields["ul_failed"] < 100,
    ),
    "open5gs": Stack(
        write_open5gs,
        STORM,
        "ran_ue | reg_requests",
        ("cpu_user_percentage", "ran_ue", "reg_requests", "reg_success", "session_setups", "sessions"),
        lambda fields: 2 < fields["reg_requests"] < 7 and fields["ran_ue"] > 20 and fields["sessions"] < 13,
    ),
}


def node_file(stack: str) -> str:
    return str(ROOT / "nodes" / f"{stack}.json")


@contextlib.contextmanager
def database(server: Influxd, name: str) -> Iterator[InfluxDBClient]:
    with connect(server) as client:
        client.create_database(name)
        client.switch_database(name)
        yield client
        client.drop_database(name)


def collect(server: Influxd, database_name: str, output: Path, *options: str) -> None:
    where = ["--influx_host", server.host, "--influx_port", str(server.port), "--influx_db", database_name]
    assert main(["--mode", "collect", "--output", str(output), *where, *options]) == 0


def poll_once(
    server: Influxd, client: InfluxDBClient, stack: str, model: str, thresholds: str, state: Path
) -> dict:
    """The one anomaly that test mode stores."""
    settings = Settings(
        server="influxd",
        database=client._database,
        measurement="detected_anomalies",
        interval_seconds=INTERVAL,
        catch_up_seconds=3600.0,
        drift_seconds=21600.0,
        thresholds_file=thresholds,
        model=model,
        once=True,
    )
    own = initializeConnection(server.host, server.port, "", "")
    source = InfluxSource(own, "influxd", client._database)
    with Store(state, 100) as store:
        Daemon(
            settings, source, own, [Named("", load_node(node_file(stack)))], store, EdgeMetrics(), Ending()
        ).run()
    (point,) = client.query('SELECT * FROM "detected_anomalies"').get_points()
    return point


def start_now() -> float:
    """So that the newest record is the one that ended last."""
    return time.time() // INTERVAL * INTERVAL - RECORDS * INTERVAL


def attack_at_the_end(kind: str) -> list[Attack]:
    return [Attack(kind, START + (RECORDS - ATTACKED) * INTERVAL, START + RECORDS * INTERVAL)]


@pytest.mark.parametrize("name", STACKS)
def test_an_attack_is_found_with_its_cause(influxd: Influxd, tmp_path: Path, name: str) -> None:
    stack, node = STACKS[name], load_node(node_file(name))
    dataset, model, thresholds = (tmp_path / one for one in ("normal.csv", "edge.h5", "thresholds.json"))
    with database(influxd, f"normal_{name}") as client:
        stack.write(client, START, [])
        collect(influxd, f"normal_{name}", dataset, "--node_file", node_file(name))
    with dataset.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["time", *getColumnNames(node)]
    for column in stack.columns:
        assert sum(row[column] != "" for row in rows) > 0.95 * RECORDS, column
    frame = load_records(dataset, metrics=node.metrics)
    with pytest.MonkeyPatch.context() as patch:
        quickly(patch)
        features = len(node.metrics.features)
        training.train(frame, 4, features, 8, 0.0, 0, str(model), plot_dir=tmp_path, metrics=node.metrics)
    bundle = load_bundle(model, node.metrics)
    proposed = propose_thresholds(None, None, score_dataset(bundle, frame), 99)
    update_thresholds(thresholds, proposed, bundle.identity, node.metrics)
    with database(influxd, f"now_{name}") as client:
        stack.write(client, start_now(), attack_at_the_end(stack.attack))
        point = poll_once(influxd, client, name, str(model), str(thresholds), tmp_path)
    assert (point["possible_cause"], point["severity"]) == (stack.cause, "alert")
    assert None not in [point[field] for field in node.metrics.stored.values()]
    assert stack.is_plausible(point), point


def test_amarisoft_is_the_documented_node(influxd: Influxd, tmp_path: Path) -> None:
    assert load_node(node_file("amarisoft")) == DEFAULT_NODE
    with database(influxd, "amarisoft") as client:
        write_amarisoft(client, start_now(), attack_at_the_end("cpu"))
        collect(influxd, "amarisoft", tmp_path / "with.csv", "--node_file", node_file("amarisoft"))
        collect(influxd, "amarisoft", tmp_path / "without.csv")
        # The model and thresholds that ship with the project.
        point = poll_once(influxd, client, "amarisoft", DEFAULT_MODEL, "data/thresholds.json", tmp_path)
    assert (tmp_path / "with.csv").read_bytes() == (tmp_path / "without.csv").read_bytes()
    assert (point["possible_cause"], point["severity"]) == ("cpu", "alert")


def test_a_cell_without_ues_is_zero_and_keeps_its_last_signal(influxd: Influxd, tmp_path: Path) -> None:
    """No UE in two records, one in the third, none again. A bit rate needs the time of a record before."""
    lines = []
    for record in range(5):
        ns = int(START + record * INTERVAL) * 10**9
        lines += [
            f"app_resource_usage cpu_usage_percent=150,memory_usage_mb=1024 {ns}",
            f"cell pci=1,average_latency=3 {ns}",
        ]
        if record == 2:
            lines.append(f"ue,pci=1,rnti=17921 dl_brate=8000,ul_brate=800,pusch_snr_db=20,ul_nof_nok=1 {ns}")
    with database(influxd, "empty_cell") as client:
        write_lines(client, lines)
        collect(influxd, "empty_cell", tmp_path / "empty.csv", "--node_file", node_file("ocudu"))
    with (tmp_path / "empty.csv").open() as file:
        rows = list(csv.DictReader(file))
    levels = {column: [row[column] for row in rows] for column in ("ue_down", "ue_up", "snr", "ul_failed")}
    assert levels == {
        "ue_down": ["", "0", "1000", "0", "0"],
        "ue_up": ["", "0", "100", "0", "0"],
        "snr": ["", "", "20", "20", "20"],
        "ul_failed": ["0", "0", "1", "0", "0"],
    }


def test_text_that_keeps_the_samples_of_ues_out_is_no_silence(influxd: Influxd, tmp_path: Path) -> None:
    """One text, in a field that nobody reads, and InfluxDB refuses every report of a UE."""
    with database(influxd, "kept_out") as client:
        write_lines(client, [f'ue,pci=1,rnti=evil cqi="text" {int(START - 60) * 10**9}'])
        for record in range(3):
            ns = int(START + record * INTERVAL) * 10**9
            write_lines(client, [f"cell pci=1,average_latency=3 {ns}"])
            with pytest.raises(InfluxDBClientError, match="field type conflict"):
                write_lines(client, [f"ue,pci=1,rnti=1 dl_brate=8000,pusch_snr_db=-9,cqi=3 {ns}"])
        collect(influxd, "kept_out", tmp_path / "out.csv", "--node_file", node_file("ocudu"))
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["latency"] for row in rows} == {"3"}
    assert {row[column] for row in rows for column in ("ue_down", "ue_up", "snr", "ul_failed")} == {""}


def test_ues_are_summed_and_the_lowest_signal_counts(influxd: Influxd, tmp_path: Path) -> None:
    """Two UEs of the cell, and one of another; the second has no SNR in its newest report."""
    lines = []
    for record in range(3):
        ns = int(START + record * INTERVAL) * 10**9
        lines += [
            f"app_resource_usage cpu_usage_percent=150,memory_usage_mb=1024 {ns}",
            f"cell pci=1,average_latency=3 {ns}",
            f"ue,pci=1,rnti=17921 dl_brate=8000,ul_brate=800,pusch_snr_db=20,ul_nof_nok=1 {ns}",
            f"ue,pci=1,rnti=17922 dl_brate=16000,ul_brate=0,pusch_snr_db=-2,ul_nof_nok=2 {ns}",
            f"ue,pci=1,rnti=17922 dl_brate=24000,ul_brate=0,ul_nof_nok=3 {ns + 10**9}",
            f"ue,pci=2,rnti=17923 dl_brate=80000,ul_brate=8000,pusch_snr_db=9,ul_nof_nok=90 {ns}",
        ]
    with database(influxd, "two_ues") as client:
        write_lines(client, lines)
        collect(influxd, "two_ues", tmp_path / "two.csv", "--node_file", node_file("ocudu"))
    with (tmp_path / "two.csv").open() as file:
        rows = list(csv.DictReader(file))
    levels = {key: float(value) for key, value in rows[-1].items() if key != "time"}
    assert levels == {
        "gnb_cpu": 150.0,
        "gnb_mem": 1024.0,
        "latency": 3.0,
        "ue_down": 4000.0,
        "ue_up": 100.0,
        "snr": -2.0,
        "ul_failed": 4.0,
    }


def test_every_description_has_its_page() -> None:
    names = {path.stem for path in (ROOT / "nodes").glob("*.json")}
    assert names == {"amarisoft", *STACKS} == {path.stem for path in (ROOT / "nodes").glob("*.md")}
    for name in names:
        page = (ROOT / "nodes" / f"{name}.md").read_text()
        assert [metric for metric in load_node(node_file(name)).metrics if f"`{metric}`" not in page] == []
