"""Test mode as a service: polls one node for a year, outlives its neighbours' faults, and says each once.

What a poll found is on the disk before it is said or sent, with where judging stopped: the next process
takes up there.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from influxdb.exceptions import InfluxDBClientError

import influx_utils
from common.alerts import ALERT_RECORDS, UNKNOWN
from common.files import UserError
from common.times import format_time
from common.values import mapping, number
from edge import pictures
from edge.bundle import Bundle, bundle_paths, load_bundle, warn_of_interval
from edge.detector import Detector, Verdict, describe_unknown
from edge.exporter import Metrics
from edge.incidents import AlertRecorder, Drift, FirstRecords, Incidents
from edge.monitor import PATIENCE_RECORDS, Judged, Monitor
from edge.thresholds import describe_foreign, load_thresholds, proposals_path, read_proposals
from edge.timing import seconds_to_next_poll
from nodes.metrics import MetricTable
from nodes.node import Node
from service.log import Notices
from service.loop import Backoff
from service.store import Batch, Store, StoreError
from service.systemd import Ending, notify_systemd
from service.watched import WatchedFiles

if TYPE_CHECKING:
    from influxdb import InfluxDBClient

logger = logging.getLogger("find_anomalies")

# More records than this in one poll are said in one line.
CATCHING_UP_RECORDS = ALERT_RECORDS
BATCH_POINTS = 500
# For sending in one poll, so that a long spool does not keep the next record waiting.
SENDING_SECONDS = 10.0
# What InfluxDB refused is sent again after this.
REFUSED_RETRY_SECONDS = 120.0
STATE_VERSION = 1


def _kept_thresholds(state: dict[str, Any], metrics: MetricTable) -> dict[str, float] | None:
    """Those that were in force last; None if the state does not hold them."""
    try:
        kept = {key: number(mapping(state["thresholds"])[key]) for key in metrics.threshold_keys.values()}
    except (KeyError, ValueError):
        return None
    return kept if all(0 <= value < math.inf for value in kept.values()) else None


@dataclass(frozen=True)
class Settings:
    """What the daemon is told; `server` is host:port, as messages name it."""

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


class Daemon:
    """Polls one node until it is ended; every fault of its neighbours is said once, and outlived."""

    def __init__(
        self,
        settings: Settings,
        client: InfluxDBClient,
        node: Node,
        store: Store,
        metrics: Metrics,
        ending: Ending,
    ) -> None:
        self._settings = settings
        self._client = client
        self._node_metrics = node.metrics
        self._store = store
        self._metrics = metrics
        self._ending = ending
        self._notices = Notices()
        # What was judged elsewhere says nothing of what is judged here.
        self._watched = {
            "version": STATE_VERSION,
            "server": settings.server,
            "database": settings.database,
            "interval_seconds": settings.interval_seconds,
            "node": node.identity(),
        }
        state = self._kept_state()
        self._thresholds = WatchedFiles(
            [settings.thresholds_file],
            lambda: load_thresholds(settings.thresholds_file, node.metrics),
            _kept_thresholds(state, node.metrics),
        )
        paths = bundle_paths(settings.model)
        self._bundle = WatchedFiles(
            [paths.model, paths.litert, paths.identity, paths.stats], self._load_bundle
        )
        # Without them nothing is judged otherwise, so that they stop no start.
        self._proposals = WatchedFiles(
            [proposals_path(settings.thresholds_file)],
            lambda: read_proposals(settings.thresholds_file, node.metrics),
            [],
        )
        judge = Detector(self._bundle.content, self._thresholds.content, settings.interval_seconds)
        self._judge = judge
        self._monitor = Monitor(
            client,
            node,
            judge,
            settings.interval_seconds,
            settings.catch_up_seconds,
            # Whoever asks once wants what can be said now.
            0 if settings.once else PATIENCE_RECORDS,
            notices=self._notices,
        )
        self._incidents = Incidents(node.metrics)
        self._drift_records = max(1, round(settings.drift_seconds / settings.interval_seconds))
        self._drift = Drift(self._drift_records, node.metrics)
        self._first_records = FirstRecords(node.metrics)
        self._recorder = AlertRecorder(node.metrics)
        self._is_connected = False
        self._is_first_poll = True
        self._backoff = Backoff()
        self._status = ""
        # The refusals that were logged: measurement and field, None for all others.
        self._refusals: set[tuple[str, ...] | None] = set()
        self._is_refused = False
        self._retry_refused_at = time.monotonic() + REFUSED_RETRY_SECONDS
        self._damaged_rows = 0
        self._restore(state)
        self._show_standing()

    def _load_bundle(self) -> Bundle:
        bundle = load_bundle(self._settings.model, self._node_metrics)
        warn_of_interval(bundle, self._settings.interval_seconds)
        return bundle

    def run(self) -> None:
        """Poll until a signal ends it, or once. Raises UserError for what only its user can mend."""
        settings = self._settings
        logger.info(
            "watching %s, database %s, every %g s",
            settings.server,
            settings.database,
            settings.interval_seconds,
        )
        self._metrics.show_thresholds(self._thresholds.content, self._node_metrics)
        is_ready = False
        while True:
            begin = time.monotonic()
            is_away = self.poll()
            notify_systemd("\n".join(["READY=1"] * (not is_ready) + ["WATCHDOG=1", f"STATUS={self._status}"]))
            is_ready = True
            if self._monitor.has_more and not is_away:
                continue
            if settings.once:
                return
            if not is_away:
                self._note_slowness(time.monotonic() - begin)
            self._ending.wait(self._pause(is_away))

    def _pause(self, is_away: bool) -> float:
        """Seconds to the next poll: its own time in ordinary life; a few while the server is away."""
        if is_away:
            return self._backoff.next_seconds()
        self._backoff.reset()
        return seconds_to_next_poll(self._settings.interval_seconds)

    def _note_slowness(self, lasted_seconds: float) -> None:
        interval = self._settings.interval_seconds
        if skipped := int(lasted_seconds // interval):
            self._metrics.skipped.inc(skipped)
            self._notices.fault(
                "slow",
                f"a poll took longer than the {interval:g} s between polls: some are skipped, no record is;"
                f" check how quickly {self._settings.server} answers",
                logging.WARNING,
            )
        else:
            self._notices.mended("slow", "polls are quick enough again")

    def _kept_state(self) -> dict[str, Any]:
        """What the process before kept, if it watched the same; else nothing."""
        try:
            state = self._store.state()
        except StoreError as error:
            logger.warning("%s; judging begins anew", error)
            return {}
        if state is not None and state.get("watched") != self._watched:
            logger.warning("--state_dir is of another node, server or interval: judging begins anew")
            return {}
        return state or {}

    def _restore(self, state: dict[str, Any]) -> None:
        """Take up where the process before stopped: all of it, or nothing."""
        if not state:
            return
        metrics = self._node_metrics
        incidents, first_records = Incidents(metrics), FirstRecords(metrics)
        drift = Drift(self._drift_records, metrics)
        try:
            incidents.restore(mapping(state["incidents"]))
            drift.restore(mapping(state["drift"]))
            # A state of the version before has none.
            if "first_records" in state:
                first_records.restore(mapping(state["first_records"]))
            self._monitor.restore(mapping(state["monitor"]))
        except (KeyError, TypeError, ValueError) as error:
            logger.warning("%s: holds no state (%r); judging begins anew", self._store.path, error)
        else:
            self._incidents, self._drift, self._first_records = incidents, drift, first_records

    def _show_standing(self) -> None:
        """What goes on, with or without a poll."""
        self._metrics.incident.set(self._incidents.is_open)
        self._metrics.clock_offset.set(self._monitor.clock_offset_seconds)
        for name in self._node_metrics.threshold_keys:
            self._metrics.drift.labels(name).set(name in self._drift.drifting)
        self._show_spool()

    def _show_spool(self) -> None:
        if found := self._store.damaged - self._damaged_rows:
            self._damaged_rows += found
            self._metrics.damaged.inc(found)
            logger.error(
                "%s: %d damaged rows of the spool are set aside in its table damaged (%s), all others are"
                " sent; look at them with sqlite3, and check the disk",
                self._store.path,
                found,
                self._store.damage,
            )
        # A store that cannot be read is logged when something is sent.
        with contextlib.suppress(StoreError):
            self._metrics.spool_depth.set(self._store.depth)
            self._metrics.spool_refused.set(self._store.refused)

    # --- one poll --------------------------------------------------------------------------------

    def poll(self) -> bool:
        """One poll, whatever comes of it; whether the server is away."""
        self._metrics.polls.inc()
        self._is_first_poll, was_first_poll = False, self._is_first_poll
        self._look_after_store()
        self._refresh()
        try:
            if not self._is_connected:
                influx_utils.checkDatabase(self._client, self._settings.database)
                self._is_connected = True
            judged = self._monitor.poll()
        except influx_utils.INFLUX_ERRORS as error:
            self._note_away(error)
            return True
        except UserError as error:
            # At the start somebody looks on; later the service waits for the remedy.
            if self._settings.once or was_first_poll and not self._monitor.has_begun:
                raise
            self._metrics.failures.labels("refused").inc()
            self._notices.fault("poll", str(error))
            self._status = str(error)
        else:
            self._metrics.good_poll()
            self._notices.mended("poll", "records are judged again")
            # What is kept is also said.
            with self._ending.deferred():
                self._take(judged)
        try:
            self._send()
        except influx_utils.INFLUX_ERRORS as error:
            self._note_away(error)
            return True
        except StoreError as error:
            self._notices.fault("spool file", str(error))
        else:
            self._notices.mended("spool file", f"{self._store.path} can be read again")
        self._notices.mended("server", f"InfluxDB at {self._settings.server} is reachable again")
        return False

    def _look_after_store(self) -> None:
        """Put the file back that somebody deleted."""
        try:
            with self._ending.deferred():
                is_new = self._store.make_again()
        except StoreError as error:
            self._notices.fault("place", str(error))
            return
        if is_new:
            self._notices.fault("place", f"{self._store.path}, or its log, was deleted")
            self._notices.mended("place", f"{self._store.path} is made again, with all that was in it")
        else:
            self._notices.mended("place", f"{self._store.path} is in its place again")

    def _refresh(self) -> None:
        """Take what a person, or a training, changed in the thresholds or the model."""
        before = self._thresholds.content
        try:
            is_new = self._thresholds.refresh()
        except UserError as error:
            self._notices.fault("thresholds", f"{error}. Until then the last good thresholds are in force")
        else:
            name = self._settings.thresholds_file
            self._notices.mended("thresholds", f"{name} can be read again")
            if is_new:
                now = self._judge.thresholds = self._thresholds.content
                for key in [key for key in now if now[key] != before[key]]:
                    logger.warning("%s: %s changed from %g to %g", name, key, before[key], now[key])
                self._metrics.show_thresholds(now, self._node_metrics)
        try:
            is_new = self._bundle.refresh()
        except UserError as error:
            self._notices.fault("model", f"{error}. Until then the last good model judges")
        else:
            self._notices.mended("model", f"{self._settings.model} can be used again")
            if is_new:
                self._judge.replace_bundle(self._bundle.content)
                logger.warning("%s: another model judges from now on", self._settings.model)
        self._note_foreign_thresholds()

    def _note_foreign_thresholds(self) -> None:
        """Say whether the thresholds in force were proposed for the model that judges."""
        filename = self._settings.thresholds_file
        try:
            self._proposals.refresh()
        except UserError as error:
            self._notices.fault("proposals", str(error), logging.WARNING)
        else:
            self._notices.mended("proposals", f"{proposals_path(filename)} can be read again")
        line = describe_foreign(
            filename,
            self._judge.thresholds,
            self._proposals.content,
            self._bundle.content,
            self._settings.model,
        )
        self._metrics.foreign_thresholds.set(line is not None)
        if line:
            self._notices.fault("foreign thresholds", line, logging.WARNING)
        else:
            self._notices.mended(
                "foreign thresholds", f"{filename}: no threshold of another model is in force now"
            )

    def _note_away(self, error: Exception) -> None:
        self._is_connected = False
        line = influx_utils.describe_error(error, self._settings.server, self._settings.database)
        if self._settings.once:
            raise UserError(line) from None
        self._metrics.failures.labels(influx_utils.kind_of(error)).inc()
        self._notices.fault("server", line)
        self._status = line

    def _take(self, judged: Sequence[Judged]) -> None:
        """Keep what a poll found, then say it."""
        thresholds = self._judge.thresholds
        verdicts = [one.verdict for one in judged]
        news = [line for verdict in verdicts for line in self._incidents.observe(verdict, thresholds)]
        drifts = [self._drift.observe(verdict, thresholds) for verdict in verdicts]
        for verdict in [*self._monitor.history, *verdicts]:
            if strange := self._first_records.observe(verdict, self._bundle.content.identity):
                news.append(
                    f"{self._settings.model} seems to be another node's: nearly all of the first records"
                    f" that it judged are anomalies ({' | '.join(strange)}); unless an attack goes on,"
                    " collect this node's ordinary life and train on it (--mode collect, --mode train"
                    " --evaluate)"
                )
        self._keep(verdicts)
        self._say(judged)
        for line in news:
            logger.warning("%s", line)
        for begun, ended in drifts:
            self._say_drift(begun, ended)
        for one in judged:
            self._metrics.show(one.verdict, one.faults)
        self._show_standing()
        if self._settings.plot_dir:
            ended_alerts = [self._recorder.observe(verdict) for verdict in verdicts]
            if alerts := [alert for alert in ended_alerts if alert]:
                pictures.draw_alerts(alerts, self._bundle.content, thresholds, self._settings.plot_dir)

    def _keep(self, verdicts: Sequence[Verdict]) -> None:
        points = [
            influx_utils.anomaly_point(
                self._settings.measurement,
                verdict.time,
                verdict.values,
                verdict.possible_cause,
                verdict.status,
                self._monitor.instance,
            )
            for verdict in verdicts
            if verdict.is_anomaly
        ]
        state = {
            "watched": self._watched,
            "monitor": self._monitor.state(),
            "incidents": self._incidents.state(),
            "drift": self._drift.state(),
            "first_records": self._first_records.state(),
            "thresholds": self._judge.thresholds,
        }
        dropped = self._store.dropped
        try:
            self._store.add(state, self._settings.database, [point for point in points if point])
        except StoreError as error:
            self._notices.fault("store", str(error))
        else:
            self._notices.mended("store", f"{self._store.path} can be written again")
        if dropped := self._store.dropped - dropped:
            self._metrics.dropped.inc(dropped)
            self._notices.fault(
                "spool", "the spool is full: its oldest anomalies are dropped, see --spool_limit"
            )

    def _say(self, judged: Sequence[Judged]) -> None:
        """One line for a record; one for all of them after an outage."""
        if not judged:
            self._say_silence()
            return
        self._notices.mended("silence", "records come again")
        if len(judged) <= CATCHING_UP_RECORDS:
            for one in judged:
                logger.info("%s", self._monitor.describe(one))
        else:
            counts = Counter(one.verdict.status for one in judged)
            summary = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
            first, last = (format_time(judged[end].verdict.time) for end in (0, -1))
            logger.info("caught up: %d records from %s to %s: %s", len(judged), first, last, summary)
        self._status = self._monitor.describe(judged[-1])
        verdict = judged[-1].verdict
        if verdict.unknown or verdict.status == UNKNOWN:
            faults = self._monitor.explained(judged[-1].faults)
            # Others may name their series anew each time.
            kinds = frozenset(
                (name, fault.partition(":")[0].partition(",")[0]) for name, fault in faults.items()
            )
            self._notices.fault(
                "unknown",
                describe_unknown(verdict, faults, self._node_metrics),
                logging.WARNING,
                (verdict.unknown, kinds),
            )
        else:
            self._notices.mended("unknown", "all metrics are known again")

    def _say_silence(self) -> None:
        """A slot may be late once; from the second poll without a new record on, the node is unknown."""
        newest = self._monitor.newest_sample
        if newest is not None and self._monitor.silent_polls <= 1:
            return
        words = "no recent sample of this node in the database"
        if newest is not None:
            words = f"no new record since {format_time(newest)}"
        if self._settings.once:
            raise UserError(
                f"{self._settings.server}, database {self._settings.database}: {words}; check the exporters,"
                " --influx_db and --node_file"
            )
        self._metrics.show_silence(self._node_metrics)
        self._status = f"unknown: {words}"
        self._notices.fault("silence", self._status, logging.WARNING)

    def _say_drift(self, begun: Sequence[str], ended: Sequence[str]) -> None:
        hours = f"{self._settings.drift_seconds / 3600:g} h"
        for name in begun:
            logger.warning(
                "drift: %s was over its threshold for most of %s; if that is normal now, collect it and train"
                " again (--mode collect, --mode train --evaluate)",
                name,
                hours,
            )
        for name in ended:
            logger.warning("drift of %s is over: within its threshold for most of %s", name, hours)

    def _send(self) -> None:
        """Send what InfluxDB does not have yet, oldest first; from time to time what it refused, too."""
        deadline = time.monotonic() + SENDING_SECONDS
        try:
            self._deliver(self._store.oldest, deadline)
            is_due = time.monotonic() >= self._retry_refused_at
            if is_due and self._deliver(self._next_refused, deadline):
                self._retry_refused_at = time.monotonic() + REFUSED_RETRY_SECONDS
        finally:
            self._show_spool()
        if self._refusals and not self._store.refused:
            self._refusals.clear()
            if self._notices.has("spool"):
                logger.warning(
                    "no anomaly that InfluxDB refused waits any more; the oldest of the spool were dropped"
                )
            else:
                logger.warning("InfluxDB takes all anomalies again")
        if not self._store.depth:
            self._notices.mended(
                "spool",
                f"InfluxDB has all anomalies but the {self._store.dropped} oldest, which were dropped",
            )

    def _next_refused(self, count: int) -> Batch | None:
        """They go where anomalies go now: another --influx_measurement is one of the remedies."""
        batch = self._store.oldest_refused(count)
        return batch and batch.renamed(self._settings.measurement)

    def _deliver(self, next_batch: Callable[[int], Batch | None], deadline: float) -> bool:
        """Send batch after batch; whether there was time for all."""
        size = BATCH_POINTS
        while batch := next_batch(size):
            if time.monotonic() >= deadline:
                return False
            with self._ending.deferred():
                refusal = self._write(batch)
                if refusal is None:
                    self._store.sent(batch)
                    if self._is_refused:
                        # Somebody has mended it: what waits is tried at once.
                        self._is_refused, self._retry_refused_at = False, 0.0
                    self._notices.mended("too old", "InfluxDB stores anomalies again")
                elif not self._take_refusal(batch, refusal):
                    size = len(batch.points) // 2
                    continue
            size = min(2 * size, BATCH_POINTS)
        return True

    def _write(self, batch: Batch) -> influx_utils.Refusal | None:
        """Write a batch. Raises one of INFLUX_ERRORS if it is to be sent again before all others."""
        try:
            return influx_utils.write_points(self._client, batch.database, batch.points)
        except InfluxDBClientError as error:
            # A database of another --influx_db, to which the user has no right, holds nothing up.
            if batch.database == self._settings.database or error.code != 403:
                raise
            return influx_utils.Refusal(f"no right to the database {batch.database}", len(batch.points))

    def _take_refusal(self, batch: Batch, refusal: influx_utils.Refusal) -> bool:
        """Do what a refusal asks for; False if it is not known of which points it speaks."""
        # Of a single point it is sure that it is the one.
        refused = 1 if len(batch.points) == 1 else refusal.points
        if refusal.is_too_old and refused:
            self._store.sent(batch.earliest(refused))
            self._metrics.refused.inc(refused)
            self._notices.fault(
                "too old",
                f"InfluxDB refuses anomalies that are older than all that {batch.database} keeps; they are"
                " dropped: lengthen its retention policy, or check the clock of the samples",
            )
            return True
        if refused < len(batch.points):
            return False
        if refusal.is_unreadable:
            self._store.set_aside(batch, refusal.reason)
            return True
        self._store.refuse(batch)
        self._is_refused = True
        self._say_refusal(refusal)
        return True

    def _say_refusal(self, refusal: influx_utils.Refusal) -> None:
        """Once for each field that is in conflict, and once for all else, until InfluxDB takes all."""
        topic = refusal.conflict and refusal.conflict[:2]
        if topic in self._refusals:
            return
        self._refusals.add(topic)
        reason, remedy = refusal.reason, "check the user's rights and the server's log"
        if refusal.conflict:
            measurement, field, ours, theirs = refusal.conflict
            reason = f"{measurement} holds {field} as {theirs}, not {ours}"
            remedy = f'DROP MEASUREMENT "{measurement}", or name another --influx_measurement'
        logger.error("InfluxDB refuses anomalies (%s); %s. Until then they wait in the spool", reason, remedy)
