"""The faults of the daemon's neighbours, each against the real thing: what docs/operation.md promises.

Most run the daemon in this process, slot by slot, with edge.Edge.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from influxdb import InfluxDBClient

import influx_utils
from common.files import UserError
from common.times import format_time
from edge.bundle import bundle_paths, load_bundle
from edge.exporter import EdgeMetrics
from edge.kept import state_of
from edge.paths import DEFAULT_MODEL
from edge.pictures import Drawing
from edge.scores import SCORE_RECORDS
from edge.thresholds import proposals_path, update_thresholds
from lab.influxd import Influxd
from nodes.metrics import CPU_SECONDS, MEMORY_FREE, RECEIVED, RX_CPU, TRANSMITTED
from nodes.series import Point, series_tags
from service.watched import WatchedFiles
from simulators.edge import NODE_PHASE
from tests.support.edge_daemon import FIRST, INTERVAL, ROOT, SECOND, SLOTS, Change, Edge, said
from tests.support.influx import connect
from tests.support.memory import little_memory
from tests.support.proxy import Proxy

# From one scrape of the node to the next, one of three; afterwards the last window gets empty.
COMES_AND_GOES = [slot + NODE_PHASE for slot in range(16, 36, 3)]
COMES_AND_GOES_SLOTS = 64

ENDS = (("min", -1), ("max", 1))


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[Edge]:
    """A server of its own, the first slots judged; the next slot is FIRST."""
    with Influxd(tmp_path / "influxd") as server:
        edge = Edge(server, tmp_path)
        edge.feed(*range(FIRST))
        assert edge.daemon.poll() is False
        yield edge
        edge.stop()


def test_undisturbed_it_stores_what_the_detector_finds(edge: Edge) -> None:
    edge.live(*range(FIRST, SLOTS))
    assert edge.stored() == edge.expected()


# --- a server that fails -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fail", "mend", "words"),
    [
        pytest.param(Influxd.kill, Influxd.start, "cannot be reached", id="crashed"),
        pytest.param(Influxd.stop, Influxd.start, "cannot be reached", id="stopped"),
        pytest.param(Influxd.pause, Influxd.resume, "did not answer within", id="hung"),
    ],
)
def test_a_server_that_is_away_loses_nothing_and_is_said_once(
    edge: Edge,
    fail: Callable[[Influxd], None],
    mend: Callable[[Influxd], None],
    words: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    edge.live(*range(FIRST, 18))
    caplog.clear()
    fail(edge.server)
    assert [edge.daemon.poll() for _ in range(3)] == [True] * 3
    assert len(said(caplog)) == 1
    assert words in said(caplog)[0]
    mend(edge.server)
    edge.live(*range(18, SLOTS))
    assert edge.stored() == edge.expected()
    assert [line for line in said(caplog) if "is reachable again" in line] == [
        f"InfluxDB at 127.0.0.1:{edge.port} is reachable again"
    ]


def test_a_server_that_is_away_at_the_start_is_waited_for(tmp_path: Path) -> None:
    with Influxd(tmp_path / "influxd") as server:
        edge = Edge(server, tmp_path)
        edge.feed(*range(FIRST))
        server.kill()
        assert [edge.daemon.poll() for _ in range(2)] == [True, True]
        server.start()
        assert edge.daemon.poll() is False
        edge.live(*range(FIRST, SLOTS))
        assert edge.stored() == edge.expected()
        edge.stop()


def test_anomalies_that_cannot_be_written_wait_in_order_over_a_restart(edge: Edge) -> None:
    edge.live(*range(FIRST, 17))
    # The write fails, the read does not: the records of the attack are judged before the server goes.
    edge.feed(17, 18, 19)
    edge.poll_without_sending()
    edge.server.kill()
    assert edge.store.depth == 3
    edge.start()
    assert edge.store.depth == 3
    assert edge.daemon.poll() is True
    edge.server.start()
    edge.live(*range(20, SLOTS))
    assert edge.store.depth == 0
    assert edge.stored() == edge.expected()


def test_what_goes_on_is_shown_before_the_first_good_poll(edge: Edge) -> None:
    edge.live(*range(FIRST, 21))
    edge.feed(21, 22)
    edge.poll_without_sending()
    edge.server.kill()
    edge.metrics = EdgeMetrics()
    edge.start()
    shown = {
        name: edge.metrics.registry.get_sample_value(f"find_anomalies_{name}")
        for name in ("spool_depth", "incident_open")
    }
    assert shown == {"spool_depth": 2, "incident_open": 1}


def test_a_daemon_that_restarts_at_every_slot_judges_as_one_that_never_did(
    edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    for slot in range(FIRST, SLOTS):
        edge.start()
        edge.live(slot)
    assert edge.stored() == edge.expected()
    assert len([line for line in said(caplog) if "incident opens" in line]) == 1
    assert len([line for line in said(caplog) if "incident closes" in line]) == 1


@pytest.mark.parametrize("restarts", [False, True])
def test_an_attack_that_comes_and_goes_is_one_incident_also_over_restarts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, restarts: bool
) -> None:
    with Influxd(tmp_path / "influxd") as server:
        edge = Edge(server, tmp_path, slots=COMES_AND_GOES_SLOTS, attacked=COMES_AND_GOES)
        edge.feed(*range(FIRST))
        assert edge.daemon.poll() is False
        for slot in range(FIRST, COMES_AND_GOES_SLOTS):
            if restarts:
                edge.start()
            edge.live(slot)
        expected = edge.expected(last=COMES_AND_GOES_SLOTS)
        assert edge.stored() == expected
        edge.stop()
    # Never four in a row: an attacked record and the one in which it ends, of three.
    assert Counter(severity for _, severity, _ in expected) == {"anomaly": 7, "alert": 7}
    incidents = [line for line in said(caplog) if "incident" in line]
    assert len(incidents) == 2
    assert "incident opens: cpu 99 % (expected " in incidents[0]
    assert f" since {format_time(expected[0][0])};" in incidents[1]
    # Both end with the same id.
    assert len({line.partition(" [")[2] for line in incidents}) == 1


def test_a_state_of_the_version_before_is_taken_up(edge: Edge, caplog: pytest.LogCaptureFixture) -> None:
    edge.live(*range(FIRST, 20))
    parts = edge.kept()
    # It had no parts, but one object.
    state = {"watched": parts["watched"], **state_of(parts)}
    del state["first_records"], state["monitor"]["judge"]["recent"], state["incidents"]["anomalies"]
    del state["monitor"]["judge"]["length"]
    state["incidents"]["row_began"] = edge.expected(last=20)[0][0]
    edge.keep(state)
    edge.start()
    edge.live(*range(20, SLOTS))
    assert edge.stored() == edge.expected()
    assert [line.split()[1:3] for line in said(caplog)] == [["incident", "opens:"], ["incident", "closes:"]]


def another_host(measurement: str, point: Point) -> Point:
    """An idle host with much free memory."""
    factor = {MEMORY_FREE: 5.0, CPU_SECONDS: 0.3}.get(measurement, 1.0)
    return point | {"value": point["value"] * factor}


@pytest.mark.parametrize("history", [2, 26])
def test_a_model_of_another_node_is_said_once_with_the_remedy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, history: int
) -> None:
    with Influxd(tmp_path / "influxd") as server:
        edge = Edge(server, tmp_path, attacked=())
        edge.feed(*range(history), change=another_host)
        assert edge.daemon.poll() is False
        # With a history it is said by the first poll.
        assert len([line for line in said(caplog) if "another node" in line]) == (history == 26)
        for slot in range(history, SLOTS):
            edge.start()
            edge.feed(slot, change=another_host)
            assert edge.daemon.poll() is False
        edge.stop()
    assert [line for line in said(caplog) if "another node" in line] == [
        "model/5g_edge_autoencoder.h5 seems to be another node's: nearly all of the first records that it"
        " judged are anomalies (cpu | mem); unless an attack is under way, collect normal data of this node"
        " and train on it (--mode collect, --mode train --evaluate)"
    ]


def test_an_attack_at_the_first_start_does_not_make_the_model_another_nodes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Influxd(tmp_path / "influxd") as server:
        edge = Edge(server, tmp_path, attacked=range(SLOTS))
        edge.feed(*range(SLOTS))
        assert edge.daemon.poll() is False
        edge.stop()
    assert any("incident opens: cpu" in line for line in said(caplog))
    assert not any("another node" in line for line in said(caplog))


def test_an_attack_while_the_daemon_was_stopped_is_in_the_database_afterwards(
    edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    edge.live(FIRST)
    edge.stop()
    edge.feed(*range(FIRST + 1, SLOTS))
    caplog.set_level(logging.INFO)
    edge.start()
    assert edge.daemon.poll() is False
    assert edge.stored() == edge.expected()
    caught_up = [line for line in said(caplog, logging.INFO) if line.startswith("caught up: 16 records from")]
    assert len(caught_up) == 1


def test_state_of_another_node_is_not_taken_up_but_what_it_kept_is_sent(
    edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    edge.keep(
        {"watched": "another"},
        [{"measurement": "other", "time": 1, "tags": {}, "fields": {"cpu_usage": 1.0}}],
    )
    edge.start()
    edge.live(*range(FIRST, SLOTS))
    assert "--state_dir belongs to another node, server or interval: judging starts over" in said(caplog)
    assert edge.stored() == edge.expected()
    assert list(edge.client.query("SELECT * FROM other").get_points())[0]["cpu_usage"] == 1.0


@pytest.mark.parametrize("status", [500, 503])
def test_a_server_that_answers_with_an_error_is_asked_again(
    edge: Edge, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    proxy = Proxy(edge.server.port)
    edge.port = proxy.port
    edge.start()
    edge.live(*range(FIRST, 18))
    caplog.clear()
    proxy.status = status
    assert [edge.daemon.poll() for _ in range(3)] == [True] * 3
    assert len(said(caplog)) == 1
    assert "answered with an error" in said(caplog)[0]
    proxy.status = None
    edge.live(*range(18, SLOTS))
    proxy.close()
    assert edge.stored() == edge.expected()


@pytest.mark.parametrize("content", [b"{}", b"[]", b"null", b'{"results": []}', b"<html></html>", b""])
def test_answers_that_are_not_influxdbs_are_a_fault_like_others(
    edge: Edge, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    proxy = Proxy(edge.server.port)
    edge.port = proxy.port
    edge.start()
    edge.live(FIRST)
    caplog.clear()
    proxy.status, proxy.content = 200, content
    assert [edge.daemon.poll() for _ in range(3)] == [True] * 3
    assert said(caplog) == [
        f"InfluxDB at 127.0.0.1:{edge.port} answered with an error (not an answer of InfluxDB);"
        " check --influx_db, --influx_measurement and the server's log"
    ]
    proxy.status = None
    edge.live(*range(14, SLOTS))
    proxy.close()
    assert edge.stored() == edge.expected()


def test_answers_slower_than_the_timeout_are_a_fault_and_no_record_is_lost(edge: Edge) -> None:
    proxy = Proxy(edge.server.port)
    edge.port = proxy.port
    edge.start()
    edge.live(*range(FIRST, 18))
    proxy.delay_seconds = 1.5
    edge.feed(18)
    assert edge.daemon.poll() is True
    proxy.delay_seconds = 0.0
    edge.live(*range(19, SLOTS))
    time.sleep(1.0)
    proxy.close()
    assert edge.stored() == edge.expected()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[tuple[Edge, InfluxDBClient]]:
    """A server that asks for a password, and its administrator."""
    with Influxd(tmp_path / "influxd", auth=True) as server:
        with connect(server) as first:
            first.query("CREATE USER root WITH PASSWORD 'first' WITH ALL PRIVILEGES", method="POST")
        with connect(server, username="root", password="first") as admin:
            admin.query("CREATE USER edge WITH PASSWORD 'secret' WITH ALL PRIVILEGES", method="POST")
            edge = Edge(server, tmp_path, "edge", "secret")
            edge.feed(*range(FIRST))
            assert edge.daemon.poll() is False
            yield edge, admin
            edge.stop()


def test_a_password_that_is_wrong_from_the_start_is_waited_for(
    guarded: tuple[Edge, InfluxDBClient], caplog: pytest.LogCaptureFixture
) -> None:
    edge, admin = guarded
    admin.query("SET PASSWORD FOR edge = 'other'", method="POST")
    edge.start()
    assert [edge.daemon.poll() for _ in range(3)] == [True] * 3
    assert said(caplog) == [
        f"InfluxDB at 127.0.0.1:{edge.port} refused the credentials; check --influx_user and --influx_pass"
    ]
    admin.query("SET PASSWORD FOR edge = 'secret'", method="POST")
    edge.live(*range(FIRST, SLOTS))
    assert edge.stored() == edge.expected()


def test_a_password_that_is_withdrawn_loses_nothing(
    guarded: tuple[Edge, InfluxDBClient], caplog: pytest.LogCaptureFixture
) -> None:
    edge, admin = guarded
    edge.live(*range(FIRST, 18))
    caplog.clear()
    edge.feed(18)
    admin.query("SET PASSWORD FOR edge = 'other'", method="POST")
    assert [edge.daemon.poll() for _ in range(3)] == [True] * 3
    assert said(caplog) == [
        f"InfluxDB at 127.0.0.1:{edge.port} refused the credentials; check --influx_user and --influx_pass"
    ]
    admin.query("SET PASSWORD FOR edge = 'secret'", method="POST")
    edge.live(*range(19, SLOTS))
    assert edge.stored() == edge.expected()


def test_a_right_to_write_that_is_withdrawn_loses_nothing(
    guarded: tuple[Edge, InfluxDBClient], caplog: pytest.LogCaptureFixture
) -> None:
    edge, admin = guarded
    edge.live(*range(FIRST, 16))
    edge.feed(*range(16, 20))
    admin.query("REVOKE ALL PRIVILEGES FROM edge", method="POST")
    admin.query("GRANT READ ON edge TO edge", method="POST")
    caplog.clear()
    assert [edge.daemon.poll() for _ in range(3)] == [True] * 3
    assert len([line for line in said(caplog) if "has no right to the database" in line]) == 1
    assert edge.store.depth == len(edge.expected(last=20))
    admin.query("GRANT ALL PRIVILEGES TO edge", method="POST")
    edge.live(*range(20, SLOTS))
    assert edge.stored() == edge.expected()


def test_a_database_of_before_to_which_the_user_has_no_right_holds_nothing_up(
    guarded: tuple[Edge, InfluxDBClient], caplog: pytest.LogCaptureFixture
) -> None:
    edge, admin = guarded
    admin.create_database("before")
    admin.query("REVOKE ALL PRIVILEGES FROM edge", method="POST")
    admin.query("GRANT ALL ON edge TO edge", method="POST")
    edge.store.add({}, {}, "before", waiting("detected_anomalies", [1, 2]))
    edge.live(*range(FIRST, 22))
    assert edge.stored() == edge.expected(last=22)
    assert said(caplog, logging.ERROR) == [
        "InfluxDB refuses anomalies (no right to the database before); check the user's rights and the"
        " server's log. Until then they wait in the spool"
    ]
    assert edge.store.refused == 2
    admin.query("GRANT ALL ON before TO edge", method="POST")
    edge.start()
    edge.live(*range(22, SLOTS))
    assert edge.stored() == edge.expected()
    assert len(list(admin.query("SELECT * FROM detected_anomalies", database="before").get_points())) == 2
    assert edge.store.depth == 0


def test_a_database_that_is_dropped_is_created_again_and_watching_goes_on(edge: Edge) -> None:
    edge.live(*range(FIRST, 15))
    edge.client.drop_database("edge")
    assert edge.daemon.poll() is True
    assert edge.daemon.poll() is False
    edge.live(*range(15, SLOTS))
    # What was before it is gone with the database, the counters' last values are not.
    assert edge.stored() == edge.expected()


# --- points that it refuses ------------------------------------------------------------------------


def waiting(measurement: str, moments: Iterable[int]) -> list[dict]:
    return [
        {"measurement": measurement, "time": moment, "tags": {}, "fields": {"cpu_usage": 1.0}}
        for moment in moments
    ]


def write_text(edge: Edge, measurement: str, moment: int) -> None:
    """InfluxDB holds a field to its first type within a shard."""
    edge.client.write_points([f'{measurement} cpu_usage="x" {moment}'], protocol="line")


def times_in(edge: Edge, measurement: str) -> list[int]:
    return [
        point["time"] for point in edge.client.query(f"SELECT * FROM {measurement}", epoch="ns").get_points()
    ]


REFUSED = (
    "InfluxDB refuses anomalies (detected_anomalies holds cpu_usage as string, not float); DROP MEASUREMENT"
    ' "detected_anomalies", or name another --influx_measurement. Until then they wait in the spool'
)


def test_a_point_that_influxdb_refuses_for_good_does_not_hold_the_others(
    edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    edge.live(*range(FIRST, 18))
    write_text(edge, "detected_anomalies", 1)
    bad = waiting("detected_anomalies", [2, 3])
    edge.store.add({}, {}, "edge", [bad[0], *waiting("good", range(1, 20)), bad[1]])
    edge.live(18)
    assert said(caplog, logging.ERROR) == [REFUSED]
    assert times_in(edge, "good") == list(range(1, 20))
    edge.live(*range(19, SLOTS))
    # Those of the attack are of another shard.
    assert edge.stored() == edge.expected()
    assert (edge.store.depth, edge.store.refused) == (2, 2)


def test_anomalies_of_a_measurement_that_holds_text_wait_until_it_is_dropped(
    edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    write_text(edge, "detected_anomalies", edge.begin * SECOND)
    edge.live(*range(FIRST, 18))
    edge.start()
    edge.live(18, 19)
    refused = len(edge.expected(last=20))
    assert (edge.store.depth, edge.store.refused) == (refused, refused)
    assert edge.metrics.registry.get_sample_value("find_anomalies_spool_refused") == refused
    # Once by each of the two processes.
    assert said(caplog, logging.ERROR) == [REFUSED] * 2
    edge.client.query('DROP MEASUREMENT "detected_anomalies"', method="POST")
    # The first that is taken shows that it is mended.
    edge.live(*range(20, SLOTS))
    assert edge.stored() == edge.expected()
    assert edge.store.depth == 0
    assert said(caplog).count("InfluxDB accepts all anomalies again") == 1
    assert edge.metrics.registry.get_sample_value("find_anomalies_spool_refused") == 0


def test_that_refused_anomalies_were_dropped_is_not_called_taken(
    edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    edge.spool_limit = 2
    edge.start()
    edge.store.add({}, {}, "edge", waiting("detected_anomalies", [2, 3]))
    write_text(edge, "detected_anomalies", 1)
    edge.live(FIRST)
    assert edge.store.refused == 2
    caplog.clear()
    # Those of the attack are of another shard; two of the three take the room of the refused ones.
    edge.feed(*range(14, 19))
    assert edge.daemon.poll() is False
    assert (edge.store.depth, edge.store.dropped) == (0, 3)
    spool = [line for line in said(caplog) if "anomal" in line and "incident" not in line]
    assert spool == [
        "the spool is full: its oldest anomalies are dropped, see --spool_limit",
        "no refused anomaly waits any more; the oldest anomalies of the spool were dropped",
        "InfluxDB has all anomalies but the 3 oldest, which were dropped",
    ]


def test_refused_anomalies_go_to_another_measurement_once_one_is_named(edge: Edge) -> None:
    write_text(edge, "detected_anomalies", edge.begin * SECOND)
    edge.live(*range(FIRST, 19))
    edge.measurement = "other"
    edge.start()
    edge.live(*range(19, SLOTS))
    assert times_in(edge, "other") == [moment for moment, _, _ in edge.expected()]
    assert edge.store.depth == 0


def test_refused_points_are_tried_again_in_batches_and_taken_without_a_new_anomaly(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge.refused_retry_seconds = 0.0
    sizes = []

    def spied(client: InfluxDBClient, database: str, points: list) -> influx_utils.Refusal | None:
        sizes.append(len(points))
        return write_points(client, database, points)

    write_points = influx_utils.write_points
    monkeypatch.setattr(influx_utils, "write_points", spied)
    write_text(edge, "detected_anomalies", 1)
    edge.start()
    edge.store.add({}, {}, "edge", waiting("detected_anomalies", range(2, 2002)))
    edge.live(FIRST)
    edge.live(14)
    assert sizes == [500] * 12
    assert edge.store.refused == 2000
    edge.client.query('DROP MEASUREMENT "detected_anomalies"', method="POST")
    edge.live(15)
    assert times_in(edge, "detected_anomalies") == list(range(2, 2002))
    assert edge.store.depth == 0


def test_anomalies_older_than_the_retention_policy_are_dropped_and_the_others_stored(
    edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    edge.client.query(
        'ALTER RETENTION POLICY "autogen" ON "edge" DURATION 1h SHARD DURATION 1h', method="POST"
    )
    now = edge.begin * SECOND
    moments = [now, 1, now + 1, 2, now + 2, *range(3, 700)]
    edge.store.add({}, {}, "edge", waiting("other", moments))
    edge.live(*range(FIRST, SLOTS))
    assert times_in(edge, "other") == [now, now + 1, now + 2]
    assert edge.stored() == edge.expected()
    assert edge.store.depth == 0
    assert edge.metrics.registry.get_sample_value("find_anomalies_refused_points_total") == 699
    assert said(caplog, logging.ERROR) == [
        "InfluxDB refuses anomalies that are older than the retention policy of edge allows; they are"
        " dropped: lengthen that policy, or check the samples' clock"
    ]


# --- a spool or a state that is damaged, or gone ---------------------------------------------------


def in_file(edge: Edge, statement: str, *values: object) -> None:
    edge.stop()
    with contextlib.closing(sqlite3.connect(edge.store.path)) as file, file:
        file.execute(statement, values)


@pytest.mark.parametrize(
    ("database", "content"),
    [
        pytest.param("edge", '{"measurement": "detected_ano', id="cut"),
        pytest.param("edge", b'{"measurement": "\xff"}', id="no UTF-8"),
        pytest.param(None, "{}", id="no database"),
        # InfluxDB alone knows that a tag must not end so.
        pytest.param(
            "edge",
            json.dumps({"measurement": "m", "time": 1, "tags": {"a": "\\"}, "fields": {"a": 1.0}}),
            id="unreadable for InfluxDB",
        ),
    ],
)
def test_a_damaged_row_of_the_spool_is_set_aside_and_said_once(
    edge: Edge, database: object, content: object, caplog: pytest.LogCaptureFixture
) -> None:
    edge.live(*range(FIRST, 16))
    edge.store.add({}, {}, "edge", waiting("other", [1, 2]))
    in_file(edge, "INSERT INTO spool (database, point) VALUES (?, ?)", database, content)
    edge.start()
    edge.store.add({}, {}, "edge", waiting("other", [3]))
    edge.live(*range(16, SLOTS))
    (line,) = said(caplog, logging.ERROR)
    assert line.startswith(
        f"{edge.store.path}: 1 damaged rows of the spool were moved to its table 'damaged' ("
    )
    assert line.endswith("all others are sent; look at them with sqlite3, and check the disk")
    assert times_in(edge, "other") == [1, 2, 3]
    assert edge.stored() == edge.expected()
    assert edge.store.depth == 0
    assert edge.metrics.registry.get_sample_value("find_anomalies_spool_damaged_total") == 1


@pytest.mark.parametrize(
    "damage",
    [
        {"reader": 5},
        {"reader": {}},
        {"incidents": []},
        {"incidents": {"open": 5, "quiet": 0, "row_began": 0}},
        {"incidents": {"open": {"began": 1, "causes": [], "peaks": {}}, "quiet": 0, "row_began": 0}},
        {"incidents": {"open": None, "quiet": "0", "row_began": 0}},
        {"drift": {"drifting": [5], "over": {}}},
        {"drift": {"drifting": [], "over": {"cpu": 5}}},
        {"reader.judged_before": "5"},
        {"reader.judged_before": 1e300},
        {"reader.newest": True},
        {"selection": ["a"]},
        {"reader.clock_offset_ns": 0.5},
        {"last_record": {"rx_cpu_time": 5}},
        {"last_record": {"rx_cpu_time": [{"time": 1}]}},
        {"last_record": {"rx_cpu_time": [{"time": 1, "value": "x"}]}},
        {"judge": {"length": "no", "anomalies": 0, "unknowns": 0, "last_slot": 1}},
        {"judge": {"length": 0, "anomalies": None, "unknowns": 0, "last_slot": 1}},
        {"judge": {"length": 0, "anomalies": 0, "unknowns": 0, "last_slot": "1"}},
        {"judge.length": 58},
        {"newest row": [1, []]},
        {"newest row": 5},
    ],
    ids=str,
)
def test_a_damaged_state_is_not_taken_up_in_parts(
    edge: Edge, damage: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    edge.live(*range(FIRST, 20))
    state = edge.kept()
    for key, value in damage.items():
        part, _, inner = key.partition(".")
        part = part.replace("newest row", f"row {state['judge']['last_slot'] % SCORE_RECORDS}")
        state[part] = {**state[part], inner: value} if inner else value
    edge.keep(state)
    caplog.clear()
    edge.start()
    (line,) = said(caplog)
    assert line.startswith("--state_dir holds no state of this node (")
    assert line.endswith("; judging starts over")
    watch = edge.daemon.watch
    shown = (watch.incidents.is_open, watch.drift.drifting, watch.monitor.reader.newest_sample)
    assert shown == (False, [], None)
    edge.live(*range(20, SLOTS))
    assert edge.stored() == edge.expected()


@pytest.mark.parametrize("content", ["[]", '{"watched": ', b"\xff", None], ids=str)
def test_a_state_that_is_none_is_said_and_judging_begins_anew(
    edge: Edge, content: object, caplog: pytest.LogCaptureFixture
) -> None:
    in_file(edge, "UPDATE state SET content = ?", content)
    edge.start()
    (line,) = said(caplog)
    assert line.endswith("; judging starts over")
    edge.live(*range(FIRST, SLOTS))
    assert edge.stored() == edge.expected()


@pytest.mark.parametrize("thresholds", [None, [], {"cpu_threshold": "x"}, 5])
def test_damaged_thresholds_in_the_state_are_none_to_fall_back_on(edge: Edge, thresholds: object) -> None:
    edge.live(FIRST)
    edge.keep(edge.kept() | {"thresholds": thresholds})
    edge.thresholds_file.write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        edge.start()


def test_a_state_folder_that_is_deleted_is_made_again_at_the_next_poll(
    edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    edge.live(*range(FIRST, 18))
    edge.store.add({}, {}, "edge", waiting("other", [1]))
    shutil.rmtree(edge.folder / "state")
    edge.live(18)
    name = edge.store.path
    assert said(caplog)[-2:] == [
        f"{name}, or its log, was deleted",
        f"{name} was made again, with all that was in it",
    ]
    caplog.clear()
    edge.start()
    edge.live(*range(19, SLOTS))
    assert not any("starts over" in line for line in said(caplog))
    assert edge.stored() == edge.expected()
    assert times_in(edge, "other") == [1]


def test_a_state_folder_that_cannot_be_made_again_is_said_once_and_watching_goes_on(
    edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    edge.live(*range(FIRST, 15))
    folder = edge.folder / "state"
    shutil.rmtree(folder)
    folder.write_text("in its place")
    caplog.clear()
    edge.live(15, 16, 17)
    assert [line for line in said(caplog) if "was deleted" in line] == [
        f"{edge.store.path}: was deleted and cannot be made again (File exists); remove what is in its way."
        " Until then a crash loses what InfluxDB does not have yet"
    ]
    folder.unlink()
    edge.live(18)
    assert said(caplog)[-1] == f"{edge.store.path} was made again, with all that was in it"
    edge.start()
    edge.live(*range(19, SLOTS))
    assert edge.stored() == edge.expected()


def test_a_picture_after_a_restart_begins_where_the_alert_did(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def draw(drawings: list[Drawing]) -> None:
        for one in drawings:
            assert one.folder == edge.folder
            drawn.extend((alert, alert.records_of(one.read_verdicts())) for alert in one.alerts)

    monkeypatch.setattr("edge.pictures.draw_alerts", draw)
    edge.plot_dir = str(edge.folder)
    edge.start()
    edge.live(*range(FIRST, 21))
    edge.start()
    edge.live(21, 22)
    edge.start()
    edge.live(*range(23, SLOTS))
    ((alert, records),) = drawn
    anomalies = [time for time, _, _ in edge.expected()]
    assert alert.first_anomaly == anomalies[0]
    assert alert.causes == ("cpu",)
    # From the first record that was judged for its own sake to the one that ends the alert, none left out.
    slots = [(record.time // SECOND - edge.begin) // INTERVAL for record in records]
    assert slots == list(range(FIRST - 1, slots[-1] + 1))
    assert records[-1].time == alert.end > anomalies[-1]
    assert [record.time for record in records if record.is_anomaly] == anomalies


# --- a disk that is full, a spool that is ----------------------------------------------------------


def test_a_full_disk_stops_nothing_and_is_said_once(edge: Edge, caplog: pytest.LogCaptureFixture) -> None:
    edge.live(*range(FIRST, 17))
    caplog.clear()
    # As a full disk answers; the state is longer than what is left.
    edge.store._database.execute("VACUUM")
    edge.store._database.execute("PRAGMA max_page_count = 1")
    edge.live(*range(17, 20))
    assert len([line for line in said(caplog) if "cannot be written" in line]) <= 1
    edge.store._database.execute("PRAGMA max_page_count = 1000000")
    edge.live(*range(20, SLOTS))
    assert edge.stored() == edge.expected()


def test_a_full_spool_drops_the_oldest_and_says_how_many(
    edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    edge.spool_limit = 3
    edge.start()
    edge.feed(*range(FIRST, SLOTS))
    edge.poll_without_sending()
    expected = edge.expected()
    assert (edge.store.depth, edge.store.dropped) == (3, len(expected) - 3)
    assert any("the spool is full" in line for line in said(caplog))
    edge.daemon.poll()
    assert edge.stored() == expected[-3:]
    assert said(caplog)[-1] == (
        f"InfluxDB has all anomalies but the {len(expected) - 3} oldest, which were dropped"
    )


# --- what the samples may hold ---------------------------------------------------------------------


def unknown_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line for line in said(caplog) if line.startswith("unknown: ")]


def without_rx(name: str, point: Point) -> Point | None:
    return None if name == RX_CPU else point


def without_one_cpu(name: str, point: Point) -> Point | None:
    return None if point.get("cpu") == "1" else point


def rx_is(value: float) -> Change:
    return lambda name, point: point | {"value": value} if name == RX_CPU else point


def rx_is_stale(name: str, point: Point) -> Point:
    # A dead exporter's last sample is sent again and again.
    old = (int(time.time()) // INTERVAL * INTERVAL - SLOTS * INTERVAL) * SECOND
    return point | {"time": old, "value": 5.0} if name == RX_CPU else point


@pytest.mark.parametrize(
    ("change", "line"),
    [
        pytest.param(without_rx, "unknown: cpu_rx (no sample of rx_cpu_time)", id="measurement"),
        pytest.param(
            without_one_cpu, "unknown: cpu (no sample of node_cpu_seconds_total{cpu=1})", id="series"
        ),
        pytest.param(rx_is_stale, "unknown: cpu_rx (no sample of rx_cpu_time)", id="stale"),
        # InfluxDB drops what is no number.
        pytest.param(rx_is(math.nan), "unknown: cpu_rx (no sample of rx_cpu_time)", id="NaN"),
    ],
)
def test_a_series_that_is_missing_is_unknown_and_said_once(
    edge: Edge, change: Change, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    edge.live(FIRST)
    caplog.clear()
    for slot in (14, 15):
        edge.feed(slot, change=change)
        edge.daemon.poll()
    # Whether slot 15 lacks it is known once the others are half a slot further.
    edge.feed(16)
    edge.daemon.poll()
    edge.live(17, 18)
    assert unknown_lines(caplog) == [line]
    assert [line for line in said(caplog) if "known again" in line] == ["all metrics are known again"]
    assert edge.store.depth == 0


def test_a_measurement_that_never_was_there_is_unknown_and_the_others_are_judged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Influxd(tmp_path / "influxd") as server:
        edge = Edge(server, tmp_path)
        edge.feed(*range(FIRST), change=without_rx)
        for slot in range(FIRST, SLOTS):
            edge.feed(slot, change=without_rx)
            assert edge.daemon.poll() is False
        assert unknown_lines(caplog) == ["unknown: cpu_rx (no sample of rx_cpu_time)"]
        assert edge.stored() == edge.expected()
        edge.stop()


def huge(name: str, point: Point) -> Point:
    # Their sums and differences are infinite; InfluxDB takes no infinity itself.
    return point | {"value": -1.7e308 if point.get("cpu") == "1" else 1.7e308}


def zero(name: str, point: Point) -> Point:
    return point | {"value": 0.0}


@pytest.mark.parametrize("change", [huge, zero])
def test_numbers_at_the_end_of_their_range_stop_nothing_and_store_nothing_but_numbers(
    edge: Edge, change: Change, caplog: pytest.LogCaptureFixture
) -> None:
    edge.live(FIRST, 14)
    for slot in (15, 16):
        edge.feed(slot, change=change)
        assert edge.daemon.poll() is False
    edge.live(17, 18, 19)
    assert edge.store.depth == 0
    assert said(caplog, logging.ERROR) == []
    for point in edge.client.query('SELECT * FROM "detected_anomalies"').get_points():
        assert all(math.isfinite(value) for value in point.values() if isinstance(value, float))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_counters_that_begin_anew_are_no_alert_and_wrong_for_two_records_at_most(
    edge: Edge, share: float
) -> None:
    counters = (CPU_SECONDS, RECEIVED, TRANSMITTED)
    # They began anew after this share of the time between two scrapes.
    zeros = {}
    for slot, weight in ((FIRST, 1 - share), (14, share)):
        for name, point in edge.in_slots(slot, slot):
            key = (name, *series_tags(point))
            zeros[key] = zeros.get(key, 0.0) + weight * point["value"]

    def rebooted(name: str, point: Point) -> Point:
        zero = zeros[name, *series_tags(point)]
        return point | {"value": point["value"] - zero} if name in counters else point

    edge.live(FIRST)
    for slot in range(14, SLOTS):
        edge.feed(slot, change=rebooted)
        assert edge.daemon.poll() is False
    hidden = range((edge.begin + 14 * INTERVAL) * SECOND, (edge.begin + 16 * INTERVAL) * SECOND)
    stored = edge.stored()
    # What was counted before the reset is hidden: of all of it that record looks too quiet, and the next one
    # rises from there.
    # The attack begins with the record after these; its alert may come the sooner for them.
    after = [(moment, cause) for moment, _, cause in stored if moment not in hidden]
    assert after == [(moment, cause) for moment, _, cause in edge.expected()]
    most = 0 if share == 0.0 else 2
    wrong = [severity for moment, severity, _ in stored if moment in hidden]
    assert wrong in [["anomaly"] * count for count in range(most + 1)]


@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_that_steps_by_an_hour_stops_nothing(
    edge: Edge, hours: int, caplog: pytest.LogCaptureFixture
) -> None:
    # As if all that was judged so far had come with times that are wrong by an hour.
    parts = edge.kept()
    state = {"watched": parts["watched"], **state_of(parts)}
    state["monitor"]["judged_before"] += hours * 3600 * SECOND
    state["monitor"]["judge"]["last_slot"] += hours * 3600 // INTERVAL
    edge.keep(state)
    edge.start()
    edge.live(*range(FIRST, SLOTS))
    went_back = [line for line in said(caplog) if "the samples' clock went back by " in line]
    assert len(went_back) == (hours > 0)
    # What came while nobody could know that the clock had stepped is judged too.
    assert edge.stored() == edge.expected()


def test_without_any_sample_the_silence_is_said_once_and_nothing_is_normal(
    edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    caplog.clear()
    for _ in range(6):
        edge.now += INTERVAL
        assert edge.daemon.poll() is False
    lines = said(caplog, logging.INFO)
    assert len(lines) == 1
    assert lines[0].startswith("unknown: no new record since ")
    edge.live(*range(FIRST, SLOTS))
    assert edge.stored() == edge.expected()


def test_samples_that_come_twice_and_out_of_order_change_nothing(edge: Edge) -> None:
    for slot in range(FIRST, SLOTS):
        edge.feed(slot)
        edge.feed(slot)
        edge.daemon.poll()
        edge.feed(slot - 1)
        edge.daemon.poll()
    assert edge.stored() == edge.expected()


def test_an_empty_database_is_waited_in(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Influxd(tmp_path / "influxd") as server:
        edge = Edge(server, tmp_path)
        assert [edge.daemon.poll() for _ in range(4)] == [False] * 4
        assert said(caplog) == ["unknown: no recent sample of this node in the database"]
        edge.feed(*range(FIRST))
        edge.live(*range(FIRST, SLOTS))
        assert edge.stored() == edge.expected()
        edge.stop()


# --- files that people change ----------------------------------------------------------------------


def edit(edge: Edge, **changes: object) -> None:
    content = json.loads(edge.thresholds_file.read_text()) | changes
    edge.thresholds_file.write_text(json.dumps(content))


def test_an_edit_of_the_thresholds_counts_from_the_next_poll_and_is_said(
    edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    before = json.loads(edge.thresholds_file.read_text())
    edge.live(*range(FIRST, 16))
    caplog.clear()
    edit(edge, cpu_threshold=1000, overall_threshold=1000, mem_threshold=before["mem_threshold"])
    edge.live(16, 17, 18)
    name = edge.thresholds_file
    assert said(caplog) == [
        f"{name}: cpu_threshold changed from {before['cpu_threshold']:g} to 1000",
        f"{name}: overall_threshold changed from {before['overall_threshold']:g} to 1000",
    ]
    assert [time for time, _, _ in edge.stored() if time >= (edge.begin + 16 * INTERVAL) * SECOND] == []
    edit(edge, cpu_threshold=before["cpu_threshold"])
    edge.live(19)
    assert edge.stored()[-1][2] == "cpu"


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        pytest.param('{"cpu_threshold": 0.1,\n "mem', "line 2: not valid JSON", id="half saved"),
        pytest.param('{"cpu_treshold": 0.1}', "unknown key 'cpu_treshold'; the keys are", id="unknown key"),
        pytest.param('{"cpu_threshold": "high"}', 'cpu_threshold is "high"; it must be a number', id="text"),
        pytest.param(
            '{"cpu_threshold": -1}', "cpu_threshold is -1; it must be a number, 0 or more", id="negative"
        ),
        pytest.param("", "line 1: not valid JSON", id="empty"),
        pytest.param(None, "no such file; check the path", id="deleted"),
    ],
)
def test_a_broken_edit_keeps_the_last_good_thresholds_and_is_said_once(
    edge: Edge, broken: str | None, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    good = edge.thresholds_file.read_text()
    edge.live(*range(FIRST, 15))
    caplog.clear()
    edge.thresholds_file.unlink() if broken is None else edge.thresholds_file.write_text(broken)
    edge.live(15, 16, 17)
    faults = said(caplog, logging.ERROR)
    assert len(faults) == 1
    assert words in faults[0]
    assert faults[0].startswith(str(edge.thresholds_file))
    assert faults[0].endswith("Until then the last good thresholds stay in force")
    edge.thresholds_file.write_text(good)
    edge.live(*range(18, SLOTS))
    assert [line for line in said(caplog) if "can be read again" in line] == [
        f"{edge.thresholds_file} can be read again"
    ]
    assert edge.stored() == edge.expected()


def become(path: Path, kind: str) -> None:
    """Another file takes the place of this one."""
    path.unlink(missing_ok=True)
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.touch()
        os.truncate(path, 10**9)


@pytest.mark.parametrize("kind", ["FIFO", "device", "1 GB"])
def test_thresholds_that_become_no_usable_file_stop_nothing_and_are_said_once(
    edge: Edge, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    good = edge.thresholds_file.read_text()
    proposed = proposals_path(edge.thresholds_file)
    edge.live(*range(FIRST, 15))
    caplog.clear()
    for path in (edge.thresholds_file, proposed):
        become(path, kind)
    with little_memory(10_000_000):
        edge.live(15, 16, 17)
    words = {"FIFO": "it is a FIFO", "device": "it is a device", "1 GB": "it is larger than 1 MB"}[kind]
    (fault,) = said(caplog, logging.ERROR)
    assert fault.startswith(f"{edge.thresholds_file}: cannot be read: {words}; put ")
    assert fault.endswith("Until then the last good thresholds stay in force")
    (warning,) = [line for line in said(caplog) if line.startswith(str(proposed))]
    assert warning.endswith("delete the file: all thresholds then count as set by a person")
    for path in (edge.thresholds_file, proposed):
        path.unlink()
        path.write_text(good)
    edge.live(*range(18, SLOTS))
    mended = [line for line in said(caplog) if "can be read again" in line]
    assert mended == [f"{path} can be read again" for path in (edge.thresholds_file, proposed)]
    assert edge.stored() == edge.expected()


def test_thresholds_of_another_model_are_said_once_and_shown(
    edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    def is_shown() -> float | None:
        return edge.metrics.registry.get_sample_value("find_anomalies_foreign_thresholds")

    edge.live(FIRST)
    assert is_shown() == 0
    # As a training leaves it that is killed before --evaluate.
    values = json.loads(edge.thresholds_file.read_text())
    proposed = proposals_path(edge.thresholds_file)
    proposed.write_text(json.dumps({"model": "of yesterday", "proposed": values}))
    caplog.clear()
    edge.live(14, 15)
    words = "has thresholds that were proposed for another model than model/5g_edge_autoencoder.h5 (all)"
    line = f"{edge.thresholds_file}: {words}; run --mode train --evaluate, or set them by hand"
    assert said(caplog) == [line]
    assert is_shown() == 1
    edge.start()
    edge.live(16)
    assert said(caplog).count(line) == 2
    update_thresholds(edge.thresholds_file, values, edge.daemon.watch.bundle.identity)
    edge.live(17, 18)
    over = f"{edge.thresholds_file}: no threshold of another model is in force any more"
    assert said(caplog).count(over) == 1
    assert is_shown() == 0


@pytest.mark.parametrize("part", ["model", "litert", "identity", "stats"])
def test_a_bundle_of_which_a_file_becomes_a_fifo_goes_on_judging(part: str, tmp_path: Path) -> None:
    for suffix in (".h5", ".tflite", ".json"):
        shutil.copy(ROOT / f"model/5g_edge_autoencoder{suffix}", tmp_path / f"copy{suffix}")
    shutil.copy(ROOT / "data/normalization_stats.json", tmp_path / "copy_normalization_stats.json")
    paths = bundle_paths(tmp_path / "copy.h5")
    watched = WatchedFiles(list(vars(paths).values()), lambda: load_bundle(paths.model))
    good = watched.content
    path = getattr(paths, part)
    path.rename(tmp_path / "aside")
    os.mkfifo(path)
    for _ in range(2):
        with pytest.raises(UserError, match=f"^{path}: cannot be read: it is a FIFO; put [^\n]*$"):
            watched.refresh()
    assert watched.content is good
    path.unlink()
    (tmp_path / "aside").rename(path)
    # The very same files as before.
    assert watched.refresh() is False


def test_another_bundle_judges_from_the_next_poll_and_a_mixture_never(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = tmp_path / "model/copy.h5"
    model.parent.mkdir()
    shipped = Path(DEFAULT_MODEL)
    for suffix in (".h5", ".tflite", ".json"):
        shutil.copy(shipped.with_suffix(suffix), model.with_suffix(suffix))
    stats = model.with_name("copy_normalization_stats.json")
    shutil.copy(ROOT / "data/normalization_stats.json", stats)
    with Influxd(tmp_path / "influxd") as server:
        edge = Edge(server, tmp_path)
        edge.model = model
        edge.start()
        edge.feed(*range(FIRST))
        edge.daemon.poll()
        edge.live(13, 14)
        caplog.clear()
        good = stats.read_text()
        stats.write_text(json.dumps(json.loads(good) | {"mem_rate_max": 99.0}))
        edge.live(15, 16)
        faults = said(caplog, logging.ERROR)
        assert len(faults) == 1
        assert "does not belong to" in faults[0]
        assert faults[0].endswith("Until then the last good model stays in use")
        stats.write_text(good)
        edge.live(17, 18, 19)
        assert f"{model} can be used again" in said(caplog)
        assert edge.stored() == edge.expected(last=20)
        # A training that knew the CPU at all its loads.
        wide = {
            f"cpu_user_{kind}_{end}": 200.0 * sign for kind in ("rate", "percentage") for end, sign in ENDS
        }
        text = json.dumps(json.loads(good) | wide, sort_keys=True)
        stats.write_text(text)
        identity = json.loads(model.with_suffix(".json").read_text())
        # Its habits would still know that the CPU was never so busy.
        del identity["habits"]
        identity["sha256"]["stats"] = hashlib.sha256(text.encode()).hexdigest()
        model.with_suffix(".json").write_text(json.dumps(identity))
        edge.live(*range(20, SLOTS))
        assert said(caplog).count(f"{model}: a new model is in use from now on") == 2
        assert edge.stored() == edge.expected(last=20)
        edge.stop()


def test_broken_thresholds_at_a_restart_leave_the_last_good_ones_in_force(
    edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    edit(edge, cpu_threshold=0.2)
    edge.live(FIRST)
    edge.thresholds_file.write_text('{"cpu_threshold": 0.2')
    caplog.clear()
    edge.start()
    edge.live(14, 15)
    (fault,) = said(caplog, logging.ERROR)
    assert fault.endswith("Until then the last good thresholds stay in force")
    assert edge.daemon.watch.thresholds["cpu_threshold"] == 0.2
    shutil.copy(ROOT / "data/thresholds.json", edge.thresholds_file)
    edge.live(*range(16, SLOTS))
    assert edge.stored() == edge.expected()


# --- calm ----------------------------------------------------------------------------------------


def test_an_incident_is_said_when_it_opens_and_when_it_closes(
    edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    edge.live(*range(FIRST, SLOTS))
    changes = said(caplog)
    assert len(changes) == 2
    assert "incident opens: cpu" in changes[0]
    assert "incident closes: cpu" in changes[1]
    per_poll = [record for record in caplog.records if record.levelno == logging.INFO]
    # One line a poll, and the first of the daemon itself.
    assert len(per_poll) <= (SLOTS - FIRST) + 2


def test_a_metric_over_its_threshold_most_of_the_time_is_drift_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Influxd(tmp_path / "influxd") as server:
        edge = Edge(server, tmp_path)
        edge.drift_seconds = 6 * INTERVAL
        edge.start()
        edge.feed(*range(FIRST))
        edge.daemon.poll()
        edge.live(*range(FIRST, 24))
        drifts = [line for line in said(caplog) if line.startswith("drift: cpu ")]
        assert len(drifts) == 1
        assert "--mode collect, --mode train --evaluate" in drifts[0]
        # Its anomalies go on being stored.
        assert edge.stored() == edge.expected(last=24)
        edge.stop()
