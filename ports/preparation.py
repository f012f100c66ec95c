"""From the samples of a port to what its model sees: regular buckets, their place in the week, one scale.

There are two preparations: `default`, and `workshop`, which the reference document describes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from common.alerts import ALERT_RECORDS, alert_records
from common.times import DAY_MINUTES
from ports.sampling import FIVE_MINUTES, Sampling, as_sums, cells
from ports.series import SAMPLE_SECONDS, Series

BUCKET_MINUTES = (5, 10, 15, 20, 30, 60)
# The rolling window of the reference document, and the z-score above which a point counts as a spike.
WORKSHOP_WINDOW_MINUTES = 120
WORKSHOP_Z = 2.0
# On the log scale, zero traffic lies as low as this share of the traffic in busy times.
NEXT_TO_NOTHING = 0.005
BUSY_QUANTILE = 0.99


@dataclass(frozen=True)
class Buckets:
    """starts: seconds since 1970 (n,), a bucket apart, none left out. traffic: bytes (n,), per sample for the
    default preparation, in the whole bucket for the workshop's; NaN if too little was measured. slots: the
    place of each bucket in the week (n,), 0 on Monday at midnight. kinds: of the days, as in special_days.py
    (n,), all ordinary if None. is_quiet: whether a window of the calendar touches a bucket (n,), none does if
    None.
    """

    minutes: int
    starts: np.ndarray
    traffic: np.ndarray
    slots: np.ndarray
    kinds: np.ndarray | None = None
    is_quiet: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name, kind in (("kinds", int), ("is_quiet", bool)):
            if getattr(self, name) is None:
                object.__setattr__(self, name, np.zeros(len(self.starts), dtype=kind))

    def __getitem__(self, part: slice | np.ndarray) -> Buckets:
        arrays = (self.starts, self.traffic, self.slots, self.kinds, self.is_quiet)
        return Buckets(self.minutes, *(array[part] for array in arrays))


@dataclass(frozen=True)
class Scaler:
    """Bytes to the model's scale: `log` of (traffic + offset), or `standard`, (traffic - offset) / width."""

    kind: str
    offset: float
    width: float

    def transform(self, traffic: np.ndarray) -> np.ndarray:
        """Bytes to the model's scale; NaN stays NaN."""
        if self.kind == "log":
            return np.log(traffic + self.offset)
        return (traffic - self.offset) / self.width

    def inverse(self, values: np.ndarray) -> np.ndarray:
        """The model's scale to bytes, never below zero."""
        # A limit may exceed the range of floats.
        with np.errstate(over="ignore"):
            traffic = (
                np.exp(values) - self.offset if self.kind == "log" else values * self.width + self.offset
            )
        # A rest this small is a rounding error of the logarithm and back.
        least = 1e-9 * self.offset if self.kind == "log" else 0.0
        return np.where(traffic < least, 0.0, traffic)


@dataclass(frozen=True)
class Preparation:
    """One of the two preparations. is_local: the week follows the port's time zone, not UTC. is_per_sample:
    traffic is bytes per sample, not in the whole bucket.
    """

    name: str
    minutes: int
    is_local: bool
    # The workshop's models see the hour and weekday, the others the bucket of the week.
    is_hourly: bool
    fill: Callable[[np.ndarray, int], np.ndarray]
    fit_scaler: Callable[[np.ndarray], Scaler]
    is_per_sample: bool = False

    def alert_records(self, minutes: int) -> int:
        """How many anomalies in a row are an alert; the workshop's rule is four, however long they last."""
        return ALERT_RECORDS if self.is_hourly else alert_records(minutes)

    def buckets(self, series: Series, minutes: int, zone: str, sampling: Sampling = FIVE_MINUTES) -> Buckets:
        """All buckets that have ended, in order. sampling: of the series at the end of training."""
        starts, in_cells = _regular(as_sums(series, sampling), minutes, sampling)
        if self.is_per_sample:
            in_cells = in_cells * (sampling.minutes * 60 / SAMPLE_SECONDS)
        return Buckets(
            minutes,
            starts,
            self.fill(in_cells, minutes),
            week_slots(starts, minutes, zone if self.is_local else "UTC"),
        )


def bucket_minutes(least: int, interval: int) -> int:
    """The shortest bucket of at least so many minutes that holds whole intervals (minutes) of samples."""
    long = [minutes for minutes in BUCKET_MINUTES if minutes >= max(least, interval)]
    return next((minutes for minutes in long if minutes % interval == 0), long[0])


def check_zone(zone: str) -> None:
    """Raise ValueError for a time zone that this machine does not know."""
    try:
        ZoneInfo(zone)
    except (KeyError, OSError):
        raise ValueError(f"no time zone {zone!r}") from None


def week_slots(starts: np.ndarray, minutes: int, zone: str) -> np.ndarray:
    """The place of each bucket in the local week (n,), counted from 0 on Monday at midnight."""
    local = pd.DatetimeIndex(pd.to_datetime(starts, unit="s", utc=True)).tz_convert(zone)
    minute = local.day_of_week * DAY_MINUTES + local.hour * 60 + local.minute
    return minute.to_numpy() // minutes


def _regular(series: Series, minutes: int, sampling: Sampling) -> tuple[np.ndarray, np.ndarray]:
    """Start of each bucket that has ended (n,), and bytes of its cells (n, per bucket), NaN if unknown."""
    per_bucket = minutes * 60 // SAMPLE_SECONDS
    if not len(series.times):
        return np.zeros(0, dtype=np.int64), np.zeros((0, per_bucket))
    first_cell, found = cells(series, sampling)
    first = first_cell // per_bucket
    count = max(int(series.times[-1]) // SAMPLE_SECONDS // per_bucket - first, 0)
    values = np.full(count * per_bucket, np.nan)
    begin = first_cell - first * per_bucket
    ended = found[: max(len(values) - begin, 0)]
    values[begin : begin + len(ended)] = ended
    return (first + np.arange(count)) * minutes * 60, values.reshape(count, per_bucket)


# --- the default ---------------------------------------------------------------------------------


def medians(samples: np.ndarray, minutes: int) -> np.ndarray:
    """Bytes per sample: the median of the cells of each bucket (n, per bucket).

    The median ignores one wrong cell in three: a transfer of five minutes, a counter that was reset. A bucket
    with fewer than half of its cells is unknown: filled with zeroes, it would be an anomaly.
    """
    is_enough = 2 * (~np.isnan(samples)).sum(axis=1) >= samples.shape[1]
    return np.where(is_enough, known_medians(samples), np.nan)


def known_medians(values: np.ndarray) -> np.ndarray:
    """Median of the known values in each row, (n, m) -> (n,); NaN if there are none, without a warning."""
    known = (~np.isnan(values)).sum(axis=1)
    ordered, rows = np.sort(values, axis=1), np.arange(len(values))
    low, high = np.maximum(known - 1, 0) // 2, np.minimum(known // 2, values.shape[1] - 1)
    return (ordered[rows, low] + ordered[rows, high]) / 2


def log_scaler(traffic: np.ndarray) -> Scaler:
    """A log scale, because a port's traffic varies by factors. Zero lies at NEXT_TO_NOTHING of busy times.

    Busy times are taken from a quantile, too: the mean of a mostly idle port is itself next to nothing.
    """
    busy = max(float(np.nanmean(traffic)), float(np.nanquantile(traffic, BUSY_QUANTILE)))
    return Scaler("log", NEXT_TO_NOTHING * busy, 1.0)


# --- the workshop's ------------------------------------------------------------------------------


def workshop_sums(samples: np.ndarray, minutes: int) -> np.ndarray:
    """Bytes of each bucket: the sum, with zero for missing samples and for sums of z > 2 within two hours."""
    sums = np.nan_to_num(samples).sum(axis=1)
    if not len(sums):
        return sums
    width = max(WORKSHOP_WINDOW_MINUTES // minutes, 1)
    padded = np.concatenate([np.full(width - 1, np.nan), sums])
    windows = np.lib.stride_tricks.sliding_window_view(padded, width)
    with np.errstate(invalid="ignore", divide="ignore"):
        z = (sums - np.nanmean(windows, axis=1)) / np.nanstd(windows, axis=1)
    return np.where(z > WORKSHOP_Z, 0.0, sums)


def standard_scaler(traffic: np.ndarray) -> Scaler:
    """Mean 0 and standard deviation 1."""
    return Scaler("standard", float(traffic.mean()), float(traffic.std()) or 1.0)


PREPARATIONS = {
    "default": Preparation("default", 15, True, False, medians, log_scaler, is_per_sample=True),
    "workshop": Preparation("workshop", 30, False, True, workshop_sums, standard_scaler),
}
