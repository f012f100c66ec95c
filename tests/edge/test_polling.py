"""Many nodes in one poll: each is told what it is told alone, and what one breaks touches no other."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import influx_client
import influx_utils
from edge import influx_together, polling, together
from edge.bundle import load_bundle
from edge.detector import Detector
from edge.monitor import Judged, Monitor
from edge.paths import DEFAULT_MODEL
from edge.polling import poll_all
from edge.prometheus_samples import PrometheusSource
from edge.samples import InfluxSource
from edge.source import CountOf, NewestTimeOf, SampleSource, WrongTypesOf
from edge.thresholds import load_thresholds
from influx_client import InfluxClientError
from lab.influxd import Influxd
from lab.prometheus import PrometheusServer
from lab.remote_write import remote_write
from nodes.metrics import (
    CPU_SECONDS,
    DOWNLINK,
    MEMORY_FREE,
    MEMORY_TOTAL,
    RECEIVED,
    RX_CPU,
    TRANSMITTED,
    TX_CPU,
    UPLINK,
)
from nodes.node import Node
from nodes.series import Record
from prometheus_utils import Prometheus
from tests.support.influx import Database, asked_by, connect
from tests.support.prometheus_writer import write_samples

SECOND = 10**9
DEFAULT_THRESHOLDS = "data/thresholds.json"
INTERVAL = 15
# Slot 20 is the one in which the test runs.
NOW_SLOT = 20
LATER = 1 / 3
Write = Callable[[Record], None]


class Site:
    """Nodes whose exporters are scraped into one database, and their monitors; times count in slots."""

    def __init__(self, source: SampleSource, write: Write, nodes: Sequence[Node]) -> None:
        self.source, self._write, self.nodes = source, write, list(nodes)
        self.begin = self.now = float(int(time.time()) // INTERVAL * INTERVAL - NOW_SLOT * INTERVAL)
        self.together, self.alone = self.monitors(), self.monitors()
        # The times of the verdicts on each node.
        self.times: list[list[int]] = [[] for _ in nodes]

    def monitors(self) -> list[Monitor]:
        """A monitor of each node, with the shipped model."""
        bundle, thresholds = load_bundle(DEFAULT_MODEL), load_thresholds(DEFAULT_THRESHOLDS)
        return [
            Monitor(
                self.source,
                node,
                Detector(bundle, thresholds, INTERVAL),
                INTERVAL,
                7200.0,
                clock=lambda: self.now,
            )
            for node in self.nodes
        ]

    def at(self, slots: float) -> int:
        """Nanoseconds of a moment."""
        return round((self.begin + slots * INTERVAL) * 1000) * 10**6

    def samples(self, node: Node, slot: int) -> Record:
        """What the scrapes of a slot give; no two nodes or slots have the same values."""
        number = self.nodes.index(node)
        host = {"time": self.at(slot + 0.7), "instance": node.node_instance, "job": "node"}
        ran = {"time": self.at(slot + 0.94), "instance": node.ran_instance, "job": "ran"}
        cell = {**ran, "cellId": node.cell_id}
        sent = 7.0 * number * slot
        return {
            CPU_SECONDS: [
                {**host, "cpu": cpu, "mode": "user", "value": 9000 + slot * (1 + number / 100)}
                for cpu in node.cpus
            ],
            MEMORY_FREE: [{**host, "value": 3e9 + number}],
            MEMORY_TOTAL: [{**host, "value": 4e9}],
            RECEIVED: [{**host, "device": one, "value": 1e6 + number * slot} for one in node.interfaces],
            TRANSMITTED: [{**host, "device": one, "value": sent} for one in node.interfaces],
            RX_CPU: [{**ran, "value": 13.5 + number / 64}],
            TX_CPU: [{**ran, "value": 5.5}],
            DOWNLINK: [{**cell, "value": 8000.0 + slot}],
            UPLINK: [{**cell, "value": 800.0}],
        }

    def scrape(self, *slots: int, nodes: Sequence[Node] | None = None) -> None:
        """Write what all of these nodes have in these slots."""
        everything: Record = {}
        for node in self.nodes if nodes is None else nodes:
            for slot in slots:
                for name, points in self.samples(node, slot).items():
                    everything.setdefault(name, []).extend(points)
        self._write(everything)

    def write(self, samples: Record) -> None:
        """Write anything else."""
        self._write(samples)

    def poll(self, slots: float) -> list[list[Judged] | Exception]:
        """Poll all nodes together at this moment."""
        self.now = self.begin + slots * INTERVAL
        found = list(poll_all(self.source, self.together))
        for times, monitor, one in zip(self.times, self.together, found, strict=True):
            if not isinstance(one, Exception):
                times += (verdict.time for verdict in monitor.history)
                times += (judged.verdict.time for judged in one)
        return found

    def poll_both(self, slots: float) -> list[list[Judged]]:
        """Poll all together and each alone, and compare what comes of it."""
        found = self.poll(slots)
        expected = [monitor.poll() for monitor in self.alone]
        assert [list(map(told, one)) for one in found] == [list(map(told, one)) for one in expected]
        for one, other, judged in zip(self.together, self.alone, found, strict=True):
            # Unknown values are equal, too.
            assert repr(one.state()) == repr(other.state())
            for each in judged:
                assert one.explained(each.faults) == other.explained(each.faults)
        return found

    def slots(self, place: int) -> list[int]:
        """The slots of the verdicts on a node."""
        return [int((moment / SECOND - self.begin) // INTERVAL) for moment in self.times[place]]


def told(judged: Judged) -> tuple[Any, ...]:
    """What a verdict says, without the numbers that depend on how many are predicted at once."""
    verdict = judged.verdict
    return verdict.time, verdict.status, verdict.causes, verdict.unknown, repr(verdict.values), judged.faults


def node(number: int, **settings: Any) -> Node:
    return Node(node_instance=f"edge{number}:9100", ran_instance=f"edge{number}:3333", **settings)


def influx_source(database: Database) -> tuple[InfluxSource, list[str]]:
    """A source, and the list of what it has asked for."""
    asked = asked_by(database.own)
    return InfluxSource(database.own, "localhost:8086", database.name), asked


@pytest.fixture
def site(database: Database) -> Callable[[Sequence[Node]], Site]:
    """Makes a site in InfluxDB."""
    source, _ = influx_source(database)
    return lambda nodes: Site(source, functools.partial(write_samples, database.client), nodes)


ODD = [
    node(0),
    node(1, cpus=("0", "1", "2", "3"), interfaces=("eth0",), cell_id="7"),
    # Names that are no pattern.
    Node(node_instance="a.c|d (1)", ran_instance="it's /here/", interfaces=("w|l*n",)),
    # Two nodes behind one exporter, told by a tag.
    node(4, node_tags=(("site", "a"),), ran_tags=(("site", "a"),)),
    node(4, node_tags=(("site", "b"),), ran_tags=(("site", "b"),)),
    # One whose series must not have a tag.
    node(5, ran_tags=(("sector", ""),)),
    # The same exporter tells of both halves.
    Node(node_instance="box:1", ran_instance="box:1"),
    node(7),
    node(8),
]


def odd_samples(site: Site, *slots: int, silent: int | None = None) -> Record:
    """What the scrapes of ODD give, with the tags that tell its nodes apart; nothing of the `silent` one."""
    everything: Record = {}
    for number, one in enumerate(ODD):
        for slot in slots if number != silent else ():
            for name, points in site.samples(one, slot).items():
                tags = {"site": "ab"[number - 3]} if number in (3, 4) else {}
                everything.setdefault(name, []).extend(point | tags for point in points)
    return everything


def disturbed(site: Site, samples: Record, slot: int) -> Record:
    """The samples, and more: a flood of one node, a second series of another, and foreign instances."""
    moment = site.at(slot + 0.1)
    edge0, edge7 = {"instance": "edge0:3333", "job": "ran"}, {"instance": "edge7:3333", "job": "ran"}
    return samples | {
        RX_CPU: [
            *(edge0 | {"time": moment + i * 10**6, "value": 1.0} for i in range(400)),
            *({"instance": f"other{i}:1", "time": moment, "value": 1.0} for i in range(20)),
            {"instance": "edge5:3333", "sector": "x", "time": moment, "value": 1.0},
            *samples[RX_CPU],
        ],
        TX_CPU: [edge7 | {"time": moment, "value": 1.0, "copy": "2"}, *samples[TX_CPU]],
    }


@pytest.fixture(params=["influxdb", "prometheus", "victoria-metrics"])
def odd_site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """The nodes of ODD in each kind of database."""
    if request.param == "influxdb":
        yield request.getfixturevalue("site")(ODD)
        return
    with PrometheusServer(tmp_path, request.param) as server:
        client = Prometheus(server.url)
        yield Site(PrometheusSource(client), functools.partial(remote_write, server.url), ODD)
        client.close()


def test_each_of_many_nodes_is_told_what_it_is_told_alone(odd_site: Site) -> None:
    site, last = odd_site, len(ODD) - 1
    site.write(odd_samples(site, *range(10)))
    for found in site.poll_both(10 + LATER):
        assert [judged.faults for judged in found] == [{}]
    for slot in range(10, 16):
        samples = odd_samples(site, slot, silent=last)
        site.write(disturbed(site, samples, slot) if slot in (12, 13) else samples)
        found = site.poll_both(slot + 1 + LATER)
        assert [len(one) for one in found] == [1] * last + [0]
        if slot == 13:
            (judged,) = found[7]
            assert list(judged.faults) == ["tx_cpu_time"]
    questions = [NewestTimeOf(one) for one in ODD]
    newest = [site.at(15.94)] * last + [site.at(9.94)]
    assert site.source.answer(questions) == [one.ask(site.source) for one in questions] == newest
    counts = [CountOf(one, site.at(12.8), site.at(15)) for one in ODD]
    assert site.source.answer(counts) == [one.ask(site.source) for one in counts]
    kinds = [WrongTypesOf(one, frozenset({RX_CPU, RECEIVED})) for one in ODD]
    assert site.source.answer(kinds) == [{}] * len(ODD)


# --- in InfluxDB ---------------------------------------------------------------------------------


def test_thirty_nodes_take_one_request_and_their_silence_a_few(database: Database) -> None:
    source, asked = influx_source(database)
    site = Site(source, functools.partial(write_samples, database.client), [node(i) for i in range(30)])
    site.scrape(8, 9)
    site.poll(10 + LATER)
    for slot in (10, 11):
        site.scrape(slot)
        asked.clear()
        assert [len(found) for found in site.poll(slot + 1 + LATER)] == [1] * 30
        assert len(asked) == 1
    for slot in range(12, 18):
        asked.clear()
        site.poll(slot + 1 + LATER)
        assert len(asked) <= 4
    assert all(monitor.reader.silent_polls == 6 for monitor in site.together)
    site.scrape(18)
    assert [len(found) for found in site.poll(19 + LATER)] == [1] * 30


def test_text_that_one_node_writes_is_its_own_fault_alone(
    site: Callable[[Sequence[Node]], Site], database: Database
) -> None:
    both = site([node(0), node(1)])
    both.scrape(8, 9)
    both.poll_both(10 + LATER)
    # In another shard, InfluxDB takes what it refuses where there are numbers.
    week = both.at(0) - 21 * 86400 * SECOND
    database.client.write(
        [f'rx_cpu_time,instance=edge0:3333,job=ran value="x" {week}'],
        {"db": database.name},
        protocol="line",
    )
    both.scrape(10)
    assert [[one.faults for one in found] for found in both.poll_both(11 + LATER)] == [[{}], [{}]]


@pytest.mark.parametrize("most_bytes", [60_000, 20_000, 6000])
def test_answers_that_are_too_large_are_asked_for_in_halves(
    site: Callable[[Sequence[Node]], Site], monkeypatch: pytest.MonkeyPatch, most_bytes: int
) -> None:
    many = site([node(i) for i in range(24)])
    many.scrape(8, 9)
    many.poll_both(10 + LATER)
    monkeypatch.setattr(influx_client, "MAX_ANSWER_BYTES", most_bytes)
    many.scrape(10)
    assert [len(found) for found in many.poll_both(11 + LATER)] == [1] * 24


def test_a_flood_that_fills_the_answer_is_left_out_of_it(
    site: Callable[[Sequence[Node]], Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(influx_together, "MOST_ROWS", 300)
    many = site([node(i) for i in range(10)])
    many.scrape(8, 9)
    many.poll_both(10 + LATER)
    many.scrape(10)
    flood = {"instance": "edge3:3333", "job": "ran", "value": 1.0}
    many.write({RX_CPU: [flood | {"time": many.at(10.1) + i * 10**6} for i in range(1000)]})
    assert [len(found) for found in many.poll_both(11 + LATER)] == [1] * 10


def test_an_hour_is_caught_up_in_parts_none_twice_and_none_skipped(
    site: Callable[[Sequence[Node]], Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "RECORDS_AT_ONCE", 40)
    monkeypatch.setattr(polling, "RECORDS_IN_POLL", 40)
    monkeypatch.setattr(together, "SAMPLES_AT_ONCE", 75)
    many = site([node(i) for i in range(2)])
    many.scrape(-221, -220)
    many.poll(-219 + LATER)
    many.scrape(*range(-219, 20))
    polls = 0
    while polls == 0 or any(monitor.reader.has_more for monitor in many.together):
        found = many.poll(20 + LATER)
        polls += 1
        # 40 records of 2 nodes.
        assert max(map(len, found)) <= 20
    assert polls == 12
    for place in range(2):
        assert many.slots(place) == list(range(-221, 20))


# --- errors --------------------------------------------------------------------------------------


def test_a_server_that_is_killed_and_comes_back_costs_no_record_and_one_request(tmp_path: Path) -> None:
    with Influxd(tmp_path) as server:
        client = influx_utils.initializeConnection(server.host, server.port, "", "")
        influx_utils.checkDatabase(client, "edge")
        asked = asked_by(client)
        source = InfluxSource(client, "localhost:8086", "edge")
        many = Site(
            source,
            functools.partial(write_samples, connect(server, database="edge")),
            [node(i) for i in range(40)],
        )
        many.scrape(8, 9)
        many.poll(10 + LATER)
        many.scrape(10)
        server.kill()
        for _ in range(2):
            asked.clear()
            found = many.poll(11 + LATER)
            assert {source.kind_of(one) for one in found} == {"unreachable"}
            assert len(found) == 40 and len(asked) == 1
        server.start()
        many.scrape(11)
        assert [len(one) for one in many.poll(12 + LATER)] == [2] * 40
        assert all(many.slots(place) == [8, 9, 10, 11] for place in range(40))


def test_a_database_that_is_gone_is_the_error_of_all_nodes_at_once(database: Database) -> None:
    source, asked = influx_source(database)
    site = Site(source, functools.partial(write_samples, database.client), [node(i) for i in range(40)])
    database.client.drop_database(database.name)
    asked.clear()
    found = site.poll(10 + LATER)
    assert {source.kind_of(one) for one in found if isinstance(one, Exception)} == {"database"}
    # The second one tells the reason, which InfluxDB says for a single statement alone.
    assert len(found) == 40 and len(asked) == 2
    database.client.create_database(database.name)


def test_a_server_that_hangs_is_asked_for_half_the_next_time(tmp_path: Path) -> None:
    with Influxd(tmp_path) as server:
        client = influx_utils.initializeConnection(server.host, server.port, "", "", timeout_seconds=0.3)
        influx_utils.checkDatabase(client, "edge")
        source = InfluxSource(client, "localhost:8086", "edge")
        questions = [NewestTimeOf(node(i)) for i in range(40)]
        server.pause()
        found = source.answer(questions)
        assert len(found) == 40 and {source.kind_of(one) for one in found} == {"timeout"}
        server.resume()
        assert source._together._at_once == together.SAMPLES_AT_ONCE // 2
        assert source.answer(questions) == [None] * 40


def test_what_is_refused_of_one_node_is_answered_for_all_others(database: Database) -> None:
    source, _ = influx_source(database)
    nodes = [node(i) for i in range(9)]
    refusing = nodes[5]
    answer = source.newest_sample_time
    source.newest_sample_time = lambda one: refused() if one is refusing else answer(one)
    readers = source._together._readers
    reader = readers[NewestTimeOf]
    readers[NewestTimeOf] = lambda asked: (
        refused() if any(one.node is refusing for one in asked) else reader(asked)
    )
    found = source.answer([NewestTimeOf(one) for one in nodes])
    assert [isinstance(one, Exception) for one in found] == [one is refusing for one in nodes]


def refused() -> None:
    raise InfluxClientError("this is refused")
