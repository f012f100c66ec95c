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
    workshop's preparation), infinite where there is no bound. quiet: the answer or the window that keeps it
    from counting for an alert.
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
    quiet: str = ""

    def to_json(self) -> str:
        """One line for a program to read; a bound that does not exist is null."""
        quiet = {"quiet": self.quiet} if self.quiet else {}
        named = {"time": format_time(self.time * 10**9), **self.tags, **quiet, **self.fields}
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
    """The verdicts on consecutive buckets. statuses (n,): as in common/alerts.py.

    answered: (n,), the place of the answer among those of `calendar`, of this series, that keeps a bucket
    quiet, -1 without one; None if there is no answer.
    """

    trained: Trained
    buckets: Buckets
    scored: Scored
    statuses: np.ndarray
    answered: np.ndarray | None = None
    calendar: Calendar = NO_WINDOWS

    @property
    def times(self) -> np.ndarray:
        """The end of each bucket, seconds since 1970 (n,)."""
        return self.buckets.starts + self.buckets.minutes * 60

    def after(self, time: int) -> Verdicts:
        """The verdicts on buckets that end after `time` (seconds since 1970)."""
        first = int(np.searchsorted(self.times, time, side="right"))
        scored = self.scored.from_index(first)
        answered = None if self.answered is None else self.answered[first:]
        return replace(
            self,
            buckets=self.buckets[first:],
            scored=scored,
            statuses=self.statuses[first:],
            answered=answered,
        )

    def is_answered(self, index: int) -> bool:
        """Whether an answer keeps a bucket quiet."""
        return self.answered is not None and bool(self.answered[index] >= 0)

    def quiet(self, index: int) -> str:
        """The answer or the windows that keep a bucket quiet; empty without one."""
        if self.is_answered(index):
            return f"answer {self.calendar.answers[self.answered[index]].id}"
        if not self.buckets.is_quiet[index]:
            return ""
        bucket = self.buckets[index : index + 1]
        names = self.calendar.names(bucket.starts, bucket.minutes, self.trained.zone)
        return f"calendar {', '.join(names)}"

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
                quiet=self.quiet(index),
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
    calendar = calendar.of(series.name)
    buckets = calendar.mark(buckets, trained.zone)
    if trained.special:
        buckets = trained.special.mark(buckets, trained.zone)
    scored = trained.model.judge(buckets)
    answered = None
    if calendar.answers:
        answered = calendar.answered(buckets, trained.zone, buckets.traffic / traffic_seconds(trained))
    is_answered = None if answered is None else answered >= 0
    said = statuses(
        scored.score, records=trained.alert_records, is_quiet=buckets.is_quiet, is_answered=is_answered
    )
    return Verdicts(trained, buckets, scored, said, answered, calendar)


def traffic_seconds(trained: Trained) -> int:
    """How many seconds the traffic of a bucket is of: of a sample, or of the whole bucket."""
    is_per_sample = PREPARATIONS[trained.preparation].is_per_sample
    return 60 * (trained.sample_minutes if is_per_sample else trained.minutes)


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
    is_answered: np.ndarray | None = None,
) -> np.ndarray:
    """The statuses of consecutive points from their scores, both (n,). many, records: as in Row.

    is_quiet, is_answered: (n,), an anomaly of these is no alert, and counts for no later one; none if None.
    Several that are answered in a row also end an alert.
    """
    row, found = Row(many, records), []
    none = np.zeros(len(score), dtype=bool)
    marks = ((none if one is None else one).tolist() for one in (is_quiet, is_answered))
    for value, is_in_window, has_answer in zip(score.tolist(), *marks, strict=True):
        if has_answer and value > 1.0:
            found.append(row.quiet())
        elif is_in_window and value > 1.0:
            row.status(is_anomaly=False, is_unknown=True)
            found.append(ANOMALY)
        else:
            found.append(row.status(value > 1.0, math.isnan(value)))
    return np.array(found, dtype=object)
