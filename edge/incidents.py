"""What is worth saying of many verdicts: an incident opens or closes, a normal has changed.

Verdicts come every 15 s; an operator hears of a change once. All of it can be kept over a restart.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from common.alerts import ALERT, ALERT_RECORDS, CONTEXT_RECORDS, FEW_RECORDS, UNKNOWN, WINDOW_RECORDS
from common.times import format_duration, format_time
from common.values import mapping, number, text, whole
from edge.detector import UNKNOWN_CAUSE, Verdict
from nodes.metrics import METRICS, MetricTable

# Of an alert that lasts longer than this (6 h of 15 s), the newest records are drawn.
ALERT_PICTURE_RECORDS = 1440
# Fewer records judged by a model say nothing of it; this share of them must be anomalies of a metric.
FIRST_RECORDS = 10
NEARLY_ALL = 0.9


class Incidents:
    """Takes verdicts one by one; says once when an incident opens, and once when it closes.

    It opens with an alert, and began with the first of the anomalies that made it one. It closes when
    ALERT_RECORDS records in a row are no anomalies and no alert is up: an attack that pauses for a record is
    one, and so is one that comes and goes.
    """

    def __init__(self, metrics: MetricTable = METRICS) -> None:
        self._metrics = metrics
        self._open: dict[str, Any] | None = None
        self._quiet = 0
        # Times of the newest anomalies.
        self._anomalies: deque[int] = deque(maxlen=WINDOW_RECORDS)

    @property
    def is_open(self) -> bool:
        """Whether an incident goes on."""
        return self._open is not None

    def observe(self, verdict: Verdict, thresholds: dict[str, float]) -> list[str]:
        """What there is to say after this verdict: nothing, that one opens, or that one closes."""
        if verdict.is_anomaly:
            self._anomalies.append(verdict.time)
        if self._open is None:
            if verdict.status != ALERT:
                return []
            self._quiet = 0
            # The first verdict may be of the middle of a row.
            began = self._anomalies[-min(verdict.flurry, len(self._anomalies))]
            self._open = {"began": began, "causes": [], "peaks": {}}
            self._note(verdict, thresholds)
            is_row = verdict.in_a_row >= ALERT_RECORDS
            why = (
                f"{ALERT_RECORDS} anomalies in a row"
                if is_row
                else f"{verdict.recent} anomalies in the last {WINDOW_RECORDS} records"
            )
            return [f"{format_time(verdict.time)} incident opens: {self._causes()} ({why})"]
        if verdict.is_anomaly:
            self._quiet = 0
            self._note(verdict, thresholds)
            return []
        causes = set(self._open["causes"])
        if verdict.in_a_row and not (causes and verdict.unknown and causes.isdisjoint(verdict.unknown)):
            # What was wrong may go on unseen.
            return []
        self._quiet += 1
        # A row that only something else keeps open, which is unknown, is over here.
        is_up = verdict.is_alert_up and (not verdict.in_a_row or verdict.recent >= FEW_RECORDS)
        return [] if self._quiet < ALERT_RECORDS or is_up else [self._close()]

    def _note(self, anomaly: Verdict, thresholds: dict[str, float]) -> None:
        """Remember the causes, and by how much each was over its threshold at most."""
        incident = self._open
        incident["last"] = anomaly.time
        incident["causes"] = [
            name for name in self._metrics if name in incident["causes"] or name in anomaly.causes
        ]
        for name, key in self._metrics.threshold_keys.items():
            if anomaly.blames(name):
                ratio = anomaly.rmse[name] / max(thresholds[key], 1e-9)
                incident["peaks"][name] = max(ratio, incident["peaks"].get(name, 0.0))

    def _causes(self) -> str:
        return " | ".join(self._open["causes"]) or UNKNOWN_CAUSE

    def _close(self) -> str:
        incident = self._open
        lasted = format_duration((incident["last"] - incident["began"]) / 1e9)
        peaks = ", ".join(
            f"{name} {incident['peaks'][name]:.1f}"
            for name in self._metrics.threshold_keys
            if name in incident["peaks"]
        )
        line = (
            f"{format_time(incident['last'])} incident closes: {self._causes()} for {lasted} since"
            f" {format_time(incident['began'])}; peak RMSE in thresholds: {peaks}"
        )
        self._open = None
        return line

    def state(self) -> dict[str, Any]:
        """For `restore`, in JSON."""
        return {"open": self._open, "quiet": self._quiet, "anomalies": list(self._anomalies)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where another process stopped.

        Raises KeyError, TypeError or ValueError, unchanged, if it is no state.
        """
        incident = state["open"]
        if incident is not None:
            incident = {
                "began": whole(mapping(incident)["began"]),
                "last": whole(incident["last"]),
                "causes": [name for name in self._metrics if name in incident["causes"]],
                "peaks": {name: number(ratio) for name, ratio in mapping(incident["peaks"]).items()},
            }
        quiet = whole(state["quiet"])
        # A state of the version before has none.
        anomalies = [whole(time) for time in state.get("anomalies", ())]
        self._open, self._quiet = incident, quiet
        self._anomalies = deque(anomalies, maxlen=WINDOW_RECORDS)


class FirstRecords:
    """Whether the first records that a model judges look like another node's: then it can judge nothing here.

    They do if nearly all of them are anomalies of the memory. Other hosts use another share of it, while
    attacks leave it as it is: at once if other metrics are wrong all the while too, after a window of records
    if the memory alone is, which an attack on it could be. What is over by then says nothing.
    """

    def __init__(self, metrics: MetricTable = METRICS) -> None:
        self._metrics = metrics
        self._model: str | None = None
        self._records = 0
        self._blamed: dict[str, int] = {}

    def observe(self, verdict: Verdict, model: str) -> list[str]:
        """The metrics that show it, once for each model, which the text identifies; else none."""
        if model != self._model:
            self._model, self._records, self._blamed = model, 0, {}
        if verdict.status == UNKNOWN or self._records >= WINDOW_RECORDS:
            return []
        self._records += 1
        for name in verdict.causes:
            self._blamed[name] = self._blamed.get(name, 0) + 1
        if self._records < FIRST_RECORDS:
            return []
        strange = [name for name in self._metrics if self._blamed.get(name, 0) >= NEARLY_ALL * self._records]
        if "mem" not in strange or (len(strange) == 1 and self._records < WINDOW_RECORDS):
            return []
        self._records = WINDOW_RECORDS
        return strange

    def state(self) -> dict[str, Any]:
        """For `restore`, in JSON."""
        return {"model": self._model, "records": self._records, "blamed": self._blamed}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where another process stopped.

        Raises KeyError, TypeError or ValueError, unchanged, if it is no state.
        """
        model = None if state["model"] is None else text(state["model"])
        records = whole(state["records"])
        blamed = {text(name): whole(count) for name, count in mapping(state["blamed"]).items()}
        self._model, self._records, self._blamed = model, records, blamed


class Drift:
    """Which metrics were over their threshold for most of the last `records` records.

    That is a changed normal rather than an attack. It is over when they were for less than a quarter.
    """

    def __init__(self, records: int, metrics: MetricTable = METRICS) -> None:
        self._records = records
        self._metrics = metrics
        # A bit for each record, the newest last.
        self._over = dict.fromkeys(metrics.threshold_keys, 0)
        self.drifting: list[str] = []

    def observe(self, verdict: Verdict, thresholds: dict[str, float]) -> tuple[list[str], list[str]]:
        """The metrics of which it begins with this verdict, and those of which it ends."""
        begun, ended = [], []
        for name, key in self._metrics.threshold_keys.items():
            # Of an unknown record, whose RMSE is NaN, nothing is over.
            is_over = bool(verdict.rmse[name] > thresholds[key])
            self._over[name] = self._newest(self._over[name] << 1 | is_over)
            count = self._over[name].bit_count()
            if name not in self.drifting and 2 * count > self._records:
                begun.append(name)
            elif name in self.drifting and 4 * count < self._records:
                ended.append(name)
        self.drifting = [
            name for name in self._over if (name in self.drifting or name in begun) and name not in ended
        ]
        return begun, ended

    def _newest(self, over: int) -> int:
        return over & ((1 << self._records) - 1)

    def state(self) -> dict[str, Any]:
        """For `restore`, in JSON: a hexadecimal digit for four records."""
        return {"drifting": self.drifting, "over": {name: f"{over:x}" for name, over in self._over.items()}}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where another process stopped; of a longer history the newest part counts.

        Raises KeyError, TypeError or ValueError, unchanged, if it is no state.
        """
        over = {name: self._newest(int(text(bits), 16)) for name, bits in mapping(state["over"]).items()}
        drifting = [text(name) for name in state["drifting"]]
        if not {*over, *drifting} <= self._over.keys():
            raise ValueError("no name of a metric")
        self._over |= over
        self.drifting = drifting


@dataclass(frozen=True)
class Alert:
    """An alert from beginning to end; times in ns.

    first_anomaly: of those that made it an alert. start: of the alert itself. end: of the record that ends
    it, or the newest one of an alert that `is_open`. records: from up to WINDOW_RECORDS before the first
    anomaly to the end, the newest ALERT_PICTURE_RECORDS of them.
    """

    first_anomaly: int
    start: int
    end: int
    is_open: bool
    causes: tuple[str, ...]
    records: tuple[Verdict, ...]

    @property
    def filename(self) -> str:
        """alert_20260306T120014Z.png, the time of its first anomaly."""
        return f"alert_{_moment(self.first_anomaly):%Y%m%dT%H%M%SZ}.png"

    @property
    def title(self) -> str:
        """Causes in the order of the table of metrics, its times in UTC, and how long it lasted."""
        start, end, first = (_moment(time) for time in (self.start, self.end, self.first_anomaly))
        one_day = first.date() == end.date()
        form, day = ("%H:%M:%S", f" on {end:%Y-%m-%d}") if one_day else ("%Y-%m-%d %H:%M:%S", "")
        cause = " | ".join(self.causes) or UNKNOWN_CAUSE
        until = ", still up at" if self.is_open else " to"
        lasted = format_duration((end - start).total_seconds())
        return (
            f"{cause}: alert from {start:{form}}{until} {end:{form}} UTC{day} ({lasted}),"
            f" first anomaly {first:{form}}"
        )


def _moment(time: int) -> datetime:
    return datetime.fromtimestamp(time // 10**9, UTC)


class AlertRecorder:
    """Takes verdicts one by one, as they come, and gives each alert back when it has ended."""

    def __init__(self, metrics: MetricTable = METRICS) -> None:
        self._metrics = metrics
        self._records: deque[Verdict] = deque(maxlen=ALERT_PICTURE_RECORDS)
        # Of the alert that is up.
        self._start: int | None = None
        self._first_anomaly = 0
        self._causes: set[str] = set()

    def observe(self, verdict: Verdict) -> Alert | None:
        """The alert that this verdict ends, if it does."""
        ended = None
        if verdict.is_anomaly and not verdict.is_alert_up:
            # The alert ended in slots without a record; this anomaly is no part of it.
            ended = self.close()
        self._records.append(verdict)
        if self._start is None:
            self._forget_all_but(CONTEXT_RECORDS + WINDOW_RECORDS)
            if verdict.status == ALERT:
                self._begin(verdict)
            return ended
        if verdict.is_anomaly:
            self._causes.update(verdict.causes)
        return None if verdict.is_alert_up else self.close()

    def _begin(self, alert: Verdict) -> None:
        """An alert is up from now on; the anomalies that made it one belong to it."""
        anomalies = [index for index, record in enumerate(self._records) if record.is_anomaly]
        anomalies = anomalies[-alert.flurry :]
        first = anomalies[0]
        self._first_anomaly, self._start = self._records[first].time, alert.time
        self._causes = {cause for index in anomalies for cause in self._records[index].causes}
        self._forget_all_but(len(self._records) - first + WINDOW_RECORDS)

    def _forget_all_but(self, count: int) -> None:
        while len(self._records) > count:
            self._records.popleft()

    def close(self, is_open: bool = False) -> Alert | None:
        """The alert up to here, if there is one."""
        if self._start is None:
            return None
        alert = Alert(
            self._first_anomaly,
            self._start,
            self._records[-1].time,
            is_open,
            tuple(name for name in self._metrics if name in self._causes),
            tuple(self._records),
        )
        self._start = None
        return alert
