"""Calendar files: windows of maintenance and events, in a form that both halves read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from common.files import UserError, loadDictJson, shortened
from common.public_holidays import is_holiday, parse_country
from common.times import DAY_MINUTES, DAY_SECONDS, WEEK_MINUTES, local_minute, parse_time

# Many times what a calendar needs.
CALENDAR_BYTES = 10_000_000
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_HOURS = r"(?P<from>\d\d:\d\d) *- *(?P<until>\d\d:\d\d)"
_DAILY = re.compile(_HOURS)
_WEEKLY = re.compile(rf"(?P<day>[a-z]{{3}}) +{_HOURS}", re.IGNORECASE)
# A window has either both of the first, or one of the others.
_KINDS = ("weekly", "daily", "holidays")
_KEYS = ("from", "until", *_KINDS, "series", "nodes")
ALL_SERIES = ("*",)


@dataclass(frozen=True)
class Window:
    """One window. start, end: seconds since 1970; or, if `is_weekly`, minutes of the local week from Monday
    at midnight, with an end that may be in the next week; or, if `is_daily`, minutes of the local day, with
    an end that may be on the next one.

    series: shell patterns of the names of ports' series or devices. nodes: of edge nodes; without any, a
    window of all series is of all nodes. country: it is all public holidays there, if there is one.
    """

    name: str
    start: int
    end: int
    is_weekly: bool
    series: tuple[str, ...] = ALL_SERIES
    nodes: tuple[str, ...] = ()
    is_daily: bool = False
    country: str = ""

    @property
    def is_fixed(self) -> bool:
        """Whether it comes once."""
        return not (self.is_weekly or self.is_daily)

    def concerns_node(self, name: str) -> bool:
        """Whether it is a window of this edge node, whose name is empty if it is the only one."""
        patterns = self.nodes or (ALL_SERIES if self.series == ALL_SERIES else ())
        return any(fnmatchcase(name, pattern) for pattern in patterns)

    def spans(self, start: int, end: int, zone: str) -> Iterator[tuple[int, int]]:
        """When it is, as far as it touches `start` to before `end`: starts and ends, in seconds since 1970.

        zone: the local time of a window that comes again.
        """
        found = [(self.start, self.end)] if self.is_fixed else self._repeated(start, end, zone)
        for begin, until in found:
            if begin < end and until > start:
                yield begin, until

    def _repeated(self, start: int, end: int, zone: str) -> Iterator[tuple[int, int]]:
        """A window that comes again, each time from before `start` to `end`."""
        day = datetime.fromtimestamp(start, UTC).replace(hour=0, minute=0, second=0)
        # One of the week that goes on into the next may have begun 8 days ago, or 9 in another zone.
        first = day - timedelta(days=day.weekday() + 14 if self.is_weekly else 3)
        while first.timestamp() < end + DAY_SECONDS:
            if not self.country or is_holiday(self.country, first.date()):
                midnight = int(first.timestamp())
                yield from _by_the_clock(midnight + self.start * 60, midnight + self.end * 60, zone)
            first += timedelta(days=7 if self.is_weekly else 1)

    def is_at(self, time: int, zone: str) -> bool:
        """Whether it is there at a time (seconds since 1970), by the clock on the wall of its zone."""
        if self.is_fixed:
            return self.start <= time < self.end
        local = datetime.fromtimestamp(time, ZoneInfo(zone))
        if self.country:
            return is_holiday(self.country, local.date())
        minute = local_minute(time * 10**9, zone) + (local.weekday() * DAY_MINUTES if self.is_weekly else 0)
        return (minute - self.start) % (
            WEEK_MINUTES if self.is_weekly else DAY_MINUTES
        ) < self.end - self.start


def _by_the_clock(start: int, end: int, zone: str) -> Iterator[tuple[int, int]]:
    """When the clock on the wall shows a time from `start` to before `end`, in seconds since 1970.

    start, end: local, as if they were in UTC. A time that the clocks skip is never, one that they show twice
    is there twice.
    """
    before, after = start - DAY_SECONDS, end + DAY_SECONDS
    first, last = _offset(before, zone), _offset(after, zone)
    if first == last:
        yield start - first, end - first
        return
    while after - before > 1:
        middle = (before + after) // 2
        before, after = (middle, after) if _offset(middle, zone) == first else (before, middle)
    # The clocks change at `after`.
    parts = (start - first, min(end - first, after)), (max(start - last, after), end - last)
    (begin, until), (begin_again, until_again) = parts
    if begin < until == begin_again < until_again:
        yield begin, until_again
        return
    yield from ((begin, until) for begin, until in parts if begin < until)


def _offset(time: int, zone: str) -> int:
    """How many seconds the local clock is ahead of UTC."""
    local = datetime.fromtimestamp(time, ZoneInfo(zone))
    return int(local.replace(tzinfo=UTC).timestamp()) - time


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
    kinds = [kind for kind in _KINDS if kind in entry]
    if len(kinds) + ("from" in entry or "until" in entry) != 1:
        raise ValueError('must have either "from" and "until", or one of "weekly", "daily" and "holidays"')
    country = ""
    if "weekly" in entry:
        start, end = _weekly(entry["weekly"])
    elif "daily" in entry:
        start, end = parse_daily(entry["daily"])
    elif "holidays" in entry:
        start, end, country = 0, DAY_MINUTES, _country(entry["holidays"])
    else:
        start, end = (time_in(entry, key) // 10**9 for key in ("from", "until"))
    if end <= start:
        raise ValueError('"until" must be later than "from"')
    nodes = patterns_in(entry, "nodes", "edge-*") if "nodes" in entry else ()
    # A window that names nodes alone is of no port.
    series = patterns_in(entry, "series", "core_*") if "series" in entry else () if nodes else ALL_SERIES
    is_daily = "daily" in entry or bool(country)
    return Window(name, start, end, "weekly" in entry, series, nodes, is_daily, country)


def time_in(entry: Mapping[str, Any], key: str) -> int:
    """The time of a key, in ns since 1970. Raises ValueError, in words that name the key and the remedy."""
    value = entry.get(key)
    try:
        return parse_time(value)
    except (ValueError, AttributeError):
        said = f"is {shortened(repr(value))}" if key in entry else "is missing"
        raise ValueError(f'"{key}" {said}; it must be a time like 2023-01-31T22:00:00Z') from None


def patterns_in(entry: Mapping[str, Any], key: str, example: str) -> tuple[str, ...]:
    """The patterns of names of a key. Raises ValueError as `time_in` does."""
    value = entry.get(key)
    if not isinstance(value, list) or not value or not all(isinstance(one, str) and one for one in value):
        said = f"is {shortened(repr(value))}" if key in entry else "is missing"
        raise ValueError(f'"{key}" {said}; it must be a list of patterns like ["{example}", "sw1"]')
    return tuple(value)


def parse_daily(value: Any) -> tuple[int, int]:
    """Hours like `01:45-02:30`: start and end in minutes of the local day; the end may be on the next day.

    Raises ValueError as `time_in` does.
    """
    found = _DAILY.fullmatch(value.strip()) if isinstance(value, str) else None
    if found and (hours := _hours(found)):
        return hours
    raise ValueError(f'"daily" is {shortened(repr(value))}; it must be like "01:45-02:30"')


def _hours(found: re.Match[str]) -> tuple[int, int] | None:
    """Start and end in minutes of a local day; None if they are not hours of a day."""
    (from_hour, from_minute), (until_hour, until_minute) = (
        map(int, found[key].split(":")) for key in ("from", "until")
    )
    start, end = from_hour * 60 + from_minute, until_hour * 60 + until_minute
    if start < DAY_MINUTES >= end and max(from_minute, until_minute) < 60 and start != end:
        return start, end + (DAY_MINUTES if end < start else 0)
    return None


def _weekly(value: Any) -> tuple[int, int]:
    """Start and end in minutes of the local week; the end may be on the day after."""
    found = _WEEKLY.fullmatch(value.strip()) if isinstance(value, str) else None
    if found and found["day"].lower() in WEEKDAYS and (hours := _hours(found)):
        day = WEEKDAYS.index(found["day"].lower()) * DAY_MINUTES
        return day + hours[0], day + hours[1]
    raise ValueError(f'"weekly" is {shortened(repr(value))}; it must be like "sun 02:00-04:00"')


def _country(value: Any) -> str:
    try:
        return parse_country(value)
    except ModuleNotFoundError:
        raise ValueError(
            '"holidays" needs a package that is not installed here; pip install holidays, or list the days'
            ' with "from" and "until"'
        ) from None
    except AttributeError:
        said = shortened(repr(value))
    except ValueError as error:
        raise ValueError(f'"holidays": {error}') from None
    raise ValueError(f'"holidays" is {said}; it must be a country like "IT" or "GB-ENG"')
