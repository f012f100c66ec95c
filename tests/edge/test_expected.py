"""What is expected of each record reaches InfluxDB once, in bounded room, and anomalies come first."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from influxdb.line_protocol import make_lines

import influx_utils
from edge import daemon
from edge.bundle import load_bundle
from edge.detector import Verdict
from edge.expected import Expectation, ExpectedDelivery, ExpectedLines
from edge.exporter import EdgeMetrics
from edge.levels import levels_of
from edge.paths import DEFAULT_MODEL
from edge.thresholds import load_thresholds
from influx_client import line_start
from lab.influxd import Influxd
from nodes.metrics import METRICS
from service.file_queue import BLOCK_BYTES, FileQueue
from service.log import Notices
from tests.support.edge_daemon import FIRST, ROOT, Edge, said
from tests.support.influx import connect

BUNDLE, THRESHOLDS = load_bundle(DEFAULT_MODEL), load_thresholds(ROOT / "data/thresholds.json")
POINTS = len(METRICS) + 1


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[Edge]:
    """A node whose first slots were judged; what is expected is stored."""
    with Influxd(tmp_path / "influxd") as server:
        edge = Edge(server, tmp_path)
        edge.stores_expected = True
        edge.start()
        edge.feed(*range(FIRST))
        assert edge.daemon.poll() is False
        yield edge
        edge.stop()


def counted(client: Any) -> Counter[int]:
    """Time of a record -> how many points it has."""
    points = client.query('SELECT * FROM "expected"', epoch="ns").get_points()
    return Counter(point["time"] for point in points)


def times_of(edge: Edge, first: int, last: int) -> list[int]:
    """The times of the records of these slots: those of the newer of its two scrapes."""
    return [max(point["time"] for _, point in edge.in_slots(slot, slot)) for slot in range(first, last + 1)]


def test_each_record_is_stored_once_though_processes_die_before_they_send(edge: Edge) -> None:
    edge.live(FIRST, FIRST + 1)
    for slot in range(FIRST + 2, FIRST + 8):
        edge.feed(slot)
        edge.poll_without_sending()
        edge.start()
    assert counted(edge.client) == dict.fromkeys(times_of(edge, FIRST - 1, FIRST + 1), POINTS)
    assert len(list((edge.folder / "state/expected").iterdir())) == 6
    edge.live(FIRST + 8)
    assert counted(edge.client) == dict.fromkeys(times_of(edge, FIRST - 1, FIRST + 8), POINTS)
    assert list((edge.folder / "state/expected").iterdir()) == []
    assert edge.stored() == edge.expected(last=FIRST + 9)


def test_nothing_is_stored_unless_it_is_asked_for(tmp_path: Path) -> None:
    with Influxd(tmp_path / "influxd") as server:
        edge = Edge(server, tmp_path)
        edge.feed(*range(FIRST))
        assert edge.daemon.poll() is False
        assert counted(edge.client) == {}
        assert not (tmp_path / "state/expected").exists()
        edge.stop()


def test_what_is_refused_is_dropped_and_said_once_and_no_anomaly_is_lost(
    edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    edge.client.query('DROP MEASUREMENT "expected"', method="POST")
    # A field has a type in each shard.
    text = f'expected,metric=cpu actual="text" {edge.begin * 10**9}'
    edge.client.write(text, {"db": "edge"}, protocol="line")
    edge.live(*range(FIRST, FIRST + 8))
    assert edge.stored() == edge.expected(last=FIRST + 8)
    lines = [line for line in said(caplog) if "`expected`" in line]
    assert len(lines) == 1
    assert "is type float, already exists as type string" in lines[0]
    assert lines[0].endswith("; they are dropped")
    assert edge.metrics.registry.get_sample_value("find_anomalies_expected_dropped_total") == 8
    edge.client.query('DROP MEASUREMENT "expected"', method="POST")
    edge.live(FIRST + 8)
    assert counted(edge.client) == {times_of(edge, FIRST + 8, FIRST + 8)[0]: POINTS}
    assert said(caplog)[-1] == "InfluxDB takes the points of `expected` again"


def test_a_folder_that_cannot_be_written_costs_no_verdict(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Influxd(tmp_path / "influxd") as server:
        (tmp_path / "state").mkdir()
        (tmp_path / "state/expected").write_text("a file")
        edge = Edge(server, tmp_path)
        edge.stores_expected = True
        edge.start()
        edge.feed(*range(FIRST))
        assert edge.daemon.poll() is False
        edge.live(*range(FIRST, FIRST + 8))
        assert edge.stored() == edge.expected(last=FIRST + 8)
        lines = [line for line in said(caplog) if "expected" in line and "incident" not in line]
        assert len(lines) == 1
        assert "expected: cannot be written (File exists); free some space" in lines[0]
        (tmp_path / "state/expected").unlink()
        edge.live(FIRST + 8)
        assert counted(edge.client) == {times_of(edge, FIRST + 8, FIRST + 8)[0]: POINTS}
        assert said(caplog)[-1].endswith("expected can be written again")
        edge.stop()


# --- the points ----------------------------------------------------------------------------------


def a_verdict(**settings: Any) -> Verdict:
    features = len(BUNDLE.features)
    rmse = dict.fromkeys((*METRICS, "overall"), 0.25)
    ordinary: dict[str, Any] = {
        "time": 1_000_000_000_000_000_000, "status": "normal", "causes": (), "unknown": (), "rmse": rmse,
        "values": {},
    }  # fmt: skip
    halves = np.full(features, 0.5)
    return Verdict(**{**ordinary, "actual": halves, "predicted": halves, **settings})


def lines_of(verdict: Verdict, node: str = "edge 7") -> dict[str, str]:
    """Metric -> its line."""
    record = Expectation(node, "h:9100", BUNDLE, THRESHOLDS, verdict)
    start = "expected,instance=h:9100,metric="
    found = list(ExpectedLines().of([record]))
    assert all(line.startswith(start) for line in found)
    return {line.removeprefix(start).split(",")[0].split(" ")[0]: line for line in found}


@pytest.mark.parametrize("name", ["edge-7", "10.0.0.7:9100", 'a "b", c=d', "x\\y\nz\\", "é 日"])
def test_names_are_written_as_those_of_anomalies(name: str) -> None:
    tags = {"node": name, "instance": f"{name}:9100", "metric": "cpu"}
    sent = {tag: text.rstrip("\\") for tag, text in tags.items()}
    point = {"measurement": "expected", "tags": sent, "fields": {"x": 1.0}}
    assert f"{line_start('expected', tags)} x=1.0\n" == make_lines({"points": [point]})


def test_a_line_has_the_levels_the_error_and_what_is_wrong() -> None:
    verdict = a_verdict(status="alert", causes=("cpu",))
    level = levels_of(BUNDLE, THRESHOLDS, verdict)["cpu"]
    found = lines_of(verdict)
    assert list(found) == [*METRICS, "overall"]
    assert found["cpu"] == (
        f"expected,instance=h:9100,metric=cpu,node=edge\\ 7 actual={level.actual:.9g},low={level.low:.9g},"
        f"expected={level.expected:.9g},high={level.high:.9g},rmse=0.25,"
        f"threshold={THRESHOLDS['cpu_threshold']:.9g},anomaly=2 1000000000000000000"
    )
    assert [name for name, line in found.items() if "anomaly" in line] == ["cpu"]
    assert found["overall"].split(" ", 1)[1].startswith("7 rmse=0.25,threshold=")
    # An anomaly without a metric of its own is one of all together.
    found = lines_of(a_verdict(status="anomaly"))
    assert [name for name, line in found.items() if ",anomaly=1 " in line] == ["overall"]


def test_what_is_unknown_is_left_out() -> None:
    actual = np.full(len(BUNDLE.features), 0.5)
    actual[BUNDLE.features.index(METRICS["mem"].level)] = math.nan
    rmse = dict.fromkeys((*METRICS, "overall"), math.nan) | {"cpu": 0.25}
    found = lines_of(a_verdict(status="unknown", actual=actual, rmse=rmse))
    assert "actual" not in found["mem"]
    assert "rmse" not in found["mem"]
    assert ",high=" in found["mem"]
    assert "rmse=0.25" in found["cpu"]
    assert "nan" not in "".join(found.values())
    assert found["overall"].split(" ")[2] == f"threshold={THRESHOLDS['overall_threshold']:.9g}"


# --- while InfluxDB is away ----------------------------------------------------------------------


def test_while_influxdb_is_away_the_newest_wait_in_bounded_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    # A poll of this node takes one block: there is room for five.
    queue = FileQueue(tmp_path / "expected", 5 * BLOCK_BYTES)
    metrics = EdgeMetrics()
    begin, second = a_verdict().time, 10**9
    with Influxd(tmp_path / "influxd") as server, connect(server, database="edge") as client:
        client.create_database("edge")
        own = influx_utils.initializeConnection("127.0.0.1", server.port, "", "")
        delivery = ExpectedDelivery(own, "edge", queue, metrics, Notices())
        server.kill()
        for number in range(8):
            record = replace(a_verdict(), time=begin + number * second)
            delivery.keep([Expectation("", None, BUNDLE, THRESHOLDS, record)])
            with pytest.raises(influx_utils.INFLUX_ERRORS):
                delivery.send()
        value = metrics.registry.get_sample_value
        assert value("find_anomalies_expected_waiting") == 5
        assert value("find_anomalies_expected_dropped_total") == 3
        server.start()
        delivery.send()
        assert counted(client) == {begin + number * second: POINTS for number in range(3, 8)}
        assert value("find_anomalies_expected_waiting") == 0
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'expected'} is full: the oldest points of `expected` are dropped",
        "InfluxDB has all points of `expected` that there was room for",
    ]


def test_there_is_room_for_as_long_as_the_docs_say() -> None:
    one = sum(len(line) + 1 for line in lines_of(a_verdict()).values())
    polls = daemon.ROOM_BYTES / (-(-one // BLOCK_BYTES) * BLOCK_BYTES)
    assert polls * 15 / 86400 > 2.5
    assert daemon.ROOM_BYTES_OF_MANY / (1000 * one) * 15 / 3600 > 1
