"""One picture of a whole run of the lab: what was done to the edge, and what test mode said of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from detector import ALERT, LEVELS, Verdict
from lab.attacks import Attacked
from pictures import level_unit
from utils import METRICS, replace_file

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

# What is said of one metric in one record, and how that is drawn.
_WORDS = ("normal", "unknown", "anomaly", "alert")
_COLOURS = ("#e8f3e8", "0.62", "gold", "red")
_MARGIN_RECORDS = 60


def draw(
    frame: pd.DataFrame, verdicts: Sequence[Verdict], attacked: Sequence[Attacked], filename: Path
) -> None:
    """Write the picture: verdicts per metric, the true causes framed; below it the level of each metric.

    frame: the resampled records of the run. Ordinary life before the first attack is cut short.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    interval = float(np.median(np.diff(frame.index.as_unit("ns").asi8))) / 1e9
    origin = attacked[0].start - _MARGIN_RECORDS * interval
    frame = frame[frame.index.as_unit("ns").asi8 >= origin * 1e9]
    minutes = (frame.index.as_unit("ns").asi8 / 1e9 - origin) / 60
    figure = Figure(figsize=(16, 13))
    figure.subplots_adjust(left=0.1, right=0.99, bottom=0.04, top=0.88, hspace=0.12)
    axes = figure.subplots(
        len(METRICS) + 1, 1, sharex=True, gridspec_kw={"height_ratios": [4.5] + [1] * len(METRICS)}
    )
    _draw_verdicts(axes[0], verdicts, attacked, origin, interval)
    for axis, name in zip(axes[1:], METRICS, strict=True):
        unit, divisor = level_unit(name)
        level = frame[LEVELS[name]].to_numpy() / divisor
        axis.plot(minutes, level, color="0.25", linewidth=0.8)
        if unit != "%":
            # Logarithmic above ordinary life, so that it does not lie flat below the attacks.
            axis.set_yscale("symlog", linthresh=max(float(np.nanmedian(level)), 1.0))
            axis.yaxis.set_minor_locator(NullLocator())
        axis.set_ylim(bottom=0)
        axis.set_ylabel(f"{name}\n[{unit}]", rotation=0, ha="right", va="center")
        axis.spines[["top", "right"]].set_visible(False)
        for one in attacked:
            is_cause = name in one.causes
            colour, alpha = ("tab:red", 0.25) if is_cause else ("0.5", 0.12)
            axis.axvspan(*_span(one, origin), color=colour, alpha=alpha, linewidth=0)
    axes[0].set_xlim(0, minutes[-1])
    axes[-1].set_xlabel("minutes")
    replace_file(filename, lambda path: figure.savefig(path, dpi=100))


def _draw_verdicts(
    axis: Axes, verdicts: Sequence[Verdict], attacked: Sequence[Attacked], origin: float, interval: float
) -> None:
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch, Rectangle

    metrics = list(METRICS)
    shown = [verdict for verdict in verdicts if verdict.time >= origin * 1e9]
    count = round((shown[-1].time / 1e9 - origin) / interval) + 1
    cells = np.full((len(metrics), count), np.nan)
    for verdict in shown:
        column = min(int((verdict.time / 1e9 - origin) / interval), count - 1)
        for row, name in enumerate(metrics):
            word = "unknown" if name in verdict.unknown else "normal"
            if name in verdict.causes:
                word = "alert" if verdict.status == ALERT else "anomaly"
            cells[row, column] = _WORDS.index(word)
    edges = np.arange(count + 1) * interval / 60
    axis.pcolormesh(
        edges, np.arange(len(metrics) + 1), cells, cmap=ListedColormap(_COLOURS), vmin=-0.5, vmax=3.5
    )
    for one in attacked:
        start, end = _span(one, origin)
        for name in one.causes:
            place = (start, metrics.index(name))
            axis.add_patch(Rectangle(place, end - start, 1, fill=False, edgecolor="black", linewidth=1.6))
        axis.text(start, -0.15, one.name, rotation=35, ha="left", va="bottom", rotation_mode="anchor")
    axis.set_ylim(len(metrics), 0)
    axis.set_yticks(np.arange(len(metrics)) + 0.5, metrics)
    axis.tick_params(axis="y", length=0)
    axis.spines[:].set_visible(False)
    patches = [Patch(color=colour, label=word) for word, colour in zip(_WORDS, _COLOURS, strict=True)]
    patches.append(Patch(fill=False, edgecolor="black", label="truly attacked"))
    axis.legend(handles=patches, loc="upper left", bbox_to_anchor=(0, 1.4), ncols=5, frameon=False)


def _span(one: Attacked, origin: float) -> tuple[float, float]:
    return (one.start - origin) / 60, (one.end - origin) / 60
