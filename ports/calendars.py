"""`--calendar`: windows of maintenance and events, in which alerts are kept quiet and nothing is learnt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from common.calendars import Window, load_windows
from common.times import WEEK_MINUTES
from ports.preparation import Buckets, week_slots
from ports.series import KnownAnomaly, port_tags


@dataclass(frozen=True)
class Calendar:
    """The windows of a file, or of one series."""

    windows: tuple[Window, ...] = ()

    def of(self, series: str) -> Calendar:
        """The windows of one series."""
        return Calendar(tuple(window for window in self.windows if concerns(window, series)))

    def mark(self, buckets: Buckets, zone: str) -> Buckets:
        """The same buckets of one series; those that a window touches are quiet."""
        is_quiet = np.zeros(len(buckets.starts), dtype=bool)
        for window in self.windows:
            is_quiet |= touches(window, buckets.starts, buckets.minutes, zone)
        return replace(buckets, is_quiet=is_quiet)

    def excuses(self, known: KnownAnomaly, zone: str) -> bool:
        """Whether a window touches a known anomaly, which then cannot be asked of a detector."""
        minutes = np.arange(known.start // 60 * 60, known.end, 60)
        return any(touches(window, minutes, 1, zone).any() for window in self.windows)

    def unused(self, series: Sequence[str]) -> list[str]:
        """The names of windows that concern none of these series."""
        return [window.name for window in self.windows if not any(concerns(window, one) for one in series)]


def load_calendar(filename: str | Path) -> Calendar:
    """Read a calendar file: name -> window. Raises UserError that names the file, the key and the remedy."""
    return Calendar(load_windows(filename))


def concerns(window: Window, series: str) -> bool:
    """Whether it is a window of this series."""
    names = (series, port_tags(series)["device"])
    return any(fnmatchcase(name, pattern) for name in names for pattern in window.series)


def touches(window: Window, starts: np.ndarray, minutes: int, zone: str) -> np.ndarray:
    """Which buckets of so many minutes a window touches (n,). starts: seconds since 1970 (n,)."""
    if not window.is_weekly:
        return (starts < window.end) & (starts + minutes * 60 > window.start)
    local = week_slots(starts, 1, zone)
    begins_inside = (local - window.start) % WEEK_MINUTES < window.end - window.start
    return begins_inside | ((window.start - local) % WEEK_MINUTES < minutes)
