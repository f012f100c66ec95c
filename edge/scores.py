"""Scores: the RMSE of each metric over the window and of single records."""

from __future__ import annotations

import functools
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from common.alerts import WINDOW_RECORDS
from edge.bundle import Bundle
from edge.joint_habits import JointHabits, joint_habits
from edge.sequences import N_STEPS, metric_square_errors
from edge.windows import Consecutive, Past
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
    """The scores of n consecutive records, or of the newest records of n nodes, in normalised units; NaN is
    unknown.

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


@dataclass(frozen=True)
class JointBundles:
    """What n nodes with the same metrics are scored with, or one node for many records.

    lows, widths: of the trained ranges, means: (n, features) each. networks: (n,), equal for nodes that share
    a network. habits: None if the bundles have none.
    """

    each: tuple[Bundle, ...]
    lows: np.ndarray
    widths: np.ndarray
    means: np.ndarray
    networks: np.ndarray
    habits: JointHabits | None

    def predict(self, inputs: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Predicted records (m, features) for inputs (m, steps, features) of records `rows` (m,).

        Nodes that share a network are predicted in one batch.
        """
        if len(self.each) == 1:
            return self.each[0].predictor(inputs)
        predicted = np.empty((len(inputs), inputs.shape[2]))
        networks = self.networks[rows]
        for network in set(networks.tolist()):
            is_its = networks == network
            predicted[is_its] = self.each[network].predictor(inputs[is_its])
        return predicted


@functools.lru_cache(maxsize=2)
def joint(*each: Bundle) -> JointBundles:
    """Join the bundles of nodes: their metrics and steps are equal, and all have habits or none has.

    The result is kept for the next records of the same nodes.
    """
    lows, widths = (np.stack(ends) for ends in zip(*(one.ranges for one in each), strict=True))
    # The number of the first node with the network.
    first: dict[Hashable, int] = {}
    networks = np.array([first.setdefault(one.network, place) for place, one in enumerate(each)])
    habits = joint_habits([one.habits for one in each]) if each[0].habits else None
    return JointBundles(each, lows, widths, np.stack([one.means for one in each]), networks, habits)


def score(bundle: Bundle, values: np.ndarray, times: np.ndarray | None = None) -> Scores:
    """Score consecutive records (n, features) in physical units, NaN where a value is missing.

    times: (n,) in ns; only a bundle without habits needs none. See `score_records`.
    """
    return score_records(joint(bundle), values, times, Consecutive())


def score_records(bundles: JointBundles, values: np.ndarray, times: np.ndarray | None, past: Past) -> Scores:
    """Score the newest records of n nodes, or n records of one, (n, features) in physical units, NaN where a
    value is missing. times: (n,) in ns.

    Values that belong to a daily job count as predicted. The inputs of the network are clipped to the trained
    range: a network that sees an attack predicts the attack. A missing input is replaced by its neighbour,
    and so is one far outside the range, or the records after an attack would be measured against it. A
    feature without a usable input gets its mean; if all its inputs are missing, its metric is unknown.
    """
    metrics, habits = bundles.each[0].metrics, bundles.habits
    lows, widths = bundles.lows, bundles.widths
    actual = moved = in_ranges(values, lows, widths)
    is_excused = np.zeros(values.shape, dtype=bool)
    if habits:
        is_excused = habits.is_excused(times, values)
        seen = habits.within(times, values, is_excused, lows, lows + widths, past)
        moved = actual if seen is values else in_ranges(seen, lows, widths)
    predicted, was_seen = _predictions(bundles, actual, moved, is_excused, past)
    judged = np.where(was_seen, np.where(is_excused, predicted, moved), np.nan)
    squares = metric_square_errors(judged, predicted, metrics)
    columns = squares.shape[1]
    if not metrics.counts_all:
        with np.errstate(over="ignore", invalid="ignore"):
            sizes = np.abs(values - in_physical(predicted, lows, widths))
        counted = np.where(_counts(metrics, sizes, judged, predicted), judged, predicted)
        squares = np.concatenate([squares, metric_square_errors(counted, predicted, metrics)], axis=1)
    window, record = np.sqrt(_means(past.windows("squares", squares, PREDICTIONS))), np.sqrt(squares)
    lasting = np.zeros((len(values), columns))
    if habits:
        known = np.where(is_excused, np.nan, values)
        lasting[:, :-1] = habits.lasting_errors(times, known, past, None if metrics.counts_all else metrics)
    scores = Scores(actual, predicted, window[:, :columns], record[:, :columns], lasting, metrics)
    if metrics.counts_all:
        return scores
    return replace(scores, counted_window=window[:, columns:], counted_record=record[:, columns:])


def _predictions(
    bundles: JointBundles, actual: np.ndarray, moved: np.ndarray, is_excused: np.ndarray, past: Past
) -> tuple[np.ndarray, np.ndarray]:
    """The predicted records (n, features), NaN where too few records came before; and whether any input of
    the feature was there, likewise.
    """
    features, steps = actual.shape[1], bundles.each[0].n_steps
    is_far = (moved < -FAR_OUTSIDE) | (moved > 1.0 + FAR_OUTSIDE)
    usable = np.where(is_far | is_excused, np.nan, np.clip(moved, 0.0, 1.0))
    shown = past.windows("inputs", np.concatenate([usable, actual], axis=1), steps)[:-1]
    rows = past.predicted(len(actual), steps)
    predicted = np.full(actual.shape, np.nan)
    means = bundles.means if len(bundles.means) == 1 else bundles.means[rows]
    predicted[rows] = bundles.predict(_bridge(shown[:, rows, :features], means).swapaxes(0, 1), rows)
    return predicted, ~np.isnan(shown[:, :, features:]).all(axis=0)


def _counts(metrics: MetricTable, sizes: np.ndarray, judged: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Whether deviations count, (n, features): those of a metric do if that of its level does, by direction
    and size. A level that comes back to what is expected is no deviation, however much it changes.

    sizes: physical. judged, predicted: normalised. What is unknown counts: it stays unknown.
    """
    counts = np.ones(judged.shape, dtype=bool)
    for name, places in metrics.feature_places.items():
        metric = metrics[name]
        level = metrics.features.index(metric.level)
        is_large = ~(sizes[:, level] < metric.least)
        is_up = judged[:, level] >= predicted[:, level]
        is_right = metric.direction == BOTH or is_up == (metric.direction == UP)
        counts[:, places] = (is_large & is_right)[:, None]
    return counts | np.isnan(judged) | np.isnan(predicted)


def normalised(bundle: Bundle, values: np.ndarray) -> np.ndarray:
    """Values (n, features) of one node in units of the trained range: see `in_ranges`."""
    return in_ranges(values, *bundle.ranges)


def physical(bundle: Bundle, values: np.ndarray) -> np.ndarray:
    """The inverse of `normalised`: (n, features) in units of the trained range -> physical units."""
    return in_physical(values, *bundle.ranges)


def in_ranges(values: np.ndarray, lows: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Values (n, features) in units of the trained ranges: 0 is the lower end, 1 the upper.

    lows, widths: of the ranges, (features,) or (n, features). Below the range, a feature that stayed above
    zero in training counts on a log scale if that is further away: when traffic stops, the change is tiny on
    the scale of its bursts, but it is not a small change.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        linear = np.clip((values - lows) / widths, -FURTHEST, FURTHEST)
    is_below = (values < lows) & (lows > 0)
    if not is_below.any():
        return linear
    zero = NEXT_TO_ZERO * widths
    with np.errstate(invalid="ignore", over="ignore"):
        shortfall = np.log((np.maximum(values, 0.0) + zero) / (np.abs(lows) + zero))
    return np.where(is_below, np.minimum(linear, shortfall), linear)


def in_physical(values: np.ndarray, lows: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """The inverse of `in_ranges`.

    A feature that stayed above zero in training cannot become negative: it becomes zero instead.
    """
    zero = NEXT_TO_ZERO * widths
    with np.errstate(invalid="ignore", over="ignore"):
        linear = lows + values * widths
        level = np.maximum(np.exp(np.minimum(values, 0.0)) * (np.abs(lows) + zero) - zero, 0.0)
    return np.where((values < 0) & (lows > 0), np.maximum(linear, level), linear)


def score_dataset(bundle: Bundle, frame: pd.DataFrame) -> Scores:
    """Score all records of a resampled dataset."""
    return score(bundle, frame[bundle.features].to_numpy(dtype=float), slot_times(bundle, frame))


def slot_times(bundle: Bundle, frame: pd.DataFrame) -> np.ndarray:
    """When the slot of each record of a resampled dataset begins, in ns: (n,)."""
    interval_ns = int(bundle.interval_seconds * 1e9)
    return frame.index.as_unit("ns").asi8 // interval_ns * interval_ns


def _bridge(inputs: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Fill the gaps in (steps, n, features) forward, then backward, then with means (n or 1, features)."""
    if not np.isnan(inputs).any():
        return inputs
    filled = inputs.copy()
    steps = len(filled)
    for step, neighbour in [(i, i - 1) for i in range(1, steps)] + [
        (i, i + 1) for i in range(steps - 2, -1, -1)
    ]:
        filled[step] = np.where(np.isnan(filled[step]), filled[neighbour], filled[step])
    return np.where(np.isnan(filled), means, filled)


def _means(windows: np.ndarray) -> np.ndarray:
    """Mean over each window (PREDICTIONS, n, columns); NaN if fewer than MIN_PREDICTIONS are known."""
    known = np.isfinite(windows)
    count = np.add.reduce(known, axis=0, dtype=np.int8)
    total = np.add.reduce(np.where(known, windows, 0.0), axis=0)
    return np.where(count >= MIN_PREDICTIONS, total / np.maximum(count, 1), np.nan)
