"""Scores: the RMSE of each metric over the window and of the record alone, and what the thresholds allow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from common.alerts import WINDOW_RECORDS
from edge.bundle import Bundle
from edge.sequences import N_STEPS, feature_ranges, metric_square_errors, normalize, split_sequences
from nodes.metrics import METRICS, MetricTable

if TYPE_CHECKING:
    import pandas as pd

RECORD_FACTOR = 4.0
PREDICTIONS = WINDOW_RECORDS - N_STEPS + 1
# With fewer known predictions than this an RMSE over the window says too little.
MIN_PREDICTIONS = PREDICTIONS // 3
# Values further outside the trained range than this share of its width are no input at all.
FAR_OUTSIDE = 0.25
# Below the trained range levels count on a log scale; this share of the range is as good as zero there.
NEXT_TO_ZERO = 0.01
# In trained ranges; no quantity gets there, and the squares of what is cut to it stay finite.
FURTHEST = 1e12


@dataclass(frozen=True)
class Scores:
    """Of n consecutive records, in normalised units; NaN is unknown.

    actual, predicted: (n, features), in the units of `normalised` and not clipped. window: RMSE over the last
    predictions (n, metrics + 1), in the order of the threshold_keys of `metrics`. record: RMSE of the record
    alone, likewise.
    """

    actual: np.ndarray
    predicted: np.ndarray
    window: np.ndarray
    record: np.ndarray
    metrics: MetricTable = METRICS


def score(bundle: Bundle, values: np.ndarray) -> Scores:
    """Score consecutive records (n, features) in physical units, NaN where a value is missing.

    What the network sees is clipped to the trained range: shown an attack, it would predict the attack.
    A missed sample is bridged by its neighbour among the inputs, and so is one far outside the range, or
    the records after an attack would be measured against it. A feature without any usable input is shown
    at its mean; where its inputs are all missing, its metric is unknown.
    """
    actual = normalised(bundle, values)
    is_far = (actual < -FAR_OUTSIDE) | (actual > 1.0 + FAR_OUTSIDE)
    inputs, _ = split_sequences(np.where(is_far, np.nan, np.clip(actual, 0.0, 1.0)), bundle.n_steps)
    predicted = np.full(actual.shape, np.nan)
    predicted[bundle.n_steps - 1 :] = bundle.predictor(_bridge(inputs, bundle.means))
    seen, _ = split_sequences(actual, bundle.n_steps)
    judged = actual.copy()
    judged[bundle.n_steps - 1 :][np.isnan(seen).all(axis=1)] = np.nan
    squares = metric_square_errors(judged, predicted, bundle.metrics)
    return Scores(actual, predicted, np.sqrt(_window_means(squares)), np.sqrt(squares), bundle.metrics)


def normalised(bundle: Bundle, values: np.ndarray) -> np.ndarray:
    """Values (n, features) in units of the trained range: 0 is its lower end, 1 its upper.

    Below the range, what never came near zero in training counts on a log scale, as far as that is the
    further: traffic that stops is next to nothing on the scale of its bursts, but no small change.
    """
    lows, widths = feature_ranges(bundle.stats, bundle.features)
    zero = NEXT_TO_ZERO * widths
    with np.errstate(invalid="ignore", over="ignore"):
        linear = np.clip(normalize(values, bundle.stats, bundle.features), -FURTHEST, FURTHEST)
        shortfall = np.log((np.maximum(values, 0.0) + zero) / (np.abs(lows) + zero))
    return np.where((values < lows) & (lows > 0), np.minimum(linear, shortfall), linear)


def physical(bundle: Bundle, values: np.ndarray) -> np.ndarray:
    """The inverse of `normalised`: (n, features) in the units of the trained range -> physical units.

    What no quantity can be, less than zero, becomes zero for features that were above it in training.
    """
    lows, widths = feature_ranges(bundle.stats, bundle.features)
    linear = lows + values * widths
    zero = NEXT_TO_ZERO * widths
    level = np.maximum(np.exp(np.minimum(values, 0.0)) * (np.abs(lows) + zero) - zero, 0.0)
    return np.where((values < 0) & (lows > 0), np.maximum(linear, level), linear)


def expected_levels(
    bundle: Bundle, thresholds: dict[str, float], predicted: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of each metric's level, in its physical unit: low, expected, high, (n,) each.

    predicted: (n, features), normalised. A level between low and high keeps the record's own RMSE within
    RECORD_FACTOR thresholds if it is all that the metric is off by: of m features one alone, off by
    RECORD_FACTOR * threshold * sqrt(m), makes the root mean square of them RECORD_FACTOR * threshold.
    """
    margins = np.zeros(len(bundle.features))
    levels = {metric.name: bundle.features.index(metric.level) for metric in bundle.metrics.rows}
    for name, place in levels.items():
        metric = bundle.metrics[name]
        limit = RECORD_FACTOR * thresholds[metric.threshold_key]
        margins[place] = limit * math.sqrt(len(metric.features))
    # A threshold may be set so high that nothing is over it; there is also nothing below zero.
    with np.errstate(over="ignore"):
        bounds = [
            np.maximum(physical(bundle, values), 0.0)
            for values in (predicted - margins, predicted, predicted + margins)
        ]
    return {name: tuple(bound[:, place] for bound in bounds) for name, place in levels.items()}


def score_dataset(bundle: Bundle, frame: pd.DataFrame) -> Scores:
    """Score all records of a resampled dataset."""
    return score(bundle, frame[bundle.features].to_numpy(dtype=float))


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
    """Mean of each column over the last PREDICTIONS rows; NaN with fewer than MIN_PREDICTIONS known ones."""
    padded = np.concatenate([np.full((PREDICTIONS - 1, squares.shape[1]), np.nan), squares])
    windows = np.lib.stride_tricks.sliding_window_view(padded, PREDICTIONS, axis=0)
    known = np.isfinite(windows)
    count = known.sum(axis=-1)
    total = np.where(known, windows, 0.0).sum(axis=-1)
    return np.where(count >= MIN_PREDICTIONS, total / np.maximum(count, 1), np.nan)
