"""Verdicts: the one place that decides what is an anomaly, and how the log describes it.

A record is an anomaly if both of these hold for some metric, or for all metrics together:

- the RMSE over the window's predictions is above the threshold (something has been wrong lately), and
- the record's own RMSE is above RECORD_FACTOR times the threshold (it is wrong now),

or if the error of a metric's level that lasts (`habits.py`) is above the threshold: the network takes a
change that lasts for the new level.

The second condition keeps one spike from making anomalies of the 26 records after it. It needs a factor
because a threshold is made for RMSEs over a window, and single records vary more: surprises in normal
operation (a UE that attaches, a burst of traffic) reach about 4 thresholds, attacks tens to hundreds.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from common.alerts import ALERT, ALERT_RECORDS, ANOMALY, UNKNOWN, WINDOW_RECORDS, Row
from common.times import format_time
from common.values import mapping, number, whole
from edge.bundle import Bundle
from edge.quiet import LASTING_RECORDS, NodeQuiet
from edge.scores import PREDICTIONS, RECORD_FACTOR, SCORE_RECORDS, Scores, joint, score_records
from edge.selection import NO_SAMPLE
from edge.windows import Consecutive, Newest, Remembered
from nodes.metrics import METRICS, OVERALL, MetricTable
from nodes.series import RECORD_SECONDS, is_of

if TYPE_CHECKING:
    import pandas as pd

UNKNOWN_CAUSE = "unknown cause"
# A log line names at most this many series with the same fault.
NAMED_SERIES = 6


@dataclass(frozen=True)
class Verdict:
    """The result of judging one record.

    time: ns. status: normal, anomaly, alert (by the rule of common/alerts.py) or unknown.
    causes: metrics over their thresholds. unknown: metrics that cannot be judged, whatever the status.
    rmse: over the window, per metric and overall; the error of a level that lasts, if that is larger.
    values: name of a stored field -> the value, in the unit of its column.
    shares: how close the record is to an anomaly, per metric and overall; above 1 it is one.
    in_a_row: anomalies in a row up to this record, 0 if there are none or the row ends here; unknown records
    in between do not count. recent: anomalies among the last WINDOW_RECORDS records; is_alert_up: whether an
    alert is up after this record; both as in Row.
    actual, predicted: (features,), as in Scores.
    quiet: what keeps an anomaly from counting for an alert; empty if nothing does.
    levels: metric -> its level in its unit; of an anomaly alone.
    behind: of an anomaly without causes, the metrics without which `overall` would not be over its threshold.
    """

    time: int
    status: str
    causes: tuple[str, ...]
    unknown: tuple[str, ...]
    rmse: dict[str, float]
    values: dict[str, float]
    shares: dict[str, float] = field(default_factory=dict)
    in_a_row: int = 0
    recent: int = 0
    is_alert_up: bool = False
    actual: np.ndarray = field(default_factory=lambda: np.empty(0), compare=False, repr=False)
    predicted: np.ndarray = field(default_factory=lambda: np.empty(0), compare=False, repr=False)
    quiet: str = ""
    levels: dict[str, float] = field(default_factory=dict, compare=False, repr=False)
    behind: tuple[str, ...] = field(default=(), compare=False)

    @property
    def is_loud(self) -> bool:
        """Whether the record is an anomaly that nothing keeps quiet."""
        return self.is_anomaly and not self.quiet

    @property
    def is_anomaly(self) -> bool:
        """Whether the record is an anomaly, alerted or not."""
        return self.status in (ANOMALY, ALERT)

    @property
    def flurry(self) -> int:
        """The number of anomalies behind an alert at this record: those in a row, or the recent ones."""
        return self.in_a_row if self.in_a_row >= ALERT_RECORDS else self.recent

    def blames(self, name: str) -> bool:
        """Whether this metric makes the record an anomaly; `overall` does if no single metric does."""
        return name in self.causes or (name == OVERALL and self.is_anomaly and not self.causes)

    @property
    def possible_cause(self) -> str:
        """The causes as one text, like `cpu | net_up`, in the order of the table of metrics."""
        return " | ".join(self.causes) or UNKNOWN_CAUSE

    def to_json(self) -> str:
        """The verdict as one line of JSON for other programs; unknown numbers are null."""
        return json.dumps(
            {
                "time": format_time(self.time),
                "possible_cause": self.possible_cause,
                "severity": self.status,
                **({"quiet": self.quiet} if self.quiet else {}),
                "rmse": _finite(self.rmse),
                "values": _finite(self.values),
            }
        )


def _finite(numbers: dict[str, float]) -> dict[str, float | None]:
    return {key: round(value, 4) if math.isfinite(value) else None for key, value in numbers.items()}


def _verdicts(
    times: Sequence[int],
    physical: np.ndarray,
    values: Sequence[dict[str, float]],
    scores: Scores,
    limits: np.ndarray,
    rows: Iterable[Row],
    quiet: Callable[[int, Sequence[str], dict[str, float]], str] | None = None,
) -> list[Verdict]:
    """Verdicts on n records.

    physical: (n, features). limits: (n or 1, metrics + 1), their thresholds. rows: where each is counted.
    quiet: what keeps an anomaly quiet, from its place, the metrics that are wrong, and their levels.
    """
    window, record = scores.judged
    unknown = np.isnan(window) | np.isnan(record)
    over = ~unknown & ((window > limits) & (record > RECORD_FACTOR * limits) | (scores.lasting > limits))
    evidence = np.maximum(np.minimum(window, record / RECORD_FACTOR), scores.lasting)
    shares = (evidence / np.maximum(limits, 1e-9)).tolist()
    rmse = np.where(unknown, np.nan, np.maximum(window, scores.lasting)).tolist()
    are_over, are_unknown = over.any(axis=1).tolist(), unknown.any(axis=1).tolist()
    # `overall` is the last column of the scores.
    names = list(scores.metrics.threshold_keys)
    verdicts = []
    for i, (time, stored, row) in enumerate(zip(times, values, rows, strict=False)):
        causes = tuple(itertools.compress(names[:-1], over[i])) if are_over[i] else ()
        levels = _levels(scores.metrics, physical[i]) if are_over[i] else {}
        behind: tuple[str, ...] = ()
        if are_over[i] and not causes:
            limit = limits[min(i, len(limits) - 1), -1]
            behind = _behind_overall(scores.metrics, window[i], record[i], limit)
        kept = quiet(i, causes or behind, levels) if quiet and are_over[i] else ""
        status = row.quiet() if kept else row.status(are_over[i], are_unknown[i])
        verdicts.append(
            Verdict(
                time=time,
                status=status,
                causes=causes,
                unknown=tuple(itertools.compress(names[:-1], unknown[i])) if are_unknown[i] else (),
                rmse=dict(zip(names, rmse[i], strict=True)),
                values=stored,
                shares=dict(zip(names, shares[i], strict=True)),
                in_a_row=row.anomalies,
                recent=row.recent,
                is_alert_up=row.is_up,
                # Copies, so that a stored verdict does not hold the scores of all records in memory.
                actual=scores.actual[i].copy(),
                predicted=scores.predicted[i].copy(),
                quiet=kept,
                levels=levels,
                behind=behind,
            )
        )
    return verdicts


def _levels(metrics: MetricTable, record: np.ndarray) -> dict[str, float]:
    """Metric -> its level in a record (features,), in its unit."""
    return {name: float(record[places[-1]]) for name, places in metrics.feature_places.items()}


def _behind_overall(
    metrics: MetricTable, window: np.ndarray, record: np.ndarray, limit: float
) -> tuple[str, ...]:
    """The metrics without whose errors `overall` would be within its threshold, those with the largest first.

    window, record: (metrics + 1,), the RMSEs of a record that is an anomaly by `overall` alone, so that all
    are known. limit: its threshold.
    """
    counts = np.array([len(row.features) for row in metrics.rows])
    # What each metric adds to the square of `overall`, in squares of what is allowed.
    allowed = max(limit, 1e-9)
    errors = np.stack([window[:-1], record[:-1] / RECORD_FACTOR]) / allowed
    parts = counts / counts.sum() * errors**2
    found, left = [], parts.sum(axis=1)
    for place in np.argsort(-parts.sum(axis=0), kind="stable"):
        if left.min() <= 1:
            break
        found.append(metrics.rows[place].name)
        left = left - parts[:, place]
    return tuple(found)


def _kind(bundle: Bundle) -> Hashable:
    """What is equal for nodes that are judged at once: metrics, steps, and whether there are habits."""
    return id(_first_of_equal(bundle.metrics)), bundle.n_steps, bundle.habits is None


@functools.cache
def _first_of_equal(metrics: MetricTable) -> MetricTable:
    """To compare two tables takes longer than to judge a record."""
    return metrics


def _limits(thresholds: dict[str, float], metrics: MetricTable) -> list[float]:
    """The thresholds in the order of the scores."""
    return [thresholds[key] for key in metrics.threshold_keys.values()]


class Detector:
    """Judges the records of one node one by one, as test mode receives them."""

    def __init__(
        self, bundle: Bundle, thresholds: dict[str, float], interval_seconds: float = RECORD_SECONDS
    ) -> None:
        self.thresholds = thresholds
        self._bundle, self._kind = bundle, _kind(bundle)
        self._interval_ns = int(interval_seconds * 1e9)
        self._window: deque[np.ndarray] = deque(maxlen=SCORE_RECORDS)
        self._row = Row()
        self._last_slot: int | None = None
        # What was computed of the records in the window; None if it is to be computed anew.
        self._memory: Remembered | None = Remembered()
        # What keeps anomalies of this node quiet.
        self.quiet: NodeQuiet | None = None

    @property
    def last_slot(self) -> int | None:
        """The slot of the newest record; None if there is none."""
        return self._last_slot

    def replace_bundle(self, bundle: Bundle) -> None:
        """Use another model from now on; the window, which is in physical units, stays."""
        self._bundle, self._kind = bundle, _kind(bundle)
        self._memory = None

    def forget(self) -> None:
        """Start over: the next records have nothing to do with the earlier ones."""
        self._window.clear()
        self._row = Row()
        self._last_slot = None
        self._memory = Remembered()

    def state(self, since: int | None = None) -> dict[str, Any]:
        """The state for `restore`, in JSON; of the window, only the records after the slot `since`."""
        count = len(self._window)
        newest = count if since is None else min(max((self._last_slot or 0) - since, 0), count)
        return {
            "window": [values.tolist() for values in itertools.islice(self._window, count - newest, None)],
            "length": count,
            **self._row.state(),
            "last_slot": self._last_slot,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where another process stopped.

        Raises KeyError, TypeError or ValueError, and changes nothing, for an invalid state or other features.
        """
        window = [np.array([number(value) for value in values]) for values in mapping(state)["window"]]
        if any(values.shape != (len(self._bundle.features),) for values in window):
            raise ValueError("a window of other features")
        row = Row()
        row.restore({key: whole(state[key]) for key in row.state().keys() & state.keys()})
        last_slot = None if state["last_slot"] is None else whole(state["last_slot"])
        self.forget()
        self._window.extend(window)
        self._row, self._last_slot = row, last_slot
        self._memory = None

    def observe(self, time: int, columns: Mapping[str, float]) -> Verdict:
        """Verdict on the next record, at `time` (ns); skipped slots count as missing."""
        (verdict,) = observe_all([self], [time], [columns])
        return verdict

    def kept_quiet(self, time: int) -> str:
        """What keeps the whole node quiet at `time` (ns), whatever comes; empty if nothing does."""
        return self.quiet.covers_all(time, self._zone) if self.quiet is not None else ""

    @property
    def _zone(self) -> str:
        return self._bundle.habits.zone if self._bundle.habits else "UTC"

    def _kept_quiet(self, time: int, causes: Sequence[str], levels: dict[str, float]) -> str:
        """What keeps an anomaly of the newest record quiet; empty if nothing does."""
        if self.quiet is None:
            return ""
        places = self._bundle.metrics.feature_places
        window = np.array(list(itertools.islice(reversed(self._window), LASTING_RECORDS)))[::-1]
        recent = {name: window[:, places[name][-1]] for name in causes}
        return self.quiet.covers(time, self._zone, causes, levels, recent)

    def _advance(self, slot: int, values: np.ndarray) -> Remembered:
        """Take the values of the next record; returns what is remembered of those before it."""
        last_slot = slot - 1 if self._last_slot is None else self._last_slot
        if self._memory is None:
            past = Consecutive(PREDICTIONS - 1)
            slots = np.arange(last_slot - len(self._window) + 1, last_slot + 1)
            if self._window:
                score_records(joint(self._bundle), np.array(self._window), slots * self._interval_ns, past)
            self._memory = past.memory
        skipped = min(slot - last_slot - 1, WINDOW_RECORDS)
        if skipped > 0:
            self._memory.skip(skipped)
            self._window.extend([np.full(len(values), np.nan)] * skipped)
            for _ in range(skipped):
                self._row.status(False, True)
        self._last_slot = slot
        self._window.append(values)
        return self._memory


def observe_all(
    detectors: Sequence[Detector], times: Sequence[int], columns: Sequence[Mapping[str, float]]
) -> list[Verdict]:
    """Verdicts on the next record of each of n different nodes, at `times` (ns), as `Detector.observe`.

    Only the new records are predicted, those of nodes that share a network in one batch. A node's verdict is
    the one that it gets alone.
    """
    groups: dict[Hashable, list[int]] = {}
    for place, detector in enumerate(detectors):
        groups.setdefault(detector._kind, []).append(place)
    found = {}
    for places in groups.values():
        of_group = ([every[place] for place in places] for every in (detectors, times, columns))
        found.update(zip(places, _observe_alike(*of_group), strict=True))
    return [found[place] for place in range(len(detectors))]


def _observe_alike(
    detectors: Sequence[Detector], times: Sequence[int], columns: Sequence[Mapping[str, float]]
) -> list[Verdict]:
    """As observe_all(), for nodes with the same metrics."""
    metrics = detectors[0]._bundle.metrics
    values = np.array([[one[feature] for feature in metrics.features] for one in columns], dtype=float)
    stored = [{name: one[column] for column, name in metrics.stored.items()} for one in columns]
    slots = [time // one._interval_ns for one, time in zip(detectors, times, strict=True)]
    slot_times = np.array([slot * one._interval_ns for one, slot in zip(detectors, slots, strict=True)])
    # A copy of each, so that a window does not hold the values of other nodes in memory.
    memories = [
        one._advance(slot, row.copy()) for one, slot, row in zip(detectors, slots, values, strict=True)
    ]
    bundles = joint(*(one._bundle for one in detectors))
    scores = score_records(bundles, values, slot_times, Newest(memories))
    limits = np.array([_limits(one.thresholds, metrics) for one in detectors])
    return _verdicts(
        times,
        values,
        stored,
        scores,
        limits,
        [one._row for one in detectors],
        lambda place, *found: detectors[place]._kept_quiet(times[place], *found),
    )


def detect(thresholds: dict[str, float], frame: pd.DataFrame, scores: Scores) -> list[Verdict]:
    """Verdicts on all records of a resampled dataset: those that Detector gives one by one."""
    metrics = scores.metrics
    columns = [frame[column].to_numpy(dtype=float).tolist() for column in metrics.stored]
    stored = [dict(zip(metrics.stored.values(), row, strict=True)) for row in zip(*columns, strict=True)]
    times = frame.index.as_unit("ns").asi8.tolist()
    limits = np.array([_limits(thresholds, metrics)])
    physical = frame[list(metrics.features)].to_numpy(dtype=float)
    return _verdicts(times, physical, stored, scores, limits, itertools.repeat(Row()))


def describe_verdict(verdict: Verdict, faults: Mapping[str, str], metrics: MetricTable = METRICS) -> str:
    """The log line of one record."""
    if verdict.is_anomaly:
        return verdict.to_json()
    when = format_time(verdict.time)
    if verdict.status == UNKNOWN:
        return f"{when} {describe_unknown(verdict, faults, metrics)}"
    nearest = max(verdict.shares, key=lambda name: verdict.shares[name])
    return f"{when} normal (nearest to an anomaly: {nearest}, {verdict.shares[nearest]:.0%})"


def describe_unknown(verdict: Verdict, faults: Mapping[str, str], metrics: MetricTable = METRICS) -> str:
    """The metrics that cannot be judged, and why."""
    sources = {
        metric: [name for name in faults if any(is_of(name, key) for key in metrics[metric].measurements)]
        for metric in verdict.unknown
    }
    unexplained = [metric for metric, series in sources.items() if not series]
    names: dict[str, list[str]] = {}
    for name, fault in faults.items():
        if any(name in series for series in sources.values()):
            names.setdefault(fault, []).append(name)
    reasons = []
    for fault, series in names.items():
        more = f" and {len(series) - NAMED_SERIES} more" if len(series) > NAMED_SERIES else ""
        listed = ", ".join(series[:NAMED_SERIES]) + more
        is_gap = fault.startswith(NO_SAMPLE)
        reasons.append(
            f"{NO_SAMPLE} of {listed}{fault[len(NO_SAMPLE) :]}" if is_gap else f"{listed}: {fault}"
        )
    if unexplained or not verdict.unknown:
        of = f" of {', '.join(unexplained)}" if reasons else ""
        reasons.append(f"too few usable records{of} before it")
    return f"unknown: {', '.join(verdict.unknown) or 'overall'} ({'; '.join(reasons)})"
