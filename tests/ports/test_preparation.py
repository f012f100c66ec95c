"""Buckets, weeks and scales of a port, against values made by hand, a plain twin and pandas."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from statistics import median
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ports.preparation import (
    BUCKET_MINUTES,
    PREPARATIONS,
    Buckets,
    Preparation,
    Scaler,
    check_zone,
    known_medians,
    log_scaler,
    medians,
    standard_scaler,
    week_slots,
    workshop_sums,
)
from ports.series import Series

NAN = math.nan
DEFAULT, WORKSHOP = PREPARATIONS["default"], PREPARATIONS["workshop"]
ROME = "Europe/Rome"
HOUR, DAY = 3600, 86_400
# A Sunday, 2023-01-01T00:00:00Z; in Rome it is one o'clock.
START = 1_672_531_200
RESET = float(2**32)
# The same examples each time: the suite must not be a game of luck.
examined = settings(max_examples=150, deadline=None, derandomize=True, database=None)


def port(traffic: Sequence[float], start: int = START, late: int = 0) -> Series:
    """Samples of every five minutes after `start`, each taken `late` seconds after its time."""
    values = np.array(traffic, dtype=float)
    return Series("1_8_out", start + late + 300 * np.arange(1, len(values) + 1), values)


def without(series: Series, *lost: int) -> Series:
    return Series(series.name, np.delete(series.times, lost), np.delete(series.traffic, lost))


def same(expected: Sequence[float]) -> object:
    return pytest.approx(list(expected), nan_ok=True, rel=1e-12)


# --- buckets -------------------------------------------------------------------------------------


def test_the_two_ways_to_prepare() -> None:
    assert list(PREPARATIONS) == ["default", "workshop"]
    for name, preparation in PREPARATIONS.items():
        assert preparation.name == name
        assert preparation.minutes in BUCKET_MINUTES
    assert (DEFAULT.minutes, DEFAULT.is_local, DEFAULT.is_hourly) == (15, True, False)
    assert (WORKSHOP.minutes, WORKSHOP.is_local, WORKSHOP.is_hourly) == (30, False, True)


def test_buckets_of_aligned_samples_by_hand() -> None:
    buckets = DEFAULT.buckets(port([1, 2, 30, 7, 5, 6]), 15, "UTC")
    assert buckets.minutes == 15
    assert buckets.starts.tolist() == [START, START + 900]
    # The middle one of each, in five minutes.
    assert buckets.traffic.tolist() == [2.0, 6.0]
    # The Sunday is the seventh day of 96 quarters.
    assert buckets.slots.tolist() == [576, 577]


def test_buckets_of_the_workshop_by_hand() -> None:
    buckets = WORKSHOP.buckets(port([1, 2, 30, 7, 5, 6]), 15, "UTC")
    assert buckets.starts.tolist() == [START, START + 900]
    assert buckets.traffic.tolist() == [33.0, 18.0]
    assert buckets.slots.tolist() == [576, 577]


@pytest.mark.parametrize("minutes", BUCKET_MINUTES)
def test_every_size_of_bucket(minutes: int) -> None:
    series, count = port(range(1, 25)), minutes // 5
    usual, sums = (way.buckets(series, minutes, "UTC") for way in (DEFAULT, WORKSHOP))
    starts = list(range(START, START + 7200, minutes * 60))
    assert usual.starts.tolist() == sums.starts.tolist() == starts
    expected = [sum(range(first, first + count)) for first in range(1, 25, count)]
    # What rises evenly has its median in its middle, and no z-score above 1.73.
    assert usual.traffic.tolist() == [value / count for value in expected]
    assert sums.traffic.tolist() == expected


@pytest.mark.parametrize(
    ("samples", "complete"), [(1, 0), (2, 0), (3, 1), (4, 1), (5, 1), (6, 2), (7, 2), (8, 2), (9, 3)]
)
@pytest.mark.parametrize(("preparation", "full"), [(DEFAULT, 10.0), (WORKSHOP, 30.0)], ids=PREPARATIONS)
def test_the_unfinished_last_bucket_is_left_out(
    preparation: Preparation, full: float, samples: int, complete: int
) -> None:
    buckets = preparation.buckets(port([10] * samples), 15, "UTC")
    assert buckets.traffic.tolist() == [full] * complete
    assert len(buckets.starts) == len(buckets.slots) == complete


@pytest.mark.parametrize(
    ("first", "traffic"),
    # Of the quarter from 00:00 this many samples are there: 3, 2, 1; then that of 00:15 is the first.
    [(0, [10.0, 10.0]), (1, [10.0, 10.0]), (2, [NAN, 10.0]), (3, [10.0])],
)
def test_a_port_may_begin_within_a_bucket(first: int, traffic: list[float]) -> None:
    buckets = DEFAULT.buckets(without(port([10] * 6), *range(first)), 15, "UTC")
    assert buckets.traffic.tolist() == same(traffic)
    assert buckets.starts[-1] == START + 900


def test_samples_off_the_five_minutes_lie_where_most_of_their_time_does() -> None:
    day = datetime(2023, 4, 18, tzinfo=UTC)
    moments = [
        *(day.replace(hour=21, minute=minute, second=53) for minute in (32, 37, 42, 47, 52, 57)),
        day.replace(hour=22, minute=2, second=53),
    ]
    series = Series("x", np.array([int(moment.timestamp()) for moment in moments]), np.arange(1.0, 8.0))
    buckets = DEFAULT.buckets(series, 15, "UTC")
    # 21:32:53 counts since 21:27:53, of which 2:53 are after 21:30; 21:47:53 already is the next quarter's.
    assert buckets.starts.tolist() == [
        int(day.replace(hour=21, minute=minute).timestamp()) for minute in (30, 45)
    ]
    assert buckets.traffic.tolist() == [2.0, 5.0]
    assert WORKSHOP.buckets(series, 15, "UTC").traffic.tolist() == [6.0, 15.0]


def test_a_bucket_ends_with_the_first_sample_at_or_after_its_end() -> None:
    # At 00:12:53 the quarter has all its three samples, but it lasts another two minutes.
    for samples, late, complete in ((3, -127, 0), (4, -127, 1), (3, 0, 1), (3, 127, 1), (2, 127, 0)):
        buckets = DEFAULT.buckets(port([10] * samples, late=late), 15, "UTC")
        assert buckets.traffic.tolist() == [10.0] * complete


@pytest.mark.parametrize("late", [-149, -60, -1, 1, 60, 149])
@pytest.mark.parametrize("preparation", [DEFAULT, WORKSHOP], ids=PREPARATIONS)
def test_samples_that_come_a_little_early_or_late_fill_the_same_buckets(
    preparation: Preparation, late: int
) -> None:
    traffic = np.random.default_rng(1).integers(1, 1000, 48)
    expected = preparation.buckets(port(traffic), 15, ROME)
    found = preparation.buckets(port(traffic, late=late), 15, ROME)
    # The last one of those that come early has not ended.
    count = len(expected.starts) - (late < 0)
    assert found.starts.tolist() == expected.starts[:count].tolist()
    assert found.traffic.tolist() == expected.traffic[:count].tolist()
    assert found.slots.tolist() == expected.slots[:count].tolist()


@pytest.mark.parametrize(
    ("minutes", "known", "is_known"),
    [
        (5, 1, True),
        (5, 0, False),
        (10, 1, True),
        (10, 0, False),
        (15, 2, True),
        (15, 1, False),
        (20, 2, True),
        (20, 1, False),
        (30, 3, True),
        (30, 2, False),
        (60, 6, True),
        (60, 5, False),
    ],
)
@pytest.mark.parametrize("is_absent", [True, False], ids=["not taken", "no value"])
def test_a_bucket_is_known_from_half_of_its_samples_on(
    minutes: int, known: int, is_known: bool, is_absent: bool
) -> None:
    count = minutes // 5
    lost = count + np.arange(count - known)
    traffic = np.full(3 * count, 10.0)
    if is_absent:
        series = without(port(traffic), *lost)
    else:
        traffic[lost] = NAN
        series = port(traffic)
    found = DEFAULT.buckets(series, minutes, "UTC").traffic
    assert found.tolist() == same([10.0, 10.0 if is_known else NAN, 10.0])


def test_a_gap_is_unknown_and_nothing_is_left_out() -> None:
    series = without(port([10] * 288), *range(100, 175))
    buckets = DEFAULT.buckets(series, 15, "UTC")
    assert buckets.starts.tolist() == list(range(START, START + DAY, 900))
    # Samples 99, 100 and 101 are the 34th quarter, of which one is there; 174, 175, 176 the 59th with two.
    assert np.flatnonzero(np.isnan(buckets.traffic)).tolist() == list(range(33, 58))
    assert set(buckets.traffic[~np.isnan(buckets.traffic)].tolist()) == {10.0}


def test_measured_nought_is_not_unknown() -> None:
    assert DEFAULT.buckets(port([0] * 6), 15, "UTC").traffic.tolist() == [0.0, 0.0]
    assert DEFAULT.buckets(port([0, NAN, 0, NAN, 0, NAN]), 15, "UTC").traffic.tolist() == same([0.0, NAN])


@pytest.mark.parametrize("wrong", [RESET, 0.0, NAN, 2 * RESET])
@pytest.mark.parametrize("minutes", [15, 20, 30, 60])
def test_a_counter_that_was_reset_once_in_a_bucket_changes_nothing(minutes: int, wrong: float) -> None:
    count = minutes // 5
    for place in range(count):
        traffic = np.full(3 * count, 5e6)
        traffic[count + place] = wrong
        found = DEFAULT.buckets(port(traffic), minutes, ROME).traffic
        assert found.tolist() == [5e6] * 3


@pytest.mark.parametrize("minutes", [15, 20, 30, 60])
def test_a_counter_that_was_reset_leaves_a_bucket_among_its_other_samples(minutes: int) -> None:
    count = minutes // 5
    rng = np.random.default_rng(2)
    samples = rng.lognormal(15, 1, (200, count))
    places = rng.integers(0, count, 200)
    others = np.array([np.delete(row, place) for row, place in zip(samples, places, strict=True)])
    samples[np.arange(200), places] = rng.choice([RESET, 0.0, NAN], 200)
    found = medians(samples, minutes)
    assert (found >= others.min(axis=1)).all()
    assert (found <= others.max(axis=1)).all()


def test_a_part_of_buckets_is_buckets() -> None:
    buckets = DEFAULT.buckets(port(range(24)), 15, ROME)
    for part in (slice(2, 5), np.arange(8) % 2 == 0):
        found = buckets[part]
        assert isinstance(found, Buckets)
        assert found.minutes == 15
        for name in ("starts", "traffic", "slots"):
            assert getattr(found, name).tolist() == getattr(buckets, name)[part].tolist()


def twin(series: Series, minutes: int, zone: str) -> list[tuple[int, float, float, int]]:
    """Start, default and workshop's traffic (less its filter), and slot of each bucket, sample by sample."""
    taken: dict[int, float] = {}
    for time, value in zip(series.times.tolist(), series.traffic.tolist(), strict=True):
        # The five minutes of the clock that a sample shares the most with.
        cells = [time // 300 * 300 + offset for offset in (-600, -300, 0, 300)]
        taken[max(cells, key=lambda cell, time=time: min(cell + 300, time) - max(cell, time - 300))] = value
    rows = []
    start = min(taken) // (60 * minutes) * 60 * minutes
    while start + 60 * minutes <= series.times[-1]:
        values = [taken.get(cell, NAN) for cell in range(start, start + 60 * minutes, 300)]
        known = [value for value in values if value == value]
        usual = median(known) if 2 * len(known) >= len(values) else NAN
        local = datetime.fromtimestamp(start, ZoneInfo(zone))
        slot = (local.weekday() * 1440 + local.hour * 60 + local.minute) // minutes
        rows.append((start, usual, math.fsum(known), slot))
        start += 60 * minutes
    return rows


samples = st.one_of(st.none(), st.just(NAN), st.integers(0, 2**33).map(float))


@examined
@given(
    st.lists(st.tuples(samples, st.integers(-149, 149)), min_size=2, max_size=60),
    # Over both changes of the clocks, and over New Year.
    st.sampled_from([1_679_788_800, 1_698_535_200, 1_672_527_600]),
    st.integers(0, 11),
    st.sampled_from(BUCKET_MINUTES),
)
def test_buckets_are_those_of_a_plain_twin(
    taken: list[tuple[float | None, int]], start: int, shift: int, minutes: int
) -> None:
    times = [start + 300 * (shift + number) + late for number, (_, late) in enumerate(taken)]
    kept = [number for number, (value, _) in enumerate(taken) if value is not None]
    if not kept:
        return
    traffic = np.array([taken[number][0] for number in kept], dtype=float)
    series = Series("x", np.array([times[number] for number in kept]), traffic)
    expected = twin(series, minutes, ROME)
    buckets = DEFAULT.buckets(series, minutes, ROME)
    assert buckets.starts.tolist() == [row[0] for row in expected]
    assert buckets.traffic.tolist() == same([row[1] for row in expected])
    assert buckets.slots.tolist() == [row[3] for row in expected]
    if minutes >= 30 and expected:
        # Where its filter never fires.
        found = WORKSHOP.buckets(series, minutes, ROME)
        assert found.traffic.tolist() == same([row[2] for row in expected])


# --- the week ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "slot"),
    [
        # Sunday is 6 x 96; where it would be two o'clock it is three.
        ("2023-03-26T00:45", 576 + 7),
        ("2023-03-26T01:00", 576 + 12),
        ("2023-03-26T21:45", 671),
        ("2023-03-26T22:00", 0),
        # And here it is two o'clock twice.
        ("2023-10-29T00:00", 576 + 8),
        ("2023-10-29T00:45", 576 + 11),
        ("2023-10-29T01:00", 576 + 8),
        ("2023-10-29T01:45", 576 + 11),
        ("2023-10-29T02:00", 576 + 12),
        ("2023-10-29T22:45", 671),
        ("2023-10-29T23:00", 0),
        # A Monday in winter and one in summer.
        ("2023-01-02T08:30", 38),
        ("2023-07-03T08:30", 42),
    ],
)
def test_slots_in_rome_by_hand(moment: str, slot: int) -> None:
    start = int(datetime.fromisoformat(f"{moment}+00:00").timestamp())
    assert week_slots(np.array([start]), 15, ROME).tolist() == [slot]


@pytest.mark.parametrize("minutes", BUCKET_MINUTES)
@pytest.mark.parametrize(
    "zone", [ROME, "UTC", "America/St_Johns", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Apia"]
)
@pytest.mark.parametrize("month", [(2023, 3), (2023, 4), (2023, 10), (2023, 11)])
def test_slots_are_those_of_the_local_calendar(minutes: int, zone: str, month: tuple[int, int]) -> None:
    first = datetime(*month, 1, tzinfo=UTC)
    moments = [first + timedelta(minutes=minutes * number) for number in range(0, 31 * 1440 // minutes, 7)]
    local = [moment.astimezone(ZoneInfo(zone)) for moment in moments]
    expected = [(time.weekday() * 1440 + time.hour * 60 + time.minute) // minutes for time in local]
    starts = np.array([int(moment.timestamp()) for moment in moments])
    assert week_slots(starts, minutes, zone).tolist() == expected
    assert min(expected) >= 0
    assert max(expected) < 7 * 1440 // minutes


def test_the_default_lives_in_local_time_and_the_workshop_in_utc() -> None:
    series = port([10] * 12)
    assert DEFAULT.buckets(series, 30, ROME).slots.tolist() == [6 * 48 + 2, 6 * 48 + 3]
    assert WORKSHOP.buckets(series, 30, ROME).slots.tolist() == [6 * 48, 6 * 48 + 1]


@pytest.mark.parametrize("zone", ["UTC", ROME, "Asia/Kathmandu"])
def test_a_zone_that_is_known(zone: str) -> None:
    check_zone(zone)


@pytest.mark.parametrize(
    "zone", ["", "Rome", "Europe", "Europe/Nowhere", "../UTC", "/etc/localtime", "UTC\x00", "a" * 1000]
)
def test_a_zone_that_is_not(zone: str) -> None:
    with pytest.raises(ValueError, match="."):
        check_zone(zone)


# --- medians -------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 12, 13])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_known_medians_are_numpys(width: int, share: float) -> None:
    rng = np.random.default_rng(width)
    values = rng.lognormal(10, 3, (300, width)).round()
    values[rng.random(values.shape) < share] = NAN
    before = values.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = known_medians(values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = np.nanmedian(values, axis=1)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(values, before)


def test_known_medians_by_hand() -> None:
    rows = np.array([[5.0, NAN, 1.0, 3.0], [NAN, 4.0, 2.0, NAN], [NAN, NAN, NAN, 7.0], [NAN, NAN, NAN, NAN]])
    assert known_medians(rows).tolist() == same([3.0, 3.0, 7.0, NAN])


# --- scales --------------------------------------------------------------------------------------


def test_the_log_scale_by_hand() -> None:
    # Half a hundredth of the 99th percentile of what is known.
    scaler = log_scaler(np.array([40.0, NAN, 60.0, 500.0]))
    # The 99th percentile lies at 0.98 of the way from 60 to 500.
    assert scaler == Scaler("log", pytest.approx(0.005 * 491.2), 1.0)
    found = scaler.transform(np.array([0.0, 97.544, 197.544, NAN]))
    assert found.tolist() == same([math.log(2.456), math.log(100), math.log(200), NAN])
    # However large a port is, nothing at all is equally far below its mean.
    for mean in (1.0, 1e12):
        scaler = log_scaler(np.full(3, mean))
        nothing, usual = scaler.transform(np.array([0.0, mean]))
        assert usual - nothing == pytest.approx(math.log(201))


def test_the_standard_scale_by_hand() -> None:
    scaler = standard_scaler(np.array([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]))
    assert scaler == Scaler("standard", 5.0, 2.0)
    assert scaler.transform(np.array([5.0, 9.0, 0.0, NAN])).tolist() == same([0.0, 2.0, -2.5, NAN])


def test_the_standard_scale_is_scikit_learns() -> None:
    from sklearn.preprocessing import StandardScaler

    traffic = np.random.default_rng(3).lognormal(15, 1, 500)
    other = StandardScaler().fit(traffic[:, None])
    scaler = standard_scaler(traffic)
    assert (scaler.offset, scaler.width) == pytest.approx((other.mean_[0], other.scale_[0]))
    assert scaler.transform(traffic) == pytest.approx(other.transform(traffic[:, None])[:, 0])


def test_what_never_changes_has_a_scale_too() -> None:
    scaler = standard_scaler(np.full(5, 7.0))
    assert scaler == Scaler("standard", 7.0, 1.0)
    assert scaler.transform(np.array([7.0, 8.0])).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("fit", [log_scaler, standard_scaler])
def test_back_from_the_scale(fit: Callable[[np.ndarray], Scaler]) -> None:
    rng = np.random.default_rng(4)
    for level in (1.0, 1e6, 1e12):
        traffic = np.concatenate([[0.0], level * rng.lognormal(0, 2, 300)])
        scaler = fit(traffic)
        back = scaler.inverse(scaler.transform(traffic))
        np.testing.assert_allclose(back, traffic, rtol=1e-9, atol=1e-9 * level)
        assert (np.diff(scaler.transform(np.sort(traffic))) > 0).all()
    assert np.isnan(scaler.inverse(np.array([NAN]))).all()


@pytest.mark.parametrize("scaler", [Scaler("log", 2.0, 1.0), Scaler("standard", 5.0, 2.0)])
def test_no_limit_is_below_nothing_and_one_may_be_without_bound(scaler: Scaler) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        low, high = scaler.inverse(np.array([-1000.0, np.inf]))
        assert (low, high) == (0.0, np.inf)
        assert Scaler("log", 2.0, 1.0).inverse(np.array([1000.0])).tolist() == [np.inf]


# --- the workshop's steps ------------------------------------------------------------------------


def workshop(samples: Sequence[float], minutes: int) -> list[float]:
    return WORKSHOP.buckets(port(samples), minutes, "UTC").traffic.tolist()


def spread(sums: Sequence[float], minutes: int) -> list[float]:
    """Samples of which the first in each bucket is all that it has, and the others are missing."""
    traffic = np.full((len(sums), minutes // 5), NAN)
    traffic[:, 0] = sums
    # The last of all must be there, or the last bucket would not have ended.
    traffic[-1, -1] = traffic[-1, 0] if minutes == 5 else 0.0
    return traffic.ravel().tolist()


def pandas_workshop(series: Series, minutes: int) -> pd.Series:
    """The document's first three steps in its own terms. A sample counts the five minutes before its time."""
    traffic = pd.Series(series.traffic, index=pd.to_datetime(series.times, unit="s")).fillna(0)
    sums = traffic.resample(f"{minutes}min", closed="right", label="left").sum()
    window = sums.rolling("2h", min_periods=1)
    z = (sums - window.mean()) / window.std(ddof=0)
    return sums.mask(z > 2, 0.0)


@pytest.mark.parametrize("minutes", BUCKET_MINUTES)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_workshops_steps_are_those_of_pandas(minutes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = 4 * 288
    traffic = 1e6 * (2 + np.sin(np.arange(count) * 2 * np.pi / 288)) * rng.lognormal(0, 0.2, count)
    traffic[rng.random(count) < 0.02] *= 10
    traffic[rng.random(count) < 0.01] = RESET
    traffic[rng.random(count) < 0.02] = NAN
    traffic = traffic.round()
    # Gaps of three hours and of single samples; the first and the last one are there.
    lost = {*range(500, 536), *rng.integers(1, count - 1, 20).tolist()}
    series = without(port(traffic), *lost)
    expected = pandas_workshop(series, minutes)
    buckets = WORKSHOP.buckets(series, minutes, ROME)
    assert buckets.starts.tolist() == expected.index.as_unit("s").asi8.tolist()
    assert buckets.traffic == pytest.approx(expected.to_numpy(), rel=1e-9)
    if minutes < 30:
        sums = [row[2] for row in twin(series, minutes, "UTC")]
        assert 5 < ((buckets.traffic == 0) & (np.array(sums) > 0)).sum() < len(sums) / 5


def test_hour_and_weekday_of_the_workshop_are_those_of_pandas() -> None:
    buckets = WORKSHOP.buckets(port([10] * 288 * 8), 30, ROME)
    moments = pd.to_datetime(buckets.starts, unit="s")
    assert (buckets.slots % 48 // 2).tolist() == moments.hour.tolist()
    assert (buckets.slots // 48).tolist() == moments.day_of_week.tolist()


# Of n points in the window k are on the new level: the z-score of the newest is sqrt((n - k) / k) with the
# deviation of the population, which the document names; more than 2 for k < n / 5.
@pytest.mark.parametrize(
    ("minutes", "erased"), [(5, 4), (10, 2), (15, 1), (20, 1), (30, 0), (60, 0)], ids=lambda value: str(value)
)
@pytest.mark.parametrize("factor", [1.5, 11, 1000])
def test_the_filter_erases_the_beginning_of_a_step_up_in_small_buckets(
    minutes: int, erased: int, factor: float
) -> None:
    count = 240 // minutes
    sums = [100.0] * count + [100.0 * factor] * count
    expected = [100.0] * count + [0.0] * erased + [100.0 * factor] * (count - erased)
    assert workshop(spread(sums, minutes), minutes) == expected
    # What falls is left alone.
    assert workshop(spread(sums[::-1], minutes), minutes) == sums[::-1]


def test_the_filter_erases_a_single_spike_and_a_reset() -> None:
    calm = [100.0] * 24
    for wrong in (RESET, 1000.0):
        assert workshop([*calm, 100.0, wrong, 100.0, *calm], 15) == [300.0] * 8 + [0.0] + [300.0] * 8
        # At 30 minutes it stays.
        samples = [*calm, *calm[:3], wrong, *calm[:2], *calm]
        assert workshop(samples, 30) == [600.0] * 4 + [500.0 + wrong] + [600.0] * 4


def test_the_deviation_is_that_of_the_population() -> None:
    # Six buckets of 20 minutes: 25 / 6 over the root of 149 / 36 is 2.048; over that of 149 / 30 it is 1.870.
    assert workshop(spread([0, 2, 0, 2, 1, 6], 20), 20) == [0, 2, 0, 2, 1, 0]
    # 5 instead of 6: 20 / 6 over the root of 104 / 36 is 1.961.
    assert workshop(spread([0, 2, 0, 2, 1, 5], 20), 20) == [0, 2, 0, 2, 1, 5]


# Of four points none has a z-score above the root of 3, 1.73, and none above 1.5 with the deviation of a
# sample; of two, none above 1. Up to 100 Gbit/s, and a counter that was reset.
half_hours = st.lists(
    st.lists(
        st.one_of(
            st.sampled_from([0.0, 1.0, RESET, NAN]),
            st.integers(0, 2**42).map(float),
            st.integers(10**6, 10**6 + 3).map(float),
        ),
        min_size=6,
        max_size=6,
    ),
    min_size=1,
    max_size=12,
)


@examined
@given(half_hours)
def test_the_filter_never_fires_at_30_minutes_and_more(rows: list[list[float]]) -> None:
    samples = np.array(rows)
    assert workshop_sums(samples, 30).tolist() == np.nansum(samples, axis=1).tolist()
    hours = samples[: len(samples) // 2 * 2].reshape(-1, 12)
    if len(hours):
        assert workshop_sums(hours, 60).tolist() == np.nansum(hours, axis=1).tolist()


@pytest.mark.parametrize("minutes", [30, 60])
def test_the_most_extreme_spike_stays_at_30_minutes_and_more(minutes: int) -> None:
    for place in range(8):
        sums = np.zeros(8)
        sums[place] = 1e13
        assert workshop(spread(sums.tolist(), minutes), minutes) == sums.tolist()


# --- gaps, filled up and masked ------------------------------------------------------------------


@pytest.mark.parametrize(("minutes", "erased"), [(5, 4), (10, 2), (15, 1), (20, 1), (30, 0), (60, 0)])
def test_a_gap_filled_up_with_noughts_is_longer_than_it_was_and_a_masked_one_is_not(
    minutes: int, erased: int
) -> None:
    count, full = 120 // minutes, 10.0 * (minutes // 5)
    series = without(port([10] * 96), *range(24, 48))
    # The return of the usual is a step up, of which the filter erases the beginning.
    filled = WORKSHOP.buckets(series, minutes, "UTC").traffic
    assert filled.tolist() == [full] * count + [0.0] * (count + erased) + [full] * (2 * count - erased)
    masked = DEFAULT.buckets(series, minutes, "UTC").traffic
    assert masked.tolist() == same([10.0] * count + [NAN] * count + [10.0] * 2 * count)


def test_a_gap_filled_up_with_noughts_moves_the_scale_and_a_masked_one_does_not() -> None:
    whole = port([10, 20] * 48)
    gap = without(whole, *range(24, 48))
    masked = log_scaler(DEFAULT.buckets(gap, 30, "UTC").traffic)
    assert masked == log_scaler(DEFAULT.buckets(whole, 30, "UTC").traffic) == Scaler("log", 0.075, 1.0)
    filled = standard_scaler(WORKSHOP.buckets(gap, 30, "UTC").traffic)
    # A quarter of what always is 90 is nought: 67.5, and a deviation of 90 times the root of 3/16.
    assert standard_scaler(WORKSHOP.buckets(whole, 30, "UTC").traffic) == Scaler("standard", 90.0, 1.0)
    assert (filled.offset, filled.width) == pytest.approx((67.5, 90 * math.sqrt(3) / 4))
