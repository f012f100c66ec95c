"""The picture of a collected dataset: the level of each metric over time, its gaps, and what was left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.files import replace_file
from common.times import format_time
from edge.pictures import add_legend, level_unit
from edge.scales import label_times
from nodes.metrics import Metric
from nodes.node import Node

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Height of a metric's row, and of title, legend and labels of times together, in inches.
ROW_INCHES, EDGE_INCHES = 1.35, 1.4


def plot_collected(
    columns: Mapping[str, np.ndarray],
    node: Node,
    left_out: Sequence[tuple[int, int]],
    interval_seconds: float,
    filename: str | Path,
    dataset: str,
) -> None:
    """Write the picture of draw_collected. Raises UserError if the file cannot be written."""
    figure = draw_collected(columns, node, left_out, interval_seconds, dataset)
    replace_file(filename, lambda path: figure.savefig(path, dpi=110))


def draw_collected(
    columns: Mapping[str, np.ndarray],
    node: Node,
    left_out: Sequence[tuple[int, int]],
    interval_seconds: float,
    dataset: str,
) -> Figure:
    """A row for each metric. Slots without a value are a gap, apart from those that were left out.

    columns: of a dataset with a record or more, as read_columns reads them. left_out: windows (start, end in
    ns), also outside the dataset. dataset: its name, for the title.
    """
    from matplotlib.figure import Figure

    times = columns["time"]
    end = int(times[-1]) + int(interval_seconds * 1e9)
    windows = sorted((max(start, int(times[0])), min(until, end)) for start, until in left_out)
    windows = [(start, until) for start, until in windows if start < until]
    metrics = node.metrics
    height = ROW_INCHES * len(metrics) + EDGE_INCHES
    figure = Figure(figsize=(13, height))
    # The same room at the edges however many metrics there are.
    figure.subplots_adjust(left=0.06, right=0.985, bottom=0.6 / height, top=1 - 0.75 / height, hspace=0.35)
    axes = figure.subplots(len(metrics), 1, sharex=True, squeeze=False)[:, 0]
    for axis, metric in zip(axes, metrics.values(), strict=True):
        is_known = ~np.isnan(columns[metric.level])
        _draw_metric(axis, metric, times[is_known], columns[metric.level][is_known], interval_seconds)
        gaps = _outside(_gaps(times[is_known], int(times[0]), end, interval_seconds), windows)
        _shade(axis, gaps, "0.85", "no value")
        _shade(axis, windows, "moccasin", "left out")
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0.01)
    label_times(axes[-1])
    # It would name the last day alone, and the title has both.
    axes[-1].xaxis.get_offset_text().set_visible(False)
    add_legend(figure, 1 - 0.3 / height)
    span = f"{format_time(times[0])} to {format_time(times[-1])}"
    title = f"{dataset}: {len(times)} records, {span}"
    figure.suptitle(title, x=0.06, y=1 - 0.18 / height, ha="left", va="top", wrap=True)
    return figure


def _draw_metric(
    axis: Axes, metric: Metric, times: np.ndarray, level: np.ndarray, interval_seconds: float
) -> None:
    unit, divisor = level_unit(metric)
    # No line is drawn across a gap.
    breaks = np.flatnonzero(np.diff(times) > 1.5 * interval_seconds * 1e9) + 1
    shown = np.insert(level / divisor, breaks, np.nan)
    at = np.insert(times, breaks, times[breaks] - 1).astype("datetime64[ns]")
    axis.plot(at, shown, color="0.25", linewidth=0.7, label="level")
    # A long name would not fit beside its row.
    axis.set_title(f"{metric.name} [{unit}]" if unit else metric.name, loc="left", fontsize="medium", pad=2)


def _gaps(times: np.ndarray, start: int, end: int, interval_seconds: float) -> list[tuple[int, int]]:
    """Where values at `times` (n,) are more than an interval apart, from `start` to `end` (ns)."""
    interval_ns = int(interval_seconds * 1e9)
    begins, ends = np.append(start, times + interval_ns), np.append(times, end)
    is_gap = ends - begins > interval_ns / 2
    return list(zip(begins[is_gap].tolist(), ends[is_gap].tolist(), strict=True))


def _outside(spans: Sequence[tuple[int, int]], windows: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The spans without the parts that are in a window; both are in order of time."""
    for start, end in windows:
        spans = [
            part
            for begin, until in spans
            for part in ((begin, min(until, start)), (max(begin, end), until))
            if part[0] < part[1]
        ]
    return list(spans)


def _shade(axis: Axes, spans: Sequence[tuple[int, int]], color: str, label: str) -> None:
    for start, end in np.array(spans, dtype="datetime64[ns]").reshape(-1, 2):
        axis.axvspan(start, end, color=color, linewidth=0, label=label)
