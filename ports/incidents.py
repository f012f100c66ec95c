"""What verdicts of ports add up to: incidents that open and close once, and lasting new levels.

An incident of a series opens with an alert, and began with the first of the anomalies that made it one. It
closes like one of the edge: once as many buckets in a row as make an alert are not anomalies, and no alert is
up. It also closes when its level is the new one. `shared.py` makes one incident of those of many ports.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from common.alerts import ALERT, ALERT_RECORDS, ANOMALY, CONTEXT_RECORDS, NORMAL, UNKNOWN, WINDOW_RECORDS, Row
from common.times import format_duration, format_time
from common.units import describe_amount, describe_ends
from common.values import mapping, number, text, whole
from ports.levels import LEVEL_MINUTES
from ports.preparation import NEXT_TO_NOTHING, PREPARATIONS
from ports.series import LATEST, NAME, port_tags
from ports.verdicts import Verdicts, traffic_seconds

# How an incident ended: as usual again; with a new level of some traffic, of none, or of traffic where there
# was none; unseen, because its series has no samples or no model any more; or an answer keeps it quiet.
USUAL, UNSEEN, ANSWERED = "usual", "unknown", "answered"
LEVELS = LEVEL, NO_TRAFFIC, TRAFFIC = "new level", "no traffic", "traffic"
ENDS = (USUAL, *LEVELS, UNSEEN, ANSWERED)
# So many buckets without samples end every row and every alert of many, and close an incident.
UNSEEN_BUCKETS = WINDOW_RECORDS + ALERT_RECORDS
# The ids of its incidents do not name it.
DEFAULT_DETECTOR = "profile"
# What an incident is of.
SCOPES = OF_PORT, OF_DEVICE, OF_ALL = "port", "device", "all"


@dataclass(frozen=True)
class PortIncident:
    """An incident from beginning to end; times in seconds since 1970.

    scope: what it is of, a `port` in one direction, a `device` or `all` devices. name: of the series or the
    device, empty for all. opened: the end of the bucket with which it opened. since: the begin of its first
    anomaly. until: the end of its last one so far. score, traffic, expected: of the anomaly with the largest
    score, as in PortAnomaly. surplus_bytes: bytes of all its anomalies beyond what was expected, negative if
    lost. ports: how many ports it is of. end: one of ENDS, None while it is open. low, high: what was
    expected of the anomaly with the largest score. lowest, highest: traffic of all anomalies. seconds: of
    which traffic is. These five are None if they are not known.
    """

    scope: str
    name: str
    detector: str
    opened: int
    since: int
    until: int
    score: float
    traffic: float
    expected: float
    surplus_bytes: float
    ports: int = 1
    end: str | None = None
    low: float | None = field(default=None, compare=False)
    high: float | None = field(default=None, compare=False)
    lowest: float | None = field(default=None, compare=False)
    highest: float | None = field(default=None, compare=False)
    seconds: int | None = field(default=None, compare=False)

    @property
    def id(self) -> str:
        """Such as sw1_eth0_in@20260306T120000Z, with when it began; one of many ports with when it opened."""
        began = self.since if self.scope == OF_PORT else self.opened
        detector = "" if self.detector == DEFAULT_DETECTOR else f".{self.detector}"
        stamp = datetime.fromtimestamp(began, UTC).strftime("%Y%m%dT%H%M%SZ")
        return f"{self.name or OF_ALL}@{stamp}{detector}"

    @property
    def why(self) -> str:
        """What a person needs first: such as `sw1_eth0_in 12.3 MB/s (expected 3-5) for 2 h`."""
        subject = {OF_PORT: self.name, OF_DEVICE: f"device {self.name}"}.get(self.scope, "all devices")
        many = "" if self.scope == OF_PORT else f", {self.ports} ports at once, most of all"
        lasted = format_duration(self.until - self.since)
        if not self.seconds:
            return f"{subject}{many} {self.traffic:g} B (expected {self.expected:g}) for {lasted}"
        low, high = (self.expected if one is None else one for one in (self.low, self.high))
        traffic = self.traffic / self.seconds
        band = describe_ends("B/s", traffic, low / self.seconds, high / self.seconds)
        return f"{subject}{many} {describe_amount('B/s', traffic)} (expected {band}) for {lasted}"

    def entry(self, members: Iterable[PortIncident] = ()) -> dict[str, Any]:
        """The incident for other programs, as JSON (see service/incident_log.py). members: of one of many."""
        traffic = {
            "unit": "B/s",
            "first": format_time(self.since * 10**9),
            "lowest": self._rate(self.lowest),
            "highest": self._rate(self.highest),
            "expected": [self._rate(self.low), self._rate(self.high)],
            "share": round(self.score, 2),
        }
        return {
            "id": self.id,
            "half": "ports",
            "node": self.name,
            "cause": "traffic",
            "began": format_time(self.since * 10**9),
            "opened": format_time(self.opened * 10**9),
            "last": format_time(self.until * 10**9),
            "ended": format_time(self.until * 10**9) if self.end else None,
            "why": self.why,
            "metrics": {"traffic": traffic},
            **({} if self.scope == OF_PORT else {"members": sorted(one.id for one in members)}),
        }

    def _rate(self, traffic: float | None) -> float | None:
        """Bytes per second, as other programs read them; None if they are not known."""
        return None if traffic is None or not self.seconds else float(f"{traffic / self.seconds:.6g}")

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What is the same when it opens and when it closes, and of no other incident."""
        return self.scope, self.name, self.detector, self.opened

    @property
    def tags(self) -> dict[str, str]:
        """The tags of its point in InfluxDB."""
        place = port_tags(self.name) if self.scope == OF_PORT else {}
        if self.scope == OF_DEVICE:
            place = {"device": self.name}
        return {"scope": self.scope, **place, "detector": self.detector}

    @property
    def fields(self) -> dict[str, float | str]:
        """The fields of its point in InfluxDB, whose time is `opened`."""
        return {
            "state": "closed" if self.end else "open",
            "since": format_time(self.since * 10**9),
            "until": format_time(self.until * 10**9),
            "minutes": round((self.until - self.since) / 60, 1),
            "ports": float(self.ports),
            "score": round(self.score, 4),
            "traffic": round(self.traffic, 1),
            "expected": round(self.expected, 1),
            "surplus_bytes": round(self.surplus_bytes, 1),
            **({"end": self.end} if self.end else {}),
        }

    def to_json(self) -> str:
        """One line for a program to read; the key `state` tells it from the line of an anomaly."""
        return json.dumps({"time": format_time(self.opened * 10**9), **self.tags, **self.fields})

    @classmethod
    def restored(cls, state: Any) -> PortIncident:
        """The inverse of `dataclasses.asdict`. Raises KeyError, TypeError or ValueError if it is invalid."""
        scope, name, detector = (text(mapping(state)[key]) for key in ("scope", "name", "detector"))
        times = [whole(state[key]) for key in ("opened", "since", "until")]
        figures = [number(state[key]) for key in ("score", "traffic", "expected", "surplus_bytes")]
        is_name = bool(NAME.fullmatch(name)) if scope == OF_PORT else scope in SCOPES
        end = state["end"]
        if not is_name or end not in (None, *ENDS) or not all(0 < time < LATEST for time in times):
            raise ValueError("not an incident")
        # A state of an older version has none of these.
        kept = {key: state.get(key) for key in ("low", "high", "lowest", "highest")}
        more = {key: None if value is None else number(value) for key, value in kept.items()}
        seconds = None if state.get("seconds") is None else whole(state["seconds"])
        return cls(
            scope, name, detector, *times, *figures, whole(state["ports"]), end, **more, seconds=seconds
        )


@dataclass(frozen=True)
class NewLevel:
    """A deviation that has lasted: its level is what is expected now.

    kind: LEVEL, NO_TRAFFIC or TRAFFIC. time: the end of the bucket with which it was taken. since: the begin
    of its first bucket; both in seconds since 1970. share: of what was expected.
    """

    series: str
    detector: str
    kind: str
    time: int
    since: int
    share: float

    def __str__(self) -> str:
        since = format_time(self.since * 10**9)
        if self.kind == LEVEL:
            return f"{self.series}: new level since {since}: {100 * self.share:.0f} % of what was expected"
        return f"{self.series}: has {'had no ' if self.kind == NO_TRAFFIC else ''}traffic since {since}"


@dataclass(frozen=True)
class Watched:
    """What is known of a series between two runs.

    open: its open incident. minutes: length of a bucket. quiet: buckets since its last anomaly that count for
    its end. closed: the end of the last anomaly of the incident before it, seconds since 1970.

    kind: NO_TRAFFIC or TRAFFIC after such a new level. The usual week is not that of the port then, and no
    anomaly is an alert: without traffic, in buckets of at most `floor` bytes; with traffic, until a day has
    had none. calm: how many buckets towards the end of that there were. calm_since: when these began.
    """

    open: PortIncident | None = None
    minutes: int = 0
    quiet: int = 0
    closed: int = 0
    kind: str | None = None
    floor: float = 0.0
    calm: int = 0
    calm_since: int = 0

    @classmethod
    def restored(cls, state: Any) -> Watched:
        """The inverse of `dataclasses.asdict`. Raises KeyError, TypeError or ValueError if it is invalid."""
        incident, kind = mapping(state)["open"], state["kind"]
        if kind not in (None, NO_TRAFFIC, TRAFFIC):
            raise ValueError("not the kind of a level")
        return cls(
            incident and PortIncident.restored(incident),
            whole(state["minutes"]),
            whole(state["quiet"]),
            whole(state["closed"]),
            kind,
            number(state["floor"]),
            whole(state["calm"]),
            whole(state["calm_since"]),
        )


@dataclass(frozen=True)
class Observed:
    """What new verdicts on a series add. changes: each incident as it opened and as it closed, with the end
    of the bucket that did it. no_alerts: ends of the buckets in which an anomaly is no alert (see Watched).
    """

    watched: Watched
    changes: tuple[tuple[int, PortIncident], ...] = ()
    new_levels: tuple[NewLevel, ...] = ()
    no_alerts: frozenset[int] = frozenset()


def observe(verdicts: Verdicts, after: int, watched: Watched) -> Observed:
    """Observe the verdicts on buckets that end after `after` (seconds since 1970), in order.

    The verdicts before those are the context: an incident may have begun there.
    """
    first = int(np.searchsorted(verdicts.times, after, side="right"))
    has_level = any(index >= first for index, _ in verdicts.scored.new_levels)
    # Nearly all series are calm nearly always.
    is_calm = watched.open is None and watched.kind is None and not has_level
    if is_calm and not (verdicts.statuses[first:] == ALERT).any():
        # No row reaches back so far.
        end = watched.closed + CONTEXT_RECORDS * verdicts.trained.minutes * 60
        is_over = len(verdicts.times) > 0 and end < verdicts.times[-1]
        return Observed(Watched() if is_over else watched)
    observer = _Observer(verdicts, watched)
    for index in range(len(verdicts.times)):
        observer.count(index)
        if index >= first:
            observer.next(index)
    return observer.observed()


def unseen(watched: Watched, judged: int, now: int) -> tuple[int, PortIncident] | None:
    """When the open incident of a series closes that has no verdict for UNSEEN_BUCKETS, and the incident.

    judged: the end of its last bucket, now: both seconds since 1970.
    """
    closes = judged + UNSEEN_BUCKETS * watched.minutes * 60
    return (closes, replace(watched.open, end=UNSEEN)) if watched.open and closes <= now else None


class _Observer:
    """Takes the verdicts on a series bucket by bucket."""

    def __init__(self, verdicts: Verdicts, watched: Watched) -> None:
        self._verdicts, self._watched = verdicts, watched
        self._ends = verdicts.times.tolist()
        self._levels = dict(verdicts.scored.new_levels)
        self._records = verdicts.trained.alert_records
        self._row = Row(records=self._records)
        self._anomalies: list[int] = []
        self._changes: list[tuple[int, PortIncident]] = []
        self._new_levels: list[NewLevel] = []
        self._no_alerts: set[int] = set()

    def observed(self) -> Observed:
        changes, new_levels = tuple(self._changes), tuple(self._new_levels)
        return Observed(self._watched, changes, new_levels, frozenset(self._no_alerts))

    def count(self, index: int) -> None:
        """Count the anomalies in a row and the recent ones, also before what is new."""
        is_anomaly = self._is_anomaly(index)
        if self._is_kept_quiet(index):
            self._row.quiet()
            return
        self._row.status(is_anomaly, is_unknown=not is_anomaly and self._verdicts.statuses[index] != NORMAL)
        if is_anomaly:
            self._anomalies.append(index)

    def _is_anomaly(self, index: int) -> bool:
        """Whether it counts as one; inside a window of the calendar it counts as unknown."""
        is_quiet = self._verdicts.buckets.is_quiet[index] or self._verdicts.is_answered(index)
        return not is_quiet and self._verdicts.statuses[index] in (ANOMALY, ALERT)

    def _is_kept_quiet(self, index: int) -> bool:
        """Whether it is an anomaly that an answer keeps quiet."""
        return self._verdicts.is_answered(index) and self._verdicts.statuses[index] in (ANOMALY, ALERT)

    def next(self, index: int) -> None:
        """Observe the next new bucket."""
        is_held = self._is_held(index)
        if is_held:
            self._no_alerts.add(self._ends[index])
        if self._watched.open is None:
            if self._verdicts.statuses[index] == ALERT and not is_held:
                self._open(index)
        elif self._is_anomaly(index) and not is_held:
            self._set(open=self._with(self._watched.open, index, index), quiet=0)
        # What was wrong may continue unseen while a row goes on.
        elif is_held or self._is_kept_quiet(index) or not self._row.anomalies:
            self._set(quiet=self._watched.quiet + 1)
            if self._watched.quiet >= self._records and (is_held or not self._row.is_up):
                self._close(index, ANSWERED if self._is_kept_quiet(index) else USUAL)
        self._follow_level(index)

    def _open(self, index: int) -> None:
        """Open an incident with the anomalies that make this bucket an alert."""
        row, incident = self._row, None
        count = row.anomalies if row.anomalies >= self._records else row.recent
        for one in self._anomalies[-count:]:
            if self._ends[one] > self._watched.closed and not self._is_held(one):
                incident = self._with(incident, one, index)
        self._set(open=incident, minutes=self._verdicts.trained.minutes, quiet=0)
        self._changes.append((incident.opened, incident))

    def _with(self, incident: PortIncident | None, index: int, now: int) -> PortIncident:
        """The incident with one more anomaly; without one, a new one that opens `now` (an index)."""
        verdicts = self._verdicts
        end = self._ends[index]
        traffic, expected = float(verdicts.buckets.traffic[index]), float(verdicts.scored.expected[index])
        score, surplus = float(verdicts.scored.score[index]), (traffic - expected) * _samples(verdicts)
        if incident is None:
            series, detector = verdicts.trained.series, verdicts.trained.detector
            opened, since = self._ends[now], end - verdicts.trained.minutes * 60
            first = PortIncident(
                OF_PORT, series, detector, opened, since, end, score, traffic, expected, surplus
            )
            seconds = traffic_seconds(verdicts.trained)
            return replace(first, lowest=traffic, highest=traffic, seconds=seconds, **self._band(index))
        lowest, highest = (
            traffic if before is None else of(before, traffic)
            for before, of in ((incident.lowest, min), (incident.highest, max))
        )
        surplus += incident.surplus_bytes
        incident = replace(incident, until=end, surplus_bytes=surplus, lowest=lowest, highest=highest)
        if score > incident.score:
            band = self._band(index)
            incident = replace(incident, score=score, traffic=traffic, expected=expected, **band)
        return incident

    def _band(self, index: int) -> dict[str, float | None]:
        """What is expected of a bucket; None where there is no bound."""
        ends = {"low": self._verdicts.scored.low[index], "high": self._verdicts.scored.high[index]}
        return {key: float(end) if np.isfinite(end) else None for key, end in ends.items()}

    def _set(self, **changed: Any) -> None:
        self._watched = replace(self._watched, **changed)

    def _close(self, index: int, end: str) -> None:
        if self._watched.open:
            closed = replace(self._watched.open, end=end)
            self._changes.append((self._ends[index], closed))
            self._set(open=None, quiet=0, closed=closed.until)

    # --- lasting levels ----

    def _is_held(self, index: int) -> bool:
        """Whether no anomaly of this bucket is an alert."""
        watched = self._watched
        if watched.kind == NO_TRAFFIC:
            # An unknown bucket has no traffic either.
            return not self._verdicts.buckets.traffic[index] > watched.floor
        return watched.kind == TRAFFIC

    def _follow_level(self, index: int) -> None:
        verdicts, watched = self._verdicts, self._watched
        if watched.kind == NO_TRAFFIC:
            self._follow_none(index)
            return
        if watched.kind == TRAFFIC and verdicts.statuses[index] != UNKNOWN:
            calm = 0 if verdicts.statuses[index] == ALERT else watched.calm + 1
            is_over = calm * verdicts.trained.minutes >= LEVEL_MINUTES
            self._set(kind=None if is_over else TRAFFIC, calm=0 if is_over else calm)
        if index not in self._levels:
            return
        part = slice(index - self._levels[index], index + 1)
        traffic, expected = verdicts.buckets.traffic[part], verdicts.scored.expected[part]
        known = ~np.isnan(traffic)
        share = float(traffic[known].sum() / max(expected[known].sum(), 1e-9))
        since = int(verdicts.buckets.starts[part.start])
        if share < NEXT_TO_NOTHING:
            self._say(index, NO_TRAFFIC, since, share)
            floor = NEXT_TO_NOTHING * float(expected[known].mean())
            self._set(kind=NO_TRAFFIC, floor=floor, calm=0)
        elif watched.kind is None and share > 1 / NEXT_TO_NOTHING:
            self._say(index, TRAFFIC, since, share)
            self._set(kind=TRAFFIC, calm=0)
        elif watched.open:
            self._say(index, LEVEL, since, share)

    def _follow_none(self, index: int) -> None:
        """Traffic that lasts as long as a new level ends that there is none."""
        verdicts, watched = self._verdicts, self._watched
        traffic = verdicts.buckets.traffic[index]
        # What happens in a window of the calendar is no sign of life.
        if np.isnan(traffic) or verdicts.buckets.is_quiet[index]:
            return
        if traffic <= watched.floor:
            self._set(calm=0)
            return
        since = watched.calm_since if watched.calm else int(verdicts.buckets.starts[index])
        self._set(calm=watched.calm + 1, calm_since=since)
        if self._watched.calm * verdicts.trained.minutes >= verdicts.trained.model.drift_minutes:
            self._say(index, TRAFFIC, since, 1.0)
            self._set(kind=TRAFFIC, calm=0)

    def _say(self, index: int, kind: str, since: int, share: float) -> None:
        trained = self._verdicts.trained
        level = NewLevel(trained.series, trained.detector, kind, self._ends[index], since, share)
        self._new_levels.append(level)
        self._close(index, kind)


def _samples(verdicts: Verdicts) -> float:
    """How many times its traffic a bucket has in bytes: the default preparation gives bytes per sample."""
    trained = verdicts.trained
    is_per_sample = PREPARATIONS[trained.preparation].is_per_sample
    return trained.minutes / trained.sample_minutes if is_per_sample else 1.0
