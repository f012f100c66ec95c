"""What Prometheus may scrape of the daemon itself."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from common.alerts import ALERT
from common.files import UserError
from edge.detector import UNKNOWN_CAUSE, Verdict
from nodes.metrics import METRICS, MetricTable

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class Metrics:
    """What Prometheus may scrape of the daemon itself."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge

        self.registry = registry or CollectorRegistry()
        self._last_good_poll = time.monotonic()
        self._newest_record = math.nan

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"find_anomalies_{name}", text, labels, registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"find_anomalies_{name}", text, labels, registry=self.registry)

        self.polls = counter("polls", "Polls begun")
        self.skipped = counter("skipped_polls", "Polls that a slow one left no time for")
        self.failures = counter("poll_failures", "Polls that failed", "kind")
        self.unknown = counter(
            "unknown_verdicts", "Records that had no usable sample of this series", "series"
        )
        self.anomalies = counter("anomalies", "Records that are anomalies", "cause")
        self.alerts = counter(
            "alerts", "Anomalies that are an alert: 4th in a row or later, or of many", "cause"
        )
        self.dropped = counter("spool_dropped", "Points dropped, for the spool was full")
        self.damaged = counter("spool_damaged", "Rows of the spool that were damaged, and are set aside")
        self.refused = counter("refused_points", "Points older than all that InfluxDB keeps, dropped")
        self.spool_depth = gauge("spool_depth", "Points that InfluxDB does not have yet")
        self.spool_refused = gauge("spool_refused", "Of these, points that InfluxDB refuses")
        self.incident = gauge("incident_open", "1 while an incident goes on")
        self.rmse = gauge("rmse", "RMSE over the window of the newest record", "metric")
        self.threshold = gauge("threshold", "The threshold in force", "metric")
        self.clock_offset = gauge(
            "clock_offset_seconds", "How far the clock of the samples is ahead of this host's (estimate)"
        )
        self.foreign_thresholds = gauge(
            "foreign_thresholds", "1 while thresholds are in force that were proposed for another model"
        )
        self.drift = gauge("drift", "1 where what is normal has changed", "metric")
        age = gauge("seconds_since_last_good_poll", "Since the last poll that did not fail, or the start")
        age.set_function(lambda: time.monotonic() - self._last_good_poll)
        silence = gauge("seconds_since_newest_record", "Since the time of the newest record judged")
        silence.set_function(lambda: time.time() - self._newest_record)

    def serve(self, address: str, port: int) -> None:
        """Serve http://address:port/metrics from a thread of its own; UserError where it cannot listen."""
        # A job that serves nothing loads no HTTP server.
        from prometheus_client import make_wsgi_app

        from service.scrapes import ScrapeServer

        try:
            ScrapeServer(address, port, make_wsgi_app(self.registry)).start()
        except OSError as error:
            raise UserError(
                f"{address}:{port}: cannot be listened on ({error.strerror or error}); name another"
                " --metrics_port or --metrics_address"
            ) from None

    def good_poll(self) -> None:
        """A poll did not fail."""
        self._last_good_poll = time.monotonic()

    def show(self, verdict: Verdict, missing: Iterable[str]) -> None:
        """Count one verdict, and the series that its record lacked."""
        for series in missing:
            self.unknown.labels(series).inc()
        # One label for each cause: combinations of eight would be many series.
        for cause in (verdict.causes or (UNKNOWN_CAUSE,)) if verdict.is_anomaly else ():
            self.anomalies.labels(cause).inc()
            if verdict.status == ALERT:
                self.alerts.labels(cause).inc()
        for name, rmse in verdict.rmse.items():
            self.rmse.labels(name).set(rmse)
        self._newest_record = verdict.time / 1e9

    def show_silence(self, metrics: MetricTable = METRICS) -> None:
        """Nothing is known of the node at the moment."""
        for name in metrics.threshold_keys:
            self.rmse.labels(name).set(math.nan)

    def show_thresholds(self, thresholds: dict[str, float], metrics: MetricTable = METRICS) -> None:
        """The thresholds in force."""
        for name, key in metrics.threshold_keys.items():
            self.threshold.labels(name).set(thresholds[key])
