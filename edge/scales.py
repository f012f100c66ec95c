"""What stands beside the axes of a picture: ticks, their labels and titles, drawn for all axes at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

POINTS_PER_INCH = 72.0
# From an axis to the labels of its ticks, and from these to the title, in points.
LABEL_POINTS, TITLE_POINTS = 7.0, 5.0
# Width of a digit, and distance of two lines, as a share of the size of the font.
DIGIT_SHARE, LINE_SHARE = 0.64, 1.4
# A logarithmic axis has labels like 0.01, 0.02, 0.05 if its ends are less than this factor apart, and ones at
# equal distances like 0.12, 0.14, 0.16 below the other.
FEW_DECADES, NO_DECADE = 100.0, 5.0


def label_times(*axes: Axes) -> None:
    """Let the axes show dates and times, in UTC."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator()
    for axis in axes:
        axis.xaxis.set_major_locator(locator)
        axis.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        axis.tick_params(labelbottom=True)
        axis.set_xlabel("time [UTC]")


def use_decades(axis: Axes) -> None:
    """Make the y axis logarithmic, with labels like 0.01. Its limits are final."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    axis.set_yscale("log")
    low, high = axis.get_ylim()
    if high < NO_DECADE * low:
        axis.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    elif high < FEW_DECADES * low:
        axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def draw_scales(figure: Figure, axes: Sequence[Axes], lowest: Sequence[Axes]) -> None:
    """Draw the ticks, labels and titles of axes that have one span of times. lowest: those with labels of it.

    Each kind of tick becomes one line of the figure, and each label a text. Where each axis makes its own,
    they take more than half of the time of a picture. Limits, locators and formatters are those of the axes,
    and must be final.
    """
    from matplotlib.markers import TICKDOWN, TICKLEFT

    size = figure.get_size_inches() * POINTS_PER_INCH
    times = lowest[0].xaxis
    moments, words = _labels(times)
    shares = _shares(times, moments)
    downward, leftward, small = [], [], []
    widest: dict[float, int] = {}
    for axis in axes:
        place = axis.get_position()
        downward += [(place.x0 + share * place.width, place.y0) for share in shares]
        values, labels = _labels(axis.yaxis)
        heights = place.y0 + _shares(axis.yaxis, values) * place.height
        leftward += [(place.x0, height) for height in heights]
        minors = (
            place.y0 + _shares(axis.yaxis, _seen(axis.yaxis, axis.yaxis.get_minorticklocs())) * place.height
        )
        small += [(place.x0, height) for height in minors]
        left = place.x0 - LABEL_POINTS / size[0]
        for height, label in zip(heights, labels, strict=True):
            _text(figure, axis.yaxis, left, height, label, ha="right", va="center_baseline")
        offset = axis.yaxis.get_major_formatter().get_offset()
        _text(figure, axis.yaxis, place.x0, place.y1, offset, ha="left", va="bottom")
        widest[place.x0] = max([widest.get(place.x0, 0), *map(len, labels)])
    for axis in axes:
        _draw_title(figure, axis, widest[axis.get_position().x0], size[0])
    for axis in lowest:
        place = axis.get_position()
        below = place.y0 - LABEL_POINTS / size[1]
        for share, label in zip(shares, words, strict=True):
            _text(figure, axis.xaxis, place.x0 + share * place.width, below, label, ha="center", va="top")
        below -= LINE_SHARE * _font_points(axis.xaxis) / size[1]
        _text(
            figure,
            axis.xaxis,
            place.x1,
            below,
            times.get_major_formatter().get_offset(),
            ha="right",
            va="top",
        )
        _text(figure, axis.xaxis, (place.x0 + place.x1) / 2, below, axis.get_xlabel(), ha="center", va="top")
    for axis in axes:
        axis.xaxis.set_visible(False)
        axis.yaxis.set_visible(False)
    for places, marker, kind in (
        (downward, TICKDOWN, "xtick.major"),
        (leftward, TICKLEFT, "ytick.major"),
        (small, TICKLEFT, "ytick.minor"),
    ):
        _draw_ticks(figure, places, marker, kind)


def _seen(axis: Axis, places: np.ndarray) -> np.ndarray:
    low, high = sorted(axis.get_view_interval())
    places = np.asarray(places)
    return places[(places >= low) & (places <= high)]


def _labels(axis: Axis) -> tuple[np.ndarray, list[str]]:
    """Where an axis has ticks, (n,), and their labels."""
    places = _seen(axis, axis.get_majorticklocs())
    return places, axis.get_major_formatter().format_ticks(places)


def _shares(axis: Axis, places: np.ndarray) -> np.ndarray:
    """How far places (n,) are along the axis: 0 is its lower end, 1 its upper end."""
    transform = axis.get_transform()
    low, high = transform.transform(np.array(axis.get_view_interval(), dtype=float))
    return (transform.transform(np.asarray(places, dtype=float)) - low) / (high - low)


def _font_points(axis: Axis) -> float:
    return axis.label.get_size()


def _text(figure: Figure, axis: Axis, x: float, y: float, text: str, **style: Any) -> None:
    from matplotlib.text import Text

    if text:
        figure.add_artist(Text(x, y, text, size=_font_points(axis), **style))


def _draw_title(figure: Figure, axis: Axes, characters: int, width: float) -> None:
    """Draw the title of the y axis, beside labels of so many characters. width: of the figure, in points."""
    title, place = axis.yaxis.label, axis.get_position()
    beside = LABEL_POINTS + characters * DIGIT_SHARE * title.get_size() + TITLE_POINTS
    _text(
        figure,
        axis.yaxis,
        place.x0 - beside / width,
        (place.y0 + place.y1) / 2,
        title.get_text(),
        ha="right",
        va="center",
        rotation=90,
        color=title.get_color(),
        weight=title.get_weight(),
    )


def _draw_ticks(figure: Figure, places: Sequence[tuple[float, float]], marker: Any, kind: str) -> None:
    from matplotlib import rcParams
    from matplotlib.lines import Line2D

    if places:
        size, width = rcParams[f"{kind}.size"], rcParams[f"{kind}.width"]
        style = {"linestyle": "", "color": rcParams["xtick.color"], "zorder": 2.01}
        figure.add_artist(
            Line2D(*np.transpose(places), marker=marker, markersize=size, markeredgewidth=width, **style)
        )
