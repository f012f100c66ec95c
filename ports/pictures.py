"""Pictures for network operators: a port's traffic with its verdicts, its STL parts, detectors compared.

matplotlib is imported where something is drawn, because the nightly and hourly jobs do without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import numpy as np

from common.alerts import ALERT, ANOMALY, UNKNOWN
from common.files import UserError, replace_file
from ports.series import SAMPLE_SECONDS, KnownAnomaly
from ports.verdicts import Verdicts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# This preparation counts the traffic of the whole bucket; the other one, that of five minutes.
SUMMED = "workshop"
# Units for traffic: the largest one that the traffic reaches at HIGH_PERCENTILE is taken.
BIT_RATE_UNITS = (("Gbit/s", 1e9), ("Mbit/s", 1e6), ("kbit/s", 1e3), ("bit/s", 1.0))
HIGH_PERCENTILE = 98.0
# The axis of traffic is linear up to half of this percentile of usual traffic, and logarithmic above.
LOW_PERCENTILE = 5.0
# Numbers on that axis, times powers of ten: the first row in which no two are nearer than TICK_ROOM of it.
TICKS = ((1, 2, 5), (1, 3), (1,))
TICK_ROOM = 0.055
FEWEST_TICKS = 4
# On the model's scale. A part that varies by less than this does not fill its axis.
LEAST_RANGE = 0.8
# Lines of more points than this are thinner.
FEW_POINTS = 1500
DOTS = {ANOMALY: "gold", ALERT: "red"}
# The colour scale of scores ends between these, so that it always includes the limit, 1.
LOWEST_END, HIGHEST_END = 1.2, 2.0
# Labels are hours in spans of up to the first number of days, days up to the second, weeks up to the third.
HOURS_UP_TO, DAYS_UP_TO, WEEKS_UP_TO = 3, 15, 98

# Where titles and the axes of a series start, as a share of the width.
LEFT = 0.07

_DPI = 110
_DECOMPOSITION_NOTE = (
    "The scale is the natural logarithm of the traffic: each grey bar at the right is as long as a doubling."
)


# --- a series and its verdicts -------------------------------------------------------------------


def plot_series(verdicts: Verdicts, known: Sequence[KnownAnomaly], filename: str | Path) -> None:
    """Write the picture of a series: its traffic, the accepted range, the verdicts and the known anomalies.

    Raises UserError if there is nothing to draw or the file cannot be written.
    """
    _write(draw_series(verdicts, known), filename)


def draw_series(verdicts: Verdicts, known: Sequence[KnownAnomaly]) -> Figure:
    """The picture of plot_series. An outlier model has a second axis, with points coloured by score.

    A point lies at the end of its bucket, the time of its verdict. The scale of traffic is logarithmic and
    yet has a zero: neither a flood of ten times the usual nor an outage squeezes the rest.
    """
    from matplotlib.figure import Figure

    trained, times = verdicts.trained, _times(verdicts.times)
    if not len(times):
        raise UserError(f"{trained.series}: no bucket has ended, so there is nothing to draw")
    is_outlier = trained.model.curve is not None
    figure = Figure(figsize=(13, 9.5 if is_outlier else 5.5))
    top, bottom, right = (0.92, 0.065, 0.915) if is_outlier else (0.865, 0.11, 0.965)
    figure.subplots_adjust(left=LEFT, top=top, bottom=bottom, right=right, hspace=0.07)
    axes = figure.subplots(1 + is_outlier, 1, sharex=True, squeeze=False)[:, 0]
    label, traffic, expected, low, high = _bit_rates(verdicts)
    span = int(verdicts.buckets.starts[0]), int(verdicts.times[-1])
    for axis in axes:
        _scale(axis, traffic, expected, low, high)
        _shade(axis, verdicts, known, span)
        # Room at the right: the newest dot is the most important one.
        axis.set_xlim(*_times(np.array([span[0], span[1] + 0.01 * (span[1] - span[0])])))
        axis.set_ylabel(label)
    thickness = 1.0 if len(times) <= FEW_POINTS else 0.65
    _draw_band(axes[0], times, low, high)
    _draw_traffic(axes[0], times, traffic, 1.3 * thickness)
    middle = "middle of accepted" if is_outlier else "forecast"
    axes[0].plot(times, expected, color="black", linewidth=0.7 * thickness, label=middle)
    _mark(axes[0], times, traffic, verdicts.statuses)
    if is_outlier:
        _draw_scores(axes[1], times, traffic, verdicts.scored.score)
    _finish(axes, trained.zone, span)
    _add_title(figure, f"{trained.series}: {trained.detector}, {_span_text(*span, trained.zone)}")
    return figure


def _bit_rates(verdicts: Verdicts) -> tuple[str, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The label of the axis; then traffic, expected, low and high (n,), in the unit of the label."""
    trained, scored = verdicts.trained, verdicts.scored
    seconds = 60 * trained.minutes if trained.preparation == SUMMED else SAMPLE_SECONDS
    rates = [
        8 * values / seconds
        for values in (verdicts.buckets.traffic, scored.expected, scored.low, scored.high)
    ]
    usual = np.concatenate(rates[:2])
    usual = usual[np.isfinite(usual)]
    peak = np.percentile(usual, HIGH_PERCENTILE) if len(usual) else 0.0
    unit, size = next((unit for unit in BIT_RATE_UNITS if peak >= unit[1]), BIT_RATE_UNITS[-1])
    return f"traffic [{unit} over {seconds // 60} min]", *(values / size for values in rates)


def _scale(axis: Axes, traffic: np.ndarray, expected: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    """Fit the axis to all traffic, actual and expected, and to the band around it up to as much again."""
    from matplotlib.ticker import FixedLocator, NullLocator

    linear = _linear_width(traffic, expected)
    shown, low, high = (
        np.arcsinh(values[np.isfinite(values)] / linear)
        for values in (np.concatenate([traffic, expected]), low, high)
    )
    bottom, top = (shown.min(), shown.max()) if len(shown) else (0.0, 1.0)
    room = (top - bottom) or 1.0
    bottom = min(bottom, max(low.min(initial=bottom), bottom - room))
    top = max(top, min(high.max(initial=top), top + room))
    margin = 0.04 * ((top - bottom) or room)
    limits = linear * np.sinh([bottom - margin, top + margin])
    axis.set_yscale("asinh", linear_width=linear)
    axis.set_ylim(*limits)
    axis.yaxis.set_major_locator(FixedLocator(_ticks(*limits, linear)))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(lambda value, _: _number_text(value))


def _number_text(value: float) -> str:
    return f"{value:,.10g}" if value < 1e5 else f"{value:.0e}"


def _linear_width(traffic: np.ndarray, expected: np.ndarray) -> float:
    usual, seen = (values[np.isfinite(values) & (values > 0)] for values in (expected, traffic))
    # If hardly any traffic is expected, the traffic itself shows what is usual.
    if 2 * len(usual) < len(expected):
        usual = seen
    return float(np.percentile(usual, LOW_PERCENTILE)) / 2 if len(usual) else 1.0


def _ticks(bottom: float, top: float, linear: float) -> list[float]:
    """Round numbers from bottom to top, and zero if it is between them."""
    from matplotlib.ticker import MaxNLocator

    first, zero, last = np.arcsinh(np.array([bottom, 0.0, top]) / linear)
    room = TICK_ROOM * (last - first)
    highest = int(np.floor(np.log10(top)))
    for multiples in TICKS:
        numbers = np.outer(10.0 ** np.arange(highest - 20, highest + 1), multiples).ravel()
        numbers = numbers[(numbers >= bottom) & (numbers <= top)]
        places = np.arcsinh(numbers / linear)
        if first <= zero:
            numbers, places = numbers[places >= room], places[places >= room]
        if (np.diff(places) >= room).all():
            break
    if len(numbers) < FEWEST_TICKS - 1:
        numbers = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(max(bottom, 0.0), top)
        numbers = numbers[(numbers > 0) & (numbers >= bottom) & (numbers <= top)]
    return [0.0] * bool(first <= zero) + numbers.tolist()


def _shade(axis: Axes, verdicts: Verdicts, known: Sequence[KnownAnomaly], span: tuple[int, int]) -> None:
    """Shade known anomalies, and buckets that are unknown."""
    for one in known:
        if one.series in (None, verdicts.trained.series) and one.start < span[1] and one.end > span[0]:
            times = _times(np.array([max(one.start, span[0]), min(one.end, span[1])]))
            # The edge keeps it visible where an hour is less than a pixel.
            axis.axvspan(*times, color="#ffdad5", linewidth=1.5, zorder=0, label="known anomaly")
    is_unknown = np.concatenate([[False], verdicts.statuses == UNKNOWN, [False]])
    changes = np.flatnonzero(np.diff(is_unknown)).reshape(-1, 2)
    if len(changes):
        days = (verdicts.buckets.starts[0] + 60 * verdicts.buckets.minutes * changes) / 86_400
        axis.broken_barh(
            np.column_stack([days[:, 0], np.diff(days)[:, 0]]),
            (0.0, 1.0),
            transform=axis.get_xaxis_transform(),
            color="0.9",
            linewidth=0.8,
            zorder=0,
            label="unknown",
        )


def _draw_band(axis: Axes, times: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    # Cut to the picture, because the band may have no end.
    low, high = (np.clip(bound, *axis.get_ylim()) for bound in (low, high))
    axis.fill_between(times, low, high, color="tab:green", alpha=0.3, linewidth=0, label="accepted")


def _draw_traffic(axis: Axes, times: np.ndarray, traffic: np.ndarray, linewidth: float) -> None:
    is_known = np.concatenate([[False], ~np.isnan(traffic), [False]])
    # A point between two gaps has no line, so it gets a dot.
    alone = np.flatnonzero(is_known[1:-1] & ~is_known[:-2] & ~is_known[2:])
    axis.plot(times, traffic, color="tab:blue", linewidth=linewidth, label="traffic")
    axis.plot(times[alone], traffic[alone], color="tab:blue", linestyle="", marker=".", markersize=4)


def _mark(axis: Axes, times: np.ndarray, traffic: np.ndarray, statuses: np.ndarray) -> None:
    _outline(axis, times, traffic, np.isin(statuses, list(DOTS)))
    for status, color in DOTS.items():
        here = statuses == status
        if here.any():
            dots = axis.scatter(times[here], traffic[here], s=17, color=color, linewidth=0, zorder=4)
            dots.set(label=status, snap=False)


def _outline(axis: Axes, times: np.ndarray, traffic: np.ndarray, here: np.ndarray) -> None:
    """Draw the dark edges of all dots first: where dots crowd, edges of their own would hide their colour."""
    axis.scatter(times[here], traffic[here], s=27, color="0.15", linewidth=0, zorder=3, snap=False)


def _draw_scores(axis: Axes, times: np.ndarray, traffic: np.ndarray, score: np.ndarray) -> None:
    from matplotlib.ticker import MultipleLocator

    known = ~np.isnan(score)
    highest = score.max(initial=0.0, where=known)
    end = min(max(highest, LOWEST_END), HIGHEST_END)
    _outline(axis, times, traffic, score > 1.0)
    # The most unusual on top.
    order = np.flatnonzero(known)[np.argsort(score[known], kind="stable")]
    points = axis.scatter(
        times[order],
        traffic[order],
        c=score[order],
        s=17,
        cmap="plasma",
        vmin=0.0,
        vmax=end,
        linewidth=0,
        zorder=4,
    )
    beside = axis.inset_axes((1.015, 0.0, 0.018, 1.0))
    bar = axis.figure.colorbar(
        points,
        cax=beside,
        extend="max" if highest > end else "neither",
        ticks=MultipleLocator(0.25),
        label="score; above 1 is an anomaly",
    )
    bar.ax.axhline(1.0, color="white", linewidth=3)
    bar.ax.axhline(1.0, color="black", linewidth=1)


# --- a decomposition -----------------------------------------------------------------------------


def plot_decomposition(
    name: str,
    zone: str,
    starts: np.ndarray,
    values: np.ndarray,
    trend: np.ndarray,
    season: np.ndarray,
    residual: np.ndarray,
    filename: str | Path,
) -> None:
    """Write the picture of a seasonal-trend decomposition, on the log scale of the model.

    starts: seconds since 1970. All arrays are (n,); values may be NaN. Raises UserError if there is
    nothing to draw or the file cannot be written.
    """
    _write(draw_decomposition(name, zone, starts, values, trend, season, residual), filename)


def draw_decomposition(
    name: str,
    zone: str,
    starts: np.ndarray,
    values: np.ndarray,
    trend: np.ndarray,
    season: np.ndarray,
    residual: np.ndarray,
) -> Figure:
    """The picture of plot_decomposition: four axes, each with its own range and a bar for a doubling."""
    from matplotlib.figure import Figure

    if not len(starts):
        raise UserError(f"{name}: no bucket has ended, so there is nothing to draw")
    figure = Figure(figsize=(13, 9.5))
    figure.subplots_adjust(left=LEFT, top=0.93, bottom=0.085, right=0.965, hspace=0.12)
    axes = figure.subplots(4, 1, sharex=True)
    times = _times(starts)
    parts = {"log of traffic": values, "trend": trend, "season": season, "residual": residual}
    for axis, (part, numbers), color in zip(
        axes, parts.items(), ("tab:blue", "black", "tab:green", "tab:purple"), strict=True
    ):
        axis.plot(times, numbers, color=color, linewidth=0.9)
        axis.set_ylabel(part)
        axis.set_xlim(times[0], times[-1])
        _add_ruler(axis)
    span = int(starts[0]), int(starts[-1])
    _finish(axes, zone, span)
    _add_title(figure, f"{name}: trend, season and residual, {_span_text(*span, zone)}")
    figure.text(LEFT, 0.012, _DECOMPOSITION_NOTE, fontsize="small", color="0.3")
    return figure


def _add_ruler(axis: Axes) -> None:
    """Draw a bar at the right, as long as a doubling, and make room for it."""
    bottom, top = axis.get_ylim()
    middle, room = (bottom + top) / 2, max(top - bottom, LEAST_RANGE)
    axis.set_ylim(middle - room / 2, middle + room / 2)
    axis.plot(
        [1.012, 1.012],
        [middle - np.log(2) / 2, middle + np.log(2) / 2],
        color="0.6",
        linewidth=6,
        solid_capstyle="butt",
        transform=axis.get_yaxis_transform(),
        clip_on=False,
    )


# --- all detectors -------------------------------------------------------------------------------


def plot_comparison(comparison: dict[str, Any], filename: str | Path) -> None:
    """Write one picture of how all detectors did. Raises UserError if the file cannot be written.

    comparison["detectors"]: name -> `anomaly_recall` and `alert_recall` (0 to 1) and `false_alerts` (per port
    and month), each None if unknown; `iterative`, the same three with a model trained each night;
    `fit_seconds` and `score_seconds` per model.
    """
    _write(draw_comparison(comparison), filename)


def draw_comparison(comparison: dict[str, Any]) -> Figure:
    """The picture of plot_comparison: a row for each detector, the one that alerts on most anomalies on top.

    The best number of each kind of bar is bold.
    """
    from matplotlib.figure import Figure

    detectors = dict(sorted(comparison["detectors"].items(), key=_merit))
    height = 1.8 + 0.95 * len(detectors)
    figure = Figure(figsize=(13, height))
    figure.subplots_adjust(left=0.115, right=0.985, bottom=0.55 / height, top=1 - 1.25 / height, wspace=0.05)
    axes = figure.subplots(1, 3, sharey=True, width_ratios=(4, 3, 3.5))
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
    about = ""
    if "known_anomalies" in comparison:
        about = f": {comparison['known_anomalies']} known anomalies of {comparison['series']} series"
    _add_title(figure, f"All detectors compared{about}")
    return figure


def _merit(named: tuple[str, dict[str, Any]]) -> tuple[float, float]:
    in_service = named[1]["iterative"]
    recall, false_alerts = in_service["alert_recall"], in_service["false_alerts"]
    return -(recall or 0.0), np.inf if false_alerts is None else false_alerts


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


# --- what the pictures have in common ------------------------------------------------------------


def _write(figure: Figure, filename: str | Path) -> None:
    replace_file(filename, lambda path: figure.savefig(path, dpi=_DPI, pil_kwargs={"compress_level": 1}))


def _times(seconds: np.ndarray) -> np.ndarray:
    return seconds.astype("datetime64[s]")


def _span_text(start: int, end: int, zone: str) -> str:
    first, last = (datetime.fromtimestamp(time, ZoneInfo(zone)) for time in (start, end))
    return f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M}"


def _finish(axes: Sequence[Axes], zone: str, span: tuple[int, int]) -> None:
    """Label the times in the zone, draw a fine grid and no frame, and add one legend for all axes."""
    _label_times(axes, zone, (span[1] - span[0]) / 86_400)
    handles = {}
    for axis in axes:
        axis.grid(color="0.9", linewidth=0.6)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if handles:
        axes[0].legend(
            handles.values(),
            handles.keys(),
            loc="lower right",
            bbox_to_anchor=(1.0, 1.0),
            ncols=len(handles),
            frameon=False,
            markerscale=1.3,
        )


def _label_times(axes: Sequence[Axes], zone: str, days: float) -> None:
    """Label the times below the last of these axes, which share them."""
    from matplotlib import dates
    from matplotlib.ticker import NullFormatter

    axis, zone_info = axes[-1].xaxis, ZoneInfo(zone)
    axis.set_label_text(f"time [{zone}]")
    midnights, day = dates.DayLocator(tz=zone_info), "%a %d %b"
    if HOURS_UP_TO < days <= DAYS_UP_TO:
        # The name of a day stands below noon, between the lines of two midnights.
        axis.set_major_locator(midnights)
        axis.set_major_formatter(NullFormatter())
        axis.set_minor_locator(dates.HourLocator(12, tz=zone_info))
        axis.set_minor_formatter(dates.DateFormatter(day, tz=zone_info))
        for one in axes:
            one.tick_params(axis="x", which="minor", length=0, labelsize="small")
    elif DAYS_UP_TO < days <= WEEKS_UP_TO:
        axis.set_major_locator(dates.WeekdayLocator(dates.MO, tz=zone_info))
        axis.set_major_formatter(dates.DateFormatter(day, tz=zone_info))
        axis.set_minor_locator(midnights)
        axis.set_tick_params(labelsize="small")
    else:
        locator = dates.AutoDateLocator(tz=zone_info)
        formats = ["%Y", "%b", day, "%H:%M", "%H:%M", "%S.%f"]
        formatter = dates.ConciseDateFormatter(
            locator,
            tz=zone_info,
            formats=formats,
            zero_formats=["", *formats[:-1]],
            # The title has the date.
            show_offset=False,
        )
        axis.set_major_locator(locator)
        axis.set_major_formatter(formatter)


def _add_title(figure: Figure, text: str) -> None:
    # A dollar sign in a series' name must not start a formula.
    figure.suptitle(text, x=LEFT, y=0.985, ha="left", va="top", weight="bold", parse_math=False)
