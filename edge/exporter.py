"""Metrics of test mode and of the node, for Prometheus."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from common.alerts import ALERT, ANOMALY, NORMAL, UNKNOWN
from edge.detector import UNKNOWN_CAUSE, Verdict
from edge.sensitivity import Curve
from nodes.metrics import METRICS, MetricTable
from nodes.names import NodePatterns
from service.exporter import Exporter
from service.incident_series import IncidentSeries

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

# What a node is without a new record, if its samples cannot be read, and if it cannot be watched yet.
SILENT, FAILING, WITHOUT_MODEL = "silent", "failing", "without a model"
# Gauge -> what it shows, in the order of edge.levels.Level.
LEVEL_GAUGES = {
    "level": "Level",
    "expected_low": "Lowest level that is allowed",
    "expected": "Level that is expected",
    "expected_high": "Highest level that is allowed",
}
STATUSES_OF_NODES = (ALERT, ANOMALY, UNKNOWN, SILENT, FAILING, WITHOUT_MODEL, NORMAL)


class EdgeMetrics(Exporter):
    """Counts of polls and verdicts, and how things stand.

    nodes: patterns of the nodes that have series of their own, with the label `node`, since there may be a
    thousand; all others only count. None if there is one node, whose series have no such label.
    """

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        nodes: Iterable[str] | None = None,
        is_read: bool = True,
    ) -> None:
        super().__init__(registry, is_read)
        self._nodes = None if nodes is None else NodePatterns(nodes)
        self._foreign: set[str] = set()
        self._drifting: set[str] = set()
        self._with_curve: dict[str, set[str]] = {}
        of_node = () if nodes is None else ("node",)
        self._last_good_poll = time.monotonic()
        self._newest_record = math.nan
        counter, gauge = self.counter, self.gauge
        self.polls = counter("polls", "Polls started")
        self.skipped = counter("skipped_polls", "Polls skipped because one before took too long")
        self.failures = counter("poll_failures", "Polls that failed", "kind")
        self.unknown = counter(
            "unknown_verdicts", "Records without a usable sample of this series", *of_node, "series"
        )
        self.anomalies = counter("anomalies", "Records that are anomalies", "cause")
        self.alerts = counter(
            "alerts", "Anomalies that are alerts: the 4th in a row or later, or one of many", "cause"
        )
        self.dropped = counter("spool_dropped", "Points dropped because the spool was full")
        self.damaged = counter("spool_damaged", "Damaged rows of the spool, set aside")
        self.refused = counter("refused_points", "Points dropped because InfluxDB keeps nothing that old")
        self.expected_waiting = gauge(
            "expected_waiting", "Files of points of `expected` that InfluxDB does not have yet"
        )
        self.expected_dropped = counter(
            "expected_dropped", "Files of points of `expected` that were dropped: no room, or refused"
        )
        self.spool_depth = gauge("spool_depth", "Points that InfluxDB does not have yet")
        self.spool_refused = gauge("spool_refused", "Points of the spool that InfluxDB refuses")
        self.incident = gauge("incident_open", "Open incidents, of one node each")
        self.quiet_nodes = gauge("quiet_nodes", "Nodes that maintenance or a calendar keeps quiet now")
        self.open_incidents = IncidentSeries(self, "open_incident")
        self.rmse = gauge("rmse", "RMSE over the window of the newest record", *of_node, "metric")
        self.values = gauge(
            "value", "What InfluxDB stores of an anomaly, of the newest record", *of_node, "field"
        )
        # The level of the newest record, what is expected, and what is allowed.
        self.levels = tuple(
            gauge(name, f"{text} of the newest record, in the unit of the metric", *of_node, "metric")
            for name, text in LEVEL_GAUGES.items()
        )
        self.threshold = gauge("threshold", "The threshold in force", *of_node, "metric")
        self.clock_offset = gauge(
            "clock_offset_seconds", "How far the samples' clock is ahead of this host's (estimate)", *of_node
        )
        self.foreign_thresholds = gauge(
            "foreign_thresholds", "Nodes with thresholds in force that were proposed for another model"
        )
        self.smallest_change = gauge(
            "smallest_change",
            "Smallest change found within 4 records, in the unit of the metric",
            *of_node,
            "metric",
        )
        self.blind = gauge("blind", "1 while not even a doubling, or 30 points, is found", *of_node, "metric")
        self.drift = gauge("drift", "1 while what is normal for this metric has changed", *of_node, "metric")
        if nodes is not None:
            self.nodes = gauge("nodes", "Nodes by the status of their newest record", "status")
            self.drifting_nodes = gauge("drifting_nodes", "Nodes of which any metric drifts")
        age = gauge("seconds_since_last_good_poll", "Time since the last good poll, or since the start")
        age.set_function(lambda: time.monotonic() - self._last_good_poll)
        silence = gauge("seconds_since_newest_record", "Age of the newest record judged")
        silence.set_function(lambda: time.time() - self._newest_record)

    def good_poll(self) -> None:
        """Note that a poll did not fail."""
        self._last_good_poll = time.monotonic()

    def shows(self, node: str) -> bool:
        """Whether a node has series of its own."""
        return self._nodes is None or self._nodes.matches(node)

    def _of(self, node: str) -> tuple[str, ...]:
        return () if self._nodes is None else (node,)

    def show(self, verdict: Verdict, missing: Iterable[str], node: str = "") -> None:
        """Count one verdict, and the series that are missing from its record."""
        # One label for each cause: combinations of eight would be many series.
        for cause in (verdict.causes or (UNKNOWN_CAUSE,)) if verdict.is_anomaly else ():
            self.anomalies.labels(cause).inc()
            if verdict.status == ALERT:
                self.alerts.labels(cause).inc()
        if self._nodes is None:
            self._newest_record = verdict.time / 1e9
        if self.shows(node):
            for series in missing:
                self.unknown.labels(*self._of(node), series).inc()
            for name, rmse in verdict.rmse.items():
                self.rmse.labels(*self._of(node), name).set(rmse)
            for name, value in verdict.values.items():
                self.values.labels(*self._of(node), name).set(value)

    def show_levels(self, levels: Mapping[str, Sequence[float]], node: str = "") -> None:
        """Show what is, what is expected and what is allowed: metric -> the four of edge.levels.Level."""
        for metric, values in levels.items():
            for gauge, value in zip(self.levels, values, strict=True):
                gauge.labels(*self._of(node), metric).set(value)

    def show_silence(self, metrics: MetricTable = METRICS, node: str = "") -> None:
        """Show that nothing is known about the node at the moment."""
        if self.shows(node):
            for name in metrics.threshold_keys:
                self.rmse.labels(*self._of(node), name).set(math.nan)
            for name in metrics.stored.values():
                self.values.labels(*self._of(node), name).set(math.nan)
            if self.is_read:
                self.show_levels(dict.fromkeys(metrics, (math.nan,) * len(LEVEL_GAUGES)), node)

    def show_thresholds(
        self, thresholds: dict[str, float], metrics: MetricTable = METRICS, node: str = ""
    ) -> None:
        """Show the thresholds in force."""
        if self.shows(node):
            for name, key in metrics.threshold_keys.items():
                self.threshold.labels(*self._of(node), name).set(thresholds[key])

    def show_foreign_thresholds(self, are_foreign: bool, node: str = "") -> None:
        """Show whether thresholds of another model are in force."""
        (self._foreign.add if are_foreign else self._foreign.discard)(node)
        self.foreign_thresholds.set(len(self._foreign))

    def show_sensitivity(
        self,
        curves: Mapping[str, Curve],
        thresholds: dict[str, float],
        metrics: MetricTable = METRICS,
        node: str = "",
    ) -> None:
        """Show what is found of each metric with the thresholds in force."""
        if not self.shows(node):
            return
        for name in self._with_curve.get(node, set()) - set(curves):
            self.smallest_change.remove(*self._of(node), name)
            self.blind.remove(*self._of(node), name)
        self._with_curve[node] = set(curves)
        for name, curve in curves.items():
            threshold = thresholds[metrics[name].threshold_key]
            self.smallest_change.labels(*self._of(node), name).set(curve.smallest(threshold))
            self.blind.labels(*self._of(node), name).set(curve.is_blind(threshold))

    def show_drift(self, drifting: Collection[str], metrics: MetricTable = METRICS, node: str = "") -> None:
        """Show the metrics whose normal has changed."""
        (self._drifting.add if drifting else self._drifting.discard)(node)
        if self._nodes is not None:
            self.drifting_nodes.set(len(self._drifting))
        if self.shows(node):
            for name in metrics.threshold_keys:
                self.drift.labels(*self._of(node), name).set(name in drifting)

    def show_clock(self, offset_seconds: float, node: str = "") -> None:
        """Show how far the clock of a node's samples is ahead."""
        if self.shows(node):
            gauge = self.clock_offset if self._nodes is None else self.clock_offset.labels(node)
            gauge.set(offset_seconds)

    def show_nodes(self, counts: Mapping[str, int], newest: int | None) -> None:
        """Show how many nodes have which status, and the newest record (ns) of a poll, if there was any."""
        if newest is not None:
            self._newest_record = newest / 1e9
        for status in STATUSES_OF_NODES:
            self.nodes.labels(status).set(counts.get(status, 0))
