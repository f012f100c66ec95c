"""How the daemon lives among others: what it tells systemd, Prometheus and the log, and when it ends."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import random
import select
import signal
import socket
import sys
import time
from collections.abc import Hashable, Iterable, Iterator, Mapping
from types import FrameType
from typing import TYPE_CHECKING

from detector import ALERT, THRESHOLD_KEYS, UNKNOWN_CAUSE, Verdict
from incidents import NAMES
from utils import UserError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

logger = logging.getLogger(__name__)

# syslog's severities, which the journal reads from the beginning of a line.
_JOURNAL_LEVELS = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}


# While a server is away it is asked again after these, doubling, each cut by up to half at random.
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.5, 4.0


# --- log -----------------------------------------------------------------------------------------


def is_journal(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether standard error is the journal: a shell in a session of systemd inherits the variable alone."""
    found = os.fstat(sys.stderr.fileno())
    return environment.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


class JournalFormatter(logging.Formatter):
    """Lines for the journal, which has its own clock: `journalctl -p warning` then shows state changes."""

    def format(self, record: logging.LogRecord) -> str:
        """`<4>` and the message."""
        return f"<{_JOURNAL_LEVELS[record.levelname]}>{record.levelname} {record.getMessage()}"


class Notices:
    """Says a fault once when it begins or changes, and once when it has ended."""

    def __init__(self) -> None:
        self._said: dict[str, Hashable] = {}

    def fault(self, topic: str, message: str, level: int = logging.ERROR, subject: Hashable = None) -> None:
        """The fault of this topic at the moment: the same one as long as `subject`, or the message, is."""
        subject = message if subject is None else subject
        if self._said.get(topic) != subject:
            logger.log(level, "%s", message)
        self._said[topic] = subject

    def has(self, topic: str) -> bool:
        """Whether there is a fault of this topic."""
        return topic in self._said

    def mended(self, topic: str, message: str) -> None:
        """There is no fault of this topic at the moment."""
        if self._said.pop(topic, None) is not None:
            logger.warning("%s", message)


class Backoff:
    """How long to wait before a server that is away is asked again; many clients do not ask in step."""

    def __init__(self) -> None:
        self._seconds = FIRST_RETRY_SECONDS

    def next_seconds(self) -> float:
        """The pause after one more attempt that failed."""
        pause = self._seconds * random.uniform(0.5, 1.0)
        self._seconds = min(2 * self._seconds, LAST_RETRY_SECONDS)
        return pause

    def reset(self) -> None:
        """The server has answered."""
        self._seconds = FIRST_RETRY_SECONDS


# --- systemd -------------------------------------------------------------------------------------


def notify_systemd(words: str, environment: Mapping[str, str] = os.environ) -> None:
    """Send `READY=1`, `WATCHDOG=1`, `STATUS=...` (sd_notify(3)); nothing where systemd does not listen."""
    address = environment.get("NOTIFY_SOCKET")
    if not address:
        return
    # An abstract socket's name begins with a zero byte.
    address = "\0" + address[1:] if address.startswith("@") else address
    # Whether systemd listens or not, the node is watched.
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifier:
        notifier.sendto(words.encode(), address)


def check_watchdog(interval_seconds: float, environment: Mapping[str, str] = os.environ) -> None:
    """Raise UserError if polls are too rare for systemd's watchdog, which would end the daemon."""
    watchdog_seconds = int(environment.get("WATCHDOG_USEC", "0")) / 1e6
    if 0 < watchdog_seconds < 2 * interval_seconds:
        raise UserError(
            f"--interval {interval_seconds:g} is more than half of the watchdog's {watchdog_seconds:g} s;"
            f" set WatchdogSec={math.ceil(3 * interval_seconds)} or more in the unit"
        )


class Ending:
    """SIGTERM, SIGINT end the process: at once while it reads or waits, after the write while it writes.

    SIGHUP ends a wait, so that what a person changed counts at once.
    """

    def __init__(self) -> None:
        self._is_asked = False
        self._is_deferred = False
        # The two ends of a pipe, once signals are taken.
        self._pipe: tuple[socket.socket, ...] = ()

    def install(self) -> None:
        """Take the signals of this process."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        # Python writes each signal there; a handler that takes a lock could wait for itself.
        self._pipe = socket.socketpair()
        for end in self._pipe:
            end.setblocking(False)
        signal.set_wakeup_fd(self._pipe[0].fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGHUP, lambda *_: None)

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._is_asked = True
        if not self._is_deferred:
            raise SystemExit(0)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """What is inside the `with` is finished first."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False
            # Also after a write that failed: the loop would try it for ever.
            if self._is_asked:
                raise SystemExit(0)

    def wait(self, seconds: float) -> None:
        """Let time pass, until SIGHUP comes."""
        for woken in select.select(self._pipe[1:], [], [], seconds)[0]:
            # Many signals end one wait; the pipe holds no more than this.
            woken.recv(1 << 20)


# --- Prometheus ----------------------------------------------------------------------------------


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

        from scrapes import ScrapeServer

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

    def show_silence(self) -> None:
        """Nothing is known of the node at the moment."""
        for name in NAMES:
            self.rmse.labels(name).set(math.nan)

    def show_thresholds(self, thresholds: dict[str, float]) -> None:
        """The thresholds in force."""
        for name, key in zip(NAMES, THRESHOLD_KEYS, strict=True):
            self.threshold.labels(name).set(thresholds[key])
