"""How often a port is sampled, whether its samples are a counter, and its bytes in cells of five minutes.

Everything is found in the samples themselves: nothing has to be configured, and ports may differ and change.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from common.files import UserError
from ports.series import SAMPLE_SECONDS, Series

# What a distance between two samples can stand for. A sample that comes more often counts as one of a minute.
INTERVAL_MINUTES = (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30, 60)
# A new interval counts after so many equal distances: gaps are seldom that regular.
RUN = 6
# A distance of up to so many intervals is one late sample; a longer one has a gap before its sample.
LATE = 1.5
# The bytes of a counter are known over a distance of up to so many intervals: over one missing sample.
COUNTED = 2.5
# A counter rises so often, and so many times as often as it falls.
COUNTER_RISES, RISES_PER_FALL = 50, 20

_SECONDS = 60 * np.array(INTERVAL_MINUTES)
# Between two intervals, the nearer one by factor counts.
_BOUNDS = np.sqrt(_SECONDS * np.append(_SECONDS[1:], 2 * _SECONDS[-1]))


@dataclass(frozen=True)
class Sampling:
    """minutes: between two samples, at the end of training. is_counter: samples are readings of a counter."""

    minutes: int = SAMPLE_SECONDS // 60
    is_counter: bool = False


FIVE_MINUTES = Sampling()


def find_sampling(series: Series) -> Sampling:
    """How a series is sampled at its end. Raises UserError if it is sampled less often than every hour."""
    found = _intervals(series)
    counted = found[_is_run(found)]
    if len(found) and not len(counted):
        distance = np.sort(np.diff(series.times))[len(found) // 2]
        if distance > _BOUNDS[-1]:
            raise UserError(
                f"has a sample every {distance / 60:.0f} minutes; a port must have one every"
                f" {INTERVAL_MINUTES[-1]} minutes or more often"
            )
    lengths = _lengths(series, int(counted[0]) if len(counted) else SAMPLE_SECONDS)
    minutes = int(lengths[-1]) // 60 if len(lengths) else FIVE_MINUTES.minutes
    return Sampling(minutes, _is_counter(series.traffic))


def as_sums(series: Series, sampling: Sampling) -> Series:
    """The bytes between the readings of a counter as samples; a series of sums stays as it is.

    The bytes over one missing reading are halved between both samples, those over a longer gap are unknown.
    So are those around a reset, where the counter falls, and around a single reading that is too low.
    """
    if not sampling.is_counter:
        return series
    is_known = ~np.isnan(series.traffic)
    times, readings = series.times[is_known], series.traffic[is_known]
    if len(times) < 2:
        return Series(series.name, times[:0], readings[:0])
    distances, sums = np.diff(times), np.diff(readings)
    is_back = np.zeros(len(sums), dtype=bool)
    is_back[1:] = (sums[:-1] < 0) & (readings[2:] >= readings[:-2])
    lengths = _lengths(series, sampling.minutes * 60)[is_known][1:]
    sums[(sums < 0) | is_back | (distances > COUNTED * lengths)] = np.nan
    late = np.flatnonzero((distances > LATE * lengths) & (distances <= COUNTED * lengths))
    sums[late] /= 2
    missing = times[late] + distances[late] // 2
    return Series(series.name, np.insert(times[1:], late, missing), np.insert(sums, late, sums[late]))


def cells(series: Series, sampling: Sampling) -> tuple[int, np.ndarray]:
    """The number of the first cell of five minutes, counted from 1970, and the bytes in each cell (n,).

    A sample of five minutes is that of the cell with most of its time. Any other is divided evenly over the
    time since the sample before it, but over no more than its interval if samples are missing. A cell is
    unknown (NaN) if less than half of it is known; otherwise its bytes are scaled up to the whole cell.
    """
    times, traffic = series.times, series.traffic
    lengths = _lengths(series, sampling.minutes * 60)
    is_cell = lengths == SAMPLE_SECONDS
    places = (times - SAMPLE_SECONDS // 2) // SAMPLE_SECONDS
    if is_cell.all():
        found = np.full(places[-1] + 1 - places[0], np.nan)
        found[places - places[0]] = traffic
        return int(places[0]), found
    begins = times - lengths
    begins[1:] = np.where(np.diff(times) <= LATE * lengths[1:], times[:-1], begins[1:])
    first = int(np.where(is_cell, places, begins // SAMPLE_SECONDS).min())
    count = -(-int(times[-1]) // SAMPLE_SECONDS) - first
    is_divided = ~is_cell & ~np.isnan(traffic)
    found = _divided(begins[is_divided], times[is_divided], traffic[is_divided], first, count)
    found[places[is_cell] - first] = traffic[is_cell]
    return first, found


def _divided(begins: np.ndarray, ends: np.ndarray, traffic: np.ndarray, first: int, count: int) -> np.ndarray:
    """Bytes (n,), each evenly from its begin to its end, in `count` cells from the cell `first` on."""
    from_cell, to_cell = begins // SAMPLE_SECONDS, (ends - 1) // SAMPLE_SECONDS
    touched = to_cell - from_cell + 1
    sample = np.repeat(np.arange(len(ends)), touched)
    cell = from_cell[sample] + np.arange(len(sample)) - np.repeat(np.cumsum(touched) - touched, touched)
    seconds = np.minimum(ends[sample], (cell + 1) * SAMPLE_SECONDS) - np.maximum(
        begins[sample], cell * SAMPLE_SECONDS
    )
    shares = traffic[sample] * seconds / (ends - begins)[sample]
    known = np.bincount(cell - first, seconds, count)
    sums = np.bincount(cell - first, shares, count)
    is_enough = 2 * known >= SAMPLE_SECONDS
    return np.where(is_enough, sums * (SAMPLE_SECONDS / np.where(is_enough, known, 1.0)), np.nan)


def _lengths(series: Series, before: int) -> np.ndarray:
    """The interval of each sample in seconds (n,). before: until the first run of equal distances."""
    found = _intervals(series)
    # The number of the distance that counts at each one, 0 for `before`.
    last = np.maximum.accumulate(np.where(_is_run(found), np.arange(1, len(found) + 1), 0))
    lengths = np.concatenate([[before], found])[last]
    return np.concatenate([lengths[:1] if len(lengths) else [before], lengths])[: len(series.times)]


def _intervals(series: Series) -> np.ndarray:
    """What the distance before each sample but the first stands for, in seconds (n - 1,).

    0 for more than any interval, and for a sample without a value.
    """
    found = np.append(_SECONDS, 0)[np.searchsorted(_BOUNDS, np.diff(series.times))]
    return np.where(np.isnan(series.traffic[1:]), 0, found)


def _is_run(found: np.ndarray) -> np.ndarray:
    """Whether each interval (n,) is one of at least RUN equal ones in a row."""
    if not len(found):
        return np.zeros(0, dtype=bool)
    starts = np.flatnonzero(np.concatenate([[True], found[1:] != found[:-1]]))
    counts = np.diff(np.append(starts, len(found)))
    return np.repeat((counts >= RUN) & (found[starts] > 0), counts)


def _is_counter(readings: np.ndarray) -> bool:
    """Whether values (n,) rise as only a counter does."""
    changes = np.diff(readings[~np.isnan(readings)])
    rises, falls = int((changes > 0).sum()), int((changes < 0).sum())
    return rises >= COUNTER_RISES and rises >= RISES_PER_FALL * falls
