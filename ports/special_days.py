"""Public holidays and bridge days: when they are, and what the traffic of a port is like on them.

The dates come from the package `holidays` when a model is trained, and go into its file: judging does not
need the package.
"""

from __future__ import annotations

import difflib
import functools
from dataclasses import dataclass, replace
from datetime import date, timedelta

import numpy as np
import pandas as pd

from ports.preparation import Buckets, known_medians
from ports.weeks import WEEK_DAYS, day_levels, day_medians, first_slot, week_rows

# Kinds of days, as in Buckets.
ORDINARY, HOLIDAY, BRIDGE = 0, 1, 2
SUNDAY = 6
ONE_DAY = timedelta(days=1)
# Another weekday than Sunday or their own must fit holidays so many times as well.
BETTER_FIT = 1.1
# As difflib counts how near the name of a country is.
NEAR_NAME = 0.75


@dataclass(frozen=True)
class SpecialDays:
    """Local dates in order of time. weekend: weekdays without work; 0 is Monday.

    A bridge is a working day between two days without work, one of which is a holiday.
    """

    holidays: tuple[date, ...]
    bridges: tuple[date, ...]
    weekend: tuple[int, ...]

    def mark(self, buckets: Buckets, zone: str) -> Buckets:
        """The same buckets with the kind of their local day."""
        local = pd.DatetimeIndex(pd.to_datetime(buckets.starts, unit="s", utc=True)).tz_convert(zone)
        days = local.tz_localize(None).to_numpy().astype("datetime64[D]")
        kinds = np.full(len(days), ORDINARY)
        for kind, dates in ((HOLIDAY, self.holidays), (BRIDGE, self.bridges)):
            kinds[np.isin(days, np.array(dates, dtype="datetime64[D]"))] = kind
        return replace(buckets, kinds=kinds)


# --- when they are -------------------------------------------------------------------------------


def parse_country(text: str) -> str:
    """A country or subdivision in any case as the package `holidays` writes it, like IT or GB-ENG.

    Raises ValueError, in one line with the remedy, for one that it does not know.
    """
    import holidays

    known = holidays.list_supported_countries()
    code, _, part = text.strip().partition("-")
    country = code.upper()
    if country not in known:
        raise ValueError(f"'{text}' is not a country like IT or GB-ENG{_suggestion(code)}")
    if not part:
        return country
    parts = {one.upper(): one for one in known[country]}
    if part.upper() not in parts:
        known_parts = f"choose from {', '.join(known[country])}" if parts else "it has none"
        raise ValueError(f"'{text}': {country} has no subdivision {part!r}; {known_parts}")
    return f"{country}-{parts[part.upper()]}"


def _suggestion(text: str) -> str:
    """The codes of countries whose name is near the text."""
    from holidays.registry import COUNTRIES

    near = difflib.get_close_matches(text.lower().replace(" ", "_"), COUNTRIES, cutoff=NEAR_NAME)
    return f"; did you mean {' or '.join(COUNTRIES[name][1] for name in near)}?" if near else ""


@functools.lru_cache
def special_days(country: str, first: date, last: date) -> SpecialDays:
    """Those of a country, as parse_country returns it, from the day `first` to the day `last`."""
    import holidays

    code, _, part = country.partition("-")
    found = holidays.country_holidays(code, subdiv=part or None, years=range(first.year - 1, last.year + 2))
    weekend = set(found.weekend)

    def is_free(day: date) -> bool:
        return day in found or day.weekday() in weekend

    days = [first + number * ONE_DAY for number in range((last - first).days + 1)]
    bridges = [
        day
        for day in days
        if not is_free(day)
        and is_free(day - ONE_DAY)
        and is_free(day + ONE_DAY)
        and (day - ONE_DAY in found or day + ONE_DAY in found)
    ]
    return SpecialDays(tuple(day for day in days if day in found), tuple(bridges), tuple(sorted(weekend)))


# --- what traffic is like on them ----------------------------------------------------------------


@dataclass(frozen=True)
class HolidayShape:
    """What the traffic of a port is like on public holidays. weekday: the one that they resemble, 0 is
    Monday; None if each is like its own weekday. levels: (7,), how far the level of each weekday is from that
    of most.
    """

    weekday: int | None
    levels: np.ndarray

    def expected(self, usual: np.ndarray, buckets: Buckets) -> tuple[np.ndarray, np.ndarray]:
        """What is usual in each bucket, and how far from it a bridge day may be, both (n,).

        usual: the usual week without its level (slots,).
        """
        own = usual[buckets.slots]
        if self.weekday is None:
            return own, np.zeros(len(own))
        per_day = len(usual) // WEEK_DAYS
        levels = _through_the_week(self.levels, per_day)
        # With the level of the day that it is: what follows a holiday is judged with that.
        like = (usual + levels)[self.weekday * per_day + buckets.slots % per_day] - levels[buckets.slots]
        return (
            np.where(buckets.kinds == HOLIDAY, like, own),
            np.where(buckets.kinds == BRIDGE, like - own, 0.0),
        )


def learn_holidays(
    ordinary: np.ndarray, values: np.ndarray, usual: np.ndarray, buckets: Buckets, weekend: tuple[int, ...]
) -> HolidayShape:
    """Which weekday the holidays among the values (n,) resemble.

    ordinary: the values (n,) that were learnt, NaN for others. usual: as in HolidayShape. Holidays at
    weekends do not count, because they tell little. Without any other, a holiday is like a Sunday, or like
    the last day of the weekend where Sunday is a working day.
    """
    slots, first = buckets.slots, first_slot(buckets.slots, buckets.minutes)
    per_day = len(usual) // WEEK_DAYS
    weeks = week_rows(ordinary, slots, buckets.minutes)
    days = day_medians(np.roll(weeks, first, axis=1) - usual).reshape(-1, WEEK_DAYS)
    levels = np.nan_to_num(known_medians((days - known_medians(days)[:, None]).T))
    week = usual + _through_the_week(levels, per_day)
    rest = week_rows(values, slots, buckets.minutes) - day_levels(weeks - np.roll(week, -first))
    counts = (buckets.kinds == HOLIDAY) & ~np.isin(slots // per_day, weekend)
    is_holiday = week_rows(np.where(counts, 1.0, np.nan), slots, buckets.minutes) == 1.0
    rest = rest[is_holiday]
    places = np.broadcast_to(np.roll(np.arange(len(usual)), -first), is_holiday.shape)[is_holiday]
    free = SUNDAY if SUNDAY in weekend else max(weekend, default=SUNDAY)
    is_known = ~np.isnan(rest)
    if not is_known.any():
        return HolidayShape(free, levels)
    rest, places = rest[is_known], places[is_known]
    distances = {
        weekday: float(
            np.abs(rest - week[places if weekday is None else weekday * per_day + places % per_day]).mean()
        )
        for weekday in (free, None, *range(WEEK_DAYS))
    }
    most = BETTER_FIT * min(distances.values())
    return HolidayShape(next(day for day, distance in distances.items() if distance <= most), levels)


def _through_the_week(levels: np.ndarray, per_day: int) -> np.ndarray:
    """The level of each weekday (7,), interpolated between the middles of the days: (slots,)."""
    middles = np.arange(WEEK_DAYS) * per_day + (per_day - 1) / 2
    return np.interp(np.arange(WEEK_DAYS * per_day), middles, levels, period=WEEK_DAYS * per_day)
