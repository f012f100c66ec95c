"""What each detector learns, what it takes for an anomaly, and what it does not learn.

scikit-learn and statsmodels are imported where a detector is compared with them: each worker imports this.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
import pytest

from common.alerts import ALERT
from common.files import UserError
from ports import detectors
from ports.detectors import (
    ACCEPTED_SHARE,
    DAY_HOURS,
    DETECTORS,
    ERROR_WEEKS,
    MIN_LIMIT,
    SPREADS,
    Model,
    ScoreCurve,
    Scored,
    fit,
)
from ports.levels import DRIFT_MINUTES, MEMORY_AGES, Memory
from ports.preparation import PREPARATIONS, Buckets, Scaler, week_slots
from ports.verdicts import statuses

DEFAULT = PREPARATIONS["default"]
FORECASTERS = ("profile", "stl", "sarimax", "random-forest")
OUTLIER_MODELS = ("isolation-forest", "one-class-svm")
NAMES = (*FORECASTERS, *OUTLIER_MODELS)
WEEKS = 9
MINUTES = 30
HOUR, DAY, WEEK = 2, 48, 336
LEAD = 3 * DAY
MONDAY = int(datetime(2023, 1, 2, tzinfo=UTC).timestamp())
RAW = Scaler("standard", 0.0, 1.0)


def life(weeks: int, seed: int = 1, noise: float = 0.14) -> np.ndarray:
    """Bytes of each bucket: nights a sixth of the days, weekends 60 %, noise of at most so much."""
    place = np.arange(weeks * WEEK)
    day = 1 + 0.7 * np.sin(2 * np.pi * (place % DAY / HOUR - 9) / 24)
    weekend = np.where(place // DAY % 7 >= 5, 0.6, 1.0)
    factors = np.exp(np.random.default_rng(seed).uniform(-noise, noise, len(place)))
    return 1e7 * day * weekend * factors


def buckets_of(traffic: np.ndarray, minutes: int = MINUTES, first: int = 0) -> Buckets:
    """From a Monday at midnight on, or from so many buckets later."""
    place = first + np.arange(len(traffic))
    return Buckets(minutes, MONDAY + minutes * 60 * place, traffic, place % (7 * 1440 // minutes))


# A life of ten weeks, of which a model sees nine.
LIFE = life(WEEKS + 1)
TRAINING, NEXT = LIFE[: WEEKS * WEEK], LIFE[WEEKS * WEEK :]


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    return {name: fit(name, buckets_of(TRAINING), DEFAULT) for name in NAMES}


def judged(model: Model, traffic: np.ndarray, before: np.ndarray = TRAINING) -> Scored:
    """The week that follows `before`, judged from three days earlier on, as in service."""
    whole = np.concatenate([before[-LEAD:], traffic])
    scored = model.judge(buckets_of(whole, first=len(before) - LEAD))
    return Scored(*(values[LEAD:] for values in (scored.score, scored.expected, scored.low, scored.high)))


def changed(traffic: np.ndarray, part: slice, factor: float | np.ndarray) -> np.ndarray:
    traffic = traffic.copy()
    traffic[part] *= factor
    return traffic


# --- limits --------------------------------------------------------------------------------------


def flat(noise: np.ndarray, mean: float = 1e9) -> np.ndarray:
    """A port with the same traffic day and night, but for noise on the log scale; the same scale for all."""
    return mean * np.exp(noise)


def normal(sigma: float | np.ndarray, weeks: int = WEEKS, seed: int = 2) -> np.ndarray:
    return sigma * np.random.default_rng(seed).standard_normal(weeks * WEEK)


def test_a_limit_is_so_many_spreads_of_the_noise() -> None:
    model = fit("profile", buckets_of(flat(normal(0.2))), DEFAULT)
    # From 250 errors each, whose MAD is known to a tenth; what is left of noise without memory is little.
    assert model.limits.mean() == pytest.approx(SPREADS * 0.2, rel=0.1)
    assert model.limits == pytest.approx(np.full(DAY_HOURS, SPREADS * 0.2), rel=0.3)
    assert model.memory.left == pytest.approx(np.zeros(len(MEMORY_AGES)), abs=0.15)


def test_errors_far_off_do_not_widen_the_limits() -> None:
    noise = normal(0.2)
    far = np.random.default_rng(3).random(len(noise)) < 0.04
    with_far = fit("profile", buckets_of(flat(noise + np.where(far, 3.0, 0.0))), DEFAULT)
    without = fit("profile", buckets_of(flat(noise)), DEFAULT)
    # Their standard deviation would be three times as large.
    assert with_far.limits.mean() == pytest.approx(without.limits.mean(), rel=0.1)


def test_noise_that_lasts_is_remembered_and_the_limit_is_of_what_is_new() -> None:
    rng = np.random.default_rng(4)
    noise = np.zeros(WEEKS * WEEK)
    for n in range(1, len(noise)):
        noise[n] = 0.9 * noise[n - 1] + 0.1 * rng.standard_normal()
    model = fit("profile", buckets_of(flat(noise)), DEFAULT)
    assert model.memory.left[0] > 0.7
    assert (np.diff(model.memory.left) < 0.05).all()
    # The noise has a standard deviation of 0.23.
    assert model.limits.mean() < SPREADS * 0.18
    assert model.memory.wider[0] == 1.0
    assert (np.diff(model.memory.wider) >= 0).all()
    assert 1.2 < model.memory.wider[-1] < 2.5


@pytest.mark.parametrize("name", NAMES)
def test_what_is_near_is_no_anomaly_however_regular_a_port_is(name: str) -> None:
    # The same day each day.
    shape = np.tile(life(1, noise=0.0)[:DAY], 7)
    before = np.tile(shape, 6) * np.exp(normal(0.005, 6))
    model = fit(name, buckets_of(before), DEFAULT)
    assert model.limits.min() == pytest.approx(MIN_LIMIT)
    assert (model.memory.wider >= 1.0).all()
    near, far = np.exp(0.6 * MIN_LIMIT), np.exp(2.5 * MIN_LIMIT)
    for factor in (near, 1 / near):
        score = judged(model, shape * np.where(np.arange(WEEK) % 12 == 6, factor, 1.0), before).score
        assert (score <= 1).mean() > 0.97, factor
    for factor in (far, 1 / far):
        is_far = np.arange(WEEK) % 12 == 6
        score = judged(model, shape * np.where(is_far, factor, 1.0), before).score
        assert (score[is_far] > 1).all(), factor


# Quarters of an hour, of which four in a row are an alert.
QUARTERS_IN_WEEK = 4 * 168


def of_quarters(noise: np.ndarray) -> Model:
    return fit("profile", buckets_of(flat(noise), 15), DEFAULT)


def with_rows(row: int, every: int, size: float) -> np.ndarray:
    """Noise with so many quarters in a row that are so far off, in each `every` of them."""
    noise = 0.1 * np.random.default_rng(6).standard_normal(WEEKS * QUARTERS_IN_WEEK)
    return noise + size * (np.arange(len(noise)) % every < row)


@pytest.mark.parametrize("row", [2, 3])
@pytest.mark.parametrize("side", [-1, 1])
def test_short_bursts_that_are_frequent_widen_the_limit_of_their_side(row: int, side: int) -> None:
    # One pair of 53 is 1.5 off, or two of them: each more than one in a hundred.
    model = of_quarters(with_rows(row, 53, 1.5 * side))
    limit = SPREADS * 0.1
    assert model.limits.mean() == pytest.approx(limit, rel=0.1)
    widened = model.reach[(side + 1) // 2]
    # The lesser one of two errors of 1.5 and some noise, in limits: 3.5 times what is more than 0.35.
    assert widened == pytest.approx(1 + 3.5 * (1.5 / limit - 0.35), rel=0.1)
    assert model.reach.min() == 1.0
    # That far off is accepted on this side alone.
    low, high = (abs(bounds[0]) for bounds in model.bounds())
    near, far = (low, high) if side > 0 else (high, low)
    assert near == pytest.approx(limit, rel=0.3)
    assert far / near == pytest.approx(widened / model.reach.min())


@pytest.mark.parametrize(
    ("row", "every"),
    [
        pytest.param(1, 53, id="spikes"),
        pytest.param(2, 301, id="rare bursts"),
        pytest.param(4, 101, id="alerts"),
        pytest.param(6, 101, id="longer alerts"),
    ],
)
@pytest.mark.parametrize("size", [1.5, -1.5])
def test_neither_spikes_nor_rare_bursts_nor_alerts_widen_a_limit(row: int, every: int, size: float) -> None:
    # Of normal errors one pair in a hundred is 0.30 limits off, give or take a tenth; 0.35 widen nothing.
    assert of_quarters(with_rows(row, every, size)).reach.max() < 1.05


@pytest.mark.parametrize("side", [-1, 1])
def test_a_heavy_tail_widens_the_limit_of_its_side(side: int) -> None:
    """The errors of one side are those of a Cauchy distribution, the others normal ones as near."""
    rng = np.random.default_rng(8)
    count = WEEKS * QUARTERS_IN_WEEK
    # Half of the absolute errors are below 0.05 on either side.
    cauchy, others = 0.05 * np.abs(rng.standard_cauchy(count)), 0.05 * 1.4826 * np.abs(rng.normal(size=count))
    noise = side * np.where(rng.random(count) < 0.5, np.minimum(cauchy, 2.0), -others)
    model = of_quarters(noise)
    assert model.limits.mean() == pytest.approx(SPREADS * 1.4826 * 0.05, rel=0.1)
    # Both of two are beyond what a tenth is beyond, 3.08 quartiles, in one pair of a hundred.
    assert model.reach[(side + 1) // 2] == pytest.approx(
        1 + 3.5 * (3.08 / (SPREADS * 1.4826) - 0.35), rel=0.15
    )
    assert model.reach[(1 - side) // 2] == 1.0


@pytest.mark.parametrize("weeks_before_the_end", [0, 1, 3])
def test_a_fortnight_of_bursts_does_not_widen_a_limit(weeks_before_the_end: int) -> None:
    end = (WEEKS - weeks_before_the_end) * QUARTERS_IN_WEEK
    noise = with_rows(2, 53, 0.0)
    rng = np.random.default_rng(9)
    noise[end - 2 * QUARTERS_IN_WEEK : end] += np.repeat(rng.normal(0, 1.0, QUARTERS_IN_WEEK), 2)
    assert of_quarters(noise).reach.max() == 1.0


def test_a_noisy_hour_has_wide_limits_and_no_other() -> None:
    hour = np.arange(WEEKS * WEEK) % DAY // HOUR
    is_noisy = (hour >= 8) & (hour <= 10)
    model = fit("profile", buckets_of(flat(normal(np.where(is_noisy, 0.5, 0.1)))), DEFAULT)
    assert model.limits[9] == pytest.approx(SPREADS * 0.5, rel=0.25)
    quiet = [*range(7), *range(12, 24)]
    assert model.limits[quiet] == pytest.approx(np.full(19, max(SPREADS * 0.1, MIN_LIMIT)), rel=0.35)


# --- what is not learnt --------------------------------------------------------------------------

RNG = np.random.default_rng(5)
# A level of its own every six hours, and less of everything.
HOLIDAYS = np.repeat(np.exp(RNG.normal(-0.5, 0.5, 14 * 4)), DAY // 4)


def assert_nearly_as(model: Model, without: Model, closeness: float) -> None:
    """Its limits and its usual week are those of a training without what was anomalous."""
    assert (model.limits / without.limits).mean() == pytest.approx(1.0, abs=closeness)
    assert (model.memory.wider * model.limits.mean() / without.limits.mean()).max() < 1.25
    assert model.reach == pytest.approx(without.reach, rel=closeness)
    assert np.abs(model.usual - without.usual).max() < 0.2
    assert np.median(np.abs(model.usual - without.usual)) < 0.04


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("weeks_before_the_end", [0, 1, 3])
def test_a_fortnight_that_was_different_is_not_learnt(
    models: dict[str, Model], name: str, weeks_before_the_end: int
) -> None:
    end = (WEEKS - weeks_before_the_end) * WEEK
    training = changed(TRAINING, slice(end - 2 * WEEK, end), HOLIDAYS)
    assert_nearly_as(fit(name, buckets_of(training), DEFAULT), models[name], 0.15)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("part", "factor"),
    [
        pytest.param(slice(-10 * DAY + 6, -10 * DAY + 24), 0.0, id="outage"),
        pytest.param(slice(-9 * DAY + 20, -9 * DAY + 28), 5.0, id="flood"),
        pytest.param(slice(-6, None), 5.0, id="flood until the end"),
        pytest.param(slice(-30, -8), 0.3, id="drop of eleven hours"),
    ],
)
def test_an_anomaly_of_hours_is_not_learnt(
    models: dict[str, Model], name: str, part: slice, factor: float
) -> None:
    model = fit(name, buckets_of(changed(TRAINING, part, factor)), DEFAULT)
    assert_nearly_as(model, models[name], 0.08)


@pytest.mark.parametrize("name", NAMES)
def test_an_anomaly_each_night_of_the_last_week_is_found_again_each_night(name: str) -> None:
    """Trained each night on what the nights before were like."""
    flooded = LIFE.copy()
    for day in range(WEEKS * 7, WEEKS * 7 + 7):
        flooded[day * DAY + 20 : day * DAY + 25] *= 3.0
    for day in (WEEKS * 7 + 3, WEEKS * 7 + 6):
        before = flooded[: day * DAY]
        model = fit(name, buckets_of(before, first=0), DEFAULT)
        score = judged(model, flooded[day * DAY : (day + 1) * DAY], before).score
        assert (score[20:25] > 1).all(), day


@pytest.mark.parametrize("name", NAMES)
def test_growth_is_followed_and_not_learnt_as_noise(models: dict[str, Model], name: str) -> None:
    growth = np.exp(0.03 * np.arange((WEEKS + 1) * WEEK) / WEEK)
    training = TRAINING * growth[: WEEKS * WEEK]
    model = fit(name, buckets_of(training), DEFAULT)
    before = judged(models[name], NEXT)
    grown = judged(model, NEXT * growth[WEEKS * WEEK :], training)
    # The level is that of the day before, so half a day behind: a fourteenth of 0.03.
    ratio = np.log(grown.expected / before.expected / growth[WEEKS * WEEK :])
    assert np.median(ratio) == pytest.approx(0.0, abs=0.02)
    assert (model.limits / models[name].limits).mean() == pytest.approx(1.0, abs=0.1)


# --- what they find ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_next_week_is_silent(models: dict[str, Model], name: str) -> None:
    found = judged(models[name], NEXT)
    # An outlier model takes a share of all points for anomalies by its making, one of a hundred or fewer.
    allowed = 0 if name in FORECASTERS else 0.02 * WEEK
    assert (found.score > 1).sum() <= allowed
    assert ALERT not in statuses(found.score)
    assert not np.isnan(found.score).any()
    assert np.median(np.abs(np.log(found.expected / NEXT))) < 0.1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("weekend", "noise"), [(0.3, 0.14), (0.1, 0.14), (0.3, 0.01)])
def test_a_port_with_quiet_weekends_is_silent_on_them_and_not_blind(
    name: str, weekend: float, noise: float
) -> None:
    quiet = np.where(np.arange((WEEKS + 1) * WEEK) // DAY % 7 >= 5, weekend / 0.6, 1.0)
    traffic = life(WEEKS + 1, noise=noise) * quiet
    before, after = traffic[: WEEKS * WEEK], traffic[WEEKS * WEEK :]
    model = fit(name, buckets_of(before), DEFAULT)
    assert ALERT not in statuses(judged(model, after, before).score)
    for day in (2, 5):
        during = slice(day * DAY + 20, day * DAY + 26)
        assert (judged(model, changed(after, during, 0.25), before).score[during] > 1).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("hour", [3, 15])
@pytest.mark.parametrize("factor", [5.0, 0.2, 0.0])
def test_two_hours_are_found_by_night_and_by_day(
    models: dict[str, Model], name: str, hour: int, factor: float
) -> None:
    during = slice(2 * DAY + hour * HOUR, 2 * DAY + (hour + 2) * HOUR)
    found = judged(models[name], changed(NEXT, during, factor))
    assert (found.score[during] > 1).all()
    assert statuses(found.score)[during][-1] == ALERT


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("hours", [1, 4, 8, 11])
@pytest.mark.parametrize("factor", [6.0, 0.15])
def test_an_anomaly_of_hours_is_one_to_its_end_and_moves_little(
    models: dict[str, Model], name: str, hours: int, factor: float
) -> None:
    start = 2 * DAY + 7 * HOUR
    end = start + hours * HOUR
    found = judged(models[name], changed(NEXT, slice(start, end), factor))
    without = judged(models[name], NEXT)
    assert (found.score[start:end] > 1).all()
    assert np.abs(np.log(found.expected / without.expected))[end:].max() < 0.3
    allowed = 0 if name in FORECASTERS else 0.03 * WEEK
    assert (found.score[end:] > 1).sum() <= allowed
    # Two days after its end nothing is left of it, but a rounding of what is left of a deviation.
    later = slice(end + 2 * DAY, None)
    np.testing.assert_allclose(found.score[later], without.score[later], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("factor", [4.0, 0.2])
def test_a_level_that_lasts_is_accepted_after_hours(
    models: dict[str, Model], name: str, factor: float
) -> None:
    found = judged(models[name], NEXT * factor)
    drift = DRIFT_MINUTES // MINUTES
    assert (found.score[:drift] > 1).all()
    assert (found.score[drift : 3 * DAY] > 1).mean() < (0.01 if name in FORECASTERS else 0.05)
    ratio = np.log(found.expected[drift + 1 : 3 * DAY] / NEXT[drift + 1 : 3 * DAY] / factor)
    assert abs(np.median(ratio)) < 0.1


@pytest.mark.parametrize("name", FORECASTERS)
def test_a_small_step_of_the_level_is_followed_without_an_anomaly(
    models: dict[str, Model], name: str
) -> None:
    found = judged(models[name], NEXT * 1.2)
    assert ALERT not in statuses(found.score)
    # The level of a day is the median of it, so it is known after half of a day.
    day = slice(DAY // 2 + 2 * HOUR, 3 * DAY)
    assert np.median(np.log(found.expected[day] / NEXT[day])) == pytest.approx(math.log(1.2), abs=0.05)


@pytest.mark.parametrize("name", NAMES)
def test_a_port_that_is_idle_but_for_an_hour_is_watched(name: str) -> None:
    idle = np.zeros(6 * WEEK)
    idle[3 * WEEK : 3 * WEEK + 2] = 5e6
    model = fit(name, buckets_of(idle), DEFAULT)
    assert (judged(model, np.array([0.0, 5e6, 1e9]), idle).score > 1).tolist() == [False, True, True]


@pytest.mark.parametrize("zone", ["Europe/Rome", "UTC"])
def test_a_week_follows_the_clocks_of_people(zone: str) -> None:
    """A port that is busy from 9 to 17 in Rome, where the clocks go forward in the last week of training."""
    starts = int(datetime(2023, 1, 29, 23, tzinfo=UTC).timestamp()) + MINUTES * 60 * np.arange(10 * WEEK)
    hour = week_slots(starts, MINUTES, "Europe/Rome") % DAY / HOUR
    # Like a bell, so that an hour more or less is a factor of two in the morning.
    traffic = 1e6 + 1e8 * np.exp(-(((hour - 13) / 3) ** 2)) * np.exp(normal(0.03, 10))
    buckets = Buckets(MINUTES, starts, traffic, week_slots(starts, MINUTES, zone))
    # On Sunday 26 March.
    split = 8 * WEEK
    model = fit("profile", buckets[:split], DEFAULT)
    found = statuses(model.judge(buckets[split - LEAD :]).score[LEAD:])
    assert (ALERT in found) == (zone == "UTC")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("count", "unknown"), [(4, slice(0, 2 * WEEK)), (6, slice(-2 * WEEK, None))])
def test_two_weeks_without_values_give_a_model_that_works_or_one_line(
    name: str, count: int, unknown: slice
) -> None:
    before = life(count)
    before[unknown] = np.nan
    try:
        model = fit(name, buckets_of(before), DEFAULT)
    except UserError as error:
        assert len(str(error).splitlines()) == 1
        return
    assert_works(model)


def assert_works(model: Model) -> None:
    clean = judged(model, NEXT)
    assert (clean.score <= 1).mean() > 0.9
    during = slice(2 * DAY, 2 * DAY + 10)
    assert (judged(model, changed(NEXT, during, 10.0)).score[during] > 1).all()


# --- the accepted band ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_an_anomaly_is_what_lies_outside_the_band(models: dict[str, Model], name: str) -> None:
    rng = np.random.default_rng(8)
    factors = np.exp(np.where(rng.random(WEEK) < 0.3, rng.normal(0, 1, WEEK), 0.0))
    traffic = NEXT * factors
    traffic[40:44] = 0.0
    traffic[100:104] = np.nan
    found = judged(models[name], traffic)
    assert np.isnan(found.score).nonzero()[0].tolist() == [100, 101, 102, 103]
    is_outside = (traffic < found.low) | (traffic > found.high)
    assert 10 < is_outside.sum() < 150
    np.testing.assert_array_equal(found.score > 1, is_outside)
    # What is expected of an unknown bucket is known.
    assert (found.low < found.expected).all()
    assert (found.expected < found.high).all()


def by_hand(curve: ScoreCurve | None = None) -> Model:
    """Hourly on a raw scale: 10 by day and 0 by night, with limits of 2 and of 1."""
    is_day = (np.arange(168) % 24 >= 8) & (np.arange(168) % 24 < 20)
    limits = np.where((np.arange(24) >= 8) & (np.arange(24) < 20), 2.0, 1.0)
    memory = Memory(np.array([0.5, 0.25, 0.0, 0.0, 0.0]), np.array([1.0, 1.5, 2.0, 2.0, 2.0]))
    return Model(RAW, np.where(is_day, 10.0, 0.0), limits, np.array([1.0, 1.5]), memory, curve)


def hours_by_hand(*after: float) -> Buckets:
    """A day that lies 100 above the usual, and what follows from midnight on."""
    day = np.array([100.0] * 8 + [110.0] * 12 + [100.0] * 4)
    return buckets_of(np.concatenate([day, after]), 60)


def test_a_model_by_hand() -> None:
    scored = by_hand().judge(hours_by_hand(100.4, 100.4, math.nan, 100.0, 105.0, 100.0))
    for values in (scored.score, scored.expected, scored.low, scored.high):
        assert np.isnan(values[:24]).all()
    # Half of 0.4 is left after an hour, of 0.4 + 2/3 x 0.0 a quarter after two. Then 0.0 is the newest.
    assert scored.expected[24:].tolist() == pytest.approx([100, 100.2, 100.2, 100.1, 100, 100])
    wider = [2.0, 1.0, 1.0, 1.5, 1.0, 1.5]
    assert (scored.expected - scored.low)[24:].tolist() == pytest.approx(wider)
    # One and a half times as far above.
    assert (scored.high - scored.expected)[24:].tolist() == pytest.approx([1.5 * one for one in wider])
    expected = [0.4 / 3, 0.2 / 1.5, math.nan, 0.1 / 1.5, 5 / 1.5, 0.0]
    assert scored.score[24:].tolist() == pytest.approx(expected, nan_ok=True)


def test_a_limit_belongs_to_the_hour_of_the_day() -> None:
    scored = by_hand().judge(hours_by_hand(*[100.0] * 8, *[110.0] * 4))
    assert (scored.expected - scored.low)[25:].tolist() == pytest.approx([1.0] * 7 + [2.0] * 4)


def test_an_outlier_model_by_hand() -> None:
    curve = ScoreCurve(np.array([-2.0, 0.0, 2.0]), np.array([3.0, 0.0, 2.0]))
    # On the lines from 3 to 0 and from 0 to 2 the limit is reached at -2/3 and at 1.
    assert curve.accepted() == pytest.approx((-2 / 3, 1.0))
    scored = by_hand(curve).judge(hours_by_hand(100.0, 99.5, 100.0, 99.2))
    assert scored.low[25] == pytest.approx(100.0 - 2 / 3)
    assert scored.high[25] == pytest.approx(101.5)
    # A deviation of -0.5, of which a sixth is left an hour later.
    assert scored.score[24:26].tolist() == pytest.approx([0.0, 0.75])
    assert (scored.score > 1).nonzero()[0].tolist() == [27]


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        # On this side no traffic is ever too much, or too little.
        ([2.0, 0.0, 0.5], (-0.5, math.inf)),
        ([0.5, 0.0, 2.0], (-math.inf, 0.5)),
        ([0.5, 0.0, 0.5], (-math.inf, math.inf)),
    ],
)
def test_a_curve_that_stays_below_the_limit_has_no_bound_there(
    scores: list[float], expected: tuple[float, float]
) -> None:
    assert ScoreCurve(np.array([-1.0, 0.0, 1.0]), np.array(scores)).accepted() == pytest.approx(expected)


# --- errors of weeks that a fit has not seen ------------------------------------------------------


@pytest.mark.parametrize("name", ["profile", "stl", "sarimax"])
def test_a_week_is_judged_by_a_usual_week_that_did_not_see_it(name: str) -> None:
    weeks = level_free_weeks(8)
    _, of_weeks = DETECTORS[name].learn(weeks, 0, DEFAULT)
    is_judged = ~np.isnan(of_weeks).all(axis=1)
    assert 2 <= is_judged.sum() <= ERROR_WEEKS
    for week in is_judged.nonzero()[0][[0, -1]]:
        other = weeks.copy()
        other[week] = np.roll(other[week], 40) + 2.0
        _, of_others = DETECTORS[name].learn(other, 0, DEFAULT)
        np.testing.assert_array_equal(of_others[week], of_weeks[week])


def test_a_forest_is_not_judged_by_points_that_its_trees_have_seen(models: dict[str, Model]) -> None:
    """Its limits are as wide as those of the median week, which are of weeks left out."""
    ratio = models["random-forest"].limits / models["profile"].limits
    assert ratio.mean() == pytest.approx(1.0, abs=0.1)


# --- the models themselves -----------------------------------------------------------------------


def level_free_weeks(count: int) -> np.ndarray:
    """Hourly (count, 168): a day and a weekend that change slowly, and noise."""
    place = np.arange(count * 168)
    shape = np.sin(2 * np.pi * place / 24) * (1 + 0.02 * place / 168) + 0.5 * (place // 24 % 7 >= 5)
    return (shape + 0.06 * np.random.default_rng(7).standard_normal(len(place))).reshape(count, 168)


def test_the_quick_decomposition_is_nearly_the_full_one() -> None:
    from statsmodels.tsa.seasonal import STL

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
    from statsmodels.tsa.seasonal import STL

    weeks = level_free_weeks(6)
    usual, _ = DETECTORS["stl"].learn(weeks, 0, DEFAULT)
    full = STL(weeks.ravel(), period=168, seasonal=35).fit()
    last = full.seasonal[-168:]
    # What lies beyond three spreads is cut before, which moves a season a little.
    assert usual == pytest.approx(last, abs=0.05)
    assert np.abs(full.seasonal[:168] - last).max() > 0.06


def arma(count: int, seed: int) -> np.ndarray:
    """y[n] = 0.8 y[n-1] + e[n] + 0.3 e[n-1]."""
    noise = 0.1 * np.random.default_rng(seed).standard_normal(count)
    values = np.zeros(count)
    for n in range(1, count):
        values[n] = 0.8 * values[n - 1] + noise[n] + 0.3 * noise[n - 1]
    return values


def test_the_forecast_is_that_of_sarimax_with_an_exogenous_variable() -> None:
    from statsmodels.tsa.arima.estimators.hannan_rissanen import hannan_rissanen
    from statsmodels.tsa.statespace.sarimax import SARIMAX

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


@pytest.mark.parametrize("name", OUTLIER_MODELS)
def test_a_curve_accepts_a_share_of_ordinary_errors_and_nothing_beyond_the_limit(
    name: str,
) -> None:
    errors = np.random.default_rng(11).normal(0, 1 / SPREADS, 4000)
    errors[::100] = 3.0
    errors[1::50] = np.nan
    curve = DETECTORS[name].curve(errors)
    ordinary = errors[np.abs(errors) <= 1]
    scores = np.interp(ordinary, curve.grid, curve.scores)
    # Steps of a forest hold several errors each.
    assert (scores <= 1).mean() == pytest.approx(ACCEPTED_SHARE, abs=0.01)
    low, high = curve.accepted()
    assert -1.05 <= low < -0.3
    assert 0.3 < high <= 1.05


@pytest.mark.parametrize("name", OUTLIER_MODELS)
@pytest.mark.parametrize("gap", [0.0, 0.3])
def test_further_off_is_never_less_unusual(name: str, gap: float) -> None:
    # With a gap, two ranges of errors are ordinary and what is between them is not.
    rng = np.random.default_rng(12)
    errors = rng.normal(0, 0.1, 3000) + np.where(rng.random(3000) < 0.5, gap, -gap)
    curve = DETECTORS[name].curve(errors)
    lowest = int(np.argmin(curve.scores))
    assert (np.diff(curve.grid) > 0).all()
    assert (np.diff(curve.scores[: lowest + 1]) <= 0).all()
    assert (np.diff(curve.scores[lowest:]) >= 0).all()
    assert curve.scores[lowest] <= 0.5
    assert min(curve.scores[0], curve.scores[-1]) > 1


@pytest.mark.parametrize("name", OUTLIER_MODELS)
def test_scores_rise_as_those_of_scikit_learn(name: str) -> None:
    from sklearn.ensemble import IsolationForest
    from sklearn.svm import OneClassSVM

    estimator = {
        "isolation-forest": IsolationForest(n_estimators=50, max_samples=128, random_state=0),
        "one-class-svm": OneClassSVM(nu=0.01, gamma=0.1),
    }[name]
    errors = np.random.default_rng(13).normal(0, 1 / SPREADS, 3000)
    curve = DETECTORS[name].curve(errors)
    estimator.fit(SPREADS * errors[np.abs(errors) <= 1, None])
    own = -estimator.score_samples(SPREADS * curve.grid[:, None])
    # Within the limit, and away from the middle, where ours does not fall again.
    for side in (-1, 1):
        is_there = (side * curve.grid > 0.3) & (side * curve.grid <= 1)
        assert is_there.sum() > 10
        assert np.corrcoef(curve.scores[is_there], own[is_there])[0, 1] > 0.97


def same(part: Scored, whole: Scored) -> None:
    for field in ("score", "expected", "low", "high"):
        np.testing.assert_array_equal(getattr(part, field), getattr(whole, field))


@pytest.mark.parametrize("name", NAMES)
def test_the_same_training_gives_the_same_model(models: dict[str, Model], name: str) -> None:
    again = fit(name, buckets_of(TRAINING), DEFAULT)
    same(judged(again, NEXT), judged(models[name], NEXT))


@pytest.mark.parametrize("name", NAMES)
def test_the_workshop_preparation_has_a_model_of_every_detector(name: str) -> None:
    model = fit(name, buckets_of(TRAINING), PREPARATIONS["workshop"])
    assert model.scaler == Scaler("standard", pytest.approx(TRAINING.mean()), pytest.approx(TRAINING.std()))
    during = slice(2 * DAY + 26, 2 * DAY + 30)
    assert (judged(model, changed(NEXT, during, 10.0)).score[during] > 1).all()


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
    assert_works(fit(name, buckets_of(sparse(2)), DEFAULT))
