"""Trains on recordings in which life has been: `python -m benchmarks.contamination [--seeds 11 12 13]`.

Each recording is three simulated days with one contamination. The model that is trained on it, as the program
does it, judges attacks, normal days, the daily job at its own and at another time, and changes that last.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.edge import Windows, frame_of
from common.files import saveDictJson
from common.times import DAY_SECONDS
from edge.bundle import Bundle, load_bundle
from edge.changes import with_change
from edge.detector import detect
from edge.evaluation import learnt_thresholds, summarise
from edge.scores import score_dataset
from edge.sequences import N_STEPS
from edge.training import train
from nodes.metrics import METRICS
from nodes.series import RECORD_SECONDS
from simulators.edge import (
    NODE_INSTANCE,
    NORMAL_START,
    RAN_INSTANCE,
    Attack,
    Stuck,
    iperf_attack,
    simulate,
)

SEEDS = (11, 12, 13)
RECORDED_DAYS = 3
# The job begins at two o'clock, up to five minutes late.
JOB_SECONDS, JOB_JITTER_SECONDS = 2 * 3600, 300
ATTACK_KINDS = ("cpu", "iperf", "flood", "memory")
# Metric -> what lasts: points, or multiples of the median level.
CHANGES = {"cpu": 5.0, "mem": 1.0, "net_down": 5.0, "net_up": 5.0, "net_5g_down": 5.0, "net_5g_up": 5.0}
CHANGE_SECONDS = 2 * 3600

Loads = list[Attack]


def job(rng: np.random.Generator, minutes: int, first: float, days: int, kinds: Sequence[str]) -> Loads:
    """A daily job of so many minutes: CPU at 92 %, an upload, or more memory."""
    sizes = {"cpu": 92.0, "upload": 2e6, "memory": 3.0}
    loads = []
    for day in range(days):
        start = first + day * DAY_SECONDS + JOB_SECONDS + rng.uniform(0, JOB_JITTER_SECONDS)
        loads += [Attack(kind, start, start + 60 * minutes, sizes[kind]) for kind in kinds]
    return loads


def _forgotten(*kinds: str, minutes: int = 18, times: int = 1) -> Callable[[np.random.Generator], dict]:
    def make(rng: np.random.Generator) -> dict:
        starts = NORMAL_START + rng.uniform(0.1, RECORDED_DAYS - 0.1, times) * DAY_SECONDS
        loads = [Attack(kind, at, at + 60 * minutes) for at in starts for kind in kinds]
        return {"attacks": loads}

    return make


def _work(seconds: float, percent: float) -> Callable[[np.random.Generator], dict]:
    def make(rng: np.random.Generator) -> dict:
        at = NORMAL_START + rng.uniform(0.1, RECORDED_DAYS - 0.1) * DAY_SECONDS
        return {"attacks": [Attack("cpu", at, at + seconds, percent)]}

    return make


def _stuck(instance: str) -> Callable[[np.random.Generator], dict]:
    def make(rng: np.random.Generator) -> dict:
        at = NORMAL_START + rng.uniform(0.1, RECORDED_DAYS - 0.1) * DAY_SECONDS
        return {"stuck": [Stuck(instance, at, at + 1200)]}

    return make


def _reboot(rng: np.random.Generator) -> dict:
    return {"reboot_at": NORMAL_START + rng.uniform(0.1, RECORDED_DAYS - 0.1) * DAY_SECONDS}


# Name -> kinds of load and minutes of a daily job.
JOBS = {
    "daily job, CPU, 5 min": (("cpu",), 5),
    "daily job, CPU, 10 min": (("cpu",), 10),
    "daily job, CPU, upload and memory, 30 min": (("cpu", "upload", "memory"), 30),
}
# Name -> what is in the training set besides ordinary life: arguments of simulate().
CONTAMINATIONS: dict[str, Callable[[np.random.Generator], dict]] = {
    "nothing": lambda rng: {},
    "forgotten attack, CPU, 18 min": _forgotten("cpu"),
    "forgotten attack, all metrics, 30 min": _forgotten("cpu", "iperf", "memory", minutes=30),
    "three forgotten attacks, CPU, 10 min": _forgotten("cpu", minutes=10, times=3),
    "forgotten flood of the 5G cell, 20 min": _forgotten("flood", minutes=20),
    **{
        name: lambda rng, kinds=kinds, minutes=minutes: {
            "attacks": job(rng, minutes, NORMAL_START, RECORDED_DAYS, kinds)
        }
        for name, (kinds, minutes) in JOBS.items()
    },
    "an hour of work, CPU at 50 %": _work(3600, 50.0),
    "six seconds of work": _work(6, 90.0),
    "stuck node exporter, 20 min": _stuck(NODE_INSTANCE),
    "stuck RAN exporter, 20 min": _stuck(RAN_INSTANCE),
    "reboot": _reboot,
}


def windows_of(loads: Sequence[Attack]) -> Windows:
    """Start and end in ns of loads."""
    return sorted({(int(load.start * 1e9), int(load.end * 1e9)) for load in loads})


def trained(frame: pd.DataFrame, folder: str) -> tuple[Bundle, dict[str, float]]:
    """The model that the program trains on a recording, and the thresholds that it proposes."""
    model = str(Path(folder, "model.h5"))
    with contextlib.redirect_stdout(io.StringIO()):
        features = len(METRICS.features)
        train(frame, N_STEPS, features, train_verbose=0, model_filename=model, plot_dir=folder)
    bundle = load_bundle(model)
    return bundle, learnt_thresholds(bundle, frame)


def judge(
    bundle: Bundle, thresholds: dict[str, float], frame: pd.DataFrame, attacks: Windows
) -> dict[str, Any]:
    """The summary of a recording."""
    return summarise(detect(thresholds, frame, score_dataset(bundle, frame)), attacks)


def attacked(bundle: Bundle, thresholds: dict[str, float], seed: int) -> dict[str, dict[str, Any]]:
    """Kind of attack -> the summary of six hours around one, at a random time of day."""
    rng = np.random.default_rng(seed)
    summaries = {}
    for kind in ATTACK_KINDS:
        start = NORMAL_START + rng.integers(10, 50) * DAY_SECONDS + rng.integers(0, 18) * 3600.0
        at = start + 3 * 3600
        loads = iperf_attack(at) if kind == "iperf" else [Attack(kind, at, at + 18 * 60)]
        frame = frame_of(simulate(seed + 500, start, 6 * 3600, loads))
        summaries[kind] = judge(bundle, thresholds, frame, windows_of(loads))
    return summaries


def lasting_changes(bundle: Bundle, thresholds: dict[str, float], seed: int) -> dict[str, float]:
    """Metric -> the share of records with a change that lasts for two hours that are anomalies."""
    rng = np.random.default_rng(seed)
    frame = frame_of(simulate(seed + 600, NORMAL_START + 70 * DAY_SECONDS, DAY_SECONDS))
    shares = {}
    for name, size in CHANGES.items():
        metric = METRICS[name]
        if metric.unit != "%":
            size *= float(frame[metric.level].median())
        onset = int(rng.integers(100, len(frame) - 600))
        until = onset + int(CHANGE_SECONDS / RECORD_SECONDS)
        values = frame[bundle.features].to_numpy(dtype=float)
        changed = with_change(METRICS, metric, values, onset, size)
        changed[until:] = with_change(METRICS, metric, changed, until, -size)[until:]
        altered = frame.copy()
        altered[bundle.features] = changed
        verdicts = detect(thresholds, altered, score_dataset(bundle, altered))
        shares[name] = float(np.mean([verdict.is_anomaly for verdict in verdicts[onset:until]]))
    return shares


def measure(name: str, seed: int) -> dict[str, Any]:
    """All figures of one contamination with one seed."""
    rng = np.random.default_rng(seed)
    begin = time.perf_counter()
    frame = frame_of(simulate(seed, NORMAL_START, RECORDED_DAYS * DAY_SECONDS, **CONTAMINATIONS[name](rng)))
    with tempfile.TemporaryDirectory() as folder:
        bundle, thresholds = trained(frame, folder)
        seconds = time.perf_counter() - begin
        kinds, minutes = JOBS.get(name, ((), 0))
        first = NORMAL_START + 80 * DAY_SECONDS
        own = job(rng, minutes, first, 2, kinds)
        normal = judge(bundle, thresholds, frame_of(simulate(seed + 700, first, 2 * DAY_SECONDS, own)), [])
        figures = {
            "attacks": attacked(bundle, thresholds, seed),
            "lasting": lasting_changes(bundle, thresholds, seed),
            "false_alerts_per_day": normal["false_alerts_per_day"],
            "false_anomalies_per_day": normal["false_anomalies_per_day"],
            "left_out": len(bundle.left_out),
            "daily_jobs": len(bundle.habits.jobs),
            "training_seconds": round(seconds),
        }
        if own:
            # Twelve hours later than at its own time.
            moved = [
                Attack(a.kind, a.start + DAY_SECONDS / 2, a.end + DAY_SECONDS / 2, a.size)
                for a in own[: len(kinds)]
            ]
            frame = frame_of(simulate(seed + 800, first, DAY_SECONDS, moved))
            figures["moved"] = judge(bundle, thresholds, frame, windows_of(moved))
    return figures


def row(figures: dict[str, Any]) -> str:
    """One line of the table."""
    attacks = [*figures["attacks"].values()]
    moved = figures.get("moved")
    found = sum(one["attack_anomalies"] for one in attacks)
    of = sum(one["attack_records"] for one in attacks)

    def worst(key: str) -> Any:
        values = [one[key] for one in attacks]
        return "never" if "never" in values else max(values)

    cells = [
        f"{found} of {of}",
        f"{worst('polls_to_first_anomaly')} / {worst('polls_to_first_alert')}",
        str(worst("polls_to_last_anomaly")),
        f"{figures['false_alerts_per_day']:g} ({figures['false_anomalies_per_day']:g})",
        f"{moved['attack_anomalies']} of {moved['attack_records']}" if moved else "",
        " ".join(f"{share:.0%}" for share in figures["lasting"].values()),
        f"{figures['left_out']} / {figures['daily_jobs']}",
    ]
    return " | ".join(cells)


def main() -> None:
    """Print the table, a row for each contamination and seed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.contamination", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="default: 11 12 13")
    parser.add_argument("--only", default="", help="contaminations whose name has this text")
    options = parser.parse_args()
    all_figures: dict[str, Any] = {}
    print(
        "| in the training set, seed | attack records found | 1st anomaly / alert | last anomaly"
        " | false alerts (anomalies) a day | job at another time"
        f" | lasting: {', '.join(CHANGES)} | left out / jobs |"
    )
    print("| --- " * 8 + "|")
    for name in CONTAMINATIONS:
        for seed in options.seeds if options.only in name else ():
            figures = measure(name, seed)
            all_figures[f"{name}, seed {seed}"] = figures
            print(f"| {name}, {seed} | {row(figures)} |", flush=True)
    saveDictJson(all_figures, "plots/contamination.json")


if __name__ == "__main__":
    main()
