"""What an operator sees of a port: what is drawn where, in which colour, unit and time zone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.dates import num2date
from matplotlib.figure import Figure

from common.files import UserError
from ports.comparison_picture import draw_comparison, plot_comparison
from ports.detectors import Model, ScoreCurve, Scored
from ports.levels import MEMORY_AGES, Memory
from ports.models import Trained
from ports.pictures import draw_decomposition, draw_series, plot_decomposition, plot_series
from ports.preparation import Buckets, Scaler
from ports.sensitivity import Sensitivity
from ports.series import KnownAnomaly, Series
from ports.verdicts import Verdicts, judge

ROME = ZoneInfo("Europe/Rome")
NAN, INF = math.nan, math.inf
# Of one Mbit/s in five minutes.
MEGA = 1e6 * 300 / 8
SCALER = Scaler("log", 1.0, 1.0)
MEMORY = Memory(np.zeros(len(MEMORY_AGES)), np.ones(len(MEMORY_AGES)))
FORECAST = Model(SCALER, np.zeros(672), np.ones(24), np.ones(2), MEMORY)
OUTLIER = replace(FORECAST, curve=ScoreCurve(np.array([-1.0, 1.0]), np.ones(2)))
STATUSES = {"n": "normal", "a": "anomaly", "!": "alert", "?": "unknown"}


def seconds(text: str) -> int:
    """Since 1970, of a time in Rome."""
    return int(datetime.fromisoformat(text).replace(tzinfo=ROME).timestamp())


# A Monday, 22:00 of the day before in UTC.
START = seconds("2023-04-03 00:00")
QUARTER = 900


def drawn(
    traffic: Sequence[float],
    pattern: str | None = None,
    expected: float | Sequence[float] = 1.0,
    low: float | Sequence[float] = 0.5,
    high: float | Sequence[float] = 2.0,
    score: Sequence[float] | None = None,
    model: Model = FORECAST,
    start: int = START,
) -> Verdicts:
    """Verdicts of consecutive quarters of an hour, all rates in Mbit/s."""
    count = len(traffic)
    pattern = pattern or "n" * count
    rates = (np.broadcast_to(np.asarray(value, dtype=float), count) for value in (expected, low, high))
    detector = "profile" if model is FORECAST else "one-class-svm"
    trained = Trained("1_8_out", detector, "default", 15, "Europe/Rome", 0, start, {}, model)
    starts = start + QUARTER * np.arange(count)
    return Verdicts(
        trained,
        Buckets(15, starts, MEGA * np.array(traffic, dtype=float), np.arange(count) % 672),
        Scored(
            np.zeros(count) if score is None else np.array(score, dtype=float), *(MEGA * r for r in rates)
        ),
        np.array([STATUSES[letter] for letter in pattern], dtype=object),
    )


def curve(axis: Axes, label: str) -> list[float]:
    (found,) = (line for line in axis.lines if line.get_label() == label)
    return list(found.get_ydata())


def quarters(days: Sequence[float]) -> list[float]:
    """Places on the axis of time, in buckets since START."""
    return [round((day * 86_400 - START) / QUARTER, 3) for day in days]


def labelled(axis: Axes, label: str) -> list:
    return [area for area in axis.collections if area.get_label() == label]


def dots(axis: Axes, label: str) -> list[tuple[float, float]]:
    """Where there are any: buckets since START, and Mbit/s."""
    places = [place for area in labelled(axis, label) for place in area.get_offsets()]
    return [(quarters([x])[0], round(float(y), 6)) for x, y in places]


def spans(axis: Axes) -> list[tuple[float, float]]:
    """From where to where known anomalies are shaded."""
    return [
        tuple(quarters([patch.get_x(), patch.get_x() + patch.get_width()]))
        for patch in axis.patches
        if patch.get_label() == "known anomaly"
    ]


def unknown(axis: Axes) -> list[tuple[float, float]]:
    found = []
    for area in labelled(axis, "unknown"):
        for path in area.get_paths():
            found.append(tuple(quarters([path.vertices[:, 0].min(), path.vertices[:, 0].max()])))
    return found


# --- traffic and band ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "unit", "number"),
    [
        (2.5e9, "Gbit/s", 2.5),
        (1e9, "Gbit/s", 1.0),
        (0.9e9, "Mbit/s", 900.0),
        (1.5e6, "Mbit/s", 1.5),
        (40e3, "kbit/s", 40.0),
        (12.0, "bit/s", 12.0),
        (0.25, "bit/s", 0.25),
    ],
)
def test_the_unit_makes_numbers_short(rate: float, unit: str, number: float) -> None:
    (axis,) = draw_series(drawn([rate / 1e6] * 3, expected=rate / 1e6), []).axes
    assert axis.get_ylabel() == f"traffic [{unit} over 5 min]"
    assert curve(axis, "traffic") == pytest.approx([number] * 3)
    assert curve(axis, "forecast") == pytest.approx([number] * 3)


def test_a_flood_does_not_choose_the_unit() -> None:
    (axis,) = draw_series(drawn([0.5] * 199 + [5000.0], expected=0.5), []).axes
    assert axis.get_ylabel() == "traffic [kbit/s over 5 min]"
    assert curve(axis, "traffic")[-1] == pytest.approx(5e6)


@pytest.mark.parametrize(
    ("preparation", "minutes", "over"),
    [("default", 15, 5), ("default", 60, 5), ("workshop", 30, 30), ("workshop", 15, 15)],
)
def test_a_steady_megabit_is_drawn_as_one_whatever_the_preparation(
    preparation: str, minutes: int, over: int
) -> None:
    # Three days lead up to the end of training, of which the first one shows the level.
    series = Series("1_8_out", START - 3 * 86_400 + 300 * np.arange(1, 1153), np.full(1152, MEGA))
    usual = np.full(7 * 1440 // minutes, math.log(2e6))
    trained = Trained(
        "1_8_out",
        "profile",
        preparation,
        minutes,
        "Europe/Rome",
        0,
        START,
        {},
        replace(FORECAST, usual=usual, limits=np.full(24, 9.0)),
    )
    (axis,) = draw_series(judge(trained, series, START), []).axes
    assert axis.get_ylabel() == f"traffic [Mbit/s over {over} min]"
    day = 1440 // minutes
    assert curve(axis, "traffic") == pytest.approx([1.0] * 4 * day)
    assert np.isnan(curve(axis, "forecast")[:day]).all()
    assert curve(axis, "forecast")[day:] == pytest.approx([1.0] * 3 * day)


def test_a_point_lies_at_the_end_of_its_bucket() -> None:
    (axis,) = draw_series(drawn([1.0, 2.0, 3.0], "na!"), []).axes
    (line,) = (line for line in axis.lines if line.get_label() == "traffic")
    times = [np.datetime64(START + QUARTER * i, "s") for i in (1, 2, 3)]
    assert line.get_xdata().tolist() == [time.astype(object) for time in times]
    assert (to_hex(line.get_color()), curve(axis, "traffic")) == ("#1f77b4", pytest.approx([1.0, 2.0, 3.0]))
    assert (dots(axis, "anomaly"), dots(axis, "alert")) == ([(2.0, 2.0)], [(3.0, 3.0)])
    # From the first start on, and the newest dot is not at the very edge.
    assert quarters(axis.get_xlim()) == pytest.approx([0.0, 3.03], abs=2e-3)


def test_the_forecast_is_black_and_the_band_green() -> None:
    verdicts = drawn([1.0, 1.0, 1.0], expected=[1.0, 2.0, 3.0], low=[0.5, 1.0, 1.5], high=[2.0, 3.0, 4.0])
    (axis,) = draw_series(verdicts, []).axes
    (line,) = (line for line in axis.lines if line.get_label() == "forecast")
    assert (line.get_color(), curve(axis, "forecast")) == ("black", pytest.approx([1.0, 2.0, 3.0]))
    (area,) = labelled(axis, "accepted")
    red, green, blue, _ = area.get_facecolor()[0]
    assert green > 1.5 * max(red, blue)
    points = {(quarters([x])[0], round(float(y), 6)) for x, y in area.get_paths()[0].vertices}
    assert points >= {(1, 0.5), (2, 1.0), (3, 1.5), (1, 2.0), (2, 3.0), (3, 4.0)}


@pytest.mark.parametrize(
    ("traffic", "low", "high", "bottom", "top"),
    [
        # The axis is linear up to half of what is usual, so that this lies at asinh(2) of its scale.
        # Nothing varies: room for one more on either side, if the band goes on so far.
        (1.0, 0.0, INF, math.asinh(2) - 1, math.asinh(2)),
        (1.0, 0.0, 1e9, math.asinh(2) - 1, math.asinh(2) + 1),
        (1.0, 0.9, 1.25, math.asinh(1.8), math.asinh(2.5)),
        # All of the traffic, and of the band as much again as lies between usual and flood.
        (4.0, 0.0, 1e9, 2 * math.asinh(2) - math.asinh(8), 2 * math.asinh(8) - math.asinh(2)),
        (0.0, 0.0, 0.5, 0.0, math.asinh(2)),
    ],
)
def test_the_axis_has_room_for_the_traffic_and_of_the_band_as_much_again(
    traffic: float, low: float, high: float, bottom: float, top: float
) -> None:
    (axis,) = draw_series(drawn([1.0, traffic], low=low, high=high), []).axes
    # And a little more.
    margin = 0.04 * (top - bottom)
    limits = [0.5 * math.sinh(bottom - margin), 0.5 * math.sinh(top + margin)]
    assert axis.get_ylim() == pytest.approx(limits)
    # What has no end is drawn up to that of the axis.
    (area,) = labelled(axis, "accepted")
    heights = area.get_paths()[0].vertices[:, 1]
    assert heights.max() == pytest.approx(min(high, limits[1]))
    assert heights.min() == pytest.approx(max(low, limits[0]))


def test_a_flood_and_an_outage_leave_room_for_the_usual_day() -> None:
    hours = np.arange(96) / 4
    usual = 1.0 + 0.7 * np.sin(2 * np.pi * hours / 24)
    traffic = usual.copy()
    traffic[40:46], traffic[70:76] = 17.0, 0.0
    (axis,) = draw_series(drawn(traffic, expected=usual, low=usual / 2, high=2 * usual), []).axes
    heights = axis.transAxes.inverted().transform(
        axis.transData.transform([(0, rate) for rate in (0.0, 0.3, 1.7, 17.0)])
    )[:, 1]
    nothing, night, day, flood = heights
    assert 0.0 < nothing < night < day < flood < 1.0
    # On a linear axis the day is a thirteenth of it.
    assert day - night > 0.25
    assert min(night - nothing, flood - day) > 0.15


@pytest.mark.parametrize(
    ("traffic", "first"),
    [
        ([1.0, 1.01, 0.99], None),
        ([1.0, 2.0, 5.0], None),
        ([0.0, 1.0, 3.0], "0"),
        ([0.0, 1.0, 1e9], "0"),
        ([1.0, 1e4, 1e7], None),
        ([0.001, 1.0, 20.0], "0"),
        # A hundredth is still on the axis, next to a tenth.
        ([0.09, 1.0, 20.0], None),
    ],
)
def test_the_axis_has_round_numbers_with_room_between_them(traffic: list[float], first: str | None) -> None:
    (axis,) = draw_series(drawn(traffic, expected=1.0, low=1.0, high=1.0), []).axes
    bottom, top = axis.get_ylim()
    ticks = [value for value in axis.get_yticks() if bottom <= value <= top]
    texts = [text.get_text() for text in axis.get_yticklabels()]
    assert len(ticks) >= 3
    assert ticks == sorted(ticks)
    assert (texts[0] == "0") == (ticks[0] == 0) == (first == "0")
    assert [float(text.replace(",", "")) for text in texts] == pytest.approx(ticks)
    assert max(len(text) for text in texts) <= 6
    heights = axis.transAxes.inverted().transform(axis.transData.transform([(0, tick) for tick in ticks]))
    assert np.diff(heights[:, 1]).min() >= 0.05


# --- what is missing -----------------------------------------------------------------------------


def test_what_is_unknown_is_a_gap_and_said_to_be() -> None:
    verdicts = drawn([1.0, NAN, NAN, 1.0, 1.0, NAN, 1.0, NAN], "n??nn?n?")
    (axis,) = draw_series(verdicts, []).axes
    missing = [False, True, True, False, False, True, False, True]
    assert np.isnan(curve(axis, "traffic")).tolist() == missing
    assert unknown(axis) == [(1, 3), (5, 6), (7, 8)]
    # What would have been accepted is known all the same.
    assert curve(axis, "forecast") == pytest.approx([1.0] * 8)
    assert len(labelled(axis, "accepted")[0].get_paths()) == 1
    # A point between two gaps is no line, the first and the fourth are one with nothing and the fifth.
    (alone,) = (line for line in axis.lines if line.get_marker() == ".")
    places = (alone.get_xdata().astype("datetime64[s]").astype(int) - START) / QUARTER
    assert places.tolist() == [1, 7]


def test_where_all_is_known_nothing_is_grey() -> None:
    (axis,) = draw_series(drawn([1.0, 1.0]), []).axes
    assert unknown(axis) == []
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["accepted", "traffic", "forecast"]


@pytest.mark.parametrize("model", [FORECAST, OUTLIER])
@pytest.mark.parametrize(("rate", "expected"), [(NAN, 1.0), (0.0, 0.0)])
def test_a_picture_can_be_drawn_of_nothing_known_and_of_nothing_at_all(
    rate: float, expected: float, model: Model, tmp_path: Path
) -> None:
    pattern = "????" if rate != rate else "nnnn"
    plot_series(drawn([rate] * 4, pattern, expected, 0.0, INF, [rate] * 4, model), [], tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000


@pytest.mark.parametrize("model", [FORECAST, OUTLIER])
def test_without_a_bucket_there_is_no_picture(model: Model) -> None:
    with pytest.raises(UserError, match=r"^1_8_out: no bucket has ended, so there is nothing to draw$"):
        draw_series(drawn([], model=model), [])


# --- verdicts and what is known ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "yellow", "red"),
    [
        ("nnnnnnnn", [], []),
        ("naannnnn", [2, 3], []),
        ("naaa!!nn", [2, 3, 4], [5, 6]),
        ("!nnnn?na", [8], [1]),
    ],
)
def test_anomalies_are_yellow_and_alerts_red(pattern: str, yellow: list[int], red: list[int]) -> None:
    (axis,) = draw_series(drawn([1.0] * 8, pattern), []).axes
    assert [place for place, _ in dots(axis, "anomaly")] == yellow
    assert [place for place, _ in dots(axis, "alert")] == red
    for label, color in (("anomaly", "#ffd700"), ("alert", "#ff0000")):
        for area in labelled(axis, label):
            assert to_hex(area.get_facecolor()[0]) == color
    # Each on a somewhat larger dark one.
    edges = [area for area in axis.collections if to_hex(area.get_facecolor()[0]) == "#262626"]
    assert [quarters([x])[0] for area in edges for x, _ in area.get_offsets()] == sorted(yellow + red)
    for area in (*labelled(axis, "anomaly"), *labelled(axis, "alert")):
        assert area.get_sizes()[0] < edges[0].get_sizes()[0] < 2 * area.get_sizes()[0]
        assert area.get_zorder() > edges[0].get_zorder() > max(line.get_zorder() for line in axis.lines)


@pytest.mark.parametrize(
    ("first", "last", "series", "expected"),
    [
        (2, 5, "1_8_out", [(2, 5)]),
        (2, 5, None, [(2, 5)]),
        (2, 5, "1_9_out", []),
        (2, 5, "1_8_in", []),
        # Of what reaches beyond the picture, the part in it.
        (-90, 1, None, [(0, 1)]),
        (7, 90, None, [(7, 8)]),
        (-90, 90, None, [(0, 8)]),
        # It ends when the picture begins, and the other way round.
        (-3, 0, None, []),
        (8, 11, None, []),
    ],
)
def test_a_known_anomaly_of_the_series_is_shaded(
    first: int, last: int, series: str | None, expected: list[tuple[int, int]]
) -> None:
    known = [KnownAnomaly(START + QUARTER * first, START + QUARTER * last, series)]
    (axis,) = draw_series(drawn([1.0] * 8), known).axes
    assert spans(axis) == expected
    for patch in axis.patches:
        red, green, blue, _ = patch.get_facecolor()
        assert red > 0.95 and 0.8 < green < 0.95 and 0.8 < blue < 0.95
        # An hour in two months is still to be seen.
        assert patch.get_linewidth() >= 1 and patch.get_zorder() < 1


def test_the_legend_names_each_thing_once() -> None:
    hour = 4 * QUARTER
    known = [KnownAnomaly(START + i * hour, START + i * hour + QUARTER) for i in range(3)]
    verdicts = drawn([1.0] * 5 + [NAN, 1.0, NAN, *[1.0] * 8], "naaa!?n?" + "n" * 8)
    verdicts = replace(verdicts, trained=replace(verdicts.trained, model=OUTLIER))
    for model, middle in ((FORECAST, "forecast"), (OUTLIER, "middle of accepted")):
        figure = draw_series(replace(verdicts, trained=replace(verdicts.trained, model=model)), known)
        legends = [axis.get_legend() for axis in figure.axes if axis.get_legend()]
        assert len(legends) == 1
        assert sorted(text.get_text() for text in legends[0].get_texts()) == sorted(
            ["traffic", middle, "accepted", "anomaly", "alert", "known anomaly", "unknown"]
        )


# --- times ---------------------------------------------------------------------------------------


def labels(axis: Axes) -> dict[str, datetime]:
    """The texts below the picture, with the local times at which they stand."""
    low, high = axis.get_xlim()
    found = {}
    for is_minor in (False, True):
        places = axis.get_xticks(minor=is_minor)
        texts = [text.get_text() for text in axis.get_xticklabels(minor=is_minor)]
        for place, text in zip(places, texts, strict=True):
            if text and low <= place <= high:
                found[text] = num2date(place, ROME).replace(tzinfo=None)
    return found


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_a_day_has_its_hours_in_local_time() -> None:
    (axis,) = draw_series(drawn([1.0] * 96, start=seconds("2023-04-11 13:15")), []).axes
    assert axis.get_xlabel() == "time [Europe/Rome]"
    found = labels(axis)
    assert found["Wed 12 Apr"] == at("2023-04-12 00:00")
    assert found["15:00"] == at("2023-04-11 15:00")
    assert found["09:00"] == at("2023-04-12 09:00")


def test_a_week_has_its_days_below_their_middles_also_when_the_clocks_change() -> None:
    # The Sunday has 23 hours.
    (axis,) = draw_series(drawn([1.0] * 668, start=seconds("2023-03-20 00:00")), []).axes
    assert labels(axis) == {
        f"{name} {day} Mar": at(f"2023-03-{day} 12:00")
        for name, day in zip(("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"), range(20, 27), strict=True)
    }
    midnights = [num2date(place, ROME).replace(tzinfo=None) for place in axis.get_xticks()]
    assert midnights[:8] == [at(f"2023-03-{day} 00:00") for day in range(20, 28)]


def test_days_are_those_of_the_zone_where_it_is_tomorrow_already() -> None:
    # From midnight on; its noons are at 23:00 UTC of the day before.
    verdicts = drawn([1.0] * 5 * 96, start=seconds("2023-01-08 12:00"))
    verdicts = replace(verdicts, trained=replace(verdicts.trained, zone="Pacific/Auckland"))
    (axis,) = draw_series(verdicts, []).axes
    assert axis.get_xlabel() == "time [Pacific/Auckland]"
    assert labels(axis) == {
        f"{name} {day:02} Jan": at(f"2023-01-{day:02} 00:00")
        for name, day in zip(("Mon", "Tue", "Wed", "Thu", "Fri"), range(9, 14), strict=True)
    }


def test_seven_weeks_have_their_mondays() -> None:
    (axis,) = draw_series(drawn([1.0] * 49 * 96, start=seconds("2023-03-14 00:00")), []).axes
    days = {"20 Mar": "03-20", "27 Mar": "03-27", "03 Apr": "04-03", "10 Apr": "04-10"}
    days |= {"17 Apr": "04-17", "24 Apr": "04-24", "01 May": "05-01"}
    assert labels(axis) == {f"Mon {text}": at(f"2023-{day} 00:00") for text, day in days.items()}


def test_the_title_names_series_detector_and_span_in_local_time() -> None:
    # Through the change to summer time: an hour more than it lasts.
    verdicts = drawn([1.0] * 24, start=seconds("2023-03-25 23:00"))
    assert (
        draw_series(verdicts, []).get_suptitle() == "1_8_out: profile, 2023-03-25 23:00 to 2023-03-26 06:00"
    )
    utc = replace(verdicts, trained=replace(verdicts.trained, zone="UTC", series="a$b_1$_out"))
    figure = draw_series(utc, [])
    assert figure.get_suptitle() == "a$b_1$_out: profile, 2023-03-25 22:00 to 2023-03-26 04:00"
    assert figure.axes[0].get_xlabel() == "time [UTC]"
    # Dollar signs are no formula.
    assert [text.get_parse_math() for text in figure.texts] == [False]


def test_a_line_below_the_title_says_what_would_be_missed() -> None:
    seen = Sensitivity(np.full(168, 0.38), np.full(168, 1.7))
    verdicts = drawn([1.0] * 24)
    told = replace(verdicts, trained=replace(verdicts.trained, sensitivity=seen))
    (title, line) = draw_series(told, []).texts
    assert line.get_text() == "alerts an hour of -38 % or x1.7 at any time"
    assert line.get_position()[1] < title.get_position()[1]
    # Of a model about which nothing is known, nothing is said.
    assert len(draw_series(verdicts, []).texts) == 1


@pytest.mark.parametrize("model", [FORECAST, OUTLIER])
def test_the_longest_line_is_clear_of_title_legend_and_edge(model: Model) -> None:
    drop = np.where(np.arange(168) % 24 < 6, 0.88, np.where(np.arange(168) < 120, 0.66, 0.77))
    seen = Sensitivity(drop, 100 + drop, "it has next to no traffic in 168 of 168 hours of the week")
    verdicts = drawn([1.0, 2.0, NAN, 9.0], "na?!", model=model)
    figure = draw_series(replace(verdicts, trained=replace(verdicts.trained, sensitivity=seen)), [])
    figure.draw_without_rendering()
    title, line = (text.get_window_extent() for text in figure.texts)
    legend = figure.axes[0].get_legend().get_window_extent()
    assert title.y0 >= line.y1 and line.y0 >= legend.y1
    assert line.x1 <= figure.bbox.x1


# --- outlier models ------------------------------------------------------------------------------


def scored(score: Sequence[float]) -> tuple[Figure, Axes, Axes]:
    """The picture, its axis of scores, and the colour bar."""
    traffic = [NAN if value != value else 1.0 + i for i, value in enumerate(score)]
    pattern = "".join("?" if value != value else "na"[value > 1] for value in score)
    figure = draw_series(drawn(traffic, pattern, score=score, model=OUTLIER), [])
    axes = figure.axes
    (bar,) = axes[1].child_axes
    assert set(axes) <= {axes[0], axes[1], bar}
    return figure, axes[1], bar


def test_points_are_coloured_by_score() -> None:
    score = [0.0, 0.5, NAN, 1.0, 1.1, 0.25]
    figure, axis, bar = scored(score)
    (points,) = (area for area in axis.collections if area.get_array() is not None)
    shown = {
        quarters([x])[0]: (round(float(y), 6), value)
        for (x, y), value in zip(points.get_offsets(), points.get_array().tolist(), strict=True)
    }
    assert shown == {1: (1, 0.0), 2: (2, 0.5), 4: (4, 1.0), 5: (5, 1.1), 6: (6, 0.25)}
    # The most unusual is drawn last.
    assert points.get_array().tolist() == [0.0, 0.25, 0.5, 1.0, 1.1]
    assert points.get_cmap().name == "plasma"
    assert unknown(axis) == [(2, 3)]
    # Only what is above the limit has an edge.
    (edges,) = (area for area in axis.collections if to_hex(area.get_facecolor()[0]) == "#262626")
    assert [quarters([x])[0] for x, _ in edges.get_offsets()] == [5]
    # Both axes are of the same traffic and time, the lower one alone says which.
    above = figure.axes[0]
    assert (axis.get_ylim(), axis.get_ylabel()) == (above.get_ylim(), above.get_ylabel())
    assert (axis.get_xlim(), above.get_xlabel()) == (above.get_xlim(), "")
    assert axis.get_xlabel() == "time [Europe/Rome]"


@pytest.mark.parametrize(
    ("highest", "end", "is_cut"), [(0.3, 1.2, False), (1.5, 1.5, False), (2.0, 2.0, False), (17.0, 2.0, True)]
)
def test_the_colour_bar_marks_the_limit(highest: float, end: float, is_cut: bool) -> None:
    _, axis, bar = scored([0.1, highest, NAN])
    (points,) = (area for area in axis.collections if area.get_array() is not None)
    assert (points.norm.vmin, points.norm.vmax) == (0.0, end)
    assert bar.get_ylabel() == "score; above 1 is an anomaly"
    marks = [line for line in bar.lines if set(line.get_ydata()) == {1.0}]
    assert [line.get_color() for line in marks] == ["white", "black"]
    assert 1.0 in bar.get_yticks()
    assert (points.colorbar.extend == "max") == is_cut


def test_a_forecast_has_no_axis_of_scores() -> None:
    assert len(draw_series(drawn([1.0, 9.0], "na", score=[0.1, 3.0]), []).axes) == 1


# --- files ---------------------------------------------------------------------------------------

DECOMPOSED = (START + QUARTER * np.arange(1344), *(np.full(1344, value) for value in (15.0, 14.0, 0.7, 0.3)))
RATES = {"anomaly_recall": 0.5, "alert_recall": 0.4, "false_alerts": 1.0}
COMPARISON = {
    "detectors": {"profile": {**RATES, "iterative": RATES, "fit_seconds": 0.01, "score_seconds": 0.001}}
}


def pixels(path: Path, colour: tuple[int, int, int]) -> int:
    from matplotlib.image import imread

    return int((np.round(imread(path)[:, :, :3] * 255) == colour).all(axis=2).sum())


@pytest.mark.parametrize(
    ("pattern", "yellow", "red"), [("nnnn", False, False), ("naan", True, False), ("n!!n", False, True)]
)
def test_the_dots_are_to_be_seen(pattern: str, yellow: bool, red: bool, tmp_path: Path) -> None:
    path = tmp_path / "new" / "1_8_out.profile.png"
    plot_series(drawn([1.0, 9.0, 9.0, 1.0], pattern), [], path)
    assert path.read_bytes().startswith(b"\x89PNG\r\n")
    assert (pixels(path, (255, 215, 0)) > 20, pixels(path, (255, 0, 0)) > 20) == (yellow, red)
    assert [file.name for file in path.parent.iterdir()] == ["1_8_out.profile.png"]


def test_all_other_pictures_are_written_whole(tmp_path: Path) -> None:
    plot_decomposition("1_8_out", "Europe/Rome", *DECOMPOSED, tmp_path / "parts.png")
    plot_comparison(COMPARISON, tmp_path / "comparison.png")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["comparison.png", "parts.png"]
    for file in tmp_path.iterdir():
        assert file.read_bytes().startswith(b"\x89PNG\r\n") and file.stat().st_size > 10_000


def test_what_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    path = tmp_path / "file" / "picture.png"
    for write in (
        lambda: plot_series(drawn([1.0]), [], path),
        lambda: plot_decomposition("1_8_out", "UTC", *DECOMPOSED, path),
        lambda: plot_comparison(COMPARISON, path),
    ):
        with pytest.raises(UserError, match=r"picture\.png: cannot be written"):
            write()


# --- decomposition -------------------------------------------------------------------------------


def test_a_decomposition_has_four_axes_in_the_scale_of_the_model() -> None:
    place = np.arange(1344)
    starts = START + QUARTER * place
    values = 15 + np.sin(place / 15.0)
    values[100:103] = NAN
    parts = (values, 15 + place / 1e4, np.sin(place / 15.0), place * 0.0)
    figure = draw_decomposition("1_8_out", "Europe/Rome", starts, *parts)
    assert [axis.get_ylabel() for axis in figure.axes] == ["log of traffic", "trend", "season", "residual"]
    for axis, part in zip(figure.axes, parts, strict=True):
        assert np.array_equal(axis.lines[0].get_ydata(), part, equal_nan=True)
        assert quarters(axis.get_xlim()) == [0, 1343]
    assert [axis.get_xlabel() for axis in figure.axes] == ["", "", "", "time [Europe/Rome]"]
    assert figure.get_suptitle() == (
        "1_8_out: trend, season and residual, 2023-04-03 00:00 to 2023-04-16 23:45"
    )
    assert labels(figure.axes[3])["Mon 10 Apr"] == at("2023-04-10 12:00")


@pytest.mark.parametrize(("varies", "room"), [(0.0, 0.8), (0.1, 0.8), (5.0, 5.5)])
def test_a_bar_beside_each_part_is_as_long_as_a_doubling(varies: float, room: float) -> None:
    starts, values, *_ = DECOMPOSED
    part = np.where(np.arange(1344) < 700, 3.0, 3.0 + varies)
    figure = draw_decomposition("1_8_out", "Europe/Rome", starts, values, part, part, part)
    for axis in figure.axes[1:]:
        # matplotlib's own margin is a twentieth on either side; what hardly varies is shown as that.
        bottom, top = axis.get_ylim()
        assert top - bottom == pytest.approx(room)
        assert (bottom + top) / 2 == pytest.approx(3.0 + varies / 2)
        assert np.exp(np.ptp(axis.lines[1].get_ydata())) == pytest.approx(2.0)
        assert min(axis.lines[1].get_xdata()) > 1


def test_without_a_bucket_there_is_no_decomposition() -> None:
    with pytest.raises(UserError, match=r"^1_8_out: no bucket has ended, so there is nothing to draw$"):
        draw_decomposition("1_8_out", "UTC", *np.empty((5, 0)))


# --- comparison ----------------------------------------------------------------------------------


def result(
    at_once: tuple[float | None, ...], iterative: tuple[float | None, ...], fit: float, score: float
) -> dict:
    keys = ("anomaly_recall", "alert_recall", "false_alerts")
    return {
        **dict(zip(keys, at_once, strict=True)),
        "iterative": dict(zip(keys, iterative, strict=True)),
        "fit_seconds": fit,
        "score_seconds": score,
    }


COMPARED = {
    "stl": result((0.97, 0.925, 0.0), (0.96, 0.9, 1.125), 0.292, 0.0),
    "sarimax": result((None, None, None), (None, None, None), 7.9274, 0.25),
    "profile": result((0.98, 0.93, 1.45), (0.98, 0.9, 0.5), 0.004, 0.0002),
    "random-forest": result((1.0, 0.5, 0.25), (0.0, 0.95, 3.0), 0.0999, 0.1),
}
# The iterative alerts decide, then the fewer false ones.
ORDER = ["random-forest", "profile", "stl", "sarimax"]


def bars(axis: Axes) -> list[dict[str, float]]:
    """Of each kind of bar, top down in every row: detector -> length."""
    kinds = []
    names = [text.get_text() for text in axis.figure.axes[0].get_yticklabels()]
    for container in axis.containers:
        rows = [round(bar.get_y() + bar.get_height() / 2) for bar in container]
        kinds.append({names[row]: float(bar.get_width()) for row, bar in zip(rows, container, strict=True)})
    return kinds


def numbers(axis: Axes) -> dict[str, list[tuple[str, bool]]]:
    """Detector -> the texts at its bars, top down, and whether they are bold."""
    names = [text.get_text() for text in axis.figure.axes[0].get_yticklabels()]
    found: dict[str, list[tuple[str, bool]]] = {name: [] for name in names}
    for text in sorted(axis.texts, key=lambda text: text.xy[1]):
        found[names[round(text.xy[1])]].append((text.get_text(), text.get_weight() == "bold"))
    return found


def test_the_comparison_has_the_best_detector_on_top() -> None:
    axis = draw_comparison({"detectors": COMPARED}).axes[0]
    assert [text.get_text() for text in axis.get_yticklabels()] == ORDER
    assert axis.get_yticks().tolist() == [0, 1, 2, 3]
    bottom, top = axis.get_ylim()
    assert top < 0 < 3 < bottom


def test_the_comparison_shows_recall_and_false_alerts_at_once_and_iterative() -> None:
    found, false, _ = draw_comparison({"detectors": COMPARED}).axes
    for axis, keys in ((found, ("anomaly_recall", "alert_recall")), (false, ("false_alerts",))):
        expected = [
            {name: (one["iterative"] if is_iterative else one)[key] or 0.0 for name, one in COMPARED.items()}
            for key in keys
            for is_iterative in (False, True)
        ]
        assert bars(axis) == expected
        assert [bool(container[0].get_hatch()) for container in axis.containers] == [
            False,
            True,
        ] * len(keys)
    assert [container.get_label() for container in found.containers] == [
        "anomaly, at once",
        "anomaly, iterative",
        "alert, at once",
        "alert, iterative",
    ]
    assert [container.get_label() for container in false.containers] == ["at once", "iterative"]
    assert false.get_xlabel() == "per port and month"
    for axis in (found, false):
        assert len(axis.get_legend().get_texts()) == len(axis.containers)


def test_the_comparison_prints_its_numbers_the_best_of_each_kind_in_bold() -> None:
    found, false, seconds = draw_comparison({"detectors": COMPARED}).axes
    assert numbers(found) == {
        "random-forest": [("100.0 %", True), ("0.0 %", False), ("50.0 %", False), ("95.0 %", True)],
        "profile": [("98.0 %", False), ("98.0 %", True), ("93.0 %", True), ("90.0 %", False)],
        "stl": [("97.0 %", False), ("96.0 %", False), ("92.5 %", False), ("90.0 %", False)],
        "sarimax": [("unknown", False)] * 4,
    }
    assert numbers(false) == {
        "random-forest": [("0.25", False), ("3.00", False)],
        "profile": [("1.45", False), ("0.50", True)],
        "stl": [("0.00", True), ("1.12", False)],
        "sarimax": [("unknown", False)] * 2,
    }
    assert numbers(seconds) == {
        "random-forest": [("99.9 ms", False), ("0.1 s", False)],
        "profile": [("4 ms", True), ("0.2 ms", False)],
        "stl": [("0.292 s", False), ("0 ms", True)],
        "sarimax": [("7.93 s", False), ("0.25 s", False)],
    }


def test_the_comparison_shows_fit_and_score_apart_on_a_log_scale() -> None:
    axis = draw_comparison({"detectors": COMPARED}).axes[2]
    assert [container.get_label() for container in axis.containers] == ["fit", "score"]
    assert bars(axis) == [
        {name: one[f"{word}_seconds"] for name, one in COMPARED.items()} for word in ("fit", "score")
    ]
    assert axis.get_xscale() == "log"
    low, high = axis.get_xlim()
    assert low < 0.0002 and high > 7.9274
    # Numbers at bars of no length are in sight, too.
    assert all(low <= text.xy[0] <= high for text in axis.texts)
    texts = [text.get_text() for text in axis.get_xticklabels()]
    assert {"1 ms", "10 ms", "0.1 s", "1 s"} <= set(texts)


@pytest.mark.parametrize(
    ("more", "title"),
    [
        ({}, "All detectors compared"),
        ({"known_anomalies": 22, "series": 5}, "All detectors compared: 22 known anomalies of 5 series"),
    ],
)
def test_the_comparison_says_how_much_it_is_made_of(more: dict, title: str) -> None:
    figure = draw_comparison({"detectors": COMPARED, **more})
    assert figure.get_suptitle() == title
    assert len(figure.axes) == 3


def test_a_comparison_in_which_nothing_was_known_can_be_drawn() -> None:
    nothing = (None, None, 0.0)
    figure = draw_comparison({"detectors": {"profile": result(nothing, nothing, 0.0, 0.0)}})
    assert numbers(figure.axes[0]) == {"profile": [("unknown", False)] * 4}
    assert numbers(figure.axes[1]) == {"profile": [("0.00", True)] * 2}
    assert numbers(figure.axes[2]) == {"profile": [("0 ms", True)] * 2}


def sized(*recalls: float | None) -> dict:
    """A detector with the shares that it alerts of three sizes; of the second one no anomaly is known."""
    kinds = (("drop", "0-10 % left", 4), ("partial", "40-65 % left", 0), ("flood", "above x2.5", 1))
    sizes = [
        {"kind": kind, "size": size, "known": known, "alert_recall": recall}
        for (kind, size, known), recall in zip(kinds, recalls, strict=True)
    ]
    return {**result((1.0, 1.0, 0.0), (1.0, recalls[0], 0.0), 0.1, 0.1), "sizes": sizes}


def test_a_table_shows_what_is_alerted_by_size() -> None:
    compared = {"profile": sized(0.25, None, 1.0), "stl": sized(0.756, None, None)}
    figure = draw_comparison({"detectors": compared})
    assert len(figure.axes) == 4
    table = figure.axes[3]
    # In the order of the bars above.
    assert [text.get_text() for text in table.get_yticklabels()] == ["stl", "profile"]
    assert [text.get_text() for text in table.get_xticklabels()] == [
        "drop\n0-10 % left\n4 known",
        "flood\nabove x2.5\n1 known",
    ]
    cells = {text.get_position(): text.get_text() for text in table.texts}
    assert cells == {(0, 0): "76 %", (1, 0): "unknown", (0, 1): "25 %", (1, 1): "100 %"}
    # The table is below the bars, and takes no room of theirs.
    figure.draw_without_rendering()
    assert table.title.get_window_extent().y1 < figure.axes[0].xaxis.label.get_window_extent().y0
    alone = draw_comparison({"detectors": {name: {**one, "sizes": []} for name, one in compared.items()}})
    heights = [one.axes[0].get_position().height * one.get_figheight() for one in (figure, alone)]
    assert heights[0] == pytest.approx(heights[1])
