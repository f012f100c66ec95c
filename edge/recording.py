"""What of a recording is learnt: what looks unlike the rest is left out, and the habits of the rest.

A level is usual if the recording reached it in several separate episodes; so an attack that was forgotten
in it makes nothing usual. docs/habits.md says why, with the figures.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.alerts import WINDOW_RECORDS
from common.times import DAY_SECONDS, format_duration, format_time
from edge.habits import DURATIONS, HOURS, DailyJob, Habits, between_hours, lasting, local_seconds
from nodes.metrics import MetricTable

# A level is usual if it was reached in this many episodes: in a short recording, and in one of a day.
FEWEST_EPISODES, MOST_EPISODES = 2, 5
# One more for each this many records.
EPISODE_RECORDS = 1000
# The limit is further out: by so many times the step to the level of twice as many episodes. If episodes
# become rarer exponentially, one beyond the limit comes once in six recordings.
TAIL_STEPS = 5.0
TAIL_EPISODES = 2
# It is at least this share further from the median: levels that have an end show no step.
TAIL_ROOM = 0.15
# The fewer times a level crosses its median, the less a recording shows how far it goes: the limit is further
# out by this many ranges, divided by the crossings.
CROSSING_RANGES = 20
# Records of one episode are at most this far apart, or a fortieth of the recording; one of twice this length
# counts as two.
EPISODE_GAP = 240
# A daily job starts on this many days, within this time of day, and on half of all days.
JOB_DAYS = 3
JOB_SPREAD_SECONDS = 45 * 60
# It is expected this much earlier and later than seen.
JOB_MARGIN_SECONDS = 10 * 60
# Its levels are expected to go this share further than seen.
JOB_MARGIN = 0.25
# What is usual depends on the hour if that explains this share of the differences between other days' hours.
HOUR_SHARE = 0.25
# The narrowest limits, as a share of a level's range.
NARROWEST = 0.01
# Records just before and after a stretch are partly in it.
EDGE_RECORDS = 2


@dataclass(frozen=True)
class Stretch:
    """Records that are not learnt. start, end: ns, the first and the last of them. metrics: those that are
    unlike the rest; none if a person excluded the records.
    """

    start: int
    end: int
    metrics: tuple[str, ...]

    def describe(self) -> str:
        """Such as `2026-03-03T12:00:00Z to 2026-03-03T12:18:00Z (18 min): cpu, mem`."""
        lasted = format_duration((self.end - self.start) / 1e9)
        why = f": {', '.join(self.metrics)}" if self.metrics else ""
        return f"{format_time(self.start)} to {format_time(self.end)} ({lasted}){why}"

    def to_json(self) -> dict[str, Any]:
        """Times as text, and metrics."""
        return {
            "start": format_time(self.start),
            "end": format_time(self.end),
            "metrics": list(self.metrics),
        }


@dataclass(frozen=True)
class Study:
    """What a recording shows. learnt: (n,), whether a record is learnt. left_out: stretches that are not."""

    learnt: np.ndarray
    left_out: list[Stretch]
    habits: Habits

    @property
    def windows(self) -> tuple[tuple[int, int], ...]:
        """Start and end in ns of what is left out."""
        return tuple((stretch.start, stretch.end + 1) for stretch in self.left_out)


def outside(times: np.ndarray, windows: Sequence[tuple[int, int]]) -> np.ndarray:
    """Whether records at `times` (n,) in ns, and all others of their window, are outside `windows`: (n,)."""
    inside = np.zeros(len(times), dtype=int)
    for start, end in windows:
        inside |= (times >= start) & (times < end)
    return np.convolve(inside, np.ones(WINDOW_RECORDS, dtype=int))[: len(times)] == 0


def study(
    values: np.ndarray,
    times: np.ndarray,
    metrics: MetricTable,
    zone: str = "UTC",
    excluded: Sequence[tuple[int, int]] = (),
    learn_all: bool = False,
) -> Study:
    """Find what is unlike the rest of a recording, its daily jobs, and the habits of the rest.

    values: (n, features) of consecutive records in physical units. times: (n,) in ns. zone: of the days and
    hours. excluded: windows (start, end) in ns that are not learnt. learn_all: learn all else. The `rmse` of
    the habits is 0: it is known when the network is trained.
    """
    places = tuple(metrics.features.index(row.level) for row in metrics.values())
    levels = values[:, places]
    is_excluded = np.zeros(len(times), dtype=bool)
    for start, end in excluded:
        is_excluded |= (times >= start) & (times < end)
    unlike = np.zeros(levels.shape, dtype=bool)
    # What the first round finds no longer widens the limits of the second.
    for _ in range(0 if learn_all else 2):
        by_hour, limits = _limits_of(levels, times, zone, is_excluded | unlike.any(axis=1))
        known = np.where(is_excluded[:, None], np.nan, _less_usual(levels, by_hour, times, zone))
        unlike = _unlike(known, limits) & ~is_excluded[:, None]
    learnt = ~(is_excluded | unlike.any(axis=1))
    by_hour, limits = _limits_of(levels, times, zone, ~learnt)
    known = np.where(learnt[:, None], _less_usual(levels, by_hour, times, zone), np.nan)
    with warnings.catch_warnings():
        # A level without any value left; the training refuses it.
        warnings.simplefilter("ignore", RuntimeWarning)
        middle = np.nanmedian(known, axis=0)
        room = NARROWEST * (np.nanmax(known, axis=0) - np.nanmin(known, axis=0))
    low, high = (np.stack([limits[duration][end] for duration in DURATIONS]) for end in (0, 1))
    # Where gaps leave too few records for a duration, the limits are those of the shorter one.
    for ends in (low, high):
        for place in range(1, len(DURATIONS)):
            ends[place] = np.where(np.isfinite(ends[place]), ends[place], ends[place - 1])
    if learn_all:
        # What a person calls normal is within the limits, however rarely it came.
        for place, duration in enumerate(DURATIONS):
            at_least, at_most = lasting(known, duration)
            highest = np.where(np.isfinite(at_least), at_least, middle).max(axis=0)
            lowest = np.where(np.isfinite(at_most), at_most, middle).min(axis=0)
            high[place] = np.maximum(high[place], middle + (1 + TAIL_ROOM) * (highest - middle))
            low[place] = np.minimum(low[place], middle + (1 + TAIL_ROOM) * (lowest - middle))
    jobs: list[DailyJob] = []
    for place, metric in enumerate(metrics.values()):
        features = metrics.feature_places[metric.name]
        for runs in _daily(_runs(unlike[:, place], WINDOW_RECORDS), times, zone):
            jobs.append(_job(metric.name, runs, times, zone, features, values))
            for begin, end in runs:
                unlike[begin : end + 1, place] = False
    habits = Habits(
        zone,
        places,
        by_hour,
        middle,
        np.minimum(low, middle - room),
        np.maximum(high, middle + room),
        np.zeros(len(places)),
        tuple(jobs),
    )
    names = np.array(list(metrics))
    left_out = [
        Stretch(
            int(times[begin]), int(times[end]), tuple(names[unlike[begin : end + 1].any(axis=0)].tolist())
        )
        for runs in (_runs(unlike.any(axis=1), WINDOW_RECORDS), _runs(is_excluded, 1))
        for begin, end in runs
    ]
    return Study(learnt, sorted(left_out, key=lambda stretch: stretch.start), habits)


# --- limits --------------------------------------------------------------------------------------


def _limits_of(
    levels: np.ndarray, times: np.ndarray, zone: str, ignored: np.ndarray
) -> tuple[np.ndarray, dict[int, tuple[np.ndarray, np.ndarray]]]:
    """What is usual by hour, (24, levels), and for each duration the low and high limits, (levels,) each."""
    known = np.where(ignored[:, None], np.nan, levels)
    by_hour = np.stack([_by_hour(level, times, zone) for level in known.T], axis=1)
    known = _less_usual(known, by_hour, times, zone)
    limits = {}
    # A single record may be unlike the rest, too.
    for duration in (1, *DURATIONS):
        pairs = [_limits(level, duration) for level in known.T]
        limits[duration] = tuple(np.array(ends) for ends in zip(*pairs, strict=True))
    return by_hour, limits


def _less_usual(levels: np.ndarray, by_hour: np.ndarray, times: np.ndarray, zone: str) -> np.ndarray:
    return levels - between_hours(by_hour, local_seconds(times, zone)) if by_hour.any() else levels


def _limits(level: np.ndarray, duration: int) -> tuple[float, float]:
    """The lowest and highest level (n,) that is usual for `duration` records."""
    known = level[~np.isnan(level)]
    at_least, at_most = (ends[:, 0] for ends in lasting(level[:, None], duration))
    if len(known) < duration or not np.isfinite(at_least).any():
        return -np.inf, np.inf
    means = np.convolve(known, np.full(duration, 1 / duration), "valid")
    is_above = means > np.median(means)
    crossings = max(int((is_above[1:] != is_above[:-1]).sum()), 1)
    width = np.subtract(*np.quantile(means, (0.99, 0.01)))
    room = width * CROSSING_RANGES / crossings
    return -_usual_height(-at_most) - room, _usual_height(at_least) + room


def _usual_height(level: np.ndarray) -> float:
    """The height that a level (n,) reaches now and then."""
    episodes = int(np.clip(len(level) // EPISODE_RECORDS, FEWEST_EPISODES, MOST_EPISODES))
    height, more_often = (_height_of(level, count) for count in (episodes, TAIL_EPISODES * episodes))
    known = level[np.isfinite(level)]
    return height + max(TAIL_STEPS * (height - more_often), TAIL_ROOM * (height - float(np.median(known))))


def _height_of(level: np.ndarray, episodes: int) -> float:
    """The greatest height that a level (n,) reaches in so many separate episodes.

    An episode that goes on for hours counts as several. If there are never so many, the height of the most.
    """
    gap = int(np.clip(len(level) // 40, 4, EPISODE_GAP))
    known = np.flatnonzero(np.isfinite(level))
    ranked = known[np.argsort(-level[known], kind="stable")]
    most, height = 0, -np.inf
    # Ranks that grow by about a tenth: finer steps change nothing.
    for rank in np.unique(np.geomspace(1, len(ranked), 90).astype(int)):
        highest = np.sort(ranked[:rank])
        count = sum(1 + (last - first) // (2 * gap) for first, last in _runs_of(highest, gap))
        if count > most:
            most, height = count, float(level[ranked[rank - 1]])
        if most >= episodes:
            break
    return height


def _by_hour(level: np.ndarray, times: np.ndarray, zone: str) -> np.ndarray:
    """What is usual for a level (n,) in each hour, (24,); zeros if the hour says little about it."""
    nothing = np.zeros(HOURS)
    known = ~np.isnan(level)
    seconds = local_seconds(times[known], zone)
    days = np.round((times[known] / 1e9 - seconds) / DAY_SECONDS).astype(int)
    hours = (seconds // 3600).astype(int)
    table = {}
    for day in np.unique(days):
        row = [level[known][(days == day) & (hours == hour)] for hour in range(HOURS)]
        table[day] = [float(np.median(cell)) if len(cell) else np.nan for cell in row]
    medians = np.array(list(table.values())).reshape(-1, HOURS)
    if not len(medians) or (~np.isnan(medians)).sum(axis=0).min() < JOB_DAYS:
        return nothing
    by_hour, flat = 0.0, 0.0
    for day, row in enumerate(medians):
        others = np.delete(medians, day, axis=0)
        by_hour += np.nansum(np.abs(row - np.nanmean(others, axis=0)))
        flat += np.nansum(np.abs(row - np.nanmean(others)))
    if by_hour > (1 - HOUR_SHARE) * flat:
        return nothing
    mean = np.nanmean(medians, axis=0)
    return (np.roll(mean, 1) + 2 * mean + np.roll(mean, -1)) / 4


# --- stretches and daily jobs --------------------------------------------------------------------


def _unlike(levels: np.ndarray, limits: dict[int, tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Which levels, (n, levels), are beyond what lasts as long; with the records that are partly in it."""
    unlike = np.zeros(levels.shape, dtype=bool)
    for duration, (low, high) in limits.items():
        at_least, at_most = lasting(levels, duration)
        beyond = (np.isfinite(at_least) & (at_least > high)) | (np.isfinite(at_most) & (at_most < low))
        for level, place in enumerate(beyond.T):
            for end in np.flatnonzero(place):
                unlike[max(end - duration + 1 - EDGE_RECORDS, 0) : end + 1 + EDGE_RECORDS, level] = True
    return unlike


def _runs(marked: np.ndarray, gap: int) -> list[tuple[int, int]]:
    """First and last place of each run of marked records (n,); runs at most `gap` apart are one."""
    return _runs_of(np.flatnonzero(marked), gap)


def _runs_of(places: np.ndarray, gap: int) -> list[tuple[int, int]]:
    if not len(places):
        return []
    parts = np.split(places, np.flatnonzero(np.diff(places) > gap) + 1)
    return [(int(part[0]), int(part[-1])) for part in parts]


def _daily(runs: list[tuple[int, int]], times: np.ndarray, zone: str) -> list[list[tuple[int, int]]]:
    """Runs that begin each day at about the same time, together."""
    days_of_recording = (times[-1] - times[0]) / 1e9 / DAY_SECONDS
    found = []
    left = list(runs)
    while left:
        begins = local_seconds(times[[begin for begin, _ in left]], zone)
        days = np.round((times[[begin for begin, _ in left]] / 1e9 - begins) / DAY_SECONDS)
        apart = np.abs((begins - begins[0] + DAY_SECONDS / 2) % DAY_SECONDS - DAY_SECONDS / 2)
        near = apart <= JOB_SPREAD_SECONDS
        together = [run for run, is_near in zip(left, near, strict=True) if is_near]
        if len(set(days[near])) >= max(JOB_DAYS, days_of_recording / 2):
            found.append(together)
            left = [run for run in left if run not in together]
        else:
            left = left[1:]
    return found


def _job(
    metric: str,
    runs: list[tuple[int, int]],
    times: np.ndarray,
    zone: str,
    features: Sequence[int],
    values: np.ndarray,
) -> DailyJob:
    begins, ends = (local_seconds(times[[run[end] for run in runs]], zone) for end in (0, 1))
    # Begins may be on both sides of midnight.
    after = (begins - begins[0] + DAY_SECONDS / 2) % DAY_SECONDS - DAY_SECONDS / 2
    begin = begins[0] + after.min() - JOB_MARGIN_SECONDS
    lasted = max((end - begin) % DAY_SECONDS for end in ends) + JOB_MARGIN_SECONDS
    limits = {}
    for place in features:
        seen = np.concatenate([values[first : last + 1, place] for first, last in runs])
        low, high = float(np.nanmin(seen)), float(np.nanmax(seen))
        margin = JOB_MARGIN * (high - low)
        limits[place] = (round(low - margin, 6), round(high + margin, 6))
    begin %= DAY_SECONDS
    return DailyJob(metric, round(begin, 3), round((begin + lasted) % DAY_SECONDS, 3), limits)
