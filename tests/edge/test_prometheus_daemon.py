"""The daemon with real Prometheus and VictoriaMetrics: what it finds, and the faults that it survives."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from edge.daemon import Daemon, Found, Settings
from edge.exporter import EdgeMetrics
from edge.monitor import Judged
from edge.paths import DEFAULT_MODEL
from edge.prometheus_samples import PrometheusSource
from influx_utils import initializeConnection
from lab.prometheus import PrometheusServer
from lab.remote_write import remote_write
from nodes.fleet import Named
from nodes.metrics import RX_CPU
from nodes.node import DEFAULT_NODE
from nodes.series import Point
from prometheus_utils import Prometheus
from service.store import Store
from service.systemd import Ending
from tests.support.edge_daemon import (
    ATTACKED,
    FIRST,
    INTERVAL,
    ROOT,
    SECOND,
    SLOTS,
    Change,
    Edge,
    lives,
    said,
)
from tests.support.proxy import Proxy

PROGRAMS = ("prometheus", "victoria-metrics")


class Watched(Edge):
    """A node that is scraped into Prometheus or VictoriaMetrics, and the daemon that watches it."""

    def __init__(
        self,
        server: PrometheusServer,
        folder: Path,
        port: int = 0,
        password: str = "secret",
        is_stored: bool = False,
        ahead_seconds: int = 0,
    ) -> None:
        self.server = server
        self.ahead_seconds = ahead_seconds
        self.begin = int(time.time()) // INTERVAL * INTERVAL - SLOTS * INTERVAL + ahead_seconds
        self.samples = lives(self.begin, SLOTS, ATTACKED)
        self.now = float(self.begin - ahead_seconds)
        self.metrics = EdgeMetrics()
        self.name = f"http://127.0.0.1:{port or server.port}"
        shutil.copy(ROOT / "data/thresholds.json", folder / "thresholds.json")
        settings = Settings(
            server=f"127.0.0.1:{server.port}",
            database="edge",
            measurement="detected_anomalies",
            interval_seconds=INTERVAL,
            catch_up_seconds=3600.0,
            drift_seconds=21600.0,
            thresholds_file=str(folder / "thresholds.json"),
            model=str(DEFAULT_MODEL),
        )
        self.store = Store(folder / "state", 1000)
        self.api = Prometheus(self.name, "me", password, timeout_seconds=1.0)
        self.client = initializeConnection("127.0.0.1", server.port, "me", password)
        self.daemon = Daemon(
            settings,
            PrometheusSource(self.api),
            self.client if is_stored else None,
            [Named("", DEFAULT_NODE)],
            self.store,
            self.metrics,
            Ending(),
            lambda: self.now,
        )
        self.judged: list[Judged] = []
        self._log = self.daemon.watch.log
        self.daemon.watch.log = self._note

    def _note(self, found: Found) -> None:
        self.judged += found.judged
        self._log(found)

    def feed(self, *slots: int, change: Change | None = None) -> None:
        self.now = self.begin - self.ahead_seconds + (max(slots) + 4 / 3) * INTERVAL
        part: dict[str, list[Point]] = {}
        for name, point in self.in_slots(min(slots), max(slots)):
            if (changed := change(name, point) if change else point) is not None:
                part.setdefault(name, []).append(changed)
        remote_write(self.server.url, part, ("me", "secret"))

    def begin_watching(self) -> None:
        self.feed(*range(FIRST))
        assert self.daemon.poll() is False

    def found(self) -> list[tuple[int, str, str]]:
        """Time, severity and cause of the anomalies in the log."""
        verdicts = [one.verdict for one in self.judged]
        return [(one.time, one.status, one.possible_cause) for one in verdicts if one.is_anomaly]

    def close(self) -> None:
        self.store.__exit__()
        self.api.close()
        self.client.close()


@pytest.fixture(params=PROGRAMS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PrometheusServer]:
    with PrometheusServer(tmp_path / "server", request.param) as server:
        yield server


@pytest.fixture
def watched(server: PrometheusServer, tmp_path: Path) -> Iterator[Watched]:
    """The first slots are judged; the next slot is FIRST."""
    watched = Watched(server, tmp_path)
    watched.begin_watching()
    yield watched
    watched.close()


def test_it_finds_what_the_detector_finds_and_shows_it_in_its_metrics(watched: Watched) -> None:
    watched.live(*range(FIRST, SLOTS))
    assert watched.found() == watched.expected()
    alerts = [cause for _, severity, cause in watched.expected() if severity == "alert"]
    value = watched.metrics.registry.get_sample_value
    assert value("find_anomalies_alerts_total", {"cause": "cpu"}) == sum("cpu" in one for one in alerts)
    usage = watched.judged[-1].verdict.values["cpu_usage"]
    assert value("find_anomalies_value", {"field": "cpu_usage"}) == usage
    assert watched.store.depth == 0


@pytest.mark.parametrize(
    ("fail", "mend", "words"),
    [
        pytest.param(PrometheusServer.kill, PrometheusServer.start, "cannot be reached", id="crashed"),
        pytest.param(PrometheusServer.stop, PrometheusServer.start, "cannot be reached", id="stopped"),
        pytest.param(PrometheusServer.pause, PrometheusServer.resume, "did not answer within", id="hung"),
    ],
)
def test_a_server_that_is_away_loses_nothing_and_is_said_once(
    watched: Watched,
    fail: Callable[[PrometheusServer], None],
    mend: Callable[[PrometheusServer], None],
    words: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    watched.live(*range(FIRST, 18))
    caplog.clear()
    fail(watched.server)
    assert [watched.daemon.poll() for _ in range(2)] == [True, True]
    assert len(said(caplog)) == 1
    assert said(caplog)[0].startswith(f"Prometheus at {watched.name} {words}")
    mend(watched.server)
    watched.live(*range(18, SLOTS))
    assert watched.found() == watched.expected()
    again = f"Prometheus at {watched.name} is reachable again"
    assert [line for line in said(caplog) if "again" in line and "Prometheus" in line] == [again]


RESULT = '{"status":"success","data":{"resultType":"matrix","result":[{"metric":{%s},"values":[%s]}]}}'
STRANGE = [
    (200, "{}"),
    (200, "[]"),
    (200, "null"),
    (200, "<html>"),
    (200, ""),
    (200, "[" * 100_000),
    (200, RESULT[:60]),
    (200, '{"status":"success","data":{"result":7}}'),
    (200, '{"status":"success","data":[]}'),
    (200, RESULT % ("", '[1,"abc"]')),
    (200, RESULT % ("", '[1,"1_000"]')),
    (200, RESULT % ("", "[1,2]")),
    (200, RESULT % ("", '["1","2"]')),
    (200, RESULT % ("", '[true,"2"]')),
    (200, RESULT % ("", '[1e999,"2"]')),
    (200, RESULT % ("", '[1,"2",3]')),
    (200, RESULT % ('"cpu":7', '[1,"2"]')),
    (302, ""),
]


def test_answers_that_are_not_prometheus_s_are_a_fault_like_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with PrometheusServer(tmp_path / "server", "prometheus") as server:
        proxy = Proxy(server.port)
        watched = Watched(server, tmp_path, proxy.port)
        watched.begin_watching()
        watched.live(*range(FIRST, 18))
        faults = [(status, content, "") for status, content in STRANGE]
        faults += [
            (503, "away", "answered with an error (HTTP status 503)"),
            (401, "", "refused the credentials; check --prometheus_user and --prometheus_pass"),
            (403, "", "does not let this user read; check --prometheus_user"),
            (400, '{"status":"error","error":"bad\\n data"}', "answered with an error (bad data)"),
            (200, '{"status":"success","isPartial":true,"data":{"result":[]}}', "is not complete"),
        ]
        for status, content, words in faults:
            caplog.clear()
            proxy.status, proxy.content = status, content.encode()
            assert watched.daemon.poll() is True
            assert len(said(caplog)) <= 1
            assert words in "".join(said(caplog)), (status, content)
            proxy.status = None
            assert watched.daemon.poll() is False
        watched.live(*range(18, SLOTS))
        assert watched.found() == watched.expected()
        watched.close()
        proxy.close()


def test_a_wrong_password_is_said_once_and_never_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    guard = ["-httpAuth.username=me", "-httpAuth.password=secret"]
    with PrometheusServer(tmp_path / "server", "victoria-metrics", guard) as server:
        (tmp_path / "wrong").mkdir()
        (tmp_path / "right").mkdir()
        wrong = Watched(server, tmp_path / "wrong", password="hush")
        wrong.feed(*range(FIRST))
        assert [wrong.daemon.poll(), wrong.daemon.poll()] == [True, True]
        assert said(caplog) == [
            f"Prometheus at {server.url} refused the credentials; check --prometheus_user and"
            " --prometheus_pass"
        ]
        assert "hush" not in caplog.text
        wrong.close()
        right = Watched(server, tmp_path / "right", is_stored=True)
        right.begin_watching()
        right.live(*range(FIRST, SLOTS))
        assert right.found() == right.expected()
        right.close()


def test_victoria_metrics_takes_the_anomalies_and_needs_no_database(tmp_path: Path) -> None:
    with PrometheusServer(tmp_path / "server", "victoria-metrics") as server:
        watched = Watched(server, tmp_path, is_stored=True)
        watched.begin_watching()
        watched.live(*range(FIRST, SLOTS))
        assert watched.store.depth == 0
        remote_write(server.url, {})
        stored = watched.api.query("detected_anomalies_cpu_usage[1h]", int(watched.now) * SECOND)
        points = [
            (round(second * 1000), one["metric"]["severity"], one["metric"]["possible_cause"])
            for one in stored
            for second, _ in one["values"]
        ]
        expected = [(at // 10**6, severity, cause) for at, severity, cause in watched.expected()]
        assert sorted(points) == sorted(expected)
        assert {one["metric"]["instance"] for one in stored} == {"edge:9100"}
        watched.close()


def test_anomalies_wait_while_their_server_is_away_and_judging_goes_on(
    server: PrometheusServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watched = Watched(server, tmp_path, is_stored=True)
    watched.daemon.delivery._client = initializeConnection("127.0.0.1", 1, "", "")
    watched.begin_watching()
    for slot in range(FIRST, SLOTS):
        watched.feed(slot)
        watched.daemon.poll()
    assert watched.found() == watched.expected()
    assert watched.store.depth == len(watched.expected())
    away = [line for line in said(caplog) if "cannot be reached" in line]
    assert away == [
        f"InfluxDB at 127.0.0.1:{server.port} cannot be reached; check --influx_host, --influx_port and that"
        " it runs"
    ]
    watched.close()


def test_an_exporter_that_ends_is_unknown_and_said_once(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    for slot in range(FIRST, SLOTS):
        watched.feed(slot, change=lambda name, point: None if name == RX_CPU else point)
        assert watched.daemon.poll() is False
    late = [one for one in watched.judged if one.verdict.time >= (watched.begin + FIRST * INTERVAL) * SECOND]
    assert late
    assert all(RX_CPU in one.faults and "cpu_rx" in one.verdict.unknown for one in late)
    assert len([line for line in said(caplog) if RX_CPU in line]) == 1


def test_another_instance_stays_out(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    def other(_: str, point: Point) -> Point:
        return point | {"instance": f"x{point['instance']}", "value": 0.0}

    for slot in range(FIRST, SLOTS):
        watched.feed(slot, change=other)
        watched.feed(slot)
        assert watched.daemon.poll() is False
    assert watched.found() == watched.expected()
    assert len([line for line in said(caplog) if "stays watched" in line]) == 2


def test_a_clock_that_is_an_hour_ahead_is_followed(server: PrometheusServer, tmp_path: Path) -> None:
    watched = Watched(server, tmp_path, ahead_seconds=3600)
    for slot in range(SLOTS):
        watched.feed(slot)
        assert watched.daemon.poll() is False
    expected = watched.expected()
    assert watched.found() == expected
    watched.close()


def test_the_remedy_for_samples_of_a_clock_that_was_ahead_helps(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with PrometheusServer(tmp_path / "server", "victoria-metrics") as server:
        watched = Watched(server, tmp_path, ahead_seconds=150)
        # What came before has times up to the 24th of the slots that follow.
        for slot in range(14):
            watched.feed(slot)
            watched.daemon.poll()
        for points in watched.samples.values():
            for point in points:
                point["time"] -= 150 * SECOND
        watched.begin -= 150
        watched.ahead_seconds = 0
        watched.judged.clear()
        for slot in range(14, 21):
            watched.feed(slot)
            watched.daemon.poll()
        assert watched.judged == []
        (line,) = (line for line in said(caplog) if "the samples' clock went back by about " in line)
        assert line.endswith(
            "or until the old ones are deleted: POST /api/v1/admin/tsdb/delete_series with match[] and start;"
            " VictoriaMetrics takes no start and deletes whole series"
        )
        deletion = f"{server.url}/api/v1/admin/tsdb/delete_series"
        assert requests.post(deletion, data={"match[]": '{instance!=""}'}, timeout=30).status_code == 204
        for slot in range(21, SLOTS):
            watched.feed(slot)
            watched.daemon.poll()
        assert (watched.judged[-1].verdict.time // SECOND - watched.begin) // INTERVAL == SLOTS - 1
        watched.close()
