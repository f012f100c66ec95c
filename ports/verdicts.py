"""From a model and samples to verdicts, by the same alert rule as the edge detector's."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

import numpy as np

from common.alerts import ALERT, ALERT_RECORDS, ANOMALY, MANY_RECORDS, Row
from common.times import WEEK_MINUTES, format_time
from ports.calendars import Calendar
from ports.detectors import Scored
from ports.levels import LEVEL_MINUTES
from ports.models import Trained
from ports.preparation import PREPARATIONS, Buckets
from ports.series import Series, port_tags

# Judging begins so long before the end of training: the first day shows the level, and an anomaly of the
# second and third one does not count.
LEAD_MINUTES = 3 * LEVEL_MINUTES
# Samples are read from so long before: a bucket of which a part may be missing, and three samples, on which
# the first difference of a counter depends. None of these is longer than an hour.
READ_MINUTES = 240
NO_WINDOWS = Calendar()


@dataclass(frozen=True)
class PortAnomaly:
    """An anomaly. time: the end of its bucket, seconds since 1970. severity: `anomaly`, or `alert` by the
    rule of common/alerts.py. traffic, expected, low, high: bytes per sample (of the whole bucket for the
    workshop's preparation), infinite where there is no bound.
    """

    series: str
    detector: str
    time: int
    severity: str
    traffic: float
    expected: float
    low: float
    high: float
    score: float

    def to_json(self) -> str:
        """One line for a program to read; a bound that does not exist is null."""
        named = {"time": format_time(self.time * 10**9), **self.tags, **self.fields}
        return json.dumps(
            {
                key: None if isinstance(value, float) and math.isinf(value) else value
                for key, value in named.items()
            }
        )

    @property
    def tags(self) -> dict[str, str]:
        """The tags of its point in InfluxDB."""
        return {**port_tags(self.series), "severity": self.severity, "detector": self.detector}

    @property
    def fields(self) -> dict[str, float]:
        """The fields of its point in InfluxDB."""
        return {
            "traffic": round(self.traffic, 1),
            "expected": round(self.expected, 1),
            "low": round(self.low, 1),
            "high": round(self.high, 1),
            "score": round(self.score, 4),
        }


@dataclass(frozen=True)
class Verdicts:
    """The verdicts on consecutive buckets. statuses (n,): as in common/alerts.py."""

    trained: Trained
    buckets: Buckets
    scored: Scored
    statuses: np.ndarray

    @property
    def times(self) -> np.ndarray:
        """The end of each bucket, seconds since 1970 (n,)."""
        return self.buckets.starts + self.buckets.minutes * 60

    def after(self, time: int) -> Verdicts:
        """The verdicts on buckets that end after `time` (seconds since 1970)."""
        first = int(np.searchsorted(self.times, time, side="right"))
        scored = self.scored.from_index(first)
        return Verdicts(self.trained, self.buckets[first:], scored, self.statuses[first:])

    def without_alerts(self, times: Collection[int]) -> Verdicts:
        """The same verdicts, but no alert in the buckets with these ends."""
        is_none = np.isin(self.times, list(times)) & (self.statuses == ALERT)
        return replace(self, statuses=np.where(is_none, ANOMALY, self.statuses))

    def anomalies(self) -> Iterator[PortAnomaly]:
        """The anomalies in order of time."""
        for index in np.flatnonzero(np.isin(self.statuses, (ANOMALY, ALERT))):
            yield PortAnomaly(
                self.trained.series,
                self.trained.detector,
                int(self.times[index]),
                str(self.statuses[index]),
                *(
                    float(values[index])
                    for values in (
                        self.buckets.traffic,
                        self.scored.expected,
                        self.scored.low,
                        self.scored.high,
                        self.scored.score,
                    )
                ),
            )


def judged_from(trained: Trained, since: int) -> int:
    """The time (seconds since 1970) with which the buckets begin on which verdicts after `since` depend.

    It is the same for each `since` that is less than a day before the end of training: a level that is
    followed from elsewhere may be another one for ever, on a port that goes to and fro between two. Of what a
    job missed before, each whole day is one more.
    """
    bucket_seconds, day_seconds = trained.minutes * 60, LEVEL_MINUTES * 60
    missed = max(trained.end - since, 0) // day_seconds * day_seconds
    return trained.end // bucket_seconds * bucket_seconds - missed - LEAD_MINUTES * 60


def read_from(trained: Trained, since: int) -> int:
    """The time (seconds since 1970) after which samples are needed to judge what ends after `since`."""
    return judged_from(trained, since) - READ_MINUTES * 60


def judge(trained: Trained, series: Series, since: int, calendar: Calendar = NO_WINDOWS) -> Verdicts:
    """Judge all buckets that end after `since` (seconds since 1970), and the buckets that lead up to them.

    They depend on nothing before `read_from`. (The workshop's preparation takes gaps for zeroes: for it, this
    holds only if no gap is that long. A new interval between samples is noticed some samples late.)
    calendar: the windows of all series, in which there is no alert.
    """
    preparation = PREPARATIONS[trained.preparation]
    buckets = preparation.buckets(series, trained.minutes, trained.zone, trained.sampling)
    buckets = _begun_at(buckets, judged_from(trained, since))
    buckets = calendar.of(series.name).mark(buckets, trained.zone)
    if trained.special:
        buckets = trained.special.mark(buckets, trained.zone)
    scored = trained.model.judge(buckets)
    said = statuses(scored.score, records=trained.alert_records, is_quiet=buckets.is_quiet)
    return Verdicts(trained, buckets, scored, said)


def _begun_at(buckets: Buckets, start: int) -> Buckets:
    """The buckets from `start` (seconds since 1970) on. Up to a day of unknown ones comes before the first
    sample: where samples before a gap are not read, the first day must not begin after it.
    """
    buckets = buckets[buckets.starts >= start]
    if not len(buckets.starts):
        return buckets
    first, seconds = int(buckets.starts[0]), buckets.minutes * 60
    missing = np.arange(max(start, first - LEVEL_MINUTES * 60), first, seconds)
    slots = (buckets.slots[0] - (first - missing) // seconds) % (WEEK_MINUTES // buckets.minutes)
    return Buckets(
        buckets.minutes,
        np.concatenate([missing, buckets.starts]),
        np.concatenate([np.full(len(missing), np.nan), buckets.traffic]),
        np.concatenate([slots, buckets.slots]),
    )


def statuses(
    score: np.ndarray,
    many: int = MANY_RECORDS,
    records: int = ALERT_RECORDS,
    is_quiet: np.ndarray | None = None,
) -> np.ndarray:
    """The statuses of consecutive points from their scores, both (n,). many, records: as in Row.

    is_quiet: (n,), an anomaly of these is no alert, and counts for no later one; none if None.
    """
    row, found = Row(many, records), []
    quiet = np.zeros(len(score), dtype=bool) if is_quiet is None else is_quiet
    for value, is_in_window in zip(score.tolist(), quiet.tolist(), strict=True):
        if is_in_window and value > 1.0:
            row.status(is_anomaly=False, is_unknown=True)
            found.append(ANOMALY)
        else:
            found.append(row.status(value > 1.0, math.isnan(value)))
    return np.array(found, dtype=object)
