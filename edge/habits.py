"""What a node does habitually: how far and how long each level goes, by hour of day, and its daily jobs.

The network sees three records, and takes a change that lasts for the new level. Habits remember: a level is
unusual if it has lasted longer than such levels did in the training set. docs/habits.md says why they are
as they are, with the figures.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from common.times import DAY_SECONDS
from common.values import mapping, number, text

# In records: about as long as it takes to wake a person, twice that, and the whole window.
DURATIONS = (4, 8, 30)
HOURS = 24
# A change still lasts if the newest records are this share of it away from the middle.
STILL = 0.5
# Clocks change at whole quarters of an hour.
_QUARTER_SECONDS = 900


@dataclass(frozen=True)
class DailyJob:
    """Load that comes each day at about the same time. begin, end: seconds of the local day; it may reach
    over midnight. features: place of a feature -> the lowest and highest value that belongs to the job.
    """

    metric: str
    begin: float
    end: float
    features: dict[int, tuple[float, float]]


@dataclass(frozen=True)
class Habits:
    """The habits of one node. Levels are those of its metrics, in the order of the table.

    zone: in which days and hours are counted. places: position of each level among the features.
    by_hour: (24, levels), what is usual in each hour; zero for a level that does not depend on it.
    middle: (levels,), low, high: (durations, levels), the same less `by_hour`: the median, and the limits of
    what lasts for each of DURATIONS. rmse: (levels,), the window RMSE that only one in a hundred records of
    the training set reached; it is the unit of `lasting_errors`.
    """

    zone: str
    places: tuple[int, ...]
    by_hour: np.ndarray
    middle: np.ndarray
    low: np.ndarray
    high: np.ndarray
    rmse: np.ndarray
    jobs: tuple[DailyJob, ...] = field(default=())

    def usual(self, times: np.ndarray) -> np.ndarray:
        """What is usual for each level at `times` (n,) in ns: (n, levels)."""
        if not self.by_hour.any():
            return np.broadcast_to(self.by_hour[0], (len(times), len(self.places)))
        return between_hours(self.by_hour, local_seconds(times, self.zone))

    def is_excused(self, times: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Whether values (n, features) at `times` (n,) belong to a daily job: (n, features)."""
        excused = np.zeros(values.shape, dtype=bool)
        seconds = local_seconds(times, self.zone) if self.jobs else None
        for job in self.jobs:
            inside = (seconds - job.begin) % DAY_SECONDS <= (job.end - job.begin) % DAY_SECONDS
            for place, (low, high) in job.features.items():
                excused[:, place] |= inside & (values[:, place] >= low) & (values[:, place] <= high)
        return excused

    def within(
        self, times: np.ndarray, values: np.ndarray, lowest: np.ndarray, highest: np.ndarray
    ) -> np.ndarray:
        """Values (n, features) at `times` (n,); a level beyond the trained range, but within the limits of
        what lasts, is at the end of the range. lowest, highest: of the trained range, (features,).

        A level that drifts leaves the range that a short recording showed, which is not wrong.
        """
        levels, usual = values[:, self.places], self.usual(times)
        low, high = lowest[list(self.places)], highest[list(self.places)]
        is_usual = (levels >= usual + self.low[0]) & (levels <= usual + self.high[0])
        moved = values.copy()
        moved[:, self.places] = np.where(is_usual, np.clip(levels, low, high), levels)
        return moved

    def lasting_errors(self, times: np.ndarray, values: np.ndarray) -> np.ndarray:
        """How far levels are beyond what lasts as long habitually: (n, levels).

        values: (n, features) of consecutive records; NaN does not count as beyond. `rmse` is reached at the
        limit, and 0 in the middle. Two of the three newest records must be at least half as far from the
        middle: the error ends soon after the change does.
        """
        levels = values[:, self.places] - self.usual(times) - self.middle
        now_at_least, now_at_most = _reached(levels, 2, 3), -_reached(-levels, 2, 3)
        shares = np.zeros(levels.shape)
        for duration, low, high in zip(DURATIONS, self.low, self.high, strict=True):
            at_least, at_most = lasting(levels, duration)
            above = np.where(now_at_least >= STILL * at_least, at_least, 0.0) / (high - self.middle)
            below = np.where(now_at_most <= STILL * at_most, at_most, 0.0) / (low - self.middle)
            shares = np.maximum(shares, np.maximum(above, below))
        return shares * self.rmse

    def in_units_of(self, rmse: np.ndarray) -> Habits:
        """The same habits with another `rmse` (levels,)."""
        return replace(self, rmse=np.asarray(rmse))

    def to_json(self) -> dict[str, Any]:
        """The content for `habits_from_json`."""
        return {
            "zone": self.zone,
            "durations": list(DURATIONS),
            "by_hour": self.by_hour.tolist(),
            "middle": self.middle.tolist(),
            "low": self.low.tolist(),
            "high": self.high.tolist(),
            "rmse": self.rmse.tolist(),
            "daily_jobs": [
                {
                    "metric": job.metric,
                    "begin": job.begin,
                    "end": job.end,
                    "features": {str(place): list(limits) for place, limits in job.features.items()},
                }
                for job in self.jobs
            ],
        }


def habits_from_json(content: Any, places: tuple[int, ...], features: int) -> Habits:
    """Habits of levels at these places among so many features.

    Raises KeyError, TypeError or ValueError for anything else, and OSError for a zone that cannot be read.
    """
    given = mapping(content)
    levels = len(places)
    if given["durations"] != list(DURATIONS):
        raise ValueError("other durations")

    def array(name: str, *shape: int) -> np.ndarray:
        values = np.array(given[name], dtype=float)
        if values.shape != shape or not np.isfinite(values).all():
            raise ValueError(f"no usable {name}")
        return values

    jobs = []
    for job in given["daily_jobs"]:
        limits = {int(key): tuple(map(number, both)) for key, both in mapping(job["features"]).items()}
        if any(len(both) != 2 for both in limits.values()):
            raise ValueError("a daily job without limits")
        if not all(0 <= place < features for place in limits):
            raise ValueError("a daily job of an unknown feature")
        jobs.append(DailyJob(text(job["metric"]), number(job["begin"]), number(job["end"]), limits))
    habits = Habits(
        str(ZoneInfo(text(given["zone"]))),
        places,
        array("by_hour", HOURS, levels),
        array("middle", levels),
        array("low", len(DURATIONS), levels),
        array("high", len(DURATIONS), levels),
        array("rmse", levels),
        tuple(jobs),
    )
    if not ((habits.low < habits.middle) & (habits.middle < habits.high)).all():
        raise ValueError("limits that do not enclose the middle")
    return habits


def lasting(levels: np.ndarray, duration: int) -> tuple[np.ndarray, np.ndarray]:
    """The level that two thirds of the last `duration` records reach, from above and from below.

    levels: (n, m). Returns two arrays (n, m): of the last 30 records, 21 are at least, or at most, that high.
    A missing record reaches nothing; where too few are known, the result is infinite, on the harmless side.
    """
    records = duration - (duration - 1) // 3
    return _reached(levels, records, duration), -_reached(-levels, records, duration)


def _reached(levels: np.ndarray, records: int, duration: int) -> np.ndarray:
    """The height that so many of the last `duration` records reach; a missing one reaches nothing."""
    known = np.where(np.isnan(levels), -np.inf, levels)
    padded = np.concatenate([np.full((duration - 1, levels.shape[1]), -np.inf), known])
    windows = np.lib.stride_tricks.sliding_window_view(padded, duration, axis=0)
    place = duration - records
    return np.partition(windows, place, axis=-1)[..., place]


def local_seconds(times: np.ndarray, zone: str) -> np.ndarray:
    """Seconds since local midnight at `times` (n,) in ns; clocks that are put forward do not shift it."""
    quarters, index = np.unique(times // (_QUARTER_SECONDS * 10**9), return_inverse=True)
    if zone == "UTC":
        offsets = np.zeros(len(quarters))
    else:
        info = ZoneInfo(zone)
        offsets = np.array(
            [
                datetime.fromtimestamp(int(quarter) * _QUARTER_SECONDS, info).utcoffset().total_seconds()
                for quarter in quarters
            ]
        )
    return (times / 1e9 + offsets[index]) % DAY_SECONDS


def between_hours(by_hour: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Values (24, m) of the middle of each hour, interpolated at seconds of the day (n,): (n, m)."""
    place = seconds / 3600 - 0.5
    hour = np.floor(place).astype(int)
    share = (place - hour)[:, None]
    return by_hour[hour % HOURS] * (1 - share) + by_hour[(hour + 1) % HOURS] * share
