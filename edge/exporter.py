"""Metrics of test mode and of the node, for Prometheus."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from common.alerts import ALERT
from edge.detector import UNKNOWN_CAUSE, Verdict
from edge.sensitivity import Curve
from nodes.metrics import METRICS, MetricTable
from service.exporter import Exporter

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class EdgeMetrics(Exporter):
    """Counts of polls and verdicts, and how things stand."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        super().__init__(registry)
        self._last_good_poll = time.monotonic()
        self._newest_record = math.nan
        counter, gauge = self.counter, self.gauge
        self.polls = counter("polls", "Polls started")
        self.skipped = counter("skipped_polls", "Polls skipped because one before took too long")
        self.failures = counter("poll_failures", "Polls that failed", "kind")
        self.unknown = counter("unknown_verdicts", "Records without a usable sample of this series", "series")
        self.anomalies = counter("anomalies", "Records that are anomalies", "cause")
        self.alerts = counter(
            "alerts", "Anomalies that are alerts: the 4th in a row or later, or one of many", "cause"
        )
        self.dropped = counter("spool_dropped", "Points dropped because the spool was full")
        self.damaged = counter("spool_damaged", "Damaged rows of the spool, set aside")
        self.refused = counter("refused_points", "Points dropped because InfluxDB keeps nothing that old")
        self.spool_depth = gauge("spool_depth", "Points that InfluxDB does not have yet")
        self.spool_refused = gauge("spool_refused", "Points of the spool that InfluxDB refuses")
        self.incident = gauge("incident_open", "1 while an incident is open")
        self.rmse = gauge("rmse", "RMSE over the window of the newest record", "metric")
        self.values = gauge("value", "What InfluxDB stores of an anomaly, of the newest record", "field")
        self.threshold = gauge("threshold", "The threshold in force", "metric")
        self.clock_offset = gauge(
            "clock_offset_seconds", "How far the samples' clock is ahead of this host's (estimate)"
        )
        self.foreign_thresholds = gauge(
            "foreign_thresholds", "1 while thresholds proposed for another model are in force"
        )
        self.smallest_change = gauge(
            "smallest_change", "Smallest change found within 4 records, in the unit of the metric", "metric"
        )
        self.blind = gauge("blind", "1 while not even a doubling, or 30 points, is found", "metric")
        self._with_curve: set[str] = set()
        self.drift = gauge("drift", "1 while what is normal for this metric has changed", "metric")
        age = gauge("seconds_since_last_good_poll", "Time since the last good poll, or since the start")
        age.set_function(lambda: time.monotonic() - self._last_good_poll)
        silence = gauge("seconds_since_newest_record", "Age of the newest record judged")
        silence.set_function(lambda: time.time() - self._newest_record)

    def good_poll(self) -> None:
        """Note that a poll did not fail."""
        self._last_good_poll = time.monotonic()

    def show(self, verdict: Verdict, missing: Iterable[str]) -> None:
        """Count one verdict, and the series that are missing from its record."""
        for series in missing:
            self.unknown.labels(series).inc()
        # One label for each cause: combinations of eight would be many series.
        for cause in (verdict.causes or (UNKNOWN_CAUSE,)) if verdict.is_anomaly else ():
            self.anomalies.labels(cause).inc()
            if verdict.status == ALERT:
                self.alerts.labels(cause).inc()
        for name, rmse in verdict.rmse.items():
            self.rmse.labels(name).set(rmse)
        for name, value in verdict.values.items():
            self.values.labels(name).set(value)
        self._newest_record = verdict.time / 1e9

    def show_silence(self, metrics: MetricTable = METRICS) -> None:
        """Show that nothing is known about the node at the moment."""
        for name in metrics.threshold_keys:
            self.rmse.labels(name).set(math.nan)
        for name in metrics.stored.values():
            self.values.labels(name).set(math.nan)

    def show_thresholds(self, thresholds: dict[str, float], metrics: MetricTable = METRICS) -> None:
        """Show the thresholds in force."""
        for name, key in metrics.threshold_keys.items():
            self.threshold.labels(name).set(thresholds[key])

    def show_sensitivity(
        self, curves: Mapping[str, Curve], thresholds: dict[str, float], metrics: MetricTable = METRICS
    ) -> None:
        """Show what is found of each metric with the thresholds in force."""
        if curves.keys() != self._with_curve:
            self._with_curve = set(curves)
            self.smallest_change.clear()
            self.blind.clear()
        for name, curve in curves.items():
            threshold = thresholds[metrics[name].threshold_key]
            self.smallest_change.labels(name).set(curve.smallest(threshold))
            self.blind.labels(name).set(curve.is_blind(threshold))

    def show_drift(self, drifting: Collection[str], metrics: MetricTable = METRICS) -> None:
        """Show the metrics whose normal has changed."""
        for name in metrics.threshold_keys:
            self.drift.labels(name).set(name in drifting)
