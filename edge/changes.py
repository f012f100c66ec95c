"""Measures what a model would miss: changes of growing size, put into normal records that were held out.

Each change comes at a random time and stays. The result is a curve for each metric (`sensitivity.py`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from common.alerts import ALERT_RECORDS, WINDOW_RECORDS
from edge.bundle import Bundle
from edge.scores import RECORD_FACTOR, SCORE_RECORDS, score
from edge.sensitivity import AGES, BLIND_POINTS, Curve
from nodes.metrics import DOWN, FREE, Metric, MetricTable

TRIES = 40
# A change counts as found if it is found in this share of the tries.
FOUND_SHARE = 0.95
# Sizes are these times a power of ten.
STEPS = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
# The smallest size, as a share of the trained range; the largest, in ranges.
SMALLEST, LARGEST = 0.04, 100.0
# Few thresholds are this many times above the usual error: larger sizes are tried in coarse steps.
HOPELESS = 8.0
COARSE_STEPS = (1.0, 2.0, 5.0)
# Records before a change on which its verdicts depend.
_BEFORE = SCORE_RECORDS
_BLOCK = _BEFORE + WINDOW_RECORDS
# The busiest level of a metric, apart from single bursts.
BUSIEST_SHARE = 0.99


def measure(
    bundle: Bundle,
    values: np.ndarray,
    times: np.ndarray,
    held_out: np.ndarray,
    seed: int = 101,
    tries: int | None = None,
) -> dict[str, Curve]:
    """Metric -> its curve, from normal records (n, features) in physical units, at `times` (n,) in ns.

    held_out: (n,), whether the network was not trained on a record; changes are put into those, or into any
    if too few of them are consecutive. tries: of each size; TRIES, unless given. Empty if there are too few
    consecutive records at all.
    """
    starts = _starts(bundle, values[held_out], times[held_out])
    rows = np.flatnonzero(held_out)
    if not len(starts):
        starts, rows = _starts(bundle, values, times), np.arange(len(values))
    if not len(starts):
        return {}
    count = tries or TRIES
    chosen = np.random.default_rng(seed).choice(starts, count, replace=len(starts) < count)
    places = rows[chosen[:, None] + np.arange(_BLOCK)]
    bundle = dataclasses.replace(bundle, predictor=_remembering(bundle.predictor))
    return {
        name: _curve(bundle, metric, values[places], times[places], _blind_above(bundle, metric, values))
        for name, metric in bundle.metrics.items()
    }


def _remembering(predictor: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """A predictor for inputs (n, steps, features), most of which are those of the call before."""
    before: list[np.ndarray] = []

    def predict(inputs: np.ndarray) -> np.ndarray:
        if not before or before[0].shape != inputs.shape:
            before[:] = inputs, predictor(inputs)
        predicted = before[1].copy()
        is_new = (inputs != before[0]).any(axis=(1, 2))
        if is_new.any():
            predicted[is_new] = predictor(inputs[is_new])
        before[:] = inputs, predicted
        return predicted

    return predict


def _starts(bundle: Bundle, values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Where _BLOCK consecutive records without a missing value begin."""
    if len(values) < _BLOCK:
        return np.zeros(0, dtype=int)
    is_known = ~np.isnan(values).any(axis=1)
    is_next = np.diff(times) == bundle.interval_seconds * 1e9
    whole = np.lib.stride_tricks.sliding_window_view(is_known, _BLOCK).all(axis=1)
    return np.flatnonzero(whole & np.lib.stride_tricks.sliding_window_view(is_next, _BLOCK - 1).all(axis=1))


def _blind_above(bundle: Bundle, metric: Metric, values: np.ndarray) -> float:
    """30 points, or the busiest level of normal records (n, features)."""
    if metric.unit == "%":
        return BLIND_POINTS
    levels = np.abs(values[:, bundle.features.index(metric.level)])
    # Traffic may come so seldom that even this quantile is zero.
    return float(f"{np.nanquantile(levels, BUSIEST_SHARE) or np.nanmax(levels):.3g}")


def _curve(
    bundle: Bundle, metric: Metric, values: np.ndarray, times: np.ndarray, blind_above: float
) -> Curve:
    """The curve of one metric from tries: values (tries, records, features), times (tries, records)."""
    place = list(bundle.metrics).index(metric.name)
    usual = float(bundle.habits.rmse[place])
    width = bundle.stats[f"{metric.level}_max"] - bundle.stats[f"{metric.level}_min"]
    largest = 100.0 if metric.unit == "%" else LARGEST * width
    # A change that does not count is not looked for.
    sign = -1.0 if metric.direction == DOWN else 1.0

    def errors_of(size: float) -> list[float]:
        """At each of AGES, the error that at least FOUND_SHARE of the tries reach."""
        changed = with_change(bundle.metrics, metric, values, _BEFORE, sign * size)
        scores = score(bundle, changed.reshape(-1, values.shape[-1]), times.reshape(-1))
        window, record = scores.judged
        evidence = np.maximum(
            np.minimum(window[:, place], record[:, place] / RECORD_FACTOR),
            scores.lasting[:, place],
        ).reshape(times.shape)
        ends = [_BEFORE + age for age in AGES]
        most = [evidence[:, end - ALERT_RECORDS : end].max(axis=1) for end in ends]
        return [float(np.quantile(tries, 1 - FOUND_SHARE, method="lower")) for tries in most]

    errors: dict[float, list[float]] = {}
    for size in sorted({*_ladder(SMALLEST * width, largest, STEPS), blind_above}):
        errors[size] = errors_of(size)
        if errors[size][0] > HOPELESS * usual:
            break
    for size in (*_ladder(max(errors), blind_above, COARSE_STEPS), blind_above):
        if size > max(errors):
            errors[size] = errors_of(size)
    # Nothing is found less well because it is larger.
    grown = np.maximum.accumulate(np.array(list(errors.values())), axis=0).T
    return Curve(tuple(errors), tuple(map(tuple, grown.tolist())), blind_above)


def _ladder(smallest: float, largest: float, steps: Sequence[float]) -> list[float]:
    powers = range(math.floor(math.log10(smallest)), math.ceil(math.log10(largest)) + 1)
    sizes = [float(f"{step * 10.0**power:.3g}") for power in powers for step in steps]
    return [size for size in sizes if smallest <= size <= largest]


def with_change(
    metrics: MetricTable, metric: Metric, values: np.ndarray, onset: int, size: float
) -> np.ndarray:
    """Values (..., records, features) with `size` more of a metric from the record `onset` on, or less."""
    changed = values.copy()
    level = metrics.features.index(metric.level)
    changed[..., onset:, level] += size
    if metric.direction == DOWN and not metric.may_be_negative:
        changed[..., onset:, level] = np.maximum(changed[..., onset:, level], 0.0)
    if len(metric.features) > 1:
        rate = metrics.features.index(metric.features[0])
        # The change of the memory is in percent of what was used before; that of others in points.
        before = values[..., onset - 1, level] / 100 if metric.kind == FREE else 1.0
        changed[..., onset, rate] += size / before
    return changed
