"""What the hourly job tells Prometheus about itself and the ports."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from common.alerts import ALERT
from ports.judging import Report
from service.exporter import Exporter
from service.incident_series import IncidentSeries

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class PortMetrics(Exporter):
    """Counts of runs and anomalies, and the state of the last run; only incidents have names of ports."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        super().__init__(registry)
        self._last_good_run = time.monotonic()
        counter, gauge = self.counter, self.gauge
        self.runs = counter("ports_runs", "Runs started")
        self.failures = counter("ports_run_failures", "Runs that failed", "kind")
        self.anomalies = counter(
            "ports_anomalies", "Buckets that are stored as anomalies", "detector", "direction"
        )
        self.alerts = counter(
            "ports_alerts",
            "Anomalies that are alerts: the 4th in a row or later, or one of many",
            "detector",
            "direction",
        )
        self.incidents = gauge(
            "ports_incidents_open", "Open incidents: of a port, a device or all devices", "scope", "detector"
        )
        self.open_incidents = IncidentSeries(self, "ports_open_incident")
        self.series = gauge("ports_series", "Series in the last good run: judged, unknown, ...", "state")
        self.seconds = gauge("ports_last_good_run_seconds", "How long the last good run took")
        age = gauge("ports_seconds_since_last_good_run", "Time since the last good run, or since the start")
        age.set_function(lambda: time.monotonic() - self._last_good_run)

    def good_run(self, report: Report, lasted_seconds: float) -> None:
        """Count a run that did not fail, once all that it found is stored."""
        self._last_good_run = time.monotonic()
        self.seconds.set(lasted_seconds)
        states = {
            "judged": len(report.newest) - len(report.silent),
            "unknown": len(report.silent),
            "without model": len(report.untrained),
            "fault": len(report.faults),
        }
        for state, count in states.items():
            self.series.labels(state).set(count)
        self.incidents.clear()
        for (scope, detector), count in report.state.open_incidents().items():
            self.incidents.labels(scope, detector).set(count)
        self.open_incidents.show(one.entry() for one in report.state.open_alone_or_shared())
        for anomaly in report.anomalies:
            labels = anomaly.detector, anomaly.tags["direction"]
            self.anomalies.labels(*labels).inc()
            if anomaly.severity == ALERT:
                self.alerts.labels(*labels).inc()
