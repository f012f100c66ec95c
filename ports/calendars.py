"""`--calendar`: windows of maintenance and events, in which alerts are kept quiet and nothing is learnt."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from common.files import UserError, loadDictJson, shortened
from common.times import parse_time
from ports.preparation import DAY_MINUTES, WEEK_MINUTES, Buckets, week_slots
from ports.series import KnownAnomaly, port_tags

# Many times what a calendar needs.
CALENDAR_BYTES = 10_000_000
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WEEKLY = re.compile(r"(?P<day>[a-z]{3}) +(?P<from>\d\d:\d\d) *- *(?P<until>\d\d:\d\d)", re.IGNORECASE)
_KEYS = ("from", "until", "weekly", "series")


@dataclass(frozen=True)
class Window:
    """One window. start, end: seconds since 1970; or, if `is_weekly`, minutes of the local week from Monday
    at midnight, with an end that may be in the next week. series: shell patterns of the names of series or
    devices.
    """

    name: str
    start: int
    end: int
    is_weekly: bool
    series: tuple[str, ...] = ("*",)

    def concerns(self, series: str) -> bool:
        """Whether it is a window of this series."""
        names = (series, port_tags(series)["device"])
        return any(fnmatchcase(name, pattern) for name in names for pattern in self.series)

    def touches(self, starts: np.ndarray, minutes: int, zone: str) -> np.ndarray:
        """Which buckets of so many minutes it touches (n,). starts: seconds since 1970 (n,)."""
        if not self.is_weekly:
            return (starts < self.end) & (starts + minutes * 60 > self.start)
        local = week_slots(starts, 1, zone)
        begins_inside = (local - self.start) % WEEK_MINUTES < self.end - self.start
        return begins_inside | ((self.start - local) % WEEK_MINUTES < minutes)


@dataclass(frozen=True)
class Calendar:
    """The windows of a file, or of one series."""

    windows: tuple[Window, ...] = ()

    def of(self, series: str) -> Calendar:
        """The windows of one series."""
        return Calendar(tuple(window for window in self.windows if window.concerns(series)))

    def mark(self, buckets: Buckets, zone: str) -> Buckets:
        """The same buckets of one series; those that a window touches are quiet."""
        is_quiet = np.zeros(len(buckets.starts), dtype=bool)
        for window in self.windows:
            is_quiet |= window.touches(buckets.starts, buckets.minutes, zone)
        return replace(buckets, is_quiet=is_quiet)

    def excuses(self, known: KnownAnomaly, zone: str) -> bool:
        """Whether a window touches a known anomaly, which then cannot be asked of a detector."""
        minutes = np.arange(known.start // 60 * 60, known.end, 60)
        return any(window.touches(minutes, 1, zone).any() for window in self.windows)

    def unused(self, series: Sequence[str]) -> list[str]:
        """The names of windows that concern none of these series."""
        return [window.name for window in self.windows if not any(map(window.concerns, series))]


def load_calendar(filename: str | Path) -> Calendar:
    """Read a calendar file: name -> window. Raises UserError that names the file, the key and the remedy."""
    windows = []
    for name, entry in loadDictJson(filename, CALENDAR_BYTES).items():
        try:
            windows.append(_window(name, entry))
        except ValueError as error:
            raise UserError(f"{filename}: {shortened(repr(name))}: {error}") from None
    return Calendar(tuple(windows))


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
    return Window(name, start, end, is_weekly, _patterns(entry.get("series", ["*"])))


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
