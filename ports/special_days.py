"""Public holidays and bridge days: when they are, and what the traffic of a port is like on them.

The dates come from the package `holidays` when a model is trained, and go into its file: judging does not
need the package.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from datetime import date, timedelta

import numpy as np
import pandas as pd

from ports.preparation import Buckets
from ports.weeks import WEEK_DAYS, day_levels, first_slot, week_rows

# Kinds of days, as in Buckets.
ORDINARY, HOLIDAY, BRIDGE = 0, 1, 2
SUNDAY = 6
ONE_DAY = timedelta(days=1)
# On the model's scale. Another weekday than Sunday or their own must fit holidays so much better.
BETTER_FIT = 0.05


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


def expected_in(usual: np.ndarray, buckets: Buckets, weekday: int | None) -> tuple[np.ndarray, np.ndarray]:
    """What is usual in each bucket, and how far from it a bridge day may be, both (n,).

    usual: the usual week (slots,). weekday: the one that public holidays resemble, 0 is Monday; None if each
    is like its own.
    """
    own = usual[buckets.slots]
    like = own if weekday is None else usual[_on(weekday, buckets.slots, len(usual))]
    is_holiday, is_bridge = buckets.kinds == HOLIDAY, buckets.kinds == BRIDGE
    return np.where(is_holiday, like, own), np.where(is_bridge, like - own, 0.0)


def _on(weekday: int, slots: np.ndarray, slots_in_week: int) -> np.ndarray:
    """The same times of day (n,) on a weekday."""
    per_day = slots_in_week // WEEK_DAYS
    return weekday * per_day + slots % per_day


def resembled_weekday(
    ordinary: np.ndarray, values: np.ndarray, usual: np.ndarray, buckets: Buckets, weekend: tuple[int, ...]
) -> int | None:
    """Which weekday the holidays among the values (n,) resemble; None if each is like its own.

    ordinary: the values (n,) that were learnt, NaN for others. usual: the usual week (slots,). Holidays at
    weekends tell little, and do not count. Without any other, a holiday is like a Sunday, or like the last
    day of the weekend where Sunday is a working day.
    """
    slots, first = len(usual), first_slot(buckets.slots, buckets.minutes)

    def rows(of_buckets: np.ndarray) -> np.ndarray:
        return week_rows(of_buckets, buckets.slots, buckets.minutes)

    counts = (buckets.kinds == HOLIDAY) & ~np.isin(buckets.slots * WEEK_DAYS // slots, weekend)
    # What is left without the level of the days around a holiday.
    rest = rows(np.where(counts, values, np.nan)) - day_levels(rows(ordinary) - np.roll(usual, -first))
    is_known = ~np.isnan(rest)
    rest_weekday = SUNDAY if SUNDAY in weekend else max(weekend, default=SUNDAY)
    if not is_known.any():
        return rest_weekday
    rest, own = rest[is_known], np.broadcast_to(np.roll(np.arange(slots), -first), is_known.shape)[is_known]

    def distance(weekday: int | None) -> float:
        places = own if weekday is None else _on(weekday, own, slots)
        least = 0.0 if weekday in (rest_weekday, None) else BETTER_FIT
        return float(np.abs(rest - usual[places]).mean()) + least

    return min((rest_weekday, None, *range(WEEK_DAYS)), key=distance)
