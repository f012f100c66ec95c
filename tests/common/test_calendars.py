"""When the windows of a calendar are, in the local time of a zone."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from common.calendars import Window
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
