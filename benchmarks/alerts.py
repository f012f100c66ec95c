"""How many anomalies in 30 records should make an alert: `python -m benchmarks.alerts [--captures DIR]`.

For each number: false alerts in normal data, and how soon an intermittent load is alerted. `--captures` is
the folder of the public recordings, which are not part of this project; without it they are left out.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks import edge
from benchmarks.ports import TRAIN_DAYS, UNSEEN_PORT_SEEDS, training_of, unseen_port
from common.alerts import ALERT, ALERT_RECORDS, ANOMALY, UNKNOWN, WINDOW_RECORDS, Row
from common.times import DAY_SECONDS, last_midnight
from edge import evaluation
from edge.bundle import Bundle, load_bundle
from edge.datasets import loadDataset, resample_records
from edge.paths import DEFAULT_MODEL
from edge.thresholds import load_thresholds
from nodes.series import RECORD_SECONDS
from ports.comparison import Detection, detection, iterative_statuses
from ports.series import list_series, read_anomalies, read_series
from ports.training import fit_series
from ports.verdicts import judge
from simulators.edge import NODE_PHASE, NORMAL_START, Attack, simulate
from simulators.ports import TIMEZONE

# None: only anomalies in a row make an alert.
NUMBERS = (None, *range(5, 16))
SCALES = (1.0, 0.8, 0.6)
DAY_SEEDS, ATTACK_SEEDS = range(8001, 8021), range(7101, 7106)
PERIODS = (2, 3, 4, 5, 6)
# The public port series are only two months long.
ALERT_TRAIN_DAYS = 29

Marks = tuple[np.ndarray, np.ndarray]


def alerts(marks: Marks, many: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Statuses (n,), and whether an alert is up (n,), for marks of anomalies and unknown records."""
    row = Row(WINDOW_RECORDS + 1 if many is None else many)
    judged = [(row.status(*both), row.is_up) for both in zip(*(one.tolist() for one in marks), strict=True)]
    return np.array([status for status, _ in judged], dtype=object), np.array(
        [up for _, up in judged], dtype=bool
    )


def edge_marks(bundle: Bundle, frame: pd.DataFrame, scale: float = 1.0) -> Marks:
    """Whether records are anomalies, and whether unknown, with the shipped thresholds times `scale`."""
    thresholds = load_thresholds("data/thresholds.json")
    verdicts = edge.judge(bundle, {key: scale * value for key, value in thresholds.items()}, frame)
    return np.array([v.is_anomaly for v in verdicts]), np.array([v.status == UNKNOWN for v in verdicts])


def edge_life(captures: str | None) -> Iterator[tuple[pd.DataFrame, edge.Windows]]:
    """Records and their attack windows: shipped datasets, simulated days and attacks, a recording."""
    for name in ("normal", "cpu_attack", "iperf_attack"):
        yield resample_records(loadDataset(f"data/{name}.csv")), evaluation.load_attacks(f"data/{name}.csv")
    yield from (edge.simulated(seed, DAY_SECONDS) for seed in DAY_SEEDS)
    for kind in ("cpu", "iperf"):
        yield from (edge.simulated(seed, DAY_SECONDS / 4, kind) for seed in ATTACK_SEEDS)
    if captures:
        yield edge.load_capture(f"{captures}/5genesis-cpu-attack.csv")


def false_edge_alerts(bundle: Bundle, captures: str | None) -> dict[str, list[int]]:
    """False alerts in normal data for each of NUMBERS: one row for each scale of the thresholds."""
    days, counts = 0.0, {scale: [0] * len(NUMBERS) for scale in SCALES}
    # Marks just after the end of an attack still belong to it.
    tail = int((WINDOW_RECORDS + ALERT_RECORDS) * RECORD_SECONDS * 1e9)
    for frame, windows in edge_life(captures):
        times = frame.index.as_unit("ns").asi8
        normal = np.ones(len(times), dtype=bool)
        for start, end in windows:
            normal &= (times < start) | (times >= end + tail)
        days += normal.sum() * RECORD_SECONDS / DAY_SECONDS
        for scale in SCALES:
            marks = edge_marks(bundle, frame, scale)
            for place, many in enumerate(NUMBERS):
                statuses, up = alerts(marks, many)
                counts[scale][place] += evaluation.count_alerts((statuses == ALERT) & normal, up & normal)
    return {f"edge: false alerts in {days:.0f} days, thresholds x {s}": row for s, row in counts.items()}


def records_to_alert(bundle: Bundle) -> dict[str, list[int | None]]:
    """Records from the first attacked one to the alert, for each of NUMBERS.

    An attack is a CPU at 98 % from one scrape to the next, once in each of PERIODS records.
    """
    start, rows = NORMAL_START, {}
    for period in PERIODS:
        scrapes = start + (240 + NODE_PHASE + np.arange(0, 240, period)) * RECORD_SECONDS
        loads = [Attack("cpu", scrape, scrape + RECORD_SECONDS) for scrape in scrapes]
        frame = edge.frame_of(simulate(42, start, 480 * RECORD_SECONDS, loads))
        first = int(np.searchsorted(frame.index.as_unit("ns").asi8, int((scrapes[0] + RECORD_SECONDS) * 1e9)))
        marks = edge_marks(bundle, frame)
        alerted = [np.flatnonzero(alerts(marks, many)[0] == ALERT) for many in NUMBERS]
        counted = [int(found[0]) - first + 1 if len(found) else None for found in alerted]
        rows[f"edge: records to the alert, CPU busy in 1 of {period}"] = counted
    return rows


def ports(captures: str | None) -> Iterator[tuple]:
    """Name of a group, days of training, and what unseen_port returns for a series."""
    yield from (("simulated ports", TRAIN_DAYS, *unseen_port(seed)) for seed in UNSEEN_PORT_SEEDS)
    real = {f"{captures}/{name}": ALERT_TRAIN_DAYS for name in ("ports", "links")} if captures else {}
    for folder, days in {"data/ports": TRAIN_DAYS, **real}.items():
        labels = Path(folder, "anomalies.txt")
        for name, path in list_series(folder).items():
            series = read_series(path)
            split = last_midnight(int(series.times[0]) + (days + 1) * DAY_SECONDS, TIMEZONE)
            known = [one for one in read_anomalies(labels) if one.series == name] if labels.exists() else []
            late = [one for one in known if one.end > split]
            yield folder.removeprefix(f"{captures}/"), days, series, split, late, [], []


def port_alerts(captures: str | None) -> dict[str, list[int]]:
    """False and true alerts of the default detector, trained each night, for each of NUMBERS."""
    totals: dict[str, list[Detection]] = {}
    for group, days, series, split, known, rest, holidays in ports(captures):
        training = training_of("profile", train_days=days)
        trained = fit_series(series, "profile", replace(training, until=split))
        after = judge(trained, series, split).after(split)
        judged = iterative_statuses(series, "profile", training, split, after)
        marks = np.isin(judged, (ANOMALY, ALERT)), judged == UNKNOWN
        ways = {group: rest} | ({f"{group}, outside holidays": [*rest, *holidays]} if holidays else {})
        for (name, excused), (place, many) in itertools.product(ways.items(), enumerate(NUMBERS)):
            total = totals.setdefault(name, [Detection()] * len(NUMBERS))
            seconds, (statuses, _) = training.minutes * 60, alerts(marks, many)
            total[place] += detection(after.buckets.starts, seconds, statuses, known, excused)
    rows = {}
    for name, found in totals.items():
        rows[f"{name}: false alerts in {found[0].months:.0f} months"] = [one.false_alerts for one in found]
        rows[f"{name}: alerted, of {found[0].known}"] = [one.with_alert for one in found]
    return rows


def main() -> None:
    """Print the table of docs/alerts.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--captures", help="folder of public recordings")
    captures = parser.parse_args().captures
    bundle = load_bundle(DEFAULT_MODEL)
    rows = false_edge_alerts(bundle, captures) | records_to_alert(bundle) | port_alerts(captures)
    print("| anomalies in 30 records |", " | ".join("row" if n is None else str(n) for n in NUMBERS), "|")
    print("| --- " * (1 + len(NUMBERS)) + "|")
    for name, cells in rows.items():
        print(f"| {name} |", " | ".join("-" if cell is None else str(cell) for cell in cells), "|")


if __name__ == "__main__":
    main()
