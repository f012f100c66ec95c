"""The picture of all detectors compared. matplotlib is imported where something is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ports.pictures import add_title, write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# In inches: the room of a detector's bars, and what stands above and below all bars.
BARS, ABOVE_BARS, BELOW_BARS = 0.95, 1.25, 0.55
# The room of a detector in the table of sizes, and what stands above and below the table.
ROW, ABOVE_TABLE, BELOW_TABLE = 0.32, 1.3, 0.15
SIDES = {"left": 0.115, "right": 0.985}


def plot_comparison(comparison: dict[str, Any], filename: str | Path) -> None:
    """Write one picture of how all detectors did. Raises UserError if the file cannot be written.

    comparison["detectors"]: name -> `anomaly_recall` and `alert_recall` (0 to 1) and `false_alerts` (per port
    and month), each None if unknown; `iterative`, the same three with a model trained each night;
    `fit_seconds` and `score_seconds` per model. Perhaps `sizes`: for each size of anomaly its `kind` and
    `size`, how many are `known`, and the `alert_recall` of the models that are trained each night.
    """
    write_figure(draw_comparison(comparison), filename)


def draw_comparison(comparison: dict[str, Any]) -> Figure:
    """The picture of plot_comparison: a row for each detector, the one that alerts on most anomalies on top.

    The best number of each kind of bar is bold. A table shows the sizes of the anomalies, if they are known.
    """
    from matplotlib.figure import Figure

    detectors = dict(sorted(comparison["detectors"].items(), key=_merit))
    columns = _known_sizes(detectors)
    bars = BARS * len(detectors)
    table = ABOVE_TABLE + ROW * len(detectors) + BELOW_TABLE if columns else 0.0
    height = ABOVE_BARS + bars + BELOW_BARS + table
    figure = Figure(figsize=(13, height))
    top = 1 - ABOVE_BARS / height
    grid = figure.add_gridspec(
        1, 3, **SIDES, top=top, bottom=top - bars / height, wspace=0.05, width_ratios=(4, 3, 3.5)
    )
    axes = grid.subplots(sharey=True)
    _draw_found(axes[0], list(detectors.values()))
    _draw_false(axes[1], list(detectors.values()))
    _draw_seconds(axes[2], list(detectors.values()))
    axes[0].set_yticks(range(len(detectors)), list(detectors))
    axes[0].set_ylim(len(detectors) - 0.5, -0.5)
    for axis, title in zip(axes, ("Anomalies found", "False alerts", "Execution time"), strict=True):
        # The legend has two lines between the title and the axes.
        axis.set_title(title, loc="left", pad=36, weight="bold")
        axis.legend(
            loc="lower left",
            bbox_to_anchor=(-0.015, 0.995),
            ncols=2,
            frameon=False,
            fontsize="small",
            borderpad=0.2,
        )
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="x", color="0.9", linewidth=0.6)
        axis.set_axisbelow(True)
    if columns:
        bottom = BELOW_TABLE / height
        grid = figure.add_gridspec(1, 1, **SIDES, top=bottom + ROW * len(detectors) / height, bottom=bottom)
        _draw_sizes(figure.add_subplot(grid[0]), detectors, columns)
    about = ""
    if "known_anomalies" in comparison:
        about = f": {comparison['known_anomalies']} known anomalies of {comparison['series']} series"
    add_title(figure, f"All detectors compared{about}")
    return figure


def _merit(named: tuple[str, dict[str, Any]]) -> tuple[float, float]:
    in_service = named[1]["iterative"]
    recall, false_alerts = in_service["alert_recall"], in_service["false_alerts"]
    return -(recall or 0.0), np.inf if false_alerts is None else false_alerts


def _known_sizes(detectors: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The sizes of which there are known anomalies, from the detector that was tried on most of them."""
    tried = [figures.get("sizes", []) for figures in detectors.values()]
    most = max(tried, key=lambda sizes: sum(size["known"] for size in sizes))
    return [{**size, "number": number} for number, size in enumerate(most) if size["known"]]


def _draw_sizes(axis: Axes, detectors: dict[str, dict[str, Any]], columns: Sequence[dict[str, Any]]) -> None:
    """A table of the shares that are alerted, by size of anomaly: the redder, the fewer."""
    recalls = np.array(
        [
            [figures["sizes"][column["number"]]["alert_recall"] for column in columns]
            for figures in detectors.values()
        ],
        dtype=float,
    )
    axis.imshow(recalls, cmap="RdYlGn", vmin=0.0, vmax=1.0, alpha=0.45, aspect="auto")
    axis.hlines(np.arange(len(detectors)) - 0.5, -0.5, len(columns) - 0.5, color="white", linewidth=3)
    axis.vlines(np.arange(len(columns)) - 0.5, -0.5, len(detectors) - 0.5, color="white", linewidth=3)
    for (row, column), recall in np.ndenumerate(recalls):
        text = "unknown" if np.isnan(recall) else f"{100 * recall:.0f} %"
        axis.text(column, row, text, ha="center", va="center", fontsize="small")
    headings = [f"{one['kind']}\n{one['size']}\n{one['known']} known" for one in columns]
    axis.set_xticks(range(len(columns)), headings, fontsize="small")
    axis.set_yticks(range(len(detectors)), list(detectors))
    axis.tick_params(length=0, labeltop=True, labelbottom=False)
    axis.spines[:].set_visible(False)
    title = "Alerted, by kind and size of anomaly (its traffic against what was expected), iterative"
    axis.set_title(title, loc="left", pad=10, weight="bold")


@dataclass(frozen=True)
class _Bars:
    """One bar for each detector; a value of None is unknown."""

    label: str
    values: list[float | None]
    color: str
    hatch: str


def _draw_found(axis: Axes, results: Sequence[dict[str, Any]]) -> None:
    bars = [
        _Bars(f"{word}, {way}", [row[key] for row in rows], color, hatch)
        for word, key, color in (("anomaly", "anomaly_recall", "gold"), ("alert", "alert_recall", "tomato"))
        for way, rows, hatch in _ways(results)
    ]
    axis.set(xlabel="share of the known anomalies", xlim=(0, 1.18), xticks=np.linspace(0, 1, 6))
    axis.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
    _draw_bars(axis, bars, lambda share: f"{100 * share:.1f} %", max)


def _draw_false(axis: Axes, results: Sequence[dict[str, Any]]) -> None:
    bars = [
        _Bars(way, [row["false_alerts"] for row in rows], "tomato", hatch)
        for way, rows, hatch in _ways(results)
    ]
    most = max(number or 0.0 for one in bars for number in one.values)
    axis.set(xlabel="per port and month", xlim=(0, 1.18 * max(most, 0.1)))
    _draw_bars(axis, bars, lambda number: f"{number:.2f}", min)


def _draw_seconds(axis: Axes, results: Sequence[dict[str, Any]]) -> None:
    from matplotlib.ticker import NullFormatter

    bars = [
        _Bars(word, [row[f"{word}_seconds"] for row in results], color, "")
        for word, color in (("fit", "tab:blue"), ("score", "lightskyblue"))
    ]
    taken = [seconds for one in bars for seconds in one.values if seconds] or [1.0]
    axis.set(xlabel="per model", xscale="log", xlim=(min(taken) / 3, 10 * max(taken)))
    axis.xaxis.set_major_formatter(lambda seconds, _: _seconds_text(seconds))
    axis.xaxis.set_minor_formatter(NullFormatter())
    _draw_bars(axis, bars, _seconds_text, min)


def _ways(results: Sequence[dict[str, Any]]) -> tuple[tuple[str, Sequence[dict[str, Any]], str], ...]:
    """The two ways to judge the test part, with the results and hatch of each."""
    return ("at once", results, ""), ("iterative", [one["iterative"] for one in results], "////")


def _draw_bars(
    axis: Axes, groups: Sequence[_Bars], text: Callable[[float], str], best: Callable[[list[float]], float]
) -> None:
    # A log scale has no zero.
    width, left = 0.8 / len(groups), axis.get_xlim()[0]
    for number, bars in enumerate(groups):
        places = np.arange(len(bars.values)) - 0.4 + (number + 0.5) * width
        axis.barh(
            places,
            [value or 0.0 for value in bars.values],
            height=0.9 * width,
            color=bars.color,
            hatch=bars.hatch,
            edgecolor="white",
            linewidth=0,
            label=bars.label,
        )
        known = [value for value in bars.values if value is not None]
        for place, value in zip(places, bars.values, strict=True):
            is_best = value is not None and value == best(known)
            axis.annotate(
                "unknown" if value is None else text(value),
                (max(value or 0.0, left), place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize="small",
                weight="bold" if is_best else "normal",
                color="black" if is_best else "0.35",
            )


def _seconds_text(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 0.1 else f"{1000 * seconds:.3g} ms"
