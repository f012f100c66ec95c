"""What a node does habitually: how far and how long each level goes, by hour of day, and its daily jobs.

The network sees three records, and takes a change that lasts for the new level. Habits remember: a level is
unusual if it has lasted longer than such levels did in the training set. docs/habits.md says why they are
as they are, with the figures.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from common.times import DAY_SECONDS
from common.values import mapping, number, text
from edge.windows import Consecutive

# In records: about as long as it takes to wake a person, twice that, and the whole window.
DURATIONS = (4, 8, 30)
HOURS = 24
# Clocks change at whole quarters of an hour.
_QUARTER_SECONDS = 900
_QUARTER_NS = _QUARTER_SECONDS * 10**9


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

    zone: in which days and hours are counted. places: position of each level among the features. by_hour,
    spread: (24, levels), what is usual in each hour, and how much that varies; zero and one for a level that
    does not depend on the hour. high: (durations, levels), the highest level that lasts for each of
    DURATIONS, in spreads above what is usual; high_middle: (levels,), the median. low, low_middle: likewise
    the lowest level, by the hour only if `is_low_by_hour`: a recording of less than a week does not show that
    there is less to do at the weekend. rmse: (levels,), the window RMSE that only one in a hundred records
    of the training set reached; it is the unit of the errors.
    """

    zone: str
    places: tuple[int, ...]
    by_hour: np.ndarray
    spread: np.ndarray
    high: np.ndarray
    high_middle: np.ndarray
    low: np.ndarray
    low_middle: np.ndarray
    is_low_by_hour: bool
    rmse: np.ndarray
    jobs: tuple[DailyJob, ...] = field(default=())

    def is_excused(self, times: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Whether values (n, features) at `times` (n,) belong to a daily job: (n, features)."""
        excused = np.zeros(values.shape, dtype=bool)
        if not self.jobs:
            return excused
        _, seconds = local_days(times, self.zone)
        for job in self.jobs:
            inside = (seconds - job.begin) % DAY_SECONDS <= (job.end - job.begin) % DAY_SECONDS
            for place, (low, high) in job.features.items():
                excused[:, place] |= inside & (values[:, place] >= low) & (values[:, place] <= high)
        return excused

    def in_units_of(self, rmse: np.ndarray) -> Habits:
        """The same habits with another `rmse` (levels,)."""
        return replace(self, rmse=np.asarray(rmse))

    def to_json(self) -> dict[str, Any]:
        """The content for `habits_from_json`."""
        return {
            "zone": self.zone,
            "durations": list(DURATIONS),
            "by_hour": self.by_hour.tolist(),
            "spread": self.spread.tolist(),
            "high": self.high.tolist(),
            "high_middle": self.high_middle.tolist(),
            "low": self.low.tolist(),
            "low_middle": self.low_middle.tolist(),
            "is_low_by_hour": self.is_low_by_hour,
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
        if not all(len(both) == 2 and -np.inf < both[0] <= both[1] < np.inf for both in limits.values()):
            raise ValueError("a daily job without limits")
        if not all(0 <= place < features for place in limits):
            raise ValueError("a daily job of an unknown feature")
        begin, end = number(job["begin"]), number(job["end"])
        if not (0 <= begin < DAY_SECONDS and 0 <= end < DAY_SECONDS):
            raise ValueError("a daily job without a time of day")
        jobs.append(DailyJob(text(job["metric"]), begin, end, limits))
    zone = text(given["zone"])
    if zone != "UTC":
        ZoneInfo(zone)
    habits = Habits(
        zone,
        places,
        array("by_hour", HOURS, levels),
        array("spread", HOURS, levels),
        array("high", len(DURATIONS), levels),
        array("high_middle", levels),
        array("low", len(DURATIONS), levels),
        array("low_middle", levels),
        _flag(given["is_low_by_hour"]),
        array("rmse", levels),
        tuple(jobs),
    )
    if not ((habits.spread > 0).all() and (habits.rmse > 0).all()):
        raise ValueError("a spread or an rmse that is not above zero")
    if not ((habits.low < habits.low_middle).all() and (habits.high_middle < habits.high).all()):
        raise ValueError("limits that do not enclose the middle")
    return habits


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("is_low_by_hour must be true or false")
    return value


def lasting(levels: np.ndarray, duration: int) -> np.ndarray:
    """The level (n, m) that two thirds of the last `duration` of consecutive records (n, m) reach."""
    return two_thirds(Consecutive().windows("levels", levels, duration))


def two_thirds(windows: np.ndarray, at_most: np.ndarray | None = None) -> np.ndarray:
    """The level that two thirds of the records of windows (duration, ...) reach: 21 of 30. See `reached`."""
    duration = len(windows)
    return reached(windows, duration - (duration - 1) // 3, at_most=at_most)


def reached(
    windows: np.ndarray, records: int, fewest: int | None = None, at_most: np.ndarray | None = None
) -> np.ndarray:
    """The level (...) that so many records of windows (duration, ...) reach.

    Where some are missing, it is the same share of those that are known, rounded up. Where fewer than
    `fewest` are known (two thirds, unless given), the result is minus infinity. at_most: (...), above which
    level records do not count.
    """
    duration = len(windows)
    ordered = windows.reshape(duration, -1).T.copy()
    # NaN comes last.
    ordered.sort(axis=-1)
    counts = ~np.isnan(windows) if at_most is None else windows <= at_most
    # Few, so that a byte holds their number.
    known = np.add.reduce(counts, axis=0, dtype=np.int8)
    place = _places(duration, records)[known]
    result = ordered[np.arange(len(ordered)), place.ravel()].reshape(place.shape)
    return np.where(known >= (-(-2 * duration // 3) if fewest is None else fewest), result, -np.inf)


@functools.lru_cache(maxsize=64)
def _places(duration: int, records: int) -> np.ndarray:
    """The place of the level that `reached` looks for among the known ones, for each number of these."""
    known = np.arange(duration + 1)
    return np.maximum(known - -(-records * known // duration), 0)


def local_days(times: np.ndarray, zone: str) -> tuple[np.ndarray, np.ndarray]:
    """The local day at `times` (n,) in ns, counted from 1970, and the seconds since its midnight by the clock
    on the wall: (n,) each.
    """
    offsets = 0.0
    if zone != "UTC":
        quarters, index = np.unique(times // _QUARTER_NS, return_inverse=True)
        offsets = np.array([_offset_seconds(int(quarter), zone) for quarter in quarters])[index]
    days, seconds = np.divmod(times / 1e9 + offsets, DAY_SECONDS)
    return days.astype(int), seconds


def local_seconds(times: np.ndarray, zones: Sequence[str]) -> np.ndarray:
    """The seconds since local midnight at each of `times` (n,) in ns, in the zone of each: (n,)."""
    quarters = (times // _QUARTER_NS).tolist()
    offsets = [
        0.0 if zone == "UTC" else _offset_seconds(quarter, zone)
        for quarter, zone in zip(quarters, zones, strict=True)
    ]
    return (times / 1e9 + np.array(offsets)) % DAY_SECONDS


@functools.lru_cache(maxsize=4096)
def _offset_seconds(quarter: int, zone: str) -> float:
    """By how much the clocks of a zone are ahead of UTC in a quarter of an hour, counted from 1970."""
    moment = datetime.fromtimestamp(quarter * _QUARTER_SECONDS, ZoneInfo(zone))
    return moment.utcoffset().total_seconds()


def between_hours(by_hour: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Values (24, m) of the middle of each hour, interpolated at seconds of the day (n,): (n, m)."""
    before, after, share = hours_around(seconds)
    return by_hour[before] * (1 - share) + by_hour[after] * share


def hours_around(seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The hours between whose middles seconds of the day (n,) are, (n,) each, and how far they are from the
    first to the second: (n, 1), from 0 to 1.
    """
    place = seconds / 3600 - 0.5
    hour = np.floor(place).astype(int)
    return hour % HOURS, (hour + 1) % HOURS, (place - hour)[:, None]
