"""What a node does habitually: how far and how long each level goes, by hour of day, and its daily jobs.

The network sees three records, and takes a change that lasts for the new level. Habits remember: a level is
unusual if it has lasted longer than such levels did in the training set. docs/habits.md says why they are
as they are, with the figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from common.alerts import ALERT_RECORDS, MANY_RECORDS
from common.times import DAY_SECONDS
from common.values import mapping, number, text
from nodes.metrics import BOTH, DOWN, UP

# In records: about as long as it takes to wake a person, twice that, and the whole window.
DURATIONS = (4, 8, 30)
HOURS = 24
# A record belongs to the change of now if the newest records are this share of it away from the middle.
STILL = 0.5
# The trained range follows a level that so many of the last 30 records reached: more than it takes to make an
# alert of an attack, in a row or not.
DRIFT_RECORDS = MANY_RECORDS + ALERT_RECORDS
# Traffic that never stopped in the training set does not drift below this share of its lowest level.
LEAST_SHARE = 0.5
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

    zone: in which days and hours are counted. places: position of each level among the features. by_hour,
    spread: (24, levels), what is usual in each hour, and how much that varies; zero and one for a level that
    does not depend on the hour. high: (durations, levels), the highest level that lasts for each of
    DURATIONS, in spreads above what is usual; high_middle: (levels,), the median. low, low_middle: likewise
    the lowest level, by the hour only if `is_low_by_hour`: a recording of less than a week does not show that
    there is less to do at the weekend. rmse: (levels,), the window RMSE that only one in a hundred records
    of the training set reached; it is the unit of `lasting_errors`.
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

    def usual(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What is usual for each level at `times` (n,) in ns, and how much it varies: (n, levels) each."""
        if not self.by_hour.any():
            return self.by_hour[:1], self.spread[:1]
        _, seconds = local_days(times, self.zone)
        return between_hours(self.by_hour, seconds), between_hours(self.spread, seconds)

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

    def within(
        self,
        times: np.ndarray,
        values: np.ndarray,
        is_excused: np.ndarray,
        lowest: np.ndarray,
        highest: np.ndarray,
    ) -> np.ndarray:
        """Values (n, features) of consecutive records at `times` (n,), as if the trained range had followed
        levels that drift out of it, up to the limits of what lasts.

        is_excused: (n, features), values of a daily job, which is no drift. lowest, highest: of the trained
        range, (features,). A level that drifts leaves the range that a short recording showed, which is not
        wrong. After a gap, nothing tells a drift from a jump, and the range follows at once.
        """
        levels = values[:, self.places]
        low, high = lowest[list(self.places)], highest[list(self.places)]
        usual, spread = self.usual(times)
        highest_usual = usual + spread * self.high[0]
        lowest_usual = usual + spread * self.low[0] if self.is_low_by_hour else self.low[0]
        drifting = np.where(is_excused[:, self.places], np.nan, levels)
        recently_high = reached(drifting, DRIFT_RECORDS, DURATIONS[-1], fewest=1)
        recently_low = -reached(-drifting, DRIFT_RECORDS, DURATIONS[-1], fewest=1)
        highest_now = np.maximum(high, np.minimum(recently_high, highest_usual))
        lowest_now = np.minimum(low, np.maximum(recently_low, lowest_usual))
        above = high + np.maximum(levels - highest_now, 0.0)
        below = low - np.maximum(lowest_now - levels, 0.0)
        has_stopped = (low > 0) & (levels < LEAST_SHARE * low)
        moved = values.copy()
        moved[:, self.places] = np.where(
            levels > high, above, np.where((levels < low) & ~has_stopped, below, levels)
        )
        return moved

    def lasting_errors(
        self,
        times: np.ndarray,
        values: np.ndarray,
        directions: Sequence[str] | None = None,
        least: np.ndarray | None = None,
    ) -> np.ndarray:
        """How far levels are beyond what lasts as long habitually: (n, levels).

        values: (n, features) of consecutive records; NaN does not count as beyond. directions: of each level,
        which deviations count; all, unless given. least: (levels,), smaller deviations from the middle do not
        count. `rmse` is reached at the limit, and 0 in the middle. Records that are more than twice as far
        from the middle as two of the three newest ones belong to a change that has ended, and do not count:
        the error ends soon after it.
        """
        levels = values[:, self.places]
        usual, spread = self.usual(times)
        upward = (levels - usual) / spread
        downward = (upward if self.is_low_by_hour else levels) - self.low_middle
        upward = upward - self.high_middle
        if least is not None:
            # A level that is less than that above or below the middle counts as the middle.
            sizes = upward * spread, downward * (spread if self.is_low_by_hour else 1.0)
            upward, downward = (
                np.where(np.abs(size) < least, 0.0, part)
                for size, part in zip(sizes, (upward, downward), strict=True)
            )
        now_at_least, now_at_most = reached(upward, 2, 3), -reached(-downward, 2, 3)
        counts_up, counts_down = (
            np.array([direction != other for direction in directions or [BOTH] * levels.shape[1]])
            for other in (DOWN, UP)
        )
        shares = np.zeros(upward.shape)
        for duration, low, high in zip(DURATIONS, self.low, self.high, strict=True):
            above = lasting(upward, duration, now_at_least / STILL) / (high - self.high_middle)
            below = -lasting(-downward, duration, -now_at_most / STILL) / (low - self.low_middle)
            above, below = np.where(counts_up, above, 0.0), np.where(counts_down, below, 0.0)
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


def lasting(levels: np.ndarray, duration: int, at_most: np.ndarray | None = None) -> np.ndarray:
    """The level (n, m) that two thirds of the last `duration` records reach: 21 of the last 30.

    at_most: (n, m), for each record, above which level those before it do not count.
    """
    return reached(levels, duration - (duration - 1) // 3, duration, at_most=at_most)


def reached(
    levels: np.ndarray,
    records: int,
    duration: int,
    fewest: int | None = None,
    at_most: np.ndarray | None = None,
) -> np.ndarray:
    """The level (n, m) that so many of the last `duration` records of `levels` (n, m) reach.

    Where some are missing, it is the same share of those that are known, rounded up. Where fewer than
    `fewest` are known (two thirds, unless given), the result is minus infinity. at_most: as in lasting().
    """
    padded = np.concatenate([np.full((duration - 1, levels.shape[1]), np.nan), levels])
    windows = np.lib.stride_tricks.sliding_window_view(padded, duration, axis=0).copy()
    # NaN comes last.
    windows.sort(axis=-1)
    # To add up whole columns is several times as quick as to add up each window.
    columns = [padded[place : place + len(levels)] for place in range(duration)]
    known = duration - sum(np.isnan(column) for column in columns)
    if at_most is not None:
        known -= sum(column > at_most for column in columns)
    place = known - -(-records * known // duration)
    result = np.take_along_axis(windows, np.maximum(place, 0)[..., None], axis=-1)[..., 0]
    return np.where(known >= (-(-2 * duration // 3) if fewest is None else fewest), result, -np.inf)


def local_days(times: np.ndarray, zone: str) -> tuple[np.ndarray, np.ndarray]:
    """The local day at `times` (n,) in ns, counted from 1970, and the seconds since its midnight by the clock
    on the wall: (n,) each.
    """
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
    days, seconds = np.divmod(times / 1e9 + offsets[index], DAY_SECONDS)
    return days.astype(int), seconds


def between_hours(by_hour: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Values (24, m) of the middle of each hour, interpolated at seconds of the day (n,): (n, m)."""
    place = seconds / 3600 - 0.5
    hour = np.floor(place).astype(int)
    share = (place - hour)[:, None]
    return by_hour[hour % HOURS] * (1 - share) + by_hour[(hour + 1) % HOURS] * share
