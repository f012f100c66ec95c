"""What is usual for a port, and how far from it is an anomaly: six detectors, one form of model.

A detector learns the usual week, as a table over the slots of the week, and how far values are from what is
expected in service, which `levels.py` follows. A forecaster has a limit for each hour of the day, an outlier
model also a curve of scores over the errors. Three things are common to all, each chosen by measuring on
recordings from others (docs/ports.md):

- Errors are those of service: each of the last weeks is followed with a usual week that did not see it.
- What was anomalous in the training span, and weeks that were different, are neither learnt nor counted as
  errors.
- Levels are not learnt: the usual week is what is left when the level of each day is subtracted.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from common.files import UserError
from common.times import local_days
from ports.levels import DRIFT_MINUTES, LEVEL_MINUTES, MEMORY_AGES, NEWEST_WEIGHT, Memory, beyond, follow
from ports.preparation import Buckets, Preparation, Scaler
from ports.special_days import ORDINARY, expected_in, resembled_weekday
from ports.weeks import (
    DAY_SHARE,
    TOO_MANY_UNKNOWN,
    WEEK_DAYS,
    different,
    first_slot,
    median_week,
    places_of,
    spread,
    usual_week,
    week_rows,
)

MIN_DAYS = 28
DAY_HOURS = 24
# A value this many spreads off is unusual.
SPREADS = 4.25
# On the model's scale. A value nearer than this is never an anomaly, however regular the port is.
MIN_LIMIT = 0.25
# An hour has at least this share of the spread of all hours, and its own is known from so many errors.
LEAST_SPREAD, HOUR_ERRORS = 0.5, 20
# The errors of so many weeks count; at least this share of them must be known.
ERROR_WEEKS = 6
MIN_KNOWN_SHARE = 0.25
# On most ports, both of two errors in a row are beyond so many limits in fewer than one pair in a hundred.
# Where they are further off, so is what is ordinary, by so many times as much.
PAIR_SHARE, PAIR_LIMITS, PAIR_REACH = 0.99, 0.35, 3.5
# Values further off are cut before a library sees them.
CUT_SPREADS = 3.0
# The weeks whose errors count are left out of a fit in so many parts.
HELD_OUT_PARTS = 3
FOREST_SEED = 0

STL_SEASONAL = 35
# LOESS is evaluated at this many points of a week, and interpolated between them.
STL_TREND_JUMP, STL_LOW_PASS_JUMP = 6, 10
# Each tree sees half of the points, so that enough other trees judge each point.
TREES, LEAF_SAMPLES, TREE_SHARE = 20, 5, 0.5
ISOLATION_TREES, ISOLATION_SAMPLES = 50, 128
SVM_NU, SVM_GAMMA = 0.01, 0.1
# A curve has so many points, and accepts this share of ordinary errors.
CURVE_POINTS, ACCEPTED_SHARE = 65, 0.998
# A curve reaches so many limits far.
CURVE_REACH = 2.0


class TooShortError(UserError):
    """The history is shorter than MIN_DAYS. This is no fault of the series: waiting is enough."""


@dataclass(frozen=True)
class Scored:
    """The scores of n points. score (n,): above 1 is an anomaly, NaN is unknown. expected, low, high (n,):
    bytes, infinite where there is no bound. new_levels: as in Followed.
    """

    score: np.ndarray
    expected: np.ndarray
    low: np.ndarray
    high: np.ndarray
    new_levels: tuple[tuple[int, int], ...] = ()

    def from_index(self, index: int) -> Scored:
        """Without the first so many points."""
        parts = (values[index:] for values in (self.score, self.expected, self.low, self.high))
        taken = tuple((at - index, before) for at, before in self.new_levels if at >= index)
        return Scored(*parts, taken)


@dataclass(frozen=True)
class ScoreCurve:
    """The scores of an outlier model. grid: errors, in limits (points,), ascending. scores: of each
    (points,), which do not fall to either side of the lowest one.
    """

    grid: np.ndarray
    scores: np.ndarray

    def accepted(self) -> tuple[float, float]:
        """The lowest and the highest error with a score of at most 1; infinite where the end is accepted."""
        inside = np.flatnonzero(self.scores <= 1.0)
        first, last = inside[0], inside[-1]
        low, high = -np.inf, np.inf
        if first > 0:
            low = float(np.interp(1.0, self.scores[[first, first - 1]], self.grid[[first, first - 1]]))
        if last + 1 < len(self.grid):
            high = float(np.interp(1.0, self.scores[[last, last + 1]], self.grid[[last, last + 1]]))
        return low, high


@dataclass(frozen=True)
class Model:
    """What a detector has learnt of one series, on the scaler's scale.

    usual: the usual week without its level (slots,). limits: (24,), how far from what is expected a value may
    be at each hour of the day, one bucket after an ordinary one. reach: (2,), how many limits below and above
    that is. memory: how these widen. curve: the scores of an outlier model; without one, the score is the
    error in limits. drift_minutes: what lasts so long is the new level. holidays_like: the weekday that
    public holidays resemble, 0 is Monday; None if each is like its own, or none is known.
    """

    scaler: Scaler
    usual: np.ndarray
    limits: np.ndarray
    reach: np.ndarray
    memory: Memory
    curve: ScoreCurve | None = None
    drift_minutes: int = DRIFT_MINUTES
    holidays_like: int | None = None

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """How far below (negative) and above what is expected a value may be at each hour (24,)."""
        low, high = self.curve.accepted() if self.curve else (-1.0, 1.0)
        lows, highs = np.minimum(low * self.limits, -MIN_LIMIT), np.maximum(high * self.limits, MIN_LIMIT)
        return self.reach[0] * lows, self.reach[1] * highs

    def judge(self, buckets: Buckets) -> Scored:
        """Judge consecutive buckets; those of the first day are unknown, since they show the level.

        The level does not follow quiet buckets.
        """
        usual, room = expected_in(self.usual, buckets, self.holidays_like)
        deviations = self.scaler.transform(buckets.traffic) - usual
        hours = _hours(buckets.slots, len(self.usual))
        limits = self.limits[hours]
        lows, highs = (bounds[hours] for bounds in self.bounds())
        seen = np.where(buckets.is_quiet, np.nan, deviations)
        followed = follow(seen, lows, highs, self.memory, buckets.minutes, self.drift_minutes, room)
        errors = beyond(deviations - followed.expected, room)
        in_limits = errors / (limits * followed.wider * np.where(errors > 0, self.reach[1], self.reach[0]))
        score = np.abs(in_limits)
        if self.curve:
            is_near = (errors >= lows * followed.wider) & (errors <= highs * followed.wider)
            score = np.interp(in_limits, self.curve.grid, self.curve.scores)
            score = np.where(np.isnan(errors), np.nan, np.where(is_near, np.minimum(score, 1.0), score))
        expected = usual + followed.expected
        lowest = expected + np.minimum(room, 0.0) + lows * followed.wider
        highest = expected + np.maximum(room, 0.0) + highs * followed.wider
        bounds = (self.scaler.inverse(bound) for bound in (expected, lowest, highest))
        return Scored(score, *bounds, followed.new_levels)


def _hours(slots: np.ndarray, slots_in_week: int) -> np.ndarray:
    """The hour of the day of each slot of the week (n,)."""
    return slots * WEEK_DAYS * DAY_HOURS // slots_in_week % DAY_HOURS


# --- learning ------------------------------------------------------------------------------------


def fit(
    detector: str,
    buckets: Buckets,
    preparation: Preparation,
    zone: str = "UTC",
    drift_minutes: int = DRIFT_MINUTES,
    weekend: tuple[int, ...] | None = None,
) -> Model:
    """Learn from the buckets of a training span, without those that are quiet.

    zone: in which days are counted. drift_minutes: what lasts so long is the new level. weekend: the weekdays
    without work (0 is Monday), if public holidays are known; these and bridge days are neither learnt as
    their weekday nor counted as errors.

    Raises TooShortError for a span shorter than MIN_DAYS, counted in whole buckets from its first sample.
    Raises UserError for an unknown detector, for a span with too few samples, and for traffic
    that never changes.
    """
    buckets = replace(buckets, traffic=np.where(buckets.is_quiet, np.nan, buckets.traffic))
    _check(detector, buckets, zone)
    is_ordinary = buckets.kinds == ORDINARY
    scaler = preparation.fit_scaler(buckets.traffic[is_ordinary & ~np.isnan(buckets.traffic)])
    all_values, minutes = scaler.transform(buckets.traffic), buckets.minutes
    values = np.where(is_ordinary, all_values, np.nan)
    # The first pass finds what is anomalous, the second one does without it.
    everything = np.ones(len(values), dtype=bool)
    _, service = _usual_and_service(values, everything, buckets, _median, preparation)
    is_anomalous, errors, wider = service.followed(drift_minutes)
    is_learnt, values = ~is_anomalous, np.where(service.is_different, np.nan, values)
    learner = DETECTORS[detector]
    usual, service = _usual_and_service(values, is_learnt, buckets, learner.learn, preparation)
    limits = service.limits[service.hours]
    curve = learner.curve(service.errors / limits) if learner.curve else None
    reach = _reach(errors / (limits * wider), preparation.alert_records(minutes))
    usual, like = np.roll(usual, first_slot(buckets.slots, minutes)), None
    if weekend is not None:
        like = resembled_weekday(np.where(is_learnt, values, np.nan), all_values, usual, buckets, weekend)
    return Model(scaler, usual, service.limits, reach, service.memory, curve, drift_minutes, like)


def _check(detector: str, buckets: Buckets, zone: str) -> None:
    if detector not in DETECTORS:
        raise UserError(f"there is no detector {detector!r}; choose from {', '.join(DETECTORS)}")
    days = 0.0
    if len(buckets.starts):
        days = local_days(int(buckets.starts[0]), int(buckets.starts[-1]) + 60 * buckets.minutes, zone)
    if days < MIN_DAYS:
        missing = int(np.ceil(MIN_DAYS - days))
        raise TooShortError(f"has {int(days)} days of history and needs {missing} more to reach {MIN_DAYS}")
    known = buckets.traffic[~np.isnan(buckets.traffic)]
    if 2 * len(known) < len(buckets.traffic):
        raise UserError(
            f"has enough samples in {100 * len(known) // len(buckets.traffic)}% of its history, less than"
            " half; check how it is recorded, or raise --bucket_minutes"
        )
    if known.min() == known.max():
        raise UserError(
            f"its traffic is always {known[0]:g} bytes, so nothing can be learnt; do not record it"
        )


@dataclass(frozen=True)
class _Service:
    """The last weeks of a training span, as they would have been judged.

    is_different: whether a value is of a week that was different (n,). deviations: from a usual week that did
    not see them, NaN in such weeks (n,). hours: of the day (n,). errors: one bucket after an ordinary one
    (n,); NaN where it does not count. limits (24,), memory: as in Model.
    """

    is_different: np.ndarray
    deviations: np.ndarray
    hours: np.ndarray
    minutes: int
    errors: np.ndarray
    limits: np.ndarray
    memory: Memory

    @classmethod
    def of(
        cls, values: np.ndarray, is_learnt: np.ndarray, buckets: Buckets, of_weeks: np.ndarray
    ) -> _Service:
        """of_weeks: the usual week for each week (weeks, slots), NaN for a week that is not judged."""
        import pandas as pd

        week, column = places_of(buckets.slots, buckets.minutes)
        deviations = values - of_weeks[week, column]
        day = LEVEL_MINUTES // buckets.minutes
        ordinary = pd.Series(np.where(is_learnt, deviations, np.nan))
        level = ordinary.rolling(day, min_periods=int(DAY_SHARE * day)).median().shift(1)
        apart = (ordinary - level).to_numpy()
        is_different = different(apart, week)[week]
        apart, deviations = (np.where(is_different, np.nan, one) for one in (apart, deviations))
        newest = pd.Series(apart).ewm(alpha=NEWEST_WEIGHT, adjust=False, ignore_na=True).mean().to_numpy()
        left, spreads, errors = [], [], apart
        for age in MEMORY_AGES:
            before = np.concatenate([np.full(age, np.nan), newest[:-age]])
            left.append(_share_left(apart, before))
            of_age = apart - left[-1] * before
            spreads.append(spread(of_age))
            errors = of_age if age == MEMORY_AGES[0] else errors
        if np.isnan(errors).mean() > 1 - MIN_KNOWN_SHARE * min(1.0, ERROR_WEEKS / len(of_weeks)):
            raise UserError(TOO_MANY_UNKNOWN)
        widest = np.maximum.accumulate(spreads)
        hours = _hours(buckets.slots, of_weeks.shape[1])
        memory = Memory(np.array(left), np.maximum(widest / max(widest[0], MIN_LIMIT / SPREADS), 1.0))
        limits = _limits(errors, hours)
        return cls(is_different, deviations, hours, buckets.minutes, errors, limits, memory)

    def followed(self, drift_minutes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Which values are anomalous, how far they are off, and by how much limits were wider, all (n,)."""
        limits, first = self.limits[self.hours], int(np.argmax(~np.isnan(self.deviations)))
        bounds = -limits[first:], limits[first:]
        found = follow(self.deviations[first:], *bounds, self.memory, self.minutes, drift_minutes)
        unknown = np.full(first, np.nan)
        errors = np.concatenate([unknown, self.deviations[first:] - found.expected])
        is_anomalous = np.concatenate([np.zeros(first, dtype=bool), found.is_anomalous])
        return is_anomalous, errors, np.concatenate([unknown, found.wider])


def _usual_and_service(
    values: np.ndarray, is_learnt: np.ndarray, buckets: Buckets, learn: Learn, preparation: Preparation
) -> tuple[np.ndarray, _Service]:
    """The usual week that is learnt from values (n,), from the slot with which the first one begins."""
    weeks = week_rows(np.where(is_learnt, values, np.nan), buckets.slots, buckets.minutes)
    _, levels = usual_week(weeks)
    usual, of_weeks = learn(weeks - levels, first_slot(buckets.slots, buckets.minutes), preparation)
    return usual, _Service.of(values, is_learnt, buckets, of_weeks)


def _reach(in_limits: np.ndarray, row: int) -> np.ndarray:
    """How many limits values may be below and above (2,): 1, or more where two errors in a row are often far
    off. Those that make an alert, and what is beside them, do not count.

    in_limits: how many limits values are off (n,). row: how many anomalies in a row are an alert.
    """
    furthest = []
    for side in (-in_limits, in_limits):
        alerts = np.flatnonzero(_least(np.nan_to_num(side), row) > 1.0)
        beside = alerts[:, None] + np.arange(-row, 2 * row)
        side[np.clip(beside, 0, len(side) - 1)] = np.nan
        pairs = _least(side, 2)
        pairs = pairs[~np.isnan(pairs)]
        furthest.append(float(np.quantile(pairs, PAIR_SHARE)) if len(pairs) else 0.0)
    return 1.0 + PAIR_REACH * np.maximum(np.array(furthest) - PAIR_LIMITS, 0.0)


def _least(values: np.ndarray, row: int) -> np.ndarray:
    """The least of so many values (n,) in a row that begin at each: (n - row + 1,)."""
    return np.lib.stride_tricks.sliding_window_view(values, row).min(axis=1)


def _share_left(apart: np.ndarray, before: np.ndarray) -> float:
    """The share of deviations `before` (n,) that is left in `apart` (n,), without those far off."""
    furthest = SPREADS * spread(apart)
    counts = (np.abs(apart) < furthest) & (np.abs(before) < furthest)
    apart, before = apart[counts], before[counts]
    square = float(before @ before)
    return float(np.clip(apart @ before / square, 0.0, 1.0)) if square else 0.0


def _limits(errors: np.ndarray, hours: np.ndarray) -> np.ndarray:
    """The limit of each hour of the day (24,), from the errors (n,) in it and in the hours beside it.

    hours: the hour of each error (n,).
    """
    of_all = spread(errors)
    spreads = []
    for hour in range(DAY_HOURS):
        near = errors[(hours - hour + 1) % DAY_HOURS <= 2]
        is_enough = (~np.isnan(near)).sum() >= HOUR_ERRORS
        spreads.append(max(spread(near) if is_enough else of_all, LEAST_SPREAD * of_all))
    return np.maximum(SPREADS * np.array(spreads), MIN_LIMIT)


# --- the usual week ------------------------------------------------------------------------------

# From level-free weeks (weeks, slots), NaN where unknown, the slot with which they begin, and the
# preparation: the usual week (slots,), and for each week one that did not see it (weeks, slots), NaN for
# weeks that are not judged.
Learn = Callable[[np.ndarray, int, Preparation], tuple[np.ndarray, np.ndarray]]


def _median(level_free: np.ndarray, first: int, preparation: Preparation) -> tuple[np.ndarray, np.ndarray]:
    """The median week."""
    usual, of_weeks = median_week(level_free), np.full(level_free.shape, np.nan)
    for week in range(max(len(level_free) - ERROR_WEEKS, 0), len(level_free)):
        of_weeks[week] = median_week(np.delete(level_free, week, axis=0))
    return usual, of_weeks


def _random_forest(
    level_free: np.ndarray, first: int, preparation: Preparation
) -> tuple[np.ndarray, np.ndarray]:
    """Trees on time of day and weekday; a point is judged by trees that did not see it (out of bag)."""
    from sklearn.ensemble import RandomForestRegressor

    weeks, slots = level_free.shape
    times = np.roll(_times_of(slots, preparation), -first, axis=0)
    forest = RandomForestRegressor(
        TREES, min_samples_leaf=LEAF_SAMPLES, max_samples=TREE_SHARE, oob_score=True, random_state=FOREST_SEED
    )
    forest.fit(np.tile(times, (weeks, 1)), _filled(level_free).ravel())
    of_weeks = forest.oob_prediction_.reshape(weeks, slots)
    of_weeks[: max(weeks - ERROR_WEEKS, 0)] = np.nan
    return forest.predict(times), of_weeks


def _times_of(slots: int, preparation: Preparation) -> np.ndarray:
    """Time of day and weekday of each slot of the week (slots, 2)."""
    in_day = slots // WEEK_DAYS
    time_of_day = np.arange(slots) % in_day
    if preparation.is_hourly:
        time_of_day = time_of_day * DAY_HOURS // in_day
    return np.column_stack([time_of_day, np.arange(slots) // in_day])


def _held_out(shape_of: Callable[[np.ndarray], np.ndarray]) -> Learn:
    """A learner that judges each of the last ERROR_WEEKS by a fit without it.

    shape_of: makes the usual week (slots,) from level-free weeks without gaps (weeks, slots).
    """

    def learn(level_free: np.ndarray, first: int, preparation: Preparation) -> tuple[np.ndarray, np.ndarray]:
        of_weeks = np.full(level_free.shape, np.nan)
        # Nothing is known of a week that was different, so it cannot be judged.
        weeks = np.flatnonzero(np.isnan(level_free).mean(axis=1) <= 0.5)[-ERROR_WEEKS:]
        for first_week in range(HELD_OUT_PARTS):
            held_out, others = weeks[first_week::HELD_OUT_PARTS], level_free.copy()
            others[held_out] = np.nan
            of_weeks[held_out] = shape_of(_filled(others))
        return shape_of(_filled(level_free)), of_weeks

    return learn


def _filled(level_free: np.ndarray) -> np.ndarray:
    """Level-free weeks with gaps filled by the median week, and outliers cut."""
    usual = median_week(level_free)
    rest = level_free - usual
    furthest = CUT_SPREADS * spread(rest)
    return usual + np.clip(np.nan_to_num(rest), -furthest, furthest)


def _stl_week(level_free: np.ndarray) -> np.ndarray:
    """The last seasonal cycle of a seasonal-trend decomposition by LOESS (Cleveland et al. 1990)."""
    return decompose(level_free)[1][-1]


def decompose_buckets(buckets: Buckets, preparation: Preparation) -> tuple[np.ndarray, ...]:
    """Value, trend (with the level), season and residual of each bucket (n,), on the model's scale."""
    scaler = preparation.fit_scaler(buckets.traffic[~np.isnan(buckets.traffic)])
    values = scaler.transform(buckets.traffic)
    weeks = week_rows(values, buckets.slots, buckets.minutes)
    _, levels = usual_week(weeks)
    trend, season, _ = decompose(_filled(weeks - levels))
    places = places_of(buckets.slots, buckets.minutes)
    trend, season = (trend + levels)[places], season[places]
    return values, trend, season, values - trend - season


def decompose(level_free: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split whole weeks without gaps into trend, season and residual, each (weeks, slots)."""
    from statsmodels.tsa.seasonal import STL

    slots = level_free.shape[1]
    parts = STL(
        level_free.ravel(),
        period=slots,
        seasonal=STL_SEASONAL,
        trend_jump=slots // STL_TREND_JUMP,
        low_pass_jump=slots // STL_LOW_PASS_JUMP,
    ).fit()
    return tuple(part.reshape(level_free.shape) for part in (parts.trend, parts.seasonal, parts.resid))


def _sarimax_week(level_free: np.ndarray) -> np.ndarray:
    """The mean week, whose coefficient is 1 by regression, and a forecast of the errors. The ARMA parameters
    are those of Hannan and Rissanen (1982), which need no search.
    """
    from statsmodels.tsa.arima.estimators.hannan_rissanen import hannan_rissanen
    from statsmodels.tsa.statespace.sarimax import SARIMAX

    usual = level_free.mean(axis=0)
    errors = (level_free - usual).ravel()
    model = SARIMAX(errors, order=(1, 0, 1), enforce_stationarity=False, enforce_invertibility=False)
    # statsmodels warns about errors that are all zero, where any parameters will do.
    with warnings.catch_warnings(action="ignore"):
        arma, _ = hannan_rissanen(errors, ar_order=1, ma_order=1, demean=False)
        fitted = model.filter(np.clip(arma.params, [-0.99, -0.99, 1e-12], [0.99, 0.99, np.inf]))
    return usual + fitted.forecast(len(usual))


# --- curves of outlier models --------------------------------------------------------------------


class _Estimator(Protocol):
    def fit(self, points: np.ndarray) -> _Estimator: ...

    def score_samples(self, points: np.ndarray) -> np.ndarray: ...


def _isolation_forest(errors: np.ndarray) -> ScoreCurve:
    """The fewer random cuts isolate a point, the more unusual it is (Liu et al. 2008)."""
    from sklearn.ensemble import IsolationForest

    estimator = IsolationForest(
        n_estimators=ISOLATION_TREES, max_samples=ISOLATION_SAMPLES, random_state=FOREST_SEED
    )
    return _curve(errors, estimator)


def _one_class_svm(errors: np.ndarray) -> ScoreCurve:
    """The boundary around all but `nu` of the points (Scholkopf et al. 2001)."""
    from sklearn.svm import OneClassSVM

    return _curve(errors, OneClassSVM(nu=SVM_NU, gamma=SVM_GAMMA))


def _curve(errors: np.ndarray, estimator: _Estimator) -> ScoreCurve:
    """The scores of errors (n,), in limits: 0 for the most ordinary one, 1 at ACCEPTED_SHARE of all."""
    # An error beyond the limit is not learnt, and counts as an anomaly.
    seen = errors[np.abs(errors) <= 1.0]
    estimator.fit(SPREADS * seen[:, None])
    even = np.linspace(-CURVE_REACH, CURVE_REACH, CURVE_POINTS)
    # The model's file stores 32-bit floats, in which two points must not become one.
    grid = np.unique(
        np.concatenate([even, np.quantile(seen, np.linspace(0, 1, CURVE_POINTS))]).astype(np.float32)
    )
    grid = grid.astype(float)
    scores = -estimator.score_samples(SPREADS * grid[:, None])
    of_seen = np.interp(seen, grid, scores)
    lowest = of_seen.min()
    width = np.quantile(of_seen, ACCEPTED_SHARE) - lowest
    # If all errors score the same, none is more unusual than another.
    scores = (scores - lowest) / width if width > 1e-9 else np.zeros_like(scores)
    distance = np.abs(grid)
    scores = np.where(distance > 1.0, np.maximum(scores, distance), scores)
    # Further off is not less unusual.
    middle = int(np.argmin(scores))
    scores[middle:] = np.maximum.accumulate(scores[middle:])
    scores[: middle + 1] = np.maximum.accumulate(scores[middle::-1])[::-1]
    return ScoreCurve(grid, scores)


@dataclass(frozen=True)
class Learner:
    """How a detector learns the usual week and, for an outlier model, scores from errors (n,) in limits."""

    learn: Learn
    curve: Callable[[np.ndarray], ScoreCurve] | None = None


DETECTORS = {
    "profile": Learner(_median),
    "stl": Learner(_held_out(_stl_week)),
    "sarimax": Learner(_held_out(_sarimax_week)),
    "random-forest": Learner(_random_forest),
    "isolation-forest": Learner(_median, _isolation_forest),
    "one-class-svm": Learner(_median, _one_class_svm),
}
