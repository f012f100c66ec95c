"""The detector on recordings of strangers: `python -m benchmarks.strangers --skab DIR`.

SKAB (the Skoltech Anomaly Benchmark) has recordings of a water circuit, each a CSV file with semicolons
between the cells: `datetime`, eight sensors, `anomaly`, `changepoint`. By its protocol the first 400 records
of each recording are normal and train a model, the rest is judged, and the records of all recordings count
together. The recordings are public, but not part of this project.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.baselines import Judge, make_judges
from common.files import UserError
from edge.bundle import load_bundle
from edge.sequences import N_STEPS
from edge.training import train
from nodes.metrics import GAUGE, NODE, Metric, MetricTable

TRAIN_RECORDS = 400
INTERVAL_SECONDS = 1.0
TIME, LABELS = "datetime", ("anomaly", "changepoint")


@dataclass(frozen=True)
class Recording:
    """One recording. frame: records with the columns of `metrics`. is_anomaly: (n,), the true labels."""

    name: str
    frame: pd.DataFrame
    is_anomaly: np.ndarray
    metrics: MetricTable


@dataclass(frozen=True)
class Counts:
    """Records by what they are and by what was found: true, false and missed anomalies, and the rest."""

    true: int
    false: int
    missed: int
    normal: int

    def __add__(self, other: Counts) -> Counts:
        """The counts of both."""
        return Counts(
            self.true + other.true,
            self.false + other.false,
            self.missed + other.missed,
            self.normal + other.normal,
        )

    @classmethod
    def of(cls, found: np.ndarray, there: np.ndarray) -> Counts:
        """The counts of records (n,) that were found, and that are there."""
        parts = (found & there, found & ~there, ~found & there, ~found & ~there)
        return cls(*(int(part.sum()) for part in parts))

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 if nothing is found and nothing is there."""
        return 2 * self.true / max(2 * self.true + self.false + self.missed, 1)

    def describe(self) -> str:
        """F1, and the shares of normal records that are false and of anomalous ones that are missed."""
        false = 100 * self.false / max(self.false + self.normal, 1)
        missed = 100 * self.missed / max(self.missed + self.true, 1)
        return f"F1 {self.f1:.2f}, false {false:.1f} %, missed {missed:.1f} %"


def load_recording(path: Path) -> Recording:
    """Read one recording. Each sensor is a metric: its level, and its change since the previous record.

    Raises UserError for a file that is not such a recording.
    """
    try:
        raw = pd.read_csv(path, sep=";")
        sensors = [name for name in raw.columns if name not in (TIME, *LABELS)]
        levels = raw[sensors].astype(float)
        labels = raw[LABELS[0]].to_numpy(dtype=float)
        if np.isnan(labels).any():
            raise ValueError(f"{LABELS[0]} is empty in a record")
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: is not a recording of SKAB ({error}); name a folder of them") from None
    if len(raw) <= TRAIN_RECORDS or not sensors:
        raise UserError(f"{path}: has {len(raw)} records; more than {TRAIN_RECORDS} are needed")
    levels.columns = [name.lower().replace(" ", "_") for name in sensors]
    # A second that was not recorded is no gap by the protocol.
    levels.index = pd.date_range("2020-01-01", periods=len(raw), freq="s", tz="UTC", name="time")
    changes = levels.diff().add_suffix("_change")
    metrics = MetricTable(tuple(_sensor(name) for name in levels))
    return Recording(path.name, pd.concat([changes, levels], axis=1), labels > 0, metrics)


def _sensor(name: str) -> Metric:
    change = f"{name}_change"
    return Metric(
        name=name,
        exporter=NODE,
        kind=GAUGE,
        measurement=name,
        columns={name: "value", change: "change"},
        features=(change, name),
        unit="",
        stored=name,
        stored_field=name,
    )


def train_on(recording: Recording) -> dict[tuple[str, bool], Judge]:
    """What judges after a training on the first records: (name of a predictor, with habits) -> Judge."""
    frame, metrics = recording.frame[:TRAIN_RECORDS], recording.metrics
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        model = f"{folder}/model.h5"
        train(
            frame,
            N_STEPS,
            len(metrics.features),
            train_epochs=None,
            train_verbose=0,
            model_filename=model,
            interval_seconds=INTERVAL_SECONDS,
            plot_dir=folder,
            metrics=metrics,
        )
        return make_judges(load_bundle(model, metrics), frame)


def count(judge: Judge, recording: Recording) -> Counts:
    """Judge the records that were not trained on."""
    found = np.array([verdict.is_anomaly for verdict in judge.judge(recording.frame)])[TRAIN_RECORDS:]
    there = recording.is_anomaly[TRAIN_RECORDS:]
    return Counts.of(found, there)


def recordings(folder: str) -> list[Path]:
    """The files in a folder. Raises UserError for a folder without any."""
    paths = sorted(Path(folder).rglob("*.csv"), key=lambda path: (len(path.name), path))
    if not paths:
        raise UserError(f"{folder}: has no recording (*.csv); name a folder of SKAB, such as its valve1")
    return paths


def run_skab(folder: str) -> dict[tuple[str, bool], Counts]:
    """SKAB's protocol over all recordings in a folder. Raises UserError for a folder without any."""
    paths = recordings(folder)
    totals: dict[tuple[str, bool], Counts] = {}
    for number, path in enumerate(paths, 1):
        recording = load_recording(path)
        for name, judge in train_on(recording).items():
            totals[name] = totals.get(name, Counts(0, 0, 0, 0)) + count(judge, recording)
        so_far = totals["network", True].describe()
        print(f"{number} of {len(paths)}, {recording.name}: {so_far} so far", file=sys.stderr)
    return totals


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one line for the product and one for each baseline; 0 done, 1 an error that the user can fix."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.strangers", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--skab", metavar="DIR", required=True, help="folder with recordings of SKAB")
    options = parser.parse_args(arguments)
    logger = logging.getLogger("find_anomalies")
    level = logger.level
    # Each training of 400 records would say that they are few.
    logger.setLevel(logging.ERROR)
    try:
        totals = run_skab(options.skab)
    except UserError as error:
        print(f"benchmarks.strangers: {error}", file=sys.stderr)
        return 1
    finally:
        logger.setLevel(level)
    for (name, has_habits), counts in sorted(totals.items(), key=lambda item: item[0] != ("network", True)):
        label = "find_anomalies" if (name, has_habits) == ("network", True) else name
        without = "" if has_habits else ", without habits"
        print(f"{label}{without}: {counts.describe()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
