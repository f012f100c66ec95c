"""Values arranged as weeks: the usual week, the level of each day, and weeks that were different."""

from __future__ import annotations

import numpy as np

from common.files import UserError
from common.times import WEEK_MINUTES
from ports.preparation import known_medians

WEEK_DAYS = 7
MEDIAN_PASSES = 3
# The usual week is averaged over each value and so many of its neighbours on either side.
NEIGHBOURS = 1
# A day's level is known from this share of its values.
DAY_SHARE = 0.25
# A week whose errors spread so many times as far as those of half of the weeks was different.
DIFFERENT = 1.5
MAD_TO_DEVIATION = 1.4826

TOO_MANY_UNKNOWN = "has weeks with too few samples; record it for longer"


def week_rows(values: np.ndarray, slots: np.ndarray, minutes: int) -> np.ndarray:
    """Arrange values (n,) as weeks in order of time, (weeks, slots), by their slots (n,) of the week; NaN is
    unknown. The last week ends with the last value, and begins with the slot `first_slot`.

    Where the clocks go forward a slot has no value; where they go back the later value counts.
    """
    slots_in_week = WEEK_MINUTES // minutes
    places = places_of(slots, minutes)
    rows = np.full((places[0][-1] + 1, slots_in_week), np.nan)
    rows[places] = values
    return rows


def first_slot(slots: np.ndarray, minutes: int) -> int:
    """The slot with which a week begins that ends with the last of `slots` (n,)."""
    return int(slots[-1] + 1) % (WEEK_MINUTES // minutes)


def places_of(slots: np.ndarray, minutes: int) -> tuple[np.ndarray, np.ndarray]:
    """The row and the column of each value in week_rows, by its slot, all (n,)."""
    slots_in_week = WEEK_MINUTES // minutes
    return week_of(len(slots), slots_in_week), (slots - first_slot(slots, minutes)) % slots_in_week


def week_of(count: int, slots_in_week: int) -> np.ndarray:
    """The row of each of so many values in week_rows: (count,)."""
    weeks = -(-count // slots_in_week)
    return weeks - 1 - (count - 1 - np.arange(count)) // slots_in_week


def usual_week(weeks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The median week without its level (slots,), and the level at each value (weeks, slots).

    How far weekdays usually are from each other belongs to the week, not to the level.
    """
    levels = day_levels(weeks)
    for _ in range(MEDIAN_PASSES):
        usual = median_week(weeks - levels)
        levels = day_levels(weeks - usual)
    of_weekdays = _weekday_levels(weeks - usual)
    return usual + of_weekdays, levels - of_weekdays


def median_week(level_free: np.ndarray) -> np.ndarray:
    """The median of each slot (slots,), averaged over its neighbours; one never known lies between them."""
    usual = bridged(known_medians(level_free.T))
    return np.mean([np.roll(usual, step) for step in range(-NEIGHBOURS, NEIGHBOURS + 1)], axis=0)


def day_levels(rest: np.ndarray) -> np.ndarray:
    """The median of each day, interpolated between the middles of the days; both (weeks, slots)."""
    medians = day_medians(rest)
    is_known, per_day = ~np.isnan(medians), rest.shape[1] // WEEK_DAYS
    if not is_known.any():
        raise UserError(TOO_MANY_UNKNOWN)
    middles = np.arange(len(medians)) * per_day + (per_day - 1) / 2
    levels = np.interp(np.arange(rest.size), middles[is_known], medians[is_known])
    return levels.reshape(rest.shape)


def _weekday_levels(rest: np.ndarray) -> np.ndarray:
    """How far weekdays of (weeks, slots) usually are from the days around, as in day_levels: (slots,)."""
    days = day_medians(rest)
    # Of the seven days around each, so that a trend is no difference between weekdays.
    unknown = np.full(WEEK_DAYS // 2, np.nan)
    around = known_medians(np.lib.stride_tricks.sliding_window_view(days, WEEK_DAYS))
    apart = (days - np.concatenate([unknown, around, unknown])).reshape(-1, WEEK_DAYS)
    levels = np.nan_to_num(known_medians(apart.T))
    slots = rest.shape[1]
    middles = (np.arange(WEEK_DAYS) + 0.5) * slots / WEEK_DAYS - 0.5
    return np.interp(np.arange(slots), middles, levels, period=slots)


def day_medians(rest: np.ndarray) -> np.ndarray:
    """The median of each day of (weeks, slots): (days,), NaN for a day of which little is known."""
    days = rest.reshape(len(rest) * WEEK_DAYS, -1)
    is_known = (~np.isnan(days)).sum(axis=1) >= DAY_SHARE * days.shape[1]
    return np.where(is_known, known_medians(days), np.nan)


def bridged(values: np.ndarray) -> np.ndarray:
    """With unknown values interpolated between their neighbours; at the ends, the nearest known value."""
    known = np.flatnonzero(~np.isnan(values))
    if not len(known):
        raise UserError(TOO_MANY_UNKNOWN)
    return np.interp(np.arange(len(values)), known, values[known])


def spread(errors: np.ndarray) -> float:
    """1.4826 MAD: the standard deviation of normal errors. NaN if none is known."""
    known = errors[~np.isnan(errors)]
    return MAD_TO_DEVIATION * _median(np.abs(known - _median(known))) if len(known) else np.nan


def _median(known: np.ndarray) -> float:
    """The median of values without NaN: NumPy's takes four times as long for some hundreds."""
    ordered = np.sort(known)
    return float(ordered[(len(known) - 1) // 2] + ordered[len(known) // 2]) / 2


def different(errors: np.ndarray, weeks: np.ndarray) -> np.ndarray:
    """Whether the errors (n,) of a week spread much further than those of half of the weeks: (weeks,).

    weeks: the week of each error (n,), counted from 0.
    """
    spreads = np.array([spread(errors[weeks == week]) for week in range(weeks[-1] + 1)])
    known = np.sort(spreads[~np.isnan(spreads)])
    of_half = known[(len(known) - 1) // 2] if len(known) else np.nan
    return spreads > DIFFERENT * of_half
