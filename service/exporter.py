"""A service's metrics, for Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from common.files import UserError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Counter, Gauge


class Exporter:
    """Metrics of a service, with names that begin with `find_anomalies_`, and the server that serves them.

    exporter = Exporter()
    polls = exporter.counter("polls", "Polls started")    # find_anomalies_polls_total
    exporter.serve("127.0.0.1", 9099)                     # http://127.0.0.1:9099/metrics

    is_read: whether anybody will read them; without that, they count nothing and load no package.
    """

    def __init__(self, registry: CollectorRegistry | None = None, is_read: bool = True) -> None:
        self.is_read = is_read
        if is_read:
            from prometheus_client import CollectorRegistry

            self.registry = registry or CollectorRegistry()

    def counter(self, name: str, text: str, *labels: str) -> Counter | _Unread:
        """A counter with these labels."""
        if not self.is_read:
            return _Unread()
        from prometheus_client import Counter

        return Counter(f"find_anomalies_{name}", text, labels, registry=self.registry)

    def gauge(self, name: str, text: str, *labels: str) -> Gauge | _Unread:
        """A gauge with these labels."""
        if not self.is_read:
            return _Unread()
        from prometheus_client import Gauge

        return Gauge(f"find_anomalies_{name}", text, labels, registry=self.registry)

    def serve(self, address: str, port: int) -> None:
        """Serve http://address:port/metrics from a thread of its own; UserError if it cannot listen there."""
        # A job that serves nothing loads no HTTP server.
        from prometheus_client import make_wsgi_app

        from service.scrapes import ScrapeServer

        try:
            ScrapeServer(address, port, make_wsgi_app(self.registry)).start()
        except OSError as error:
            raise UserError(
                f"cannot listen on {address}:{port} ({error.strerror or error}); name another"
                " --metrics_port or --metrics_address"
            ) from None


class _Unread:
    """In place of a metric that nobody reads."""

    def labels(self, *_values: str) -> _Unread:
        return self

    def _nothing(self, *_values: Any) -> None:
        pass

    inc = set = set_function = remove = clear = _nothing
