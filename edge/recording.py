"""What of a recording is learnt: what looks unlike the rest is left out, and the habits of the rest.

A level is usual if the recording reached it in several separate episodes; so an attack that was forgotten
in it makes nothing usual. docs/habits.md says why, with the figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from common.alerts import WINDOW_RECORDS
from common.files import UserError
from common.times import DAY_SECONDS, format_duration, format_time
from edge.habits import DURATIONS, HOURS, DailyJob, Habits, between_hours, lasting, local_days
from nodes.metrics import MetricTable

# A level is usual if it was reached in this many episodes: in a short recording, and in one of a day.
FEWEST_EPISODES, MOST_EPISODES = 3, 5
# Nothing is left out of a recording of fewer records.
SHORTEST = 200
# One more for each this many records.
EPISODE_RECORDS = 1000
# The limit is further out: by so many times the step to the level of twice as many episodes. If episodes
# become rarer exponentially, one beyond the limit comes once in 25 recordings.
TAIL_STEPS = 7.0
TAIL_EPISODES = 2
# It is at least and at most these shares further from the median: levels that have an end show no step, and
# ones that came in a few sessions have all of their height for a step.
TAIL_ROOM, MOST_TAIL_ROOM = 0.2, 2.0
# The fewer times a level crosses its median, the less a recording shows how far it goes: the limit is further
# out by this many ranges, divided by the crossings.
CROSSING_RANGES = 20
# A level that is so much of the time at its median, within NARROWEST, rests there and does not drift: so many
# ranges at most.
RESTING_SHARE, RESTING_RANGES = 0.25, 2.0
# Records of one episode are at most this far apart, or a fortieth of the recording; one of twice this length
# counts as two.
EPISODE_SECONDS = 3600
# A daily job starts on this many days, and on half of all days, and so far apart at most.
JOB_DAYS = 3
JOB_SPREAD_SECONDS = 45 * 60
# It is expected this much earlier and later than seen.
JOB_MARGIN_SECONDS = 10 * 60
# Its levels are expected to go this share further than seen.
JOB_MARGIN = 0.25
# What is usual depends on the hour if that explains this share of the differences between other days' hours.
HOUR_SHARE = 0.25
# So many hours may be known on one day fewer.
OUTAGE_HOURS = 6
# This share of the records in an hour are less than its spread away from what is usual. A daily job of half
# an hour must not be part of the spread.
SPREAD_SHARE = 0.4
# The limit is further out by this many times the most that a whole day differed from the others.
DAY_ROOM = 2.0
# A shorter recording does not show that there is less to do at the weekend.
WEEK_SECONDS = 7 * DAY_SECONDS
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
    hours. excluded: windows (start, end) in ns that are not learnt. learn_all: all else is learnt, apart from
    daily jobs. The `rmse` of the habits is 0: it is known when the network is trained. Raises UserError if
    nothing is left of a level.
    """
    places = tuple(metrics.features.index(row.level) for row in metrics.values())
    is_excluded = np.zeros(len(times), dtype=bool)
    for start, end in excluded:
        is_excluded |= (times >= start) & (times < end)
    levels = np.where(is_excluded[:, None], np.nan, values[:, places])
    unlike = np.zeros(levels.shape, dtype=bool)
    # What the first round finds no longer widens the limits of the second.
    for _ in range(0 if len(times) < SHORTEST else 2):
        ignored = is_excluded | unlike.any(axis=1)
        unlike = _unlike(_course_of(levels, times, zone, ignored), ignored) & ~is_excluded[:, None]
    jobs: list[DailyJob] = []
    ignored = is_excluded.copy()
    for place, metric in enumerate(metrics.values()):
        features = metrics.feature_places[metric.name]
        for runs in _daily(_runs(unlike[:, place], WINDOW_RECORDS), times, zone):
            jobs.append(_job(metric.name, runs, times, zone, features, values))
            for begin, end in runs:
                unlike[begin : end + 1, place] = False
                ignored[begin : end + 1] = True
    stretches = [] if learn_all else _runs(unlike.any(axis=1), WINDOW_RECORDS)
    for begin, end in stretches:
        ignored[begin : end + 1] = True
    for place in places:
        if np.isnan(values[~ignored, place]).all():
            raise UserError(
                f"the training set (--trainset) has no value of {metrics.features[place]} apart from what is"
                " left out; correct attacks.json beside it, or collect a longer time"
            )
    course = _course_of(levels, times, zone, ignored)
    (high, high_middle), (low, low_middle) = (
        _limits_and_middle(end, ignored, learn_all) for end in course.ends
    )
    habits = Habits(
        zone,
        places,
        course.by_hour,
        course.spread,
        high,
        high_middle,
        -low,
        -low_middle,
        course.is_low_by_hour,
        np.zeros(len(places)),
        tuple(jobs),
    )
    names = np.array(list(metrics))
    left_out = [
        Stretch(
            int(times[begin]), int(times[end]), tuple(names[unlike[begin : end + 1].any(axis=0)].tolist())
        )
        for runs in (stretches, _runs(is_excluded, 1))
        for begin, end in runs
    ]
    return Study(~ignored, sorted(left_out, key=lambda stretch: stretch.start), habits)


# --- limits --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _End:
    """The upper or the lower end of levels.

    heights: (n, levels), negated for the lower end. room: (levels,), by how much whole days may differ.
    days: (n,), the local day, counted from 0. seconds: (n,), of the local day. gap: records of one episode
    are at most so many apart.
    """

    heights: np.ndarray
    room: np.ndarray
    days: np.ndarray
    seconds: np.ndarray
    gap: int


@dataclass(frozen=True)
class _Course:
    """How levels depend on the hour, as in Habits: by_hour, spread (24, levels); and their two ends."""

    by_hour: np.ndarray
    spread: np.ndarray
    ends: tuple[_End, _End]
    is_low_by_hour: bool


def _course_of(levels: np.ndarray, times: np.ndarray, zone: str, ignored: np.ndarray) -> _Course:
    """The course of levels (n, m); ignored: (n,), records that say nothing about it."""
    days, seconds = local_days(times, zone)
    days -= days.min()
    parts = [_by_hour(level, ignored, days, seconds) for level in levels.T]
    by_hour, spread, upward, room = (np.stack(arrays, axis=-1) for arrays in zip(*parts, strict=True))
    is_week = _is_week(times, days, ~ignored & ~np.isnan(levels).all(axis=1))
    in_episode = int(EPISODE_SECONDS / _interval(times))
    upper = _End(upward, room, days, seconds, max(min(len(times) // 40, in_episode), 4))
    lower = replace(upper, heights=-upward)
    if not is_week:
        lower = replace(upper, heights=-levels, room=np.zeros(len(room)))
    return _Course(by_hour, spread, (upper, lower), is_week)


def _interval(times: np.ndarray) -> float:
    """Seconds from one record to the next; infinite for a single record."""
    return float(np.median(np.diff(times))) / 1e9 if len(times) > 1 else np.inf


def _is_week(times: np.ndarray, days: np.ndarray, is_known: np.ndarray) -> bool:
    """Whether a recording has seven whole days, and half a day or more of each day of the week.

    times: (n,) in ns. days: (n,). is_known: (n,), whether a record has values that count.
    """
    interval = _interval(times)
    span = (times[-1] - times[0]) / 1e9 + interval
    known = np.bincount(days[is_known] % 7, minlength=7) * interval
    return bool(span >= WEEK_SECONDS and known.min() >= DAY_SECONDS / 2)


def _limits_and_middle(end: _End, ignored: np.ndarray, learn_all: bool) -> tuple[np.ndarray, np.ndarray]:
    """The limit for each duration (durations, levels), and the median (levels,)."""
    known = end.heights[~ignored]
    middle, highest, lowest = (of(known, axis=0) for of in (np.nanmedian, np.nanmax, np.nanmin))
    narrowest = middle + NARROWEST * (highest - lowest)
    limits = []
    for duration in DURATIONS:
        limit = _limits(end, ignored, duration)
        # What never lasted so long in a recording with gaps may last as high as for shorter.
        before = limits[-1] if limits else highest
        limits.append(np.maximum(np.where(np.isnan(limit), before, limit), narrowest))
        if learn_all:
            # What a person calls normal is within the limits, however seldom it came.
            seen = lasting(np.where(ignored[:, None], np.nan, end.heights), duration).max(axis=0)
            limits[-1] = np.maximum(limits[-1], seen + TAIL_ROOM * (seen - middle))
    return np.stack(limits), middle


def _limits(end: _End, ignored: np.ndarray, duration: int) -> np.ndarray:
    """The height of each level that is usual for `duration` records, NaN if it is not known: (levels,)."""
    known = np.where(ignored[:, None], np.nan, end.heights)
    return np.array([_limit(level, duration, end) for level in known.T]) + end.room


def _limit(level: np.ndarray, duration: int, end: _End) -> float:
    """The highest level (n,) that is usual for `duration` records; NaN if none lasts so long."""
    lasts = lasting(level[:, None], duration)[:, 0]
    if not np.isfinite(lasts).any():
        return np.nan
    known = level[~np.isnan(level)]
    means = np.convolve(known, np.full(duration, 1 / duration), "valid")
    is_above = means > np.median(means)
    crossings = max(int((is_above[1:] != is_above[:-1]).sum()), 1)
    width = np.subtract(*np.quantile(means, (0.99, 0.01)))
    rests = (np.abs(means - np.median(means)) <= NARROWEST * width).mean() >= RESTING_SHARE
    room = min(CROSSING_RANGES / crossings, RESTING_RANGES if rests else np.inf)
    return _usual_height(lasts, end) + width * room


def _usual_height(level: np.ndarray, end: _End) -> float:
    """The height that a level (n,) reaches now and then."""
    episodes = int(np.clip(len(level) // EPISODE_RECORDS, FEWEST_EPISODES, MOST_EPISODES))
    height, more_often = _heights_of(level, (episodes, TAIL_EPISODES * episodes), end)
    known = level[np.isfinite(level)]
    far = height - float(np.median(known))
    room = max(TAIL_STEPS * (height - more_often), TAIL_ROOM * far)
    # Few episodes may be below the median.
    return height + (min(room, MOST_TAIL_ROOM * far) if far > 0 else room)


def _heights_of(level: np.ndarray, episodes: Sequence[int], end: _End) -> list[float]:
    """For each number of separate episodes, fewest first, the greatest height that a level (n,) reaches in
    so many.

    An episode that goes on for hours counts as several. Those of three days at the same time count once:
    they are a daily job, which is not usual at other times. If there are never so many, it is the height of
    the most.
    """
    known = np.flatnonzero(np.isfinite(level))
    ranked = known[np.argsort(-level[known], kind="stable")]
    most, height = 0, -np.inf
    heights: list[float] = []
    # Ranks that grow by about a tenth: finer steps change nothing.
    for rank in np.unique(np.geomspace(1, len(ranked), 90).astype(int)):
        count = _count_of(_runs_of(np.sort(ranked[:rank]), end.gap), end)
        if count > most:
            most, height = count, float(level[ranked[rank - 1]])
        heights += [height] * sum(most >= wanted for wanted in episodes[len(heights) :])
        if len(heights) == len(episodes):
            break
    return heights + [height] * (len(episodes) - len(heights))


def _count_of(runs: list[tuple[int, int]], end: _End) -> int:
    """How many episodes runs of records make."""
    counts = np.array([1 + (last - first) // (2 * end.gap) for first, last in runs])
    begins = [first for first, _ in runs]
    days, seconds = end.days[begins], end.seconds[begins]
    is_near = np.abs(_later(seconds[:, None], seconds)) <= JOB_SPREAD_SECONDS / 2
    is_on = days[:, None] == np.unique(days)
    is_job = ((is_near.astype(int) @ is_on) > 0).sum(axis=1) >= JOB_DAYS
    on_days = (counts * is_job) @ is_on
    return int(counts[~is_job].sum() + on_days.max())


def _later(seconds: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How much later than the other a time of day is, in seconds; negative if it is earlier."""
    return (seconds - others + DAY_SECONDS / 2) % DAY_SECONDS - DAY_SECONDS / 2


def _by_hour(
    level: np.ndarray, ignored: np.ndarray, days: np.ndarray, seconds: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """by_hour and spread (24,) of one level (n,), its height (n,), and by how much whole days differ.

    days: local, (n,). seconds: of the local day, (n,). Each day is compared with the other days, as a day
    after the training will be.
    """
    no_course = np.zeros(HOURS), np.ones(HOURS), level, 0.0
    names, day_places = np.unique(days, return_inverse=True)
    hours = (seconds // 3600).astype(int)
    is_known = ~np.isnan(level) & ~ignored
    if not is_known.any():
        return no_course
    medians = np.full((len(names), HOURS), np.nan)
    known_hours = np.flatnonzero(is_known)
    cells = day_places[known_hours] * HOURS + hours[known_hours]
    order = np.argsort(cells, kind="stable")
    found, starts = np.unique(cells[order], return_index=True)
    for cell, part in zip(found, np.split(known_hours[order], starts[1:]), strict=True):
        medians.flat[cell] = np.median(level[part])
    known_days = (~np.isnan(medians)).sum(axis=0)
    # An outage may have taken some hours of one day.
    if known_days.min() < JOB_DAYS - 1 or (known_days < JOB_DAYS).sum() > OUTAGE_HOURS:
        return no_course
    of_others = np.zeros(len(level))
    by_others, by_none = np.zeros(medians.shape), np.zeros(medians.shape)
    for place, row in enumerate(medians):
        others = np.delete(medians, place, axis=0)
        by_others[place] = row - np.nanmean(others, axis=0)
        by_none[place] = row - np.nanmean(others)
        is_day = day_places == place
        of_others[is_day] = between_hours(_smooth(others)[:, None], seconds[is_day])[:, 0]
    if np.nansum(np.abs(by_others)) > (1 - HOUR_SHARE) * np.nansum(np.abs(by_none)):
        return no_course
    apart = np.abs(level - of_others)
    varies = np.array([np.quantile(apart[is_known & (hours == hour)], SPREAD_SHARE) for hour in range(HOURS)])
    # A course may be earlier or later on another day.
    wide = np.max([np.roll(varies, 1), varies, np.roll(varies, -1)], axis=0)
    spread = np.maximum(wide, np.median(varies))
    if not spread.min() > 0:
        return no_course
    # A day of which nothing is known does not differ.
    counts = np.maximum((~np.isnan(by_others)).sum(axis=1), 1)
    day_apart = np.abs(np.nansum(by_others / spread, axis=1) / counts).max()
    height = (level - of_others) / between_hours(spread[:, None], seconds)[:, 0]
    return _smooth(medians), spread, height, DAY_ROOM * day_apart


def _smooth(medians: np.ndarray) -> np.ndarray:
    """The mean of days (days, 24) for each hour, smoothed over the hours beside it."""
    mean = np.nanmean(medians, axis=0)
    return (np.roll(mean, 1) + 2 * mean + np.roll(mean, -1)) / 4


# --- stretches and daily jobs --------------------------------------------------------------------


def _unlike(course: _Course, ignored: np.ndarray) -> np.ndarray:
    """Which levels, (n, levels), are beyond what lasts as long; with the records that are partly in it."""
    unlike = np.zeros(course.ends[0].heights.shape, dtype=bool)
    for end in course.ends:
        # A single record may be unlike the rest, too.
        for duration in (1, *DURATIONS):
            beyond = lasting(end.heights, duration) > _limits(end, ignored, duration)
            for place, level in enumerate(beyond.T):
                for last in np.flatnonzero(level):
                    first = max(last - duration + 1 - EDGE_RECORDS, 0)
                    unlike[first : last + 1 + EDGE_RECORDS, place] = True
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
        days, begins = local_days(times[[begin for begin, _ in left]], zone)
        near = np.abs(_later(begins[:, None], begins)) <= JOB_SPREAD_SECONDS
        days_near = [len(set(days[is_near])) for is_near in near]
        if max(days_near) < max(JOB_DAYS, days_of_recording / 2):
            break
        is_near = near[int(np.argmax(days_near))]
        found.append([run for run, is_part in zip(left, is_near, strict=True) if is_part])
        left = [run for run, is_part in zip(left, is_near, strict=True) if not is_part]
    return found


def _job(
    metric: str,
    runs: list[tuple[int, int]],
    times: np.ndarray,
    zone: str,
    features: Sequence[int],
    values: np.ndarray,
) -> DailyJob:
    begins, ends = (local_days(times[[run[end] for run in runs]], zone)[1] for end in (0, 1))
    # Begins may be on both sides of midnight.
    begin = begins[0] + _later(begins, begins[0]).min() - JOB_MARGIN_SECONDS
    lasted = max((end - begin) % DAY_SECONDS for end in ends) + JOB_MARGIN_SECONDS
    limits = {}
    for place in features:
        seen = np.concatenate([values[first : last + 1, place] for first, last in runs])
        low, high = float(np.nanmin(seen)), float(np.nanmax(seen))
        margin = JOB_MARGIN * (high - low)
        limits[place] = (round(low - margin, 6), round(high + margin, 6))
    begin %= DAY_SECONDS
    return DailyJob(metric, round(begin, 3), round((begin + lasted) % DAY_SECONDS, 3), limits)
