"""The edge detector's figures: detection on unseen days, the network, and baselines.

`--capture` takes a public recording of an edge node under a CPU attack (5GENESIS, 2021-01-12), which is
not part of this project; without it that part is left out. Figures go to stdout and plots/benchmarks.json.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import pandas as pd

import formatters
from benchmarks import baselines
from common.alerts import ALERT
from common.files import saveDictJson
from common.times import DAY_SECONDS
from edge import evaluation
from edge.bundle import Bundle, load_bundle
from edge.datasets import load_records, loadDataset, resample_records
from edge.detector import Verdict, detect
from edge.paths import DEFAULT_MODEL, trainset
from edge.scores import score_dataset
from edge.sequences import metric_square_errors, normalize, whole_sequences
from edge.thresholds import load_thresholds
from nodes.metrics import METRICS, getAnomalyColumns
from nodes.series import RECORD_SECONDS, Record
from simulators import edge

UNSEEN_NODE_SEEDS = (7001, 7002, 7003, 7004, 7005)
# A metric counts as predictable if a linear regression on the same records halves the error of the mean.
PREDICTABLE_RATIO = 2.0
CAPTURE_ATTACK = ("2021-01-12T09:13:15Z", "2021-01-12T09:31:15Z")

Windows = list[tuple[int, int]]


def simulated(seed: int, seconds: float, kind: str | None = None) -> tuple[pd.DataFrame, Windows]:
    """Simulated records over `seconds`, with an attack in the middle if `kind` names one."""
    start = edge.NORMAL_START + (seed % 100) * DAY_SECONDS + (seed % 7) * 7 * 3600
    attacks = []
    if kind:
        make = {"cpu": edge.cpu_attack, "iperf": edge.iperf_attack}[kind]
        attacks = make(start + seconds / 2)
    frame = frame_of(edge.simulate(seed, start, seconds, attacks))
    return frame, [(int(a.start * 1e9), int(a.end * 1e9)) for a in attacks]


def frame_of(samples: Record) -> pd.DataFrame:
    """Resampled records of simulated samples."""
    rows = list(formatters.format_records(formatters.slot_records(samples, RECORD_SECONDS)))
    times = pd.DatetimeIndex(pd.to_datetime([row.pop("time") for row in rows], utc=True), name="time")
    return resample_records(pd.DataFrame(rows, index=times))


def judge(bundle: Bundle, thresholds: dict[str, float], frame: pd.DataFrame) -> list[Verdict]:
    """Verdicts on all records of a resampled frame."""
    return detect(thresholds, frame, score_dataset(bundle, frame))


def unseen() -> dict[str, tuple[pd.DataFrame, Windows]]:
    """Simulated normal days, then attacks, with seeds that are not used in training."""
    days = {f"normal day {seed}": simulated(seed, DAY_SECONDS) for seed in UNSEEN_NODE_SEEDS}
    attacks = {
        f"{kind} attack {seed + 100}": simulated(seed + 100, 6 * 3600, kind)
        for kind in ("cpu", "iperf")
        for seed in UNSEEN_NODE_SEEDS
    }
    return days | attacks


def detection(
    bundle: Bundle, thresholds: dict[str, float], datasets: dict[str, tuple[pd.DataFrame, Windows]]
) -> dict[str, dict[str, Any]]:
    """Summaries of datasets with their attacks."""
    return {
        name: evaluation.summarise(judge(bundle, thresholds, frame), windows)
        for name, (frame, windows) in datasets.items()
    }


def load_capture(filename: str) -> tuple[pd.DataFrame, Windows]:
    """The public recording, with its level columns renamed to ours; its own rate columns are not used.

    Bytes per scrape (about 15 s) are converted to bytes per second.
    """
    raw = pd.read_csv(filename, parse_dates=["time"], index_col="time").tz_localize("UTC")
    frame = resample_records(raw[["mem", *getAnomalyColumns()]])
    for name in ("cpu_user", "cpu_rx", "cpu_tx"):
        frame[f"{name}_rate"] = frame[f"{name}_percentage"].diff()
    frame["mem_rate"] = 100 * frame["mem_percentage"].pct_change(fill_method=None)
    for name in ("bytes_received", "bytes_transmitted", "dl_bytes", "ul_bytes"):
        frame[f"{name}_rate"] = frame[name] / RECORD_SECONDS
    start, end = (pd.Timestamp(text).value for text in CAPTURE_ATTACK)
    return frame, [(start, end)]


def capture(bundle: Bundle, thresholds: dict[str, float], filename: str) -> dict[str, Any]:
    """Summary of the public recording, and how many of its normal records were anomalies and alerts."""
    frame, windows = load_capture(filename)
    verdicts = judge(bundle, thresholds, frame)
    (start, end) = windows[0]
    normal = [verdict for verdict in verdicts if not start <= verdict.time < end]
    return {
        **evaluation.summarise(verdicts, windows),
        "normal_anomalies": sum(verdict.is_anomaly for verdict in normal),
        "normal_alerted": sum(verdict.status == ALERT for verdict in normal),
    }


def compare_baselines(
    bundle: Bundle, datasets: dict[str, tuple[pd.DataFrame, Windows]], capture_file: str | None
) -> dict[str, Any]:
    """Judge the same datasets with the network and with each baseline, all with thresholds of their own.

    Returns `detection`, for each predictor with and without habits, and `costs`, for each predictor.
    """
    if capture_file:
        datasets = datasets | {"capture": load_capture(capture_file)}
    first_day = next(iter(datasets.values()))[0]
    rows = {}
    for (name, has_habits), one in baselines.make_judges(bundle, load_records(trainset)).items():
        summaries = {
            key: evaluation.summarise(one.judge(frame), windows) for key, (frame, windows) in datasets.items()
        }
        captured = summaries.pop("capture", None)
        rows[f"{name}{', habits' * has_habits}"] = {
            **pooled(list(summaries.values())),
            "capture": captured,
            "smallest_changes": baselines.smallest_changes(one, first_day),
        }
    return {"detection": rows, "costs": baselines.costs(bundle, trainset, first_day)}


def pooled(summaries: list[dict[str, Any]]) -> dict[str, Any]:
    """The summaries of normal days and of attacks as one: sums, and the worst poll and day."""
    normal = [one for one in summaries if not one["attack_records"]]
    attacked = [one for one in summaries if one["attack_records"]]
    figures: dict[str, Any] = {
        key: sum(one[key] for one in attacked)
        for key in ("attack_records", "attack_anomalies", "attack_alerted")
    }
    for key in ("polls_to_first_anomaly", "polls_to_first_alert"):
        polls = [one[key] for one in attacked]
        figures[key] = "never" if "never" in polls else max(polls)
    for key in ("false_anomalies_per_day", "false_alerts_per_day"):
        figures[key] = round(float(np.mean([one[key] for one in normal])), 2)
    return figures


def print_baselines(figures: dict[str, Any]) -> None:
    """Print the tables of compare_baselines()."""
    print("\nThe network and baselines, on the same records and with the same decision\n")
    heading = ["found", "1st anomaly", "1st alert", "false/day", "false alerts/day", "capture", "its alerts"]
    print("".ljust(24), *(name.rjust(16) for name in heading))
    for name, row in figures["detection"].items():
        captured = row["capture"]
        cells = [
            f"{row['attack_anomalies']} of {row['attack_records']}",
            row["polls_to_first_anomaly"],
            row["polls_to_first_alert"],
            row["false_anomalies_per_day"],
            row["false_alerts_per_day"],
            f"{captured['attack_anomalies']} of {captured['attack_records']}" if captured else "-",
            captured["normal_alerted"] if captured else "-",
        ]
        print(name.ljust(24), *(str(cell).rjust(16) for cell in cells))
    print("\nSmallest lasting change found within 4 records in 95 % of the tries, in trained ranges\n")
    print("".ljust(24), *(name.rjust(11) for name in METRICS))
    for name, row in figures["detection"].items():
        sizes = ("none" if size is None else f"{size:g}" for size in row["smallest_changes"].values())
        print(name.ljust(24), *(size.rjust(11) for size in sizes))
    print("\nSeconds and peak memory\n")
    print("".ljust(24), *(name.rjust(16) for name in ("fit, s", "fit, MB", "a day, s", "judging, MB")))
    for name, row in figures["costs"].items():
        cells = (row[key] for key in ("fit_seconds", "fit_memory_mb", "day_seconds", "memory_mb"))
        print(name.ljust(24), *(str(cell).rjust(16) for cell in cells))


def forecasts(bundle: Bundle) -> dict[str, dict[str, Any]]:
    """RMSE on unseen simulated days, of the network, the training mean and the previous record.

    A ridge regression on the same three records, fitted on the shipped training set, shows which metrics can
    be predicted at all.
    """
    train_inputs, train_targets = _sequences(bundle, resample_records(loadDataset("data/normal.csv")))
    parts = [_sequences(bundle, simulated(seed, DAY_SECONDS)[0]) for seed in UNSEEN_NODE_SEEDS]
    inputs, targets = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    design = np.c_[train_inputs.reshape(len(train_inputs), -1), np.ones(len(train_inputs))]
    weights = np.linalg.solve(design.T @ design + np.eye(design.shape[1]), design.T @ train_targets)
    predicted = {
        "network": bundle.predictor(inputs),
        "training_mean": np.broadcast_to(train_targets.mean(axis=0), targets.shape),
        "previous_record": inputs[:, -1],
        "linear_regression": np.c_[inputs.reshape(len(inputs), -1), np.ones(len(inputs))] @ weights,
    }
    rmse = {k: np.sqrt(metric_square_errors(targets, p).mean(axis=0)) for k, p in predicted.items()}
    return {
        metric: {
            **{name: round(float(values[i]), 4) for name, values in rmse.items()},
            "ratio": round(float(rmse["training_mean"][i] / rmse["network"][i]), 3),
            "predictable": bool(rmse["training_mean"][i] > PREDICTABLE_RATIO * rmse["linear_regression"][i]),
        }
        for i, metric in enumerate(METRICS)
    }


def _sequences(bundle: Bundle, frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    values = normalize(frame[bundle.features].to_numpy(float), bundle.stats, bundle.features)
    return whole_sequences(values, bundle.n_steps)


def main() -> None:
    """Measure and print all figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--capture", metavar="CSV", help="public recording of an edge node under a CPU attack"
    )
    options = parser.parse_args()
    bundle = load_bundle(DEFAULT_MODEL)
    thresholds = load_thresholds("data/thresholds.json")

    datasets = unseen()
    figures: dict[str, Any] = {"detection": detection(bundle, thresholds, datasets)}
    print("Detection on simulated data with seeds that are not used in training\n")
    print(evaluation.table(figures["detection"]))
    if options.capture:
        figures["capture"] = capture(bundle, thresholds, options.capture)
        print(f"\nPublic recording: {figures['capture']}")
    figures["forecasts"] = forecasts(bundle)
    print("\nRMSE on five unseen days (normalised units); ratio: training mean / network\n")
    names = ["network", "training_mean", "previous_record", "linear_regression", "ratio", "predictable"]
    print("metric".ljust(12), *(name.rjust(18) for name in names))
    for metric, row in figures["forecasts"].items():
        print(metric.ljust(12), *(str(row[name]).rjust(18) for name in names))
    figures["baselines"] = compare_baselines(bundle, datasets, options.capture)
    print_baselines(figures["baselines"])
    saveDictJson(figures, "plots/benchmarks.json")
