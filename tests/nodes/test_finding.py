"""Nodes are found in a real InfluxDB, Prometheus and VictoriaMetrics, at the start and later."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from common.files import UserError
from edge.prometheus_survey import PrometheusSurveyor
from edge.survey import InfluxSurveyor
from lab.prometheus import PrometheusServer
from lab.remote_write import remote_write
from nodes import finding
from nodes.finding import NodeFinder
from nodes.fleet import Pairing
from nodes.metrics import MEMORY_FREE, NODE, RAN, RX_CPU
from nodes.names import NodePatterns
from nodes.node import DEFAULT_NODE, Node, described_node
from nodes.series import Record
from nodes.survey import Surveyor
from prometheus_utils import Prometheus
from tests.support.influx import Database, asked_by
from tests.support.prometheus_writer import write_samples
from tests.support.refusals import one_line

SECOND = 10**9


def scraped(hosts: list[str], exporter: str = NODE, ago_seconds: float = 10, port: int = 9100) -> Record:
    """A sample of a series of the exporter, from each of these hosts."""
    measurement = MEMORY_FREE if exporter == NODE else RX_CPU
    at = (time.time_ns() - int(ago_seconds * SECOND)) // 10**6 * 10**6
    return {
        measurement: [
            {"time": at, "value": 1.0, "instance": f"{host}:{port}", "job": exporter} for host in hosts
        ]
    }


Write = Callable[[Record], None]


class Place:
    """A server, what looks into it, and the requests of that. Hours ago there was a node `gone`."""

    def __init__(self, surveyor: Surveyor, write: Write, requests: list[str]) -> None:
        self.surveyor, self.write, self.requests = surveyor, write, requests

    def finder(self, *words: str, known: tuple[str, ...] = (), node: Node = DEFAULT_NODE) -> NodeFinder:
        return NodeFinder(self.surveyor, Pairing(node, {}), NodePatterns(words), known)

    def found(self, finder: NodeFinder) -> dict[str, tuple[str | None, str | None]]:
        """Name -> the instances of its exporters; asked for in one request."""
        self.requests.clear()
        found = finder.find()
        assert len(self.requests) == 1
        return {one.name: (one.node.node_instance, one.node.ran_instance) for one in found}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, PrometheusServer]]:
    programs = ("prometheus", "victoria-metrics")
    with contextlib.ExitStack() as stack:
        found = {
            program: stack.enter_context(PrometheusServer(tmp_path_factory.mktemp(program), program))
            for program in programs
        }
        for server in found.values():
            # Prometheus takes old samples only before newer ones.
            remote_write(server.url, scraped(["gone"], ago_seconds=3 * 3600))
        yield found


@pytest.fixture(params=["influxdb", "prometheus", "victoria-metrics"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Place:
    asked: list[str] = []
    if request.param == "influxdb":
        database = request.getfixturevalue("database")
        write_samples(database.client, scraped(["gone"], ago_seconds=3 * 3600))
        surveyor = InfluxSurveyor(database.own, "db:8086", "metrics_db")
        return Place(surveyor, partial(write_samples, database.client), asked_by(database.own))
    server = request.getfixturevalue("servers")[request.param]
    api = Prometheus(server.url)
    ask = api._request

    def counted_api(path: str, *given: Any) -> Any:
        asked.append(path)
        return ask(path, *given)

    monkeypatch.setattr(api, "_request", counted_api)
    return Place(PrometheusSurveyor(api), partial(remote_write, server.url), asked)


def hosts(tag: str, *numbers: int) -> list[str]:
    return [f"{tag}-{number}" for number in numbers]


def test_nodes_are_found_and_paired_in_one_request(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    # The servers of Prometheus are those of other tests, too.
    tag = f"a{time.time_ns()}"
    place.write(scraped(hosts(tag, 1, 2, 3)))
    place.write(scraped(hosts(tag, 1, 2), RAN, port=3333))
    # Another exporter is no node.
    place.write({"go_threads": scraped(hosts(tag, 5))[MEMORY_FREE]})
    finder = place.finder(f"{tag}-*")
    first = {
        f"{tag}-1": (f"{tag}-1:9100", f"{tag}-1:3333"),
        f"{tag}-2": (f"{tag}-2:9100", f"{tag}-2:3333"),
        f"{tag}-3": (f"{tag}-3:9100", f"{tag}-3:3333"),
    }
    assert place.found(finder) == first
    selects, *warned = caplog.messages
    assert selects.startswith("--node selects 3 of ")
    assert warned == [
        f"{tag}-3 (ran): no sample of this exporter in the last hour; its metrics are unknown until it comes"
    ]
    # Later, a new node comes, and what lacked has come; nothing is said twice.
    caplog.clear()
    place.write(scraped(hosts(tag, 6)))
    place.write(scraped(hosts(tag, 3, 6), RAN, port=3334))
    assert place.found(finder) == first | {
        f"{tag}-3": (f"{tag}-3:9100", f"{tag}-3:3334"),
        f"{tag}-6": (f"{tag}-6:9100", f"{tag}-6:3334"),
    }
    assert caplog.messages == []
    assert "gone" not in place.found(place.finder("all"))


def test_a_name_that_is_not_there_is_refused_with_those_that_are(place: Place) -> None:
    tag = f"b{time.time_ns()}"
    place.write(scraped(hosts(tag, *range(10)), RAN))
    with pytest.raises(UserError) as refusal:
        place.finder(f"{tag}-1", "edeg-1").find()
    line = one_line(refusal)
    assert line.startswith(f"--node edeg-1: no node of {place.surveyor.place} has this name; there is ")
    assert line.endswith(" more")
    assert len(line) < 300
    # A node that was there before may be silent.
    found = place.found(place.finder(f"{tag}-1", "edeg-1", known=("edeg-1", "other")))
    assert list(found) == [f"{tag}-1", "edeg-1"]
    assert found["edeg-1"][0] in ("edeg-1:9100", "edeg-1")


def test_tags_of_the_description_choose_among_exporters(place: Place) -> None:
    tag = f"c{time.time_ns()}"
    one, other = scraped(hosts(tag, 1)), scraped(hosts(tag, 2))
    other[MEMORY_FREE][0]["job"] = 'with "quotes" and \\'
    for samples in (one, other):
        place.write(samples)
    node = described_node("x", {"node_tags": {"job": other[MEMORY_FREE][0]["job"]}, "metrics": {"mem": {}}})
    assert list(place.found(place.finder("all", node=node))) == [f"{tag}-2"]


# --- InfluxDB alone ------------------------------------------------------------------------------


def influx(database: Database) -> InfluxSurveyor:
    return InfluxSurveyor(database.own, "db:8086", "metrics_db")


def find(database: Database, *words: str, **settings: Any) -> list[str]:
    given = NodeFinder(influx(database), Pairing(DEFAULT_NODE, {}), NodePatterns(words), **settings)
    return [one.name for one in given.find()]


def test_an_empty_database_has_no_node(database: Database) -> None:
    with pytest.raises(UserError) as refusal:
        find(database, "all")
    assert one_line(refusal) == (
        "--node all: no node of InfluxDB at db:8086: database metrics_db has this name; no node writes there"
    )


def test_old_nodes_count_if_nothing_is_newer_or_if_so_much_is_asked_for(database: Database) -> None:
    write_samples(database.client, scraped(["old"], ago_seconds=30 * 86400))
    assert find(database, "all") == ["old"]
    write_samples(database.client, scraped(["new"]))
    assert find(database, "all") == ["new"]
    assert find(database, "all", seconds=31 * 86400) == ["new", "old"]


def test_a_host_with_two_instances_is_told_once_and_alone_it_is_refused(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    for port in (9100, 9101):
        write_samples(database.client, scraped(["edge-1"], port=port))
    write_samples(database.client, scraped(["edge-2"]))
    write_samples(database.client, scraped(["edge-2", "edge-1"], RAN))
    line = (
        "edge-1 has 2 instances of node (edge-1:9100, edge-1:9101); name the one to watch as 'node_instance'"
        " in --nodes_file"
    )
    finder = NodeFinder(influx(database), Pairing(DEFAULT_NODE, {}), NodePatterns(["all"]))
    for _ in range(2):
        assert [one.name for one in finder.find()] == ["edge-2"]
    assert caplog.messages == [line]
    with pytest.raises(UserError) as refusal:
        find(database, "edge-1")
    assert one_line(refusal) == line
    # Not selected, it is not told.
    caplog.clear()
    assert find(database, "edge-2") == ["edge-2"]
    assert caplog.messages == []


def test_hosts_that_somebody_makes_up_end_nothing_and_crowd_out_no_known_node(
    database: Database, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(finding, "MOST_NODES", 10)
    for exporter in (NODE, RAN):
        write_samples(database.client, scraped([*hosts("edge", *range(5)), "z"], exporter))
    write_samples(database.client, scraped([f"a-{number:03}" for number in range(200)]))
    write_samples(database.client, scraped([f"evil/{number}\x1b" for number in range(50)]))
    finder = NodeFinder(influx(database), Pairing(DEFAULT_NODE, {}), NodePatterns(["all"]), ["z"])
    first = [one.name for one in finder.find()]
    assert first == ["a-000", "a-001", "a-002", "a-003", *hosts("edge", *range(5)), "z"]
    assert len(caplog.messages) == 13
    assert max(map(len, caplog.messages)) < 300
    assert caplog.messages[-1] == (
        "a-004, a-005, a-006 and 193 more: not watched, since one process watches at most 10 nodes; give each"
        " of several processes a part of them with --node (docs/fleet.md)"
    )
    # Those that are watched stay watched, and what was said is not said again.
    caplog.clear()
    write_samples(database.client, scraped(["0"]))
    assert [one.name for one in finder.find()] == first
    assert [line.partition(":")[0] for line in caplog.messages] == ["0, a-004, a-005 and 194 more"]


def test_a_host_that_is_gone_is_forgotten_so_that_what_was_said_takes_bounded_memory(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    for exporter in (NODE, RAN):
        write_samples(database.client, scraped(["edge-1"], exporter))
    finder = NodeFinder(influx(database), Pairing(DEFAULT_NODE, {}), NodePatterns(["all"]))
    told = []
    for is_there in (True, True, False, True):
        if is_there:
            write_samples(database.client, scraped(["evil/1"]))
        else:
            database.client.query(f"DROP SERIES FROM \"{MEMORY_FREE}\" WHERE instance = 'evil/1:9100'")
        caplog.clear()
        assert [one.name for one in finder.find()] == ["edge-1"]
        told.append(len(caplog.messages))
    assert told == [1, 0, 0, 1]


def test_series_without_an_instance_and_a_field_named_so_make_no_node(database: Database) -> None:
    write_samples(database.client, scraped(["edge-1"]))
    at = time.time_ns() - SECOND
    database.client.write(
        f'{MEMORY_FREE},host=x value=1,instance="field:1" {at}', params={"db": database.name}, protocol="line"
    )
    assert find(database, "all") == ["edge-1"]
