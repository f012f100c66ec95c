"""Levels in physical units: what is, what is expected, and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from common.units import describe_amount, describe_ends
from edge.bundle import Bundle
from edge.detector import Verdict
from edge.habits import DURATIONS
from edge.joint_habits import joint_habits
from edge.scores import RECORD_FACTOR, in_physical
from nodes.metrics import Metric, MetricTable


class Level(NamedTuple):
    """The level of a metric in one record, in its unit; NaN is unknown. low, high: what is allowed."""

    actual: float
    low: float
    expected: float
    high: float

    @property
    def is_allowed(self) -> bool:
        """Whether it is within what is allowed."""
        return self.low <= self.actual <= self.high


def levels_of(bundle: Bundle, thresholds: Mapping[str, float], verdict: Verdict) -> dict[str, Level]:
    """Metric -> its level in one record."""
    (rows,) = levels_of_all([bundle], [thresholds], [verdict])
    return {name: Level(*row) for name, row in zip(bundle.metrics, rows.tolist(), strict=True)}


def levels_of_all(
    bundles: Sequence[Bundle], thresholds: Sequence[Mapping[str, float]], verdicts: Sequence[Verdict]
) -> np.ndarray:
    """The levels in one record of each of n nodes with the same metrics: (n, metrics, 4), as in Level."""
    metrics = bundles[0].metrics
    lows, widths = (np.stack(ends) for ends in zip(*(one.ranges for one in bundles), strict=True))
    keys = [row.threshold_key for row in metrics.rows]
    limits = np.array([[each[key] for key in keys] for each in thresholds])
    bounds = _bounds(metrics, lows, widths, limits, np.stack([one.predicted for one in verdicts]))
    places = _places(metrics)
    actual = np.stack([one.actual for one in verdicts])[:, places]
    return np.stack([in_physical(actual, lows[:, places], widths[:, places]), *bounds], axis=2)


def expected_levels(
    bundle: Bundle, thresholds: Mapping[str, float], predicted: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Metric -> the low, expected and high level of n records of one node, (n,) each.

    predicted: (n, features), normalised.
    """
    metrics = bundle.metrics
    limits = np.array([thresholds[row.threshold_key] for row in metrics.rows])
    bounds = _bounds(metrics, *bundle.ranges, limits, predicted)
    return {name: tuple(bound[:, place] for bound in bounds) for place, name in enumerate(metrics)}


def _bounds(
    metrics: MetricTable, lows: np.ndarray, widths: np.ndarray, limits: np.ndarray, predicted: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The low, expected and high levels, (n, metrics) each.

    lows, widths: of the ranges, (features,) or (n, features). limits: the thresholds, (metrics,) or
    (n, metrics). predicted: (n, features), normalised. A level between low and high keeps the record's own
    RMSE within RECORD_FACTOR thresholds, if the metric's other features are as predicted: one of m features,
    off by RECORD_FACTOR * threshold * sqrt(m), makes their root mean square RECORD_FACTOR * threshold.
    """
    rows, places = metrics.rows, _places(metrics)
    lowest = np.array([-math.inf if row.may_be_negative else 0.0 for row in rows])
    least = np.array([row.least for row in rows])
    lows, widths, predicted = lows[..., places], widths[..., places], predicted[:, places]
    # A threshold may be so high that the bound overflows.
    with np.errstate(over="ignore"):
        margins = RECORD_FACTOR * limits * np.sqrt([len(row.features) for row in rows])
        low, expected, high = (
            np.maximum(in_physical(values, lows, widths), lowest)
            for values in (predicted - margins, predicted, predicted + margins)
        )
    low = np.minimum(low, np.maximum(expected - least, lowest))
    return low, expected, np.maximum(high, expected + least)


def _places(metrics: MetricTable) -> list[int]:
    """The position of each metric's level among the features."""
    return [metrics.features.index(row.level) for row in metrics.rows]


def lasting_levels(
    bundle: Bundle, thresholds: Mapping[str, float], time: int
) -> dict[str, tuple[float, float]]:
    """Metric -> the lowest and highest level that may last for a whole window at `time` (ns).

    Empty for a bundle without habits. A threshold of twice the `rmse` of the habits doubles the distance
    between the middle and the end.
    """
    habits = bundle.habits
    if habits is None:
        return {}
    rows = bundle.metrics.rows
    usual, spread = (part.reshape(-1) for part in joint_habits([habits]).usual(np.array([time])))
    factors = np.array([thresholds[row.threshold_key] for row in rows]) / habits.rmse
    longest = len(DURATIONS) - 1
    high = habits.high_middle + factors * (habits.high[longest] - habits.high_middle)
    low = habits.low_middle - factors * (habits.low_middle - habits.low[longest])
    high = usual + spread * high
    low = usual + spread * low if habits.is_low_by_hour else low
    lowest = np.array([-math.inf if row.may_be_negative else 0.0 for row in rows])
    low = np.maximum(low, lowest)
    return {name: ends for name, *ends in zip(bundle.metrics, low.tolist(), high.tolist(), strict=True)}


def describe_level(metric: Metric, value: float) -> str:
    """Such as `98 %` or `12.3 MB/s`."""
    return describe_amount(metric.unit, value)


def describe_band(metric: Metric, value: float, low: float, high: float) -> str:
    """What is allowed, in the unit in which `value` is described: such as `5-9`."""
    return describe_ends(metric.unit, value, low, high)
