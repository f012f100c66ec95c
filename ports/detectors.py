"""What is usual for a port, and how far from it is an anomaly: six detectors, one form of model.

A detector knows two things about a point: its place in the week and its traffic. So everything it learns is
a table: a forecaster learns the usual week, an outlier model also a curve of scores. The stored model is that
table. Nothing else is needed to apply it, and a point's verdict depends on no other point.

Three things are common to all detectors, each chosen by measuring (`python -m benchmarks.ports`):

- They learn from whole weeks, counted back from the end of training. Each week's own level is subtracted, and
  values are cut to a range around the median week. So neither anomalies nor growth are learnt.
- The limit comes from honest errors: those of a week that was left out of the fit, with the level of the week
  before it, as in service. Errors of points that the model was fitted to are far too small.
- Nothing is fed back. A forecast that starts from the newest points follows the anomaly and sees nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from common.files import UserError
from ports.preparation import WEEK_MINUTES, Buckets, Preparation, Scaler, known_medians

WEEK_DAYS = 7
MIN_DAYS = 28
# A point this many spreads off is unusual. A spread is 1.4826 MAD: the standard deviation of normal errors.
SPREADS = 4.0
MAD_TO_DEVIATION = 1.4826
# On the model's scale. A point nearer than this is never an anomaly, however regular the port is.
MIN_LIMIT = 0.2
# Values further off are cut before a model sees them.
CUT_SPREADS = 3.0
HELD_OUT_WEEKS = 2
# The share of the errors behind a limit that must be known.
MIN_KNOWN_SHARE = 0.25
MEDIAN_PASSES = 3
FOREST_SEED = 0

_TOO_MANY_UNKNOWN = "has weeks with too few samples; record it for longer"

STL_SEASONAL = 35
# LOESS is evaluated at this many points of a week, and interpolated between them.
STL_TREND_JUMP, STL_LOW_PASS_JUMP = 6, 10
# Each tree sees half of the points, so that enough other trees judge each point.
TREES, LEAF_SAMPLES, TREE_SHARE = 20, 5, 0.5
ISOLATION_TREES, ISOLATION_SAMPLES, ISOLATION_QUANTILE = 50, 128, 0.995
SVM_NU, SVM_GAMMA, SVM_QUANTILE = 0.01, 0.1, 0.998
CURVE_POINTS = 65
HOURS_IN_WEEK = 168


class TooShortError(UserError):
    """The history is shorter than MIN_DAYS. This is no fault of the series: waiting is enough."""


@dataclass(frozen=True)
class Scored:
    """The scores of n points. score (n,): above 1 is an anomaly, NaN is unknown. expected, low, high (n,):
    bytes, infinite where there is no bound.
    """

    score: np.ndarray
    expected: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Model(Protocol):
    """What a detector has learnt of one series."""

    def judge(self, buckets: Buckets) -> Scored:
        """Say what is expected in each bucket, and how far off its traffic is."""
        ...


@dataclass(frozen=True)
class Forecast:
    """usual: the expected value at each slot of the week (slots,), on the scaler's scale. limit: a value
    further from it than this is an anomaly.
    """

    scaler: Scaler
    usual: np.ndarray
    limit: float

    def judge(self, buckets: Buckets) -> Scored:
        """Each point alone; the score of an unknown one is unknown."""
        expected = self.usual[buckets.slots]
        score = np.abs(self.scaler.transform(buckets.traffic) - expected) / self.limit
        bounds = (
            self.scaler.inverse(value) for value in (expected, expected - self.limit, expected + self.limit)
        )
        return Scored(score, *bounds)


@dataclass(frozen=True)
class Outlier:
    """usual: what is subtracted from a value at each slot of the week (slots,). grid: what may
    remain (points,). scores: the score of each point of the grid (rows, points), in one row for the whole
    week or one for each hour of it; 1 is the limit.

    The expected value is the middle of the accepted range, since an outlier model has no forecast.
    """

    scaler: Scaler
    usual: np.ndarray
    grid: np.ndarray
    scores: np.ndarray

    def judge(self, buckets: Buckets) -> Scored:
        """Each point alone; the score of an unknown one is unknown."""
        usual = self.usual[buckets.slots]
        rows = buckets.slots * len(self.scores) // len(self.usual)
        score = _read_off(self.grid, self.scores, self.scaler.transform(buckets.traffic) - usual, rows)
        accepted = np.array([_accepted(self.grid, scores) for scores in self.scores])
        low, middle, high = (self.scaler.inverse(usual + value) for value in accepted[rows].T)
        return Scored(score, middle, low, high)


def _accepted(grid: np.ndarray, scores: np.ndarray) -> tuple[float, float, float]:
    """The range in which the score is at most 1, as low, middle and high; linear between points of the grid.

    If an end of the grid is still accepted, that bound is infinite and the middle is the point with the
    lowest score.
    """
    inside = np.flatnonzero(scores <= 1.0)
    best = float(grid[np.argmin(scores)])
    if not len(inside):
        return best, best, best
    first, last = inside[0], inside[-1]
    low, high = -np.inf, np.inf
    if first > 0:
        low = float(np.interp(1.0, scores[[first, first - 1]], grid[[first, first - 1]]))
    if last + 1 < len(grid):
        high = float(np.interp(1.0, scores[[last, last + 1]], grid[[last, last + 1]]))
    return low, (low + high) / 2 if np.isfinite(low + high) else best, high


# --- weeks ---------------------------------------------------------------------------------------


def fit(detector: str, buckets: Buckets, preparation: Preparation) -> Model:
    """Learn from the buckets of a training span.

    Raises TooShortError for a span shorter than MIN_DAYS, counted in whole buckets from its first sample.
    Raises UserError for an unknown detector, for a span with too few samples, and for traffic
    that never changes.
    """
    if detector not in DETECTORS:
        raise UserError(f"there is no detector {detector!r}; choose from {', '.join(DETECTORS)}")
    days = len(buckets.starts) * buckets.minutes / 1440
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
    scaler = preparation.fit_scaler(known)
    weeks = week_rows(scaler.transform(buckets.traffic), buckets.slots, buckets.minutes)
    return DETECTORS[detector](weeks, first_slot(buckets), scaler, preparation)


def week_rows(values: np.ndarray, slots: np.ndarray, minutes: int) -> np.ndarray:
    """Arrange values (n,) by their slots, as (weeks, slots). The last week ends with the last value; NaN is
    unknown.

    Where the clocks go forward a slot has no value; where they go back the later value counts.
    """
    slots_in_week = WEEK_MINUTES // minutes
    weeks = -(-len(values) // slots_in_week)
    rows = np.full((weeks, slots_in_week), np.nan)
    rows[weeks - 1 - (len(values) - 1 - np.arange(len(values))) // slots_in_week, slots] = values
    return rows


def first_slot(buckets: Buckets) -> int:
    """The first slot of the week that ends with the last bucket."""
    slots = WEEK_MINUTES // buckets.minutes
    return int(buckets.slots[-1] + 1) % slots


def usual_week(weeks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The median week (slots,), and how far each week lies above it (weeks,).

    A slot that is never known is interpolated between its neighbours.
    """
    levels = np.zeros(len(weeks))
    for _ in range(MEDIAN_PASSES):
        usual = _bridged(known_medians((weeks - levels[:, None]).T))
        levels = _bridged(known_medians(weeks - usual))
    return usual, levels


def _bridged(values: np.ndarray) -> np.ndarray:
    """With unknown values interpolated between their neighbours; at the ends, the nearest known value."""
    known = np.flatnonzero(~np.isnan(values))
    if not len(known):
        raise UserError(_TOO_MANY_UNKNOWN)
    return np.interp(np.arange(len(values)), known, values[known])


def _cut(weeks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weeks (weeks, slots) without their levels, gaps filled with the usual, outliers cut; and the levels."""
    usual, levels = usual_week(weeks)
    rest = weeks - levels[:, None] - usual
    furthest = CUT_SPREADS * _spread(rest)
    return usual + np.clip(np.nan_to_num(rest), -furthest, furthest), levels


def _spread(errors: np.ndarray) -> float:
    known = errors[~np.isnan(errors)]
    return MAD_TO_DEVIATION * float(np.median(np.abs(known - np.median(known))))


def _limit(errors: np.ndarray) -> float:
    """|median| + SPREADS x 1.4826 MAD of honest errors."""
    if np.isnan(errors).mean() > 1 - MIN_KNOWN_SHARE:
        raise UserError(_TOO_MANY_UNKNOWN)
    return max(abs(float(np.nanmedian(errors))) + SPREADS * _spread(errors), MIN_LIMIT)


def _levels_before(levels: np.ndarray) -> np.ndarray:
    """The level that was known when each week began (weeks, 1): that of the week before it."""
    return np.concatenate([levels[:1], levels[:-1]])[:, None]


# --- forecasters ---------------------------------------------------------------------------------


def _profile(weeks: np.ndarray, first: int, scaler: Scaler, preparation: Preparation) -> Forecast:
    """The median week."""
    usual, levels = usual_week(weeks)
    return Forecast(scaler, usual + levels[-1], _limit(_median_errors(weeks, levels)))


def _median_errors(weeks: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Errors against the median of the other weeks and the level of the week before: (weeks - 1, slots)."""
    level_free = weeks - levels[:, None]
    others = [known_medians(np.delete(level_free, week, axis=0).T) for week in range(len(weeks))]
    return (weeks - _levels_before(levels) - np.array(others))[1:]


def _held_out(
    weeks: np.ndarray, first: int, scaler: Scaler, shape_of: Callable[[np.ndarray], np.ndarray]
) -> Forecast:
    """A forecast whose limit comes from the last HELD_OUT_WEEKS, which a first fit did not see.

    shape_of: makes the usual week (slots,) from level-free weeks (weeks, slots) in order of time.
    """

    def shape(learnt: np.ndarray) -> np.ndarray:
        return np.roll(shape_of(np.roll(_cut(learnt)[0], -first, axis=1)), first)

    held_out = shape(weeks[:-HELD_OUT_WEEKS])
    errors = weeks - held_out - _levels_before(_bridged(known_medians(weeks - held_out)))
    limit = _limit(errors[-HELD_OUT_WEEKS:])
    usual = shape(weeks)
    return Forecast(scaler, usual + _bridged(known_medians(weeks - usual))[-1], limit)


def _stl(weeks: np.ndarray, first: int, scaler: Scaler, preparation: Preparation) -> Forecast:
    """The last seasonal cycle of a seasonal-trend decomposition by LOESS (Cleveland et al. 1990)."""
    return _held_out(weeks, first, scaler, lambda level_free: decompose(level_free)[1][-1])


def decompose_buckets(buckets: Buckets, preparation: Preparation) -> tuple[np.ndarray, ...]:
    """Value, trend (with the level), season and residual of each bucket (n,), on the model's scale."""
    scaler = preparation.fit_scaler(buckets.traffic[~np.isnan(buckets.traffic)])
    values = scaler.transform(buckets.traffic)
    level_free, levels = _cut(week_rows(values, buckets.slots, buckets.minutes))
    first = first_slot(buckets)
    trend, season, _ = (
        np.roll(part, first, axis=1) for part in decompose(np.roll(level_free, -first, axis=1))
    )
    week = len(levels) - 1 - np.arange(len(values))[::-1] // level_free.shape[1]
    trend, season = (trend + levels[:, None])[week, buckets.slots], season[week, buckets.slots]
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


def _sarimax(weeks: np.ndarray, first: int, scaler: Scaler, preparation: Preparation) -> Forecast:
    """The forecast of a week: the mean week as exogenous variable, and errors that are ARMA(1, 1)."""
    return _held_out(weeks, first, scaler, _sarimax_week)


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


def _random_forest(weeks: np.ndarray, first: int, scaler: Scaler, preparation: Preparation) -> Forecast:
    """Trees on time of day and weekday; errors are those of trees that did not see the point (out of bag)."""
    from sklearn.ensemble import RandomForestRegressor

    level_free, levels = _cut(weeks)
    times = _times_of(weeks.shape[1], preparation)
    forest = RandomForestRegressor(
        TREES, min_samples_leaf=LEAF_SAMPLES, max_samples=TREE_SHARE, oob_score=True, random_state=FOREST_SEED
    )
    forest.fit(np.tile(times, (len(weeks), 1)), level_free.ravel())
    errors = weeks - _levels_before(levels) - forest.oob_prediction_.reshape(weeks.shape)
    return Forecast(scaler, forest.predict(times) + levels[-1], _limit(errors[1:]))


def _times_of(slots: int, preparation: Preparation) -> np.ndarray:
    """Time of day and weekday of each slot of the week (slots, 2)."""
    in_day = slots // WEEK_DAYS
    time_of_day = np.arange(slots) % in_day
    if preparation.is_hourly:
        time_of_day = time_of_day * 24 // in_day
    return np.column_stack([time_of_day, np.arange(slots) // in_day])


# --- outlier models ------------------------------------------------------------------------------


class _Estimator(Protocol):
    def fit(self, points: np.ndarray) -> _Estimator: ...

    def score_samples(self, points: np.ndarray) -> np.ndarray: ...


def _isolation_forest(weeks: np.ndarray, first: int, scaler: Scaler, preparation: Preparation) -> Outlier:
    """The fewer random cuts isolate a point, the more unusual it is (Liu et al. 2008)."""
    from sklearn.ensemble import IsolationForest

    estimator = IsolationForest(
        n_estimators=ISOLATION_TREES, max_samples=ISOLATION_SAMPLES, random_state=FOREST_SEED
    )
    return _outlier(weeks, scaler, preparation, estimator, ISOLATION_QUANTILE)


def _one_class_svm(weeks: np.ndarray, first: int, scaler: Scaler, preparation: Preparation) -> Outlier:
    """The boundary around all but `nu` of the points (Scholkopf et al. 2001)."""
    from sklearn.svm import OneClassSVM

    return _outlier(weeks, scaler, preparation, OneClassSVM(nu=SVM_NU, gamma=SVM_GAMMA), SVM_QUANTILE)


def _outlier(
    weeks: np.ndarray, scaler: Scaler, preparation: Preparation, estimator: _Estimator, quantile: float
) -> Outlier:
    """A point is its error against the median week, in spreads; the workshop's is value, hour and weekday."""
    if preparation.is_hourly:
        hours = np.column_stack([np.arange(HOURS_IN_WEEK) % 24, np.arange(HOURS_IN_WEEK) // 24])
        lowest, highest = np.nanmin(weeks), np.nanmax(weeks)
        # The range of the values, and half of it on either side.
        reach = (3 * lowest - highest) / 2, (3 * highest - lowest) / 2
        grid, scores = _curves(weeks, hours, estimator, quantile, reach)
        return Outlier(scaler, np.zeros(weeks.shape[1]), grid, scores)
    usual, levels = usual_week(weeks)
    errors = _median_errors(weeks, levels)
    unit = max(_spread(errors), MIN_LIMIT / SPREADS)
    # Every training set has anomalies: an error beyond SPREADS is not learnt, and counts as an anomaly.
    learnt = np.where(np.abs(errors) <= SPREADS * unit, errors / unit, np.nan)
    reach = -2 * SPREADS, 2 * SPREADS
    grid, scores = _curves(learnt, np.empty((1, 0)), estimator, quantile, reach)
    distance = np.abs(grid)
    scores = np.where(distance > SPREADS, np.maximum(scores, distance / SPREADS), scores)
    scores = np.where(distance * unit <= MIN_LIMIT, np.minimum(scores, 1.0), scores)
    return Outlier(scaler, usual + levels[-1], grid * unit, scores)


def _curves(
    values: np.ndarray,
    times: np.ndarray,
    estimator: _Estimator,
    quantile: float,
    reach: tuple[float, float],
) -> tuple[np.ndarray, np.ndarray]:
    """Fit to values (weeks, slots), each with the row of `times` (rows, columns) that its slot belongs to.

    Returns a grid (points,) over `reach`, denser where there are many values, and the scores on it (rows,
    points): 0 for the most ordinary value, 1 at the given quantile of all values.
    """
    is_known = ~np.isnan(values)
    slots = values.shape[1]
    rows = np.broadcast_to(np.arange(slots) * len(times) // slots, values.shape)[is_known]
    values = values[is_known]
    estimator.fit(np.column_stack([values, times[rows]]))
    even = np.linspace(*reach, CURVE_POINTS)
    grid = np.concatenate([even, np.quantile(values, np.linspace(0, 1, CURVE_POINTS))])
    # The model's file stores 32-bit floats, in which two points must not become one.
    grid = np.unique(grid.astype(np.float32)).astype(float)
    points = np.column_stack([np.tile(grid, len(times)), np.repeat(times, len(grid), axis=0)])
    scores = -estimator.score_samples(points).reshape(len(times), len(grid))
    seen = _read_off(grid, scores, values, rows)
    lowest = seen.min()
    width = np.quantile(seen, quantile) - lowest
    # If all values score the same, none is more unusual than another.
    return grid, (scores - lowest) / width if width > 1e-9 else np.zeros_like(scores)


def _read_off(grid: np.ndarray, scores: np.ndarray, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The score of each value (n,) by the curve of its row (n,); beyond the grid, the score at its end."""
    read = np.full(len(values), np.nan)
    for row in np.unique(rows):
        here = rows == row
        read[here] = np.interp(values[here], grid, scores[row])
    return read


DETECTORS: dict[str, Callable[[np.ndarray, int, Scaler, Preparation], Model]] = {
    "profile": _profile,
    "stl": _stl,
    "sarimax": _sarimax,
    "random-forest": _random_forest,
    "isolation-forest": _isolation_forest,
    "one-class-svm": _one_class_svm,
}
