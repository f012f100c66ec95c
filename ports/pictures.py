"""Pictures for network operators: a port's traffic with its verdicts, and its STL parts.

matplotlib is imported where something is drawn, because the nightly and hourly jobs do without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import numpy as np

from common.alerts import ALERT, ANOMALY, UNKNOWN
from common.files import UserError, replace_file
from ports.series import KnownAnomaly
from ports.verdicts import Verdicts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# This preparation counts the traffic of the whole bucket; the other one, that of a sample.
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
# How far below the top of the title the line below it begins.
LINE_INCHES = 0.25

_DPI = 110
_DECOMPOSITION_NOTE = (
    "The scale is the natural logarithm of the traffic: each grey bar at the right is as long as a doubling."
)


# --- a series and its verdicts -------------------------------------------------------------------


def plot_series(verdicts: Verdicts, known: Sequence[KnownAnomaly], filename: str | Path) -> None:
    """Write the picture of a series: its traffic, the accepted range, the verdicts and the known anomalies.

    Raises UserError if there is nothing to draw or the file cannot be written.
    """
    write_figure(draw_series(verdicts, known), filename)


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
    figure = Figure(figsize=(13, 9.7 if is_outlier else 5.7))
    top, bottom, right = (0.901, 0.064, 0.915) if is_outlier else (0.835, 0.106, 0.965)
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
    add_title(figure, f"{trained.series}: {trained.detector}, {_span_text(*span, trained.zone)}")
    if trained.sensitivity:
        _add_line(figure, trained.sensitivity.describe(trained.alert_records * trained.minutes))
    return figure


def _bit_rates(verdicts: Verdicts) -> tuple[str, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The label of the axis; then traffic, expected, low and high (n,), in the unit of the label."""
    trained, scored = verdicts.trained, verdicts.scored
    seconds = 60 * (trained.minutes if trained.preparation == SUMMED else trained.sample_minutes)
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
    # Towards zero, where the axis is linear, powers of ten come ever nearer: of two that are too near, the
    # higher one stays.
    numbers = numbers[np.append(np.diff(places), room)[: len(numbers)] >= room]
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
    write_figure(draw_decomposition(name, zone, starts, values, trend, season, residual), filename)


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
    add_title(figure, f"{name}: trend, season and residual, {_span_text(*span, zone)}")
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


# --- what the pictures have in common ------------------------------------------------------------


def write_figure(figure: Figure, filename: str | Path) -> None:
    """Write a picture. Raises UserError if the file cannot be written."""
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


def add_title(figure: Figure, text: str) -> None:
    """Write the title at the top left."""
    # A dollar sign in a series' name must not start a formula.
    figure.suptitle(text, x=LEFT, y=0.985, ha="left", va="top", weight="bold", parse_math=False)


def _add_line(figure: Figure, text: str) -> None:
    """Write a small line below the title."""
    y = 0.985 - LINE_INCHES / figure.get_figheight()
    figure.text(LEFT, y, text, va="top", fontsize="small", color="0.3", parse_math=False)
