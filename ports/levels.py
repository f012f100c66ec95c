"""The level that a port is at: it follows within hours what is ordinary, and follows no anomaly.

A value is expected where the usual week is, plus the median level of the last day, plus what is left of how
far the newest ordinary value was off. A value that is judged anomalous counts for none of these: an anomaly
of some hours is compared with what was before it. What lasts longer is the new level, for which a port may be
back at the old one.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass
from itertools import chain

import numpy as np

from ports.weeks import DAY_SHARE

LEVEL_MINUTES = 1440
# What lasts so long is the new level, unless training says otherwise.
DRIFT_MINUTES = 720
# The least and the most that it may be: a level is known from DAY_SHARE of a day, so that much must be of the
# new level, or be left of the old one until then.
DRIFT_HOURS = (6, 18)
# For so long after a new level, so many values in a row at the level of before are a return to it.
RETURN_MINUTES, RETURN_VALUES = 2 * LEVEL_MINUTES, 2
# How much is left of a deviation is known after so many buckets, and interpolated between them.
MEMORY_AGES = (1, 2, 4, 8, 16)
# An anomaly has ended when a value is this share of the limit away from what was expected before it.
ENDED = 0.5
# The newest ordinary values are averaged, each with so much of the weight that is left.
NEWEST_WEIGHT = 2 / 3


@dataclass(frozen=True)
class Memory:
    """left: (ages,), the share of a deviation that is left after each of MEMORY_AGES. wider: (ages,), how
    many times as wide as after one bucket the limits are then.
    """

    left: np.ndarray
    wider: np.ndarray

    def of_ages(self, values: np.ndarray) -> list[float]:
        """`left` or `wider` for each age from 0 to the last of MEMORY_AGES."""
        ages = np.log(np.maximum(np.arange(MEMORY_AGES[-1] + 1), 1))
        return np.interp(ages, np.log(MEMORY_AGES), values).tolist()


@dataclass(frozen=True)
class Followed:
    """What was expected of n deviations from the usual week, all (n,), NaN where the level is unknown.

    level: the median of the day before. expected: with what was left of the newest deviation. wider: by how
    much limits were wider. is_anomalous: whether the value does not count. new_levels: for each new level the
    index of the value with which it was taken, and how many values before that it had begun.
    """

    level: np.ndarray
    expected: np.ndarray
    wider: np.ndarray
    is_anomalous: np.ndarray
    new_levels: tuple[tuple[int, int], ...]


class _LastDay:
    """The median of the last values; NaN is unknown.

    median: where fewer than DAY_SHARE of the values are known, that of before; NaN without one.
    """

    __slots__ = ("_enough", "_sorted", "_values", "median")

    def __init__(self, count: int) -> None:
        self._values = deque([math.nan] * count)
        self._sorted: list[float] = []
        self._enough = DAY_SHARE * count
        self.median = math.nan

    def add(self, value: float) -> None:
        values, ordered = self._values, self._sorted
        old = values.popleft()
        values.append(value)
        if old == old:
            del ordered[bisect_left(ordered, old)]
        if value == value:
            insort(ordered, value)
        count = len(ordered)
        if count >= self._enough:
            self.median = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2


def beyond(errors: np.ndarray, room: np.ndarray) -> np.ndarray:
    """How far errors (n,) are outside what lies between zero and `room` (n,)."""
    return errors - np.clip(errors, np.minimum(room, 0.0), np.maximum(room, 0.0))


def _outside(error: float, room: float) -> float:
    """As `beyond`, of one error."""
    return error - min(max(error, min(room, 0.0)), max(room, 0.0))


def follow(
    deviations: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    memory: Memory,
    minutes: int,
    drift_minutes: int = DRIFT_MINUTES,
    room: np.ndarray | None = None,
) -> Followed:
    """Follow deviations (n,) from the usual week, in consecutive buckets of so many minutes.

    low, high: (n,), how far below (negative) and above what is expected a value may be, one bucket after an
    ordinary one. The level is unknown on the first day, and until DAY_SHARE of a day is known. drift_minutes:
    what lasts so long is the new level, from which a port may go back. room: (n,), anything between what is
    expected and so much more (or less, if negative) is as good as what is expected; None for no room.
    """
    day, drift = LEVEL_MINUTES // minutes, drift_minutes // minutes
    last_day = _LastDay(day)
    left, wider = memory.of_ages(memory.left), memory.of_ages(memory.wider)
    oldest = MEMORY_AGES[-1]
    newest, age, waiting, began = 0.0, oldest, [], 0
    # The days that ended with the newest new level, until when a return to them is ordinary, and how many
    # values in a row were there.
    before, returns, there = last_day, 0, 0
    rows, new_levels = [], []
    lows, highs, nan = low.tolist(), high.tolist(), math.nan
    rooms = np.zeros(len(deviations)).tolist() if room is None else room.tolist()
    for index, value in enumerate(deviations.tolist()):
        level = last_day.median if index >= day else nan
        if level != level:
            rows.append((level, level, level, False))
            last_day.add(value)
            continue
        age += 1
        # Nothing is left of what was longer ago.
        expected, wide = (level + left[age] * newest, wider[age]) if age <= oldest else (level, wider[oldest])
        rows.append((level, expected, wide, False))
        if value != value:
            last_day.add(value)
            continue
        room_here = rooms[index]
        error = _outside(value - expected, room_here) if room_here else value - expected
        is_off = error / ((highs[index] if error > 0 else lows[index]) * wide) > (ENDED if waiting else 1.0)
        if is_off and index < returns:
            apart = _outside(value - before.median, room_here)
            is_there = apart / ((highs[index] if apart > 0 else lows[index]) * wider[oldest]) <= 1.0
            there = there + 1 if is_there else 0
            if there == RETURN_VALUES:
                last_day, level, returns, is_off = before, before.median, 0, False
                expected, error, age = level, apart, oldest
                rows[-1] = (level, level, wider[oldest], False)
        if room_here:
            value = expected + error
        if is_off:
            began = began if waiting else index
            waiting.append(value)
            if len(waiting) < drift:
                rows[-1] = (level, expected, wide, True)
                last_day.add(nan)
                continue
            # What was before is no longer the level, however long ago it was.
            before, last_day, returns = last_day, _LastDay(day), index + RETURN_MINUTES // minutes
            for one in waiting:
                last_day.add(one)
            new_levels.append((index, index - began))
            newest, age, waiting = 0.0, 0, []
            continue
        last_day.add(value)
        deviation = value - level
        newest = newest + NEWEST_WEIGHT * (deviation - newest) if age == 1 else deviation
        age, waiting, there = 0, [], 0
    level, expected, widths, is_anomalous = np.fromiter(chain.from_iterable(rows), float).reshape(-1, 4).T
    return Followed(level, expected, widths, is_anomalous > 0, tuple(new_levels))
