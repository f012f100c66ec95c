"""Pictures of verdicts: one of consecutive records, and one of each alert.

matplotlib is imported where something is drawn: test mode needs it only for --plot and --plot_dir.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from common.alerts import ALERT, ANOMALY, UNKNOWN
from common.files import UserError, replace_file
from edge.bundle import Bundle
from edge.detector import Verdict
from edge.incidents import Alert
from edge.levels import expected_levels
from edge.scales import draw_scales, label_times, use_decades
from edge.scores import physical
from nodes.metrics import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

# A threshold this many times above all RMSEs is not drawn, or the RMSEs would be one flat line.
FAR_ABOVE = 1000.0
# A line of many records is drawn from so many parts of them: an axis is half as many pixels wide.
DRAWN_PARTS = 1200
# Footnotes of an alert's picture.
_DOT_INSIDE = "A dot inside the allowed band: the level changed too fast, or has lasted too long."
_NO_CAUSE = (
    "Unknown cause: no single metric is far enough from what was expected, but all of them together are."
)
# Unit of a level -> the unit in which it is drawn instead, and the divisor that converts to it.
_UNITS = {"B/s": ("kB/s", 1e3)}


def check_picture(filename: str | Path) -> None:
    """Raise UserError if a picture cannot have this name, and ModuleNotFoundError without matplotlib."""
    import matplotlib  # noqa: F401

    if Path(filename).suffix != ".png":
        raise UserError(f"{filename}: a picture's name must end in .png")


def plot_detection(
    bundle: Bundle,
    thresholds: dict[str, float],
    verdicts: Sequence[Verdict],
    attacks: Sequence[tuple[int, int]],
    filename: str | Path,
    title: str,
) -> None:
    """Write one picture of consecutive records: each metric, its RMSE with the threshold, attacks and marks.

    Each metric's actual level is drawn with the expected one and the band that the thresholds allow.
    Raises UserError if the file cannot be written.
    """
    figure = draw_detection(bundle, thresholds, verdicts, attacks, title)
    _save(figure, filename)


def draw_detection(
    bundle: Bundle,
    thresholds: dict[str, float],
    verdicts: Sequence[Verdict],
    attacks: Sequence[tuple[int, int]],
    title: str,
) -> Figure:
    """The picture of plot_detection: level and RMSE of a metric in each row; overall RMSE last."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 15))
    # A layout engine would draw everything twice to find these numbers.
    figure.subplots_adjust(left=0.07, right=0.985, bottom=0.04, top=0.94, hspace=0.15, wspace=0.16)
    axes = figure.subplots(len(bundle.metrics.threshold_keys), 2)
    axes[-1, 0].remove()
    verdicts = _with_gaps(verdicts)
    times = _times(verdicts)
    spans = np.array(attacks, dtype="datetime64[ns]").reshape(-1, 2)
    _let_show(figure.axes, np.concatenate([times, spans.ravel()]), 0.05)
    levels = _levels(bundle, thresholds, verdicts)
    keys = bundle.metrics.threshold_keys
    marks = _marks(verdicts, keys)
    rmse = np.array([[verdict.rmse[name] for name in keys] for verdict in verdicts]).reshape(-1, len(keys))
    for row, (name, key) in enumerate(keys.items()):
        if name in levels:
            _draw_level(axes[row, 0], bundle.metrics[name], times, *levels[name], marks[name])
        _draw_rmse(axes[row, 1], name, times, rmse[:, row], thresholds[key], marks[name])
    for axis in figure.axes:
        for start, end in spans:
            axis.axvspan(start, end, color="tab:red", alpha=0.12, linewidth=0, label="attack")
        axis.spines[["top", "right"]].set_visible(False)
    # The last level axis was removed, so the one above it has the labels of its column.
    lowest = axes[-2, 0], axes[-1, 1]
    label_times(*lowest)
    draw_scales(figure, figure.axes, lowest)
    add_legend(figure)
    figure.suptitle(title, x=0.07, y=0.99, ha="left", va="top", wrap=True)
    return figure


def _with_gaps(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts, with an empty one wherever records are missing, so that no line is drawn across."""
    filled = list(verdicts)
    steps = np.diff([verdict.time for verdict in verdicts])
    for index in np.flatnonzero(steps > 1.5 * np.median(steps))[::-1] if len(steps) else ():
        before = verdicts[index]
        nothing = np.full(before.actual.shape, np.nan)
        rmse = dict.fromkeys(before.rmse, np.nan)
        empty = Verdict(before.time + 1, UNKNOWN, (), (), rmse, {}, actual=nothing, predicted=nothing)
        filled.insert(index + 1, empty)
    return filled


def _let_show(axes: Iterable[Axes], moments: np.ndarray, margin: float) -> None:
    """Let the axes show all these moments (n,), with a margin that is a share of their span."""
    from matplotlib.dates import date2num

    first, last = date2num(moments.min()), date2num(moments.max())
    # If there is one moment only, a minute.
    room = margin * ((last - first) or 1 / 1440)
    for axis in axes:
        # If each axis found its limits by itself, all would do so for each thing that is drawn.
        axis.xaxis_date()
        axis.set_xlim(first - room, last + room)


def _times(verdicts: Sequence[Verdict]) -> np.ndarray:
    return np.array([verdict.time for verdict in verdicts]).astype("datetime64[ns]")


def _levels(
    bundle: Bundle, thresholds: dict[str, float], verdicts: Sequence[Verdict]
) -> dict[str, tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]]:
    """Metric -> its level in physical units: the actual one (n,), and the result of expected_levels."""
    actual = physical(bundle, np.array([verdict.actual for verdict in verdicts]))
    expected = expected_levels(bundle, thresholds, np.array([verdict.predicted for verdict in verdicts]))
    return {
        name: (actual[:, bundle.features.index(metric.level)], expected[name])
        for name, metric in bundle.metrics.items()
    }


def _marks(verdicts: Sequence[Verdict], names: Iterable[str]) -> dict[str, dict[str, np.ndarray]]:
    """Name -> whether records (n,) are anomalies, or alerts, because of it; `overall`: of no metric."""
    marks = {name: {word: np.zeros(len(verdicts), dtype=bool) for word in (ANOMALY, ALERT)} for name in names}
    for index, verdict in enumerate(verdicts):
        if verdict.is_anomaly:
            for name in filter(verdict.blames, marks):
                marks[name][verdict.status][index] = True
    return marks


def _draw_level(
    axis: Axes,
    metric: Metric,
    times: np.ndarray,
    level: np.ndarray,
    expected: tuple[np.ndarray, np.ndarray, np.ndarray],
    marks: dict[str, np.ndarray],
) -> None:
    unit, divisor = level_unit(metric)
    actual, low, middle, high = (values / divisor for values in (level, *expected))
    limits = _level_limits(np.concatenate([actual, middle]), low, high)
    # Nothing is drawn far outside the picture, for example a band without an end.
    low, high = (np.clip(bound, *limits) for bound in (low, high))
    drawn = _drawn(low, high)
    band = times[drawn], low[drawn], high[drawn]
    axis.fill_between(*band, color="tab:green", alpha=0.18, linewidth=0, label="allowed")
    drawn = _drawn(middle)
    axis.plot(times[drawn], middle[drawn], color="tab:blue", linewidth=1.0, label="expected")
    drawn = _drawn(actual)
    axis.plot(times[drawn], actual[drawn], color="0.25", linewidth=0.7, label="actual")
    _mark(axis, times, actual, marks)
    axis.set_ylim(*limits)
    axis.set_ylabel(f"{metric.name} [{unit}]")


def _drawn(*lines: np.ndarray) -> np.ndarray:
    """Places of the records that make lines (n,) look as all records do: of each of DRAWN_PARTS parts, the
    lowest, the highest and a missing one.
    """
    count = len(lines[0])
    size = -(-count // DRAWN_PARTS)
    if size <= 3:
        return np.arange(count)
    places = [np.array([0, count - 1])]
    for line in lines:
        parts = np.pad(line, (0, -count % size), mode="edge").reshape(-1, size)
        is_missing = np.isnan(parts)
        lowest = np.where(is_missing, np.inf, parts).argmin(axis=1)
        highest = np.where(is_missing, -np.inf, parts).argmax(axis=1)
        begins = np.arange(0, parts.size, size)
        places += [begins + lowest, begins + highest, begins + is_missing.argmax(axis=1)]
    return np.unique(np.minimum(np.concatenate(places), count - 1))


def level_unit(metric: Metric) -> tuple[str, float]:
    """The unit in which the level of a metric is drawn, and the divisor that converts its column to it."""
    return _UNITS.get(metric.unit, (metric.unit, 1.0))


def _level_limits(shown: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[float, float]:
    """Limits of a level's axis: all of `shown`, plus the band around it, up to the same height again."""
    shown, low, high = (values[~np.isnan(values)] for values in (shown, low, high))
    if not len(shown):
        return 0.0, 1.0
    bottom, top = shown.min(), shown.max()
    room = (top - bottom) or abs(top) or 1.0
    bottom = min(bottom, max(low.min(initial=bottom), bottom - room))
    top = max(top, min(high.max(initial=top), top + room))
    margin = 0.05 * ((top - bottom) or room)
    return float(bottom - margin), float(top + margin)


def _draw_rmse(
    axis: Axes,
    name: str,
    times: np.ndarray,
    rmse: np.ndarray,
    threshold: float,
    marks: dict[str, np.ndarray],
) -> None:
    # Zero has no logarithm.
    rmse = np.where(rmse > 0, rmse, np.nan)
    drawn = _drawn(rmse)
    axis.plot(times[drawn], rmse[drawn], color="tab:purple", linewidth=0.8, label="window RMSE")
    if 0 < threshold <= FAR_ABOVE * np.max(rmse, initial=0.0, where=np.isfinite(rmse)):
        axis.axhline(threshold, color="black", linestyle="--", linewidth=0.8, label="threshold")
    _mark(axis, times, rmse, marks)
    use_decades(axis)
    axis.set_ylabel(f"{name} RMSE")


def _mark(axis: Axes, times: np.ndarray, level: np.ndarray, marks: dict[str, np.ndarray]) -> None:
    for (label, marked), color in zip(marks.items(), ("gold", "red"), strict=True):
        if marked.any():
            axis.scatter(times[marked], level[marked], s=9, color=color, zorder=3, label=label)


def add_legend(figure: Figure, top: float = 0.972) -> None:
    """One legend of everything that is drawn on any axis, at the right, with its upper end at `top`."""
    handles = {}
    for axis in figure.axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="upper right",
        bbox_to_anchor=(1.0, top),
        ncols=len(handles),
        frameon=False,
    )


def make_plot_dir(folder: str | Path) -> None:
    """Create the folder of the alerts' pictures. Raises UserError if no picture can be written to it."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"{folder}: pictures cannot be written there ({error.strerror or error}); name another --plot_dir"
        ) from None


def plot_alert(
    bundle: Bundle,
    thresholds: dict[str, float],
    alert: Alert,
    verdicts: Iterable[Verdict],
    folder: str | Path,
) -> Path:
    """Write the picture of an alert into the folder; returns its path.

    verdicts: consecutive, from before the alert to its end or later. Raises UserError if the file cannot be
    written.
    """
    path = Path(folder) / alert.filename
    records = alert.records_of(verdicts)
    if not records:
        raise UserError(f"{path}: cannot be drawn; polls.jsonl in --state_dir has no record of this alert")
    figure = draw_alert(bundle, thresholds, alert, records)
    _save(figure, path)
    return path


def _save(figure: Figure, filename: str | Path) -> None:
    # A tenth larger than by default, for less CPU: the host may be the watched one.
    replace_file(filename, lambda path: figure.savefig(path, dpi=110, pil_kwargs={"compress_level": 1}))


def draw_alert(
    bundle: Bundle, thresholds: dict[str, float], alert: Alert, records: Sequence[Verdict]
) -> Figure:
    """The picture of plot_alert: the level of each metric, the causes in red, the alert's time shaded.

    Records before the alert have no dots, even those of an earlier alert: only this alert is marked.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 9))
    figure.subplots_adjust(left=0.075, right=0.975, bottom=0.095, top=0.89, hspace=0.14, wspace=0.17)
    axes = figure.subplots(-(-len(bundle.metrics) // 2), 2)
    verdicts = _with_gaps(records)
    times = _times(verdicts)
    is_during = np.array([verdict.time >= alert.first_anomaly for verdict in verdicts])
    # The first records of a long alert are not drawn.
    span = np.array([max(alert.first_anomaly, verdicts[0].time), alert.end]).astype("datetime64[ns]")
    is_dot_inside = False
    used = axes.flat[: len(bundle.metrics)]
    for unused in axes.flat[len(used) :]:
        unused.remove()
    _let_show(used, np.concatenate([times, span]), 0.01)
    levels = _levels(bundle, thresholds, verdicts)
    marked_by = _marks(verdicts, bundle.metrics)
    for axis, (name, metric) in zip(used, bundle.metrics.items(), strict=True):
        level, expected = levels[name]
        marks = {word: marked & is_during for word, marked in marked_by[name].items()}
        is_cause = name in alert.causes
        # Red over the green band is brown, so it is just strong enough to show the time.
        label = "this alert" if is_cause or not alert.causes else "_"
        axis.axvspan(*span, color="tab:red", alpha=0.15 if is_cause else 0.05, linewidth=0, label=label)
        _draw_level(axis, metric, times, level, expected, marks)
        axis.spines[["top", "right"]].set_visible(False)
        if is_cause:
            axis.yaxis.label.set(color="red", weight="bold")
        is_inside = (marks["anomaly"] | marks["alert"]) & (expected[0] < level) & (level < expected[2])
        is_dot_inside |= bool(is_inside.any())
    # The lowest axis of each column.
    label_times(*used[-2:])
    draw_scales(figure, used, used[-2:])
    add_legend(figure, 0.95)
    figure.suptitle(alert.title, x=0.075, y=0.985, ha="left", va="top", wrap=True)
    notes = [_NO_CAUSE] * (not alert.causes) + [_DOT_INSIDE] * is_dot_inside
    figure.text(0.075, 0.012, "\n".join(notes), fontsize="small", color="0.3")
    return figure


class Drawing(NamedTuple):
    """Alerts of one node that have ended, and all that their pictures need.

    read_verdicts: gives the verdicts on the node's records. folder: the pictures are written there.
    """

    alerts: Sequence[Alert]
    read_verdicts: Callable[[], Iterable[Verdict]]
    bundle: Bundle
    thresholds: dict[str, float]
    folder: Path


def draw_alerts(drawings: Sequence[Drawing]) -> None:
    """Start one process that draws a picture of each alert.

    A picture takes about a second of CPU. At the lowest priority this counts as `nice` time, not as the user
    time that is watched; otherwise each alert on the watched host itself would cause one more anomaly. Polls
    do not wait for it.
    """
    import multiprocessing

    # A forked process already has everything that it draws.
    process = multiprocessing.get_context("fork").Process(target=_draw_calmly, args=(drawings,))
    try:
        process.start()
    except OSError as error:
        logger.error("no picture is drawn, since no process for it can be started (%s)", error.strerror)


def _draw_calmly(drawings: Sequence[Drawing]) -> None:
    os.nice(19)
    # Ctrl-C ends test mode; the picture is still finished.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for alerts, read_verdicts, bundle, thresholds, folder in drawings:
        try:
            # What is in its way is told where the picture is written.
            with contextlib.suppress(OSError):
                folder.mkdir(exist_ok=True)
            verdicts = list(read_verdicts())
            for alert in alerts:
                path = plot_alert(bundle, thresholds, alert, verdicts, folder)
                logger.info("%s: picture of an alert written", path)
        except (OSError, UserError) as error:
            logger.error("%s", error)


_LABELS = {"loss": "loss (weighted mean squared error)", "accuracy": "accuracy (share within 5 % of range)"}


def plotAccLoss(history: Any, plots_prefix: str) -> None:
    """Accuracy and loss per epoch, training and validation: `acc_loss_plot` as .eps, .png and .tiff.

    history: what Keras's fit() returns. plots_prefix: folder with a trailing slash, or a file prefix.
    """
    _plot_history(history, ["loss", "accuracy"], f"{plots_prefix}acc_loss_plot", ("eps", "png", "tiff"))


def plotMetric(history: Any, metric: str, plots_prefix: str) -> None:
    """One metric per epoch, training and validation: `<metric>_plot` as .eps and .png."""
    _plot_history(history, [metric], f"{plots_prefix}{metric}_plot", ("eps", "png"))


def _plot_history(history: Any, metrics: list[str], stem: str, endings: Sequence[str]) -> None:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7, 3.2 * len(metrics)), layout="constrained")
    axes = figure.subplots(len(metrics), 1, sharex=True, squeeze=False)[:, 0]
    for axis, metric in zip(axes, metrics, strict=True):
        values = history.history[metric]
        epochs = range(1, len(values) + 1)
        axis.plot(epochs, values, color="tab:blue", marker=".", label="training")
        if f"val_{metric}" in history.history:
            held_out = history.history[f"val_{metric}"]
            axis.plot(epochs, held_out, color="tab:orange", marker=".", label="validation")
        axis.set_ylabel(_LABELS.get(metric, metric))
        if metric == "loss":
            axis.set_yscale("log")
        axis.grid(color="0.9")
        axis.spines[["top", "right"]].set_visible(False)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].legend(frameon=False)
    axes[-1].set_xlabel("epoch")
    for ending in endings:
        replace_file(f"{stem}.{ending}", lambda path: figure.savefig(path, dpi=150))
