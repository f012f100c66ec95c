"""The level that a port is at: it follows within hours what is ordinary, and follows no anomaly.

A value is expected where the usual week is, plus the median level of the last day, plus what is left of how far
the newest ordinary value was off. A value that is judged anomalous counts for none of these: an anomaly of some
hours is compared with what was before it. What lasts longer is the new level.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

import numpy as np

LEVEL_MINUTES = 1440
# What lasts so long is the new level, unless training says otherwise.
DRIFT_MINUTES = 720
# The least and the most that it may be: an alert takes four buckets of up to an hour, and judging begins
# three days before the end of the training.
DRIFT_HOURS = (4, 24)
# How much is left of a deviation is known after so many buckets, and interpolated between them.
AGES = (1, 2, 4, 8, 16)
# An anomaly has ended when a value is this share of the limit away from what was expected before it.
ENDED = 0.5
# The newest ordinary values are averaged, each with so much of the weight that is left.
NEWEST_WEIGHT = 2 / 3


@dataclass(frozen=True)
class Memory:
    """left: (ages,), the share of a deviation that is left after each of AGES. wider: (ages,), how many times
    as wide as after one bucket the limits are then.
    """

    left: np.ndarray
    wider: np.ndarray

    def of_ages(self, values: np.ndarray) -> list[float]:
        """`left` or `wider` for each age from 0 to the last of AGES."""
        ages = np.log(np.maximum(np.arange(AGES[-1] + 1), 1))
        return np.interp(ages, np.log(AGES), values).tolist()


@dataclass(frozen=True)
class Followed:
    """What was expected of n deviations from the usual week, all (n,), NaN for those of the first day.

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
    """The median of the last values; NaN is unknown."""

    def __init__(self, count: int) -> None:
        self._values = [np.nan] * count
        self._sorted: list[float] = []
        self._oldest = 0

    def add(self, value: float) -> None:
        old, self._values[self._oldest] = self._values[self._oldest], value
        self._oldest = (self._oldest + 1) % len(self._values)
        if old == old:
            del self._sorted[bisect_left(self._sorted, old)]
        if value == value:
            insort(self._sorted, value)

    def median(self) -> float:
        """Zero if nothing is known."""
        count = len(self._sorted)
        if not count:
            return 0.0
        return (self._sorted[(count - 1) // 2] + self._sorted[count // 2]) / 2


def follow(
    deviations: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    memory: Memory,
    minutes: int,
    drift_minutes: int = DRIFT_MINUTES,
) -> Followed:
    """Follow deviations (n,) from the usual week, in consecutive buckets of so many minutes.

    low, high: (n,), how far below (negative) and above what is expected a value may be, one bucket after an
    ordinary one. drift_minutes: what lasts so long is the new level.
    """
    last_day, drift = _LastDay(LEVEL_MINUTES // minutes), drift_minutes // minutes
    first = min(LEVEL_MINUTES // minutes, len(deviations))
    for value in deviations[:first].tolist():
        last_day.add(value)
    left, wider = memory.of_ages(memory.left), memory.of_ages(memory.wider)
    oldest = AGES[-1]
    newest, age, waiting, began = 0.0, oldest, [], 0
    rows, new_levels = [], []
    lows, highs = low.tolist(), high.tolist()
    for index, value in enumerate(deviations[first:].tolist(), start=first):
        level = last_day.median()
        age += 1
        # Nothing is left of what was longer ago.
        expected, wide = (level + left[age] * newest, wider[age]) if age <= oldest else (level, wider[oldest])
        rows.append((level, expected, wide, False))
        if value != value:
            last_day.add(value)
            continue
        error = value - expected
        bound = (highs[index] if error > 0 else lows[index]) * wide
        if error / bound > (ENDED if waiting else 1.0):
            began = began if waiting else index
            waiting.append(value)
            if len(waiting) < drift:
                rows[-1] = (level, expected, wide, True)
                last_day.add(np.nan)
                continue
            # What was before is no longer the level, however long ago it was.
            last_day = _LastDay(LEVEL_MINUTES // minutes)
            for one in waiting:
                last_day.add(one)
            new_levels.append((index, index - began))
            newest, age, waiting = 0.0, 0, []
            continue
        last_day.add(value)
        deviation = value - level
        is_next = age == 1 and not waiting
        newest = newest + NEWEST_WEIGHT * (deviation - newest) if is_next else deviation
        age, waiting = 0, []
    unknown = np.full(first, np.nan)
    parts = np.array(rows, dtype=float).reshape(-1, 4).T
    level, expected, widths = (np.concatenate([unknown, part]) for part in parts[:3])
    is_anomalous = np.concatenate([np.zeros(first, dtype=bool), parts[3] > 0])
    return Followed(level, expected, widths, is_anomalous, tuple(new_levels))
