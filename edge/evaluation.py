"""Thresholds proposed from recorded datasets, and how well verdicts match known attack windows.

A record belongs to an attack if its time is in [start, end) of a window. Polls are counted from 1: the
first record of an attack is poll 1 after its onset, the first record after it poll 1 after its end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from common.alerts import ALERT, ALERT_RECORDS, UNKNOWN, WINDOW_RECORDS
from common.files import UserError, is_there, loadDictJson, saveDictJson
from common.times import DAY_SECONDS, parse_time
from edge import pictures
from edge.bundle import Bundle, load_bundle
from edge.datasets import SparseDatasetError, load_records
from edge.defaults import DEFAULT_PERCENTILE
from edge.detector import Verdict, detect
from edge.paths import DEFAULT_MODEL, plots_prefix
from edge.recording import outside
from edge.scores import Scores, score_dataset, slot_times
from edge.sensitivity import AGES, blind_metrics, describe_blind, describe_size
from edge.thresholds import load_thresholds, propose_thresholds, update_thresholds
from edge.unlearnt import NOTHING_UNLEARNT, Unlearnt
from nodes.metrics import METRICS, MetricTable
from nodes.series import RECORD_SECONDS

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger("find_anomalies")

# Beside a dataset: its name -> the windows in which it was attacked.
ATTACKS_FILE = "attacks.json"

_HEADINGS = {
    "records": "records",
    "unknown_records": "unknown",
    "attack_records": "in attack",
    "attack_anomalies": "anomalies",
    "attack_alerted": "alerted",
    "polls_to_first_anomaly": "1st anomaly",
    "polls_to_first_alert": "1st alert",
    "polls_to_last_anomaly": "last anomaly",
    "false_anomalies_per_day": "false/day",
    "false_alerts_per_day": "false alerts/day",
    "normal_alerted": "normal alerted",
}


def load_attacks(dataset: str | Path) -> list[tuple[int, int]]:
    """Attack windows (start, end in ns) of a dataset, from `attacks.json` beside it; none without that file.

    The file maps a dataset's file name to a list of {"start": ..., "end": ...}.
    """
    path = Path(dataset).parent / ATTACKS_FILE
    windows = _attacks_file(path).get(Path(dataset).name, [])
    fault = (
        f"{path}: the windows of {Path(dataset).name} must be a list of"
        ' {"start": "2021-01-12T09:13:15Z", "end": "2021-01-12T09:31:15Z"}'
    )
    try:
        attacks = [(parse_time(window["start"]), parse_time(window["end"])) for window in windows]
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(fault) from None
    for number, (start, end) in enumerate(attacks, start=1):
        if start >= end:
            raise UserError(f"{fault}; window {number} does not end after its start")
    return attacks


def warn_of_names(dataset: str | Path) -> None:
    """Log a warning for each name in the `attacks.json` beside a dataset that no file there has."""
    path = Path(dataset).parent / ATTACKS_FILE
    for name in _attacks_file(path):
        if name not in os.listdir(path.parent):
            logger.warning("%s: there is no dataset %s beside it; correct the name", path, name)


def _attacks_file(path: Path) -> dict[str, Any]:
    """The content of an `attacks.json`; nothing if there is none."""
    return loadDictJson(path) if is_there(path) else {}


def is_same_node(
    scores: Scores, frame: pd.DataFrame, attacks: Sequence[tuple[int, int]], normal: Scores
) -> bool:
    """Whether a dataset looks like the node that the training set comes from, outside its attacks.

    It does not if it has no record outside attacks, or if most of those records have a window RMSE that only
    one in a hundred of the training set reaches: it is from another node, or attacks are not in attacks.json.
    """
    times = frame.index.as_unit("ns").asi8
    outside = np.ones(len(times), dtype=bool)
    for start, end in attacks:
        outside &= (times < start) | (times >= end)
    if not outside.any():
        return False
    limits = np.nanpercentile(normal.window, 99, axis=0)
    return bool((scores.window[outside] > limits).any(axis=1).mean() <= 0.5)


def summarise(
    verdicts: Sequence[Verdict],
    attacks: Sequence[tuple[int, int]],
    not_normal: Sequence[tuple[int, int]] = (),
) -> dict[str, Any]:
    """The numbers of _HEADINGS for one dataset; None for those that need an attack or a normal record.

    not_normal: other windows (start, end) in ns whose records do not count as normal.

    Polls are those of the slowest attack. An attack is never found if an alert is already up at its onset.
    Its last anomaly is followed by ALERT_RECORDS records in a row without one, and is at most a window after
    its end; later anomalies are false. count_alerts counts the false alerts, each of which wakes a person
    once; `normal_alerted` counts their records.
    """
    times = np.array([verdict.time for verdict in verdicts])
    anomalous = np.array([verdict.is_anomaly for verdict in verdicts])
    alerted = np.array([verdict.status == ALERT for verdict in verdicts])
    unknown = np.array([verdict.status == UNKNOWN for verdict in verdicts])
    up = np.array([verdict.is_alert_up for verdict in verdicts])
    during = np.zeros(len(times), dtype=bool)
    tail = np.zeros(len(times), dtype=bool)
    first_anomaly, first_alert, last_anomaly = [], [], []
    for start, end in attacks:
        inside = (times >= start) & (times < end)
        during |= inside
        begin, after = int(np.searchsorted(times, start)), int(np.searchsorted(times, end))
        is_up = begin > 0 and up[begin - 1]
        first_anomaly.append(float("inf") if is_up else _first(anomalous[begin:after]))
        first_alert.append(float("inf") if is_up else _first(alerted[begin:after]))
        until = min((int(np.searchsorted(times, s)) for s, _ in attacks if s >= end), default=len(times))
        last_anomaly.append(records_to_last_anomaly(anomalous[after : min(until, after + WINDOW_RECORDS)]))
        tail[after : after + last_anomaly[-1]] = True
    tail &= ~during
    normal = ~during & ~tail
    for start, end in not_normal:
        normal &= (times < start) | (times >= end)
    days = _days(times, normal & ~unknown)
    return {
        "records": len(times),
        "unknown_records": int(unknown.sum()),
        "attack_records": int(during.sum()),
        "attack_anomalies": int((anomalous & during).sum()),
        "attack_alerted": int((alerted & during).sum()),
        "polls_to_first_anomaly": _worst(first_anomaly),
        "polls_to_first_alert": _worst(first_alert),
        "polls_to_last_anomaly": _worst(last_anomaly),
        "false_anomalies_per_day": _per_day((anomalous & normal).sum(), days),
        "false_alerts_per_day": _per_day(count_alerts(alerted & normal, up & normal), days),
        "normal_alerted": int((alerted & normal).sum()),
    }


def _first(marks: np.ndarray) -> float:
    """Position of the first marked record, counted from 1; infinity if there is none."""
    return float(marks.argmax() + 1) if marks.any() else float("inf")


def records_to_last_anomaly(anomalous: np.ndarray) -> int:
    """Records up to the last anomaly, not counting those after ALERT_RECORDS records in a row without one."""
    last = 0
    for position in np.flatnonzero(anomalous) + 1:
        if position - last > ALERT_RECORDS:
            break
        last = int(position)
    return last


def _worst(polls: list[float]) -> int | str | None:
    if not polls:
        return None
    return int(max(polls)) if np.isfinite(max(polls)) else "never"


def count_alerts(alerted: np.ndarray, up: np.ndarray) -> int:
    """How often records (n,) wake a person: runs of records that are alerts, or during which an alert is up.

    A run that holds no alert itself does not count: its alert began before these records.
    """
    starts = np.diff((alerted | up).astype(int), prepend=0) == 1
    return len(np.unique(np.cumsum(starts)[alerted]))


def _days(times: np.ndarray, chosen: np.ndarray) -> float:
    if len(times) < 2 or not chosen.any():
        return 0.0
    return float(chosen.sum() * np.median(np.diff(times)) / 1e9 / DAY_SECONDS)


def _per_day(count: int, days: float) -> float | None:
    return round(float(count) / days, 2) if days else None


def table(summaries: dict[str, dict[str, Any]]) -> str:
    """One row for each dataset, with aligned columns; `-` for a number that has no meaning."""
    rows = [["dataset", *_HEADINGS.values()]]
    for name, summary in summaries.items():
        rows.append([name, *("-" if summary[key] is None else str(summary[key]) for key in _HEADINGS)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        row[0].ljust(widths[0])
        + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    )


@contextlib.contextmanager
def _keeping_all() -> Iterator[None]:
    """Do not look for garbage meanwhile: a hundred thousand objects stay until the end, and to go through
    them again and again takes a tenth of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@_keeping_all()
def evaluate(
    thresholds_file: str,
    cpu_testset: str,
    iperf_testset: str,
    trainset: str,
    time_window_threshold: int,
    model_filename: str = DEFAULT_MODEL,
    threshold_percentile: float = DEFAULT_PERCENTILE,
    interval_seconds: float = RECORD_SECONDS,
    plot_dir: str | Path = plots_prefix,
    metrics: MetricTable = METRICS,
) -> None:
    """Propose thresholds from three recorded datasets and report how well they detect.

    time_window_threshold: records in a window; the detector supports only WINDOW_RECORDS. Thresholds that a
    person set are kept. Prints a table, and writes it to `plot_dir` as evaluation.json with one picture of
    each dataset.
    """
    if time_window_threshold != WINDOW_RECORDS:
        raise UserError(
            f"time_window_threshold must be {WINDOW_RECORDS} records, not {time_window_threshold}"
        )
    testsets = (cpu_testset, iperf_testset)
    datasets = load_datasets(testsets, trainset, interval_seconds, metrics)
    evaluate_datasets(
        thresholds_file, testsets, datasets, model_filename, threshold_percentile, plot_dir, metrics
    )


@_keeping_all()
def evaluate_datasets(
    thresholds_file: str,
    testsets: Sequence[str | None],
    datasets: dict[str, tuple[str, pd.DataFrame]],
    model_filename: str,
    threshold_percentile: float,
    plot_dir: str | Path = plots_prefix,
    metrics: MetricTable = METRICS,
    unlearnt: Unlearnt = NOTHING_UNLEARNT,
) -> None:
    """Do the same as evaluate, with datasets that are already loaded.

    testsets: files of the CPU attack and of the iperf attack, None for one that there is not. datasets: what
    load_datasets returns. unlearnt: what people answered, and a calendar: of those records no threshold is
    made, and none is a false anomaly.
    """
    attacks = {key: load_attacks(name) for key, (name, _) in datasets.items()}
    bundle = load_bundle(model_filename, metrics)
    # What never changed in the training set is not judged.
    metrics = bundle.metrics
    scores = {key: score_dataset(bundle, frame) for key, (_, frame) in datasets.items()}
    *attacked, normal = datasets
    # Of the training set, training says so.
    answered = {
        key: unlearnt.stretches(slot_times(bundle, frame), "" if key == normal else key)
        for key, (_, frame) in datasets.items()
    }
    learnt = _outside(scores[normal], bundle, datasets[normal][1], (*bundle.left_out, *answered[normal]))
    usable, labels = {}, {key: key for key in datasets}
    for key in attacked:
        name, frame = datasets[key]
        if is_same_node(scores[key], frame, [*attacks[key], *answered[key]], learnt):
            usable[name] = _outside(scores[key], bundle, frame, answered[key])
        else:
            labels[key] = f"{key} (unlike trainset)"
            logger.warning(
                "%s: its records outside attacks are unlike the training set, or there are none, so no"
                " threshold is made from it; record the same node, and list its attacks in attacks.json",
                name,
            )
    cpu_scores, iperf_scores = (usable.get(name) for name in testsets)
    proposed = propose_thresholds(cpu_scores, iperf_scores, learnt, threshold_percentile)
    by_person = update_thresholds(thresholds_file, proposed, bundle.identity, metrics)
    thresholds = load_thresholds(thresholds_file, metrics)

    verdicts = {key: detect(thresholds, frame, scores[key]) for key, (_, frame) in datasets.items()}
    summaries = {
        key: summarise(
            verdicts[key], attacks[key], [*(bundle.left_out if key == normal else ()), *answered[key]]
        )
        for key in datasets
    }
    print("\n" + table({labels[key]: summary for key, summary in summaries.items()}))
    heading, found = found_columns(bundle, thresholds)
    blind = blind_metrics(bundle.curves, thresholds, metrics)
    print(f"\n{'threshold':<22} {'proposed':>9} {'in force':>9}{heading}")
    for name, key in metrics.threshold_keys.items():
        origin = "  set by a person" * (key in by_person) + "  blind" * (name in blind)
        print(f"{key:<22} {proposed[key]:>9.4f} {thresholds[key]:>9.4f}{found[name]}{origin}")
    if line := describe_blind(bundle.curves, thresholds, metrics):
        logger.warning("%s", line)
    content = {**summaries, "sensitivity": sensitivity(bundle, thresholds)}
    saveDictJson(content, Path(plot_dir) / "evaluation.json")
    for key, (name, _) in datasets.items():
        picture = Path(plot_dir) / f"evaluate_{key}.png"
        pictures.plot_detection(bundle, thresholds, verdicts[key], attacks[key], picture, name)
    written = f"{Path(plot_dir) / 'evaluation.json'} and {Path(plot_dir) / 'evaluate_*.png'}"
    print(f"\n{thresholds_file}, {written} were written")


def _outside(
    scores: Scores, bundle: Bundle, frame: pd.DataFrame, stretches: Sequence[tuple[int, int]]
) -> Scores:
    """Scores of a dataset without those of windows that have a record in these stretches (ns)."""
    learnt = outside(slot_times(bundle, frame), stretches)
    return dataclasses.replace(scores, window=np.where(learnt[:, None], scores.window, np.nan))


def learnt_thresholds(
    bundle: Bundle, frame: pd.DataFrame, percentile: float = DEFAULT_PERCENTILE
) -> dict[str, float]:
    """The thresholds that the training set alone proposes."""
    learnt = _outside(score_dataset(bundle, frame), bundle, frame, bundle.left_out)
    return propose_thresholds(None, None, learnt, percentile)


def found_columns(bundle: Bundle, thresholds: dict[str, float]) -> tuple[str, dict[str, str]]:
    """Heading and cells of a table: the smallest changes that are found at each of AGES.

    The cells are by metric, and `overall`; without curves, all are empty.
    """
    if not bundle.curves:
        return "", dict.fromkeys(bundle.metrics.threshold_keys, "")
    cells = {}
    for name, key in bundle.metrics.threshold_keys.items():
        sizes = ["-"] * len(AGES)
        if name in bundle.curves:
            smallest = (bundle.curves[name].smallest(thresholds[key], age) for age in AGES)
            sizes = [describe_size(size, bundle.metrics[name]) for size in smallest]
        cells[name] = "".join(f" {size:>16}" for size in sizes)
    headings = f"found in {AGES[0]}", f"still after {AGES[1]}"
    return "".join(f" {heading:>16}" for heading in headings), cells


def sensitivity(bundle: Bundle, thresholds: dict[str, float]) -> dict[str, dict[str, Any]]:
    """Metric -> its unit, the smallest changes found (None for none), and whether it is blind."""
    report = {}
    for name, curve in bundle.curves.items():
        metric = bundle.metrics[name]
        threshold = thresholds[metric.threshold_key]
        keys = f"found_in_{AGES[0]}", f"still_found_after_{AGES[1]}"
        sizes = {key: curve.smallest(threshold, age) for key, age in zip(keys, AGES, strict=True)}
        report[name] = {
            "unit": metric.unit,
            **{key: size if np.isfinite(size) else None for key, size in sizes.items()},
            "is_blind": curve.is_blind(threshold),
        }
    return report


def load_datasets(
    testsets: Sequence[str | None],
    trainset: str,
    interval_seconds: float,
    metrics: MetricTable = METRICS,
) -> dict[str, tuple[str, pd.DataFrame]]:
    """File name without folder and suffix -> the file and its resampled records; the training set is last.

    testsets: of the CPU attack and of the iperf attack; None for one that there is not. A test set whose
    records are further apart than the interval is left out: it could not be judged.
    """
    testsets = list(filter(None, testsets))
    names = (*testsets, trainset)
    if len({Path(name).stem for name in names}) < len(names):
        raise UserError("--cpu_testset, --iperf_testset and --trainset must have three different file names")
    normal = load_records(trainset, interval_seconds, metrics)
    datasets = {}
    for name in testsets:
        try:
            datasets[Path(name).stem] = (name, load_records(name, interval_seconds, metrics))
        except SparseDatasetError as error:
            logger.warning("%s. It is left out: it is not judged, and no threshold is made from it", error)
    return datasets | {Path(trainset).stem: (trainset, normal)}
