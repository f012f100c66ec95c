"""When the windows of a calendar are, in the local time of a zone."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from common.calendars import Window, load_windows
from common.files import UserError
from common.times import format_time

SUN, DAY = 6 * 1440, 1440


def seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def spans(window: Window, start: str, end: str, zone: str = "UTC") -> list[str]:
    return [
        f"{format_time(begin * 10**9)} {format_time(until * 10**9)}"
        for begin, until in window.spans(seconds(start), seconds(end), zone)
    ]


@pytest.mark.parametrize(
    ("start", "end", "is_there"),
    [
        ("2023-04-20T09:00", "2023-04-20T10:00", False),
        ("2023-04-20T09:00", "2023-04-20T10:01", True),
        ("2023-04-20T10:59", "2023-04-20T12:00", True),
        ("2023-04-20T11:00", "2023-04-20T12:00", False),
        ("2023-04-20T10:20", "2023-04-20T10:21", True),
    ],
)
def test_a_window_is_there_whole_if_it_touches_the_time(start: str, end: str, is_there: bool) -> None:
    window = Window("a", seconds("2023-04-20T10:00"), seconds("2023-04-20T11:00"), False)
    assert spans(window, start, end) == ["2023-04-20T10:00:00Z 2023-04-20T11:00:00Z"] * is_there


def test_a_weekly_window_follows_the_clocks_of_its_zone() -> None:
    window = Window("a", SUN + 180, SUN + 240, True)  # Sundays from 03:00 to 04:00
    # The clocks of Rome go forward on 26 March.
    assert spans(window, "2023-03-19T00:00", "2023-04-01T00:00", "Europe/Rome") == [
        "2023-03-19T02:00:00Z 2023-03-19T03:00:00Z",
        "2023-03-26T01:00:00Z 2023-03-26T02:00:00Z",
    ]


@pytest.mark.parametrize(
    ("zone", "start", "end"),
    [
        ("UTC", "2023-04-16T23:30:00Z", "2023-04-18T00:00:00Z"),
        ("Pacific/Kiritimati", "2023-04-16T09:30:00Z", "2023-04-17T10:00:00Z"),
        ("Pacific/Midway", "2023-04-17T10:30:00Z", "2023-04-18T11:00:00Z"),
    ],
)
def test_a_weekly_window_that_goes_on_into_the_next_week_is_found_from_either_end(
    zone: str, start: str, end: str
) -> None:
    window = Window("a", SUN + 1410, 8 * DAY, True)  # Sundays from 23:30 to the end of Monday
    begin, until = start.removesuffix("Z"), end.removesuffix("Z")
    assert spans(window, begin, begin.replace(":30:00", ":30:01"), zone) == [f"{start} {end}"]
    last = format_time(seconds(until) * 10**9 - 10**9).removesuffix("Z")
    assert spans(window, last, until, zone) == [f"{start} {end}"]


@pytest.mark.parametrize(
    ("time", "is_there"),
    [
        ("2023-03-20T22:44:59", False),
        ("2023-03-20T22:45:00", True),
        ("2023-03-20T23:29:59", True),
        ("2023-03-20T23:30:00", False),
        # From 26 March on, the clocks of Rome are two hours ahead of UTC.
        ("2023-03-27T21:45:00", True),
        ("2023-03-27T22:30:00", False),
    ],
)
def test_a_daily_window_follows_the_clocks_and_reaches_over_midnight(time: str, is_there: bool) -> None:
    window = Window("a", 23 * 60 + 45, DAY + 30, False, is_daily=True)
    assert window.is_at(seconds(time), "Europe/Rome") is is_there
    found = spans(window, time, format_time((seconds(time) + 1) * 10**9).removesuffix("Z"), "Europe/Rome")
    assert bool(found) is is_there


def test_holidays_are_whole_local_days() -> None:
    window = Window("a", 0, DAY, False, is_daily=True, country="IT")
    # Liberation Day.
    assert spans(window, "2023-04-23T00:00", "2023-04-28T00:00", "Europe/Rome") == [
        "2023-04-24T22:00:00Z 2023-04-25T22:00:00Z"
    ]
    times = ("2023-04-24T21:59:59", "2023-04-24T22:00:00", "2023-04-25T21:59:59", "2023-04-25T22:00:00")
    assert [window.is_at(seconds(time), "Europe/Rome") for time in times] == [False, True, True, False]


def test_a_weekly_window_is_there_at_its_local_minutes() -> None:
    window = Window("a", SUN + 1410, 8 * DAY, True)
    times = ("2023-04-16T21:29:59", "2023-04-16T21:30:00", "2023-04-17T21:59:59", "2023-04-17T22:00:00")
    assert [window.is_at(seconds(time), "Europe/Rome") for time in times] == [False, True, True, False]


@pytest.mark.parametrize(
    ("day", "hours", "found"),
    [
        # In Rome, 02:00 is 03:00 on 29 March 2026, and 03:00 is 02:00 on 25 October.
        ("2026-03-29", (105, 150), ["00:45 01:00"]),
        ("2026-03-29", (150, 210), ["01:00 01:30"]),
        ("2026-03-29", (60, 240), ["00:00 02:00"]),
        ("2026-03-29", (120, 180), []),
        ("2026-10-25", (105, 150), ["23:45 00:30", "01:00 01:30"]),
        ("2026-10-25", (150, 210), ["00:30 01:00", "01:30 02:30"]),
        ("2026-10-25", (60, 240), ["23:00 03:00"]),
        ("2026-10-25", (120, 180), ["00:00 02:00"]),
    ],
)
@pytest.mark.parametrize("is_daily", [True, False])
def test_a_change_of_the_clocks_is_by_the_clock_on_the_wall(
    is_daily: bool, day: str, hours: tuple[int, int], found: list[str]
) -> None:
    start, end = hours if is_daily else (SUN + hours[0], SUN + hours[1])
    window = Window("a", start, end, not is_daily, is_daily=is_daily)
    # From midnight in Rome on.
    first = seconds(day) - (3600 if "-03-" in day else 7200)
    minutes = range(first, first + 6 * 3600, 60)
    shown = list(window.spans(first, first + 6 * 3600, "Europe/Rome"))
    assert [
        f"{format_time(begin * 10**9)[11:16]} {format_time(until * 10**9)[11:16]}" for begin, until in shown
    ] == found
    at = [minute for minute in minutes if window.is_at(minute, "Europe/Rome")]
    assert at == [minute for begin, until in shown for minute in range(begin, until, 60)]


def test_nodes_and_series_of_a_window() -> None:
    both, nodes = Window("a", 0, 1, False), Window("a", 0, 1, False, (), ("edge-*",))
    series = Window("a", 0, 1, False, ("core",))
    names = ("edge-7", "", "core")
    assert [[one.concerns_node(name) for name in names] for one in (both, nodes, series)] == [
        [True, True, True],
        [True, False, False],
        [False, False, False],
    ]


@pytest.mark.parametrize(
    ("window", "line"),
    [
        ({"daily": "1:45-02:30"}, '"daily" is \'1:45-02:30\'; it must be like "01:45-02:30"'),
        ({"daily": "02:00-02:00"}, '"daily" is \'02:00-02:00\'; it must be like "01:45-02:30"'),
        ({"holidays": "Italia"}, "\"holidays\": 'Italia' is not a country like IT or GB-ENG"),
        ({"holidays": 7}, '"holidays" is 7; it must be a country like "IT" or "GB-ENG"'),
        (
            {"daily": "02:00-03:00", "nodes": "edge-7"},
            '"nodes" is \'edge-7\'; it must be a list of patterns like ["edge-*", "sw1"]',
        ),
    ],
)
def test_a_wrong_window_names_the_key(window: dict, line: str, tmp_path: Path) -> None:
    path = tmp_path / "calendar.json"
    path.write_text(json.dumps({"a": window}))
    with pytest.raises(UserError) as raised:
        load_windows(path)
    assert str(raised.value).startswith(f"{path}: 'a': {line}")


def test_holidays_without_their_package_say_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "holidays", None)
    path = tmp_path / "calendar.json"
    path.write_text('{"a": {"holidays": "IT"}}')
    with pytest.raises(UserError) as raised:
        load_windows(path)
    assert str(raised.value) == (
        f"{path}: 'a': \"holidays\" needs a package that is not installed here; pip install holidays, or list"
        ' the days with "from" and "until"'
    )
