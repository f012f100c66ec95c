"""Test mode as a service: polls one node for a year, outlives its neighbours' faults, and says each once.

What a poll found is on the disk before it is said or sent, with where judging stopped: the next process
takes up there.
"""

from __future__ import annotations

import contextlib
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import autoencoder
import detector
import influx_utils
import pictures
from incidents import NAMES, Drift, FirstRecords, Incidents
from monitor import (
    PATIENCE_RECORDS,
    Judged,
    Monitor,
    describe_unknown,
    describe_verdict,
    seconds_to_next_poll,
)
from service import Ending, Metrics, Notices, notify_systemd
from store import Store, StoreError
from utils import N_STEPS, Node, UserError, format_time, getFeatures

if TYPE_CHECKING:
    from influxdb import InfluxDBClient

logger = logging.getLogger("find_anomalies")

# More records than this in one poll are said in one line.
CATCHING_UP_RECORDS = detector.ALERT_RECORDS
BATCH_POINTS = 500
# For sending in one poll, so that a long spool does not keep the next record waiting.
SENDING_SECONDS = 10.0
# While the server is away it is asked again after these, doubling, each cut by up to half at random.
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.5, 4.0
STATE_VERSION = 1


# --- files that people change ---------------------------------------------------------------------


class WatchedFiles:
    """What a few files hold, loaded again when one of them changes.

    Raises UserError if they cannot be loaded and there is nothing to `fall_back` on.
    """

    def __init__(
        self, filenames: Sequence[str | Path], load: Callable[[], Any], fall_back: Any | None = None
    ) -> None:
        self._paths = [Path(name) for name in filenames]
        self._load = load
        self._seen: list[tuple[int, int, int] | None] | None = self._stamps()
        try:
            self.content = load()
        except UserError:
            if fall_back is None:
                raise
            self.content = fall_back
            self._seen = None

    def refresh(self) -> bool:
        """Whether `content` is new. Raises UserError, at every call, while the files cannot be loaded."""
        stamps = self._stamps()
        if stamps == self._seen:
            return False
        self.content = self._load()
        self._seen = stamps
        return True

    def _stamps(self) -> list[tuple[int, int, int] | None]:
        stamps = []
        for path in self._paths:
            try:
                found = path.stat()
            except OSError:
                stamps.append(None)
            else:
                stamps.append((found.st_mtime_ns, found.st_size, found.st_ino))
        return stamps


# --- the daemon ----------------------------------------------------------------------------------


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
            "node": asdict(node) | {"cpus": list(node.cpus), "interfaces": list(node.interfaces)},
        }
        state = self._kept_state()
        self._thresholds = WatchedFiles(
            [settings.thresholds_file],
            lambda: detector.load_thresholds(settings.thresholds_file),
            state.get("thresholds"),
        )
        paths = autoencoder.bundle_paths(settings.model)
        self._bundle = WatchedFiles(
            [paths.model, paths.litert, paths.identity, paths.stats], self._load_bundle
        )
        judge = detector.Detector(self._bundle.content, self._thresholds.content, settings.interval_seconds)
        self._judge = judge
        self._monitor = Monitor(
            client,
            node,
            judge,
            settings.interval_seconds,
            settings.catch_up_seconds,
            # Whoever asks once wants what can be said now.
            0 if settings.once else PATIENCE_RECORDS,
        )
        self._incidents = Incidents()
        self._first_records = FirstRecords()
        self._drift = Drift(max(1, round(settings.drift_seconds / settings.interval_seconds)))
        self._recorder = pictures.AlertRecorder()
        self._is_connected = False
        self._retry_seconds = FIRST_RETRY_SECONDS
        self._status = ""
        self._restore(state)
        self._show_standing()

    def _load_bundle(self) -> autoencoder.Bundle:
        bundle = autoencoder.load_bundle(self._settings.model, getFeatures(), N_STEPS)
        autoencoder.warn_of_interval(bundle, self._settings.interval_seconds)
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
        self._metrics.show_thresholds(self._thresholds.content)
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
        if not is_away:
            self._retry_seconds = FIRST_RETRY_SECONDS
            return seconds_to_next_poll(self._settings.interval_seconds)
        pause = self._retry_seconds * random.uniform(0.5, 1.0)
        self._retry_seconds = min(2 * self._retry_seconds, LAST_RETRY_SECONDS)
        return pause

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
        """Take up where the process before stopped."""
        if not state:
            return
        try:
            self._incidents.restore(state["incidents"])
            self._drift.restore(state["drift"])
            if "first_records" in state:
                self._first_records.restore(state["first_records"])
            self._monitor.restore(state["monitor"])
        except (KeyError, TypeError, ValueError) as error:
            logger.warning("%s holds no state (%r): judging begins anew", self._store.path, error)

    def _show_standing(self) -> None:
        """What goes on, with or without a poll."""
        self._metrics.incident.set(self._incidents.is_open)
        for name in NAMES:
            self._metrics.drift.labels(name).set(name in self._drift.drifting)
        # A store that cannot be read is said when something is sent.
        with contextlib.suppress(StoreError):
            self._metrics.spool_depth.set(self._store.depth)

    # --- one poll --------------------------------------------------------------------------------

    def poll(self) -> bool:
        """One poll, whatever comes of it; whether the server is away."""
        self._metrics.polls.inc()
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
            if self._settings.once or not self._monitor.has_begun:
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
            self._notices.fault("store", str(error))
        self._notices.mended("server", f"InfluxDB at {self._settings.server} takes part again")
        return False

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
                self._metrics.show_thresholds(now)
        try:
            is_new = self._bundle.refresh()
        except UserError as error:
            self._notices.fault("model", f"{error}. Until then the last good model judges")
        else:
            self._notices.mended("model", f"{self._settings.model} can be used again")
            if is_new:
                self._judge.replace_bundle(self._bundle.content)
                logger.warning("%s: another model judges from now on", self._settings.model)

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
        news = [line for verdict, _ in judged for line in self._incidents.observe(verdict, thresholds)]
        drifts = [self._drift.observe(verdict, thresholds) for verdict, _ in judged]
        for verdict in [*self._monitor.history, *(verdict for verdict, _ in judged)]:
            if strange := self._first_records.observe(verdict, self._bundle.content.checksum):
                news.append(
                    f"{self._settings.model} seems to be another node's: nearly all of the first records"
                    f" that it judged are anomalies ({' | '.join(strange)}); unless an attack goes on,"
                    " collect this node's ordinary life and train on it (--mode collect, --mode train"
                    " --evaluate)"
                )
        self._keep([verdict for verdict, _ in judged])
        self._say(judged)
        for line in news:
            logger.warning("%s", line)
        for begun, ended in drifts:
            self._say_drift(begun, ended)
        for verdict, missing in judged:
            self._metrics.show(verdict, missing)
        self._show_standing()
        if self._settings.plot_dir:
            ended_alerts = [self._recorder.observe(verdict) for verdict, _ in judged]
            if alerts := [alert for alert in ended_alerts if alert]:
                pictures.draw_alerts(alerts, self._bundle.content, thresholds, self._settings.plot_dir)

    def _keep(self, verdicts: Sequence[detector.Verdict]) -> None:
        points = [
            influx_utils.anomaly_point(
                self._settings.measurement,
                verdict.time,
                list(verdict.values.values()),
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
            for verdict, missing in judged:
                logger.info("%s", describe_verdict(verdict, missing))
        else:
            counts = Counter(verdict.status for verdict, _ in judged)
            summary = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
            first, last = (format_time(judged[end][0].time) for end in (0, -1))
            logger.info("caught up: %d records from %s to %s: %s", len(judged), first, last, summary)
        verdict, missing = judged[-1]
        self._status = describe_verdict(verdict, missing)
        if verdict.unknown or verdict.status == detector.UNKNOWN:
            self._notices.fault("unknown", describe_unknown(verdict, missing), logging.WARNING)
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
        self._metrics.show_silence()
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
        """Send what InfluxDB does not have yet, oldest first; what it will never take is logged instead."""
        deadline = time.monotonic() + SENDING_SECONDS
        size = BATCH_POINTS
        while time.monotonic() < deadline and (batch := self._store.oldest(size)):
            with self._ending.deferred():
                reason = influx_utils.write_points(self._client, batch.database, batch.points)
                if reason and len(batch.points) > 1:
                    # Only of a single point it is sure that it is the one.
                    size = len(batch.points) // 2
                    continue
                self._store.sent(batch)
            size = min(2 * size, BATCH_POINTS)
            if reason:
                # Those behind it must not wait for it.
                self._metrics.refused.inc()
                logger.error("InfluxDB refused to store %s: %s", batch.points[0], reason)
            self._metrics.spool_depth.set(self._store.depth)
        depth = self._store.depth
        self._metrics.spool_depth.set(depth)
        if not depth:
            self._notices.mended(
                "spool",
                f"InfluxDB has all anomalies but the {self._store.dropped} oldest, which were dropped",
            )
