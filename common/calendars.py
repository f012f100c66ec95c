"""Calendar files: windows of maintenance and events, in a form that both halves read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from common.files import UserError, loadDictJson, shortened
from common.times import DAY_MINUTES, DAY_SECONDS, parse_time

# Many times what a calendar needs.
CALENDAR_BYTES = 10_000_000
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WEEKLY = re.compile(r"(?P<day>[a-z]{3}) +(?P<from>\d\d:\d\d) *- *(?P<until>\d\d:\d\d)", re.IGNORECASE)
_KEYS = ("from", "until", "weekly", "series")
ALL_SERIES = ("*",)


@dataclass(frozen=True)
class Window:
    """One window. start, end: seconds since 1970; or, if `is_weekly`, minutes of the local week from Monday
    at midnight, with an end that may be in the next week. series: shell patterns of the names of ports'
    series or devices.
    """

    name: str
    start: int
    end: int
    is_weekly: bool
    series: tuple[str, ...] = ALL_SERIES

    def spans(self, start: int, end: int, zone: str) -> Iterator[tuple[int, int]]:
        """When it is, as far as it touches `start` to before `end`: starts and ends, in seconds since 1970.

        zone: the local time of a weekly window.
        """
        for begin, until in self._weeks(start, end, zone) if self.is_weekly else [(self.start, self.end)]:
            if begin < end and until > start:
                yield begin, until

    def _weeks(self, start: int, end: int, zone: str) -> Iterator[tuple[int, int]]:
        """A weekly window in each week from before `start` to `end`."""
        day = datetime.fromtimestamp(start, UTC).replace(hour=0, minute=0, second=0, tzinfo=None)
        # One that goes on into the next week may have begun 8 days ago, or 9 in another zone.
        monday = day - timedelta(days=day.weekday() + 14)
        while monday.replace(tzinfo=UTC).timestamp() < end + DAY_SECONDS:
            begin, until = (
                int((monday + timedelta(minutes=minutes)).replace(tzinfo=ZoneInfo(zone)).timestamp())
                for minutes in (self.start, self.end)
            )
            yield begin, until
            monday += timedelta(days=7)


def load_windows(filename: str | Path) -> tuple[Window, ...]:
    """Read a calendar file: name -> window. Raises UserError that names the file, the key and the remedy."""
    windows = []
    for name, entry in loadDictJson(filename, CALENDAR_BYTES).items():
        try:
            windows.append(_window(name, entry))
        except ValueError as error:
            raise UserError(f"{filename}: {shortened(repr(name))}: {error}") from None
    return tuple(windows)


def _window(name: str, entry: Any) -> Window:
    if not isinstance(entry, dict):
        raise ValueError('must be an object with "from" and "until", or with "weekly"')
    if unknown := [key for key in entry if key not in _KEYS]:
        raise ValueError(f"has an unknown key {shortened(repr(unknown[0]))}; use {', '.join(_KEYS)}")
    is_weekly = "weekly" in entry
    if is_weekly == ("from" in entry or "until" in entry):
        raise ValueError('must have either "from" and "until", or "weekly"')
    start, end = _weekly(entry["weekly"]) if is_weekly else (_time(entry, "from"), _time(entry, "until"))
    if end <= start:
        raise ValueError('"until" must be later than "from"')
    return Window(name, start, end, is_weekly, _patterns(entry.get("series", [*ALL_SERIES])))


def _time(entry: Mapping[str, Any], key: str) -> int:
    value = entry.get(key)
    try:
        return parse_time(value) // 10**9
    except (ValueError, AttributeError):
        said = f"is {shortened(repr(value))}" if key in entry else "is missing"
        raise ValueError(f'"{key}" {said}; it must be a time like 2023-01-31T22:00:00Z') from None


def _weekly(value: Any) -> tuple[int, int]:
    """Start and end in minutes of the local week; the end may be on the day after."""
    found = _WEEKLY.fullmatch(value.strip()) if isinstance(value, str) else None
    if found and found["day"].lower() in WEEKDAYS:
        (from_hour, from_minute), (until_hour, until_minute) = (
            map(int, found[key].split(":")) for key in ("from", "until")
        )
        start, end = from_hour * 60 + from_minute, until_hour * 60 + until_minute
        if start < DAY_MINUTES >= end and max(from_minute, until_minute) < 60 and start != end:
            day = WEEKDAYS.index(found["day"].lower()) * DAY_MINUTES
            return day + start, day + end + (DAY_MINUTES if end < start else 0)
    raise ValueError(f'"weekly" is {shortened(repr(value))}; it must be like "sun 02:00-04:00"')


def _patterns(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(one, str) and one for one in value):
        raise ValueError(
            f'"series" is {shortened(repr(value))}; it must be a list of patterns like ["core_*", "sw1"]'
        )
    return tuple(value)
