"""What verdicts add up to over time: alerts and incidents.

Verdicts come every 15 s; an operator is told of each change once. All of it can survive a restart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from common.alerts import ALERT, ALERT_RECORDS, FEW_RECORDS, WINDOW_RECORDS
from common.times import format_duration, format_time
from common.values import mapping, number, text, whole
from edge.detector import UNKNOWN_CAUSE, Verdict
from edge.why import Deviation, describe, restored, state_of
from nodes.metrics import METRICS, MetricTable

# An alert's picture shows at most this many records, the newest (6 h of 15 s).
ALERT_PICTURE_RECORDS = 1440


@dataclass(frozen=True)
class Alert:
    """An alert from beginning to end; times in ns.

    first_anomaly: the first of those that made it an alert. start: the first record that is an alert. end:
    the record that ended it, or the newest one while it `is_open`. why: that of its incident.
    """

    first_anomaly: int
    start: int
    end: int
    is_open: bool
    causes: tuple[str, ...]
    why: str = ""

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
        cause = self.why or " | ".join(self.causes) or UNKNOWN_CAUSE
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
        if verdict.is_loud:
            self._anomalies.append((verdict.time, verdict.causes))
            if not verdict.is_alert_up:
                # The alert ended in slots without a record; this anomaly is not part of it.
                ended = self._end()
        if self._up is not None:
            causes = {*self._up.causes, *(verdict.causes if verdict.is_loud else ())}
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


@dataclass(frozen=True)
class Incident:
    """An incident of one node; times in ns.

    node: its name, empty if it is the only one. began: its first anomaly. opened: the alert that opened it.
    last: its newest anomaly so far. why: what a person needs first, as it was when it opened. found: metric
    -> how far it was from what was expected. peaks: metric -> peak RMSE in multiples of its threshold.
    is_open: whether it has not closed.
    """

    node: str
    began: int
    opened: int
    last: int
    causes: tuple[str, ...]
    why: str = ""
    found: Mapping[str, Deviation] = field(default_factory=dict)
    peaks: Mapping[str, float] = field(default_factory=dict)
    is_open: bool = True

    @property
    def id(self) -> str:
        """Such as edge-7@20260306T120014Z, with the time of its first anomaly."""
        return incident_id(self.node, self.began)

    @property
    def cause(self) -> str:
        """The causes as one text, in the order of the table of metrics."""
        return " | ".join(self.causes) or UNKNOWN_CAUSE

    def entry(self, metrics: MetricTable) -> dict[str, Any]:
        """The incident for other programs, as JSON."""
        return {
            "id": self.id,
            "half": "edge",
            "node": self.node,
            "cause": self.cause,
            "began": format_time(self.began),
            "opened": format_time(self.opened),
            "last": format_time(self.last),
            "ended": None if self.is_open else format_time(self.last),
            "why": self.why,
            "metrics": {name: one.entry(metrics[name]) for name, one in self.found.items()},
        }

    def state(self) -> dict[str, Any]:
        """The state that `restored` takes, as JSON."""
        return {
            "began": self.began,
            "opened": self.opened,
            "last": self.last,
            "causes": list(self.causes),
            "why": self.why,
            "found": state_of(self.found),
            "peaks": dict(self.peaks),
        }

    @classmethod
    def restored(cls, node: str, state: Any, metrics: MetricTable) -> Incident:
        """An open incident. Raises KeyError, TypeError or ValueError if the state is invalid."""
        began = whole(mapping(state)["began"])
        return cls(
            node,
            began,
            # A state of an older version has neither these nor the reasons.
            whole(state.get("opened", began)),
            whole(state["last"]),
            tuple(name for name in metrics if name in state["causes"]),
            text(state.get("why", "")),
            restored(state.get("found", {}), metrics),
            {text(name): number(ratio) for name, ratio in mapping(state["peaks"]).items()},
        )


def incident_id(name: str, began: int) -> str:
    """The id of the incident of a node, an empty one if it is the only one, that began then (ns)."""
    moment = f"{_moment(began):%Y%m%dT%H%M%SZ}"
    return f"{name}@{moment}" if name else moment


class Incidents:
    """Takes verdicts one by one; reports once when an incident opens, and once when it closes.

    An incident opens with an alert; it began with the first of the anomalies that made it one. It closes once
    ALERT_RECORDS records in a row are not anomalies and no alert is up. So an attack that pauses for a record
    is one incident, and so is one that comes and goes. What is kept quiet is no anomaly here.

    node: the name of the node, empty if it is the only one.
    """

    def __init__(self, metrics: MetricTable = METRICS, node: str = "") -> None:
        self._metrics, self._node = metrics, node
        self._open: Incident | None = None
        self._quiet = 0
        self._alerts = Alerts(metrics)
        # Of the newest anomalies: time, and metric -> how far it was from what was expected.
        self._found: deque[tuple[int, Mapping[str, Deviation]]] = deque(maxlen=WINDOW_RECORDS)
        # The incident that is open, or was last.
        self.newest: Incident | None = None
        # The alert that the newest verdict ended, if it did.
        self.ended_alert: Alert | None = None

    @property
    def is_open(self) -> bool:
        """Whether an incident is open."""
        return self._open is not None

    def observe(
        self,
        verdict: Verdict,
        thresholds: Mapping[str, float],
        found: Mapping[str, Deviation] | None = None,
    ) -> list[str]:
        """The lines to log after this verdict: none, that an incident opens, or that it closes.

        found: what an anomaly shows of each metric; nothing unless given.
        """
        ended = self._alerts.observe(verdict)
        lines = self._observe(verdict, thresholds, found or {})
        self.newest = self._open or self.newest
        self.ended_alert = ended and self._explained(ended)
        return lines

    @property
    def alert_up(self) -> Alert | None:
        """The alert that is up, so far."""
        return self._alerts.up and self._explained(self._alerts.up)

    def _explained(self, alert: Alert) -> Alert:
        """The alert with the reason of its incident."""
        is_of_incident = self.newest is not None and alert.start >= self.newest.opened
        return replace(alert, why=self.newest.why) if is_of_incident else alert

    def _observe(
        self, verdict: Verdict, thresholds: Mapping[str, float], found: Mapping[str, Deviation]
    ) -> list[str]:
        if verdict.is_loud:
            self._found.append((verdict.time, found))
        elif not verdict.in_a_row and not verdict.recent:
            # None of them can be part of an alert any more.
            self._found.clear()
        if self._open is None:
            if verdict.status != ALERT:
                return []
            self._quiet = 0
            self._open = self._opened(verdict, thresholds)
            return [f"{format_time(verdict.time)} incident opens: {self._open.why} [{self._open.id}]"]
        if verdict.is_loud:
            self._quiet = 0
            self._open = self._with(self._open, verdict, thresholds, found)
            return []
        causes = set(self._open.causes)
        is_unseen = not (causes and verdict.unknown and causes.isdisjoint(verdict.unknown))
        if verdict.in_a_row and is_unseen and not verdict.quiet:
            # What was wrong may continue unseen.
            return []
        self._quiet += 1
        # A row that is kept open only by other metrics, which are unknown, does not keep the incident open.
        is_up = verdict.is_alert_up and (not verdict.in_a_row or verdict.recent >= FEW_RECORDS)
        return [] if self._quiet < ALERT_RECORDS or is_up else [self._close(verdict.quiet)]

    def _opened(self, alert: Verdict, thresholds: Mapping[str, float]) -> Incident:
        """The incident that an alert opens, with what the anomalies showed that made it an alert."""
        began, _ = self._alerts.made_of(alert)
        incident = Incident(self._node, began, alert.time, alert.time, ())
        for time, found in self._found:
            if began <= time < alert.time:
                incident = replace(incident, found=_joined(incident.found, found))
        incident = self._with(incident, alert, thresholds, self._found[-1][1])
        why = describe(incident.found, self._metrics, incident.causes, self._node, alert.time)
        return replace(incident, why=why)

    def _with(
        self,
        incident: Incident,
        anomaly: Verdict,
        thresholds: Mapping[str, float],
        found: Mapping[str, Deviation],
    ) -> Incident:
        """The incident with one more anomaly."""
        causes = {*incident.causes, *anomaly.causes}
        peaks = dict(incident.peaks)
        for name, key in self._metrics.threshold_keys.items():
            if anomaly.blames(name):
                peaks[name] = max(anomaly.rmse[name] / max(thresholds[key], 1e-9), peaks.get(name, 0.0))
        return replace(
            incident,
            last=anomaly.time,
            causes=tuple(name for name in self._metrics if name in causes),
            found=_joined(incident.found, found),
            peaks=peaks,
        )

    def _close(self, quiet: str = "") -> str:
        ended = self._open
        # How long it has lasted is known now, and what else came.
        why = describe(ended.found, self._metrics, ended.causes, self._node, ended.last)
        closed = self.newest = replace(ended, is_open=False, why=why)
        lasted = format_duration((closed.last - closed.began) / 1e9)
        peaks = ", ".join(
            f"{name} {closed.peaks[name]:.1f}"
            for name in self._metrics.threshold_keys
            if name in closed.peaks
        )
        self._open = None
        return (
            f"{format_time(closed.last)} incident closes: {closed.cause} for {lasted} since"
            f" {format_time(closed.began)}; peak RMSE / threshold: {peaks}"
            f"{f'; kept quiet by {quiet}' if quiet else ''} [{closed.id}]"
        )

    def state(self) -> dict[str, Any]:
        """The state that `restore` takes, as JSON."""
        return {
            "open": self._open and self._open.state(),
            "quiet": self._quiet,
            "found": [[time, state_of(found)] for time, found in self._found],
            **self._alerts.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where another process stopped.

        Raises KeyError, TypeError or ValueError if the state is invalid, and then changes nothing.
        """
        incident = state["open"]
        if incident is not None:
            incident = Incident.restored(self._node, incident, self._metrics)
        quiet = whole(state["quiet"])
        found = [(whole(time), restored(one, self._metrics)) for time, one in state.get("found", ())]
        self._alerts.restore(state)
        self._found = deque(found, maxlen=WINDOW_RECORDS)
        self._open = self.newest = incident
        self._quiet = quiet


def _joined(earlier: Mapping[str, Deviation], later: Mapping[str, Deviation]) -> dict[str, Deviation]:
    """What two anomalies, or several and one, show of each metric."""
    return {
        name: earlier[name].and_then(later[name]) if name in earlier and name in later else one
        for name, one in {**later, **earlier}.items()
    }
