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

import itertools
import json
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from common.alerts import ALERT, ALERT_RECORDS, ANOMALY, UNKNOWN, WINDOW_RECORDS, Row
from common.times import format_time
from common.values import mapping, number, whole
from edge.bundle import Bundle
from edge.scores import RECORD_FACTOR, SCORE_RECORDS, Scores, score
from edge.selection import NO_SAMPLE
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
                "rmse": _finite(self.rmse),
                "values": _finite(self.values),
            }
        )


def _finite(numbers: dict[str, float]) -> dict[str, float | None]:
    return {key: round(value, 4) if math.isfinite(value) else None for key, value in numbers.items()}


def _judge(
    time: int,
    values: dict[str, float],
    scores: Scores,
    index: int,
    thresholds: dict[str, float],
    row: Row,
) -> Verdict:
    """Verdict on the record with this index in the scores."""
    window, record = (errors[index] for errors in scores.judged)
    lasting = scores.lasting[index]
    keys = scores.metrics.threshold_keys
    limits = np.array([thresholds[key] for key in keys.values()])
    unknown = np.isnan(window) | np.isnan(record)
    over = ~unknown & ((window > limits) & (record > RECORD_FACTOR * limits) | (lasting > limits))
    evidence = np.maximum(np.minimum(window, record / RECORD_FACTOR), lasting)
    shares = evidence / np.maximum(limits, 1e-9)
    status = row.status(bool(over.any()), bool(unknown.any()))
    # `overall` is the last column of the scores.
    names = np.array(list(keys))
    return Verdict(
        time=time,
        status=status,
        causes=tuple(names[:-1][over[:-1]].tolist()),
        unknown=tuple(names[:-1][unknown[:-1]].tolist()),
        rmse=dict(
            zip(names.tolist(), np.where(unknown, np.nan, np.maximum(window, lasting)).tolist(), strict=True)
        ),
        values=values,
        shares=dict(zip(names.tolist(), shares.tolist(), strict=True)),
        in_a_row=row.anomalies,
        recent=row.recent,
        is_alert_up=row.is_up,
        # Copies, so that a stored verdict does not hold the scores of its whole window in memory.
        actual=scores.actual[index].copy(),
        predicted=scores.predicted[index].copy(),
    )


class Detector:
    """Judges records one by one, as test mode receives them."""

    def __init__(
        self, bundle: Bundle, thresholds: dict[str, float], interval_seconds: float = RECORD_SECONDS
    ) -> None:
        self.thresholds = thresholds
        self._bundle = bundle
        self._interval_ns = int(interval_seconds * 1e9)
        self._window: deque[np.ndarray] = deque(maxlen=SCORE_RECORDS)
        self._row = Row()
        self._last_slot: int | None = None

    def replace_bundle(self, bundle: Bundle) -> None:
        """Use another model from now on; the window, which is in physical units, stays."""
        self._bundle = bundle

    def forget(self) -> None:
        """Start over: the next records have nothing to do with the earlier ones."""
        self._window.clear()
        self._row = Row()
        self._last_slot = None

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

    def observe(self, time: int, columns: dict[str, float]) -> Verdict:
        """Verdict on the next record, at `time` (ns); skipped slots count as missing."""
        slot = time // self._interval_ns
        metrics = self._bundle.metrics
        missing = np.full(len(metrics.features), np.nan)
        if self._last_slot is not None:
            for _ in range(min(slot - self._last_slot - 1, WINDOW_RECORDS)):
                self._window.append(missing)
                self._row.status(False, True)
        self._last_slot = slot
        self._window.append(np.array([columns[feature] for feature in metrics.features]))
        slots = np.arange(slot - len(self._window) + 1, slot + 1)
        scores = score(self._bundle, np.array(self._window), slots * self._interval_ns, WINDOW_RECORDS)
        values = {name: columns[column] for column, name in metrics.stored.items()}
        return _judge(time, values, scores, -1, self.thresholds, self._row)


def observe_all(
    detectors: Sequence[Detector], times: Sequence[int], columns: Sequence[Mapping[str, float]]
) -> list[Verdict]:
    """The verdicts on the next record of each of n different nodes."""
    return [one.observe(time, row) for one, time, row in zip(detectors, times, columns, strict=True)]


def detect(thresholds: dict[str, float], frame: pd.DataFrame, scores: Scores) -> list[Verdict]:
    """Verdicts on all records of a resampled dataset: those that Detector gives one by one."""
    row = Row()
    stored = frame[list(scores.metrics.stored)].rename(columns=scores.metrics.stored).astype(float)
    times = frame.index.as_unit("ns").asi8.tolist()
    return [
        _judge(time, values, scores, index, thresholds, row)
        for index, (time, values) in enumerate(zip(times, stored.to_dict("records"), strict=True))
    ]


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
