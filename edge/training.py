"""Train on normal records, with checks of the records before and of the network after."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from common.files import UserError
from edge import network
from edge.bundle import Bundle, Predictor, convert, save_bundle
from edge.changes import measure
from edge.defaults import DEFAULT_EPOCHS, ENOUGH_STEPS
from edge.paths import DEFAULT_MODEL, plots_prefix
from edge.pictures import plotAccLoss, plotMetric
from edge.recording import outside
from edge.scores import Scores, score
from edge.sensitivity import Curve
from edge.sequences import metric_square_errors
from edge.training_set import TrainingSet, prepare
from edge.unlearnt import NOTHING_UNLEARNT, Unlearnt
from nodes.metrics import METRICS, MetricTable
from nodes.series import RECORD_SECONDS

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger("find_anomalies")

# A network that has learnt nothing has the error of the training mean; more than this share of it is refused.
LEARNT_SHARE = 0.95
# Fewer held-out sequences than this say little, so all sequences are used to judge the network.
MIN_HELD_OUT = 100
# The percentile of the documented thresholds.
USUAL_PERCENTILE = 99.0


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
    unlearnt: Unlearnt = NOTHING_UNLEARNT,
) -> Any:
    """Train the network on normal records and save its bundle; returns the Keras model.

    train_dataset: resampled records in physical units, missing values as NaN. n_features: must be the
    number of features of `metrics`. train_epochs: None for as many as enough_epochs() says. `val_split` of
    the records are held out, in stretches at several times of day. The curves of loss and accuracy are drawn
    into `plot_dir`. excluded: windows (start, end) in ns that are not learnt. learn_all: learn all else, also
    what is unlike the rest. zone: of the days and hours in which the node has its habits. unlearnt: what is
    not learnt either, since people answered it or a calendar says so. Raises UserError, and keeps
    an earlier bundle, for records that cannot be learnt from and for a network that has learnt nothing.
    """
    if n_features != len(metrics.features):
        raise UserError(f"n_features must be {len(metrics.features)}, not {n_features}")
    if not 0 <= val_split < 1:
        raise UserError(f"val_split is {val_split}; it must be at least 0 and below 1")
    prepared = prepare(
        train_dataset, n_steps, interval_seconds, metrics, val_split, excluded, learn_all, zone, unlearnt
    )
    inputs, targets, split = prepared.inputs, prepared.targets, prepared.split
    epochs = enough_epochs(split) if train_epochs is None else train_epochs
    model, history = fitted(inputs, targets, epochs, split, train_verbose)
    report = _forecast_report(model, inputs, targets, split, prepared.metrics)
    check_learnt(report)
    litert = convert(model, model_filename, inputs[-2000:])
    bundle = bundle_of(prepared, Predictor(litert))
    curves = measure(bundle, prepared.learnt, prepared.times, prepared.held_records)
    save_bundle(model, litert, model_filename, prepared.stats, identity_of(prepared, bundle, report, curves))
    for metric in ("loss", "accuracy"):
        plotMetric(history, metric, f"{plot_dir}/")
    plotAccLoss(history, f"{plot_dir}/")
    return model


def bundle_of(prepared: TrainingSet, predictor: Callable[[np.ndarray], np.ndarray]) -> Bundle:
    """The bundle of a node: a trained network with the node's own statistics, means and habits."""
    return bundle_and_scores(prepared, predictor)[0]


def bundle_and_scores(
    prepared: TrainingSet, predictor: Callable[[np.ndarray], np.ndarray]
) -> tuple[Bundle, Scores]:
    """The same bundle, and the scores of the records; in these, no level lasts too long."""
    means = prepared.targets[: prepared.split].mean(axis=0).astype(float).round(6)
    habits, windows = prepared.studied.habits, prepared.studied.windows
    bundle = Bundle(
        prepared.metrics,
        prepared.n_steps,
        prepared.stats,
        means,
        predictor,
        prepared.interval_seconds,
        habits=habits,
        left_out=windows,
    )
    scores = score(bundle, prepared.values, prepared.times)
    rmse = usual_rmse(scores, prepared.times, windows)
    return dataclasses.replace(bundle, habits=habits.in_units_of(rmse)), scores


def identity_of(
    prepared: TrainingSet,
    bundle: Bundle,
    report: dict[str, dict[str, float]],
    curves: Mapping[str, Curve],
) -> dict[str, Any]:
    """What save_bundle() says of a training. report: of forecast_rmse(). curves: of measure()."""
    return {
        "metrics": prepared.metrics.description,
        "features": bundle.features,
        "n_steps": prepared.n_steps,
        "interval_seconds": prepared.interval_seconds,
        "means": dict(zip(bundle.features, bundle.means, strict=True)),
        "records": len(prepared.times),
        "first_record": prepared.first,
        "last_record": prepared.last,
        "held_out_rmse": report,
        "habits": bundle.habits.to_json(),
        "sensitivity": {name: curve.to_json() for name, curve in curves.items()},
        "left_out": [stretch.to_json() for stretch in prepared.studied.left_out],
        **({"constant_metrics": list(prepared.constant)} if prepared.constant else {}),
    }


def fitted(
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


def usual_rmse(scores: Scores, times: np.ndarray, left_out: Sequence[tuple[int, int]]) -> np.ndarray:
    """The window RMSE of each metric, (metrics,), that one in a hundred records learnt exceeds."""
    window = scores.window[outside(times, left_out), :-1]
    return np.nanpercentile(window, USUAL_PERCENTILE, axis=0)


def check_learnt(report: dict[str, dict[str, float]]) -> None:
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
    """Print and return what forecast_rmse() finds for a Keras model."""
    report = forecast_rmse(lambda chosen: network.predict(model, chosen), inputs, targets, split, metrics)
    is_enough = len(inputs) - split >= MIN_HELD_OUT
    chosen = "the held-out records" if is_enough else "all records, since too few are held out"
    print(f"\nRMSE on {chosen} (normalised units)")
    print(f"{'metric':<12} {'network':>8} {'training mean':>14} {'previous record':>16}")
    for metric, values in report.items():
        print(
            f"{metric:<12} {values['network']:>8.4f} {values['training_mean']:>14.4f}"
            f" {values['previous_record']:>16.4f}"
        )
    return report


def forecast_rmse(
    predict: Callable[[np.ndarray], np.ndarray],
    inputs: np.ndarray,
    targets: np.ndarray,
    split: int,
    metrics: MetricTable = METRICS,
) -> dict[str, dict[str, float]]:
    """The held-out RMSE of each metric, for a network and for two trivial forecasts.

    If fewer than MIN_HELD_OUT sequences are held out, it is that of all.
    """
    held_out = slice(split if len(inputs) - split >= MIN_HELD_OUT else 0, None)
    actual = targets[held_out]
    forecasts = {
        "network": predict(inputs[held_out]),
        "training_mean": np.broadcast_to(targets[:split].mean(axis=0), actual.shape),
        "previous_record": inputs[held_out][:, -1],
    }
    rmse = {
        name: np.sqrt(metric_square_errors(actual, forecast, metrics).mean(axis=0))
        for name, forecast in forecasts.items()
    }
    return {
        metric: {name: round(float(values[i]), 5) for name, values in rmse.items()}
        for i, metric in enumerate(metrics.threshold_keys)
    }
