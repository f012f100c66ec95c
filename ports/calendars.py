"""Windows of maintenance and events, and answers of people: alerts are kept quiet and nothing is learnt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np
import pandas as pd

from common.alerts import NORMAL
from common.answers import MAINTENANCE, TRAFFIC_METRIC, Answer
from common.calendars import Window
from common.public_holidays import is_holiday
from common.times import DAY_MINUTES, WEEK_MINUTES
from ports.preparation import Buckets, week_slots
from ports.series import KnownAnomaly, port_tags


@dataclass(frozen=True)
class Calendar:
    """The windows of a file and the answers of people, or those of one series."""

    windows: tuple[Window, ...] = ()
    answers: tuple[Answer, ...] = ()

    def of(self, series: str) -> Calendar:
        """The windows and answers of one series."""
        names = series, port_tags(series)["device"]
        return Calendar(
            tuple(window for window in self.windows if concerns(window, series)),
            tuple(answer for answer in self.answers if answer.concerns(*names)),
        )

    def mark(self, buckets: Buckets, zone: str) -> Buckets:
        """The same buckets of one series; those that a window touches are quiet."""
        is_quiet = np.zeros(len(buckets.starts), dtype=bool)
        for window in self.windows:
            is_quiet |= touches(window, buckets.starts, buckets.minutes, zone)
        return replace(buckets, is_quiet=is_quiet)

    def names(self, starts: np.ndarray, minutes: int, zone: str) -> list[str]:
        """The names of the windows that touch one of these buckets."""
        return [one.name for one in self.windows if touches(one, starts, minutes, zone).any()]

    def mark_unlearnt(self, buckets: Buckets, zone: str) -> Buckets:
        """As `mark`; those that an answer is about are quiet as well."""
        marked = self.mark(buckets, zone)
        is_quiet = marked.is_quiet.copy()
        for answer in self.answers:
            is_quiet |= touches(_window(answer), buckets.starts, buckets.minutes, zone)
        return replace(marked, is_quiet=is_quiet)

    def answered(self, buckets: Buckets, zone: str, bytes_per_second: np.ndarray) -> np.ndarray:
        """The place among the answers of the one that keeps a bucket of one series quiet, -1 for none: (n,).

        bytes_per_second: traffic of the buckets (n,).
        """
        found = np.full(len(buckets.starts), -1)
        for place, answer in enumerate(self.answers):
            if answer.kind == NORMAL:
                limits = answer.metrics.get(TRAFFIC_METRIC)
                start, end = answer.daily
                daily = Window("", start, end, False, is_daily=True)
                is_quiet = touches(daily, buckets.starts, buckets.minutes, answer.zone or zone)
                low, high = (limits.low, limits.high) if limits else (np.inf, -np.inf)
                is_quiet &= (bytes_per_second >= low) & (bytes_per_second <= high)
            else:
                is_quiet = touches(_window(answer), buckets.starts, buckets.minutes, zone)
                is_quiet &= answer.kind == MAINTENANCE
            found[is_quiet & (found < 0)] = place
        return found

    def excuses(self, known: KnownAnomaly, zone: str) -> bool:
        """Whether a window or an answer touches a known anomaly, which then cannot be asked of a detector."""
        minutes = np.arange(known.start // 60 * 60, known.end, 60)
        windows = (*self.windows, *map(_window, self.answers))
        return any(touches(window, minutes, 1, zone).any() for window in windows)

    def unused(self, series: Sequence[str]) -> list[str]:
        """The names of windows that concern none of these series; those of edge nodes alone are of none."""
        return [
            window.name
            for window in self.windows
            if window.series and not any(concerns(window, one) for one in series)
        ]


def _window(answer: Answer) -> Window:
    """When what was answered took place."""
    return Window(answer.id, answer.start // 10**9, -(-answer.end // 10**9), False)


def concerns(window: Window, series: str) -> bool:
    """Whether it is a window of this series."""
    names = (series, port_tags(series)["device"])
    return any(fnmatchcase(name, pattern) for name in names for pattern in window.series)


def touches(window: Window, starts: np.ndarray, minutes: int, zone: str) -> np.ndarray:
    """Which buckets of so many minutes a window touches (n,). starts: seconds since 1970 (n,)."""
    if window.is_fixed:
        return (starts < window.end) & (starts + minutes * 60 > window.start)
    if window.country:
        local = pd.DatetimeIndex(pd.to_datetime(starts, unit="s", utc=True)).tz_convert(zone)
        return np.array([is_holiday(window.country, day) for day in local.date], dtype=bool)
    local = week_slots(starts, 1, zone)
    period = WEEK_MINUTES if window.is_weekly else DAY_MINUTES
    begins_inside = (local - window.start) % period < window.end - window.start
    return begins_inside | ((window.start - local) % period < minutes)
