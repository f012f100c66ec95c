"""What the network earns: simpler predictors in its place, with the same records and the same decision.

A baseline gets what the network gets: the sequences of the training set that are learnt. Its errors become
scores, its thresholds are the same percentile of them, and `edge/detector.py` decides. Each predictor is
shown with the habits of the model (levels that last too long) and without, since habits need no network.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.alerts import ALERT_RECORDS
from edge.bundle import Bundle, load_bundle
from edge.changes import FOUND_SHARE, TRIES, with_change
from edge.datasets import load_records
from edge.defaults import DEFAULT_PERCENTILE
from edge.detector import Verdict, detect
from edge.network import SEED
from edge.paths import DEFAULT_MODEL
from edge.recording import outside
from edge.scores import RECORD_FACTOR, SCORE_RECORDS, Scores, joint, normalised, score, slot_times
from edge.sequences import N_STEPS, normalize, whole_sequences
from edge.thresholds import propose_thresholds
from edge.training import train, usual_rmse
from edge.windows import Consecutive
from nodes.metrics import Metric

if TYPE_CHECKING:
    import pandas as pd

# Components that explain this share of the variance; 80 to 99 % find the same.
PCA_SHARE = 0.95
# With 1 or 2, or with one forest for all metrics, it finds at most half of the attacks.
FOREST_POWER = 3
# Sizes of changes, in trained ranges.
CHANGE_SIZES = (0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 7.0, 10.0)
# Each predictor is used before it is measured, so that no import is.
WARM_UP_SEQUENCES = 300

# Inputs (n, steps - 1, features) and the records that follow them (n, features), normalised -> predicted
# records (n, features). A forecast does not look at the records, a reconstruction does.
Predict = Callable[[np.ndarray, np.ndarray], np.ndarray]


# --- predictors ----------------------------------------------------------------------------------


def fit_network(bundle: Bundle, inputs: np.ndarray, targets: np.ndarray) -> Predict:
    """The trained network of the bundle."""
    return lambda inputs, records: bundle.predictor(inputs)


def fit_previous(bundle: Bundle, inputs: np.ndarray, targets: np.ndarray) -> Predict:
    """The previous record."""
    return lambda inputs, records: inputs[:, -1]


def fit_mean(bundle: Bundle, inputs: np.ndarray, targets: np.ndarray) -> Predict:
    """The mean of the training set."""
    return lambda inputs, records: np.broadcast_to(bundle.means, records.shape)


def fit_pca(bundle: Bundle, inputs: np.ndarray, targets: np.ndarray) -> Predict:
    """PCA of whole sequences; the prediction is the last record of the reconstructed sequence."""
    flat = _flat(inputs, targets)
    mean = flat.mean(axis=0)
    _, singular, directions = np.linalg.svd(flat - mean, full_matrices=False)
    explained = np.cumsum(singular**2) / np.sum(singular**2)
    kept = directions[: int(np.searchsorted(explained, PCA_SHARE)) + 1]

    def predict(inputs: np.ndarray, records: np.ndarray) -> np.ndarray:
        # A missing value tells nothing.
        known = np.where(np.isnan(records), bundle.means, records)
        centred = _flat(inputs, known) - mean
        return (centred @ kept.T @ kept + mean)[:, -records.shape[1] :]

    return predict


def fit_forest(bundle: Bundle, inputs: np.ndarray, targets: np.ndarray) -> Predict:
    """An isolation forest for each metric. It predicts nothing: its score becomes the error of the metric.

    The error is how far the score is above the median of the training set, to the third power: the score
    ends at 1, so without the power a record cannot reach RECORD_FACTOR thresholds.
    """
    from sklearn.ensemble import IsolationForest

    def height(forest: IsolationForest, values: np.ndarray) -> np.ndarray:
        return -forest.score_samples(values)

    forests = []
    for places in bundle.metrics.feature_places.values():
        forest = IsolationForest(random_state=SEED).fit(targets[:, places])
        forests.append((places, forest, np.median(height(forest, targets[:, places]))))

    def predict(inputs: np.ndarray, records: np.ndarray) -> np.ndarray:
        known = np.where(np.isnan(records), bundle.means, records)
        predicted = records.copy()
        for places, forest, usual in forests:
            error = np.maximum(height(forest, known[:, places]) - usual, 0.0) ** FOREST_POWER
            predicted[:, places] -= error[:, None]
        return predicted

    return predict


def _flat(inputs: np.ndarray, records: np.ndarray) -> np.ndarray:
    return np.concatenate([inputs, records[:, None]], axis=1).reshape(len(records), -1)


PREDICTORS: dict[str, Callable[[Bundle, np.ndarray, np.ndarray], Predict]] = {
    "network": fit_network,
    "PCA": fit_pca,
    "previous record": fit_previous,
    "mean": fit_mean,
    "isolation forest": fit_forest,
}


# --- the same decision ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Judge:
    """A predictor with thresholds of its own. bundle: without habits, or with habits in its own units."""

    bundle: Bundle
    predict: Predict
    thresholds: dict[str, float]

    def judge(self, frame: pd.DataFrame) -> list[Verdict]:
        """Verdicts on all records of a resampled dataset."""
        values, times = _records_of(self.bundle, frame)
        return detect(self.thresholds, frame, scores_of(self.bundle, self.predict, values, times))


def make_judges(bundle: Bundle, frame: pd.DataFrame) -> dict[tuple[str, bool], Judge]:
    """(Name of a predictor, whether it has habits) -> what judges with it.

    frame: the training set of the bundle. Without habits in the bundle, none has any.
    """
    inputs, targets = learnt_sequences(bundle, frame)
    judges = {}
    for name, fit in PREDICTORS.items():
        predict = fit(bundle, inputs, targets)
        judges[name, False] = make_judge(dataclasses.replace(bundle, habits=None), predict, frame)
        if bundle.habits:
            judges[name, True] = make_judge(bundle, predict, frame)
    return judges


def make_judge(bundle: Bundle, predict: Predict, frame: pd.DataFrame) -> Judge:
    """Give a predictor what training and --evaluate give the network: the unit of its habits, thresholds."""
    values, times = _records_of(bundle, frame)
    scores = scores_of(bundle, predict, values, times)
    if bundle.habits:
        habits = bundle.habits.in_units_of(usual_rmse(scores, times, bundle.left_out))
        bundle = dataclasses.replace(bundle, habits=habits)
    learnt = outside(times, bundle.left_out)
    scores = dataclasses.replace(scores, window=np.where(learnt[:, None], scores.window, np.nan))
    return Judge(bundle, predict, propose_thresholds(None, None, scores, DEFAULT_PERCENTILE))


def scores_of(bundle: Bundle, predict: Predict, values: np.ndarray, times: np.ndarray) -> Scores:
    """The scores of consecutive records (n, features) at `times` (n,) in ns, by any predictor."""
    if bundle.habits:
        bundles = joint(bundle)
        lows, highs = bundles.lows, bundles.lows + bundles.widths
        is_excused = bundle.habits.is_excused(times, values)
        values_seen = bundles.habits.within(times, values, is_excused, lows, highs, Consecutive())
    else:
        values_seen = values
    records = normalised(bundle, values_seen)[bundle.n_steps - 1 :]
    with_records = dataclasses.replace(bundle, predictor=lambda inputs: predict(inputs, records))
    return score(with_records, values, times)


def learnt_sequences(bundle: Bundle, frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (n, steps - 1, features) and targets (n, features) of what is learnt, and of daily jobs."""
    values, times = _records_of(bundle, frame)
    for start, end in bundle.left_out:
        values[(times >= start) & (times < end)] = np.nan
    return whole_sequences(normalize(values, bundle.stats, bundle.features), bundle.n_steps)


def _records_of(bundle: Bundle, frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    return frame[bundle.features].to_numpy(dtype=float), slot_times(bundle, frame)


# --- what it misses ------------------------------------------------------------------------------


def smallest_changes(judge: Judge, frame: pd.DataFrame) -> dict[str, float | None]:
    """Metric -> the smallest lasting change that is found within an alert's records in 95 % of the tries.

    It is in ranges of the training set, None if none of CHANGE_SIZES is found. frame: normal records; the
    changes are put into them at random times, the same for each judge.
    """
    bundle = judge.bundle
    values, times = _records_of(bundle, frame)
    block = SCORE_RECORDS + ALERT_RECORDS
    blocks = np.lib.stride_tricks.sliding_window_view(np.isnan(values).any(axis=1), block)
    starts = np.random.default_rng(SEED).choice(np.flatnonzero(~blocks.any(axis=1)), TRIES)
    rows = starts[:, None] + np.arange(block)
    return {
        name: _smallest(judge, metric, values[rows], times[rows]) for name, metric in bundle.metrics.items()
    }


def _smallest(judge: Judge, metric: Metric, values: np.ndarray, times: np.ndarray) -> float | None:
    """One of CHANGE_SIZES. values: (tries, records, features). times: (tries, records)."""
    bundle = judge.bundle
    place = list(bundle.metrics).index(metric.name)
    limit = judge.thresholds[metric.threshold_key]
    width = bundle.stats[f"{metric.level}_max"] - bundle.stats[f"{metric.level}_min"]
    for size in CHANGE_SIZES:
        changed = with_change(bundle.metrics, metric, values, -ALERT_RECORDS, size * width)
        flat = changed.reshape(-1, values.shape[-1])
        scores = scores_of(bundle, judge.predict, flat, times.reshape(-1))
        window, record, lasting = (part[:, place] for part in (scores.window, scores.record, scores.lasting))
        over = (window > limit) & (record > RECORD_FACTOR * limit) | (lasting > limit)
        if over.reshape(times.shape)[:, -ALERT_RECORDS:].any(axis=1).mean() >= FOUND_SHARE:
            return size
    return None


# --- what it costs -------------------------------------------------------------------------------


def costs(bundle: Bundle, trainset: str, day: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Predictor -> seconds to fit it, seconds to judge a day, and the peak memory of each in MB.

    Each is measured in a process of its own. A baseline is fitted in the process that judges.
    """
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        inputs, targets = learnt_sequences(bundle, load_records(trainset))
        values, times = _records_of(bundle, day)
        arrays = f"{folder}/arrays.npz"
        np.savez(arrays, inputs=inputs, targets=targets, values=values, times=times)
        for name in PREDICTORS:
            figures[name] = _in_process("judge_cost", name, arrays)
        figures["network"] |= _in_process("training_cost", trainset, folder)
    return figures


def _in_process(function: str, *arguments: str) -> dict[str, float]:
    code = f"import sys; from benchmarks import baselines; baselines.{function}(*sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


def judge_cost(name: str, arrays: str) -> None:
    """Print what it costs to fit a predictor, and to judge a day with it, as JSON."""
    bundle = load_bundle(DEFAULT_MODEL)
    given = np.load(arrays)
    inputs, targets, values, times = (given[key] for key in ("inputs", "targets", "values", "times"))
    first = PREDICTORS[name](bundle, inputs[:WARM_UP_SEQUENCES], targets[:WARM_UP_SEQUENCES])
    scores_of(bundle, first, values[:WARM_UP_SEQUENCES], times[:WARM_UP_SEQUENCES])
    begin = time.perf_counter()
    predict = PREDICTORS[name](bundle, inputs, targets)
    fitted = time.perf_counter()
    scores_of(bundle, predict, values, times)
    judged = time.perf_counter()
    print(
        json.dumps(
            {
                "fit_seconds": round(fitted - begin, 3),
                "fit_memory_mb": _peak_mb(),
                "day_seconds": round(judged - fitted, 3),
                "memory_mb": _peak_mb(),
            }
        )
    )


def training_cost(trainset: str, folder: str) -> None:
    """Print what it costs to train the network as --mode train does, as JSON. Its files go to `folder`."""
    frame = load_records(trainset)
    begin = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        features = len(load_bundle(DEFAULT_MODEL).features)
        train(
            frame,
            N_STEPS,
            features,
            train_verbose=0,
            model_filename=str(Path(folder, "model.h5")),
            plot_dir=folder,
        )
    seconds = round(time.perf_counter() - begin, 1)
    print(json.dumps({"fit_seconds": seconds, "fit_memory_mb": _peak_mb()}))


def _peak_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return round(int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6, 1)
