"""Test mode as a service: runs for a year, survives faults of what it depends on, and logs each once.

What a poll found, and where judging stopped, is on the disk before it is logged or sent. The next process
continues there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import influx_utils
from common.files import UserError
from edge import pictures
from edge.delivery import REFUSED_RETRY_SECONDS, Delivery
from edge.exporter import EdgeMetrics
from edge.monitor import Judged
from edge.poll_log import PollLog
from edge.source import SampleSource
from edge.timing import seconds_to_next_poll
from edge.watch import Found, Watch, WatchSettings
from nodes.node import Node
from service import loop
from service.log import Notices
from service.store import Store, StoreError
from service.systemd import Ending

if TYPE_CHECKING:
    from influxdb import InfluxDBClient

logger = logging.getLogger("find_anomalies")

STATE_VERSION = 1


@dataclass(frozen=True)
class Settings:
    """The daemon's settings. server, database, measurement: where anomalies go; `server` is host:port."""

    server: str
    database: str
    measurement: str
    interval_seconds: float
    catch_up_seconds: float
    drift_seconds: float
    thresholds_file: str
    model: str
    plot_dir: str | None = None
    once: bool = False
    refused_retry_seconds: float = REFUSED_RETRY_SECONDS


class Daemon:
    """Polls until it is ended; survives faults of the database and of files, and logs each once.

    source: of the samples. client: of the InfluxDB that stores anomalies; None if they are to be in the
    metrics of `exporter` alone.
    """

    def __init__(
        self,
        settings: Settings,
        source: SampleSource,
        client: InfluxDBClient | None,
        node: Node,
        store: Store,
        exporter: EdgeMetrics,
        ending: Ending,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._source = source
        # The server that stores anomalies may be the one that samples are read from.
        self._store_name = f"InfluxDB at {settings.server}"
        self._store = store
        self._exporter = exporter
        self._ending = ending
        self._notices = Notices()
        # A state of another node, server or interval does not apply here.
        self._watched = {
            "version": STATE_VERSION,
            **source.identity,
            "interval_seconds": settings.interval_seconds,
            "node": node.identity(),
        }
        self.watch = Watch(
            WatchSettings(
                interval_seconds=settings.interval_seconds,
                catch_up_seconds=settings.catch_up_seconds,
                drift_seconds=settings.drift_seconds,
                thresholds_file=settings.thresholds_file,
                model=settings.model,
                once=settings.once,
            ),
            source,
            node,
            self._kept_state(),
            clock,
        )
        self.delivery = Delivery(
            client=client,
            database=settings.database,
            measurement=settings.measurement,
            store=store,
            exporter=exporter,
            notices=self._notices,
            ending=ending,
            retry_seconds=settings.refused_retry_seconds,
        )
        self.poll_log = PollLog(store.path.parent)
        self._is_connected = False
        self._is_first_poll = True
        self._status = ""
        self._show_standing()

    def _kept_state(self) -> dict[str, Any]:
        """The state of the previous process if it watched the same; else an empty one."""
        try:
            state = self._store.state()
        except StoreError as error:
            logger.warning("%s; judging starts over", error)
            return {}
        if state is not None and state.get("watched") != self._watched:
            logger.warning("--state_dir belongs to another node, server or interval: judging starts over")
            return {}
        return state or {}

    # --- the loop --------------------------------------------------------------------------------

    def run(self) -> None:
        """Poll until a signal ends it, or once. Raises UserError for what only the user can fix."""
        logger.info("watching %s, every %g s", self._source.place, self._settings.interval_seconds)
        loop.run(self._turn, self._ending)

    def _turn(self) -> loop.Turn:
        begin = time.monotonic()
        is_away = self.poll()
        if self.watch.monitor.reader.has_more and not is_away:
            return loop.Turn(self._status, 0.0)
        if self._settings.once:
            return loop.Turn(self._status, None)
        if not is_away:
            self._note_slowness(time.monotonic() - begin)
        return loop.Turn(self._status, seconds_to_next_poll(self._settings.interval_seconds), is_away)

    def _note_slowness(self, lasted_seconds: float) -> None:
        interval = self._settings.interval_seconds
        if skipped := int(lasted_seconds // interval):
            self._exporter.skipped.inc(skipped)
            self._notices.fault(
                "slow",
                f"a poll took longer than the {interval:g} s between polls: some polls are skipped, but no"
                f" records; check how quickly {self._source.name} answers",
                logging.WARNING,
            )
        else:
            self._notices.mended("slow", "polls are quick enough again")

    # --- one poll --------------------------------------------------------------------------------

    def poll(self) -> bool:
        """Do one poll, whatever comes of it. Returns whether a server is away."""
        self._exporter.polls.inc()
        self._is_first_poll, was_first_poll = False, self._is_first_poll
        self.delivery.look_after_store()
        self.watch.refresh()
        self._exporter.show_thresholds(self.watch.thresholds, self.watch.metrics)
        self._exporter.show_sensitivity(
            self.watch.bundle.curves, self.watch.thresholds, self.watch.bundle.metrics
        )
        self._exporter.foreign_thresholds.set(self.watch.has_foreign_thresholds)
        is_one_server = self._source.name == self._store_name
        is_away = not self._read(was_first_poll)
        if is_away and is_one_server:
            return True
        if not is_away and not is_one_server:
            self._notices.mended(self._source.name, f"{self._source.name} is reachable again")
        return not self._send() or is_away

    def _read(self, is_first_poll: bool) -> bool:
        """Read and judge what has come. Returns whether the source could be read."""
        try:
            if not self._is_connected:
                self._source.prepare()
                self._is_connected = True
            found = self.watch.poll()
        except self._source.errors as error:
            self._note_away(
                self._source.name, self._source.describe_error(error), self._source.kind_of(error)
            )
            self._publish(Found([]), self._status)
            return False
        except UserError as error:
            # At the start somebody is watching; later the service waits until it is fixed.
            if self._settings.once or is_first_poll and not self.watch.monitor.reader.has_begun:
                raise
            self._exporter.failures.labels("refused").inc()
            self._notices.fault("poll", str(error))
            self._status = str(error)
            self._publish(Found([]), self._status)
        else:
            self._exporter.good_poll()
            self._notices.mended("poll", "records are judged again")
            # What is saved must also be logged.
            with self._ending.deferred():
                self._take(found)
        return True

    def _send(self) -> bool:
        """Send the anomalies. Returns whether the server that stores them could be reached."""
        try:
            self.delivery.send()
        except influx_utils.INFLUX_ERRORS as error:
            line = influx_utils.describe_error(error, self._settings.server, self._settings.database)
            self._note_away(self._store_name, line, influx_utils.kind_of(error))
            return False
        self._notices.mended(self._store_name, f"{self._store_name} is reachable again")
        return True

    def _note_away(self, name: str, line: str, kind: str) -> None:
        self._is_connected = False
        if self._settings.once:
            raise UserError(line) from None
        self._exporter.failures.labels(kind).inc()
        self._notices.fault(name, line)
        self._status = line

    def _take(self, found: Found) -> None:
        """Save what a poll found, then log it."""
        silence = None if found.judged else self.watch.silence
        # Published first: after a crash, a record published twice does no harm, a missing one is a gap.
        self._publish(found, silence and f"unknown: {silence}")
        self.delivery.keep(
            {"watched": self._watched, **self.watch.state()},
            self.watch.points(found, self._settings.measurement),
        )
        self.watch.log(found)
        self._status = self.watch.status or self._status
        for one in found.judged:
            self._exporter.show(one.verdict, one.faults)
        if silence:
            self._exporter.show_silence(self.watch.metrics)
        self._show_standing()
        if self._settings.plot_dir and found.alerts:
            model, since = self.watch.bundle.identity, self.watch.picture_begins(found.alerts)
            pictures.draw_alerts(
                found.alerts,
                lambda: self.poll_log.verdicts(model, since),
                self.watch.bundle,
                self.watch.thresholds,
                self._settings.plot_dir,
            )

    def _publish(self, found: Found, fault: str | None) -> None:
        monitor = self.watch.monitor
        judged = [Judged(one.verdict, monitor.explained(one.faults)) for one in found.judged]
        try:
            self.poll_log.publish(judged, monitor.instance, self.watch.bundle.identity, fault)
        except OSError as error:
            if self._notices.has("place"):
                # The whole folder is gone, which is logged already.
                return
            self._notices.fault(
                "poll log",
                f"{self.poll_log.path}: cannot be written ({error.strerror}); free some space, or give the"
                " service's user the right. Until then pictures of alerts have gaps",
            )
        else:
            self._notices.mended("poll log", f"{self.poll_log.path} can be written again")

    def _show_standing(self) -> None:
        """Export how things stand, with or without a poll."""
        watch = self.watch
        self._exporter.incident.set(watch.incidents.is_open)
        self._exporter.clock_offset.set(watch.monitor.reader.clock_offset_seconds)
        self._exporter.show_drift(watch.drift.drifting, self.watch.metrics)
        self.delivery.show()
