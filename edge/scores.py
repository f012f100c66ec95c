"""Scores: the RMSE of each metric over the window and of single records, and the levels thresholds allow."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from common.alerts import WINDOW_RECORDS
from edge.bundle import Bundle
from edge.sequences import N_STEPS, feature_ranges, metric_square_errors, normalize, split_sequences
from nodes.metrics import BOTH, METRICS, UP, MetricTable

if TYPE_CHECKING:
    import pandas as pd

RECORD_FACTOR = 4.0
PREDICTIONS = WINDOW_RECORDS - N_STEPS + 1
# The scores of a record depend on so many: those of its window, and those in the window of each of them.
SCORE_RECORDS = 2 * WINDOW_RECORDS - 1
# An RMSE over fewer known predictions than this says too little.
MIN_PREDICTIONS = PREDICTIONS // 3
# Values further outside the trained range than this share of its width are not used as inputs.
FAR_OUTSIDE = 0.25
# Below the trained range levels count on a log scale, where this share of the range is as good as zero.
NEXT_TO_ZERO = 0.01
# In trained ranges. No quantity reaches it, and the squares of values limited to it stay finite.
FURTHEST = 1e12


@dataclass(frozen=True)
class Scores:
    """The scores of n consecutive records, in normalised units; NaN is unknown.

    actual, predicted: (n, features), in the units of `normalised`, not clipped. window: RMSE over the last
    predictions, (n, metrics + 1), in the order of the threshold_keys of `metrics`. record: RMSE of each
    single record, with the same shape and order. lasting: the error of levels that have lasted too long,
    likewise; 0 for `overall`.
    """

    actual: np.ndarray
    predicted: np.ndarray
    window: np.ndarray
    record: np.ndarray
    lasting: np.ndarray
    metrics: MetricTable = METRICS
    counted_window: np.ndarray | None = None
    counted_record: np.ndarray | None = None

    @property
    def judged(self) -> tuple[np.ndarray, np.ndarray]:
        """RMSE over the window, and of each record, by which records are judged."""
        if self.counted_window is None or self.counted_record is None:
            return self.window, self.record
        return self.counted_window, self.counted_record


def score(
    bundle: Bundle, values: np.ndarray, times: np.ndarray | None = None, newest: int | None = None
) -> Scores:
    """Score consecutive records (n, features) in physical units, NaN where a value is missing.

    times: (n,) in ns; only a bundle without habits needs none. newest: only so many records are scored, the
    last ones. Values that belong to a daily job count as predicted.

    The inputs of the network are clipped to the trained range: a network that sees an attack predicts the
    attack. A missing input is replaced by its neighbour, and so is one far outside the range, or the records
    after an attack would be measured against it. A feature without a usable input gets its mean; if all its
    inputs are missing, its metric is unknown.
    """
    actual = moved = normalised(bundle, values)
    is_excused = np.zeros(values.shape, dtype=bool)
    if bundle.habits:
        lows, widths = feature_ranges(bundle.stats, bundle.features)
        is_excused = bundle.habits.is_excused(times, values)
        moved = normalised(bundle, bundle.habits.within(times, values, is_excused, lows, lows + widths))
    if newest is not None:
        times = None if times is None else times[-newest:]
        values, actual, moved, is_excused = (part[-newest:] for part in (values, actual, moved, is_excused))
    is_far = (moved < -FAR_OUTSIDE) | (moved > 1.0 + FAR_OUTSIDE)
    inputs, _ = split_sequences(
        np.where(is_far | is_excused, np.nan, np.clip(moved, 0.0, 1.0)), bundle.n_steps
    )
    predicted = np.full(actual.shape, np.nan)
    predicted[bundle.n_steps - 1 :] = bundle.predictor(_bridge(inputs, bundle.means))
    judged = np.where(is_excused, predicted, moved)
    seen, _ = split_sequences(actual, bundle.n_steps)
    judged[bundle.n_steps - 1 :][np.isnan(seen).all(axis=1)] = np.nan
    squares = metric_square_errors(judged, predicted, bundle.metrics)
    scores = Scores(
        actual,
        predicted,
        np.sqrt(_window_means(squares)),
        np.sqrt(squares),
        np.zeros(squares.shape),
        bundle.metrics,
    )
    directions, least = None, None
    if not bundle.metrics.counts_all:
        counted = np.where(_counts(bundle, values, judged, predicted), judged, predicted)
        squares = metric_square_errors(counted, predicted, bundle.metrics)
        scores = replace(
            scores, counted_window=np.sqrt(_window_means(squares)), counted_record=np.sqrt(squares)
        )
        directions = tuple(row.direction for row in bundle.metrics.values())
        least = np.array([row.least for row in bundle.metrics.values()])
    if bundle.habits:
        known = np.where(is_excused, np.nan, values)
        scores.lasting[:, :-1] = bundle.habits.lasting_errors(times, known, directions, least)
    return scores


def _counts(bundle: Bundle, values: np.ndarray, judged: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Whether deviations count, (n, features): those of a metric do if that of its level does, by direction
    and size. A level that comes back to what is expected is no deviation, however much it changes.

    values: physical. judged, predicted: normalised. What is unknown counts: it stays unknown.
    """
    counts = np.ones(judged.shape, dtype=bool)
    with np.errstate(over="ignore", invalid="ignore"):
        sizes = np.abs(values - physical(bundle, predicted))
    for name, places in bundle.metrics.feature_places.items():
        metric = bundle.metrics[name]
        level = bundle.features.index(metric.level)
        is_large = ~(sizes[:, level] < metric.least)
        is_up = judged[:, level] >= predicted[:, level]
        is_right = metric.direction == BOTH or is_up == (metric.direction == UP)
        counts[:, places] = (is_large & is_right)[:, None]
    return counts | np.isnan(judged) | np.isnan(predicted)


def normalised(bundle: Bundle, values: np.ndarray) -> np.ndarray:
    """Values (n, features) in units of the trained range: 0 is its lower end, 1 its upper.

    Below the range, a feature that stayed above zero in training counts on a log scale if that is further
    away: when traffic stops, the change is tiny on the scale of its bursts, but it is not a small change.
    """
    lows, widths = feature_ranges(bundle.stats, bundle.features)
    zero = NEXT_TO_ZERO * widths
    with np.errstate(invalid="ignore", over="ignore"):
        linear = np.clip(normalize(values, bundle.stats, bundle.features), -FURTHEST, FURTHEST)
        shortfall = np.log((np.maximum(values, 0.0) + zero) / (np.abs(lows) + zero))
    return np.where((values < lows) & (lows > 0), np.minimum(linear, shortfall), linear)


def physical(bundle: Bundle, values: np.ndarray) -> np.ndarray:
    """The inverse of `normalised`: (n, features) in the units of the trained range -> physical units.

    A feature that stayed above zero in training cannot become negative: it becomes zero instead.
    """
    lows, widths = feature_ranges(bundle.stats, bundle.features)
    linear = lows + values * widths
    zero = NEXT_TO_ZERO * widths
    level = np.maximum(np.exp(np.minimum(values, 0.0)) * (np.abs(lows) + zero) - zero, 0.0)
    return np.where((values < 0) & (lows > 0), np.maximum(linear, level), linear)


def expected_levels(
    bundle: Bundle, thresholds: dict[str, float], predicted: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Metric -> the low, expected and high level, (n,) each, in its physical unit.

    predicted: (n, features), normalised. A level between low and high keeps the record's own RMSE within
    RECORD_FACTOR thresholds, if the metric's other features are as predicted: one of m features, off by
    RECORD_FACTOR * threshold * sqrt(m), makes their root mean square RECORD_FACTOR * threshold.
    """
    margins = np.zeros(len(bundle.features))
    levels = {metric.name: bundle.features.index(metric.level) for metric in bundle.metrics.rows}
    for name, place in levels.items():
        metric = bundle.metrics[name]
        limit = RECORD_FACTOR * thresholds[metric.threshold_key]
        margins[place] = limit * math.sqrt(len(metric.features))
    lowest = np.zeros(len(bundle.features))
    for name, place in levels.items():
        if bundle.metrics[name].may_be_negative:
            lowest[place] = -np.inf
    # A threshold may be so high that the bound overflows.
    with np.errstate(over="ignore"):
        bounds = [
            np.maximum(physical(bundle, values), lowest)
            for values in (predicted - margins, predicted, predicted + margins)
        ]
    for name, place in levels.items():
        least = bundle.metrics[name].least
        low, expected, high = (bound[:, place] for bound in bounds)
        bounds[0][:, place] = np.minimum(low, np.maximum(expected - least, lowest[place]))
        bounds[2][:, place] = np.maximum(high, expected + least)
    return {name: tuple(bound[:, place] for bound in bounds) for name, place in levels.items()}


def score_dataset(bundle: Bundle, frame: pd.DataFrame) -> Scores:
    """Score all records of a resampled dataset."""
    return score(bundle, frame[bundle.features].to_numpy(dtype=float), slot_times(bundle, frame))


def slot_times(bundle: Bundle, frame: pd.DataFrame) -> np.ndarray:
    """When the slot of each record of a resampled dataset begins, in ns: (n,)."""
    interval_ns = int(bundle.interval_seconds * 1e9)
    return frame.index.as_unit("ns").asi8 // interval_ns * interval_ns


def _bridge(inputs: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Fill the gaps in (n, steps, features) forward, then backward, then with the means (features,)."""
    filled = inputs.copy()
    steps = filled.shape[1]
    for step, neighbour in [(i, i - 1) for i in range(1, steps)] + [
        (i, i + 1) for i in range(steps - 2, -1, -1)
    ]:
        filled[:, step] = np.where(np.isnan(filled[:, step]), filled[:, neighbour], filled[:, step])
    return np.where(np.isnan(filled), means, filled)


def _window_means(squares: np.ndarray) -> np.ndarray:
    """Mean of each column over the last PREDICTIONS rows; NaN if fewer than MIN_PREDICTIONS are known."""
    padded = np.concatenate([np.full((PREDICTIONS - 1, squares.shape[1]), np.nan), squares])
    windows = np.lib.stride_tricks.sliding_window_view(padded, PREDICTIONS, axis=0)
    known = np.isfinite(windows)
    count = known.sum(axis=-1)
    total = np.where(known, windows, 0.0).sum(axis=-1)
    return np.where(count >= MIN_PREDICTIONS, total / np.maximum(count, 1), np.nan)
