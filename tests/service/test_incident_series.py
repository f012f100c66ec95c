"""Open incidents for Prometheus: those that are open, at most twenty, whatever is in their names."""

from __future__ import annotations

import pytest

from lab.influxd import free_port
from service.exporter import Exporter
from service.incident_series import MOST_INCIDENTS, IncidentSeries
from tests.support.scrapes import scrape


def entry(name: str, cause: str = "cpu", minute: int = 0) -> dict[str, str]:
    opened = f"2026-03-06T12:{minute:02d}:00Z"
    began = "2026-03-06T11:59:14Z"
    return {"id": name, "node": "n", "cause": cause, "began": began, "opened": opened, "why": "w"}


def line(name: str, cause: str = "cpu") -> str:
    labels = f'cause="{cause}",incident="{name}",node="n",since="2026-03-06T11:59:14Z",why="w"'
    return f"find_anomalies_open_incident{{{labels}}}"


@pytest.fixture
def exporter() -> Exporter:
    return Exporter()


def shown(exporter: Exporter) -> set[str]:
    (family,) = (one for one in exporter.registry.collect() if one.name == "find_anomalies_open_incident")
    assert all(sample.value == 1 for sample in family.samples)
    found = set()
    for sample in family.samples:
        labels = ",".join(f'{key}="{value}"' for key, value in sorted(sample.labels.items()))
        found.add(f"{sample.name}{{{labels}}}")
    return found


def test_those_that_are_open_are_shown_and_no_others_any_more(exporter: Exporter) -> None:
    series = IncidentSeries(exporter, "open_incident")
    assert shown(exporter) == set()
    series.show([entry("a"), entry("b")])
    assert shown(exporter) == {line("a"), line("b")}
    # More is known of the first, and the second has ended.
    series.show([entry("a", "cpu | mem")])
    assert shown(exporter) == {line("a", "cpu | mem")}
    series.show([])
    assert shown(exporter) == set()


def test_the_first_twenty_are_shown_and_the_others_counted(exporter: Exporter) -> None:
    series = IncidentSeries(exporter, "open_incident")
    every = [entry(f"i{minute:02d}", minute=minute) for minute in range(25)]
    series.show(reversed(every))
    assert shown(exporter) == {line(f"i{minute:02d}") for minute in range(MOST_INCIDENTS)}
    more = "find_anomalies_open_incidents_not_shown"
    assert exporter.registry.get_sample_value(more) == 5
    # One of the first has ended: the next one takes its place, and none of the others moves.
    series.show(every[1:])
    assert shown(exporter) == {line(f"i{minute:02d}") for minute in range(1, MOST_INCIDENTS + 1)}
    assert exporter.registry.get_sample_value(more) == 4


def test_any_name_can_be_scraped(exporter: Exporter) -> None:
    series = IncidentSeries(exporter, "open_incident")
    series.show([entry('a "b"\\\n{c}'), entry("half \ud800"), entry("x" * 100_000)])
    port = free_port("127.0.0.1")
    exporter.serve("127.0.0.1", port)
    found = [name for name in scrape(port) if "open_incident{" in name]
    assert sorted(found) == sorted([line('a \\"b\\"\\\\\\n{c}'), line("half ?"), line("x" * 500)])
