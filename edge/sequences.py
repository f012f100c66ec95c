"""Normalisation, sequences of records, and their squared errors per metric."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.files import saveDictJson
from edge.paths import stats_json
from nodes.metrics import METRICS, MetricTable

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

N_STEPS = 4


def normalizeFeature(df: pd.DataFrame, feature: str, min: float, max: float) -> pd.Series:
    """Min-max normalisation: `min` becomes 0 and `max` 1. A range of width 0 counts as width 1.

    Part of the documented interface; the program itself does not call it.
    """
    return (df[feature] - min) / ((max - min) or 1.0)


def normalize(values: np.ndarray, stats: dict[str, float], features: Sequence[str]) -> np.ndarray:
    """normalizeFeature for a plain array (n, features) in physical units."""
    low, width = feature_ranges(stats, features)
    return (values - low) / width


def feature_ranges(stats: dict[str, float], features: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Lower ends and widths, (features,) each, of the trained ranges; width 0 counts as width 1."""
    low, high = (np.array([stats[f"{feature}_{end}"] for feature in features]) for end in ("min", "max"))
    return low, np.where(high == low, 1.0, high - low)


def saveNormalizationStats(
    df: pd.DataFrame, cols_to_normalize: Sequence[str], filename: str | Path = stats_json
) -> dict[str, float]:
    """Write `<column>_min` and `<column>_max` of each column to `filename` and return them.

    Part of the documented interface; the program itself does not call it.
    """
    stats = normalization_stats(df, cols_to_normalize)
    saveDictJson(stats, filename)
    return stats


def normalization_stats(df: pd.DataFrame, columns: Sequence[str]) -> dict[str, float]:
    """`<column>_min` and `<column>_max` of each column; missing values do not count."""
    stats = {}
    for column in columns:
        stats[f"{column}_min"] = float(df[column].min())
        stats[f"{column}_max"] = float(df[column].max())
    return stats


def split_sequences(sequences: np.ndarray, n_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Split records (n, features) into sequences of `n_steps`, the last record of each being the target.

    Returns X (n - n_steps + 1, n_steps - 1, features) and y (n - n_steps + 1, features); with fewer
    than `n_steps` records both are empty.
    """
    records = np.asarray(sequences)
    if len(records) < n_steps:
        return np.empty((0, n_steps - 1, records.shape[1])), np.empty((0, records.shape[1]))
    windows = np.lib.stride_tricks.sliding_window_view(records, n_steps, axis=0).swapaxes(1, 2)
    return windows[:, :-1], windows[:, -1]


def whole_sequences(records: np.ndarray, n_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The same as split_sequences, without the sequences in which a value is missing."""
    inputs, targets = split_sequences(records, n_steps)
    whole = whole_ends(records, n_steps) - n_steps + 1
    return inputs[whole], targets[whole]


def whole_ends(records: np.ndarray, n_steps: int) -> np.ndarray:
    """The place of the last record of each sequence in which no value of records (n, features) is missing."""
    inputs, targets = split_sequences(records, n_steps)
    is_whole = ~(np.isnan(inputs).any(axis=(1, 2)) | np.isnan(targets).any(axis=1))
    return np.flatnonzero(is_whole) + n_steps - 1


def metric_square_errors(
    y_actual: np.ndarray, y_predict: np.ndarray, metrics: MetricTable = METRICS
) -> np.ndarray:
    """Squared errors pooled per metric: two arrays (n, features) -> (n, metrics + 1), overall last.

    A metric's squared error is the mean over its features; `overall` is the mean over all features. A missing
    value gives NaN.
    """
    squares = (np.asarray(y_predict, dtype=float) - np.asarray(y_actual, dtype=float)) ** 2
    places, starts, counts = _pools(metrics)
    sums = np.add.reduceat(squares[:, places], starts, axis=1)
    of_all = np.add.reduce(squares, axis=1, keepdims=True) / squares.shape[1]
    return np.concatenate([sums / counts, of_all], axis=1)


@functools.lru_cache(maxsize=16)
def _pools(metrics: MetricTable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The places of the features, metric by metric; where each metric starts in them; how many each has."""
    places = list(metrics.feature_places.values())
    counts = [len(some) for some in places]
    return np.array(sum(places, [])), np.cumsum([0, *counts[:-1]]), np.array(counts)


def printPredictionErrors(
    y_actual: np.ndarray, y_predict: np.ndarray, metrics: MetricTable = METRICS
) -> dict[str, float]:
    """Log and return the RMSE of each metric and `overall` over sequences (n, features), normalised.

    Part of the documented interface; the program itself does not call it.
    """
    rmse = np.sqrt(metric_square_errors(y_actual, y_predict, metrics).mean(axis=0))
    errors = dict(zip(metrics.threshold_keys, rmse.tolist(), strict=True))
    logger.info("RMSE %s", ", ".join(f"{name} {value:.4f}" for name, value in errors.items()))
    return errors
