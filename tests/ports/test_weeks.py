"""Values as weeks: where the clocks change, the usual week without its level, weeks that were different."""

from __future__ import annotations

import math
from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from common.files import UserError
from ports.weeks import (
    DAY_SHARE,
    DIFFERENT,
    NEIGHBOURS,
    WEEK_DAYS,
    bridged,
    different,
    first_slot,
    median_week,
    spread,
    usual_week,
    week_of,
    week_rows,
)

NAN = math.nan
HOURLY = 7 * 24

# --- rows ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "count", "rows"),
    [
        (0, 7, [[0, 1, 2, 3, 4, 5, 6]]),
        # Seven days that end on a Wednesday are a week that begins on Thursday.
        (3, 7, [[0, 1, 2, 3, 4, 5, 6]]),
        (3, 10, [[None, None, None, None, 0, 1, 2], [3, 4, 5, 6, 7, 8, 9]]),
        (6, 8, [[None] * 6 + [0], [1, 2, 3, 4, 5, 6, 7]]),
        (5, 3, [[None] * 4 + [0, 1, 2]]),
    ],
)
def test_weeks_are_counted_back_from_the_last_value(
    first: int, count: int, rows: list[list[int | None]]
) -> None:
    slots = (first + np.arange(count)) % 7
    np.testing.assert_array_equal(
        week_rows(np.arange(float(count)), slots, 1440), np.array(rows, dtype=float)
    )


@pytest.mark.parametrize(("last", "first"), [(HOURLY - 1, 0), (0, 1), (60, 61)])
def test_a_week_begins_after_the_slot_with_which_the_last_one_ends(last: int, first: int) -> None:
    assert first_slot(np.array([last - 1, last]) % HOURLY, 60) == first


def test_the_row_of_a_value_is_that_of_its_week() -> None:
    assert week_of(7, 7).tolist() == [0] * 7
    assert week_of(8, 7).tolist() == [0] + [1] * 7
    assert week_of(15, 7).tolist() == [0] + [1] * 7 + [2] * 7


def local_slots(monday: datetime, hours: int) -> np.ndarray:
    """Hours of the local week, of so many hours from a moment on."""
    moments = [
        datetime.fromtimestamp(monday.timestamp() + 3600 * hour, monday.tzinfo) for hour in range(hours)
    ]
    return np.array([moment.weekday() * 24 + moment.hour for moment in moments])


ROME = ZoneInfo("Europe/Rome")
SUNDAY = 6 * 24


def test_the_hour_that_the_clocks_skip_is_unknown() -> None:
    # A local week of 167 hours.
    slots = local_slots(datetime(2023, 3, 20, tzinfo=ROME), 167)
    (row,) = week_rows(np.arange(167.0), slots, 60)
    assert row[:2].tolist() == [0, 1]
    assert row[[SUNDAY + 1, SUNDAY + 3, HOURLY - 1]].tolist() == [145, 146, 166]
    assert np.isnan(row).nonzero()[0].tolist() == [SUNDAY + 2]


def test_of_the_hour_that_there_is_twice_the_later_counts() -> None:
    slots = local_slots(datetime(2022, 10, 24, tzinfo=ROME), 169)
    first, last = week_rows(np.arange(169.0), slots, 60)
    # Counted back by 168 hours, the first of 169 is of the week before.
    assert first[0] == 0
    assert np.isnan(first).sum() == HOURLY - 1
    assert last[[1, SUNDAY + 1, SUNDAY + 2, SUNDAY + 3, HOURLY - 1]].tolist() == [1, 145, 147, 148, 168]
    assert np.isnan(last).nonzero()[0].tolist() == [0]


@pytest.mark.parametrize("monday", [datetime(2023, 2, 20), datetime(2022, 9, 26)])
def test_the_usual_week_follows_the_clocks_of_people(monday: datetime) -> None:
    """A port that is busy from 9 to 17, in eight weeks with a change of clocks in the middle."""
    slots = local_slots(monday.replace(tzinfo=ROME), 8 * HOURLY)
    is_busy = (slots % 24 >= 9) & (slots % 24 < 17)
    usual, _ = usual_week(week_rows(is_busy.astype(float), slots, 60))
    of_day = np.roll(usual, first_slot(slots, 60)).reshape(WEEK_DAYS, 24)
    rise = of_day - of_day[:, :1]
    assert rise[:, 3:8] == pytest.approx(0, abs=0.01)
    assert rise[:, 10:16] == pytest.approx(1, abs=0.01)


# --- the usual week ------------------------------------------------------------------------------


def test_the_median_week_is_averaged_over_the_neighbours() -> None:
    assert NEIGHBOURS == 1
    weeks = np.array([[3.0, 0, 0, 6, 0, 0, 0], [3.0, 0, 0, 6, 0, 0, 9], [3.0, 0, 0, 6, 0, 0, 0]])
    # A week goes round: the last slot is a neighbour of the first.
    assert median_week(weeks).tolist() == pytest.approx([1, 1, 2, 2, 2, 0, 1])


def test_what_no_week_knows_lies_between_its_neighbours() -> None:
    weeks = np.array([[NAN, 1, 2, NAN, 6, NAN], [NAN] * 6, [NAN, 3, 4, NAN, 8, NAN]])
    medians = [2.0, 2, 3, 5, 7, 7]
    expected = [(medians[n - 1] + medians[n] + medians[(n + 1) % 6]) / 3 for n in range(6)]
    assert median_week(weeks).tolist() == pytest.approx(expected)
    assert bridged(np.array([NAN, 2, NAN, NAN, 5, NAN])).tolist() == [2, 2, 3, 4, 5, 5]


def a_week(per_day: int = 24) -> np.ndarray:
    """A smooth day and a quiet weekend, without a level: each day's median is zero."""
    hours = np.arange(per_day) * 2 * np.pi / per_day
    return np.concatenate([height * np.sin(hours) for height in (1, 1, 1, 1, 1, 0.4, 0.4)])


def test_the_usual_week_and_the_levels_make_up_the_values() -> None:
    weeks = np.tile(a_week(), (5, 1)) + 3.0
    usual, levels = usual_week(weeks)
    # The line between the levels of two days takes little of their shape.
    assert usual == pytest.approx(median_week(a_week()[None]), abs=0.01)
    assert levels == pytest.approx(np.full((5, HOURLY), 3.0), abs=0.01)


def test_a_quiet_weekend_is_in_the_usual_week_and_no_level() -> None:
    weeks = np.tile(a_week(), (6, 1)) + 3.0
    weeks[:, SUNDAY - 24 :] -= 2.0
    usual, levels = usual_week(weeks)
    of_days = np.median(usual.reshape(WEEK_DAYS, 24), axis=1)
    assert of_days[:5] - of_days[5:].mean() == pytest.approx(np.full(5, 2.0), abs=0.25)
    assert np.median(np.abs(levels - np.median(levels))) < 0.05


@pytest.mark.parametrize(
    "drift",
    [
        pytest.param(0.05 * np.arange(9 * HOURLY) / HOURLY, id="growth"),
        pytest.param(np.where(np.arange(9 * HOURLY) < 4 * HOURLY, 0.0, 2.0), id="a step"),
        pytest.param(2 * np.sin(np.arange(9 * HOURLY) / 9 / HOURLY * 5), id="a slow wave"),
    ],
)
def test_a_level_that_moves_is_not_in_the_usual_week(drift: np.ndarray) -> None:
    weeks = np.tile(a_week(), (9, 1))
    usual, levels = usual_week(weeks + drift.reshape(9, HOURLY))
    assert usual == pytest.approx(usual_week(weeks)[0], abs=0.03)
    # At the middle of each day, but for one before or after a step, the level is that of the day.
    noon = slice(12, None, 24)
    assert np.median(np.abs(levels.ravel()[noon] - drift[noon])) < 0.02


def test_the_level_lies_on_lines_between_the_middles_of_days() -> None:
    # The same day throughout, on levels of 0 to 13.
    weeks = np.repeat(np.arange(14.0), 3).reshape(2, 21)
    _, levels = usual_week(weeks)
    assert levels.shape == (2, 21)
    assert np.diff(levels.ravel()[1:-1]) == pytest.approx(np.full(39, 1 / 3), abs=0.05)


def test_a_day_of_which_too_little_is_known_lies_between_the_others() -> None:
    weeks = np.tile(a_week(), (4, 1)) + 1.0
    day = slice(2 * 24, 3 * 24)
    weeks[1, day] = NAN
    weeks[1, 2 * 24 : 2 * 24 + int(DAY_SHARE * 24) - 1] = 9.0
    _, levels = usual_week(weeks)
    assert levels[1, day] == pytest.approx(np.ones(24), abs=0.01)
    # As many as are enough.
    weeks[1, 2 * 24 : 2 * 24 + int(DAY_SHARE * 24)] = 9.0
    assert usual_week(weeks)[1][1, day].max() > 5


@pytest.mark.parametrize("week", [0, 8])
def test_a_day_out_of_nine_weeks_hardly_moves_the_usual_week(week: int) -> None:
    rng = np.random.default_rng(4)
    weeks = a_week() + 0.05 * rng.standard_normal((9, HOURLY))
    usual, _ = usual_week(weeks)
    # For ten hours, so that the level of the day stays what it is.
    weeks[week, 60:70] += math.log(20)
    moved, levels = usual_week(weeks)
    # The mean week would move by log(20) / 9 = 0.33.
    assert np.abs(moved - usual).max() < 0.06
    assert np.abs(levels).max() < 0.2


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_where_no_day_is_known_nothing_can_be_learnt(share: float) -> None:
    weeks = np.full((4, HOURLY), NAN)
    weeks[:, :: int(1 / share) if share else HOURLY] = 1.0
    with pytest.raises(UserError) as caught:
        usual_week(weeks)
    assert str(caught.value) == "has weeks with too few samples; record it for longer"


# --- errors --------------------------------------------------------------------------------------


def test_the_spread_is_that_of_a_normal_distribution_and_of_most_values() -> None:
    errors = np.array([NAN, 1.0, 2.0, 3.0, 4.0, 100.0, NAN])
    # The median is 3, and the distances from it are 2, 1, 0, 1 and 97.
    assert spread(errors) == pytest.approx(1.4826)
    normal = np.random.default_rng(1).normal(5, 0.3, 100_000)
    assert spread(normal) == pytest.approx(0.3, rel=0.01)
    assert math.isnan(spread(np.array([NAN, NAN])))
    assert math.isnan(spread(np.array([])))


def errors_of(spreads: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Errors of weeks (weeks x 5,), with 1.4826 MAD as given, and the week of each."""
    unit = np.array([-2.0, -1.0, 0.0, 1.0, 2.0]) / 1.4826
    errors = np.concatenate([one * unit + 7.0 for one in spreads])
    return errors, np.repeat(np.arange(len(spreads)), 5)


@pytest.mark.parametrize(
    ("spreads", "expected"),
    [
        ([0.1, 0.1, 0.1, 0.1], []),
        ([0.1, 0.1, 0.1, 0.1 * DIFFERENT * 1.01], [3]),
        ([0.1, 0.1, 0.1, 0.1 * DIFFERENT * 0.99], []),
        # A fortnight of six weeks, and of four: never more than half of them.
        ([0.1, 0.1, 0.1, 0.1, 0.5, 0.6], [4, 5]),
        ([0.1, 0.5, 0.1, 0.6], [1, 3]),
        ([0.1, 0.5, 0.5, 0.6], []),
        # A quiet week is no different one.
        ([0.5, 0.5, 0.5, 0.1], []),
        # Of a week without errors nothing is known.
        ([0.1, NAN, 0.1, 0.5], [3]),
        ([NAN, NAN], []),
    ],
)
def test_a_week_is_different_by_how_far_its_errors_spread(spreads: list[float], expected: list[int]) -> None:
    assert different(*errors_of(spreads)).nonzero()[0].tolist() == expected
