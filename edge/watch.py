"""Everything that belongs to one node: model and thresholds, verdicts, and what is logged about them."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import influx_utils
from common.alerts import ALERT_RECORDS, UNKNOWN, WINDOW_RECORDS
from common.files import UserError
from common.times import format_time
from common.values import mapping, number
from edge.bundle import Bundle, bundle_paths, describe_unwatched, load_bundle, warn_of_interval
from edge.detector import Detector, Verdict, describe_unknown, describe_verdict
from edge.drift import Drift, FirstRecords
from edge.incidents import Alert, Incidents
from edge.many_nodes import IncidentChange
from edge.monitor import Judged, Monitor
from edge.networks import Networks
from edge.reader import PATIENCE_RECORDS
from edge.sensitivity import describe_blind
from edge.source import SampleSource
from edge.thresholds import describe_foreign, load_thresholds, proposals_path, read_proposals
from edge.why import deviations
from nodes.metrics import MetricTable
from nodes.node import Node
from service.log import Notices
from service.watched import WatchedFiles

logger = logging.getLogger("find_anomalies")

# More records than this in one poll are summed up in one log line.
CATCHING_UP_RECORDS = ALERT_RECORDS


@dataclass(frozen=True)
class WatchSettings:
    """How one node is watched. once: for a single poll. name: of one node of many, or empty."""

    interval_seconds: float
    catch_up_seconds: float
    drift_seconds: float
    thresholds_file: str
    model: str
    once: bool = False
    name: str = ""


@dataclass
class Found:
    """What a poll found.

    incidents: those that open and close. entries: the same for other programs. news: lines for the log.
    alerts: those that have ended. drifts: for each record, the metrics whose drift begins, and those whose
    drift ends.
    """

    judged: list[Judged]
    incidents: list[IncidentChange] = field(default_factory=list)
    entries: list[dict[str, Any]] = field(default_factory=list)
    news: list[str] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)
    drifts: list[tuple[list[str], list[str]]] = field(default_factory=list)

    @property
    def verdicts(self) -> list[Verdict]:
        """The verdicts on all records."""
        return [one.verdict for one in self.judged]


class Watch:
    """Watches one node.

    found = watch.take(judged)    # what its monitor has judged; `watch.state()` now includes it
    watch.log(found)              # logs it

    state: what `state` of the previous process returned, or empty. notices: log what is wrong with this node.
    networks: those of many nodes, which may share one.
    Raises UserError if the model cannot be loaded, or if the thresholds cannot and the state has none either.
    """

    def __init__(
        self,
        settings: WatchSettings,
        source: SampleSource,
        node: Node,
        state: dict[str, Any],
        clock: Callable[[], float] = time.time,
        notices: Notices | None = None,
        networks: Networks | None = None,
    ) -> None:
        self._settings = settings
        self._networks = networks
        self._source = source
        self._described = node.metrics
        self.notices = notices = notices or Notices()
        # Before the thresholds: if --node_file is forgotten, the model tells that its metrics are others.
        paths = bundle_paths(settings.model)
        self.metrics: MetricTable | None = None
        self._bundle = WatchedFiles(
            [paths.model, paths.litert, paths.identity, paths.stats], self._load_bundle
        )
        # What never changed while the model was trained is not watched.
        self.metrics = metrics = self.bundle.metrics
        if line := describe_unwatched(self.bundle, node.metrics, settings.model):
            notices.tell("unwatched", line)
        node = replace(node, metrics=metrics)
        self._thresholds = WatchedFiles(
            [settings.thresholds_file],
            lambda: load_thresholds(settings.thresholds_file, metrics),
            _kept_thresholds(state, metrics),
        )
        # Verdicts do not depend on the proposals, so a damaged file does not prevent the start.
        self._proposals = WatchedFiles(
            [proposals_path(settings.thresholds_file)],
            lambda: read_proposals(settings.thresholds_file, metrics),
            [],
        )
        self._judge = Detector(self.bundle, self.thresholds, settings.interval_seconds)
        self.monitor = Monitor(
            source,
            node,
            self._judge,
            settings.interval_seconds,
            settings.catch_up_seconds,
            # With --once, the user wants what is known now.
            0 if settings.once else PATIENCE_RECORDS,
            clock,
            notices,
            settings.name,
        )
        self.incidents = Incidents(metrics, settings.name)
        self._drift_records = max(1, round(settings.drift_seconds / settings.interval_seconds))
        self.drift = Drift(self._drift_records, metrics)
        self._first_records = FirstRecords(metrics)
        self.status = ""
        self.has_foreign_thresholds = False
        self._is_refreshed = False
        self._restore(state)

    @property
    def thresholds(self) -> dict[str, float]:
        """The thresholds in force."""
        return self._thresholds.content

    @property
    def bundle(self) -> Bundle:
        """The model in use."""
        return self._bundle.content

    @property
    def thresholds_file(self) -> str:
        """Where its thresholds are."""
        return self._settings.thresholds_file

    @property
    def kept_quiet(self) -> str:
        """What keeps the whole node quiet now; empty if nothing does."""
        return self._judge.kept_quiet(time.time_ns())

    def _load_bundle(self) -> Bundle:
        settings = self._settings
        bundle = load_bundle(settings.model, self._described, networks=self._networks, node=settings.name)
        if self.metrics is not None and tuple(bundle.metrics) != tuple(self.metrics):
            raise UserError(
                f"{self._settings.model}: is for {', '.join(bundle.metrics)}, not {', '.join(self.metrics)};"
                " restart the service to use it"
            )
        warn_of_interval(bundle, self._settings.interval_seconds)
        return bundle

    # --- files that people change ----------------------------------------------------------------

    def refresh(self) -> bool:
        """Load the thresholds and the model again if a person or a training changed them.

        Returns whether anything is new, as it is at the first call.
        """
        are_new = [self._refresh_thresholds(), self._refresh_bundle(), self._refresh_proposals()]
        is_new, self._is_refreshed = any(are_new) or not self._is_refreshed, True
        if is_new:
            self._note_foreign_thresholds()
            self._note_blind()
        return is_new

    def _refresh_thresholds(self) -> bool:
        before = self.thresholds
        try:
            is_new = self._thresholds.refresh()
        except UserError as error:
            self.notices.fault("thresholds", f"{error}. Until then the last good thresholds stay in force")
            return False
        name = self._settings.thresholds_file
        self.notices.mended("thresholds", f"{name} can be read again")
        if is_new:
            now = self._judge.thresholds = self.thresholds
            for key in [key for key in now if now[key] != before[key]]:
                line = f"{name}: {key} changed from {before[key]:g} to {now[key]:g}"
                self.notices.tell("changed thresholds", line)
        return is_new

    def _refresh_bundle(self) -> bool:
        try:
            is_new = self._bundle.refresh()
        except UserError as error:
            self.notices.fault("model", f"{error}. Until then the last good model stays in use")
            return False
        self.notices.mended("model", f"{self._settings.model} can be used again")
        if is_new:
            self._judge.replace_bundle(self.bundle)
            self.notices.tell("new model", f"{self._settings.model}: a new model is in use from now on")
        return is_new

    def _refresh_proposals(self) -> bool:
        filename = self._settings.thresholds_file
        try:
            is_new = self._proposals.refresh()
        except UserError as error:
            self.notices.fault("proposals", str(error), logging.WARNING)
            return False
        self.notices.mended("proposals", f"{proposals_path(filename)} can be read again")
        return is_new

    def _note_foreign_thresholds(self) -> None:
        filename = self._settings.thresholds_file
        line = describe_foreign(
            filename, self.thresholds, self._proposals.content, self.bundle, self._settings.model
        )
        self.has_foreign_thresholds = line is not None
        if line:
            self.notices.fault("foreign thresholds", line, logging.WARNING)
        else:
            self.notices.mended(
                "foreign thresholds", f"{filename}: no threshold of another model is in force any more"
            )

    def _note_blind(self) -> None:
        line = describe_blind(self.bundle.curves, self.thresholds, self.metrics)
        if line and not self._settings.once:
            self.notices.fault("blind", line, logging.WARNING)
        else:
            self.notices.mended("blind", "no metric is blind any more")

    # --- one poll --------------------------------------------------------------------------------

    def take(self, judged: list[Judged]) -> Found:
        """What the verdicts of a poll add up to."""
        found = Found(judged)
        for verdict in found.verdicts:
            reasons = deviations(self.bundle, self.thresholds, verdict) if verdict.is_loud else None
            for line in self.incidents.observe(verdict, self.thresholds, reasons):
                incident = self.incidents.newest
                found.incidents.append(
                    IncidentChange(
                        self._settings.name,
                        verdict.time,
                        incident.is_open,
                        incident.causes,
                        line,
                        incident.id,
                        incident.why,
                    )
                )
                found.entries.append(incident.entry(self.metrics))
            if self.incidents.ended_alert:
                found.alerts.append(self.incidents.ended_alert)
            found.drifts.append(self.drift.observe(verdict, self.thresholds))
        history, self.monitor.history = self.monitor.history, []
        for verdict in [*history, *found.verdicts]:
            if strange := self._first_records.observe(verdict, self.bundle.identity):
                found.news.append(
                    f"{self._settings.model} seems to be another node's: nearly all of the first records"
                    f" that it judged are anomalies ({' | '.join(strange)}); unless an attack is under way,"
                    " collect normal data of this node and train on it (--mode collect, --mode train"
                    " --evaluate)"
                )
        return found

    def picture_begins(self, alerts: Sequence[Alert]) -> int:
        """Time (ns) from which on records may belong to a picture of these alerts."""
        window_ns = int(2 * WINDOW_RECORDS * self._settings.interval_seconds * 1e9)
        return min(alert.first_anomaly for alert in alerts) - window_ns

    def points(self, found: Found, measurement: str) -> list[dict[str, Any]]:
        """The anomalies that a poll found, as InfluxDB points."""
        points = [
            influx_utils.anomaly_point(
                measurement,
                verdict.time,
                verdict.values,
                verdict.possible_cause,
                verdict.status,
                self.monitor.instance,
                self._settings.name,
            )
            for verdict in found.verdicts
            if verdict.is_anomaly
        ]
        return [point for point in points if point]

    # --- what is logged --------------------------------------------------------------------------

    @property
    def silence(self) -> str | None:
        """Why there is no verdict though samples are due: a slot may be late once, but not twice."""
        newest = self.monitor.reader.newest_sample
        if newest is None:
            return "no recent sample of this node in the database"
        if self.monitor.reader.silent_polls <= 1:
            return None
        return f"no new record since {format_time(newest)}"

    def log(self, found: Found) -> None:
        """Log one line per record, or one for all of them after an outage; then the news.

        For one node of many, records are not logged, and an incident is logged by who knows of the others.
        """
        if found.judged:
            self.notices.mended("silence", "new records arrive again")
            if not self._settings.name:
                self._log_records(found.judged)
            self._note_unknown(found.judged[-1])
        elif self.silence:
            self._log_silence(self.silence)
        lines = [] if self._settings.name else [change.line for change in found.incidents]
        for line in [*lines, *found.news]:
            self.notices.tell("news", line)
        for begun, ended in found.drifts:
            self._log_drift(begun, ended)

    def _log_records(self, judged: Sequence[Judged]) -> None:
        lines = [
            describe_verdict(one.verdict, self.monitor.explained(one.faults), self.metrics)
            for one in judged[-CATCHING_UP_RECORDS:]
        ]
        if len(judged) <= CATCHING_UP_RECORDS:
            for line in lines:
                logger.info("%s", line)
        else:
            counts = Counter(one.verdict.status for one in judged)
            summary = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
            first, last = (format_time(judged[end].verdict.time) for end in (0, -1))
            logger.info("caught up: %d records from %s to %s: %s", len(judged), first, last, summary)
        self.status = lines[-1]

    def _note_unknown(self, newest: Judged) -> None:
        verdict = newest.verdict
        if verdict.unknown or verdict.status == UNKNOWN:
            faults = self.monitor.explained(newest.faults)
            # Foreign series may have new names each time; only a new kind of fault is logged.
            kinds = frozenset(
                (name, fault.partition(":")[0].partition(",")[0]) for name, fault in faults.items()
            )
            self.notices.fault(
                "unknown",
                describe_unknown(verdict, faults, self.metrics),
                logging.WARNING,
                (verdict.unknown, kinds),
            )
        else:
            self.notices.mended("unknown", "all metrics are known again")

    def _log_silence(self, words: str) -> None:
        if self._settings.once and not self._settings.name:
            raise UserError(
                f"{self._source.place}: {words}; check the exporters, {self._source.option} and --node_file"
            )
        self.status = f"unknown: {words}"
        remedy = "; check its exporters" if self._settings.name else ""
        self.notices.fault("silence", f"{self.status}{remedy}", logging.WARNING)

    def _log_drift(self, begun: Sequence[str], ended: Sequence[str]) -> None:
        hours = f"{self._settings.drift_seconds / 3600:g} h"
        for name in begun:
            line = (
                f"drift: {name} was over its threshold for most of {hours}; if that is normal now, collect"
                " new data and train again (--mode collect, --mode train --evaluate)"
            )
            self.notices.tell("drift", line)
        for name in ended:
            line = f"drift of {name} is over: within its threshold for most of {hours}"
            self.notices.tell("drift is over", line)

    # --- over a restart --------------------------------------------------------------------------

    @property
    def last_slot(self) -> int | None:
        """The slot of the newest record of the window; None if there is none."""
        return self._judge.last_slot

    def state(self, since: int | None = None) -> dict[str, Any]:
        """What the next process continues from, as JSON.

        since: of the window, only the records after this slot are there; all, unless given.
        """
        return {
            "monitor": self.monitor.state(since),
            "incidents": self.incidents.state(),
            "drift": self.drift.state(),
            "first_records": self._first_records.state(),
            "thresholds": self.thresholds,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        """Continue where the previous process stopped; a state that is invalid in part is ignored whole."""
        if not state:
            return
        incidents = Incidents(self.metrics, self._settings.name)
        first_records = FirstRecords(self.metrics)
        drift = Drift(self._drift_records, self.metrics)
        try:
            incidents.restore(mapping(state["incidents"]))
            drift.restore(mapping(state["drift"]))
            # A state of an older version has no first records.
            if "first_records" in state:
                first_records.restore(mapping(state["first_records"]))
            self.monitor.restore(mapping(state["monitor"]))
        except (KeyError, TypeError, ValueError) as error:
            logger.warning("--state_dir holds no state of this node (%r); judging starts over", error)
        else:
            self.incidents, self.drift, self._first_records = incidents, drift, first_records


def _kept_thresholds(state: dict[str, Any], metrics: MetricTable) -> dict[str, float] | None:
    """The thresholds that were in force last; None if the state does not hold them."""
    try:
        kept = {key: number(mapping(state["thresholds"])[key]) for key in metrics.threshold_keys.values()}
    except (KeyError, ValueError):
        return None
    return kept if all(0 <= value < math.inf for value in kept.values()) else None
