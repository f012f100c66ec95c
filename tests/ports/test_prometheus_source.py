"""Ports whose counters are in a real Prometheus or VictoriaMetrics."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import find_anomalies
from common.files import UnavailableError, UserError
from lab.prometheus import PrometheusServer
from lab.remote_write import remote_write
from nodes.series import Point
from ports.prometheus_source import PrometheusPorts
from prometheus_utils import Prometheus
from tests.support.port_series import DAY, START, change, samples

SECOND = 10**9
FLOOD = ("2023-02-01T10:00", "2023-02-01T12:00")


@pytest.fixture(params=["prometheus", "victoria-metrics"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PrometheusServer]:
    long = ["--storage.tsdb.retention.time=10y"] if request.param == "prometheus" else []
    with PrometheusServer(tmp_path / "server", request.param, long) as server:
        yield server


def readings(times: np.ndarray, values: np.ndarray, **labels: str) -> list[Point]:
    return [
        {"time": int(time) * SECOND, "value": float(value)} | labels
        for time, value in zip(times, values, strict=True)
    ]


def test_counters_are_judged_as_what_they_count(
    server: PrometheusServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    times, traffic = samples(31)
    change(times, traffic, *FLOOD, 5.0)
    counter = {"ifHCInOctets": readings(times, np.cumsum(traffic), instance="core_1", ifName="ge-0/0/1")}
    counter["ifHCOutOctets"] = readings(times[-3:], traffic[-3:], instance="core_1")
    remote_write(server.url, counter)
    options = ["--target=ports", "--jobs=1", "--source=prometheus", f"--prometheus_url={server.url}"]
    trained = [*options, "--mode=train", "--timezone=UTC", "--train_days=28", "--until=2023-02-01"]
    assert find_anomalies.main(trained) == 0
    stored = ["--anomalies=influxdb", "--influx_host=127.0.0.1", f"--influx_port={server.port}"]
    is_stored = server.program == "victoria-metrics"
    tested = [*options, *(stored if is_stored else []), "--mode=test", "--once", "--until=2023-02-02"]
    assert find_anomalies.main(tested) == 0
    opened = [line for line in caplog.messages if "incident opens: core%5F1_ge-0%2F0%2F1_in " in line]
    assert len(opened) == 1
    assert "[core%5F1_ge-0%2F0%2F1_in@20230201T100000Z]" in opened[0]
    no_port = (
        "1 series are of no port and are not judged: ifHCInOctets and ifHCOutOctets need the labels instance"
        " and ifName (or ifDescr, or ifIndex), port_traffic needs device, port and direction (in or out),"
        " printable and at most 200 bytes together; there is ifHCOutOctets with {'instance': 'core_1'}"
    )
    assert caplog.messages.count(no_port) == 1
    if is_stored:
        remote_write(server.url, {})
        client = Prometheus(server.url)
        (found,) = client.query("detected_port_anomalies_score[1d]", (START + 31 * DAY) * SECOND)[:1]
        assert (found["metric"]["device"], found["metric"]["port"]) == ("core_1", "ge-0/0/1")
        client.close()


def test_samples_come_from_after_the_start_to_the_end_in_pages(server: PrometheusServer) -> None:
    times = START + 3600 * np.arange(20 * 24)
    labels = {"device": "a", "port": "1", "direction": "out"}
    remote_write(server.url, {"port_traffic": readings(times, times - START, **labels)})
    client = Prometheus(server.url)
    source = PrometheusPorts(client, None, int(times[-1]))
    assert (source.names(), source.no_ports) == (["a_1_out"], [])
    found = source.load("a_1_out", START, int(times[-2]))
    assert found.times.tolist() == times[1:-1].tolist()
    assert found.traffic.tolist() == (times[1:-1] - START).tolist()
    client.close()


def test_a_port_goes_on_in_another_series_but_not_in_two_at_once(server: PrometheusServer) -> None:
    hours = START + 3600 * np.arange(10)
    port = {"instance": "a", "ifName": "1"}
    first = readings(hours[:5], hours[:5], **port, job="x")
    second = readings(hours[5:], hours[5:], **port, job="y")
    remote_write(server.url, {"ifHCInOctets": [*first, *second]})
    client = Prometheus(server.url)
    source = PrometheusPorts(client, None, int(hours[-1]))
    assert source.load("a_1_in", START - 1, int(hours[-1])).times.tolist() == hours.tolist()
    remote_write(server.url, {"ifHCInOctets": readings(hours[-1:], hours[-1:], **port, job="z")})
    found = source.load("a_1_in", START - 1, int(hours[-1]))
    assert isinstance(found, UserError)
    assert str(found) == (
        "a_1_in: is written by 2 series at once (their 'job': 'y' and 'z'); write only one of them, or give"
        " each its own device or port"
    )
    client.close()


def test_a_foreign_sample_leaves_its_cell_unknown_and_nothing_else(server: PrometheusServer) -> None:
    times = START + 300 * np.arange(1, 101)
    port = {"instance": "a", "ifName": "1"}
    foreign = readings(times[50:51] + 7, times[:1], **port, job="foreign")
    remote_write(server.url, {"ifHCInOctets": [*readings(times, times, **port), *foreign]})
    client = Prometheus(server.url)
    found = PrometheusPorts(client, None, int(times[-1])).load("a_1_in", START, int(times[-1]))
    assert found.times.tolist() == sorted([*times.tolist(), int(times[50]) + 7])
    assert np.flatnonzero(np.isnan(found.traffic)).tolist() == [50, 51]
    assert found.traffic[[49, 52]].tolist() == times[[49, 51]].tolist()
    client.close()


def test_two_series_that_were_side_by_side_for_a_day_leave_that_day_unknown(
    server: PrometheusServer,
) -> None:
    hours = START + 3600 * np.arange(1, 73)
    port = {"instance": "a", "ifName": "1"}
    other = readings(hours[24:48], hours[24:48], **port, job="second")
    remote_write(server.url, {"ifHCInOctets": [*readings(hours, hours, **port, job="first"), *other]})
    client = Prometheus(server.url)
    found = PrometheusPorts(client, None, int(hours[-1])).load("a_1_in", START, int(hours[-1]))
    assert found.times.tolist() == hours.tolist()
    assert np.flatnonzero(np.isnan(found.traffic)).tolist() == list(range(24, 48))
    client.close()


def test_a_server_without_ports_is_one_line(server: PrometheusServer) -> None:
    client = Prometheus(server.url)
    with pytest.raises(UnavailableError) as refused:
        PrometheusPorts(client, None)
    assert str(refused.value) == (
        f"Prometheus at {server.url} has no ifHCInOctets or ifHCOutOctets with the labels instance and"
        " ifName, and no port_traffic, from the last 28 days; check --prometheus_url, or give --ports_dir"
    )
    client.close()


def test_a_server_that_is_away_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    options = ["--target=ports", "--mode=test", "--once", "--source=prometheus", f"--state_dir={tmp_path}"]
    assert find_anomalies.main([*options, "--prometheus_url=http://127.0.0.1:1"]) == 1
    assert capfd.readouterr().err.splitlines()[-1] == (
        "find_anomalies.py: Prometheus at http://127.0.0.1:1 cannot be reached; check --prometheus_url and"
        " that it runs"
    )
