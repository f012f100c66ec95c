"""The level that follows: every step by hand, and the same from wherever following began."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ports.levels import (
    DRIFT_HOURS,
    DRIFT_MINUTES,
    ENDED,
    LEVEL_MINUTES,
    MEMORY_AGES,
    NEWEST_WEIGHT,
    RETURN_MINUTES,
    Followed,
    Memory,
    follow,
)
from ports.verdicts import LEAD_MINUTES
from ports.weeks import DAY_SHARE
from tests.support.fuzzing import fuzzed

# Half-hourly, so that ages of 1 to 16 buckets fit into a day.
MINUTES = 30
DAY, DRIFT, LEAD = LEVEL_MINUTES // MINUTES, DRIFT_MINUTES // MINUTES, LEAD_MINUTES // MINUTES
HOUR = 60 // MINUTES
FORGETFUL = Memory(np.zeros(5), np.ones(5))
NAN = math.nan


def followed(values: list[float], memory: Memory = FORGETFUL, limit: float = 1.0) -> Followed:
    bounds = np.full(len(values), limit)
    return follow(np.array(values, dtype=float), -bounds, bounds, memory, MINUTES)


# --- the level -----------------------------------------------------------------------------------


def test_the_first_day_is_unknown_and_its_median_is_the_level() -> None:
    day = [0.3] * 20 + [0.5] * 20 + [9.0] * 8
    found = followed([*day, 0.6, 0.6])
    for part in (found.level, found.expected, found.wider):
        assert np.isnan(part[:DAY]).all()
        assert not np.isnan(part[DAY:]).any()
    # The 24th and the 25th of 48 are both 0.5; then one of 0.3 has made way for one of 0.6.
    assert found.level[DAY:].tolist() == [0.5, 0.5]
    assert not found.is_anomalous.any()


def test_the_level_of_an_even_number_lies_between_the_two_in_the_middle() -> None:
    found = followed([0.0] * 24 + [0.4] * 24 + [0.2, 0.2])
    # Then 23 of 0.0, one of 0.2 and 24 of 0.4.
    assert found.level[DAY:].tolist() == pytest.approx([0.2, 0.3])


def test_the_level_is_the_median_of_the_ordinary_values_of_the_day_before() -> None:
    rng = np.random.default_rng(3)
    values = 0.2 * rng.standard_normal(6 * DAY)
    values[rng.random(len(values)) < 0.1] = NAN
    values[rng.random(len(values)) < 0.05] = 5.0
    found = followed(values.tolist())
    assert found.is_anomalous[DAY:].sum() == (values[DAY:] == 5.0).sum() > 5
    # What is anomalous on the first day is not known to be, and counts.
    for index in range(DAY, len(values)):
        before = range(index - DAY, index)
        ordinary = [values[n] for n in before if not math.isnan(values[n]) and not found.is_anomalous[n]]
        assert found.level[index] == pytest.approx(statistics.median(ordinary)), index


@pytest.mark.parametrize("count", [0, 1, DAY - 1, DAY])
def test_of_less_than_a_day_nothing_is_known(count: int) -> None:
    found = followed([0.3] * count)
    assert len(found.level) == len(found.is_anomalous) == count
    assert np.isnan(found.expected).all()
    assert not found.is_anomalous.any()


def test_a_day_that_begins_with_a_gap_is_known_once_enough_of_it_is() -> None:
    enough = int(DAY_SHARE * DAY)
    found = followed([NAN] * (DAY + 5) + [3.0] * (enough + 2))
    assert np.isnan(found.expected[: DAY + 5 + enough]).all()
    assert found.expected[DAY + 5 + enough :].tolist() == [3.0, 3.0]
    assert not found.is_anomalous.any()


@pytest.mark.parametrize("days", [1, 2, 5])
def test_after_a_gap_the_level_is_the_one_of_before(days: int) -> None:
    found = followed([3.0] * (2 * DAY) + [NAN] * (days * DAY) + [3.1] * DAY)
    assert not found.is_anomalous.any()
    assert not np.isnan(found.level[DAY:]).any()
    back = (2 + days) * DAY
    enough = int(DAY_SHARE * DAY)
    assert found.level[back : back + enough].tolist() == [3.0] * enough
    assert found.level[back + enough] == 3.1


# --- what is left of a deviation -----------------------------------------------------------------

MEMORY = Memory(np.array([0.8, 0.6, 0.4, 0.2, 0.1]), np.array([1.0, 1.1, 1.2, 1.4, 1.8]))
LEFT = dict(zip(MEMORY_AGES, MEMORY.left.tolist(), strict=True))


def test_what_is_left_is_interpolated_over_the_logarithm_of_the_age() -> None:
    left = MEMORY.of_ages(MEMORY.left)
    assert len(left) == MEMORY_AGES[-1] + 1
    assert [left[age] for age in MEMORY_AGES] == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.1])
    assert left[3] == pytest.approx(0.6 - 0.2 * math.log2(1.5))
    assert left[12] == pytest.approx(0.2 - 0.1 * math.log2(1.5))


def test_a_deviation_is_left_by_its_age_and_not_at_all_after_the_last() -> None:
    found = followed([0.0] * DAY + [0.5] + [NAN] * (MEMORY_AGES[-1] + 1), MEMORY)
    after = found.expected[DAY + 1 :].tolist()
    # A day of 0.0 and one of 0.5: the level stays at 0.
    assert [after[age - 1] for age in MEMORY_AGES] == pytest.approx([0.5 * LEFT[age] for age in MEMORY_AGES])
    assert after[2] == pytest.approx(0.5 * (0.6 - 0.2 * math.log2(1.5)))
    assert after[MEMORY_AGES[-1]] == 0.0
    assert np.isnan(found.expected).sum() == DAY


def test_limits_widen_with_the_age_of_the_newest_ordinary_value() -> None:
    found = followed([0.0] * DAY + [0.0] + [NAN] * 17, MEMORY)
    # Before the first value that is judged none counts as new.
    assert found.wider[DAY] == 1.8
    wider = found.wider[DAY + 1 :].tolist()
    assert [wider[age - 1] for age in MEMORY_AGES] == pytest.approx([1.0, 1.1, 1.2, 1.4, 1.8])
    assert wider[16] == 1.8


def test_a_wider_limit_accepts_more() -> None:
    gap = [NAN] * 7
    for value, is_anomalous in ((1.39, False), (1.41, True), (-1.39, False), (-1.41, True)):
        found = followed([0.0] * (DAY + 1) + gap + [value], MEMORY)
        assert found.is_anomalous[-1] == is_anomalous, value


def test_each_side_has_its_own_limit() -> None:
    for value, is_anomalous in ((2.9, False), (3.1, True), (-0.4, False), (-0.6, True)):
        values = np.array([0.0] * (DAY + 1) + [value])
        found = follow(values, np.full(DAY + 2, -0.5), np.full(DAY + 2, 3.0), FORGETFUL, MINUTES)
        assert found.is_anomalous[-1] == is_anomalous, value


def test_a_limit_belongs_to_its_bucket() -> None:
    values = np.array([0.0] * DAY + [1.5, 1.5, 1.5])
    bounds = np.array([1.0] * DAY + [2.0, 1.0, 2.0])
    found = follow(values, -bounds, bounds, FORGETFUL, MINUTES)
    # The last one is within its limit, but not within ENDED of it.
    assert found.is_anomalous[DAY:].tolist() == [False, True, True]


def test_the_newest_values_in_a_row_are_averaged() -> None:
    found = followed([0.0] * DAY + [0.3, 0.6, NAN, 0.3, 0.3], MEMORY)
    first = 0.3
    second = first + NEWEST_WEIGHT * (0.6 - first)
    # After a gap nothing of before is averaged in.
    third = 0.3
    assert found.expected[DAY:].tolist() == pytest.approx(
        [0.0, LEFT[1] * first, LEFT[1] * second, LEFT[2] * second, LEFT[1] * third]
    )
    assert second == pytest.approx(0.5)


# --- anomalies -----------------------------------------------------------------------------------


def test_an_anomaly_counts_for_nothing() -> None:
    found = followed([0.0] * DAY + [0.3, 5.0, -5.0, 5.0, 0.2, 0.2], MEMORY)
    assert found.is_anomalous[DAY:].tolist() == [False, True, True, True, False, False]
    expected = [0.0, *(0.3 * share for share in MEMORY.of_ages(MEMORY.left)[1:5]), LEFT[1] * 0.2]
    assert found.expected[DAY:].tolist() == pytest.approx(expected)


def test_an_anomaly_has_ended_when_a_value_is_well_within_the_limit() -> None:
    near, nearer = ENDED + 0.05, ENDED - 0.05
    found = followed([0.0] * DAY + [near, 1.05, near, near, nearer, near])
    # Once it has ended, the whole limit counts again.
    assert found.is_anomalous[DAY:].tolist() == [False, True, True, True, False, False]


def test_an_unknown_value_does_not_end_an_anomaly() -> None:
    found = followed([0.0] * DAY + [2.0, NAN, ENDED + 0.05])
    assert found.is_anomalous[DAY:].tolist() == [True, False, True]


@pytest.mark.parametrize("hours", range(1, 12))
@pytest.mark.parametrize("flood", [4.0, -4.0])
def test_a_flood_of_hours_is_anomalous_throughout_and_moves_nothing(hours: int, flood: float) -> None:
    rng = np.random.default_rng(hours)
    values = 0.1 * rng.standard_normal(5 * DAY)
    start, end = 2 * DAY + 7, 2 * DAY + 7 + hours * HOUR
    flooded = values.copy()
    flooded[start:end] += flood
    found, without = (followed(one.tolist(), MEMORY) for one in (flooded, values))
    assert found.is_anomalous.nonzero()[0].tolist() == list(range(start, end))
    # A median of 48 values that lie within 0.3 of zero.
    assert np.abs(found.expected - without.expected)[end:].max() < 0.3
    # A day after its end nothing of it is left.
    np.testing.assert_array_equal(found.level[end + DAY :], without.level[end + DAY :])


def test_what_lasts_longer_is_the_new_level() -> None:
    found = followed([0.0] * DAY + [3.0] * (2 * DAY))
    drifted = DAY + DRIFT - 1
    assert found.is_anomalous.nonzero()[0].tolist() == list(range(DAY, drifted))
    # The value that completes it was still judged by the old level, and the next one by the new one.
    assert found.level[drifted] == 0.0
    assert found.level[drifted + 1 :].tolist() == [3.0] * (len(found.level) - drifted - 1)


@pytest.mark.parametrize("hours", DRIFT_HOURS)
def test_how_long_it_takes_can_be_chosen(hours: int) -> None:
    values = np.array([0.0] * DAY + [3.0] * DAY + [1.5])
    bounds = np.ones(len(values))
    found = follow(values, -bounds, bounds, FORGETFUL, MINUTES, drift_minutes=60 * hours)
    drifted = DAY + hours * HOUR - 1
    assert found.is_anomalous.nonzero()[0].tolist() == [*range(DAY, drifted), 2 * DAY]
    # The value of that moment, and how many values before the first one was.
    assert found.new_levels == ((drifted, hours * HOUR - 1),)
    assert found.level[drifted + 1 :].tolist() == [3.0] * (2 * DAY - drifted)


@pytest.mark.parametrize("hours", [12, 14, 24, 58])
def test_after_two_values_at_the_level_of_before_a_port_is_back_at_it(hours: int) -> None:
    back = DAY + hours * HOUR
    found = followed([0.0] * DAY + [3.0] * hours * HOUR + [0.1, 0.3, 0.0, 0.0] + [0.0] * DAY, MEMORY)
    # The value that completes the new level was still judged by the old one.
    assert found.is_anomalous.nonzero()[0].tolist() == [*range(DAY, DAY + DRIFT - 1), back]
    assert found.new_levels == ((DAY + DRIFT - 1, DRIFT - 1),)
    assert found.level[DAY + DRIFT : back + 1].tolist() == [3.0] * (back + 1 - DAY - DRIFT)
    assert found.level[back + 1 :].tolist() == [0.0] * (DAY + 3)
    # Nothing is left of what was at the new level; then all of 0.3 is, and a third of it.
    assert found.expected[back + 1 : back + 4].tolist() == pytest.approx([0.0, LEFT[1] * 0.3, LEFT[1] * 0.1])
    assert found.wider[back + 1 : back + 3].tolist() == [MEMORY.wider[-1], MEMORY.wider[0]]


@pytest.mark.parametrize(("buckets", "is_back"), [(-2, True), (-1, False)])
def test_a_return_is_ordinary_for_so_long_and_an_anomaly_later(buckets: int, is_back: bool) -> None:
    returns = RETURN_MINUTES // MINUTES + buckets
    found = followed([0.0] * DAY + [3.0] * (DRIFT - 1 + returns) + [0.0] * 4)
    back = DAY + DRIFT - 1 + returns
    assert found.is_anomalous[back:].tolist() == [True] + [not is_back] * 3
    assert found.level[back:].tolist() == [3.0] + [0.0 if is_back else 3.0] * 3


@pytest.mark.parametrize(
    ("value", "is_back"), [(1.39, False), (1.01, False), (0.99, True), (-0.99, True), (-1.01, False)]
)
def test_what_is_not_at_the_level_of_before_is_no_return(value: float, is_back: bool) -> None:
    found = followed([0.0] * DAY + [3.0] * (DRIFT + 2) + [value, value, 3.0])
    assert found.is_anomalous[-3:].tolist() == [True, not is_back, is_back]
    # The level at the last value, once the second one was judged.
    assert found.level[-1] == (0.0 if is_back else 3.0)


def test_one_value_at_the_level_of_before_is_no_return() -> None:
    found = followed([0.0] * DAY + [3.0] * (DRIFT + 2) + [0.0, 3.0] * 3)
    assert found.is_anomalous[-6:].tolist() == [True, False] * 3
    assert found.level[-6:].tolist() == [3.0] * 6


def test_an_anomaly_at_the_new_level_may_end_with_a_return() -> None:
    found = followed([0.0] * DAY + [3.0] * DRIFT + [7.0] * 5 + [0.0, 0.0, 0.0])
    assert found.is_anomalous[DAY + DRIFT :].tolist() == [True] * 6 + [False] * 2
    assert found.level[-2:].tolist() == [0.0, 0.0]


def test_a_port_returns_once() -> None:
    found = followed([0.0] * DAY + [3.0] * DRIFT + [0.0] * 4 + [3.0] * (DRIFT - 1) + [0.0])
    # The level that it left again is not one to return to.
    after = [True] + [False] * 3 + [True] * (DRIFT - 1) + [False]
    assert found.is_anomalous[DAY + DRIFT :].tolist() == after
    assert found.new_levels == ((DAY + DRIFT - 1, DRIFT - 1),)


@pytest.mark.parametrize("room", [2.0, -2.0])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_return_may_be_anywhere_in_the_room_of_a_special_day(room: float, share: float) -> None:
    values = np.array([0.0] * DAY + [5.0] * DRIFT + [share * room, share * room, 0.0])
    rooms = np.array([0.0] * (DAY + DRIFT) + [room, room, 0.0])
    bounds = np.ones(len(values))
    found = follow(values, -bounds, bounds, FORGETFUL, MINUTES, room=rooms)
    assert found.is_anomalous[-3:].tolist() == [True, False, False]
    assert found.level[-2:].tolist() == found.expected[-2:].tolist() == [0.0, 0.0]


def test_of_the_old_level_nothing_is_left_at_the_new_one() -> None:
    found = followed([0.0] * DAY + [0.5] + [3.0] * (DRIFT + 2), MEMORY)
    # Drifting takes longer than the last of MEMORY_AGES; the value of before is not the newest any more.
    assert found.expected[DAY + 1 + DRIFT :].tolist() == [3.0, 3.0]
    assert found.wider[DAY + 1 + DRIFT] == MEMORY.wider[0]


def test_only_an_anomaly_without_a_break_becomes_the_level() -> None:
    almost = [3.0] * (DRIFT - 1) + [0.0]
    found = followed([0.0] * DAY + almost * 6)
    assert (
        found.is_anomalous[DAY:].tolist()
        == [True] * (DRIFT - 1) + [False] + ([True] * (DRIFT - 1) + [False]) * 5
    )
    assert set(found.level[DAY:].tolist()) == {0.0}


def test_an_unknown_value_does_not_count_towards_the_new_level() -> None:
    found = followed([0.0] * DAY + [3.0] * 10 + [NAN] * 5 + [3.0] * DAY)
    drifted = DAY + DRIFT - 1 + 5
    assert found.is_anomalous[drifted - 1 : drifted + 1].tolist() == [True, False]
    assert (found.level[drifted], found.level[drifted + 1]) == (0.0, 3.0)


def test_a_level_that_moves_slowly_is_followed() -> None:
    # A factor of e within a week: within a day a seventh of it, which the median lags by half.
    rise = np.arange(9 * DAY) / (7 * DAY)
    found = followed(rise.tolist(), limit=0.2)
    assert not found.is_anomalous.any()
    assert rise[DAY:] - found.level[DAY:] == pytest.approx(np.full(8 * DAY, (DAY + 1) / 2 / (7 * DAY)))


@pytest.mark.parametrize("minutes", [5, 15, 60])
def test_a_day_and_a_drift_are_as_long_with_any_bucket(minutes: int) -> None:
    day, drift = LEVEL_MINUTES // minutes, DRIFT_MINUTES // minutes
    values = np.array([0.0] * day + [3.0] * day)
    found = follow(values, np.full(2 * day, -1.0), np.full(2 * day, 1.0), FORGETFUL, minutes)
    assert np.isnan(found.level).nonzero()[0].tolist() == list(range(day))
    assert found.is_anomalous.sum() == drift - 1


# --- from wherever it began ----------------------------------------------------------------------

# An ordinary value lies so near to its level that a median of ordinary ones differs by less than what ends an
# anomaly, and an anomaly so far off that no level of ordinary ones accepts it.
ORDINARY, FAR = 0.1, 5.0


@st.composite
def histories(draw: st.DrawFn) -> np.ndarray:
    """Ordinary values, anomalies of up to 11 hours and gaps of any length; at most half of any day is other
    than ordinary.
    """
    values: list[float] = []
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    for kind, count, quiet in draw(
        st.lists(
            st.tuples(
                st.sampled_from(["flood", "drop", "both", "gap"]),
                st.integers(1, 11 * HOUR),
                st.integers(13 * HOUR + 1, 3 * DAY),
            ),
            min_size=4,
            max_size=9,
        )
    ):
        values += (ORDINARY * rng.uniform(-1, 1, quiet)).tolist()
        sign = {"flood": [1.0], "drop": [-1.0], "both": [1.0, -1.0], "gap": [NAN]}[kind]
        values += [FAR * one for one in rng.choice(sign, count)]
    return np.array(values + (ORDINARY * rng.uniform(-1, 1, LEAD + DAY)).tolist())


@fuzzed
@given(histories(), st.floats(0, 1))
@example(np.concatenate([np.zeros(3 * DAY), np.full(22, FAR), np.zeros(4 * DAY)]), 0.4)
def test_after_the_lead_it_does_not_matter_where_following_began(values: np.ndarray, share: float) -> None:
    start = int(share * (len(values) - LEAD - 1))
    whole, later = (followed(part.tolist(), MEMORY) for part in (values, values[start:]))
    for name in ("level", "wider", "is_anomalous"):
        np.testing.assert_array_equal(
            getattr(later, name)[LEAD:], getattr(whole, name)[start + LEAD :], err_msg=name
        )
    # What is left of values before the start is halved thrice with each bucket, but never nothing.
    np.testing.assert_allclose(later.expected[LEAD:], whole.expected[start + LEAD :], rtol=0, atol=1e-12)


def test_two_levels_that_take_turns_are_told_apart_by_where_following_began_for_ever() -> None:
    """So hourly runs and one run at once begin at the same bucket, which verdicts.judged_from sees to."""
    turns = ([0.0] * 11 * HOUR + [FAR] * 11 * HOUR) * 12
    zeroes, fars = (followed([level] * DAY + turns) for level in (0.0, FAR))
    assert (zeroes.level[DAY:] == 0.0).all()
    assert (fars.level[DAY:] == FAR).all()
    np.testing.assert_array_equal(zeroes.is_anomalous[DAY:], ~fars.is_anomalous[DAY:])
