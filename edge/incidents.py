"""What verdicts add up to over time: alerts, incidents, drift, signs of another node's model.

Verdicts come every 15 s; an operator is told of each change once. All of it can survive a restart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from common.alerts import ALERT, ALERT_RECORDS, FEW_RECORDS, UNKNOWN, WINDOW_RECORDS
from common.times import format_duration, format_time
from common.values import mapping, number, text, whole
from edge.detector import UNKNOWN_CAUSE, Verdict
from nodes.metrics import METRICS, MetricTable

# An alert's picture shows at most this many records, the newest (6 h of 15 s).
ALERT_PICTURE_RECORDS = 1440
# A model is not doubted before it has judged this many records; this share of them must be anomalies.
FIRST_RECORDS = 10
NEARLY_ALL = 0.9


@dataclass(frozen=True)
class Alert:
    """An alert from beginning to end; times in ns.

    first_anomaly: the first of those that made it an alert. start: the first record that is an alert. end:
    the record that ended it, or the newest one while it `is_open`.
    """

    first_anomaly: int
    start: int
    end: int
    is_open: bool
    causes: tuple[str, ...]

    @property
    def filename(self) -> str:
        """Such as alert_20260306T120014Z.png, with the time of its first anomaly."""
        return f"alert_{_moment(self.first_anomaly):%Y%m%dT%H%M%SZ}.png"

    @property
    def title(self) -> str:
        """Its causes in the order of the table of metrics, its times in UTC, and how long it lasted."""
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

    def records_of(self, verdicts: Iterable[Verdict]) -> list[Verdict]:
        """The verdicts, out of consecutive ones, that its picture shows.

        They begin WINDOW_RECORDS before the first anomaly and end with the alert. Only the newest
        ALERT_PICTURE_RECORDS of them are shown.
        """
        before: deque[Verdict] = deque(maxlen=WINDOW_RECORDS)
        shown: deque[Verdict] = deque(maxlen=ALERT_PICTURE_RECORDS)
        for verdict in verdicts:
            if verdict.time < self.first_anomaly:
                before.append(verdict)
            elif verdict.time <= self.end:
                shown.append(verdict)
        return [*before, *shown][-ALERT_PICTURE_RECORDS:]


def _moment(time: int) -> datetime:
    return datetime.fromtimestamp(time // 10**9, UTC)


class Alerts:
    """Takes verdicts one by one; returns each alert once it has ended."""

    def __init__(self, metrics: MetricTable = METRICS) -> None:
        self._metrics = metrics
        # The newest anomalies: time and causes.
        self._anomalies: deque[tuple[int, tuple[str, ...]]] = deque(maxlen=WINDOW_RECORDS)
        self._up: Alert | None = None

    @property
    def up(self) -> Alert | None:
        """The alert that is up, so far."""
        return self._up

    def observe(self, verdict: Verdict) -> Alert | None:
        """The alert that this verdict ends, if it does."""
        ended = None
        if verdict.is_anomaly:
            self._anomalies.append((verdict.time, verdict.causes))
            if not verdict.is_alert_up:
                # The alert ended in slots without a record; this anomaly is not part of it.
                ended = self._end()
        if self._up is not None:
            causes = {*self._up.causes, *(verdict.causes if verdict.is_anomaly else ())}
            self._up = replace(self._up, end=verdict.time, causes=self._in_order(causes))
            return None if verdict.is_alert_up else self._end()
        if verdict.status == ALERT:
            first_anomaly, causes = self.made_of(verdict)
            self._up = Alert(first_anomaly, verdict.time, verdict.time, True, self._in_order(causes))
        return ended

    def made_of(self, alert: Verdict) -> tuple[int, set[str]]:
        """Time of the first of the anomalies that made the newest verdict an alert, and their causes."""
        # There may be more of them than are known.
        anomalies = list(self._anomalies)[-alert.flurry :]
        return anomalies[0][0], {cause for _, names in anomalies for cause in names}

    def _end(self) -> Alert | None:
        ended, self._up = self._up, None
        return ended and replace(ended, is_open=False)

    def state(self) -> dict[str, Any]:
        """The state that `restore` takes, as JSON."""
        return {"anomalies": list(self._anomalies), "alert": self._up and asdict(self._up)}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where another process stopped.

        Raises KeyError, TypeError or ValueError if the state is invalid, and then changes nothing.
        """
        # A state of an older version has only times, and no alert; a still older one has no anomalies either.
        anomalies = [
            (whole(one), ()) if isinstance(one, int) else (whole(one[0]), self._in_order(one[1]))
            for one in state.get("anomalies", ())
        ]
        up = state.get("alert")
        if up is not None:
            times = (whole(mapping(up)[key]) for key in ("first_anomaly", "start", "end"))
            up = Alert(*times, True, self._in_order(up["causes"]))
        self._anomalies = deque(anomalies, maxlen=WINDOW_RECORDS)
        self._up = up

    def _in_order(self, causes: Iterable[str]) -> tuple[str, ...]:
        found = set(causes)
        return tuple(name for name in self._metrics if name in found)


class Incidents:
    """Takes verdicts one by one; reports once when an incident opens, and once when it closes.

    An incident opens with an alert; it began with the first of the anomalies that made it one. It closes once
    ALERT_RECORDS records in a row are not anomalies and no alert is up. So an attack that pauses for a record
    is one incident, and so is one that comes and goes.
    """

    def __init__(self, metrics: MetricTable = METRICS) -> None:
        self._metrics = metrics
        self._open: dict[str, Any] | None = None
        self._quiet = 0
        self._alerts = Alerts(metrics)
        # The causes of the incident that is open, or was last.
        self.causes: tuple[str, ...] = ()
        # The alert that the newest verdict ended, if it did.
        self.ended_alert: Alert | None = None

    @property
    def is_open(self) -> bool:
        """Whether an incident is open."""
        return self._open is not None

    def observe(self, verdict: Verdict, thresholds: dict[str, float]) -> list[str]:
        """The lines to log after this verdict: none, that an incident opens, or that it closes."""
        self.ended_alert = self._alerts.observe(verdict)
        if self._open is None:
            if verdict.status != ALERT:
                return []
            self._quiet = 0
            began, _ = self._alerts.made_of(verdict)
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
            # What was wrong may continue unseen.
            return []
        self._quiet += 1
        # A row that is kept open only by other metrics, which are unknown, does not keep the incident open.
        is_up = verdict.is_alert_up and (not verdict.in_a_row or verdict.recent >= FEW_RECORDS)
        return [] if self._quiet < ALERT_RECORDS or is_up else [self._close()]

    def _note(self, anomaly: Verdict, thresholds: dict[str, float]) -> None:
        """Remember the causes, and the peak RMSE of each in multiples of its threshold."""
        incident = self._open
        incident["last"] = anomaly.time
        incident["causes"] = [
            name for name in self._metrics if name in incident["causes"] or name in anomaly.causes
        ]
        self.causes = tuple(incident["causes"])
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
            f" {format_time(incident['began'])}; peak RMSE / threshold: {peaks}"
        )
        self._open = None
        return line

    def state(self) -> dict[str, Any]:
        """The state that `restore` takes, as JSON."""
        return {"open": self._open, "quiet": self._quiet, **self._alerts.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where another process stopped.

        Raises KeyError, TypeError or ValueError if the state is invalid, and then changes nothing.
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
        self._alerts.restore(state)
        self._open, self._quiet = incident, quiet
        self.causes = tuple(incident["causes"]) if incident else ()


class FirstRecords:
    """Whether the first records that a model judges show that it was trained on another node.

    They do if nearly all of them are anomalies of the memory: hosts differ in how much of it they use, while
    most attacks leave it alone. FIRST_RECORDS are enough if another metric is wrong as well. If the memory
    alone is wrong, it may be under attack: that takes a whole window of records.
    """

    def __init__(self, metrics: MetricTable = METRICS) -> None:
        self._metrics = metrics
        self._model: str | None = None
        self._records = 0
        self._blamed: dict[str, int] = {}

    def observe(self, verdict: Verdict, model: str) -> list[str]:
        """The metrics that show it, once for each model, by its identity; else none."""
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
        steady = [name for name in strange if self._metrics[name].is_steady]
        if not steady or (steady == strange and self._records < WINDOW_RECORDS):
            return []
        self._records = WINDOW_RECORDS
        return strange

    def state(self) -> dict[str, Any]:
        """The state that `restore` takes, as JSON."""
        return {"model": self._model, "records": self._records, "blamed": self._blamed}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where another process stopped.

        Raises KeyError, TypeError or ValueError if the state is invalid, and then changes nothing.
        """
        model = None if state["model"] is None else text(state["model"])
        records = whole(state["records"])
        blamed = {text(name): whole(count) for name, count in mapping(state["blamed"]).items()}
        self._model, self._records, self._blamed = model, records, blamed


class Drift:
    """Which metrics were over their threshold for most of the last `records` records.

    That is a changed normal rather than an attack. Drift ends once a metric was over in less than a quarter.
    """

    def __init__(self, records: int, metrics: MetricTable = METRICS) -> None:
        self._records = records
        self._metrics = metrics
        # A bit for each record, the newest last.
        self._over = dict.fromkeys(metrics.threshold_keys, 0)
        self.drifting: list[str] = []

    def observe(self, verdict: Verdict, thresholds: dict[str, float]) -> tuple[list[str], list[str]]:
        """The metrics whose drift begins with this verdict, and those whose drift ends."""
        begun, ended = [], []
        for name, key in self._metrics.threshold_keys.items():
            # An unknown record has an RMSE of NaN, which is over no threshold.
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
        """The state that `restore` takes, as JSON: a hexadecimal digit stands for four records."""
        return {"drifting": self.drifting, "over": {name: f"{over:x}" for name, over in self._over.items()}}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where another process stopped; only the newest part of a longer history counts.

        Raises KeyError, TypeError or ValueError if the state is invalid, and then changes nothing.
        """
        over = {name: self._newest(int(text(bits), 16)) for name, bits in mapping(state["over"]).items()}
        drifting = [text(name) for name in state["drifting"]]
        if not {*over, *drifting} <= self._over.keys():
            raise ValueError("not the name of a metric")
        self._over |= over
        self.drifting = drifting
