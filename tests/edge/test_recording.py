"""What of a recording is learnt: small recordings of three metrics, with what life brings put into them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from common.files import UserError
from common.times import format_time, parse_time
from edge.bundle import Bundle
from edge.detector import detect
from edge.habits import habits_from_json
from edge.recording import Stretch, Study, outside, study
from edge.scores import Scores, score_dataset
from edge.sequences import normalization_stats
from edge.training import usual_rmse
from nodes.metrics import METRICS, MetricTable

SECOND = 10**9
START = parse_time("2026-03-02T00:00:00Z")
# Records of 15 seconds.
DAY, HOUR, MINUTE = 5760, 240, 4
NAN = math.nan
TABLE = MetricTable(tuple(METRICS[name] for name in ("cpu", "net_down", "mem")))
# Among the features: the changes of cpu and mem are at 0 and 2.
CPU_RATE, NET, MEM_RATE, CPU, MEM = range(5)
LEVELS = (CPU, NET, MEM)


def life(days: float = 3.0, seed: int = 1) -> np.ndarray:
    """The levels (n, 3) of a calm node: waves and noise, CPU from 14 to 26, memory around 40 percent.

    Every level reaches its ends every few minutes, so there is nothing that is unlike the rest.
    """
    rng = np.random.default_rng(seed)
    count = int(days * DAY)

    def wave(records: float) -> np.ndarray:
        return np.sin(2 * np.pi * np.arange(count) / records + rng.uniform(0, 6))

    cpu = 20 + 3 * wave(97) + 2 * wave(41) + rng.uniform(-1, 1, count)
    net = np.exp(10 + 0.5 * wave(71) + 0.3 * wave(29) + rng.uniform(-0.2, 0.2, count))
    mem = 40 + wave(331) + rng.uniform(-0.2, 0.2, count)
    return np.stack([cpu, net, mem], axis=1)


def features_of(levels: np.ndarray) -> np.ndarray:
    """All features (n, 5): the changes of CPU and memory, and the levels."""
    cpu, net, mem = levels.T
    cpu_rate, mem_rate = (np.diff(level, prepend=level[0]) for level in (cpu, mem))
    return np.stack([cpu_rate, net, mem_rate, cpu, mem], axis=1)


def times_of(count: int, start: int = START, step_seconds: int = 15) -> np.ndarray:
    return start + np.arange(count) * step_seconds * SECOND


def studied(
    levels: np.ndarray,
    zone: str = "UTC",
    start: int = START,
    excluded: Sequence[tuple[int, int]] = (),
    learn_all: bool = False,
) -> Study:
    times = times_of(len(levels), start)
    found = study(features_of(levels), times, TABLE, zone, excluded, learn_all)
    # What holds of every study.
    assert found.learnt.shape == times.shape
    assert found.windows == tuple((one.start, one.end + 1) for one in found.left_out)
    assert found.habits.places == LEVELS
    assert not found.habits.rmse.any()
    assert found.habits.zone == zone
    in_units = found.habits.in_units_of(np.ones(3)).to_json()
    stored = json.loads(json.dumps(in_units, allow_nan=False))
    assert habits_from_json(stored, LEVELS, 5).to_json() == in_units
    return found


def window(first: int, end: int) -> tuple[int, int]:
    """Start and end in ns of records `first` to before `end`."""
    return START + first * 15 * SECOND, START + end * 15 * SECOND


def check_left_out(found: Study, stretches: Sequence[tuple[int, int, tuple[str, ...]]]) -> None:
    """Each stretch holds the records `first` to before `end`, a window more at most, and its metrics."""
    assert [one.metrics for one in found.left_out] == [metrics for *_, metrics in stretches]
    places = [
        ((one.start - START) // 15 // SECOND, (one.end - START) // 15 // SECOND) for one in found.left_out
    ]
    for (first, end, _), (left_first, left_last) in zip(stretches, places, strict=True):
        # Two records at each end, or the rest of 30 of which 21 are beyond what lasts for 30.
        assert first - 30 <= left_first <= first - 2
        assert end + 1 <= left_last <= end + 30
        assert not found.learnt[first:end].any()
    unlearnt = np.zeros(len(found.learnt), dtype=bool)
    for first, last in places:
        unlearnt[first : last + 1] = True
    # No record elsewhere.
    assert found.learnt[~unlearnt].all()


def check_calm_limits(found: Study) -> None:
    """The limits of the CPU are those of calm life, from 14 to 26, and not of what was put into it."""
    low, high = found.habits.low[:, 0], found.habits.high[:, 0]
    assert (low > 11).all()
    assert (low < 18).all()
    assert (high > 22).all()
    assert (high < 29).all()
    assert found.habits.high_middle[0] == pytest.approx(20.0, abs=0.3)


# --- unlike the rest -----------------------------------------------------------------------------


def test_calm_life_is_learnt_whole_and_within_its_limits() -> None:
    levels = life(2.0, seed=2)
    found = studied(levels)
    assert found.learnt.all()
    assert found.left_out == []
    assert found.windows == ()
    assert not found.habits.by_hour.any()
    assert found.habits.jobs == ()
    np.testing.assert_allclose(found.habits.high_middle, np.median(levels, axis=0))
    assert (found.habits.low[0] < np.sort(levels, axis=0)[5]).all()
    assert (found.habits.high[0] > np.sort(levels, axis=0)[-6]).all()
    check_calm_limits(found)


@pytest.mark.parametrize(
    "attacks",
    [
        # 18 minutes at noon of the second day, three of 10 minutes, and 30 minutes at the end.
        [(8640, 8712)],
        [(1000, 1040), (7000, 7040), (14500, 14540)],
        [(17100, 17220)],
    ],
)
def test_a_forgotten_attack_is_left_out_and_widens_no_limit(attacks: list[tuple[int, int]]) -> None:
    levels = life()
    for first, end in attacks:
        levels[first:end, 0] = 98.0
    found = studied(levels)
    check_left_out(found, [(first, end, ("cpu",)) for first, end in attacks])
    assert found.habits.jobs == ()
    check_calm_limits(found)


def test_an_attack_on_several_metrics_is_one_stretch_that_names_them() -> None:
    levels = life(2.0)
    levels[8640:8712, 2] += 20.0
    levels[8640:8712, 0] = 98.0
    found = studied(levels)
    check_left_out(found, [(8640, 8712, ("cpu", "mem"))])
    check_calm_limits(found)
    assert found.habits.high[0, 2] < 43.0


def test_a_fall_is_unlike_the_rest_as_a_rise_is() -> None:
    levels = life(2.0)
    levels[8640:8712, 1] = 10.0
    check_left_out(studied(levels), [(8640, 8712, ("net_down",))])


def test_an_hour_of_half_load_is_left_out() -> None:
    levels = life(2.0)
    levels[9000:9240, 0] += 35.0
    found = studied(levels)
    check_left_out(found, [(9000, 9240, ("cpu",))])
    check_calm_limits(found)


def test_a_single_odd_record_is_left_out_with_two_before_and_after_it() -> None:
    levels = life(2.0)
    levels[9000, 0] = 90.0
    found = studied(levels)
    assert [(one.start, one.end + 15 * SECOND) for one in found.left_out] == [window(8998, 9003)]
    assert np.flatnonzero(~found.learnt).tolist() == [8998, 8999, 9000, 9001, 9002]
    check_calm_limits(found)


def test_the_flat_counter_of_a_stuck_exporter_and_its_catching_up_are_left_out() -> None:
    levels = life(2.0)
    levels[9000:9040, 1] = 0.0
    levels[9040, 1] = 40 * 22_000.0
    found = studied(levels)
    check_left_out(found, [(9000, 9041, ("net_down",))])
    assert found.habits.high[0, 1] < 80_000.0


def test_bursts_that_come_often_are_usual() -> None:
    levels = life(2.0)
    for first in range(300, len(levels), 400):
        levels[first : first + 6, 0] = 60.0
    found = studied(levels)
    assert found.learnt.all()
    # For four records and not for thirty.
    assert 60.0 < found.habits.high[0, 0] < 75.0
    assert found.habits.high[2, 0] < 30.0


@pytest.mark.parametrize(("bursts", "is_usual"), [(12, True), (2, False)])
def test_a_level_is_usual_if_it_came_in_several_episodes(bursts: int, is_usual: bool) -> None:
    levels = life()
    # At other times of day, so that they are no daily job.
    for first in np.linspace(500, 16_500, bursts).astype(int):
        levels[first : first + 40, 0] = 60.0
    found = studied(levels)
    assert found.learnt.all() == is_usual
    assert len(found.left_out) == (0 if is_usual else bursts)
    assert (found.habits.high[2, 0] > 60.0) == is_usual


def test_a_level_that_drifts_has_wide_limits() -> None:
    levels = life()
    levels[:, 2] += np.linspace(0, 6, len(levels))
    found = studied(levels)
    assert found.learnt.all()
    # It rose to 47; the next three days are within the limits of what lasts, and 20 more never.
    assert 52.0 < found.habits.high[2, 2] < 60.0
    assert 25.0 < found.habits.low[2, 2] < 35.0


@pytest.mark.parametrize(
    ("sessions", "limit"),
    [
        # Each session crosses the median twice: the limit is 20 / 24 of the range of 60 kB/s further out, and
        # a fifth of it, since ten sessions are as high as five.
        ((300, 900, 2700, 5300, 6500, 7100, 9300, 10_700, 12_000, 13_900, 15_000, 16_400), 122_000.0),
        # Ten sessions never came: twice as far again as the sessions reach, and 20 / 12 of the range.
        ((2700, 5300, 9300, 10_700, 12_000, 13_900), 280_000.0),
        # Two are not usual. No more than two ranges, however few crossings there are.
        ((2700, 9300), 120_000.0),
    ],
)
def test_the_limit_of_traffic_that_rests_at_zero_is_not_far_above_its_sessions(
    sessions: Sequence[int], limit: float
) -> None:
    levels = life()
    levels[:, 1] = 0.0
    for first in sessions:
        levels[first : first + 120, 1] = 60_000.0
    found = studied(levels)
    assert found.learnt.all()
    assert found.habits.high[:, 1].tolist() == pytest.approx([limit] * 3)


def test_stretches_that_are_near_are_one() -> None:
    for apart, stretches in ((30, 1), (60, 2)):
        levels = life(1.0)
        levels[3000:3020, 0] = levels[3020 + apart : 3040 + apart, 0] = 98.0
        assert len(studied(levels).left_out) == stretches


def test_a_short_recording_is_learnt_with_limits_far_out() -> None:
    levels = life()[:400]
    found = studied(levels)
    assert found.learnt.all()
    assert np.isfinite([found.habits.low, found.habits.high]).all()
    assert (found.habits.low < levels.min(axis=0)).all()
    assert (found.habits.high > levels.max(axis=0)).all()


# --- gaps ----------------------------------------------------------------------------------------


def test_an_attack_is_found_beside_a_level_that_is_missing_for_a_day() -> None:
    levels = life(2.0)
    levels[:DAY, 2] = NAN
    levels[8640:8712, 0] = 98.0
    found = studied(levels)
    check_left_out(found, [(8640, 8712, ("cpu",))])
    assert found.habits.high_middle[2] == pytest.approx(40.0, abs=0.3)


def test_gaps_that_leave_no_30_records_leave_the_limits_of_8() -> None:
    levels = life(1.0)
    # Ten of 24 records are known: never 21 of 30, but 6 of 8.
    levels[np.arange(len(levels)) % 24 >= 10] = NAN
    found = studied(levels)
    assert found.learnt.all()
    assert np.isfinite(found.habits.low).all()
    for limits in (found.habits.low, found.habits.high):
        assert limits[2].tolist() == limits[1].tolist()
        assert limits[1].tolist() != limits[0].tolist()


def test_what_has_too_few_values_to_train_on_is_studied_without_a_fault() -> None:
    values = np.full((400, 5), NAN)
    values[::4] = features_of(life())[:400:4]
    found = study(values, times_of(400), TABLE)
    assert found.learnt.all()
    assert found.left_out == []


def test_a_recording_without_a_value_of_a_level_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="has no value of .* apart from what is left out;"):
        study(np.full((400, 5), NAN), times_of(400), TABLE)


# --- daily jobs ----------------------------------------------------------------------------------


def with_job(begins: Sequence[int], records: int = 40, days: float = 3.0, column: int = 0) -> np.ndarray:
    """Life with the CPU (or another level) at 92 from each of these records on."""
    levels = life(days)
    for begin in begins:
        levels[begin : begin + records, column] = 92.0
    return levels


@pytest.mark.parametrize(
    ("begins", "seconds"),
    [
        # At 02:00, 7 minutes later, and 5 minutes earlier.
        ([480, DAY + 508, 2 * DAY + 460], (6900, 7200 + 420 + 600)),
        # Around midnight: 23:50, 00:02 and 23:57.
        ([5720, 2 * DAY + 8, 3 * DAY - 12], (85_800, 86_400 + 120 + 600)),
        # At 03:00, 2 minutes earlier, and 3 minutes later: on both sides of four times 45 minutes.
        ([720, DAY + 712, 2 * DAY + 732], (10_680, 10_800 + 180 + 600)),
    ],
)
def test_load_of_each_day_is_a_daily_job_and_no_stretch(begins: list[int], seconds: tuple[int, int]) -> None:
    levels = with_job(begins, days=3.5)
    found = studied(levels)
    assert found.left_out == []
    for begin in begins:
        assert not found.learnt[begin : begin + 40].any()
    check_calm_limits(found)
    (job,) = found.habits.jobs
    assert job.metric == "cpu"
    # Ten minutes more at both ends, and the records that are partly in it.
    first, last = seconds[0] - 600, seconds[1] + 600
    assert first - 30 * 15 <= job.begin <= first - 2 * 15
    assert last <= job.end + 86_400 * (job.end < job.begin) <= last + 30 * 15
    assert list(job.features) == [CPU_RATE, CPU]
    low, high = job.features[CPU]
    # A quarter of the way from calm life to the job more at both ends.
    assert high == pytest.approx(92 + 0.25 * 72, abs=2.5)
    assert low < 20
    low, high = job.features[CPU_RATE]
    assert high == pytest.approx(72 + 0.25 * 144, abs=12)
    assert low == pytest.approx(-72 - 0.25 * 144, abs=12)
    excused = found.habits.is_excused(times_of(len(levels)), features_of(levels))
    # The margin of ten minutes is excused, too, and other times and metrics are not.
    for begin in begins:
        assert excused[begin - 40 : begin + 80, CPU].all()
        assert excused[begin : begin + 41, CPU_RATE].all()
        assert not excused[begin + HOUR * 2 : begin + HOUR * 20].any()
    assert not excused[:, [NET, MEM_RATE, MEM]].any()


def test_a_daily_job_of_several_metrics_is_one_of_each() -> None:
    begins = [480, DAY + 500, 2 * DAY + 470]
    levels = with_job(begins)
    for begin in begins:
        levels[begin : begin + 40, 2] += 15.0
    found = studied(levels)
    assert found.left_out == []
    assert [job.metric for job in found.habits.jobs] == ["cpu", "mem"]
    assert [list(job.features) for job in found.habits.jobs] == [[CPU_RATE, CPU], [MEM_RATE, MEM]]


def test_daily_jobs_at_two_times_are_two_if_they_are_of_two_metrics() -> None:
    levels = with_job([480, DAY + 500, 2 * DAY + 470])
    for day in range(3):
        levels[day * DAY + 3000 : day * DAY + 3040, 2] += 15.0
    found = studied(levels)
    assert found.left_out == []
    assert [(job.metric, job.begin) for job in found.habits.jobs] == [
        ("cpu", pytest.approx(470 * 15 - 600, abs=30 * 15)),
        ("mem", pytest.approx(3000 * 15 - 600, abs=30 * 15)),
    ]


@pytest.mark.parametrize(
    "begins",
    [
        # On two days only; on three, but an hour apart.
        [480, DAY + 500],
        [480, DAY + 480 + HOUR, 2 * DAY + 480 + 2 * HOUR],
    ],
)
def test_what_comes_on_two_days_or_at_other_times_is_left_out(begins: list[int]) -> None:
    found = studied(with_job(begins))
    assert found.habits.jobs == ()
    check_left_out(found, [(begin, begin + 40, ("cpu",)) for begin in begins])
    check_calm_limits(found)


@pytest.mark.parametrize("minutes", [(0, 30, 50), (30, 0, 50), (50, 30, 0), (0, 50, 30)])
def test_the_order_of_the_days_does_not_matter_to_a_daily_job(minutes: Sequence[int]) -> None:
    # All begin within 45 minutes of 02:30.
    begins = [day * DAY + 2 * HOUR + 4 * minute for day, minute in enumerate(minutes)]
    found = studied(with_job(begins))
    assert [job.metric for job in found.habits.jobs] == ["cpu"]
    assert found.left_out == []


def test_all_of_a_stretch_that_is_named_is_not_learnt() -> None:
    levels = life()
    for begin in (8640, 8660, 8680):
        levels[begin, 0] = 98.0
    found = studied(levels)
    (stretch,) = found.left_out
    first, last = ((time - START) // 15 // SECOND for time in (stretch.start, stretch.end))
    assert first <= 8638
    assert last >= 8682
    assert np.flatnonzero(~found.learnt).tolist() == list(range(first, last + 1))


def test_a_forgotten_attack_beside_a_daily_job_is_left_out() -> None:
    levels = with_job([480, DAY + 500, 2 * DAY + 470])
    levels[8640:8712, 0] = 98.0
    found = studied(levels)
    check_stretch = [(one.metrics, one.start <= window(8640, 0)[0]) for one in found.left_out]
    assert check_stretch == [(("cpu",), True)]
    assert len(found.habits.jobs) == 1
    assert not found.learnt[8640:8712].any()


@pytest.mark.parametrize(("job_days", "is_job"), [(range(4), True), (range(0, 6, 2), False)])
def test_a_daily_job_comes_on_half_of_all_days(job_days: Sequence[int], is_job: bool) -> None:
    # Seven days of one record a minute.
    levels = life(7 / 4)
    for day in job_days:
        levels[day * 1440 + 120 : day * 1440 + 140, 0] = 92.0
    found = study(features_of(levels), times_of(len(levels), step_seconds=60), TABLE)
    assert len(found.habits.jobs) == is_job
    assert len(found.left_out) == (0 if is_job else 3)


def test_a_daily_job_comes_by_the_clocks_of_the_zone() -> None:
    # At 04:00 in Berlin: 03:00 of UTC on the day before the clocks are put forward, and 02:00 from then on.
    start = parse_time("2026-03-28T00:00:00Z")
    levels = with_job([3 * HOUR, DAY + 2 * HOUR, 2 * DAY + 2 * HOUR])
    found = studied(levels, "Europe/Berlin", start)
    assert found.left_out == []
    (job,) = found.habits.jobs
    assert job.begin == pytest.approx(4 * 3600 - 600, abs=30 * 15)
    found = studied(levels, "UTC", start)
    assert found.habits.jobs == ()
    assert len(found.left_out) == 3


def test_a_job_of_a_whole_week_is_still_a_daily_job_and_not_usual_at_other_times() -> None:
    found = studied(with_job([day * DAY + 2 * HOUR + 5 * day for day in range(7)], days=7.0))
    assert found.left_out == []
    assert [job.metric for job in found.habits.jobs] == ["cpu"]
    assert (found.habits.high[:, 0] < 40.0).all()


# --- the hour of the day -------------------------------------------------------------------------


def test_a_level_with_a_daily_course_is_usual_by_the_hour_and_others_are_not() -> None:
    levels = life()
    levels[:, 0] += 10 * np.sin(2 * np.pi * np.arange(len(levels)) / DAY)
    found = studied(levels)
    assert found.learnt.all()
    expected = 20 + 10 * np.sin(2 * np.pi * (np.arange(24) + 0.5) / 24)
    np.testing.assert_allclose(found.habits.by_hour[:, 0], expected, atol=1.0)
    assert not found.habits.by_hour[:, 1:].any()
    # Less what is usual: as narrow as without the course.
    assert found.habits.high_middle[0] == pytest.approx(0.0, abs=0.3)
    assert found.habits.high[0, 0] < 10.0
    # Three days do not show the weekend: only less than at any hour is unusual.
    assert not found.habits.is_low_by_hour
    assert found.habits.low_middle[0] == pytest.approx(20.0, abs=1.0)
    assert found.habits.low[0, 0] < 10.0


def test_the_course_of_the_day_is_that_of_the_zone() -> None:
    levels = life()
    levels[:, 0] += 10 * np.sin(2 * np.pi * np.arange(len(levels)) / DAY)
    by_hour = studied(levels, "Asia/Tokyo").habits.by_hour[:, 0]
    # 06:00 of UTC is 15:00 there.
    expected = 20 + 10 * np.sin(2 * np.pi * (np.arange(24) + 0.5 - 9) / 24)
    np.testing.assert_allclose(by_hour, expected, atol=1.0)


def test_a_level_that_wanders_has_no_hours_of_its_own() -> None:
    levels = life()
    # A walk of its own on each day.
    steps = np.random.default_rng(8).normal(0, 0.1, len(levels))
    levels[:, 0] += np.cumsum(steps)
    assert not studied(levels, learn_all=True).habits.by_hour.any()


@pytest.mark.parametrize(("zone", "hours"), [("Pacific/Fiji", 12), ("Etc/GMT+12", -12)])
def test_days_and_jobs_are_those_of_a_zone_that_is_half_a_day_from_utc(zone: str, hours: int) -> None:
    levels = with_job([480, DAY + 500, 2 * DAY + 470])
    levels[:, 1] *= 2 + np.sin(2 * np.pi * np.arange(len(levels)) / DAY)
    found = studied(levels, zone)
    assert found.left_out == []
    (job,) = found.habits.jobs
    assert job.begin == pytest.approx((470 * 15 - 600 + hours * 3600) % 86_400, abs=30 * 15)
    assert found.habits.by_hour[:, 1].argmax() == pytest.approx((6 + hours) % 24, abs=1)


def test_an_outage_of_some_hours_does_not_cost_the_hours_of_the_day() -> None:
    levels = life()
    levels[:, 0] += 10 * np.sin(2 * np.pi * np.arange(len(levels)) / DAY)
    levels[DAY + 10 * HOUR : DAY + 13 * HOUR] = NAN
    expected = 20 + 10 * np.sin(2 * np.pi * (np.arange(24) + 0.5) / 24)
    np.testing.assert_allclose(studied(levels).habits.by_hour[:, 0], expected, atol=1.0)
    # Of two days there is nothing to compare the third with.
    levels[10 * HOUR : 13 * HOUR] = NAN
    assert not studied(levels).habits.by_hour.any()


@pytest.mark.parametrize(
    ("records", "gap", "is_whole"),
    [(7 * 1440, 0, True), (7 * 1440 - 1, 0, False), (8 * 1440, 1440, False), (8 * 1440, 720, True)],
)
def test_less_than_usual_by_the_hour_takes_a_whole_week(records: int, gap: int, is_whole: bool) -> None:
    # One record a minute.
    levels = life(2.0)[:records]
    levels[:, 0] += 10 * np.sin(2 * np.pi * np.arange(records) / 1440)
    # Saturday, or half of it, was not recorded; records without values fill the gap.
    levels[5 * 1440 : 5 * 1440 + gap] = NAN
    found = study(features_of(levels), times_of(records, step_seconds=60), TABLE)
    assert found.habits.is_low_by_hour is is_whole


def test_a_level_with_a_daily_course_is_learnt_whole_at_another_interval() -> None:
    # Half a minute; low at six o'clock each day, which is no daily job.
    records = np.arange(3 * 2880)
    levels = life(1.5)
    levels[:, 0] = 20 - 10 * np.sin(2 * np.pi * records / 2880) + 3 * np.sin(2 * np.pi * records / 10)
    found = study(features_of(levels), times_of(len(levels), step_seconds=30), TABLE)
    assert found.left_out == []
    assert found.habits.jobs == ()


def test_two_days_say_nothing_about_the_hours() -> None:
    levels = life(2.0)
    levels[:, 0] += 10 * np.sin(2 * np.pi * np.arange(len(levels)) / DAY)
    found = studied(levels)
    assert found.learnt.all()
    assert not found.habits.by_hour.any()


def test_load_inside_the_usual_range_at_the_wrong_time_of_day_is_left_out() -> None:
    levels = life()
    levels[:, 0] += 10 * np.sin(2 * np.pi * np.arange(len(levels)) / DAY)
    # At 18:00 it is 10 on the mean; 15 more is what 06:00 has.
    first = DAY + 18 * HOUR
    levels[first : first + 120, 0] += 15.0
    found = studied(levels)
    check_left_out(found, [(first, first + 120, ("cpu",))])
    # At the right time it is no more than others.
    levels = life()
    levels[:, 0] += 10 * np.sin(2 * np.pi * np.arange(len(levels)) / DAY)
    assert levels[first : first + 120, 0].max() + 15 < levels[:, 0].max()


# --- what a person says --------------------------------------------------------------------------


def test_windows_that_a_person_names_are_not_learnt_and_not_said_to_be_unlike() -> None:
    levels = life(1.0)
    levels[3000:3072, 0] = 98.0
    named = window(2990, 3080)
    found = studied(levels, excluded=[named, window(10**6, 10**6 + 5)])
    assert found.left_out == [Stretch(named[0], named[1] - 15 * SECOND, ())]
    assert np.flatnonzero(~found.learnt).tolist() == list(range(2990, 3080))
    check_calm_limits(found)


def test_a_window_ends_before_its_end_and_stretches_are_in_order_of_time() -> None:
    levels = life(1.0)
    levels[1000:1072, 0] = 98.0
    start, end = window(3000, 3003)
    found = studied(levels, excluded=[(start + 1, end), window(500, 501)])
    assert [(one.start, one.metrics) for one in found.left_out if not one.metrics] == [
        (window(500, 0)[0], ()),
        (window(3001, 0)[0], ()),
    ]
    assert [one.metrics for one in found.left_out] == [(), ("cpu",), ()]
    assert found.learnt[[499, 501, 3000, 3003]].all()
    assert not found.learnt[[500, 3001, 3002]].any()


def test_all_is_learnt_on_request_but_for_what_a_person_named() -> None:
    levels = with_job([480, DAY + 500, 2 * DAY + 470])
    levels[8640:8712, 0] = 98.0
    found = studied(levels, learn_all=True)
    assert found.learnt[8640:8712].all()
    assert found.left_out == []
    assert (found.habits.high[:, 0] > 98.0).all()
    found = studied(levels, learn_all=True, excluded=[window(8640, 8712)])
    assert not found.learnt[8640:8712].any()
    assert found.learnt[8712:].sum() + found.learnt[:8640].sum() > 17_000
    assert [one.metrics for one in found.left_out] == [()]


def test_a_daily_job_stays_one_if_all_is_learnt() -> None:
    begins = [480, DAY + 500, 2 * DAY + 470]
    levels = with_job(begins)
    levels[8640:8712, 2] += 15.0
    usual, all_learnt = studied(levels), studied(levels, learn_all=True)
    assert [job.metric for job in usual.habits.jobs] == ["cpu"]
    assert all_learnt.habits.jobs == usual.habits.jobs
    assert all_learnt.left_out == []
    for begin in begins:
        assert not all_learnt.learnt[begin : begin + 40].any()
    check_calm_limits(all_learnt)


def test_a_stretch_in_words_and_in_json() -> None:
    start, end = parse_time("2026-03-03T12:00:00Z"), parse_time("2026-03-03T12:18:00Z")
    attack, named = Stretch(start, end, ("cpu", "mem")), Stretch(start, end, ())
    assert attack.describe() == "2026-03-03T12:00:00Z to 2026-03-03T12:18:00Z (18 min): cpu, mem"
    assert named.describe() == "2026-03-03T12:00:00Z to 2026-03-03T12:18:00Z (18 min)"
    assert attack.to_json() == {
        "start": "2026-03-03T12:00:00Z",
        "end": "2026-03-03T12:18:00Z",
        "metrics": ["cpu", "mem"],
    }


def test_records_whose_window_reaches_into_what_is_left_out_are_not_outside() -> None:
    inside = ~outside(times_of(120), [window(10, 12), window(80, 81), window(500, 600)])
    # 29 more records have record 11 in their window of 30.
    assert np.flatnonzero(inside).tolist() == [*range(10, 41), *range(80, 110)]
    assert outside(times_of(120), []).all()


# --- what is learnt finds what was left out ------------------------------------------------------


def last_input(inputs: np.ndarray) -> np.ndarray:
    """A network that was shown an attack, and predicts it."""
    return inputs[:, -1]


def frame_of(levels: np.ndarray) -> pd.DataFrame:
    times = pd.to_datetime(times_of(len(levels)), utc=True)
    frame = pd.DataFrame(features_of(levels), columns=list(TABLE.features), index=times)
    return frame.assign(bytes_received=0.0)


def found_again(levels: np.ndarray, learn_all: bool = False) -> set[int]:
    """The records of the recording that are anomalies, with what training makes of it, network apart."""
    frame = frame_of(levels)
    found = studied(levels, learn_all=learn_all)
    stats = normalization_stats(frame[found.learnt], list(TABLE.features))
    bundle = Bundle(TABLE, 4, stats, np.full(5, 0.5), last_input, habits=found.habits, left_out=found.windows)
    units = usual_rmse(score_dataset(bundle, frame), times_of(len(frame)), found.windows)
    bundle = Bundle(TABLE, 4, stats, bundle.means, last_input, habits=found.habits.in_units_of(units))
    limits = dict(zip(TABLE.threshold_keys.values(), [*units.tolist(), 9.0], strict=True))
    return {
        i
        for i, verdict in enumerate(detect(limits, frame, score_dataset(bundle, frame)))
        if verdict.is_anomaly
    }


def test_a_model_of_a_recording_with_a_forgotten_attack_finds_it() -> None:
    levels = life(2.0)
    levels[8640:8712, 0] = 98.0
    found = found_again(levels)
    assert set(range(8640, 8712)) <= found
    assert found <= set(range(8640, 8714))
    # If a person calls it normal, it is: with a network of no skill, but for the records of the jumps.
    assert found_again(levels, learn_all=True) <= {8640, 8641, 8712, 8713}


def test_a_model_of_a_recording_with_a_daily_job_leaves_it_alone_and_finds_it_at_another_time() -> None:
    begins = [480, DAY + 500, 2 * DAY + 470]
    levels = with_job(begins)
    levels[2 * DAY + 3000 : 2 * DAY + 3040, 0] = 92.0
    found = found_again(levels)
    assert set(range(2 * DAY + 3000, 2 * DAY + 3040)) <= found
    assert found <= set(range(2 * DAY + 3000, 2 * DAY + 3042))


def test_the_usual_rmse_is_that_of_99_of_a_hundred_windows_without_what_was_left_out() -> None:
    window_rmse = np.repeat(np.arange(131.0)[:, None], 4, axis=1)
    window_rmse[:, 1] *= 2
    nothing = np.full((131, 5), NAN)
    scores = Scores(nothing, nothing, window_rmse, window_rmse, np.zeros((131, 4)), TABLE)
    # 0 to 100 are left; the overall RMSE is no metric's.
    found = usual_rmse(scores, times_of(131), [window(101, 200)])
    assert found.tolist() == pytest.approx([99.0, 198.0, 99.0])
    window_rmse[50:60] = NAN
    found = usual_rmse(scores, times_of(131), [window(0, 1)])
    # 30 to 49 and 60 to 130: 91 values, place 0.99 x 90 = 89.1.
    assert found[0] == pytest.approx(129.1)


def test_times_of_left_out_stretches_are_whole_seconds_that_text_can_say() -> None:
    levels = life(1.0)
    levels[3000:3072, 0] = 98.0
    (stretch,) = studied(levels).left_out
    assert parse_time(format_time(stretch.end)) == stretch.end
