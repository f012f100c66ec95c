"""Train on normal records, with checks of the records before and of the network after."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from common.files import UserError
from common.times import format_duration, format_time
from edge import network
from edge.bundle import Bundle, Predictor, convert, save_bundle
from edge.changes import measure
from edge.paths import DEFAULT_MODEL, plots_prefix
from edge.pictures import plotAccLoss, plotMetric
from edge.recording import Study, outside, study
from edge.scores import Scores, score
from edge.sequences import metric_square_errors, normalization_stats, normalize, whole_ends, whole_sequences
from nodes.metrics import METRICS, MetricTable
from nodes.series import RECORD_SECONDS

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger("find_anomalies")

DEFAULT_EPOCHS = 10
# The optimiser's steps that a network needs to learn. A third of a day of records gives them in the default
# epochs. On recordings of 400 records, more steps predict held-out records no better.
ENOUGH_STEPS = 1000
# A network that has learnt nothing has the error of the training mean; more than this share of it is refused.
LEARNT_SHARE = 0.95
# Fewer held-out sequences than this say little, so all sequences are used to judge the network.
MIN_HELD_OUT = 100
# Held-out records in a row: twice what it takes to try a change.
HELD_OUT_RECORDS = 180
# Its multiples, without their whole parts, are spread evenly, however many there are.
GOLDEN_RATIO = 0.618034
# A day of records, apart from a few gaps: less shows a network little of what is normal.
ENOUGH_SECONDS = 0.9 * 86400
# The percentile of the documented thresholds.
USUAL_PERCENTILE = 99.0
# At most this many stretches that are left out are logged.
MOST_STRETCHES = 20


def train(
    train_dataset: pd.DataFrame,
    n_steps: int,
    n_features: int,
    train_epochs: int | None = DEFAULT_EPOCHS,
    val_split: float = 0.1,
    train_verbose: int = 1,
    model_filename: str = DEFAULT_MODEL,
    interval_seconds: float = RECORD_SECONDS,
    plot_dir: str | Path = plots_prefix,
    metrics: MetricTable = METRICS,
    excluded: Sequence[tuple[int, int]] = (),
    learn_all: bool = False,
    zone: str = "UTC",
) -> Any:
    """Train the network on normal records and save its bundle; returns the Keras model.

    train_dataset: resampled records in physical units, missing values as NaN. n_features: must be the
    number of features of `metrics`. train_epochs: None for as many as enough_epochs() says. `val_split` of
    the records are held out, in stretches at several times of day. The curves of loss and accuracy are drawn
    into `plot_dir`. excluded: windows (start, end) in ns that are not learnt. learn_all: learn all else, also
    what is unlike the rest. zone: of the days and hours in which the node has its habits. Raises UserError,
    and keeps an earlier bundle, for records that cannot be learnt from and for a network that has learnt
    nothing.
    """
    if n_features != len(metrics.features):
        raise UserError(f"n_features must be {len(metrics.features)}, not {n_features}")
    if not 0 <= val_split < 1:
        raise UserError(f"val_split is {val_split}; it must be at least 0 and below 1")
    interval_ns = int(interval_seconds * 1e9)
    times = train_dataset.index.as_unit("ns").asi8 // interval_ns * interval_ns
    given = metrics
    studied, learnt, metrics = _study_changing(train_dataset, times, given, zone, excluded, learn_all)
    features = list(metrics.features)
    values = train_dataset[features].to_numpy(dtype=float)
    _report_study(studied, times, excluded)
    stats = normalization_stats(learnt, features)
    inputs, targets, ends = _sequences(learnt, stats, n_steps, interval_seconds)
    is_held = held_out(len(inputs), val_split)
    # Those that are held out come last.
    inputs, targets = (np.concatenate([part[~is_held], part[is_held]]) for part in (inputs, targets))
    split = len(inputs) - int(is_held.sum())
    epochs = enough_epochs(split) if train_epochs is None else train_epochs
    model, history = _fitted(inputs, targets, epochs, split, train_verbose)
    report = _forecast_report(model, inputs, targets, split, metrics)
    _check_learnt(report)
    litert = convert(model, model_filename, inputs[-2000:])
    means = targets[:split].mean(axis=0).astype(float).round(6)
    bundle = Bundle(
        metrics,
        n_steps,
        stats,
        means,
        Predictor(litert),
        interval_seconds,
        habits=studied.habits,
        left_out=studied.windows,
    )
    habits = studied.habits.in_units_of(usual_rmse(score(bundle, values, times), times, studied.windows))
    constant = [name for name in given if name not in metrics]
    held_records = np.zeros(len(learnt), dtype=bool)
    held_records[ends[is_held]] = True
    curves = measure(
        dataclasses.replace(bundle, habits=habits), learnt.to_numpy(dtype=float), times, held_records
    )
    save_bundle(
        model,
        litert,
        model_filename,
        stats,
        {
            "metrics": metrics.description,
            "features": features,
            "n_steps": n_steps,
            "interval_seconds": interval_seconds,
            "means": dict(zip(features, means, strict=True)),
            "records": len(train_dataset),
            "first_record": str(train_dataset.index[0]),
            "last_record": str(train_dataset.index[-1]),
            "held_out_rmse": report,
            "habits": habits.to_json(),
            "sensitivity": {name: curve.to_json() for name, curve in curves.items()},
            "left_out": [stretch.to_json() for stretch in studied.left_out],
            **({"constant_metrics": constant} if constant else {}),
        },
    )
    for metric in ("loss", "accuracy"):
        plotMetric(history, metric, f"{plot_dir}/")
    plotAccLoss(history, f"{plot_dir}/")
    return model


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


def _fitted(
    inputs: np.ndarray, targets: np.ndarray, epochs: int, split: int, train_verbose: int
) -> tuple[Any, Any]:
    """The trained Keras model, and its history; sequences from `split` on are held out.

    Raises UserError if it has learnt nothing.
    """
    network.import_keras().utils.set_random_seed(network.SEED)
    model = network.build(*inputs.shape[1:])
    history = network.fit(model, inputs, targets, epochs, split, train_verbose)
    if not np.isfinite(history.history["loss"][-1]):
        raise UserError("training diverged (the loss is not finite), so nothing was saved; check the dataset")
    network.check_not_collapsed(model, *inputs.shape[1:])
    return model, history


def enough_epochs(sequences: int) -> int:
    """DEFAULT_EPOCHS, or as many as it takes to make ENOUGH_STEPS steps with so few sequences."""
    steps = -(-sequences // network.BATCH_RECORDS)
    return max(DEFAULT_EPOCHS, -(-ENOUGH_STEPS // steps))


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


def usual_rmse(scores: Scores, times: np.ndarray, left_out: Sequence[tuple[int, int]]) -> np.ndarray:
    """The window RMSE of each metric, (metrics,), that one in a hundred records learnt exceeds."""
    window = scores.window[outside(times, left_out), :-1]
    return np.nanpercentile(window, USUAL_PERCENTILE, axis=0)


def _check_learnt(report: dict[str, dict[str, float]]) -> None:
    """Refuse a network that is hardly better than the training mean; log the metrics where it is worse."""
    network, mean = (report["overall"][name] for name in ("network", "training_mean"))
    if network > LEARNT_SHARE * mean:
        raise UserError(
            f"the network predicts hardly better than the mean of the training set ({network:.3f} against"
            f" {mean:.3f}), so nothing was saved; train on more records (--trainset) or for more --epochs"
        )
    worse = [name for name, rmse in report.items() if rmse["network"] > rmse["training_mean"]]
    if worse:
        logger.warning(
            "predicted worse than by the mean of the training set: %s; train with more --epochs",
            ", ".join(worse),
        )


def _forecast_report(
    model: Any, inputs: np.ndarray, targets: np.ndarray, split: int, metrics: MetricTable = METRICS
) -> dict[str, dict[str, float]]:
    """Print and return the held-out RMSE of each metric, for the network and for two trivial forecasts."""
    is_enough = len(inputs) - split >= MIN_HELD_OUT
    held_out = slice(split, None) if is_enough else slice(None)
    actual = targets[held_out]
    forecasts = {
        "network": network.predict(model, inputs[held_out]),
        "training_mean": np.broadcast_to(targets[:split].mean(axis=0), actual.shape),
        "previous_record": inputs[held_out][:, -1],
    }
    rmse = {
        name: np.sqrt(metric_square_errors(actual, forecast, metrics).mean(axis=0))
        for name, forecast in forecasts.items()
    }
    report = {
        metric: {name: round(float(values[i]), 5) for name, values in rmse.items()}
        for i, metric in enumerate(metrics.threshold_keys)
    }
    chosen = "the held-out records" if is_enough else "all records, since too few are held out"
    print(f"\nRMSE on {chosen} (normalised units)")
    print(f"{'metric':<12} {'network':>8} {'training mean':>14} {'previous record':>16}")
    for metric, values in report.items():
        print(
            f"{metric:<12} {values['network']:>8.4f} {values['training_mean']:>14.4f}"
            f" {values['previous_record']:>16.4f}"
        )
    return report
