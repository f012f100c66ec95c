"""Samples of any interval and counters, against the bytes that were put in; from cells to verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.files import UserError
from ports.comparison import iterative_statuses
from ports.judging import silent_series
from ports.preparation import PREPARATIONS, bucket_minutes
from ports.samples import get_port_samples, list_ports
from ports.sampling import FIVE_MINUTES, Sampling, as_sums, cells, find_sampling
from ports.series import Series
from ports.training import TrainingSettings, fit_series
from ports.verdicts import judge, read_from
from tests.support.fuzzing import fuzzed
from tests.support.influx import Database
from tests.support.port_series import DAY, START, samples

NAN = float("nan")
DEFAULT, WORKSHOP = PREPARATIONS["default"], PREPARATIONS["workshop"]
EACH = (1, 5, 10, 15, 30, 60)
NAME = "sw_1_in"


def sampled(traffic: Sequence[float], minutes: int, start: int = START, late: int = 0) -> Series:
    """A sample every so many minutes after `start`, each taken `late` seconds after its time."""
    values = np.array(traffic, dtype=float)
    return Series(NAME, start + late + 60 * minutes * np.arange(1, len(values) + 1), values)


def joined(*parts: Series) -> Series:
    return Series(
        NAME, *(np.concatenate([getattr(part, key) for part in parts]) for key in ("times", "traffic"))
    )


def without(series: Series, *lost: int) -> Series:
    return Series(NAME, np.delete(series.times, lost), np.delete(series.traffic, lost))


def usual(minutes: int, days: int = 31) -> Series:
    """The port of tests/support/port_series.py, read every so many minutes."""
    times, traffic = samples(days)
    if minutes == 1:
        return sampled(np.repeat(traffic / 5, 5), 1)
    count = minutes // 5
    return Series(NAME, times[count - 1 :: count], traffic.reshape(-1, count).sum(axis=1))


def settings_of(minutes: int = 15, preparation: str = "default") -> TrainingSettings:
    return TrainingSettings(("profile",), preparation, minutes, "UTC", 28, None)


# --- cells ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("minutes", EACH)
def test_the_interval_is_found_and_a_gap_is_no_interval(minutes: int) -> None:
    series = sampled(np.arange(200.0) % 7, minutes)
    assert find_sampling(series) == Sampling(minutes)
    rng = np.random.default_rng(minutes)
    lost = [*range(40, 90), *rng.choice(np.arange(100, 200), 20, replace=False)]
    late = Series(NAME, series.times + rng.integers(-8, 9, 200), series.traffic)
    assert find_sampling(without(late, *lost)) == Sampling(minutes)


def test_half_an_hour_fills_six_cells_and_five_samples_of_a_minute_one() -> None:
    first, found = cells(sampled([60, 600, 0, 6, 12, 18, 24], 30), Sampling(30))
    assert first == START // 300
    assert (
        found.tolist() == [10.0] * 6 + [100.0] * 6 + [0.0] * 6 + [1.0] * 6 + [2.0] * 6 + [3.0] * 6 + [4.0] * 6
    )
    first, found = cells(sampled([1, 2, 3, 4, 5, *[7] * 10], 1), Sampling(1))
    assert (first, found.tolist()) == (START // 300, [15.0, 35.0, 35.0])


@pytest.mark.parametrize("minutes", EACH)
@fuzzed
@given(st.data())
def test_the_bytes_of_all_cells_are_those_of_all_samples(minutes: int, data: st.DataObject) -> None:
    traffic = data.draw(st.lists(st.integers(0, 2**40), min_size=12, max_size=80))
    late = [0] + data.draw(st.lists(st.integers(-9, 9), min_size=len(traffic) - 1, max_size=len(traffic) - 1))
    series = sampled(traffic, minutes)
    series = Series(NAME, series.times + np.array(late), series.traffic)
    _, found = cells(series, Sampling(minutes))
    # The last one or two cells may not be whole.
    whole = found[: 300 * len(found) // 300]
    is_whole = late[-1] == 0 and len(traffic) * minutes % 5 == 0
    if is_whole:
        assert np.nansum(whole) == pytest.approx(sum(traffic), rel=1e-9, abs=1e-3)
    assert (found[~np.isnan(found)] >= 0).all()
    assert find_sampling(series).minutes == minutes


@pytest.mark.parametrize(("known", "expected"), [(5, 50.0), (4, 50.0), (3, 50.0), (2, NAN), (0, NAN)])
def test_a_cell_is_known_from_half_of_it_on_and_scaled_up(known: int, expected: float) -> None:
    series = without(sampled([10] * 60, 1), *range(30, 35 - known))
    _, found = cells(series, Sampling(1))
    assert found.tolist() == pytest.approx([50.0] * 6 + [expected] + [50.0] * 5, nan_ok=True)


@pytest.mark.parametrize("minutes", [10, 15, 30, 60])
def test_the_bytes_of_a_gap_are_unknown(minutes: int) -> None:
    series = without(sampled([300.0 * minutes] * 40, minutes), 20)
    _, found = cells(series, Sampling(minutes))
    count = minutes // 5
    assert np.flatnonzero(np.isnan(found)).tolist() == list(range(20 * count, 21 * count))
    assert set(found[~np.isnan(found)]) == {1500.0}


@pytest.mark.parametrize("before", EACH)
@pytest.mark.parametrize("after", EACH)
def test_an_interval_may_change_in_the_middle(before: int, after: int) -> None:
    # A hundred bytes each minute.
    one = sampled([100.0 * before] * 120, before)
    series = joined(one, sampled([100.0 * after] * 120, after, int(one.times[-1])))
    assert find_sampling(series).minutes == after
    for start in (before, after):
        _, found = cells(series, Sampling(start))
        assert found == pytest.approx([500.0] * (24 * (before + after)))
    # In the unit of the model that knows only what was before.
    found = DEFAULT.buckets(series, 60, "UTC", Sampling(before)).traffic
    assert found == pytest.approx([100.0 * before] * len(found))


def test_regularly_missing_samples_of_five_minutes_are_missing() -> None:
    series = without(sampled([100.0] * 300, 5), 100, 102, 104, 106, 108, 200, 203)
    _, found = cells(series, FIVE_MINUTES)
    assert np.flatnonzero(np.isnan(found)).tolist() == [100, 102, 104, 106, 108, 200, 203]


def test_less_often_than_every_hour_is_said() -> None:
    with pytest.raises(UserError) as caught:
        fit_series(sampled(np.arange(400.0) % 11, 120), "profile", settings_of())
    assert str(caught.value) == (
        "sw_1_in: has a sample every 120 minutes; a port must have one every 60 minutes or more often"
    )


# --- buckets -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("least", "interval", "minutes"),
    [
        (15, 1, 15),
        (15, 5, 15),
        (15, 10, 20),
        (15, 15, 15),
        (15, 30, 30),
        (15, 60, 60),
        (5, 10, 10),
        (30, 20, 60),
    ]
    + [(60, 5, 60), (5, 1, 5), (15, 4, 20), (15, 12, 60)],
)
def test_a_bucket_holds_whole_intervals(least: int, interval: int, minutes: int) -> None:
    assert bucket_minutes(least, interval) == minutes


@pytest.mark.parametrize("minutes", EACH)
def test_traffic_is_bytes_of_a_sample_and_the_workshops_of_the_bucket(minutes: int) -> None:
    series = sampled([100.0 * minutes] * (360 // minutes), minutes)
    found = DEFAULT.buckets(series, 60, "UTC", Sampling(minutes)).traffic
    assert found == pytest.approx([100.0 * minutes] * 6)
    assert WORKSHOP.buckets(series, 60, "UTC", Sampling(minutes)).traffic == pytest.approx([6000.0] * 6)


@pytest.mark.parametrize("minutes", EACH)
def test_each_interval_is_learnt_and_a_flood_found(minutes: int) -> None:
    series = usual(minutes, 31)
    settings = replace(settings_of(), until=START + 29 * DAY)
    trained = fit_series(series, "profile", settings)
    assert (trained.sample_minutes, trained.is_counter) == (minutes, False)
    assert trained.minutes == bucket_minutes(15, minutes)
    begin, end = START + 30 * DAY + 36_000, START + 30 * DAY + 50_400
    flooded = np.where((series.times > begin) & (series.times <= end), 4.0, 1.0) * series.traffic
    found = judge(trained, Series(NAME, series.times, flooded), trained.end).after(trained.end)
    inside = (found.times > begin) & (found.times <= end)
    is_found = np.isin(found.statuses, ("anomaly", "alert"))
    assert is_found[inside].all()
    assert not is_found[~inside].any()
    # About three million bytes in five minutes at noon.
    of_noon = found.buckets.traffic[found.times == START + 29 * DAY + 43_200]
    assert of_noon == pytest.approx([3e6 * minutes / 5], rel=0.15)


@pytest.mark.parametrize("after", [1, 30, 60])
def test_an_interval_that_changes_in_service_raises_no_alert(after: int) -> None:
    change, split = START + 30 * DAY, START + 29 * DAY
    before, later = usual(5, 33).between(0, change), usual(after, 33).between(change, START + 33 * DAY)
    series = joined(before, later)
    trained = fit_series(series, "profile", replace(settings_of(), until=split))
    together = judge(trained, series, split).after(split)
    assert (trained.sample_minutes, trained.minutes) == (5, 15)
    assert set(together.statuses) <= {"normal", "anomaly"}
    assert (together.statuses == "anomaly").sum() <= 3
    # Trained each night, it has another unit and other buckets; a verdict is that of the bucket around it.
    nightly = iterative_statuses(series, "profile", settings_of(), split, together)
    assert len(nightly) == len(together.statuses) == 4 * 96
    assert set(nightly) <= {"normal", "anomaly"}


@pytest.mark.parametrize("minutes", EACH)
@pytest.mark.parametrize("is_counter", [False, True], ids=["sums", "counter"])
def test_hour_by_hour_is_as_at_once(minutes: int, is_counter: bool) -> None:
    series = usual(minutes, 31)
    rng = np.random.default_rng(3)
    traffic = np.cumsum(series.traffic) if is_counter else series.traffic
    series = Series(NAME, series.times + rng.integers(0, 9, len(traffic)), traffic)
    late = np.flatnonzero(series.times > START + 26 * DAY)
    series = without(series, *rng.choice(late, len(late) // 12, replace=False))
    trained = fit_series(series, "profile", replace(settings_of(), until=START + 29 * DAY))
    assert trained.is_counter == is_counter
    together = judge(trained, series, trained.end).after(trained.end)
    since, scores = trained.end, []
    for hour in range(1, 49):
        now = trained.end + 3600 * hour + 120
        found = judge(trained, series.between(read_from(trained, since), now), since).after(since)
        scores += found.scored.score.tolist()
        since = int(found.times[-1]) if len(found.times) else since
    assert len(scores) >= 47 * 60 // trained.minutes
    assert scores == pytest.approx(together.scored.score[: len(scores)].tolist(), nan_ok=True, rel=1e-9)
    assert np.isfinite(scores).any()


# --- counters ------------------------------------------------------------------------------------


def test_what_only_rises_is_a_counter_and_what_else_is_none() -> None:
    rng = np.random.default_rng(5)
    rising = np.cumsum(rng.integers(1, 100, 2000)).astype(float)
    reset = np.where(np.arange(2000) >= 700, rising - rising[700], rising)
    mostly_idle = np.cumsum(np.arange(2000) % 30 == 0).astype(float)
    for readings in (rising, reset, mostly_idle, np.where(rng.random(2000) < 0.1, NAN, rising)):
        assert find_sampling(sampled(readings, 5)).is_counter
    growing = rng.lognormal(0, 0.2, 2000) * np.linspace(1, 3, 2000)
    wrapped = rising % 900
    for sums in (usual(5).traffic, growing, mostly_idle % 2, np.zeros(2000), np.full(2000, 7.0), wrapped):
        assert not find_sampling(sampled(sums, 5)).is_counter
    # 49 rises are too few, and 50 with three falls are too many falls.
    assert not find_sampling(sampled(np.arange(50.0), 5)).is_counter
    assert find_sampling(sampled(np.arange(51.0), 5)).is_counter
    assert not find_sampling(sampled([*range(18), *range(18), *range(18), *range(5)], 5)).is_counter


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        # Reset to zero, and wrapped at 100: what was counted in between is unknown.
        ([10, 20, 5, 15], [10, NAN, 10]),
        ([90, 97, 3, 9], [7, NAN, 6]),
        # One reading of zero in a counter that goes on.
        ([10, 20, 0, 30, 45], [10, NAN, NAN, 15]),
        # One is missing: its bytes are halved.
        ([10, 20, None, 40, 45], [10, 10, 10, 5]),
        ([10, 20, NAN, 40, 45], [10, 10, 10, 5]),
        # Two are missing.
        ([10, 20, None, None, 40, 45], [10, NAN, 5]),
        ([10, 20, None, 4, 15], [10, NAN, NAN, 11]),
        ([7], []),
    ],
)
def test_the_bytes_between_readings(readings: list[float | None], expected: list[float]) -> None:
    times = [START + 300 * place for place, reading in enumerate(readings) if reading is not None]
    series = Series(
        NAME, np.array(times), np.array([one for one in readings if one is not None], dtype=float)
    )
    found = as_sums(series, Sampling(5, True))
    assert found.traffic.tolist() == pytest.approx(expected, nan_ok=True)
    assert (np.diff(found.times) > 0).all()


@pytest.mark.parametrize("minutes", EACH)
def test_a_counter_with_resets_is_judged_like_its_sums(minutes: int) -> None:
    sums = usual(minutes, 31)
    counted = np.cumsum(sums.traffic)
    resets = [len(counted) // 7, len(counted) // 2, len(counted) - 5]
    expected = sums.traffic.copy()
    for place in resets:
        counted[place:] -= counted[place]
        expected[place] = NAN
    series, twin = Series(NAME, sums.times, counted), Series(NAME, sums.times, expected)
    settings = replace(settings_of(), until=START + 29 * DAY)
    trained, of_twin = fit_series(series, "profile", settings), fit_series(twin, "profile", settings)
    assert (trained.is_counter, of_twin.is_counter) == (True, False)
    found, of_sums = judge(trained, series, trained.end), judge(of_twin, twin, trained.end)
    assert found.buckets.starts.tolist() == of_sums.buckets.starts.tolist()
    for one, other in (
        (found.buckets.traffic, of_sums.buckets.traffic),
        (found.scored.score, of_sums.scored.score),
    ):
        assert one == pytest.approx(other, nan_ok=True, rel=1e-6)
    assert np.nanmax(found.buckets.traffic) < 2 * np.nanmax(sums.traffic)


# --- silence, and InfluxDB -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("minutes", "age", "is_silent"),
    [
        (5, 7200, False),
        (5, 7201, True),
        (60, 7320, False),
        (60, 9000, False),
        (60, 10_920, True),
        (30, 7320, True),
    ],
)
def test_a_port_is_silent_after_some_samples_of_its_own(minutes: int, age: int, is_silent: bool) -> None:
    found = silent_series({NAME: START}, START + age, {NAME: minutes})
    assert found == (
        {NAME: "sw_1_in: has had no sample since 2023-01-02T00:00:00Z, so it is unknown"} if is_silent else {}
    )


TAGS = {"device": "sw", "port": "1", "direction": "in"}


def store(database: Database, series: Series, extra: str = "") -> None:
    lines = [
        f"port_traffic,device=sw,port=1,direction=in{extra} value={value} {time}"
        for time, value in zip(series.times.tolist(), series.traffic.tolist(), strict=True)
    ]
    database.client.write_points(lines, protocol="line", time_precision="s", batch_size=10_000)


@pytest.mark.parametrize("minutes", [1, 30, 60])
def test_samples_of_any_interval_are_read_from_influxdb(database: Database, minutes: int) -> None:
    series = usual(minutes, 7)
    store(database, series)
    times, traffic = get_port_samples(database.own, TAGS, START, START + 7 * DAY)
    assert find_sampling(Series(NAME, times, traffic)) == Sampling(minutes)
    count = max(minutes // 5, 1)
    expected = np.repeat(samples(7)[1].reshape(-1, count).mean(axis=1), count)
    assert cells(Series(NAME, times, traffic), FIVE_MINUTES)[1] == pytest.approx(expected)


@pytest.mark.parametrize("late", [0, 420, 1800, 3000])
def test_two_series_of_an_hour_are_seen_in_each_others_hours(database: Database, late: int) -> None:
    one, other = sampled([5e6] * 100, 60), sampled([9e6] * 20, 60, START + 40 * 3600, late)
    store(database, one, ",site=a")
    store(database, other, ",site=b")
    times, traffic = get_port_samples(database.own, TAGS, START, START + 101 * 3600)
    is_known = ~np.isnan(traffic)
    assert set(traffic[is_known]) == {5e6}
    # The other one lives for 20 hours, each of which holds a sample of both.
    lost = times[~is_known & (times % 3600 == 0)] - START
    assert len(lost) == 20
    assert (lost.min() // 3600, lost.max() // 3600) in ((41, 60), (42, 61))
    # Both alive, they are a fault of the port.
    ports = list_ports(database.own, START, START + 61 * 3600)
    assert ports[0].fault.startswith("is written by 2 series at once (their 'site': 'a' and 'b')")
