"""What verdicts look like: the axes of the pictures, and the pictures themselves."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from common.alerts import ALERT, Row
from common.files import UserError
from edge.bundle import Bundle
from edge.detector import Verdict
from edge.evaluation import count_alerts
from edge.incidents import Alert, Alerts, Incidents
from edge.pictures import draw_alert, draw_detection, make_plot_dir, plot_alert, plot_detection
from nodes.metrics import METRICS, getFeatures
from tests.support.metrics import NAMES
from tests.support.verdict_patterns import SECOND, START, verdicts_of, window

THRESHOLDS = {f"{name}_threshold": 0.1 for name in (*METRICS, "overall")}


# --- the picture ---------------------------------------------------------------------------------

RED, GOLD = (255, 0, 0), (255, 215, 0)
SHAPE = (1650, 1430, 3)
NAN = math.nan
LOW, WIDTH = 100.0, 400.0
# Every feature was trained on 100 to 500.
BUNDLE = Bundle(
    METRICS,
    4,
    {f"{feature}_min": LOW for feature in getFeatures()}
    | {f"{feature}_max": LOW + WIDTH for feature in getFeatures()},
    np.full(12, 0.5),
    lambda inputs: inputs[:, -1],
)


def drawn_verdicts(
    pattern: str,
    actual: Sequence[float] | float = 0.5,
    causes: tuple[str, ...] = ("cpu",),
    rmse: float = 0.05,
    predicted: float = 0.5,
) -> list[Verdict]:
    """verdicts_of 15 s apart, with what a picture needs: all features at these normalised levels."""
    levels = np.broadcast_to(np.asarray(actual, dtype=float), len(pattern))
    names = [key.removesuffix("_threshold") for key in THRESHOLDS]
    return [
        replace(
            verdict,
            rmse=dict.fromkeys(names, rmse),
            actual=np.full(12, level),
            predicted=np.full(12, predicted),
        )
        for verdict, level in zip(verdicts_of(pattern, 15.0, causes), levels, strict=True)
    ]


def draw(
    path: Path,
    verdicts: list[Verdict],
    attacks: list[tuple[int, int]],
    thresholds: dict[str, float] = THRESHOLDS,
) -> np.ndarray:
    """The picture's pixels (height, width, 3), 0 to 255."""
    from matplotlib.image import imread

    plot_detection(BUNDLE, thresholds, verdicts, attacks, path, "a title")
    return np.round(imread(path)[:, :, :3] * 255).astype(int)


def pixels(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((picture == colour).all(axis=2).sum())


def test_the_picture_shows_attack_anomalies_and_alerts(tmp_path: Path) -> None:
    path = tmp_path / "plots" / "detection.png"
    verdicts = drawn_verdicts("n" * 20 + "aaa!!!!!" + "n" * 20, [*[0.5] * 3, NAN, *[0.5] * 44])
    picture = draw(path, verdicts, [window(20, 28, 15.0)])
    assert picture.shape == SHAPE
    assert path.read_bytes().startswith(b"\x89PNG\r\n")
    assert pixels(picture, RED) > 0
    assert pixels(picture, GOLD) > 0
    assert [file.name for file in path.parent.iterdir()] == ["detection.png"]
    # The band of the attack: red of which an eighth covers the white.
    band = (picture[:, :, 0] > 240) & (picture[:, :, 1] > 215) & (picture[:, :, 1] < 235)
    assert band.sum() > 10_000


@pytest.mark.parametrize(
    ("causes", "pattern", "red", "gold"),
    [
        (("cpu",), "n" * 40, False, False),
        (("mem", "net_up"), "n" * 20 + "a" + "n" * 19, False, True),
        ((), "n" * 20 + "!" + "n" * 19, True, False),
    ],
)
def test_the_picture_marks_what_is_flagged_only(
    causes: tuple[str, ...], pattern: str, red: bool, gold: bool, tmp_path: Path
) -> None:
    picture = draw(tmp_path / "detection.png", drawn_verdicts(pattern, causes=causes), [])
    assert (pixels(picture, RED) > 0, pixels(picture, GOLD) > 0) == (red, gold)


@pytest.mark.parametrize("rmse", [NAN, 0.0])
@pytest.mark.parametrize("level", [NAN, 0.5])
def test_a_picture_can_be_drawn_of_what_has_no_logarithm_or_no_value(
    level: float, rmse: float, tmp_path: Path
) -> None:
    verdicts = drawn_verdicts("?" * 30, level, rmse=rmse, predicted=level)
    picture = draw(tmp_path / "detection.png", verdicts, [], dict.fromkeys(THRESHOLDS, 0.0))
    assert picture.shape == SHAPE
    assert picture.min() < 50


def axes_of(
    verdicts: list[Verdict], thresholds: dict[str, float] = THRESHOLDS, title: str = "a title"
) -> dict[str, Axes]:
    """Axes by their labels."""
    figure = draw_detection(BUNDLE, thresholds, verdicts, [], title)
    assert figure.get_suptitle() == title
    return {axis.get_ylabel(): axis for axis in figure.axes}


def line(axis: Axes, label: str) -> Line2D:
    (found,) = (line for line in axis.lines if line.get_label() == label)
    return found


def band(axis: Axes) -> list[tuple[float, float]]:
    """Lowest and highest point of each unbroken stretch of the allowed band."""
    (found,) = (area for area in axis.collections if area.get_label() == "allowed")
    points = [path.vertices[:, 1] for path in found.get_paths()]
    return [(float(some.min()), float(some.max())) for some in points]


def test_each_metric_is_drawn_in_its_unit_against_what_is_expected_and_allowed() -> None:
    actual = [0.5, 0.25, 0.75, 9.5]
    axes = axes_of(drawn_verdicts("nnnn", actual), THRESHOLDS | {"net_down_threshold": 0.05})
    percent = [f"{name} [%]" for name in ("cpu", "cpu_rx", "cpu_tx", "mem")]
    kilobytes = [f"{name} [kB/s]" for name in ("net_down", "net_up", "net_5g_down", "net_5g_up")]
    assert set(axes) == {*percent, *kilobytes, *(f"{key[:-10]} RMSE" for key in THRESHOLDS)}
    for label, scale in [(label, 1.0) for label in percent] + [(label, 1000.0) for label in kilobytes]:
        assert line(axes[label], "actual").get_ydata() == pytest.approx(
            np.array([300.0, 200.0, 400.0, 3900.0]) / scale
        )
        assert line(axes[label], "expected").get_ydata() == pytest.approx(np.full(4, 300.0 / scale))
    # 4 thresholds of 400; above 0.05 x 4 x sqrt(1), 0.1 x 4 x sqrt(2).
    assert band(axes["net_down [kB/s]"]) == [pytest.approx((0.22, 0.38))]
    assert band(axes["net_up [kB/s]"]) == [pytest.approx((0.14, 0.46))]
    # The lower end is below the trained range: (100 + 4) / e^0.0656854 - 4.
    assert band(axes["mem [%]"]) == [pytest.approx((93.3882, 526.2742), abs=1e-3)]
    assert list(line(axes["mem [%]"], "actual").get_xdata()) == [
        np.datetime64(START + i * 15 * SECOND, "ns") for i in range(4)
    ]


def test_the_rmse_is_drawn_with_its_threshold() -> None:
    axes = axes_of(drawn_verdicts("nn"), THRESHOLDS | {"mem_threshold": 0.3, "overall_threshold": 51.0})
    assert line(axes["mem RMSE"], "window RMSE").get_ydata().tolist() == [0.05, 0.05]
    assert set(line(axes["mem RMSE"], "threshold").get_ydata()) == {0.3}
    # One that is a thousand times as high is out of sight.
    assert [line.get_label() for line in axes["overall RMSE"].lines] == ["window RMSE"]


@pytest.mark.parametrize(
    ("threshold", "actual", "limits", "drawn"),
    [
        # All of a narrow band is in sight: 284 to 316 around 300, plus a twentieth.
        (0.01, [0.5, 0.5], (282.4, 317.6), (284.0, 316.0)),
        # Of a wide one as much again above and below as the level covers (200), and a twentieth of all that.
        (100.0, [0.5, 1.0], (70.0, 730.0), (70.0, 730.0)),
        (1e308, [0.5, 1.0], (70.0, 730.0), (70.0, 730.0)),
        # A level that does not move: as much as itself.
        (100.0, [0.5, 0.5], (-30.0, 630.0), (0.0, 630.0)),
        # Level and band are both in sight, however far apart.
        (0.01, [0.5, 9.5], (103.2, 4080.8), (284.0, 316.0)),
        (0.01, [9.5, 9.6], (101.2, 4122.8), (284.0, 316.0)),
    ],
)
def test_the_band_does_not_squash_the_curve(
    threshold: float, actual: list[float], limits: tuple[float, float], drawn: tuple[float, float]
) -> None:
    axis = axes_of(drawn_verdicts("nn", actual), THRESHOLDS | {"net_up_threshold": threshold})[
        "net_up [kB/s]"
    ]
    assert axis.get_ylim() == pytest.approx([limit / 1000 for limit in limits])
    assert band(axis) == [pytest.approx([limit / 1000 for limit in drawn])]


def test_what_is_missing_is_a_gap() -> None:
    verdicts = drawn_verdicts("nnnnnnnn", [0.5, 0.5, NAN, 0.5, 0.5, 0.5, 0.5, 0.5])
    verdicts[2] = replace(verdicts[2], predicted=np.full(12, NAN))
    # And one that was never judged, after the sixth record.
    del verdicts[6]
    axis = axes_of(verdicts)["net_up [kB/s]"]
    missing = [False, False, True, False, False, False, True, False]
    for label in ("actual", "expected"):
        assert np.isnan(line(axis, label).get_ydata()).tolist() == missing
    assert len(band(axis)) == 3
    assert np.isnan(line(axes_of(verdicts)["mem RMSE"], "window RMSE").get_ydata()).tolist() == [
        *[False] * 6,
        True,
        False,
    ]


def test_the_legend_names_each_thing_once() -> None:
    figure = draw_detection(
        BUNDLE, THRESHOLDS, drawn_verdicts("naaa!n"), [window(0, 2, 15.0), window(3, 4, 15.0)], ""
    )
    (legend,) = figure.legends
    assert sorted(text.get_text() for text in legend.get_texts()) == [
        "actual",
        "alert",
        "allowed",
        "anomaly",
        "attack",
        "expected",
        "threshold",
        "window RMSE",
    ]


# --- alerts --------------------------------------------------------------------------------------


def row_of(pattern: str, causes: tuple[str, ...] = ("cpu",)) -> list[Verdict]:
    """verdicts_of 15 s apart with their count in a row; . is an unknown record that ends it.

    A is an anomaly that starts a new row though nothing says that the one before has ended, M an alert
    whose first anomalies nobody saw.
    """
    verdicts, count, is_up = [], 0, False
    letters = pattern.translate({ord("."): "?", ord("A"): "a", ord("M"): "!"})
    for letter, verdict in zip(pattern, verdicts_of(letters, 15.0, causes), strict=True):
        count = {"n": 0, ".": 0, "?": count, "A": 1, "M": 7}.get(letter, count + 1)
        is_up = letter in "!M" or (is_up and letter in "?a")
        verdicts.append(replace(verdict, in_a_row=count, is_alert_up=is_up))
    return verdicts


def alerts_of(verdicts: list[Verdict]) -> dict[int | None, Alert]:
    """Each alert by the verdict that ended it, None for the one that is open at the end."""
    alerts = Alerts()
    ended = {i: alerts.observe(verdict) for i, verdict in enumerate(verdicts)}
    ended[None] = alerts.up
    return {i: alert for i, alert in ended.items() if alert is not None}


def places(alert: Alert, verdicts: list[Verdict]) -> tuple[int, int, int, int, int]:
    """First anomaly, start, end, first and last record drawn, counted in records of row_of."""
    records = alert.records_of(verdicts)
    times = (alert.first_anomaly, alert.start, alert.end, records[0].time, records[-1].time)
    return tuple((time - START) // (15 * SECOND) for time in times)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        # A row that never becomes an alert has no picture.
        ("nnaaannannaaan", {}),
        ("naaa", {}),
        ("", {}),
        # From 30 records before the first anomaly to the one that ends the alert.
        ("n" * 40 + "aaa!!!n" + "n" * 40, {46: (40, 43, 46, 10, 46)}),
        ("nnaaa!n", {6: (2, 5, 6, 0, 6)}),
        # What is unknown does not end it, until a window of it does.
        ("naaa!?!??!n", {10: (1, 4, 10, 0, 10)}),
        ("n?a??aa!n", {8: (2, 7, 8, 0, 8)}),
        ("naaa!!" + "?" * 29 + ".n", {35: (1, 4, 35, 0, 35)}),
        # A row that ended in silence.
        ("naaa!!Aaa!n", {6: (1, 4, 5, 0, 5), 10: (6, 9, 10, 0, 10)}),
        ("naaAaa!n", {7: (3, 6, 7, 0, 7)}),
        # Still open at the end.
        ("n" * 35 + "aaa!!", {None: (35, 38, 39, 5, 39)}),
        ("aaa!?", {None: (0, 3, 4, 0, 4)}),
        # One picture for each; the next one starts with records of the last.
        ("naaa!nnaaa!!!n", {5: (1, 4, 5, 0, 5), 13: (7, 10, 13, 0, 13)}),
        ("n" * 30 + "aaa!nnaaa!n", {34: (30, 33, 34, 0, 34), 40: (36, 39, 40, 6, 40)}),
        ("naaa!naan", {5: (1, 4, 5, 0, 5)}),
        # Seen from its middle only.
        ("?M!n", {3: (1, 1, 3, 0, 3)}),
    ],
)
def test_an_alert_is_recorded_from_before_its_first_anomaly_to_its_end(
    pattern: str, expected: dict[int | None, tuple[int, int, int, int, int]]
) -> None:
    verdicts = row_of(pattern)
    alerts = alerts_of(verdicts)
    assert {end: places(alert, verdicts) for end, alert in alerts.items()} == expected
    assert [alert.is_open for alert in alerts.values()] == [end is None for end in expected]
    for alert in alerts.values():
        slots = [(verdict.time - START) // (15 * SECOND) for verdict in alert.records_of(verdicts)]
        assert slots == list(range(slots[0], slots[-1] + 1))


def counted(pattern: str) -> list[Verdict]:
    """verdicts_of 15 s apart, n normal and a anomaly, as the rule judges and counts them."""
    row, verdicts = Row(), []
    for letter, verdict in zip(pattern, verdicts_of(pattern, 15.0), strict=True):
        status = row.status(letter == "a", letter == "?")
        counts = {"in_a_row": row.anomalies, "recent": row.recent, "is_alert_up": row.is_up}
        verdicts.append(replace(verdict, status=status, **counts))
    return verdicts


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        # One alert from the eighth anomaly on, until three of the last 30 records are left.
        ("n" * 40 + "ann" * 20 + "n" * 40, {118: (40, 61, 118, 10, 118)}),
        ("n" * 40 + "aannnnnn" * 20 + "n" * 40, {214: (40, 65, 214, 10, 214)}),
        ("n" * 40 + "ann" * 8, {None: (40, 61, 63, 10, 63)}),
        # A row within it is no end of it.
        ("ann" * 9 + "aaaa" + "ann" * 9 + "n" * 40, {76: (0, 21, 76, 0, 76)}),
        # What came before is not part of it.
        ("a" + "n" * 50 + "an" * 8 + "n" * 30, {89: (51, 65, 89, 21, 89)}),
        ("aaaa" + "n" * 50 + "an" * 8 + "n" * 30, {4: (0, 3, 4, 0, 4), 92: (54, 68, 92, 24, 92)}),
    ],
)
def test_an_alert_that_comes_and_goes_is_recorded_as_one(
    pattern: str, expected: dict[int | None, tuple[int, int, int, int, int]]
) -> None:
    verdicts = counted(pattern)
    assert {end: places(alert, verdicts) for end, alert in alerts_of(verdicts).items()} == expected


def test_an_alert_that_ends_in_slots_without_a_record_ends_with_the_last_one() -> None:
    # In the skipped slots too few recent anomalies were left; the next anomaly makes it four again.
    verdicts = counted("n" * 40 + "an" * 8 + "?" * 21 + "??a" + "n")
    seen = verdicts[:77] + verdicts[79:]
    assert {end: places(alert, seen) for end, alert in alerts_of(seen).items()} == {77: (40, 54, 76, 10, 76)}


@given(st.lists(st.sampled_from(["n", "nnnn", "a", "an", "ann", "aaaa", "?", "?" * 30]), max_size=60))
@settings(deadline=None, derandomize=True, database=None)
@example(["aaaa", "?", "aaaa"])
@example(["an"] * 8 + ["n"] * 30 + ["an"] * 8)
def test_pictures_incidents_and_counts_know_the_same_alerts(parts: list[str]) -> None:
    verdicts = counted("".join(parts))
    alerted = np.array([verdict.status == ALERT for verdict in verdicts], dtype=bool)
    up = np.array([verdict.is_alert_up for verdict in verdicts], dtype=bool)
    assert len(alerts_of(verdicts)) == count_alerts(alerted, up)
    incidents = Incidents()
    for verdict in verdicts:
        incidents.observe(replace(verdict, rmse=dict.fromkeys(NAMES, 1.0)), THRESHOLDS)
        assert incidents.is_open or not verdict.is_alert_up


def test_of_a_long_alert_the_newest_records_are_kept_and_its_true_start() -> None:
    verdicts = row_of("n" * 30 + "aaa" + "!" * 2000 + "n")
    alerts = alerts_of(verdicts)
    assert {end: places(alert, verdicts) for end, alert in alerts.items()} == {
        2033: (30, 33, 2033, 594, 2033)
    }
    assert len(alerts[2033].records_of(verdicts)) == 1440


def test_the_causes_of_an_alert_are_those_of_all_its_anomalies() -> None:
    causes = [("mem",), (), ("net_5g_up", "mem"), ("cpu_tx",), ("cpu", "net_5g_up"), ("net_down",)]
    verdicts = row_of("naaa!!nn")
    for i, some in enumerate(causes, start=1):
        verdicts[i] = replace(verdicts[i], causes=some if i < 6 else ())
    (alert,) = alerts_of(row_of("naaan", ("net_up",)) + verdicts).values()
    assert alert.causes == ("cpu", "cpu_tx", "net_5g_up", "mem")


# 2026-03-06T12:00:14.098Z
FIRST = 1_772_798_414 * SECOND + 98_000_000
MINUTE = 60 * SECOND


@pytest.mark.parametrize(
    ("first", "start", "end", "is_open", "causes", "title"),
    [
        (
            *(FIRST, FIRST + 45 * SECOND, FIRST + 18 * MINUTE, False, ("cpu", "net_up")),
            "cpu | net_up: alert from 12:00:59 to 12:18:14 UTC on 2026-03-06 (17 min 15 s),"
            " first anomaly 12:00:14",
        ),
        (
            *(FIRST, FIRST + 46 * SECOND, FIRST + 61 * SECOND, True, ()),
            "unknown cause: alert from 12:01:00, still up at 12:01:15 UTC on 2026-03-06 (15 s),"
            " first anomaly 12:00:14",
        ),
        (
            *(FIRST, FIRST + MINUTE, FIRST + 721 * MINUTE, False, ("mem",)),
            "mem: alert from 2026-03-06 12:01:14 to 2026-03-07 00:01:14 UTC (12 h),"
            " first anomaly 2026-03-06 12:00:14",
        ),
        (
            *(FIRST, FIRST + MINUTE, FIRST + MINUTE, True, ("mem",)),
            "mem: alert from 12:01:14, still up at 12:01:14 UTC on 2026-03-06 (0 s), first anomaly 12:00:14",
        ),
    ],
)
def test_a_picture_says_why_and_when(
    first: int, start: int, end: int, is_open: bool, causes: tuple[str, ...], title: str
) -> None:
    alert = Alert(first, start, end, is_open, causes)
    assert (alert.filename, alert.title) == ("alert_20260306T120014Z.png", title)


def test_an_alert_is_drawn_into_a_folder(tmp_path: Path) -> None:
    from matplotlib.image import imread

    verdicts = drawn_verdicts("naaa!n")
    alert = Alert(FIRST, FIRST + MINUTE, FIRST + MINUTE, False, ("cpu",))
    path = plot_alert(BUNDLE, THRESHOLDS, alert, verdicts, tmp_path)
    assert path == tmp_path / "alert_20260306T120014Z.png"
    assert imread(path).shape[:2] == (990, 1430)
    assert path.read_bytes().startswith(b"\x89PNG\r\n")
    # Nothing else, and the same alert is the same file.
    plot_alert(BUNDLE, THRESHOLDS, alert, verdicts, tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_an_alert_without_records_is_one_line(tmp_path: Path) -> None:
    alert = Alert(FIRST, FIRST + MINUTE, FIRST + MINUTE, False, ("cpu",))
    with pytest.raises(UserError, match=r"alert_20260306T120014Z.png: cannot be drawn; polls.jsonl in"):
        plot_alert(BUNDLE, THRESHOLDS, alert, [], tmp_path)
    assert list(tmp_path.iterdir()) == []


# Of matplotlib's dates, which are days since 1970.
DAY_OF_START = START / SECOND / 86_400


def drawn_alert(
    pattern: str,
    actual: Sequence[float] | float = 9.5,
    causes: tuple[str, ...] = ("cpu",),
    first: int | None = None,
) -> Figure:
    """The picture of an alert over such records, its first anomaly by default that of the last row."""
    verdicts = drawn_verdicts(pattern, actual, causes)
    if first is None:
        first = pattern.rindex("aaa!")
    time = START + first * 15 * SECOND
    start = max(time, verdicts[0].time)
    alert = Alert(time, start, verdicts[-1].time, False, causes)
    return draw_alert(BUNDLE, THRESHOLDS, alert, verdicts)


def dots(axis: Axes) -> dict[str, list[int]]:
    """The records that have a dot, by what it means."""
    found = {}
    for area in axis.collections:
        if area.get_label() in ("anomaly", "alert"):
            times = area.get_offsets()[:, 0] - DAY_OF_START
            found[area.get_label()] = [round(time * 86_400 / 15) for time in times]
    return found


def notes(figure: Figure) -> list[str]:
    """The footnotes: all text below the axes."""
    return [
        text for note in figure.texts if note.get_position()[1] < 0.1 for text in note.get_text().splitlines()
    ]


def test_the_picture_of_an_alert_has_the_levels_alone() -> None:
    verdicts = drawn_verdicts("nnaaa!n", 9.5)
    alert = Alert(START, START, verdicts[-1].time, False, ("cpu",))
    figure = draw_alert(BUNDLE, THRESHOLDS, alert, verdicts)
    assert [axis.get_ylabel().split()[0] for axis in figure.axes] == list(METRICS)
    assert [axis.get_xlabel() for axis in figure.axes] == [""] * 6 + ["time [UTC]"] * 2
    assert figure.get_suptitle() == alert.title
    for axis in figure.axes:
        assert len(line(axis, "actual").get_xdata()) == len(line(axis, "expected").get_xdata()) == 7
        assert len(band(axis)) == 1
    (legend,) = figure.legends
    assert sorted(text.get_text() for text in legend.get_texts()) == sorted(
        ["actual", "alert", "allowed", "anomaly", "expected", "this alert"]
    )


@pytest.mark.parametrize("causes", [("cpu",), ("cpu_tx", "net_5g_up", "mem"), tuple(METRICS), ()])
def test_the_picture_of_an_alert_marks_its_causes(causes: tuple[str, ...]) -> None:
    for name, axis in zip(METRICS, drawn_alert("nnaaa!n", causes=causes).axes, strict=True):
        label, is_cause = axis.yaxis.label, name in causes
        assert (label.get_color() == "red", label.get_weight() == "bold") == (is_cause, is_cause), name
        assert dots(axis) == ({"anomaly": [2, 3, 4], "alert": [5]} if is_cause else {}), name


@pytest.mark.parametrize(
    ("pattern", "first", "span"),
    [
        ("nnaaa!n", 2, (2, 6)),
        ("aaa!!", 0, (0, 4)),
        # Its first records are too old to be drawn.
        ("!!!!!n", -50, (0, 5)),
    ],
)
def test_the_picture_of_an_alert_shades_its_time(pattern: str, first: int, span: tuple[int, int]) -> None:
    strong, faint = [], []
    for axis in drawn_alert(pattern, first=first).axes:
        (shade,) = axis.patches
        days = np.array([shade.get_x(), shade.get_x() + shade.get_width()]) - DAY_OF_START
        assert days * 86_400 / 15 == pytest.approx(span, abs=1e-3)
        assert shade.get_facecolor()[0] > 2 * shade.get_facecolor()[1]
        (strong if axis.yaxis.label.get_color() == "red" else faint).append(shade.get_alpha())
        # All that is drawn is in sight, and hardly more.
        low, high = (np.array(axis.get_xlim()) - DAY_OF_START) * 86_400 / 15
        assert -0.2 < low < 0 and len(pattern) - 1 < high < len(pattern) - 0.8
    assert min(strong) > max(faint) > 0


def test_only_records_of_the_alert_have_dots() -> None:
    axes = {axis.get_ylabel().split()[0]: axis for axis in drawn_alert("naaa!!nannaaa!!n").axes}
    assert dots(axes["cpu"]) == {"anomaly": [10, 11, 12], "alert": [13, 14]}
    # What the earlier one was is still there as a curve.
    assert line(axes["cpu"], "actual").get_ydata() == pytest.approx(np.full(16, 3900.0))


INSIDE = "A dot inside the allowed band: the level changed too fast, or has lasted too long."
NO_CAUSE = (
    "Unknown cause: no single metric is far enough from what was expected, but all of them together are."
)


@pytest.mark.parametrize(
    ("pattern", "actual", "causes", "expected"),
    [
        # All dots are outside.
        ("nnaaa!n", 9.5, ("cpu",), []),
        # The records that are no anomaly of it are no dots.
        ("nnaaa!n", [0.5, 0.5, *[9.5] * 4, 0.5], ("cpu",), []),
        ("nnaaa!n", [9.5] * 5 + [0.5, 9.5], ("cpu",), [INSIDE]),
        ("nnaaa!n", [9.5, 9.5, 0.5, *[9.5] * 4], ("net_up", "mem"), [INSIDE]),
        # A metric without a rate.
        ("nnaaa!n", 0.5, ("net_up", "net_5g_down"), [INSIDE]),
        # An earlier alert's.
        ("naaa!naaa!n", [0.5] * 5 + [9.5] * 6, ("cpu",), []),
        # What is unknown is neither.
        ("nnaaa!n", NAN, ("cpu",), []),
        ("nnaaa!n", 0.5, (), [NO_CAUSE]),
    ],
)
def test_a_footnote_explains_a_dot_inside_the_band(
    pattern: str, actual: Sequence[float] | float, causes: tuple[str, ...], expected: list[str]
) -> None:
    assert notes(drawn_alert(pattern, actual, causes)) == expected


def test_missing_records_of_an_alert_are_a_gap_without_dots() -> None:
    verdicts = drawn_verdicts("nnaaa!!!n", 9.5)
    del verdicts[6]
    alert = Alert(verdicts[2].time, verdicts[5].time, verdicts[-1].time, True, ("cpu",))
    axis = draw_alert(BUNDLE, THRESHOLDS, alert, verdicts).axes[0]
    assert np.isnan(line(axis, "actual").get_ydata()).tolist() == [False] * 6 + [True] + [False] * 2
    assert dots(axis) == {"anomaly": [2, 3, 4], "alert": [5, 7]}


def test_the_folder_of_the_pictures_is_made(tmp_path: Path) -> None:
    for _ in range(2):
        make_plot_dir(tmp_path / "plots" / "alerts")
    assert [path.name for path in tmp_path.rglob("*")] == ["plots", "alerts"]


@pytest.mark.parametrize(("below", "reason"), [("", "File exists"), ("alerts", "Not a directory")])
def test_a_folder_that_cannot_be_made_is_refused_in_one_line(below: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "plots").write_text("a file")
    folder = tmp_path / "plots" / below
    expected = f"{folder}: pictures cannot be written there ({reason}); name another --plot_dir"
    with pytest.raises(UserError, match=f"^{re.escape(expected)}$"):
        make_plot_dir(folder)
    assert (tmp_path / "plots").read_text() == "a file"


def test_a_line_of_many_records_is_drawn_from_its_peaks_and_gaps() -> None:
    # 6,000 records in parts of five: a peak, a dip and a missing record in three of them.
    actual = np.full(6_000, 0.5)
    actual[[1_004, 2_506, 4_503]] = 0.75, 0.25, NAN
    axis = axes_of(drawn_verdicts("n" * 6_000, actual))["net_up [kB/s]"]
    drawn = line(axis, "actual")
    assert len(drawn.get_xdata()) == 1_204
    values = np.asarray(drawn.get_ydata())
    # 100 to 500 B/s: 0.5 is 300.
    assert sorted(set(values[~np.isnan(values)])) == pytest.approx([0.2, 0.3, 0.4])
    seconds = (np.asarray(drawn.get_xdata()) - np.datetime64(START, "ns")) // np.timedelta64(15, "s")
    assert [int(seconds[np.nanargmax(values)]), int(seconds[np.nanargmin(values)])] == [1_004, 2_506]
    assert seconds[np.isnan(values)].tolist() == [4_503]
