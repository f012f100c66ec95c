"""The polling of test mode: a real database, a clock that a test sets, a judge that only takes notes."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from influxdb import InfluxDBClient

from common.alerts import ALERT, ANOMALY, NORMAL, UNKNOWN
from common.files import UserError
from edge.detector import Verdict, describe_unknown, describe_verdict
from edge.incidents import Alert
from edge.monitor import Monitor
from edge.pictures import Drawing, draw_alerts
from edge.samples import InfluxSource
from edge.selection import NO_SAMPLE
from edge.timing import seconds_to_next_poll
from influx_utils import INFLUX_ERRORS
from lab.influxd import Influxd
from nodes.metrics import (
    CPU_SECONDS,
    DOWNLINK,
    MEMORY_FREE,
    MEMORY_TOTAL,
    METRICS,
    RECEIVED,
    RX_CPU,
    TRANSMITTED,
    TX_CPU,
    UPLINK,
    getAnomalyColumns,
)
from nodes.node import DEFAULT_NODE, Node
from nodes.series import Record
from tests.support.influx import Database, asked_by, connect, own
from tests.support.metrics import NODE_MEASUREMENTS, RAN_MEASUREMENTS
from tests.support.prometheus_writer import write_samples

SECOND = 10**9
INTERVAL = 15.0
# Slot 20 is the one in which the test runs, and all that it needs is within the history of a first poll.
NOW_SLOT = 20
CATCH_UP_SECONDS = 1800.0
# A poll comes a third of a slot after the end of one.
LATER = 1 / 3
RAN_SERIES = ["dl_bitrate{cellId=2}", "ul_bitrate{cellId=2}", "rx_cpu_time", "tx_cpu_time"]
NODE_SERIES = [
    "node_cpu_seconds_total{cpu=0}",
    "node_cpu_seconds_total{cpu=1}",
    "node_network_receive_bytes_total{device=enp1s0}",
    "node_network_receive_bytes_total{device=enp0s20u1}",
    "node_network_receive_bytes_total{device=ppp0}",
    "node_network_transmit_bytes_total{device=enp1s0}",
    "node_network_transmit_bytes_total{device=enp0s20u1}",
    "node_network_transmit_bytes_total{device=ppp0}",
    "node_memory_MemFree_bytes",
]


class Judge:
    """Notes what it is shown, and calls the records of some slots anomalies."""

    def __init__(self, anomalies: Callable[[int], bool]) -> None:
        self.seen: list[tuple[int, dict[str, float]]] = []
        self._is_anomaly = anomalies
        self.forgotten = 0

    def forget(self) -> None:
        self.forgotten += 1

    def state(self, since: int | None = None) -> list[int]:
        return [time for time, _ in self.seen]

    def restore(self, state: list[int]) -> None:
        self.seen = [(time, {}) for time in state]

    def observe(self, time: int, columns: dict[str, float]) -> Verdict:
        self.seen.append((time, columns))
        values = {name: columns[column] for column, name in METRICS.stored.items()}
        status = ANOMALY if self._is_anomaly(time) else NORMAL
        return Verdict(time, status, ("cpu", "mem") if status == ANOMALY else (), (), {}, values)


class Edge:
    """A node that is scraped into a database, and the Monitor that watches it; times count in slots."""

    def __init__(
        self,
        client: InfluxDBClient,
        anomalies: Collection[int] = (),
        interval: float = INTERVAL,
        node: Node = DEFAULT_NODE,
    ) -> None:
        self.client, self.own = client, own(client)
        self.interval = interval
        self.begin = self.now = time.time() // interval * interval - NOW_SLOT * interval
        self.judge = Judge(lambda time: self.slot(time) in anomalies)
        self.node = node
        self.restart()

    def restart(self, catch_up_seconds: float = CATCH_UP_SECONDS) -> None:
        """Another process takes the place of this one, with nothing but what it is given."""
        source = InfluxSource(self.own, "localhost:8086", "edge")
        self.monitor = Monitor(
            source, self.node, self.judge, self.interval, catch_up_seconds, clock=lambda: self.now
        )

    def at(self, slots: float) -> int:
        """Nanoseconds of a moment."""
        return (round(self.begin * 1000) + round(slots * self.interval * 1000)) * 1_000_000

    def slot(self, nanoseconds: int) -> int:
        return math.floor((nanoseconds / SECOND - self.begin) / self.interval)

    def samples(self, slot: int) -> Record:
        """What a slot's scrapes give; every quantity but the time advances by the same in each slot."""
        node = {"time": self.at(slot + 0.7), "instance": "edge:9100", "job": "node"}
        ran = {"time": self.at(slot + 0.94), "instance": "gnb:9099", "job": "ran"}
        cell = {**ran, "cellId": "2"}
        devices = ("enp1s0", "enp0s20u1", "ppp0")
        return {
            CPU_SECONDS: [
                {**node, "cpu": cpu, "mode": "user", "value": 9000 + slot * self.interval * share}
                for cpu, share in (("0", 0.25), ("1", 0.75))
            ],
            MEMORY_FREE: [{**node, "value": 3e9}],
            MEMORY_TOTAL: [{**node, "value": 4e9}],
            RECEIVED: [{**node, "device": name, "value": 1e6 + 1000 * slot} for name in devices],
            TRANSMITTED: [{**node, "device": name, "value": 1e6 + 2000 * slot} for name in devices],
            RX_CPU: [{**ran, "value": 13.5}],
            TX_CPU: [{**ran, "value": 5.5}],
            DOWNLINK: [{**cell, "value": 8000.0}],
            UPLINK: [{**cell, "value": 800.0}],
        }

    def scrape(self, *slots: int, without: Collection[str] = (), only: Collection[str] = ()) -> None:
        for slot in slots:
            samples = self.samples(slot)
            kept = set(only or samples) - set(without)
            write_samples(self.client, {name: samples[name] for name in samples if name in kept})

    def poll(self, slots: float) -> list[tuple[int, list[str]]]:
        """Poll at this moment: slot and missing series of each verdict."""
        self.now = self.begin + slots * self.interval
        return [(self.slot(judged.verdict.time), list(judged.faults)) for judged in self.monitor.poll()]

    @property
    def judged(self) -> list[int]:
        return [self.slot(time) for time, _ in self.judge.seen]

    def anomalies(self) -> list[dict[str, Any]]:
        """What is stored in InfluxDB."""
        return list(self.client.query('SELECT * FROM "detected_anomalies"', epoch="ns").get_points())

    def anomaly_slots(self) -> list[int]:
        return [self.slot(point["time"]) for point in self.anomalies()]


@pytest.fixture
def edge(database: Database) -> Edge:
    """Ten slots are in the database and judged; the next is slot 10."""
    edge = Edge(database.client)
    edge.scrape(*range(10))
    assert edge.poll(10 + LATER) == [(9, [])]
    return edge


# --- what is judged, and when --------------------------------------------------------------------


def test_a_poll_is_one_request(database: Database) -> None:
    edge = Edge(database.client)
    edge.scrape(*range(4))
    requested = asked_by(edge.own)
    for polls, slots in enumerate([2, 4, 4.4, 9], start=1):
        edge.poll(slots)
        assert len(requested) == polls
    assert edge.judged == [0, 1, 2, 3]


def test_the_first_poll_judges_the_history_and_gives_the_newest_verdict_alone(database: Database) -> None:
    edge = Edge(database.client, anomalies=range(20))
    edge.scrape(*range(-75, 20))
    assert edge.monitor.reader.newest_sample is None
    assert edge.poll(20 + LATER) == [(19, [])]
    # 65 slots back from the moment of the query, of which some seconds may have passed since.
    assert edge.judged == list(range(edge.judged[0], 20))
    assert edge.judged[0] in (-45, -44, -43)
    assert len(edge.monitor.history) == len(edge.judged) - 1
    assert edge.monitor.reader.newest_sample == edge.at(19.94)


def test_the_first_poll_of_an_empty_database_gives_nothing_and_the_next_is_a_first_one_still(
    database: Database,
) -> None:
    edge = Edge(database.client)
    assert edge.poll(4) == []
    assert edge.monitor.reader.newest_sample is None
    edge.scrape(*range(4))
    assert edge.poll(4 + LATER) == [(3, [])]
    assert edge.judged == [0, 1, 2, 3]


def test_a_slot_is_judged_once(edge: Edge) -> None:
    for slots in (10 + LATER, 10.9, 11.5, 40):
        assert edge.poll(slots) == []
    assert edge.judged == list(range(10))


@pytest.mark.parametrize("interval", [15.0, 5.0, 7.5])
def test_a_slot_is_judged_when_it_is_over(database: Database, interval: float) -> None:
    edge = Edge(database.client, interval=interval)
    edge.scrape(*range(4))
    assert edge.poll(4) == [(3, [])]
    edge.scrape(4)
    assert edge.poll(4.95) == []
    assert edge.poll(4.999) == []
    assert edge.poll(5) == [(4, [])]
    assert edge.judged == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("newer", "judged"), [(10.999, []), (11.0, [(10, [])])])
def test_a_newer_sample_shows_that_a_slot_is_over_though_the_clock_is_late(
    edge: Edge, newer: float, judged: list
) -> None:
    edge.scrape(10)
    free = edge.samples(10)[MEMORY_FREE][0]
    write_samples(edge.client, {MEMORY_FREE: [free | {"time": edge.at(newer)}]})
    assert edge.poll(3) == judged


def test_records_reach_the_judge_with_their_own_time_and_their_columns(edge: Edge) -> None:
    edge.scrape(10)
    edge.poll(11)
    moment, columns = edge.judge.seen[-1]
    # The RAN exporter is scraped later in a slot than the node exporter.
    assert moment == edge.at(10.94)
    assert {name: columns[name] for name in getAnomalyColumns()} == {
        "cpu_user_percentage": pytest.approx(50.0),
        "mem_percentage": 25.0,
        "bytes_received": 3000.0,
        "bytes_transmitted": 6000.0,
        "cpu_rx_percentage": 13.5,
        "cpu_tx_percentage": 5.5,
        "dl_bytes": 15_000.0,
        "ul_bytes": 1500.0,
    }
    assert columns["bytes_received_rate"] == 200.0
    assert columns["dl_bytes_rate"] == 1000.0
    assert columns["cpu_user_rate"] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(("next_slot", "received"), [(39, 30 * 3000.0), (40, math.nan)])
def test_nothing_is_computed_across_a_gap_of_a_window(next_slot: int, received: float, edge: Edge) -> None:
    edge.scrape(next_slot)
    edge.poll(next_slot + 1)
    assert edge.judged[-1] == next_slot
    assert edge.judge.seen[-1][1]["bytes_received"] == pytest.approx(received, nan_ok=True)


@pytest.mark.parametrize(
    ("measurement", "names"),
    [
        ("rx_cpu_time", ["rx_cpu_time"]),
        ("ul_bitrate", ["ul_bitrate{cellId=2}"]),
        ("node_memory_MemFree_bytes", ["node_memory_MemFree_bytes"]),
        ("node_cpu_seconds_total", ["node_cpu_seconds_total{cpu=0}", "node_cpu_seconds_total{cpu=1}"]),
    ],
)
def test_a_slot_that_lacks_a_series_waits_until_the_others_are_further_and_is_then_judged(
    edge: Edge, measurement: str, names: list[str]
) -> None:
    edge.scrape(10, without=[measurement])
    assert edge.poll(11 + LATER) == []
    edge.scrape(11)
    assert edge.poll(12) == [(10, names), (11, [])]


@pytest.mark.parametrize(("lag", "known"), [(3, []), (40, [])])
def test_samples_that_all_come_late_are_not_called_missing(edge: Edge, lag: float, known: list[str]) -> None:
    # The clock is far ahead of the samples, and of slot 11 only the node exporter's have come yet.
    edge.scrape(10)
    edge.scrape(11, only=NODE_MEASUREMENTS)
    assert edge.poll(11 + lag) == [(10, known)]
    edge.scrape(11, only=RAN_MEASUREMENTS)
    assert edge.poll(12 + lag) == [(11, known)]


def test_a_single_interface_that_is_missing_is_named(edge: Edge) -> None:
    received = edge.samples(10)[RECEIVED]
    edge.scrape(10, without=[RECEIVED])
    write_samples(edge.client, {RECEIVED: [p for p in received if p["device"] != "ppp0"]})
    edge.scrape(11)
    assert edge.poll(12) == [(10, ["node_network_receive_bytes_total{device=ppp0}"]), (11, [])]
    columns = edge.judge.seen[-2][1]
    assert math.isnan(columns["bytes_received_rate"])
    assert columns["bytes_transmitted"] == 6000.0


def test_the_total_memory_is_not_missed(edge: Edge) -> None:
    edge.scrape(10, without=[MEMORY_TOTAL])
    assert edge.poll(11) == [(10, [])]
    assert edge.judge.seen[-1][1]["mem_percentage"] == 25.0


def test_a_series_that_comes_while_its_slot_waits_makes_the_record_whole(edge: Edge) -> None:
    edge.scrape(10, without=RAN_MEASUREMENTS)
    assert edge.poll(11 + LATER) == []
    edge.scrape(10, only=RAN_MEASUREMENTS)
    assert edge.poll(11.5) == [(10, [])]
    assert edge.judge.seen[-1][1]["dl_bytes"] == 15_000.0


@pytest.mark.parametrize(
    ("measurements", "names", "known"),
    [
        (RAN_MEASUREMENTS, RAN_SERIES, "bytes_received"),
        (NODE_MEASUREMENTS, NODE_SERIES, "dl_bytes"),
    ],
)
def test_an_exporter_that_ends_is_named_in_every_verdict_and_its_old_values_are_not_reported(
    edge: Edge, measurements: tuple[str, ...], names: list[str], known: str
) -> None:
    edge.scrape(10, without=measurements)
    assert edge.poll(11 + LATER) == []
    edge.scrape(11, without=measurements)
    assert edge.poll(12 + LATER) == [(10, names)]
    edge.scrape(12, without=measurements)
    assert edge.poll(13 + LATER) == [(11, names)]
    # Now the other one has ended too: the clock tells after two polls without a new sample.
    assert edge.poll(14 + LATER) == []
    assert edge.poll(15 + LATER) == [(12, names)]
    for _, columns in edge.judge.seen[-3:]:
        unknown = {name for name in getAnomalyColumns() if math.isnan(columns[name])}
        assert len(unknown) == 4
        assert known not in unknown
    edge.scrape(13)
    assert edge.poll(15.5) == [(13, [])]


def test_nothing_is_judged_and_the_newest_sample_stays_when_all_exporters_end(edge: Edge) -> None:
    assert [edge.poll(slots) for slots in (11 + LATER, 12 + LATER, 40 + LATER)] == [[], [], []]
    assert edge.monitor.reader.newest_sample == edge.at(9.94)


def test_a_poll_after_missed_ones_judges_every_slot_in_order(edge: Edge) -> None:
    edge.scrape(14, 12, 10, 13, 11)
    edge.scrape(15, without=["tx_cpu_time"])
    assert edge.poll(16 + LATER) == [(10, []), (11, []), (12, []), (13, []), (14, [])]
    # After an outage, what lacks may still come for a while.
    assert [edge.poll(slots + LATER) for slots in (17, 18, 19)] == [[], [], []]
    assert edge.poll(20.1 + LATER) == [(15, ["tx_cpu_time"])]
    assert edge.judged == list(range(16))


def test_series_that_do_not_come_back_in_step_after_an_outage_are_waited_for(edge: Edge) -> None:
    edge.scrape(*range(10, 16), only=RAN_MEASUREMENTS)
    assert edge.poll(16 + LATER) == []
    edge.scrape(*range(10, 16), only=NODE_MEASUREMENTS)
    edge.scrape(16)
    assert edge.poll(17 + LATER) == [(slot, []) for slot in range(10, 17)]


def test_much_to_catch_up_is_read_in_parts_and_a_gap_in_it_is_passed_over(database: Database) -> None:
    edge = Edge(database.client)
    edge.begin -= 1000 * INTERVAL
    edge.scrape(*range(10))
    edge.restart(catch_up_seconds=10**6)
    edge.monitor.restore(edge.monitor.state() | {"judged_before": edge.at(0)})
    assert edge.poll(10 + LATER) == [(slot, []) for slot in range(10)]
    edge.scrape(*range(10, 300), *range(900, 910))
    found = edge.poll(910 + LATER)
    assert found == [(slot, []) for slot in range(10, 250)]
    polls = 1
    while edge.monitor.reader.has_more:
        found += edge.poll(910 + LATER)
        polls += 1
    assert found == [(slot, []) for slot in (*range(10, 300), *range(900, 910))]
    assert polls == 5


def test_a_slot_without_any_sample_is_passed_over(edge: Edge) -> None:
    edge.scrape(10, 12)
    assert edge.poll(13) == [(10, []), (12, [])]
    assert edge.judge.seen[-1][1]["bytes_received"] == 6000.0
    assert edge.judge.seen[-1][1]["bytes_received_rate"] == 200.0


def test_a_sample_from_the_future_waits_for_its_time(edge: Edge) -> None:
    edge.scrape(10, NOW_SLOT + 10)
    edge.scrape(11, without=RAN_MEASUREMENTS)
    assert edge.poll(11 + LATER) == [(10, [])]
    edge.scrape(11, only=RAN_MEASUREMENTS)
    assert edge.poll(12) == [(11, [])]
    assert edge.monitor.reader.newest_sample == edge.at(11.94)


def test_late_samples_of_judged_slots_change_nothing(edge: Edge) -> None:
    before = list(edge.judge.seen)
    for late in (9.999, 9.71, 8.5, 3.0):
        absurd = {
            name: [point | {"time": edge.at(late), "value": 1e12} for point in points]
            for name, points in edge.samples(9).items()
        }
        write_samples(edge.client, absurd)
    assert edge.poll(10.5) == []
    edge.scrape(10)
    assert edge.poll(11) == [(10, [])]
    assert edge.judge.seen[:-1] == before
    columns = edge.judge.seen[-1][1]
    assert columns["cpu_user_percentage"] == pytest.approx(50.0)
    assert columns["bytes_received"] == 3000.0
    assert columns["cpu_rx_rate"] == 0.0


def test_of_samples_that_arrive_out_of_order_the_newest_counts(edge: Edge) -> None:
    for moment, value in ((10.99, 14.25), (10.05, 1.0), (10.95, 2.0)):
        sample = edge.samples(10)[RX_CPU][0] | {"time": edge.at(moment), "value": value}
        write_samples(edge.client, {RX_CPU: [sample]})
    edge.scrape(10, without=[RX_CPU])
    assert edge.poll(11) == [(10, [])]
    moment, columns = edge.judge.seen[-1]
    assert (moment, columns["cpu_rx_percentage"]) == (edge.at(10.99), 14.25)


def test_a_second_instance_at_the_start_is_refused_and_nothing_is_judged(database: Database) -> None:
    edge = Edge(database.client)
    edge.scrape(10)
    other = edge.samples(10)[RX_CPU][0] | {"instance": "gnb:1"}
    write_samples(edge.client, {RX_CPU: [other]})
    with pytest.raises(UserError, match="more than one instance: gnb:1, gnb:9099;.* --node_file$"):
        edge.poll(11)
    assert edge.judged == []


# --- a server that fails -------------------------------------------------------------------------


def test_a_poll_after_the_server_was_away_takes_up_where_the_last_good_one_stopped(tmp_path: Path) -> None:
    with Influxd(tmp_path) as server, connect(server, timeout=1, database="db") as client:
        client.create_database("db")
        edge = Edge(client)
        server.kill()
        with pytest.raises(INFLUX_ERRORS):
            edge.poll(1)
        server.start()
        edge.scrape(0, 1, 2)
        assert edge.poll(3) == [(2, [])]
        edge.scrape(3)
        server.stop()
        for slots in (4, 5):
            with pytest.raises(INFLUX_ERRORS):
                edge.poll(slots)
        server.start()
        edge.scrape(4, 5)
        assert edge.poll(6) == [(3, []), (4, []), (5, [])]
        assert edge.judged == [0, 1, 2, 3, 4, 5]
        assert edge.judge.seen[3][1]["bytes_received"] == 3000.0


# --- what was missed -----------------------------------------------------------------------------


def test_another_process_takes_up_where_the_one_before_stopped(edge: Edge) -> None:
    state = json.loads(json.dumps(edge.monitor.state()))
    before = list(edge.judge.seen)
    edge.scrape(10, 11, 12)
    edge.restart()
    edge.monitor.restore(state)
    assert edge.poll(13) == [(10, []), (11, []), (12, [])]
    assert [time for time, _ in edge.judge.seen[:10]] == [time for time, _ in before]
    # The first record's change is counted from the last one that the process before saw.
    assert edge.judge.seen[10][1]["bytes_received"] == 3000.0
    assert edge.judge.seen[10][1]["cpu_user_rate"] == pytest.approx(0.0, abs=1e-9)


def test_records_that_are_too_old_are_given_up_and_the_window_before_the_others_is_filled(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    edge = Edge(database.client)
    edge.begin -= 300 * INTERVAL
    edge.monitor.restore(edge.monitor.state() | {"judged_before": edge.at(4)})
    edge.scrape(*range(4, 300))
    # 1800 s are 120 slots before the newest sample, in slot 299.
    assert edge.poll(300 + LATER) == [(slot, []) for slot in range(179, 300)]
    # 65 slots fill what scores depend on.
    assert edge.judged == list(range(114, 300))
    assert edge.judge.forgotten == 1
    assert "are not judged: they are further back than --catch_up allows" in caplog.text
    edge.scrape(300)
    assert edge.poll(301 + LATER) == [(300, [])]


def test_a_clock_that_is_far_ahead_of_the_samples_gives_nothing_up(edge: Edge) -> None:
    edge.scrape(10, 11)
    assert edge.poll(10_000) == [(10, []), (11, [])]
    assert edge.judge.forgotten == 0


def test_when_the_clock_of_the_samples_goes_back_judging_begins_anew(
    edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    # What was judged last is an hour ahead of all that comes from now on.
    state = edge.monitor.state()
    state["judged_before"] += 3600 * SECOND
    edge.restart()
    edge.monitor.restore(state)
    found = []
    for slot in range(10, 18):
        edge.scrape(slot)
        found += edge.poll(slot + 1)
    assert "the samples' clock went back by" in caplog.text
    assert edge.judge.forgotten == 1
    # Three silent polls may be an outage; the fourth shows that samples do come, the fifth judges them all.
    assert found == [(slot, []) for slot in range(10, 18)]


def test_when_the_clock_of_the_samples_goes_ahead_judging_goes_on(edge: Edge) -> None:
    edge.scrape(10, 11)
    assert edge.poll(12) == [(10, []), (11, [])]
    edge.begin -= 2 * INTERVAL
    edge.scrape(16, 17)
    assert edge.poll(18) == [(16, []), (17, [])]


# --- the time of a poll, and its line ------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval", "now", "pause"),
    [
        (15, 0, 5),
        (15, 4, 1),
        (15, 5, 15),
        (15, 6, 14),
        (15, 14.5, 5.5),
        (15, 15, 5),
        (15, 20, 15),
        # Woken early, by less than a twentieth of a slot: the poll of this deadline is done.
        (15, 19.5, 15.5),
        (15, 19.125, 0.875),
        # 1,699,999,995 is a whole multiple of 15.
        (15, 1_699_999_995, 5),
        (15, 1_700_000_012, 3),
        (3, 100, 3),
        (3, 101.5, 1.5),
        (60, 0, 20),
        (60, 3599, 21),
    ],
)
def test_a_poll_comes_a_third_of_a_slot_after_the_end_of_each(
    interval: float, now: float, pause: float
) -> None:
    assert seconds_to_next_poll(interval, lambda: now) == pytest.approx(pause)


def test_polls_do_not_drift() -> None:
    now, polls = 1_699_999_998.2, []
    for i in range(1000):
        now += seconds_to_next_poll(15, lambda: now)  # noqa: B023
        polls.append(now)
        # The work of a poll takes its time.
        now += 0.4 + i % 10
    assert polls == pytest.approx([1_700_000_000.0 + 15 * i for i in range(1000)], abs=1e-5)


VALUES = dict(
    zip(METRICS.stored.values(), (98.31234567, 88.7, 7001.0, math.nan, 13.7, 5.5, 1e6, 0.0), strict=True)
)
# 2021-01-12T09:13:15Z
MOMENT = 1_610_442_795 * SECOND


def verdict(status: str, rmse: float = 0.0, unknown: tuple[str, ...] = (), **special: float) -> Verdict:
    causes = ("cpu", "net_up") if status in (ANOMALY, ALERT) else ()
    errors = dict.fromkeys([*METRICS, "overall"], rmse) | special
    shares = dict.fromkeys([*METRICS, "overall"], 0.0) | special
    return Verdict(MOMENT, status, causes, unknown, errors, VALUES, shares)


@pytest.mark.parametrize(
    ("given", "missing", "line"),
    [
        (
            verdict(NORMAL, cpu=0.05, net_up=0.754, overall=0.4),
            [],
            "2021-01-12T09:13:15Z normal (nearest to an anomaly: net_up, 75%)",
        ),
        (
            verdict(NORMAL, overall=0.009),
            [],
            "2021-01-12T09:13:15Z normal (nearest to an anomaly: overall, 1%)",
        ),
        (
            verdict(UNKNOWN, unknown=("cpu_rx", "mem")),
            ["rx_cpu_time", "node_memory_MemFree_bytes"],
            "2021-01-12T09:13:15Z unknown: cpu_rx, mem (no sample of rx_cpu_time, node_memory_MemFree_bytes)",
        ),
        (
            verdict(UNKNOWN, rmse=math.nan, unknown=tuple(METRICS)),
            [],
            "2021-01-12T09:13:15Z unknown: cpu, cpu_rx, cpu_tx, net_down, net_up, net_5g_down, net_5g_up, mem"
            " (too few usable records before it)",
        ),
        (
            verdict(ALERT, 0.5, cpu=2.93456, mem=math.nan, unknown=("mem",)),
            ["node_memory_MemFree_bytes"],
            '{"time": "2021-01-12T09:13:15Z", "possible_cause": "cpu | net_up", "severity": "alert",'
            ' "rmse": {"cpu": 2.9346, "cpu_rx": 0.5, "cpu_tx": 0.5, "net_down": 0.5, "net_up": 0.5,'
            ' "net_5g_down": 0.5, "net_5g_up": 0.5, "mem": null, "overall": 0.5},'
            ' "values": {"cpu_usage": 98.3123, "mem_usage": 88.7, "net_down_usage": 7001.0,'
            ' "net_up_usage": null, "cpu_rx_usage": 13.7, "cpu_tx_usage": 5.5,'
            ' "net_down_5g_usage": 1000000.0, "net_up_5g_usage": 0.0}}',
        ),
    ],
)
def test_the_line_of_a_verdict(given: Verdict, missing: list[str], line: str) -> None:
    assert describe_verdict(given, dict.fromkeys(missing, NO_SAMPLE)) == line


def test_what_is_unknown_is_said_without_a_time_so_that_it_is_said_once() -> None:
    assert (
        describe_unknown(verdict(ALERT, 0.5, unknown=("mem",)), {"node_memory_MemFree_bytes": NO_SAMPLE})
        == "unknown: mem (no sample of node_memory_MemFree_bytes)"
    )


# --- pictures ------------------------------------------------------------------------------------


class Witness:
    """Stands for a bundle, and notes which process draws, and its priority."""

    def __init__(self, note: Path) -> None:
        self._note = note

    def __getattr__(self, name: str) -> None:
        self._note.write_text(f"{os.getpid()} {os.nice(0)}")
        raise UserError("seen enough")


def test_pictures_are_drawn_at_the_lowest_priority_by_a_process_that_nobody_waits_for(tmp_path: Path) -> None:
    anything = np.zeros(12)
    record = Verdict(0, ALERT, ("cpu",), (), {}, {}, actual=anything, predicted=anything)
    alert = Alert(0, 0, 0, False, ("cpu",))
    draw_alerts([Drawing([alert], lambda: [record], Witness(tmp_path / "note"), {}, tmp_path)])
    process_id, status = os.wait()
    assert (tmp_path / "note").read_text() == f"{process_id} 19"
    assert status == 0
    assert process_id != os.getpid()
