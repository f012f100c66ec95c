"""What Prometheus is told of the incidents of ports."""

from __future__ import annotations

from ports.exporter import PortMetrics
from ports.incidents import OF_PORT, PortIncident, Watched
from ports.judging import Report
from ports.state import JobState

# 2023-02-01T10:00:00Z
SINCE = 1_675_245_600
WATCH = ("core_1_in", "profile")


def labels_of(metrics: PortMetrics) -> list[dict[str, str]]:
    """The labels of the open incidents that are shown."""
    families = {family.name: family for family in metrics.registry.collect()}
    return [sample.labels for sample in families["find_anomalies_ports_open_incident"].samples]


def test_an_open_incident_is_shown_from_the_run_that_finds_it_to_the_one_that_closes_it() -> None:
    metrics = PortMetrics()
    assert labels_of(metrics) == []
    incident = PortIncident(
        OF_PORT, "core_1_in", "profile", SINCE + 3600, SINCE, SINCE + 7200, 10.4, 14.8e6, 2.85e6, 287e6
    )
    metrics.good_run(Report(1, None, JobState(watched={WATCH: Watched(incident, 15)})), 1.0)
    (labels,) = labels_of(metrics)
    assert {key: labels[key] for key in ("incident", "node", "cause", "since")} == {
        "incident": "core_1_in@20230201T100000Z",
        "node": "core_1_in",
        "cause": "traffic",
        "since": "2023-02-01T10:00:00Z",
    }
    assert "core_1_in" in labels["why"]
    metrics.good_run(Report(1, None, JobState(watched={WATCH: Watched()})), 1.0)
    assert labels_of(metrics) == []
