"""Measures what a model would miss: changes of growing size, put into normal records that were held out.

Each change comes at a random time and stays. The result is a curve for each metric (`sensitivity.py`).
"""

from __future__ import annotations

import math

import numpy as np

from common.alerts import WINDOW_RECORDS
from edge.bundle import Bundle
from edge.scores import RECORD_FACTOR, score
from edge.sensitivity import BLIND_POINTS, WITHIN_RECORDS, Curve
from nodes.metrics import FREE, Metric, MetricTable

TRIES = 40
# A change counts as found if it is found in this share of the tries.
FOUND_SHARE = 0.95
# Sizes are these times a power of ten.
STEPS = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
# The smallest size, as a share of the trained range; the largest, in ranges.
SMALLEST, LARGEST = 0.04, 100.0
# No threshold is this many times above the usual error.
HOPELESS = 8.0
# Records before a change on which its verdicts depend.
_BEFORE = WINDOW_RECORDS + 3


def measure(bundle: Bundle, values: np.ndarray, times: np.ndarray, seed: int = 101) -> dict[str, Curve]:
    """Metric -> its curve, from normal records (n, features) in physical units, at `times` (n,) in ns.

    Empty if there are too few consecutive records.
    """
    block = _BEFORE + WINDOW_RECORDS
    steps = np.diff(times)
    known = np.concatenate([[0], np.cumsum(np.isnan(values).any(axis=1))])
    whole = [
        start
        for start in range(len(values) - block + 1)
        if known[start + block] == known[start]
        and (steps[start : start + block - 1] == bundle.interval_seconds * 1e9).all()
    ]
    if not whole:
        return {}
    rng = np.random.default_rng(seed)
    starts = rng.choice(whole, TRIES, replace=len(whole) < TRIES)
    rows = starts[:, None] + np.arange(block)
    return {
        name: _curve(bundle, metric, values[rows], times[rows]) for name, metric in bundle.metrics.items()
    }


def _curve(bundle: Bundle, metric: Metric, values: np.ndarray, times: np.ndarray) -> Curve:
    """The curve of one metric from tries: values (tries, records, features), times (tries, records)."""
    place = list(bundle.metrics).index(metric.name)
    usual = float(bundle.habits.rmse[place])
    levels = values[..., bundle.features.index(metric.level)]
    width = bundle.stats[f"{metric.level}_max"] - bundle.stats[f"{metric.level}_min"]
    largest = 100.0 if metric.unit == "%" else LARGEST * width
    sizes, errors = [], []
    for size in _ladder(SMALLEST * width, largest):
        changed = with_change(bundle.metrics, metric, values, _BEFORE, size)
        scores = score(bundle, changed.reshape(-1, values.shape[-1]), times.reshape(-1))
        evidence = np.maximum(
            np.minimum(scores.window[:, place], scores.record[:, place] / RECORD_FACTOR),
            scores.lasting[:, place],
        ).reshape(times.shape)
        # At least this share of the tries reaches the error.
        worst = [
            float(
                np.quantile(
                    evidence[:, _BEFORE : _BEFORE + polls].max(axis=1), 1 - FOUND_SHARE, method="lower"
                )
            )
            for polls in WITHIN_RECORDS
        ]
        sizes.append(size)
        errors.append(worst)
        if worst[0] > HOPELESS * usual:
            break
    blind_above = BLIND_POINTS if metric.unit == "%" else float(np.quantile(levels, 0.99))
    # Nothing is found less well because it is larger.
    grown = np.maximum.accumulate(np.array(errors), axis=0).T
    return Curve(tuple(sizes), tuple(map(tuple, grown.tolist())), blind_above)


def _ladder(smallest: float, largest: float) -> list[float]:
    powers = range(math.floor(math.log10(smallest)), math.ceil(math.log10(largest)) + 1)
    sizes = [float(f"{step * 10.0**power:.3g}") for power in powers for step in STEPS]
    return [size for size in sizes if smallest <= size <= largest]


def with_change(
    metrics: MetricTable, metric: Metric, values: np.ndarray, onset: int, size: float
) -> np.ndarray:
    """Values (..., records, features) with `size` more of a metric from the record `onset` on."""
    changed = values.copy()
    level = metrics.features.index(metric.level)
    changed[..., onset:, level] += size
    if len(metric.features) > 1:
        rate = metrics.features.index(metric.features[0])
        # The change of the memory is in percent of what was used before; that of others in points.
        before = values[..., onset - 1, level] / 100 if metric.kind == FREE else 1.0
        changed[..., onset, rate] += size / before
    return changed
