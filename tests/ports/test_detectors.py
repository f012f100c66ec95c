"""What each detector takes for usual and where its limit lies: by hand, by brute force, by the libraries."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from sklearn.ensemble import IsolationForest, RandomForestRegressor
from sklearn.svm import OneClassSVM
from statsmodels.tsa.arima.estimators.hannan_rissanen import hannan_rissanen
from statsmodels.tsa.seasonal import STL
from statsmodels.tsa.statespace.sarimax import SARIMAX

from common.alerts import ALERT
from common.files import UserError
from ports import detectors
from ports.detectors import DETECTORS, Forecast, Model, Outlier, Scored, fit, usual_week, week_rows
from ports.preparation import PREPARATIONS, Buckets, Scaler, standard_scaler
from ports.series import Series
from ports.verdicts import statuses

DEFAULT = PREPARATIONS["default"]
FORECASTERS = ("profile", "stl", "sarimax", "random-forest")
OUTLIER_MODELS = ("isolation-forest", "one-class-svm")
NAMES = (*FORECASTERS, *OUTLIER_MODELS)
WEEKS = 9
MINUTES = 30
HOUR, DAY, WEEK = 2, 48, 336
MONDAY = int(datetime(2023, 1, 2, tzinfo=UTC).timestamp())
RAW = Scaler("standard", 0.0, 1.0)


def life(weeks: int, seed: int = 1, noise: float = 0.14) -> np.ndarray:
    """Bytes of each bucket: nights a sixth of the days, weekends 60 %, noise of at most so much."""
    place = np.arange(weeks * WEEK)
    day = 1 + 0.7 * np.sin(2 * np.pi * (place % DAY / HOUR - 9) / 24)
    weekend = np.where(place // DAY % 7 >= 5, 0.6, 1.0)
    factors = np.exp(np.random.default_rng(seed).uniform(-noise, noise, len(place)))
    return 1e7 * day * weekend * factors


def buckets_of(traffic: np.ndarray, minutes: int = MINUTES) -> Buckets:
    """From a Monday at midnight on."""
    place = np.arange(len(traffic))
    return Buckets(minutes, MONDAY + minutes * 60 * place, traffic, place % (7 * 1440 // minutes))


# A life of ten weeks, of which a model sees nine.
LIFE = life(WEEKS + 1)
TRAINING, NEXT = LIFE[: WEEKS * WEEK], LIFE[WEEKS * WEEK :]


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    return {name: fit(name, buckets_of(TRAINING), DEFAULT) for name in NAMES}


def changed(traffic: np.ndarray, part: slice, factor: float) -> np.ndarray:
    traffic = traffic.copy()
    traffic[part] *= factor
    return traffic


def log_weeks(traffic: np.ndarray, scaler: Scaler) -> np.ndarray:
    return np.log(traffic + scaler.offset).reshape(-1, WEEK)


def median(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return statistics.median(known) if known else math.nan


def limit_of(errors: list[float]) -> float:
    middle = median(errors)
    return max(abs(middle) + 4 * 1.4826 * median([abs(error - middle) for error in errors]), 0.2)


def spread_of(errors: np.ndarray) -> float:
    return 1.4826 * float(np.median(np.abs(errors - np.median(errors))))


# --- weeks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first_slot", "count", "rows"),
    [
        (0, 7, [[0, 1, 2, 3, 4, 5, 6]]),
        # Seven days that end on a Wednesday: Thursday to Sunday are of the week before.
        (3, 7, [[4, 5, 6, 0, 1, 2, 3]]),
        (3, 10, [[None, None, None, 0, 1, 2, None], [4, 5, 6, 7, 8, 9, 3]]),
        (6, 8, [[None] * 6 + [0], [1, 2, 3, 4, 5, 6, 7]]),
    ],
)
def test_weeks_are_counted_back_from_the_last_value(
    first_slot: int, count: int, rows: list[list[int | None]]
) -> None:
    slots = (first_slot + np.arange(count)) % 7
    expected = np.array(rows, dtype=float)
    np.testing.assert_array_equal(week_rows(np.arange(float(count)), slots, 1440), expected)


def local_slots(monday: datetime) -> np.ndarray:
    """Hours of the local week, of the 168 hours from a moment on."""
    moments = [datetime.fromtimestamp(monday.timestamp() + 3600 * hour, monday.tzinfo) for hour in range(168)]
    return np.array([moment.weekday() * 24 + moment.hour for moment in moments])


def test_the_hour_that_the_clocks_skip_is_unknown() -> None:
    slots = local_slots(datetime(2023, 3, 20, tzinfo=ZoneInfo("Europe/Rome")))
    (row,) = week_rows(np.arange(168.0), slots, 60)
    # From Sunday at two on the clocks are an hour ahead, and the last hour is again a Monday's first.
    assert row[:2].tolist() == [167, 1]
    assert math.isnan(row[6 * 24 + 2])
    assert row[[6 * 24 + 1, 6 * 24 + 3, 167]].tolist() == [145, 146, 166]
    assert np.isnan(row).sum() == 1


def test_of_the_hour_that_there_is_twice_the_later_counts() -> None:
    slots = local_slots(datetime(2022, 10, 24, tzinfo=ZoneInfo("Europe/Rome")))
    (row,) = week_rows(np.arange(168.0), slots, 60)
    assert row[[6 * 24 + 1, 6 * 24 + 2, 6 * 24 + 3, 166]].tolist() == [145, 147, 148, 167]
    # The last hour of the week lies behind the 168.
    assert math.isnan(row[167])
    assert np.isnan(row).sum() == 1


def brute_usual_week(weeks: list[list[float]]) -> tuple[list[float], list[float]]:
    """Three rounds of medians, down the weeks and along them; everything must be known somewhere."""
    levels = [0.0] * len(weeks)
    for _ in range(3):
        usual = [
            median([week[slot] - level for week, level in zip(weeks, levels, strict=True)])
            for slot in range(len(weeks[0]))
        ]
        levels = [median([value - one for value, one in zip(week, usual, strict=True)]) for week in weeks]
    return usual, levels


@pytest.mark.parametrize("count", [4, 5, 9])
def test_the_usual_week_is_the_median_of_weeks_without_their_levels(count: int) -> None:
    rng = np.random.default_rng(count)
    weeks = (
        3 * rng.standard_normal(12) + rng.standard_normal((count, 1)) + 0.3 * rng.standard_normal((count, 12))
    )
    weeks[rng.random(weeks.shape) < 0.15] = np.nan
    usual, levels = usual_week(weeks)
    brute_usual, brute_levels = brute_usual_week(weeks.tolist())
    assert usual.tolist() == pytest.approx(brute_usual)
    assert levels.tolist() == pytest.approx(brute_levels)


def test_what_no_week_knows_lies_between_its_neighbours() -> None:
    nan = math.nan
    weeks = np.array([[nan, 1, 2, nan, 6, nan], [nan] * 6, [nan, 3, 4, nan, 8, nan]])
    usual, levels = usual_week(weeks)
    assert (usual + levels[0]).tolist() == pytest.approx([1, 1, 2, 4, 6, 6])
    assert (levels - levels[0]).tolist() == pytest.approx([0, 1, 2])


def test_growth_raises_the_levels_and_leaves_the_shape() -> None:
    shape = np.array([1.0, 4, 2, 8, 5, 7, 3])
    usual, levels = usual_week(shape + 0.05 * np.arange(9)[:, None])
    assert usual - usual[0] == pytest.approx(shape - 1)
    assert usual[0] + levels == pytest.approx(1 + 0.05 * np.arange(9))


@pytest.mark.parametrize("week", [0, WEEKS - 1])
def test_a_day_out_of_nine_weeks_hardly_moves_the_usual_week(week: int) -> None:
    weeks = log_weeks(TRAINING, Scaler("log", 0.0, 1.0))
    usual, _ = usual_week(weeks)
    weeks[week, 2 * DAY : 3 * DAY] += math.log(20)
    moved, levels = usual_week(weeks)
    # The mean week would move by log(20) / 9 = 0.33.
    assert np.abs(moved - usual).max() < 0.1
    assert np.abs(levels).max() < 0.02


# --- limits --------------------------------------------------------------------------------------


def test_the_limit_of_the_profile_is_of_weeks_that_were_left_out() -> None:
    rng = np.random.default_rng(5)
    weeks = rng.standard_normal(168) + 0.2 * rng.standard_normal((6, 1)) + 0.3 * rng.standard_normal((6, 168))
    weeks[rng.random(weeks.shape) < 0.1] = np.nan
    _, levels = usual_week(weeks)
    errors = [
        weeks[week, slot]
        - median([weeks[other, slot] - levels[other] for other in range(6) if other != week])
        - levels[week - 1]
        for week in range(1, 6)
        for slot in range(168)
    ]
    model = DETECTORS["profile"](weeks, 0, RAW, DEFAULT)
    assert model.limit == pytest.approx(limit_of(errors))
    assert model.limit > 1
    # Were the week itself among those of its median, the limit would be too small.
    usual, _ = usual_week(weeks)
    in_sample = (weeks - levels[:, None] - usual).ravel().tolist()
    assert limit_of(in_sample) < 0.9 * model.limit


@pytest.mark.parametrize("name", ["stl", "sarimax"])
def test_the_limit_is_of_two_weeks_that_the_fit_has_not_seen(name: str) -> None:
    rng = np.random.default_rng(6)
    weeks = np.sin(np.arange(168) / 24 * 2 * np.pi) + 0.1 * rng.standard_normal((8, 168))
    weeks[-2:] += 0.3 * rng.standard_normal((2, 168)) + np.array([[0.1], [0.3]])
    before = DETECTORS[name](weeks[:-2], 0, RAW, DEFAULT).usual
    first = weeks[-2] - before
    second = weeks[-1] - before - np.median(first)
    model = DETECTORS[name](weeks, 0, RAW, DEFAULT)
    assert model.limit == pytest.approx(limit_of([*first.tolist(), *second.tolist()]))


def test_the_limit_of_the_random_forest_is_not_of_points_that_its_trees_have_seen(
    models: dict[str, Model],
) -> None:
    forest = models["random-forest"]
    weeks = log_weeks(TRAINING, forest.scaler)
    _, levels = usual_week(weeks)
    times = np.column_stack([np.arange(WEEK) % DAY, np.arange(WEEK) // DAY])
    seen = RandomForestRegressor(30, min_samples_leaf=5, random_state=0)
    seen.fit(np.tile(times, (WEEKS, 1)), (weeks - levels[:, None]).ravel())
    in_sample = (weeks[1:] - levels[:-1, None] - seen.predict(times)).ravel()
    fresh = log_weeks(life(30, seed=2), forest.scaler) - forest.usual
    assert forest.limit > 1.08 * limit_of(in_sample.tolist())
    assert forest.limit == pytest.approx(limit_of(fresh.ravel().tolist()), rel=0.05)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_near_is_no_anomaly_however_regular_a_port_is(name: str) -> None:
    shape = life(1, noise=0.0)
    model = fit(name, buckets_of(np.tile(shape, 6)), DEFAULT)
    # 0.2 on a log scale: from 18 % less to 22 % more. A forest's steps take a part of it.
    near, far = (model.judge(buckets_of(shape * factor)).score for factor in (1.05, 1.5))
    assert (near <= 1).mean() > 0.95
    assert far.min() > 1


# --- what they find ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("hour", [3, 15])
@pytest.mark.parametrize(("kind", "factor"), [("flood", 4.0), ("drop", 0.2), ("outage", 0.0)])
def test_two_hours_are_found_by_night_and_by_day(
    models: dict[str, Model], name: str, hour: int, kind: str, factor: float
) -> None:
    during = slice(2 * DAY + hour * HOUR, 2 * DAY + (hour + 2) * HOUR)
    judged = models[name].judge(buckets_of(changed(NEXT, during, factor)))
    assert (judged.score[during] > 1).all(), kind
    assert statuses(judged.score)[during][-1] == ALERT
    # Only they are: the rest of the week is what it was.
    rest = np.delete(judged.score, np.arange(WEEK)[during])
    np.testing.assert_array_equal(
        rest, np.delete(models[name].judge(buckets_of(NEXT)).score, np.arange(WEEK)[during])
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_next_week_is_silent(models: dict[str, Model], name: str) -> None:
    judged = models[name].judge(buckets_of(NEXT))
    # An outlier model takes a share of all points for anomalies by its making, one of a hundred or fewer.
    allowed = 0 if name in FORECASTERS else 0.02 * WEEK
    assert (judged.score > 1).sum() <= allowed
    assert ALERT not in statuses(judged.score)
    assert not np.isnan(judged.score).any()
    assert np.median(np.abs(np.log(judged.expected / NEXT))) < 0.1


@pytest.mark.parametrize("name", NAMES)
def test_growth_is_followed_and_not_learnt_as_noise(models: dict[str, Model], name: str) -> None:
    growth = np.exp(0.03 * np.arange(WEEKS * WEEK) / WEEK)
    model = fit(name, buckets_of(TRAINING * growth), DEFAULT)
    before, grown = models[name].judge(buckets_of(NEXT)), model.judge(buckets_of(NEXT))
    ratio = np.log(grown.expected / before.expected)
    # The middle of the last week of training lies 8.5 weeks after the start.
    assert np.median(ratio) == pytest.approx(8.5 * 0.03, abs=0.04)
    assert np.ptp(ratio) < 0.1
    # The level of the week before lags by the growth of a week, on either side of the band.
    width = np.log(grown.high / grown.low) / np.log(before.high / before.low)
    assert 0.9 < np.median(width) < 1.15


@pytest.mark.parametrize("name", NAMES)
def test_anomalies_in_training_are_not_learnt(models: dict[str, Model], name: str) -> None:
    training = changed(TRAINING, slice(DAY, 2 * DAY), 10.0)
    training = changed(training, slice(-4 * DAY, -3 * DAY), 0.0)
    model = fit(name, buckets_of(training), DEFAULT)
    before, after = models[name].judge(buckets_of(NEXT)), model.judge(buckets_of(NEXT))
    # The mean week would move by 0.26 on Tuesday and by 0.5 on Thursday.
    assert np.abs(np.log(after.expected / before.expected)).max() < 0.2
    width = np.log(after.high / after.low) / np.log(before.high / before.low)
    assert 0.85 < np.median(width) < 1.2


@pytest.mark.parametrize("name", NAMES)
def test_on_a_log_scale_the_band_is_the_same_factor_day_and_night(
    models: dict[str, Model], name: str
) -> None:
    model = models[name]
    assert model.scaler == Scaler("log", pytest.approx(0.005 * np.quantile(TRAINING, 0.99)), 1.0)
    judged = model.judge(buckets_of(NEXT))
    up = (judged.high + model.scaler.offset) / (judged.expected + model.scaler.offset)
    down = (judged.expected + model.scaler.offset) / (judged.low + model.scaler.offset)
    assert up == pytest.approx(np.full(WEEK, up[0]))
    assert down == pytest.approx(up)


def test_on_a_raw_scale_a_flood_at_night_is_missed() -> None:
    night = slice(2 * DAY + 3 * HOUR, 2 * DAY + 5 * HOUR)
    flooded = buckets_of(changed(NEXT, night, 1.8))
    raw = fit("profile", buckets_of(TRAINING), replace(DEFAULT, fit_scaler=standard_scaler))
    assert (raw.judge(flooded).score[night] < 1).all()
    assert (fit("profile", buckets_of(TRAINING), DEFAULT).judge(flooded).score[night] > 1).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_port_that_is_idle_but_for_an_hour_is_watched(name: str) -> None:
    idle = np.zeros(6 * WEEK)
    idle[3 * WEEK : 3 * WEEK + 2] = 5e6
    judged = fit(name, buckets_of(idle), DEFAULT).judge(buckets_of(np.array([0.0, 5e6, 1e9])))
    assert (judged.score > 1).tolist() == [False, True, True]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("count", "unknown"), [(4, slice(0, 2 * WEEK)), (6, slice(-2 * WEEK, None))])
def test_two_weeks_without_values_give_a_model_that_works_or_one_line(
    name: str, count: int, unknown: slice
) -> None:
    traffic = life(count)
    traffic[unknown] = np.nan
    try:
        model = fit(name, buckets_of(traffic), DEFAULT)
    except UserError as error:
        assert len(str(error).splitlines()) == 1
        return
    clean, flooded = (model.judge(buckets_of(NEXT * factor)).score for factor in (1.0, 10.0))
    assert (clean < 1).mean() > 0.95
    assert (flooded > 1).all()


# --- nothing is fed back -------------------------------------------------------------------------


def same(part: Scored, whole: Scored, where: slice) -> None:
    for field in ("score", "expected", "low", "high"):
        np.testing.assert_array_equal(getattr(part, field), getattr(whole, field)[where])


@pytest.mark.parametrize("name", NAMES)
def test_points_are_judged_the_same_alone_hour_by_hour_and_together(
    models: dict[str, Model], name: str
) -> None:
    traffic = changed(NEXT, slice(3 * DAY, 4 * DAY), 4.0)
    traffic[5:9] = np.nan
    buckets = buckets_of(traffic)
    together = models[name].judge(buckets)
    for width in (1, HOUR):
        for first in range(0, WEEK, width):
            where = slice(first, first + width)
            same(models[name].judge(buckets[where]), together, where)
    assert np.isnan(together.score).nonzero()[0].tolist() == [5, 6, 7, 8]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("factor", [4.0, 0.2])
def test_an_anomaly_of_a_day_is_still_one_in_its_last_hour(
    models: dict[str, Model], name: str, factor: float
) -> None:
    during = slice(3 * DAY, 4 * DAY)
    judged = models[name].judge(buckets_of(changed(NEXT, during, factor)))
    assert (judged.score[during] > 1).all()
    # Nor does the day after take a day like any other for one.
    np.testing.assert_array_equal(
        judged.score[during.stop :], models[name].judge(buckets_of(NEXT)).score[during.stop :]
    )


# --- the accepted band ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_an_anomaly_is_what_lies_outside_the_band(models: dict[str, Model], name: str) -> None:
    band = models[name].judge(buckets_of(NEXT))
    factors = np.exp(np.linspace(-6, 6, 2001))
    for slot in range(0, WEEK, 5):
        bounds = (band.low[slot], band.high[slot])
        assert bounds[0] < band.expected[slot] < bounds[1]
        edges = np.outer(bounds, [1 - 1e-9, 1 + 1e-9]).ravel()
        traffic = np.concatenate([[0.0], edges, band.expected[slot] * factors])
        judged = models[name].judge(
            Buckets(MINUTES, np.arange(len(traffic)), traffic, np.full(len(traffic), slot))
        )
        is_outside = (traffic < bounds[0]) | (traffic > bounds[1])
        assert 1000 < is_outside.sum() < 1990
        np.testing.assert_array_equal(judged.score > 1, is_outside)


def test_a_forecast_by_hand() -> None:
    usual = np.full(7, math.log(1100.0))
    usual[6] = math.log(150.0)
    model = Forecast(Scaler("log", 100.0, 1.0), usual, math.log(2.0))
    traffic = np.array([1000.0, 3300.0, 0.0, math.nan, 2101.0, 2099.0, 0.0])
    judged = model.judge(buckets_of(traffic, 1440))
    assert judged.expected == pytest.approx([1000.0] * 6 + [50.0])
    assert judged.high == pytest.approx([2100.0] * 6 + [200.0])
    # 150 / 2 is less than the offset: below zero bytes there is nothing.
    assert judged.low == pytest.approx([450.0] * 6 + [0.0])
    expected = [0.0, math.log2(3400 / 1100), math.log2(11), math.nan, 1.0006, 0.9993, math.log2(1.5)]
    assert judged.score == pytest.approx(expected, abs=1e-4, nan_ok=True)


def test_an_outlier_model_by_hand() -> None:
    grid = np.array([-2.0, 0.0, 2.0])
    model = Outlier(RAW, np.arange(10.0, 17.0), grid, np.array([[3.0, 0.0, 2.0]]))
    judged = model.judge(buckets_of(np.array([10.0, 12.0, 12.0, 15.0, math.nan, 100.0, 14.0]), 1440))
    # On the lines from 3 to 0 and from 0 to 2 the limit is reached at -2/3 and at 1.
    assert judged.low == pytest.approx(np.arange(10.0, 17.0) - 2 / 3)
    assert judged.high == pytest.approx(np.arange(11.0, 18.0))
    assert judged.expected == pytest.approx(np.arange(10.0, 17.0) + 1 / 6)
    assert judged.score == pytest.approx([0.0, 1.0, 0.0, 2.0, math.nan, 2.0, 3.0], nan_ok=True)


def test_an_outlier_model_may_have_a_curve_for_each_hour_of_the_week() -> None:
    heights = np.where(np.arange(168) % 24 == 5, 4.0, 2.0)
    scores = np.outer(heights, [1.0, 0.0, 1.0])
    model = Outlier(RAW, np.full(WEEK, 10.0), np.array([-1.0, 0.0, 1.0]), scores)
    judged = model.judge(buckets_of(np.full(WEEK, 10.3)))
    is_five = np.arange(WEEK) % DAY // HOUR == 5
    assert judged.score == pytest.approx(np.where(is_five, 1.2, 0.6))
    assert judged.high == pytest.approx(np.where(is_five, 10.25, 10.5))
    assert judged.low == pytest.approx(np.where(is_five, 9.75, 9.5))


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        # On this side no traffic is ever too much, or too little.
        ([2.0, 0.0, 0.5], (9.5, math.inf)),
        ([0.5, 0.0, 2.0], (0.0, 10.5)),
    ],
)
def test_a_curve_that_stays_below_the_limit_has_no_bound_there(
    scores: list[float], expected: tuple[float, float]
) -> None:
    model = Outlier(RAW, np.full(7, 10.0), np.array([-1.0, 0.0, 1.0]), np.array([scores]))
    traffic = np.array([0.0, 5.0, 9.4, 10.0, 10.6, 30.0, 1e6])
    judged = model.judge(buckets_of(traffic, 1440))
    assert (judged.low[0], judged.high[0]) == pytest.approx(expected)
    np.testing.assert_array_equal(judged.score > 1, (traffic < expected[0]) | (traffic > expected[1]))


# --- from samples --------------------------------------------------------------------------------


def test_a_half_filled_bucket_is_no_anomaly() -> None:
    times = MONDAY + 300 * np.arange(1, (WEEKS + 1) * WEEK * 6 + 1)
    samples = np.repeat(LIFE, 6)
    training = Series("a_1_in", times, samples).between(0, MONDAY + WEEKS * 7 * 86400)
    model = fit("profile", DEFAULT.buckets(training, MINUTES, "UTC"), DEFAULT)
    assert model.limit < math.log(2)
    # Of the last four buckets there are six samples, three, two, and three of one that has not ended.
    newest = [slice(0, 6), slice(6, 9), slice(12, 14), slice(18, 21)]
    first = (WEEKS + 1) * WEEK * 6 - 24
    kept = np.concatenate([np.arange(first), *(first + np.arange(24)[part] for part in newest)])
    buckets = DEFAULT.buckets(Series("a_1_in", times[kept], samples[kept]), MINUTES, "UTC")
    score = model.judge(buckets).score
    assert len(score) == (WEEKS + 1) * WEEK - 1
    assert (score[-3:-1] < 1).all()
    assert math.isnan(score[-1])
    # What their samples sum up to would be one.
    half = buckets_of(changed(NEXT, slice(-3, -2), 0.5))
    assert model.judge(half).score[-3] > 1


# --- the models themselves -----------------------------------------------------------------------


def level_free_weeks(count: int) -> np.ndarray:
    """Hourly (count, 168): a day and a weekend that change slowly, and noise."""
    place = np.arange(count * 168)
    shape = np.sin(2 * np.pi * place / 24) * (1 + 0.02 * place / 168) + 0.5 * (place // 24 % 7 >= 5)
    return (shape + 0.06 * np.random.default_rng(7).standard_normal(len(place))).reshape(count, 168)


def test_the_quick_decomposition_is_nearly_the_full_one() -> None:
    weeks = level_free_weeks(6)
    trend, season, rest = detectors.decompose(weeks)
    full = STL(weeks.ravel(), period=168, seasonal=35).fit()
    assert trend + season + rest == pytest.approx(weeks)
    # Little of a noise of 0.06, in a season from -1 to 1.5.
    assert season.ravel() == pytest.approx(full.seasonal, abs=0.001)
    assert trend.ravel() == pytest.approx(full.trend, abs=0.002)
    other = STL(weeks.ravel(), period=168, seasonal=11).fit()
    assert np.abs(season.ravel() - other.seasonal).max() > 0.01


def test_what_stl_expects_is_its_last_season() -> None:
    weeks = level_free_weeks(6)
    weeks -= usual_week(weeks)[1][:, None]
    model = DETECTORS["stl"](weeks, 0, RAW, DEFAULT)
    full = STL(weeks.ravel(), period=168, seasonal=35).fit()
    last = full.seasonal[-168:]
    # What lies beyond three spreads is cut before, which moves a season a little.
    assert model.usual == pytest.approx(last + np.median(weeks[-1] - last), abs=0.03)
    assert np.abs(full.seasonal[:168] - last).max() > 0.06


@pytest.mark.parametrize("name", ["stl", "sarimax"])
def test_a_training_that_ends_within_a_week_is_learnt_in_the_order_of_time(name: str) -> None:
    # Days 2.5 to 51.5, so that a row of the weeks begins with what came last.
    hours = np.arange(60, 60 + 7 * 168)
    slow = 0.5 * np.sin(2 * np.pi * hours / 500)
    values = np.sin(2 * np.pi * hours / 24) + slow
    weeks = week_rows(values, hours % 168, 60)
    from_monday = week_rows(values, np.arange(len(values)) % 168, 60)
    usual = DETECTORS[name](weeks, 60, RAW, DEFAULT).usual
    assert np.roll(usual, -60) == pytest.approx(DETECTORS[name](from_monday, 0, RAW, DEFAULT).usual)
    assert np.abs(usual - DETECTORS[name](weeks, 0, RAW, DEFAULT).usual).max() > 0.01


@pytest.mark.parametrize(("last", "first"), [(6 * 24 + 23, 0), (0, 1), (60, 61)])
def test_a_week_begins_after_the_slot_with_which_the_last_one_ends(last: int, first: int) -> None:
    slots = np.array([last - 1, last]) % 168
    assert detectors.first_slot(Buckets(60, 3600 * slots, np.zeros(2), slots)) == first


def arma(count: int, seed: int) -> np.ndarray:
    """y[n] = 0.8 y[n-1] + e[n] + 0.3 e[n-1]."""
    noise = 0.1 * np.random.default_rng(seed).standard_normal(count)
    values = np.zeros(count)
    for n in range(1, count):
        values[n] = 0.8 * values[n - 1] + noise[n] + 0.3 * noise[n - 1]
    return values


def test_the_forecast_is_that_of_sarimax_with_an_exogenous_variable() -> None:
    weeks = level_free_weeks(6) + arma(6 * 168, seed=9).reshape(6, 168)
    mean_week = weeks.mean(axis=0)
    exogenous = np.tile(mean_week, 6)[:, None]
    (coefficient,) = np.linalg.lstsq(exogenous, weeks.ravel(), rcond=None)[0]
    assert coefficient == pytest.approx(1.0)
    errors = weeks.ravel() - exogenous[:, 0]
    parameters, _ = hannan_rissanen(errors, ar_order=1, ma_order=1, demean=False)
    full = SARIMAX(weeks.ravel(), exog=exogenous, order=(1, 0, 1))
    expected = full.filter([coefficient, *parameters.params]).forecast(168, exog=exogenous[:168])
    forecast = detectors._sarimax_week(weeks)
    assert forecast == pytest.approx(expected, abs=1e-6)
    # The errors at the end of training are part of it.
    assert abs(forecast[0] - mean_week[0]) > 0.01


def test_the_arma_parameters_are_those_of_a_simulation() -> None:
    weeks = arma(36 * 168, seed=10).reshape(36, 168)
    # A last shock that the forecast has something to decay from.
    weeks[-1, -1] += 0.5
    errors = (weeks - weeks.mean(axis=0)).ravel()
    shocks = np.zeros(len(errors))
    for n in range(1, len(errors)):
        shocks[n] = errors[n] - 0.8 * errors[n - 1] - 0.3 * shocks[n - 1]
    ahead = detectors._sarimax_week(weeks) - weeks.mean(axis=0)
    # One hour ahead it is ar y + ma e, and from then on ar times the hour before.
    assert abs(ahead[0]) > 0.05
    ar = ahead[1] / ahead[0]
    assert ar == pytest.approx(0.8, abs=0.03)
    assert (ahead[0] - ar * errors[-1]) / shocks[-1] == pytest.approx(0.3, abs=0.1)
    assert ahead[1:20] / ahead[:19] == pytest.approx(np.full(19, ar), abs=1e-6)


@pytest.mark.parametrize(
    ("name", "estimator", "quantile", "closeness"),
    [
        # The score of a forest is a flight of steps, of which the curve keeps a point here and there.
        (
            "isolation-forest",
            IsolationForest(n_estimators=50, max_samples=128, random_state=0),
            0.995,
            0.1,
        ),
        ("one-class-svm", OneClassSVM(nu=0.01, gamma=0.1), 0.998, 0.03),
    ],
)
def test_scores_are_those_of_scikit_learn(
    models: dict[str, Model],
    name: str,
    estimator: IsolationForest | OneClassSVM,
    quantile: float,
    closeness: float,
) -> None:
    model = models[name]
    weeks = log_weeks(TRAINING, model.scaler)
    usual, levels = usual_week(weeks)
    free = weeks - levels[:, None]
    errors = np.concatenate(
        [
            weeks[week] - levels[week - 1] - np.median(np.delete(free, week, axis=0), axis=0)
            for week in range(1, WEEKS)
        ]
    )
    unit = spread_of(errors)
    rest = errors[np.abs(errors) <= 4 * unit, None] / unit
    estimator.fit(rest)
    seen = -estimator.score_samples(rest)
    lowest, limit = seen.min(), np.quantile(seen, quantile)

    def own(points: np.ndarray) -> np.ndarray:
        return (-estimator.score_samples(points[:, None]) - lowest) / (limit - lowest)

    def judged(points: np.ndarray) -> np.ndarray:
        traffic = model.scaler.inverse(usual[0] + levels[-1] + unit * points)
        return model.judge(Buckets(MINUTES, points, traffic, np.zeros(len(points), int))).score

    # At its own points the curve is the score but for a factor and a summand.
    points = model.grid / unit
    is_learnt = (np.abs(points) <= 4) & (np.abs(model.grid) > 0.2)
    assert is_learnt.sum() > 10
    assert np.corrcoef(model.scores[0][is_learnt], own(points[is_learnt]))[0, 1] > 1 - 1e-9
    points = np.linspace(-8, 8, 4001)
    expected = own(points)
    # What was too far to be learnt is an anomaly, and what is nearer than 0.2 is none.
    expected = np.where(np.abs(points) > 4, np.maximum(expected, np.abs(points) / 4), expected)
    expected = np.where(np.abs(points) * unit < 0.2, np.minimum(expected, 1), expected)
    assert judged(points) == pytest.approx(expected, rel=0.01, abs=closeness)
    # Where ours ends to accept, its own is at the limit; a forest may stay there for ever.
    accepted = points[judged(points) <= 1]
    assert expected[np.isin(points, accepted[[0, -1]])] == pytest.approx([1, 1], abs=closeness)
    assert (np.abs(accepted) <= 4).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_same_training_gives_the_same_model(models: dict[str, Model], name: str) -> None:
    again = fit(name, buckets_of(TRAINING), DEFAULT)
    same(again.judge(buckets_of(NEXT)), models[name].judge(buckets_of(NEXT)), slice(None))


@pytest.mark.parametrize("name", OUTLIER_MODELS)
def test_the_workshop_has_a_curve_for_each_hour_and_its_band_is_in_bytes(name: str) -> None:
    model = fit(name, buckets_of(TRAINING), PREPARATIONS["workshop"])
    assert model.scores.shape == (168, len(model.grid))
    assert model.scaler == Scaler("standard", pytest.approx(TRAINING.mean()), pytest.approx(TRAINING.std()))
    judged = model.judge(buckets_of(changed(NEXT, slice(100, 104), 10.0)))
    # It takes hardly any traffic for too much: a forest's scores end where the training's do.
    assert (judged.score[100:104] > (0.9 if name == "isolation-forest" else 1)).all()
    assert (judged.score <= 1).mean() > 0.95
    # Inside the band there may be a dent of the curve, but what is accepted never lies outside.
    slots, traffic = np.meshgrid(np.arange(0, WEEK, 25), np.linspace(0, 3 * NEXT.max(), 500))
    scan = model.judge(Buckets(MINUTES, slots.ravel(), traffic.ravel(), slots.ravel()))
    is_outside = (traffic.ravel() < scan.low) | (traffic.ravel() > scan.high)
    assert 0.1 < is_outside.mean() < 0.9
    assert (scan.score[is_outside] > 1).all()
    assert (scan.score[~is_outside] <= 1).mean() > 0.9


# --- what cannot be learnt -----------------------------------------------------------------------


def sparse(every: int) -> np.ndarray:
    """Four weeks of which one bucket in `every` is known."""
    traffic = life(4)
    traffic[np.arange(len(traffic)) % every != 0] = np.nan
    return traffic


@pytest.mark.parametrize(
    ("traffic", "message"),
    [
        (life(4)[:-1], "has 27 days of history and needs 1 more to reach 28"),
        (life(3), "has 21 days of history and needs 7 more to reach 28"),
        (life(2)[: 10 * DAY + 24], "has 10 days of history and needs 18 more to reach 28"),
        (life(1)[:1], "has 0 days of history and needs 28 more to reach 28"),
        (
            sparse(4),
            "has enough samples in 25% of its history, less than half;"
            " check how it is recorded, or raise --bucket_minutes",
        ),
        (
            life(4) * np.nan,
            "has enough samples in 0% of its history, less than half;"
            " check how it is recorded, or raise --bucket_minutes",
        ),
        (
            np.zeros(4 * WEEK),
            "its traffic is always 0 bytes, so nothing can be learnt; do not record it",
        ),
        (
            np.where(np.arange(4 * WEEK) % 3 == 0, np.nan, 1500.0),
            "its traffic is always 1500 bytes, so nothing can be learnt; do not record it",
        ),
    ],
)
def test_what_cannot_be_learnt_is_said_in_one_line(traffic: np.ndarray, message: str) -> None:
    with pytest.raises(UserError) as caught:
        fit("profile", buckets_of(traffic), DEFAULT)
    assert str(caught.value) == message


def test_a_detector_that_there_is_not_is_named_with_those_that_there_are() -> None:
    with pytest.raises(UserError) as caught:
        fit("prophet", buckets_of(life(4)), DEFAULT)
    assert str(caught.value) == (
        "there is no detector 'prophet'; choose from profile, stl, sarimax, random-forest, "
        "isolation-forest, one-class-svm"
    )


@pytest.mark.parametrize("name", NAMES)
def test_four_weeks_of_which_half_is_known_are_enough(name: str) -> None:
    model = fit(name, buckets_of(sparse(2)), DEFAULT)
    clean, flooded = (model.judge(buckets_of(NEXT * factor)).score for factor in (1.0, 10.0))
    assert (clean < 1).mean() > 0.9
    assert (flooded > 1).all()
