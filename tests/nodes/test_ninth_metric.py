"""A ninth metric is a row of the table and nothing else: collected, trained on, judged, stored and drawn."""

from __future__ import annotations

import contextlib
import csv
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from influxdb import InfluxDBClient

import commands.collect
from edge.bundle import load_bundle
from edge.daemon import Daemon, Settings
from edge.datasets import load_records
from edge.detector import Verdict, detect
from edge.exporter import EdgeMetrics
from edge.incidents import Alerts
from edge.pictures import draw_alert, draw_detection
from edge.samples import InfluxSource
from edge.scores import score_dataset
from edge.thresholds import load_thresholds, propose_thresholds, update_thresholds
from edge.training import train
from find_anomalies import main
from influx_utils import initializeConnection
from lab.influxd import Influxd
from nodes.fleet import Named
from nodes.metrics import GAUGE, MEMORY_FREE, METRICS, NODE, Metric, MetricTable
from nodes.node import DEFAULT_NODE, getColumnNames
from nodes.series import Record
from service.store import Store
from service.systemd import Ending
from simulators.edge import simulate
from tests.support.influx import connect
from tests.support.prometheus_writer import write_samples
from tests.support.training import quickly

AVAILABLE = "node_filesystem_avail_bytes"
DISK = Metric(
    name="disk",
    exporter=NODE,
    kind=GAUGE,
    measurement=AVAILABLE,
    columns={"disk": "value", "disk_rate": "change"},
    features=("disk_rate", "disk"),
    unit="B",
    stored="disk",
    stored_field="disk_usage",
)
NINE = MetricTable((*METRICS.values(), DISK))
WATCHED = replace(DEFAULT_NODE, metrics=NINE)
START = 1_740_009_600  # 2025-02-20T00:00:00Z
INTERVAL = 15
# The records of ordinary life; the last ones are repeated as an attack on the disk.
RECORDS, ATTACKED = 500, 6
FULL = 1e9


def life(seconds_later: int = 0, attacked: int = 0) -> Record:
    """The samples of the node, its disk among them, which is nearly full in the last `attacked` records."""
    samples = simulate(3, START, RECORDS * INTERVAL)
    rng = np.random.default_rng(3)
    samples[AVAILABLE] = [
        point | {"value": 50e9 + 1e9 * np.sin(point["time"] / 6e11) + 1e8 * rng.standard_normal()}
        for point in samples[MEMORY_FREE]
    ]
    for point in samples[AVAILABLE]:
        if point["time"] >= (START + (RECORDS - attacked) * INTERVAL) * 10**9:
            point["value"] = FULL
    return {
        name: [point | {"time": point["time"] + seconds_later * 10**9} for point in points]
        for name, points in samples.items()
    }


class Ninth(NamedTuple):
    """What collecting and training left."""

    dataset: Path
    model: Path
    thresholds: Path


@contextlib.contextmanager
def stored(server: Influxd, database: str, samples: Record) -> Iterator[InfluxDBClient]:
    """A client of a database that holds the samples."""
    with connect(server) as client:
        client.create_database(database)
        client.switch_database(database)
        write_samples(client, samples)
        yield client
        client.drop_database(database)


@pytest.fixture(scope="module")
def ninth(influxd: Influxd, tmp_path_factory: pytest.TempPathFactory) -> Ninth:
    """The one training here, of a small network. One thing is replaced: what describes the node."""
    folder = tmp_path_factory.mktemp("ninth")
    found = Ninth(folder / "normal.csv", folder / "edge.h5", folder / "thresholds.json")
    with pytest.MonkeyPatch.context() as patch, stored(influxd, "ninth", life()):
        patch.setattr(commands.collect, "load_node", lambda filename: WATCHED)
        options = ["--influx_host", influxd.host, "--influx_port", str(influxd.port), "--influx_db", "ninth"]
        assert main(["--mode", "collect", "--output", str(found.dataset), *options]) == 0
    frame = load_records(found.dataset, metrics=NINE)
    with pytest.MonkeyPatch.context() as patch:
        quickly(patch)
        train(frame, 4, 14, 8, 0.0, 0, str(found.model), plot_dir=folder, metrics=NINE)
    bundle = load_bundle(found.model, NINE)
    proposed = propose_thresholds(None, None, score_dataset(bundle, frame), 99)
    update_thresholds(found.thresholds, proposed, bundle.identity, NINE)
    return found


def test_it_is_collected(ninth: Ninth) -> None:
    with ninth.dataset.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["time", *getColumnNames(WATCHED)]
    disk = [float(row["disk"]) for row in rows if row["disk"]]
    assert len(disk) > 0.9 * RECORDS
    assert 48e9 < min(disk) < max(disk) < 52e9
    changes = [float(row["disk_rate"]) for row in rows[1:] if row["disk_rate"]]
    assert changes[0] == pytest.approx(disk[1] - disk[0])


def test_it_is_trained_on(ninth: Ninth) -> None:
    identity = json.loads(ninth.model.with_suffix(".json").read_text())
    assert identity["metrics"] == METRICS.description | {"disk": ["disk_rate", "disk"]}
    assert identity["features"][7:] == [
        "mem_rate",
        "disk_rate",
        "cpu_user_percentage",
        "cpu_rx_percentage",
        "cpu_tx_percentage",
        "mem_percentage",
        "disk",
    ]
    assert "disk" in identity["held_out_rmse"]
    thresholds = json.loads(ninth.thresholds.read_text())
    assert list(thresholds)[-2:] == ["disk_threshold", "overall_threshold"]
    assert len(thresholds) == 10


@pytest.fixture(scope="module")
def verdicts(ninth: Ninth) -> list[Verdict]:
    """On records whose last ones are the attack."""
    frame = load_records(ninth.dataset, metrics=NINE)
    frame.iloc[-ATTACKED:, frame.columns.get_loc("disk")] = FULL
    bundle = load_bundle(ninth.model, NINE)
    return detect(load_thresholds(ninth.thresholds, NINE), frame, score_dataset(bundle, frame))


def test_it_is_judged_and_named_as_the_cause(verdicts: list[Verdict]) -> None:
    attacked = verdicts[-ATTACKED:]
    assert [verdict.status for verdict in attacked] == ["anomaly"] * 3 + ["alert"] * (ATTACKED - 3)
    assert {verdict.causes for verdict in attacked} == {("disk",)}
    assert not any("disk" in verdict.causes for verdict in verdicts[:-ATTACKED])


def test_it_is_drawn(ninth: Ninth, verdicts: list[Verdict]) -> None:
    bundle, thresholds = load_bundle(ninth.model, NINE), load_thresholds(ninth.thresholds, NINE)
    figure = draw_detection(bundle, thresholds, verdicts, [], "nine")
    labels = [axis.get_ylabel() for axis in figure.axes]
    assert "disk [B]" in labels
    assert labels[-2:] == ["disk RMSE", "overall RMSE"]
    alerts = Alerts(NINE)
    for verdict in verdicts:
        alerts.observe(verdict)
    alert = alerts.up
    assert alert.causes == ("disk",)
    drawn = {axis.get_ylabel(): axis for axis in draw_alert(bundle, thresholds, alert, verdicts).axes}
    assert [label.split()[0] for label in drawn] == list(NINE)
    assert drawn["disk [B]"].yaxis.label.get_color() == "red"
    # The lowest of either column say when.
    assert [label for label, axis in drawn.items() if axis.get_xlabel()] == ["mem [%]", "disk [B]"]


def test_it_is_stored(ninth: Ninth, influxd: Influxd, tmp_path: Path) -> None:
    # The first poll reads the newest records up to now, and tells the verdict on the last one.
    seconds_later = (int(time.time()) - START) // INTERVAL * INTERVAL - RECORDS * INTERVAL
    settings = Settings(
        server="influxd",
        database="ninth_now",
        measurement="detected_anomalies",
        interval_seconds=INTERVAL,
        catch_up_seconds=3600.0,
        drift_seconds=21600.0,
        thresholds_file=str(ninth.thresholds),
        model=str(ninth.model),
        once=True,
    )
    server = initializeConnection(influxd.host, influxd.port, "", "")
    with stored(influxd, "ninth_now", life(seconds_later, ATTACKED)) as client:
        with Store(tmp_path, 100) as store:
            source = InfluxSource(server, settings.server, settings.database)
            Daemon(settings, source, server, [Named("", WATCHED)], store, EdgeMetrics(), Ending()).run()
        (point,) = client.query('SELECT * FROM "detected_anomalies"').get_points()
    assert (point["possible_cause"], point["severity"], point["disk_usage"]) == ("disk", "alert", FULL)
    assert None not in [point[field] for field in NINE.stored.values()]
