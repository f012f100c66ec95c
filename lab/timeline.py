"""One picture of a whole lab run: what was done to the edge, and what test mode's verdicts were."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.alerts import ALERT, UNKNOWN
from common.files import replace_file
from edge.detector import Verdict
from edge.pictures import level_unit
from lab.attacks import Attacked
from nodes.metrics import METRICS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Status of a metric in a record -> its colour. Later ones are drawn over earlier ones.
_COLOURS = {"normal": "#e8f3e8", "unknown": "0.62", "anomaly": "gold", "alert": "red"}
# The last row is for all metrics together, when no single one is the cause.
_ROWS = tuple(METRICS.threshold_keys)
# How attacks are shaded behind the levels: on this metric, on others.
_ON_THIS, _ON_OTHERS = ("tab:red", 0.25), ("0.5", 0.12)
# Share of the height of a level's axis; with less between them, the labels of two ticks touch.
_TICK_DISTANCE = 0.3
# Steps between ticks, times a power of ten.
_STEPS = [1, 2, 5, 10]


def draw(
    frame: pd.DataFrame, verdicts: Sequence[Verdict], attacked: Sequence[Attacked], filename: Path
) -> None:
    """Write the picture of draw_run."""
    figure = draw_run(frame, verdicts, attacked)
    replace_file(filename, lambda path: figure.savefig(path, dpi=100))


def draw_run(frame: pd.DataFrame, verdicts: Sequence[Verdict], attacked: Sequence[Attacked]) -> Figure:
    """Verdicts for each metric, the true causes framed, and below them the level of each metric.

    frame: the resampled records of the run. The picture begins with the first of them; earlier verdicts and
    attacks are left out.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    times = frame.index.as_unit("ns").asi8 / 1e9
    interval = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    # Without records, the picture begins with the first attack.
    origin = float(times[0]) if len(times) else attacked[0].start
    left = -interval / 2 / 60
    shown = [verdict for verdict in verdicts if _minute(verdict, origin) >= left]
    attacked = [one for one in attacked if one.end > origin]
    ends = [*times[-1:], *(verdict.time / 1e9 for verdict in shown[-1:]), *(one.end for one in attacked)]
    right = (max(ends) + interval / 2 - origin) / 60
    figure = Figure(figsize=(16, 13))
    figure.subplots_adjust(left=0.11, right=0.95, bottom=0.045, top=0.85, hspace=0.12)
    axes = figure.subplots(
        len(METRICS) + 1, 1, sharex=True, gridspec_kw={"height_ratios": [5] + [1] * len(METRICS)}
    )
    _draw_verdicts(axes[0], shown, origin, interval)
    _draw_truth(axes[0], attacked, origin)
    for axis, name in zip(axes[1:], METRICS, strict=True):
        for one in attacked:
            colour, alpha = _ON_THIS if name in one.causes else _ON_OTHERS
            axis.axvspan(*_span(one, origin), color=colour, alpha=alpha, linewidth=0)
        _draw_level(axis, name, (times - origin) / 60, frame[METRICS[name].level].to_numpy(dtype=float))
    axes[0].set_xlim(left, right)
    axes[-1].xaxis.set_major_locator(MaxNLocator(12, steps=_STEPS))
    axes[-1].set_xlabel(f"minutes since {datetime.fromtimestamp(origin, UTC):%Y-%m-%d %H:%M:%S} UTC")
    _add_legends(figure)
    return figure


def _minute(verdict: Verdict, origin: float) -> float:
    return (verdict.time / 1e9 - origin) / 60


def _span(one: Attacked, origin: float) -> tuple[float, float]:
    """From minute to minute, as far as it is in the picture."""
    return max(one.start - origin, 0.0) / 60, (one.end - origin) / 60


# --- verdicts ------------------------------------------------------------------------------------


def _word(verdict: Verdict, row: str) -> str:
    """The status of a metric, or of `overall`, which has one only if the verdict names no metric."""
    named = [name for name in (*verdict.causes, *verdict.unknown) if name in METRICS]
    if verdict.blames(row):
        return "alert" if verdict.status == ALERT else "anomaly"
    if row in verdict.unknown or (row == "overall" and verdict.status == UNKNOWN and not named):
        return "unknown"
    return "normal"


def _draw_verdicts(axis: Axes, verdicts: Sequence[Verdict], origin: float, interval: float) -> None:
    # Where there is no verdict, all is unknown.
    axis.set_facecolor(_COLOURS["unknown"])
    slots = _slots([_minute(verdict, origin) for verdict in verdicts], interval / 60)
    for row, name in enumerate(_ROWS):
        words = [_word(verdict, name) for verdict in verdicts]
        for word, colour in _COLOURS.items():
            bars = _joined([slot for slot, status in zip(slots, words, strict=True) if status == word])
            # A record of a long run is narrower than a pixel: its outline makes it visible.
            outline = 1.0 if word in ("anomaly", "alert") else 0.0
            if bars:
                axis.broken_barh(bars, (row, 1), color=colour, linewidth=outline, label=f"{name} {word}")
    for row in range(1, len(_ROWS)):
        axis.axhline(row, color="white", linewidth=3.0 if _ROWS[row] == "overall" else 0.8)
    axis.set_ylim(len(_ROWS), 0)
    axis.set_yticks(np.arange(len(_ROWS)) + 0.5, [*METRICS, "overall\n(no single cause)"])
    axis.tick_params(axis="y", length=0)
    axis.spines[:].set_visible(False)


def _slots(minutes: Sequence[float], interval: float) -> list[tuple[float, float]]:
    """Start and end of each record's slot: half way to its neighbours, unless they are missing."""
    times = np.array(minutes)
    is_next = np.diff(times) < 1.5 * interval
    middles = (times[:-1] + times[1:]) / 2
    starts, ends = times - interval / 2, times + interval / 2
    starts[1:][is_next] = ends[:-1][is_next] = middles[is_next]
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def _joined(slots: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Start and length of bars; slots without a gap between them are one bar."""
    bars: list[tuple[float, float]] = []
    for start, end in slots:
        if bars and sum(bars[-1]) >= start - 1e-9:
            start = bars.pop()[0]
        bars.append((start, end - start))
    return bars


def _draw_truth(axis: Axes, attacked: Sequence[Attacked], origin: float) -> None:
    from matplotlib.patches import Rectangle

    for one in attacked:
        start, end = _span(one, origin)
        for name in one.causes:
            place = (start, _ROWS.index(name))
            axis.add_patch(
                Rectangle(place, end - start, 1, fill=False, edgecolor="black", linewidth=1.6, zorder=3)
            )
        axis.text(start, -0.15, one.name, rotation=35, ha="left", va="bottom", rotation_mode="anchor")


# --- levels --------------------------------------------------------------------------------------


def _draw_level(axis: Axes, name: str, minutes: np.ndarray, level: np.ndarray) -> None:
    from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

    unit, divisor = level_unit(METRICS[name])
    level = level / divisor
    axis.plot(minutes, level, color="0.25", linewidth=0.8)
    axis.set_ylabel(f"{name}\n[{unit}]", rotation=0, ha="right", va="center")
    axis.spines[["top", "right"]].set_visible(False)
    axis.yaxis.set_label_coords(-0.048, 0.5)
    axis.yaxis.set_major_locator(MaxNLocator(3, steps=_STEPS))
    known = level[np.isfinite(level)]
    threshold = max(float(np.median(known)), 1.0) if len(known) else 1.0
    if unit != "%" and known.max(initial=0.0) > 10 * threshold:
        # Logarithmic above ordinary life, so that it does not lie flat below the attacks.
        axis.set_yscale("symlog", linthresh=threshold)
        ticks = _ticks(axis, threshold, float(known.max()))
        axis.yaxis.set_major_locator(FixedLocator(ticks))
        axis.yaxis.set_major_formatter(FixedFormatter([f"{tick:,.0f}" for tick in ticks]))
        axis.yaxis.set_minor_locator(NullLocator())
    axis.set_ylim(bottom=0)


def _ticks(axis: Axes, threshold: float, top: float) -> list[float]:
    """Zero, and powers of ten above the threshold, the highest first, as far as there is room for labels."""
    height = axis.yaxis.get_transform().transform
    ticks = [0.0]
    ceiling = np.inf
    for exponent in range(int(np.log10(top)), int(np.log10(threshold)), -1):
        place = float(height(10.0**exponent) / height(top))
        if _TICK_DISTANCE <= place <= ceiling - _TICK_DISTANCE:
            ticks.append(10.0**exponent)
            ceiling = place
    return ticks


# --- legends -------------------------------------------------------------------------------------


def _add_legends(figure: Figure) -> None:
    from matplotlib.patches import Patch

    words = dict.fromkeys(_COLOURS) | {"unknown": "unknown, or no verdict"}
    drawn = [Patch(color=colour, label=words[word] or word) for word, colour in _COLOURS.items()]
    drawn.append(Patch(fill=False, edgecolor="black", linewidth=1.6, label="true cause"))
    done = [
        Patch(color=colour, alpha=alpha, linewidth=0, label=label)
        for (colour, alpha), label in ((_ON_THIS, "attack on this metric"), (_ON_OTHERS, "attack on others"))
    ]
    figure.text(0.11, 0.985, "Above: test mode's verdicts on each metric", va="top", weight="bold")
    figure.text(0.11, 0.962, "Below: the metrics themselves", va="top", weight="bold")
    for handles, top in ((drawn, 0.993), (done, 0.97)):
        figure.legend(
            handles=handles, loc="upper left", bbox_to_anchor=(0.36, top), ncols=len(handles), frameon=False
        )
