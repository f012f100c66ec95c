"""The curves of a training: in the documented formats, in the right colours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from edge import pictures

LEARNT = {
    "loss": [0.9, 0.3, 0.1],
    "val_loss": [1.0, 0.5, 0.2],
    "accuracy": [0.2, 0.6, 0.9],
    "val_accuracy": [0.1, 0.5, 0.8],
}
TRAINING = (31, 119, 180)  # tab:blue
VALIDATION = (255, 127, 14)  # tab:orange


def pixels(path: Path, colour: tuple[int, int, int]) -> int:
    """How many pixels of an image have exactly this colour."""
    with Image.open(path) as image:
        return int((np.asarray(image.convert("RGB")) == colour).all(axis=2).sum())


def plot_acc_loss(history: object, prefix: str) -> None:
    pictures.plotAccLoss(history, prefix)


def plot_loss(history: object, prefix: str) -> None:
    pictures.plotMetric(history, "loss", prefix)


def plot_accuracy(history: object, prefix: str) -> None:
    pictures.plotMetric(history, "accuracy", prefix)


PLOTS = [
    (plot_acc_loss, "acc_loss_plot", ["EPS", "PNG", "TIFF"]),
    (plot_loss, "loss_plot", ["EPS", "PNG"]),
    (plot_accuracy, "accuracy_plot", ["EPS", "PNG"]),
]


@pytest.mark.parametrize(("plot", "stem", "formats"), PLOTS)
@pytest.mark.parametrize("prefix", ["plots/", "plots/run_2_"])
def test_plot_is_written_in_the_documented_formats(
    tmp_path: Path, plot: Callable[[object, str], None], stem: str, formats: list[str], prefix: str
) -> None:
    plot(SimpleNamespace(history=LEARNT), f"{tmp_path}/{prefix}")
    found = sorted((tmp_path / "plots").iterdir())
    name = f"{prefix.removeprefix('plots/')}{stem}"
    assert [path.name for path in found] == [f"{name}.{ending.lower()}" for ending in formats]
    for path, expected in zip(found, formats, strict=True):
        with Image.open(path) as image:
            assert image.format == expected
            assert min(image.size) > 200
        if expected == "EPS":
            drawn = path.read_bytes()
            assert b"0.122 0.467 0.706 setrgbcolor" in drawn
            assert b"1 0.498 0.055 setrgbcolor" in drawn
        else:
            assert pixels(path, TRAINING) > 500
            assert pixels(path, VALIDATION) > 500


def test_both_metrics_are_in_the_common_plot(tmp_path: Path) -> None:
    history = SimpleNamespace(history=LEARNT)
    for plot, _, _ in PLOTS:
        plot(history, f"{tmp_path}/")
    sizes = {}
    for name in ("acc_loss_plot", "loss_plot", "accuracy_plot"):
        with Image.open(tmp_path / f"{name}.png") as image:
            sizes[name] = image.size
    assert sizes["acc_loss_plot"][1] >= sizes["loss_plot"][1] + sizes["accuracy_plot"][1]
    assert (tmp_path / "loss_plot.png").read_bytes() != (tmp_path / "accuracy_plot.png").read_bytes()


def test_training_without_validation_is_plotted_alone(tmp_path: Path) -> None:
    pictures.plotMetric(SimpleNamespace(history={"loss": [0.9, 0.3]}), "loss", f"{tmp_path}/")
    assert pixels(tmp_path / "loss_plot.png", TRAINING) > 500
    assert pixels(tmp_path / "loss_plot.png", VALIDATION) == 0
