"""One short training, and what it left."""

from __future__ import annotations

import contextlib
import io
import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import formatters
from edge import changes, network, training
from edge.network import import_keras
from nodes.metrics import getFeatures
from simulators.edge import simulate

START = 1_772_409_600.0  # 2026-03-02T00:00:00Z
FEATURES = getFeatures()
# A collapsed network stays below the first, one that uses its input is above the second.
COLLAPSED_STD, LIVING_STD = 1e-3, 0.1


def quickly(patch: pytest.MonkeyPatch) -> None:
    """Trainings are small(), and draw no curves."""
    small(patch)
    for draw in ("plotMetric", "plotAccLoss"):
        patch.setattr(training, draw, lambda *given: None)


def small(patch: pytest.MonkeyPatch) -> None:
    """Networks have one layer, and what they would miss is tried a few times only: a quarter of the time."""
    patch.setattr(network, "UNITS", (16,))
    # To compile nine steps in a row takes longer than all steps here.
    patch.setattr(network, "MANY_STEPS", 10**6)
    patch.setattr(changes, "TRIES", 4)


class Trained:
    """What the training of train_in() left in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.plots = folder / "plots"
        self.folder = folder / "model"
        self.model_file = self.folder / "edge.h5"
        self.printed = (folder / "printed").read_text()
        self.optimizer = json.loads((folder / "optimizer.json").read_text())
        self.frame = records()

    @cached_property
    def model(self) -> Any:
        """The Keras model; no test changes it."""
        return import_keras().models.load_model(self.model_file, compile=False)

    def sequences(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Normalised inputs (3, 12) and target (12,) of every four records without a missing value."""
        values = self.frame[FEATURES].to_numpy()
        low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
        values = (values - low) / (high - low)
        runs = [values[i : i + 4] for i in range(len(values) - 3)]
        return [(run[:3], run[3]) for run in runs if np.isfinite(run).all()]


def records() -> pd.DataFrame:
    """Six hours of ordinary life."""
    samples = simulate(5, START, 360 * 60)
    frame = pd.DataFrame(list(formatters.format_records(formatters.slot_records(samples, 15.0))))
    return frame.set_index(pd.DatetimeIndex(pd.to_datetime(frame.pop("time"), utc=True)))


def train_in(folder: Path) -> None:
    """Train on records(); what Trained reads is in `folder` then."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        # The plots go to plots/ of the working directory.
        patch.chdir(folder)
        small(patch)
        model = training.train(records(), 4, 12, 2, 0.1, 0, str(folder / "model" / "edge.h5"))
    (folder / "printed").write_text(printed.getvalue())
    (folder / "optimizer.json").write_text(json.dumps(model.optimizer.get_config(), default=float))


def spread(model: Any, seed: int = 3) -> np.ndarray:
    """Standard deviation of each predicted feature over random inputs."""
    noise = np.random.default_rng(seed).random((128, 3, 12), dtype=np.float32)
    return np.std(np.asarray(model(noise)), axis=0)


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder, by their names."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}
