"""From samples to verdicts: four in a row, the same with little context as with all, and the line to read."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ports.detectors import Forecast, Scored
from ports.models import Trained
from ports.preparation import Buckets, Scaler
from ports.series import Series
from ports.verdicts import CONTEXT_BUCKETS, PortAnomaly, Verdicts, judge, statuses

NAME = "sw1_1%2F4_in"
# A Monday at midnight.
START = int(datetime(2023, 1, 2, tzinfo=UTC).timestamp())
MINUTES = 15
SECONDS = MINUTES * 60
CODES = {".": "normal", "x": "anomaly", "X": "alert", "?": "unknown"}
SCORES = {".": 0.5, "x": 2.0, "?": math.nan}


def trained(minutes: int = MINUTES, preparation: str = "default") -> Trained:
    """Of a port that always has 100 bytes a sample; from half of it to twice is accepted."""
    slots = 7 * 1440 // minutes
    # The workshop sums the samples of a bucket up.
    usual = np.full(slots, math.log(100.0 * (minutes / 5 if preparation == "workshop" else 1)))
    model = Forecast(Scaler("log", 1e-9, 1.0), usual, math.log(2.0))
    return Trained(NAME, "profile", preparation, minutes, "UTC", START - 86_400, START, {}, model)


def series_of(pattern: str, minutes: int = MINUTES) -> Series:
    """A bucket for each letter: `.` usual, `x` far too much, `?` without a sample."""
    per_bucket = minutes // 5
    traffic = np.repeat([{".": 100.0, "x": 1000.0, "?": math.nan}[letter] for letter in pattern], per_bucket)
    times = START + 300 * np.arange(1, len(traffic) + 1)
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
    verdicts = judge(trained(), series_of(".xxx?xx.."), START)
    assert letters(verdicts.statuses) == ".xxx?XX.."
    assert verdicts.times.tolist() == [START + SECONDS * number for number in range(1, 10)]


def test_a_bucket_that_has_not_ended_has_no_verdict() -> None:
    series = series_of(".x")
    for missing in (1, 2, 3):
        started = Series(NAME, series.times[:-missing], series.traffic[:-missing])
        verdicts = judge(trained(), started, START)
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
    assert [verdict.time for verdict in later.anomalies()] == verdicts.times[4 - count :].tolist()
    if count:
        # What came before still counts.
        assert [verdict.severity for verdict in later.anomalies()][-1] == "alert"
        assert later.scored.high.tolist() == pytest.approx([200.0] * count)


# --- little context ------------------------------------------------------------------------------


def outcome(verdicts: Verdicts, since: int) -> tuple[list[PortAnomaly], dict[int, str]]:
    later = verdicts.after(since)
    return list(later.anomalies()), dict(zip(later.times.tolist(), later.statuses.tolist(), strict=True))


def assert_context_is_enough(model: Trained, series: Series, since: int) -> None:
    """CONTEXT_BUCKETS and one more before `since` give what all samples give."""
    seconds = model.minutes * 60
    context = series.between(since - (CONTEXT_BUCKETS + 1) * seconds, int(series.times[-1]))
    everything, _ = outcome(judge(model, series, int(series.times[0])), since)
    all_samples, known = outcome(judge(model, series, since), since)
    assert all_samples == everything
    if not len(context.times):
        assert not everything
        return
    only_context, found = outcome(judge(model, context, since), since)
    assert only_context == everything
    # Before the first sample of the context nothing is known to be missing.
    assert found.items() <= known.items()
    assert {known[time] for time in known.keys() - found.keys()} <= {"unknown"}


SLOWEST_ALERT = "x" + "?" * 29 + "x" + "?" * 29 + "x" + "?" * 29 + "x"


@pytest.mark.parametrize("lead", ["", ".", "." * 200, "x" * 200, "?" * 40 + "."])
def test_the_four_of_an_alert_may_lie_far_apart(lead: str) -> None:
    pattern = lead + "." + SLOWEST_ALERT + "."
    series = series_of(pattern)
    since = START + SECONDS * (len(pattern) - 2)
    assert_context_is_enough(trained(), series, since)
    context = series.between(since - (CONTEXT_BUCKETS + 1) * SECONDS, int(series.times[-1]))
    assert letters(judge(trained(), context, since).after(since).statuses) == "X."


runs = st.lists(
    st.one_of(
        st.tuples(st.just("."), st.integers(1, 40)),
        st.tuples(st.just("."), st.integers(1, 3)),
        st.tuples(st.just("x"), st.integers(1, 6)),
        st.tuples(st.just("?"), st.integers(1, 31)),
        st.tuples(st.just("?"), st.sampled_from([28, 29, 30, 31, 150])),
    ),
    min_size=1,
    max_size=24,
)


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(runs, st.floats(0, 1), st.integers(-SECONDS, SECONDS))
@example([("x", 200)], 0.9, 0)
@example([(".", 3), ("x", 3), ("?", 29), ("x", 1)], 0.95, -1)
@example([("x", 1), (".", 2)] * 20, 0.4, 0)
@example([("x", 4), (".", 1), ("x", 2), (".", 1)] * 8, 0.9, 0)
def test_with_the_context_alone_the_verdicts_are_those_of_all_samples(
    pattern: list[tuple[str, int]], share: float, offset: int
) -> None:
    letter_by_letter = "." + "".join(letter * count for letter, count in pattern) + ".."
    since = START + int(share * len(letter_by_letter)) * SECONDS + offset
    assert_context_is_enough(trained(), series_of(letter_by_letter), max(since, START))


@pytest.mark.parametrize("minutes", [5, 15, 30, 60])
def test_hour_by_hour_the_workshop_says_what_it_says_of_all(minutes: int) -> None:
    rng = np.random.default_rng(minutes)
    count = 260 * minutes // 5
    levels = np.repeat(rng.choice([100.0, 100.0, 1000.0], count // 40 + 1), 40)[:count]
    spikes = np.where(rng.random(count) < 0.05, 30.0, 1.0)
    series = Series(
        NAME, START + 300 * np.arange(1, count + 1), levels * spikes * rng.uniform(0.8, 1.2, count)
    )
    model = trained(minutes, "workshop")
    seen = set()
    for bucket in range(2, 258, 5):
        since = START + bucket * minutes * 60
        assert_context_is_enough(model, series, since)
        seen |= set(outcome(judge(model, series, since), since)[1].values())
    assert seen == {"normal", "anomaly", "alert"}


def test_what_is_far_before_is_not_judged_again() -> None:
    series = series_of("." * 1000)
    since = START + 990 * SECONDS
    verdicts = judge(trained(), series, since)
    assert len(verdicts.times) == 10 + CONTEXT_BUCKETS
    assert len(verdicts.after(since).times) == 10


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
