"""A training set, prepared: what of it is learnt, its statistics and habits, and sequences of records."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from common.files import UserError
from common.times import format_duration, format_time
from edge.recording import Study, study
from edge.sequences import normalization_stats, normalize, whole_ends, whole_sequences
from edge.unlearnt import NOTHING_UNLEARNT, Unlearnt
from nodes.metrics import MetricTable

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger("find_anomalies")

# Held-out records in a row: twice what it takes to try a change.
HELD_OUT_RECORDS = 180
# Its multiples, without their whole parts, are spread evenly, however many there are.
GOLDEN_RATIO = 0.618034
# A day of records, apart from a few gaps: less shows a network little of what is normal.
ENOUGH_SECONDS = 0.9 * 86400
# At most this many stretches that are left out are logged.
MOST_STRETCHES = 20


@dataclass(frozen=True)
class TrainingSet:
    """Normal records of one node, prepared for training.

    times: (n,), when the slots begin, in ns. values, learnt: (n, features) in physical units; what is not
    learnt is NaN in `learnt`. metrics: those that change. constant: the names of those that do not. inputs:
    (m, n_steps - 1, features), targets: (m, features), normalised by `stats`; those from `split` on are held
    out. held_records: (n,), whether a record is held out. first, last: times of its records, as text.
    """

    times: np.ndarray
    values: np.ndarray
    learnt: np.ndarray
    metrics: MetricTable
    constant: tuple[str, ...]
    studied: Study
    stats: dict[str, float]
    inputs: np.ndarray
    targets: np.ndarray
    split: int
    held_records: np.ndarray
    n_steps: int
    interval_seconds: float
    first: str
    last: str


def prepare(
    frame: pd.DataFrame,
    n_steps: int,
    interval_seconds: float,
    metrics: MetricTable,
    val_split: float = 0.1,
    excluded: Sequence[tuple[int, int]] = (),
    learn_all: bool = False,
    zone: str = "UTC",
    unlearnt: Unlearnt = NOTHING_UNLEARNT,
) -> TrainingSet:
    """Prepare resampled records (physical units, NaN is missing), with the parameters of train().

    Raises UserError for records that cannot be learnt from.
    """
    interval_ns = int(interval_seconds * 1e9)
    times = frame.index.as_unit("ns").asi8 // interval_ns * interval_ns
    given = metrics
    left_out = [*excluded, *unlearnt.stretches(times, "the training set")]
    studied, learnt, metrics = _study_changing(frame, times, given, zone, left_out, learn_all)
    features = list(metrics.features)
    values = frame[features].to_numpy(dtype=float)
    _report_study(studied, times, excluded)
    stats = normalization_stats(learnt, features)
    inputs, targets, ends = _sequences(learnt, stats, n_steps, interval_seconds)
    is_held = held_out(len(inputs), val_split)
    # Those that are held out come last.
    inputs, targets = (np.concatenate([part[~is_held], part[is_held]]) for part in (inputs, targets))
    held_records = np.zeros(len(learnt), dtype=bool)
    held_records[ends[is_held]] = True
    return TrainingSet(
        times,
        values,
        learnt.to_numpy(dtype=float),
        metrics,
        tuple(name for name in given if name not in metrics),
        studied,
        stats,
        inputs,
        targets,
        len(inputs) - int(is_held.sum()),
        held_records,
        n_steps,
        interval_seconds,
        str(frame.index[0]),
        str(frame.index[-1]),
    )


def _sequences(
    learnt: pd.DataFrame, stats: dict[str, dict[str, float]], n_steps: int, interval_seconds: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs (n, n_steps - 1, features) and targets (n, features) for the network, normalised, and the place
    of each target among the records (n,).
    """
    records = normalize(learnt.to_numpy(dtype=float), stats, list(learnt.columns))
    inputs, targets = (part.astype(np.float32) for part in whole_sequences(records, n_steps))
    if len(inputs) < 10 * n_steps:
        raise UserError(
            f"the training set (--trainset) has only {len(inputs)} sequences of {n_steps} records"
            " without gaps; collect at least a day of records"
        )
    if len(inputs) * interval_seconds < ENOUGH_SECONDS:
        logger.warning(
            "the training set (--trainset) has only %d sequences without gaps, %s: expect false alerts, and"
            " collect normal data of a day or more (--mode collect --since 3d)",
            len(inputs),
            format_duration(len(inputs) * interval_seconds),
        )
    return inputs, targets, whole_ends(records, n_steps)


def held_out(sequences: int, share: float) -> np.ndarray:
    """Whether each of so many sequences, in time order, is held out: (sequences,).

    It is `share` of each of several equal parts, as many as have HELD_OUT_RECORDS of them: the end of the
    last part, and another place of each other part, so that the places are not at the same times of day.
    """
    parts = max(int(sequences * share) // HELD_OUT_RECORDS, 1)
    is_held = np.zeros(sequences, dtype=bool)
    for number, part in enumerate(reversed(np.array_split(is_held, parts))):
        count = int(len(part) * share)
        end = len(part) - int(number * GOLDEN_RATIO % 1 * (len(part) - count))
        part[end - count : end] = True
    return is_held


def _study_changing(
    frame: pd.DataFrame,
    times: np.ndarray,
    metrics: MetricTable,
    zone: str,
    excluded: Sequence[tuple[int, int]],
    learn_all: bool,
) -> tuple[Study, pd.DataFrame, MetricTable]:
    """What a recording shows, the records that are learnt, and the metrics that change in them."""
    metrics = metrics.without(_constant_metrics(frame, metrics))
    while True:
        features = list(metrics.features)
        studied = study(frame[features].to_numpy(dtype=float), times, metrics, zone, excluded, learn_all)
        learnt = frame[features].copy()
        learnt.loc[~studied.learnt] = np.nan
        # What is left out may be all that changes in a metric.
        found = _constant_metrics(learnt, metrics, studied)
        if not found:
            return studied, learnt, metrics
        metrics = metrics.without(found)


def _constant_metrics(frame: pd.DataFrame, metrics: MetricTable, studied: Study | None = None) -> list[str]:
    """The metrics that have a feature with one value only; each is logged. studied: tells what was left out.

    Raises UserError for a feature without any value, and if no metric changes.
    """
    where, remedy = "", "collect a longer time in which it changes"
    if studied and studied.left_out:
        where = " apart from what is left out"
        if any(stretch.metrics for stretch in studied.left_out):
            remedy = f"if that is normal, train with --learn_all; or {remedy}"
    constant: dict[str, str] = {}
    for metric in metrics.values():
        for feature in metric.features:
            # The level comes last: of two that are constant, it says more than its change.
            values = frame[feature].dropna()
            if values.empty:
                raise UserError(
                    f"the training set (--trainset) has no value of {feature}; collect records that have it,"
                    f' or switch {metric.name} off ("off": ["{metric.name}"] in --node_file)'
                )
            if values.min() == values.max():
                constant[metric.name] = (
                    f"the training set (--trainset) has the constant value {values.iloc[0]:g} for"
                    f" {feature}{where}, which cannot be learnt"
                )
    if len(constant) == len(metrics):
        raise UserError(f"{next(iter(constant.values()))}; {remedy}")
    for name, why in constant.items():
        logger.warning("%s; %s is not watched: %s", why, name, remedy)
    return list(constant)


def _report_study(studied: Study, times: np.ndarray, excluded: Sequence[tuple[int, int]]) -> None:
    """Log what is not learnt, and the daily jobs."""
    for start, end in excluded:
        count = int(((times >= start) & (times < end)).sum())
        window = f"{format_time(start)} to {format_time(end)}"
        if count:
            logger.info("left out of the training set by attacks.json: %s, %d records", window, count)
        else:
            logger.warning("the training set has no record from %s; correct attacks.json beside it", window)
    for job in studied.habits.jobs:
        begin, end = (
            f"{int(seconds // 3600):02}:{int(seconds % 3600 // 60):02}" for seconds in (job.begin, job.end)
        )
        logger.info("daily job: %s from %s to %s %s", job.metric, begin, end, studied.habits.zone)
    unlike = [stretch for stretch in studied.left_out if stretch.metrics]
    for stretch in unlike[:MOST_STRETCHES]:
        logger.warning("left out of the training set, because it is unlike the rest: %s", stretch.describe())
    if len(unlike) > MOST_STRETCHES:
        logger.warning("and %d more", len(unlike) - MOST_STRETCHES)
    if unlike:
        logger.warning(
            "if what was left out is normal, train with --learn_all; what else is not normal can be listed in"
            " attacks.json beside the training set"
        )
