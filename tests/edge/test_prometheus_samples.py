"""Samples of a node read from real Prometheus and VictoriaMetrics: raw, with their own times, and bounded."""

from __future__ import annotations

import math
import struct
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pytest
import requests

from common.files import UserError
from edge import prometheus_samples
from edge.prometheus_samples import PrometheusSource, check_node
from edge.source import SamplesOf
from lab.prometheus import PrometheusServer
from lab.remote_write import HEADERS, _field, _snappy, _varint, remote_write
from nodes.metrics import CPU_SECONDS, MEMORY_FREE, METRICS, RX_CPU
from nodes.node import DEFAULT_NODE, Node
from nodes.series import Point, Record
from prometheus_utils import Prometheus, PrometheusError, rows_of
from tests.support.edge_daemon import INTERVAL, SECOND

PROGRAMS = ("prometheus", "victoria-metrics")
# Whole slots, near to now: Prometheus takes no old samples beside new ones.
START = int(time.time()) // INTERVAL * INTERVAL * SECOND - 20 * INTERVAL * SECOND


def at(seconds: float) -> int:
    return START + round(seconds * 1000) * 10**6


@pytest.fixture(scope="module", params=PROGRAMS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrometheusServer]:
    """One that no test disturbs."""
    with PrometheusServer(tmp_path_factory.mktemp(request.param), request.param) as server:
        yield server


@dataclass
class Place:
    """Series that no other test has: each has a tag of its own, which the node pins."""

    server: PrometheusServer
    node: Node
    mark: str

    def write(self, samples: Record) -> None:
        marked = {name: [point | {"mark": self.mark} for point in points] for name, points in samples.items()}
        remote_write(self.server.url, marked)

    @cached_property
    def client(self) -> Prometheus:
        return Prometheus(self.server.url)

    @property
    def source(self) -> PrometheusSource:
        return PrometheusSource(self.client)

    def values(self, start: float, end: float, key: str = RX_CPU) -> list[tuple[int, float]]:
        points = self.source.get_samples(SamplesOf(self.node, at(start), at(end))).points[key]
        return sorted((point["time"], point["value"]) for point in points)


@pytest.fixture
def place(server: PrometheusServer) -> Iterator[Place]:
    mark = uuid.uuid4().hex
    pins = (("mark", mark),)
    place = Place(server, Node(node_tags=pins, ran_tags=pins), mark)
    yield place
    place.client.close()


def ran(seconds: float, value: float, **labels: str) -> Point:
    return {"time": at(seconds), "value": value, "instance": "gnb:9099", "job": "ran"} | labels


def host(seconds: float, value: float, **labels: str) -> Point:
    return {"time": at(seconds), "value": value, "instance": "edge:9100", "job": "node"} | labels


# --- raw samples ---------------------------------------------------------------------------------


def test_raw_samples_come_with_their_own_times_from_start_to_before_end(place: Place) -> None:
    place.write({RX_CPU: [ran(seconds, seconds + 0.5) for seconds in (0, 14.999, 15, 29.999, 30)]})
    assert place.values(15, 30) == [(at(15), 15.5), (at(29.999), 30.499)]
    assert place.values(0, 15.001) == [(at(0), 0.5), (at(14.999), 15.499), (at(15), 15.5)]
    assert place.values(31, 45) == []


def test_all_series_of_the_node_are_found_and_no_others(place: Place) -> None:
    wanted = [host(n, 10.0 + n, cpu=str(n), mode="user") for n in (0, 1)]
    others = [host(2, 1.0, cpu="7", mode="user"), host(3, 1.0, cpu="0", mode="idle")]
    place.write({CPU_SECONDS: [*wanted, *others], MEMORY_FREE: [host(4, 7e9)], "unasked": [host(5, 1.0)]})
    points = place.source.get_samples(SamplesOf(place.node, START, at(15))).points
    points[CPU_SECONDS].sort(key=lambda point: point["time"])
    assert points == {
        **{key: [] for key in METRICS.series},
        CPU_SECONDS: [point | {"mark": place.mark} for point in wanted],
        MEMORY_FREE: [host(4, 7e9, mark=place.mark)],
    }


def test_no_value_is_no_sample_and_an_infinite_one_is_refused_later(place: Place) -> None:
    place.write({RX_CPU: [ran(0, 3.0), ran(1, math.nan), ran(2, math.inf)]})
    assert place.values(0, 15) == [(at(0), 3.0), (at(2), math.inf)]


def test_names_in_labels_are_quoted(place: Place) -> None:
    names = ['a "quoted" name', "back\\slash", "it's | (.*)", "Gerät/5G"]
    for number, name in enumerate(names):
        place.write({RX_CPU: [ran(number, float(number), instance=name)]})
    for number, name in enumerate(names):
        node = replace(place.node, ran_instance=name)
        points = place.source.get_samples(SamplesOf(node, START, at(15))).points[RX_CPU]
        assert [point["value"] for point in points] == [float(number)]
    parts = replace(place.node, interfaces=tuple(names))
    received = "node_network_receive_bytes_total"
    place.write({received: [host(0, 1.0, device=name) for name in [*names, "it's | (xy)"]]})
    found = place.source.get_samples(SamplesOf(parts, START, at(15))).points[received]
    assert sorted(point["device"] for point in found) == sorted(names)


def test_the_newest_sample_is_found_wherever_it_is(place: Place) -> None:
    assert place.source.newest_sample_time(place.node) is None
    place.write({RX_CPU: [ran(0, 1.0), ran(61.234, 1.0)], CPU_SECONDS: [host(70, 1.0, cpu="7", mode="user")]})
    assert place.source.newest_sample_time(place.node) == at(61.234)
    assert place.source.count_samples(place.node, START, at(61.235)) == 2
    newest = place.source.newest_samples(place.node)
    assert [time for line in newest[RX_CPU] for time, _ in line.samples] == [at(61.234)]


def test_old_and_later_samples_are_found(place: Place) -> None:
    if place.server.program == "prometheus":
        pytest.skip("Prometheus refuses samples beside much newer ones")
    day = 86400
    place.write({RX_CPU: [ran(-20 * day, 1.0)]})
    assert place.source.newest_sample_time(place.node) == at(-20 * day)
    place.write({RX_CPU: [ran(day, 2.0)]})
    found = place.source.get_samples(SamplesOf(place.node, START, at(300), reads_later=True))
    assert [point["time"] for point in found.points[RX_CPU]] == [at(day)]
    newest = place.source.newest_samples(place.node)
    assert [time for line in newest[RX_CPU] for time, _ in line.samples] == [at(day)]


def test_the_values_of_a_tag_that_are_there(place: Place) -> None:
    place.write({CPU_SECONDS: [host(0, 1.0, shelf=str(n), mode="user") for n in range(9)]})
    assert place.source.names_there(place.node, CPU_SECONDS, "shelf") == ["0", "1", "2", "3", "4", "5"]
    assert place.source.names_there(place.node, CPU_SECONDS, "drawer") == []


# --- floods --------------------------------------------------------------------------------------


@pytest.fixture
def small_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood begins at 64 KB instead of 1 MB, so that less has to be written."""
    monkeypatch.setattr(prometheus_samples, "LABEL_BYTES", 1 << 16)


@pytest.mark.usefixtures("small_answers")
def test_the_known_series_is_found_among_more_than_can_be_read(place: Place) -> None:
    own = ran(1, 42.0)
    place.write({RX_CPU: [own, *(ran(2, 1.0, pod=f"{n:0200}") for n in range(500))]})
    known = {RX_CPU: {"instance": "gnb:9099", "job": "ran", "pod": "", "mark": place.mark}}
    found = place.source.get_samples(SamplesOf(place.node, START, at(15), known_tags=known))
    assert (found.flooded, found.unread) == ((RX_CPU,), ())
    assert [point["value"] for point in found.points[RX_CPU]] == [42.0]
    # Without knowing it, the newest of each is read.
    assert len(place.source.get_samples(SamplesOf(place.node, START, at(15))).points[RX_CPU]) == 501


@pytest.mark.usefixtures("small_answers")
def test_a_thousand_samples_in_a_slot_are_thinned_out(place: Place) -> None:
    place.write({RX_CPU: [ran(n / 100, float(n)) for n in range(4500)]})
    found = place.source.get_samples(SamplesOf(place.node, START, at(45)))
    assert found.flooded == (RX_CPU,)
    assert sorted(point["value"] for point in found.points[RX_CPU]) == [1499.0, 2999.0, 4499.0]


def test_more_series_than_are_kept_are_not_read(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus_samples, "LABEL_BYTES", 1 << 10)
    monkeypatch.setattr(prometheus_samples, "MOST_POINTS", 100)
    place.write({RX_CPU: [ran(2, 1.0, pod=f"{n:0200}") for n in range(101)], MEMORY_FREE: [host(1, 7e9)]})
    found = place.source.get_samples(SamplesOf(place.node, START, at(15), reads_later=True))
    assert (found.flooded, found.unread, found.has_later) == ((RX_CPU,), (RX_CPU,), True)
    assert (found.points[RX_CPU], len(found.points[MEMORY_FREE])) == ([], 1)


def test_a_limit_of_the_server_is_a_flood(tmp_path: Path) -> None:
    with PrometheusServer(tmp_path, "prometheus", ["--query.max-samples=50"]) as server:
        remote_write(server.url, {RX_CPU: [ran(n, float(n)) for n in range(60)]})
        client = Prometheus(server.url)
        found = PrometheusSource(client).get_samples(SamplesOf(DEFAULT_NODE, START, at(60)))
        client.close()
        assert found.flooded == (RX_CPU,)
        assert sorted(point["value"] for point in found.points[RX_CPU]) == [14.0, 29.0, 44.0, 59.0]


def test_a_series_of_histograms_alone_has_no_rows() -> None:
    histogram = {"count": "1", "sum": "1", "buckets": [[3, "-0.001", "0.001", "1"]]}
    answered = [
        {"metric": {"job": "a"}, "histograms": [[1, histogram]]},
        {"metric": {"job": "b"}, "histogram": [1, histogram]},
        {"metric": {"job": "c"}, "histograms": [[1, histogram]], "values": [[2, "3"]]},
    ]
    assert rows_of(answered) == [({"job": "a"}, []), ({"job": "b"}, []), ({"job": "c"}, [(2 * SECOND, 3.0)])]
    with pytest.raises(PrometheusError, match="not an answer of Prometheus"):
        rows_of([{"histograms": [[1, histogram]]}])


def test_a_foreign_native_histogram_hides_no_sample(tmp_path: Path) -> None:
    with PrometheusServer(tmp_path, "prometheus", ["--enable-feature=native-histograms"]) as server:
        remote_write(server.url, {RX_CPU: [ran(5, 3.0)]})
        # One observation of 0: the count, sum, width of what counts as zero, and count of that.
        content = b"\x08\x01" + b"\x19" + struct.pack("<d", 0.0) + b"\x29" + struct.pack("<d", 0.001)
        content += b"\x30\x01" + b"\x78" + _varint(at(20) // 10**6)
        labels = (("__name__", RX_CPU), ("job", "other"))
        series = [_field(1, _field(1, name.encode()) + _field(2, text.encode())) for name, text in labels]
        request = _field(1, b"".join([*series, _field(4, content)]))
        answer = requests.post(
            f"{server.url}/api/v1/write", data=_snappy(request), headers=HEADERS, timeout=30
        )
        assert answer.status_code == 204
        client = Prometheus(server.url)
        (there,) = client.query(f'{RX_CPU}{{job="other"}}[1m]', at(30))
        assert set(there) == {"metric", "histograms"}
        found = PrometheusSource(client).get_samples(SamplesOf(DEFAULT_NODE, START, at(60))).points[RX_CPU]
        assert [(point["time"], point["value"]) for point in found] == [(at(5), 3.0)]
        client.close()


# --- what is refused -----------------------------------------------------------------------------


def test_a_field_is_refused_in_one_line() -> None:
    row = replace(METRICS["cpu_rx"], value_field="dl_brate")
    rows = tuple(row if one.name == "cpu_rx" else one for one in METRICS.values())
    with pytest.raises(UserError) as refused:
        check_node(replace(DEFAULT_NODE, metrics=replace(METRICS, rows=rows)))
    assert str(refused.value) == (
        "rx_cpu_time: Prometheus has no field 'dl_brate', only values; leave 'field' out of the metric in"
        " --node_file, or read it with --source influxdb"
    )


@pytest.mark.parametrize(
    "url",
    [
        "localhost:9090",
        "ftp://x",
        "http://",
        "http://x:99999",
        "http://x?a=b",
        "http://a b",
        "http://x/../[",
        "",
    ],
)
def test_a_url_that_cannot_be_one_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(UserError) as refused:
        Prometheus(url)
    assert str(refused.value) == (
        "--prometheus_url must be like http://HOST:9090 or https://HOST/PATH, without anything else"
    )


def test_a_password_in_the_url_is_never_shown() -> None:
    with pytest.raises(UserError) as refused:
        Prometheus("http://me:secret@localhost:9090")
    assert "secret" not in str(refused.value)
    assert "FIND_ANOMALIES_PROMETHEUS_PASS" in str(refused.value)
