"""From samples to verdicts: four in a row, the same hour by hour as at once, and the line to read."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ports.detectors import DAY_HOURS, Model, Scored
from ports.levels import DRIFT_MINUTES, LEVEL_MINUTES, Memory
from ports.models import Trained
from ports.preparation import Buckets, Scaler
from ports.series import Series
from ports.verdicts import LEAD_MINUTES, PortAnomaly, Verdicts, judge, judged_from, statuses
from tests.support.fuzzing import fuzzed

NAME = "sw1_1%2F4_in"
# A Monday at midnight.
START = int(datetime(2023, 1, 2, tzinfo=UTC).timestamp())
MINUTES = 15
SECONDS = MINUTES * 60
DAY = LEVEL_MINUTES // MINUTES
DAY_SECONDS = 86_400
LEAD = LEAD_MINUTES // MINUTES
CODES = {".": "normal", "x": "anomaly", "X": "alert", "?": "unknown"}
SCORES = {".": 0.5, "x": 2.0, "?": math.nan}


def trained(minutes: int = MINUTES, preparation: str = "default") -> Trained:
    """Until START. From half of what is expected to twice is accepted, at any age."""
    memory = Memory(np.full(5, 0.25), np.ones(5))
    scaler = Scaler("log", 1e-9, 1.0)
    model = Model(
        scaler, np.zeros(7 * 1440 // minutes), np.full(DAY_HOURS, math.log(2.0)), np.ones(2), memory
    )
    return Trained(NAME, "profile", preparation, minutes, "UTC", START - 28 * 86_400, START, {}, model)


def series_of(pattern: str, minutes: int = MINUTES, lead: str | None = None) -> Series:
    """A bucket for each letter from START on: `.` usual, `x` far too much, `?` without a sample. lead: the
    buckets before, all of them usual by default.
    """
    lead = "." * (LEAD_MINUTES // minutes + 1) if lead is None else lead
    per_bucket = minutes // 5
    levels = {".": 100.0, "x": 1000.0, "?": math.nan}
    traffic = np.repeat([levels[letter] for letter in lead + pattern], per_bucket)
    times = START - len(lead) * minutes * 60 + 300 * np.arange(1, len(traffic) + 1)
    is_taken = ~np.isnan(traffic)
    return Series(NAME, times[is_taken], traffic[is_taken])


def letters(found: np.ndarray) -> str:
    codes = {status: code for code, status in CODES.items()}
    return "".join(codes[status] for status in found)


# --- the rule ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ("", ""),
        ("....", "...."),
        ("xxx", "xxx"),
        ("xxxx", "xxxX"),
        ("xxxxxx", "xxxXXX"),
        ("xxx.xxxx", "xxx.xxxX"),
        ("xxxx.x", "xxxX.x"),
        # An unknown one neither counts nor breaks.
        ("xxx?x", "xxx?X"),
        ("x?x?x?x", "x?x?x?X"),
        ("???x", "???x"),
        ("xxx?.x", "xxx?.x"),
        # 29 of them do not break, 30 do.
        ("xxx" + "?" * 29 + "x", "xxx" + "?" * 29 + "X"),
        ("xxx" + "?" * 30 + "x", "xxx" + "?" * 30 + "x"),
        ("xxxxx" + "?" * 30 + "xxxx", "xxxXX" + "?" * 30 + "xxxX"),
        # Eight of the last 30 are an alert, too, but not those of a row.
        ("x.." * 10, "x.." * 7 + "X.." * 3),
        ("x..." * 10, "x..." * 7 + "X..." * 3),
        ("x...." * 10, "x...." * 10),
        ("xxxx" + ".x" * 8, "xxxX" + ".x" * 7 + ".X"),
        # Each time anew.
        ("xx" + "?" * 29 + "x" + "?" * 29 + "x", "xx" + "?" * 29 + "x" + "?" * 29 + "X"),
    ],
)
def test_a_point_is_an_alert_from_the_fourth_in_a_row_on(points: str, expected: str) -> None:
    assert letters(statuses(np.array([SCORES[point] for point in points]))) == expected


def test_a_score_of_one_is_still_accepted() -> None:
    score = np.array([0.0, 1.0, np.nextafter(1.0, 2.0), math.inf])
    assert statuses(score).tolist() == ["normal", "normal", "anomaly", "anomaly"]


def test_samples_become_verdicts_of_buckets() -> None:
    verdicts = judge(trained(), series_of(".xxx?xx.."), START).after(START)
    assert letters(verdicts.statuses) == ".xxx?XX.."
    assert verdicts.times.tolist() == [START + SECONDS * number for number in range(1, 10)]


def test_a_bucket_that_has_not_ended_has_no_verdict() -> None:
    series = series_of(".x")
    for missing in (1, 2, 3):
        started = Series(NAME, series.times[:-missing], series.traffic[:-missing])
        verdicts = judge(trained(), started, START).after(START)
        assert letters(verdicts.statuses) == "."


def test_where_nothing_has_ended_there_is_no_verdict() -> None:
    verdicts = judge(trained(), Series(NAME, np.array([START + 300]), np.array([1000.0])), START)
    assert len(verdicts.times) == 0
    assert list(verdicts.anomalies()) == []
    assert list(verdicts.after(START).anomalies()) == []


def test_an_anomaly_is_of_the_end_of_its_bucket_with_what_was_expected() -> None:
    found = list(judge(trained(), series_of("..xxxx."), START).anomalies())
    assert [verdict.time for verdict in found] == [START + SECONDS * end for end in (3, 4, 5, 6)]
    assert [verdict.severity for verdict in found] == ["anomaly", "anomaly", "anomaly", "alert"]
    first = found[0]
    assert (first.series, first.detector) == (NAME, "profile")
    # 1000 bytes in five minutes, against 100.
    assert (first.traffic, first.expected, first.low, first.high, first.score) == pytest.approx(
        (1000, 100, 50, 200, math.log2(10))
    )
    assert isinstance(first.time, int)
    assert type(first.severity) is str


@pytest.mark.parametrize(("offset", "count"), [(-1, 4), (0, 3), (1, 3), (899, 3), (900, 2), (2700, 0)])
def test_after_a_time_are_the_buckets_that_end_later(offset: int, count: int) -> None:
    verdicts = judge(trained(), series_of("xxxx"), START)
    later = verdicts.after(START + SECONDS + offset)
    assert len(later.times) == len(later.statuses) == len(later.scored.score) == count
    last = START + 4 * SECONDS
    assert later.times.tolist() == [last - SECONDS * back for back in reversed(range(count))]
    assert [verdict.time for verdict in later.anomalies()] == later.times.tolist()
    if count:
        # What came before still counts.
        assert [verdict.severity for verdict in later.anomalies()][-1] == "alert"
        assert later.scored.high.tolist() == pytest.approx([200.0] * count)


# --- what leads up to it -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("minutes", "since", "days"),
    [
        (15, 0, 3),
        # Long after the training it is read back as far as on the first day.
        (15, 100 * DAY_SECONDS, 3),
        (5, 1, 3),
        # What a job missed before the training ended is judged by the new model, from the same bucket on.
        (15, -900, 3),
        (15, -DAY_SECONDS + 1, 3),
        # Each whole day more that it missed is led up to as well.
        (15, -DAY_SECONDS, 4),
        (60, -2 * DAY_SECONDS - 3600, 5),
    ],
)
def test_judging_begins_three_days_before_the_end_of_training(minutes: int, since: int, days: int) -> None:
    assert judged_from(trained(minutes), START + since) == START - days * DAY_SECONDS


def test_judging_begins_with_a_bucket_where_midnight_is_none() -> None:
    # Midnight in India is half past an hour.
    of_india = replace(trained(60), end=START - 19_800)
    assert judged_from(of_india, START) == START - 21_600 - 3 * DAY_SECONDS


def test_what_leads_up_is_judged_but_for_its_first_day() -> None:
    verdicts = judge(trained(), series_of("...."), START)
    assert verdicts.buckets.starts[0] == START - 3 * DAY_SECONDS
    assert letters(verdicts.statuses) == "?" * DAY + "." * 2 * DAY + "...."
    assert letters(judge(trained(), series_of("."), START).after(START).statuses) == "."


def test_an_anomaly_before_the_end_of_training_is_no_level() -> None:
    # Eleven hours of it, until the model was trained.
    lead = "." * (LEAD + 1 - 44) + "x" * 44
    assert letters(judge(trained(), series_of("xx..", lead=lead), START).after(START).statuses) == "XX.."
    # Nor is one in the day that shows the level.
    lead = "." * 20 + "x" * 44 + "." * (LEAD + 1 - 64)
    assert letters(judge(trained(), series_of(".x", lead=lead), START).statuses)[DAY:] == "." * 2 * DAY + ".x"


def test_a_gap_of_a_day_is_unknown_and_what_follows_is_as_before() -> None:
    found = judge(trained(), series_of(".." + "?" * (DAY + 10) + "..xx.."), START).after(START)
    assert letters(found.statuses) == ".." + "?" * (DAY + 10) + "..xx.."


def test_what_lasts_is_the_new_level() -> None:
    drift = DRIFT_MINUTES // MINUTES
    found = judge(trained(), series_of("x" * DAY), START).after(START)
    assert letters(found.statuses) == "xxx" + "X" * (drift - 3) + "." * (DAY - drift)
    assert found.scored.expected[[drift - 1, drift]] == pytest.approx([100.0, 1000.0])


def test_a_return_from_a_new_level_is_ordinary_from_its_second_value_on() -> None:
    hours = DRIFT_MINUTES // MINUTES
    found = judge(trained(), series_of(".x" + "x" * (hours + 7) + "." * 8 + "xxxx"), START).after(START)
    assert letters(found.statuses) == ".xxx" + "X" * (hours - 3) + "." * 8 + "x" + "." * 7 + "xxxX"
    assert found.scored.expected[-11:] == pytest.approx([100.0] * 11)
    assert found.scored.score[-11] == pytest.approx(0.0, abs=1e-6)


# --- hour by hour and at once --------------------------------------------------------------------


def outcome(verdicts: Verdicts, since: int) -> dict[int, tuple[str, PortAnomaly | None]]:
    """The end of each bucket after `since` -> its status, and the anomaly if it is one."""
    later = verdicts.after(since)
    anomalies = {anomaly.time: anomaly for anomaly in later.anomalies()}
    return {
        time: (status, anomalies.get(time))
        for time, status in zip(later.times.tolist(), later.statuses.tolist(), strict=True)
    }


def read_back(model: Trained, series: Series, since: int, until: int) -> Series:
    """What a job reads that judges what came after `since`."""
    return series.between(judged_from(model, since) - model.minutes * 60, until)


NIGHTS = 3


def each_night() -> list[Trained]:
    """A model for each day from START on, each a little different."""
    models = []
    for night in range(NIGHTS):
        one = trained()
        limits, left = one.model.limits * (1 + 0.05 * night), one.model.memory.left * (1 - 0.2 * night)
        model = replace(one.model, limits=limits, memory=Memory(left, one.model.memory.wider))
        models.append(replace(one, end=START + night * DAY_SECONDS, model=model))
    return models


def hourly(series: Series, runs: list[int]) -> dict[int, tuple[int | None, tuple[str, PortAnomaly | None]]]:
    """What jobs at these times say, each with the newest model: the end of each bucket -> the night of the
    model, and the verdict. The night is None where the job was a day or more behind the model.
    """
    models, found, judged = each_night(), {}, None
    for run in runs:
        night = max(night for night, model in enumerate(models) if model.end <= run)
        since = judged or models[night].end
        by = night if since > models[night].end - DAY_SECONDS else None
        samples = read_back(models[night], series, since, run)
        if not len(samples.times):
            continue
        for time, verdict in outcome(judge(models[night], samples, since), since).items():
            assert time not in found
            found[time] = by, verdict
            judged = time
    return found


def assert_hourly_and_at_once_agree(series: Series, runs: list[int]) -> None:
    found = hourly(series, runs)
    for night, model in enumerate(each_night()):
        at_once = outcome(judge(model, series.between(0, model.end + DAY_SECONDS), model.end), model.end)
        of_night = {time: said for time, (by, said) in found.items() if by == night and time > model.end}
        # A gap at the end is judged by whichever model is there when samples come again.
        assert of_night == {time: said for time, said in at_once.items() if time in of_night}
    # No bucket is left out.
    times = sorted(found)
    if times:
        assert times == list(range(times[0], times[-1] + 1, SECONDS))


runs_of_letters = st.lists(
    st.one_of(
        st.tuples(st.just("."), st.integers(1, 100)),
        st.tuples(st.just("."), st.integers(1, 3)),
        st.tuples(st.just("x"), st.integers(1, 6)),
        st.tuples(st.just("x"), st.integers(30, 60)),
        st.tuples(st.just("?"), st.integers(1, 31)),
        st.tuples(st.just("?"), st.sampled_from([28, 29, 30, 31, DAY, DAY + 1, 2 * DAY])),
    ),
    min_size=1,
    max_size=40,
)
TURNS = [("x", 40), (".", 40)] * 10
# Fourteen hours are a new level, from which it goes back a day later, or within minutes.
RETURNS = [(".", 110), ("x", 56), (".", 130), ("x", 49), (".", 1), ("x", 3), (".", 60)]
HOURLY = [START + hour * 3600 + 120 for hour in range(NIGHTS * 24)]
END = START + NIGHTS * DAY_SECONDS


def filled_up(pattern: list[tuple[str, int]]) -> str:
    """The pattern again and again, from before the lead of the first model to the end of the last day. A
    series has a sample somewhere.
    """
    count = LEAD + NIGHTS * DAY
    once = "".join(letter * times for letter, times in pattern)
    return "." + (once * count)[:count]


@fuzzed
@given(runs_of_letters, st.lists(st.integers(0, NIGHTS * 24 * 4), min_size=1, max_size=12))
@example(TURNS, [0, 95, 190, 280])
@example(TURNS, [50, 100, 190, 280])
@example([("?", 90), ("x", 40), (".", 40)], [50, 90, 185, 280])
@example([("x", 44), ("?", 60), (".", 43), ("x", 1)], [1, 2, 90, 110])
@example(RETURNS, [20, 60, 61, 110, 180, 200, 250])
@example([("x", 130), (".", 100)], [30, 31, 32, 33, 130, 131, 190])
def test_any_split_into_jobs_says_what_is_said_at_once(
    pattern: list[tuple[str, int]], quarters: list[int]
) -> None:
    whole = filled_up(pattern)
    series = series_of(whole[LEAD + 1 :], lead=whole[: LEAD + 1])
    runs = sorted({*(START + SECONDS * one for one in quarters), END})
    assert_hourly_and_at_once_agree(series, runs)


@pytest.mark.parametrize(
    "pattern",
    [
        pytest.param([(".", 500)], id="quiet"),
        pytest.param(TURNS, id="two levels"),
        pytest.param(RETURNS, id="drift and return"),
        pytest.param([(".", 90), ("x", 6)], id="each day"),
        pytest.param([("?", 30), ("x", 3), ("?", 29), ("x", 1), (".", 70)], id="gaps"),
        pytest.param([(".", 60), ("?", 200)], id="long gaps"),
    ],
)
def test_hour_by_hour_all_is_said_that_is_said_at_once(pattern: list[tuple[str, int]]) -> None:
    whole = filled_up(pattern)
    series = series_of(whole[LEAD + 1 :], lead=whole[: LEAD + 1])
    found = hourly(series, [*HOURLY, END])
    assert {status for _, (status, _) in found.values()} >= {"normal"}
    assert_hourly_and_at_once_agree(series, [*HOURLY, END])


@pytest.mark.parametrize("gap", [1, 40, DAY, 2 * DAY, 3 * DAY + 5])
def test_a_gap_at_the_start_of_what_is_read_back_changes_nothing(gap: int) -> None:
    # Before it another level, and after it three hours of a flood that come again on the next days.
    lead = "x" * 200 + "?" * gap + ("." * 84 + "x" * 12) * 4
    lead = lead[: 201 + LEAD]
    series = series_of("." * 84 + "x" * 12, lead=lead)
    some = read_back(trained(), series, START, int(series.times[-1]))
    assert len(some.times) < len(series.times)
    all_samples, only_some = (outcome(judge(trained(), one, START), START) for one in (series, some))
    assert only_some == all_samples


def test_after_days_without_a_job_nothing_is_left_out() -> None:
    """The new model then judges days before its training ended. It begins earlier, which only a port whose
    traffic goes to and fro between two levels can tell.
    """
    whole = filled_up([(".", 85), ("x", 11)])
    series = series_of(whole[LEAD + 1 :], lead=whole[: LEAD + 1])
    runs = [HOURLY[5], END - 3600, END]
    assert_hourly_and_at_once_agree(series, runs)
    found = hourly(series, runs)
    assert len(found) == NIGHTS * DAY
    assert [letter for _, (letter, _) in found.values()].count("alert") >= 8 * NIGHTS


@pytest.mark.parametrize("minutes", [5, 15, 30, 60])
def test_hour_by_hour_the_workshop_says_what_it_says_of_all(minutes: int) -> None:
    rng = np.random.default_rng(minutes)
    count = 260 * minutes // 5
    lead = LEAD_MINUTES // 5 + 12
    levels = np.repeat(rng.choice([100.0, 100.0, 1000.0], count // 40 + 1), 40)[:count]
    levels = np.concatenate([np.full(lead, 100.0), levels])
    spikes = np.where(rng.random(len(levels)) < 0.05, 30.0, 1.0)
    traffic = levels * spikes * rng.uniform(0.8, 1.2, len(levels))
    series = Series(NAME, START + 300 * np.arange(1 - lead, count + 1), traffic)
    model = trained(minutes, "workshop")
    everything = outcome(judge(model, series, START), START)
    for bucket in range(2, 256, 5):
        since = START + bucket * minutes * 60
        some = read_back(model, series, since, since + 5 * minutes * 60)
        found = outcome(judge(model, some, since), since)
        assert found == {time: everything[time] for time in found}
        assert len(found) == 5
    assert {status for status, _ in everything.values()} == {"normal", "anomaly", "alert"}


# --- the line ------------------------------------------------------------------------------------

ANOMALY_FOUND = PortAnomaly(
    series="sw%5F1_1%2F0%2F3_in",
    detector="profile",
    time=1_700_000_100,
    severity="alert",
    traffic=1234.56,
    expected=1000.0,
    low=0.04,
    high=2000.96,
    score=2.345678,
)


def test_an_anomaly_is_one_line_of_json() -> None:
    assert ANOMALY_FOUND.to_json() == (
        '{"time": "2023-11-14T22:15:00Z", "device": "sw_1", "port": "1/0/3", "direction": "in", '
        '"severity": "alert", "detector": "profile", "traffic": 1234.6, "expected": 1000.0, "low": 0.0, '
        '"high": 2001.0, "score": 2.3457}'
    )


def test_a_bound_that_there_is_not_is_null() -> None:
    endless = PortAnomaly("a_1_out", "stl", START, "anomaly", 0.0, 5e5, 1e3, math.inf, 7.0)
    assert endless.to_json() == (
        '{"time": "2023-01-02T00:00:00Z", "device": "a", "port": "1", "direction": "out", '
        '"severity": "anomaly", "detector": "stl", "traffic": 0.0, "expected": 500000.0, "low": 1000.0, '
        '"high": null, "score": 7.0}'
    )
    # Not the word that only some parsers take for a number.
    assert json.loads(endless.to_json(), parse_constant=pytest.fail)["high"] is None


def test_tags_and_fields_are_those_of_a_point() -> None:
    assert ANOMALY_FOUND.tags == {
        "device": "sw_1",
        "port": "1/0/3",
        "direction": "in",
        "severity": "alert",
        "detector": "profile",
    }
    assert ANOMALY_FOUND.fields == {
        "traffic": 1234.6,
        "expected": 1000.0,
        "low": 0.0,
        "high": 2001.0,
        "score": 2.3457,
    }


def test_an_endless_band_reaches_the_line_from_the_model() -> None:
    buckets = Buckets(MINUTES, np.array([START]), np.array([0.0]), np.array([0]))
    one = np.array([5.0])
    scored = Scored(score=one, expected=one, low=one, high=np.array([math.inf]))
    (verdict,) = Verdicts(trained(), buckets, scored, statuses(one)).anomalies()
    assert verdict.time == START + SECONDS
    assert json.loads(verdict.to_json())["high"] is None
