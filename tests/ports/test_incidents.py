"""What verdicts add up to: each incident is opened and closed once, and a lasting new level is said once."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from parallel.cluster import Cluster
from ports.detectors import Scored
from ports.incidents import (
    LEVEL,
    NO_TRAFFIC,
    TRAFFIC,
    UNSEEN,
    UNSEEN_BUCKETS,
    USUAL,
    NewLevel,
    Observed,
    PortIncident,
    Watched,
    observe,
    unseen,
)
from ports.judging import JudgingSettings, Report
from ports.levels import DRIFT_HOURS, MEMORY_AGES, Memory, follow
from ports.models import Trained
from ports.notices import PortNotices, describe_incident
from ports.preparation import Buckets
from ports.series import Series
from ports.state import JobState
from ports.training import TrainingSettings, fit_series
from ports.verdicts import Verdicts, statuses
from tests.support.port_series import START, moment, samples

NAME = "sw1_1%2F4_in"
BUCKET = 900
# Scores and bytes in five minutes: usual, a flood, a larger one, a drop to a tenth, nothing, unknown.
LETTERS = {
    ".": (0.5, 100.0),
    "x": (2.0, 1000.0),
    "X": (3.0, 2000.0),
    "-": (2.5, 10.0),
    "0": (9.0, 0.0),
    "?": (math.nan, math.nan),
    # Without traffic, or with, where that is what is expected by now.
    "_": (0.5, 0.0),
}


@pytest.fixture(scope="module")
def trained() -> Trained:
    """A model whose new levels are taken after twelve hours."""
    series = Series(NAME, *samples(28))
    return fit_series(
        series, "profile", TrainingSettings(("profile",), "default", 15, "UTC", 28, moment("2023-01-30"))
    )


def verdicts_of(
    trained: Trained, pattern: str, new_levels: tuple[tuple[int, int], ...] = (), expected: float = 100.0
) -> Verdicts:
    """A bucket for each letter, from START on; 100 bytes are expected."""
    score, traffic = np.array([LETTERS[letter] for letter in pattern]).T
    count = len(pattern)
    all_expected = np.full(count, expected)
    starts = START + BUCKET * np.arange(count)
    buckets = Buckets(trained.minutes, starts, traffic, np.zeros(count, dtype=int))
    scored = Scored(score, all_expected, all_expected / 2, all_expected * 2, new_levels)
    return Verdicts(trained, buckets, scored, statuses(score))


def part_of(verdicts: Verdicts, begin: int, end: int) -> Verdicts:
    """The verdicts from one index to another."""
    scored = verdicts.scored
    levels = tuple((at - begin, before) for at, before in scored.new_levels if begin <= at < end)
    parts = (values[begin:end] for values in (scored.score, scored.expected, scored.low, scored.high))
    new = Scored(*parts, levels)
    return Verdicts(verdicts.trained, verdicts.buckets[begin:end], new, statuses(new.score))


def buckets_of(observed: Observed) -> list[tuple[int, int, int, str | None]]:
    """When each change was, since and until when the incident is, in buckets from START, and its end."""
    return [
        (*((time - START) // BUCKET for time in (at, one.since, one.until)), one.end)
        for at, one in observed.changes
    ]


# --- one incident --------------------------------------------------------------------------------


def test_a_flood_is_one_incident_with_its_time_peak_and_bytes(trained: Trained) -> None:
    observed = observe(verdicts_of(trained, "....xxxXxx...."), START, Watched())
    (opened_at, opened), (closed_at, closed) = observed.changes
    assert (opened_at, closed_at) == (START + 8 * BUCKET, START + 14 * BUCKET)
    # Three samples a bucket: 3 x 900 bytes more in each of the three, and 3 x 1900 in the fourth.
    assert opened == PortIncident(
        scope="port",
        name=NAME,
        detector="profile",
        opened=START + 8 * BUCKET,
        since=START + 4 * BUCKET,
        until=START + 8 * BUCKET,
        score=3.0,
        traffic=2000.0,
        expected=100.0,
        surplus_bytes=3 * 3 * 900.0 + 3 * 1900.0,
        ports=1,
        end=None,
    )
    assert closed == replace(
        opened, until=START + 10 * BUCKET, surplus_bytes=opened.surplus_bytes + 2 * 3 * 900.0, end=USUAL
    )
    assert closed.fields["minutes"] == 90.0
    assert observed.watched == Watched(minutes=15, closed=closed.until, quiet=0)


def test_a_drop_has_lost_bytes(trained: Trained) -> None:
    observed = observe(verdicts_of(trained, "----...."), START, Watched())
    closed = observed.changes[-1][1]
    assert (closed.surplus_bytes, closed.traffic, closed.score) == (4 * 3 * -90.0, 10.0, 2.5)
    assert describe_incident(*observed.changes[-1]) == (
        "2023-01-02T02:00:00Z incident closes: sw1_1%2F4_in, for 1 h since 2023-01-02T00:00:00Z;"
        " lost 1.08 kB; peak score 2.5: 10 B instead of 100 B [sw1_1%2F4_in@20230102T000000Z]"
    )
    assert describe_incident(*observed.changes[0]) == (
        "2023-01-02T01:00:00Z incident opens: sw1_1%2F4_in 0.03 B/s (expected 0.17-0.67) for 1 h"
        " [sw1_1%2F4_in@20230102T000000Z]"
    )


def test_bytes_of_the_workshop_are_those_of_a_whole_bucket(trained: Trained) -> None:
    workshop = replace(trained, preparation="workshop")
    (_, opened), *_ = observe(verdicts_of(workshop, "xxxx"), START, Watched()).changes
    assert opened.surplus_bytes == 4 * 900.0


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("xxx.xxx.", []),
        ("xxxx...", [(4, 0, 4, None)]),
        ("xxxx....", [(4, 0, 4, None), (8, 0, 4, USUAL)]),
        # A pause is part of it, and so is another row.
        ("xxxx...x....", [(4, 0, 4, None), (12, 0, 8, USUAL)]),
        ("xxxx...xxxx....", [(4, 0, 4, None), (15, 0, 11, USUAL)]),
        ("xxxx....xxxx", [(4, 0, 4, None), (8, 0, 4, USUAL), (12, 8, 12, None)]),
        # What comes and goes: the eighth of thirty opens it, and it closes once fewer than four are left.
        ("x..x..x..x..x..x..x..x" + "." * 20, [(22, 0, 22, None)]),
        ("x..x..x..x..x..x..x..x" + "." * 21, [(22, 0, 22, None), (43, 0, 22, USUAL)]),
        # The unknown may hide more, until thirty of them end the row.
        ("xxxx" + "?" * 20 + "....", [(4, 0, 4, None), (28, 0, 4, USUAL)]),
        ("xxxx" + "?" * 32, [(4, 0, 4, None)]),
        ("xxxx" + "?" * 33, [(4, 0, 4, None), (37, 0, 4, USUAL)]),
    ],
)
def test_when_an_incident_opens_and_closes(
    pattern: str, expected: list[tuple[int, int, int, str | None]], trained: Trained
) -> None:
    assert buckets_of(observe(verdicts_of(trained, pattern), START, Watched())) == expected


def in_windows(verdicts: Verdicts, quiet: str) -> Verdicts:
    """The same with windows of the calendar: in a bucket for each `#`."""
    is_quiet = np.array([letter == "#" for letter in quiet])
    buckets = replace(verdicts.buckets, is_quiet=is_quiet)
    return replace(verdicts, buckets=buckets, statuses=statuses(verdicts.scored.score, is_quiet=is_quiet))


@pytest.mark.parametrize(
    ("pattern", "quiet", "expected"),
    [
        ("xxxxxxxx", "########", []),
        # What is in a window before an alert is no part of the incident.
        ("xxxxxxxx", "####    ", [(8, 4, 8, None)]),
        ("xxxxxxx", "   #   ", [(5, 0, 5, None)]),
        # What is in a window after it neither goes on with it nor ends it.
        ("xxxxxxxx....", "    ####    ", [(4, 0, 4, None), (12, 0, 4, USUAL)]),
        ("xxxxxxxxxx", "    ####  ", [(4, 0, 4, None)]),
        ("xxxx" + "x" * 33, "    " + "#" * 33, [(4, 0, 4, None), (37, 0, 4, USUAL)]),
    ],
)
def test_anomalies_in_a_window_are_of_no_incident(
    pattern: str, quiet: str, expected: list[tuple[int, int, int, str | None]], trained: Trained
) -> None:
    observed = observe(in_windows(verdicts_of(trained, pattern), quiet), START, Watched())
    assert buckets_of(observed) == expected
    if observed.watched.open:
        # Of 900 bytes too many in each of three samples.
        counted = sum(mark == " " for mark in quiet)
        assert observed.watched.open.surplus_bytes == 2700 * counted


def test_what_was_before_is_context_and_not_observed_again(trained: Trained) -> None:
    verdicts = verdicts_of(trained, ".xxxx....xxx")
    later = observe(verdicts, START + 4 * BUCKET, Watched())
    # The fourth is the first new one; the incident began before.
    assert buckets_of(later) == [(5, 1, 5, None), (9, 1, 5, USUAL)]
    assert observe(verdicts, START + 5 * BUCKET, Watched()).changes == ()


runs = st.lists(
    st.tuples(st.sampled_from(".x-0?"), st.one_of(st.integers(1, 5), st.sampled_from([29, 30, 31, 50]))),
    min_size=1,
    max_size=25,
)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(runs, st.lists(st.integers(1, 9), min_size=1, max_size=20), st.integers(0, 3))
@example([("x", 4), (".", 9)], [4], 0)
def test_hour_by_hour_and_after_restarts_the_incidents_are_those_of_all_at_once(
    trained: Trained, pattern: list[tuple[str, int]], steps: list[int], level: int
) -> None:
    letters = "".join(letter * count for letter, count in pattern) + "...."
    levels = tuple(
        (at, 5) for at, letter in enumerate(letters) if at > 4 and at % 4 == level and letter in "x-0"
    )
    verdicts = verdicts_of(trained, letters, levels)
    at_once = observe(verdicts, START, Watched())
    watched, end, found, new_levels, held = Watched(), 0, [], [], set()
    for step in steps * len(letters):
        if end >= len(letters):
            break
        begin, end = end, min(end + step, len(letters))
        one = observe(part_of(verdicts, 0, end), START + begin * BUCKET, watched)
        # As a file has it.
        watched = Watched.restored(json.loads(json.dumps(asdict(one.watched))))
        assert watched == one.watched
        found += one.changes
        new_levels += one.new_levels
        held |= one.no_alerts
    assert tuple(found) == at_once.changes
    assert tuple(new_levels) == at_once.new_levels
    assert held == at_once.no_alerts
    assert watched.open == at_once.watched.open


# --- another model -------------------------------------------------------------------------------


def test_an_incident_that_the_next_model_does_not_see_is_closed(trained: Trained) -> None:
    first = observe(verdicts_of(trained, "xxxxxxxx"), START, Watched())
    second = verdicts_of(trained, "." * 12)
    observed = observe(second, START + 8 * BUCKET, first.watched)
    assert buckets_of(observed) == [(12, 0, 8, USUAL)]
    assert observed.changes[0][1].surplus_bytes == 8 * 3 * 900.0


def test_an_incident_that_the_next_model_sees_goes_on_with_what_was_counted(trained: Trained) -> None:
    first = observe(verdicts_of(trained, "....xxxx"), START, Watched())
    # It also sees anomalies where the first one saw none.
    second = verdicts_of(trained, "xxxxxxxxxx....")
    observed = observe(second, START + 8 * BUCKET, first.watched)
    assert buckets_of(observed) == [(14, 4, 10, USUAL)]
    assert observed.changes[0][1].surplus_bytes == 6 * 3 * 900.0


def test_what_belonged_to_one_incident_is_no_part_of_the_next(trained: Trained) -> None:
    first = observe(verdicts_of(trained, "xxxx...."), START, Watched())
    second = observe(verdicts_of(trained, "xxxxxxxxxx"), START + 8 * BUCKET, first.watched)
    # A model to which all were anomalies opens one of what is new since the end of the last anomaly.
    assert buckets_of(second) == [(9, 4, 9, None)]


def test_the_end_of_an_old_incident_is_forgotten(trained: Trained) -> None:
    first = observe(verdicts_of(trained, "xxxx...."), START, Watched())
    for count, is_kept in ((124, True), (125, False)):
        later = observe(verdicts_of(trained, "." * count), START + 8 * BUCKET, first.watched)
        assert (later.watched != Watched()) == is_kept


# --- without samples -----------------------------------------------------------------------------


def test_an_incident_of_a_series_without_samples_is_closed_when_unknown_ones_would_close_it(
    trained: Trained,
) -> None:
    watched = observe(verdicts_of(trained, "xxxx"), START, Watched()).watched
    judged = START + 4 * BUCKET
    closes = judged + UNSEEN_BUCKETS * BUCKET
    assert unseen(watched, judged, closes - 1) is None
    time, closed = unseen(watched, judged, closes)
    assert (time, closed) == (closes, replace(watched.open, end=UNSEEN))
    assert describe_incident(time, closed).endswith("; it is unknown now [sw1_1%2F4_in@20230102T000000Z]")
    assert unseen(Watched(), judged, closes) is None


# --- new levels ----------------------------------------------------------------------------------


def test_a_level_that_lasts_is_new_in_the_bucket_that_completes_it() -> None:
    ones = np.ones(len(MEMORY_AGES))
    memory, zeros = Memory(0 * ones, ones), np.zeros(96)
    limits = np.full(300, 0.5)

    def levels(deviations: np.ndarray, drift_minutes: int = 720) -> tuple[tuple[int, int], ...]:
        part = limits[: len(deviations)]
        return follow(deviations, -part, part, memory, 15, drift_minutes).new_levels

    low = np.full(100, -1.0)
    assert levels(np.concatenate([zeros, low[:47]])) == ()
    assert levels(np.concatenate([zeros, low[:48]])) == ((143, 47),)
    assert levels(np.concatenate([zeros, low])) == ((143, 47),)
    # Unknown ones do not count.
    assert levels(np.concatenate([zeros, low[:10], [math.nan] * 3, low[:38]])) == ((146, 50),)
    assert levels(np.concatenate([zeros, low[:47], zeros[:5], low[:47]])) == ()
    assert levels(np.concatenate([zeros, low]), 360) == ((119, 23),)
    assert levels(np.concatenate([zeros, low]), 1080) == ((167, 71),)


@pytest.mark.parametrize("hours", DRIFT_HOURS)
@pytest.mark.parametrize("minutes", [5, 15, 60])
def test_the_level_is_new_after_the_least_and_the_most_hours(hours: int, minutes: int) -> None:
    day, drift = 1440 // minutes, 60 * hours // minutes
    deviations = np.concatenate([np.zeros(day), np.full(2 * day, -1.0)])
    ones, limits = np.ones(len(MEMORY_AGES)), np.full(3 * day, 0.5)
    followed = follow(deviations, -limits, limits, Memory(0 * ones, ones), minutes, 60 * hours)
    assert followed.level[day:].tolist() == [0.0] * drift + [-1.0] * (2 * day - drift)
    assert followed.is_anomalous.sum() == drift - 1


def test_a_new_level_is_said_once_and_ends_the_incident(trained: Trained) -> None:
    verdicts = verdicts_of(trained, "...." + "-" * 48 + "." * 50, ((51, 47),))
    observed = observe(verdicts, START, Watched())
    assert buckets_of(observed) == [(8, 4, 8, None), (52, 4, 52, LEVEL)]
    (said,) = observed.new_levels
    assert said == NewLevel(NAME, "profile", LEVEL, START + 52 * BUCKET, START + 4 * BUCKET, 0.1)
    assert str(said) == "sw1_1%2F4_in: new level since 2023-01-02T01:00:00Z: 10 % of what was expected"
    assert observed.no_alerts == frozenset()
    # The next model takes it, too, but in buckets that were judged.
    assert observe(verdicts, START + 60 * BUCKET, observed.watched).new_levels == ()


def test_a_level_that_no_incident_told_of_is_not_said(trained: Trained) -> None:
    verdicts = verdicts_of(trained, "." * 60, ((51, 47),))
    assert observe(verdicts, START, Watched()) == Observed(Watched())


DEAD = "...." + "0" * 48


def test_a_port_that_dies_is_said_once_and_is_no_alert_while_it_has_no_traffic(trained: Trained) -> None:
    # The usual week is not that of a dead port: it would be an alert each Sunday.
    verdicts = verdicts_of(trained, DEAD + "_" * 10 + "0" * 300 + "?" * 10 + "0" * 10, ((51, 47), (300, 47)))
    observed = observe(verdicts, START, Watched())
    assert buckets_of(observed) == [(8, 4, 8, None), (52, 4, 52, NO_TRAFFIC)]
    (said,) = observed.new_levels
    assert str(said) == "sw1_1%2F4_in: has had no traffic since 2023-01-02T01:00:00Z"
    assert (observed.watched.kind, observed.watched.floor) == (NO_TRAFFIC, 0.5)
    lowered = verdicts.without_alerts(observed.no_alerts)
    assert (lowered.statuses[:52] == "alert").sum() == 45
    assert (lowered.statuses[52:] == "alert").sum() == 0
    assert (lowered.statuses == "anomaly").sum() == 3 + 310


def test_the_traffic_of_a_dead_port_is_an_incident_and_said_once_it_lasts(trained: Trained) -> None:
    verdicts = verdicts_of(
        trained, DEAD + "_" * 30 + "x" * 48 + "x" * 40 + "." * 96 + "xxxx", ((51, 47), (129, 47), (180, 47))
    )
    observed = observe(verdicts, START, Watched())
    assert buckets_of(observed) == [
        (8, 4, 8, None),
        (52, 4, 52, NO_TRAFFIC),
        (86, 82, 86, None),
        (130, 82, 130, TRAFFIC),
        # After a day without an alert, there are incidents again.
        (270, 266, 270, None),
    ]
    assert [str(one) for one in observed.new_levels] == [
        "sw1_1%2F4_in: has had no traffic since 2023-01-02T01:00:00Z",
        "sw1_1%2F4_in: has traffic since 2023-01-02T20:30:00Z",
    ]
    assert observed.watched.kind is None


def test_traffic_of_a_dead_port_that_does_not_last_is_an_incident_that_closes(trained: Trained) -> None:
    observed = observe(
        verdicts_of(trained, DEAD + "_" * 9 + "xxxxx" + "0" * 9, ((51, 47),)), START, Watched()
    )
    assert buckets_of(observed)[2:] == [(65, 61, 65, None), (70, 61, 66, USUAL)]
    assert (observed.watched.kind, observed.watched.calm) == (NO_TRAFFIC, 0)


def test_the_traffic_of_a_dead_port_in_a_window_is_neither_an_incident_nor_a_life(trained: Trained) -> None:
    verdicts = verdicts_of(trained, DEAD + "_" * 9 + "x" * 60 + "_" * 9, ((51, 47), (108, 47)))
    in_window = in_windows(verdicts, " " * 61 + "#" * 60 + " " * 9)
    observed = observe(in_window, START, Watched())
    assert buckets_of(observed) == [(8, 4, 8, None), (52, 4, 52, NO_TRAFFIC)]
    assert [one.kind for one in observed.new_levels] == [NO_TRAFFIC]
    assert observed.watched.kind == NO_TRAFFIC
    # Without the window it is both.
    assert [one.kind for one in observe(verdicts, START, Watched()).new_levels] == [NO_TRAFFIC, TRAFFIC]


def test_a_port_that_comes_to_life_is_said_once(trained: Trained) -> None:
    verdicts = verdicts_of(trained, "____" + "x" * 60, ((51, 47),), expected=0.0)
    observed = observe(verdicts, START, Watched())
    assert buckets_of(observed) == [(8, 4, 8, None), (52, 4, 52, TRAFFIC)]
    assert [str(one) for one in observed.new_levels] == [
        "sw1_1%2F4_in: has traffic since 2023-01-02T01:00:00Z"
    ]
    assert len(observed.no_alerts) == 12


def test_a_port_that_dies_soon_after_it_came_to_life_is_said(trained: Trained) -> None:
    alive = Watched(kind=TRAFFIC, closed=START)
    observed = observe(verdicts_of(trained, "0" * 60, ((47, 47),)), START, alive)
    assert observed.changes == ()
    assert [one.kind for one in observed.new_levels] == [NO_TRAFFIC]


# --- points and lines ----------------------------------------------------------------------------


def test_an_incident_is_one_point_and_one_line(trained: Trained) -> None:
    (_, opened), (_, closed) = observe(verdicts_of(trained, "xxxx...."), START, Watched()).changes
    assert opened.key == closed.key
    assert opened.tags == closed.tags == {
        "scope": "port", "device": "sw1", "port": "1/4", "direction": "in", "detector": "profile",
    }  # fmt: skip
    assert closed.to_json() == (
        '{"time": "2023-01-02T01:00:00Z", "scope": "port", "device": "sw1", "port": "1/4", "direction": "in",'
        ' "detector": "profile", "state": "closed", "since": "2023-01-02T00:00:00Z",'
        ' "until": "2023-01-02T01:00:00Z", "minutes": 60.0, "ports": 1.0, "score": 2.0, "traffic": 1000.0,'
        ' "expected": 100.0, "surplus_bytes": 10800.0, "end": "usual"}'
    )
    assert PortIncident.restored(json.loads(json.dumps(asdict(closed)))) == closed


def test_a_new_level_is_told_of_before_the_incident_that_opens_after_it(
    trained: Trained, caplog: pytest.LogCaptureFixture
) -> None:
    verdicts = verdicts_of(trained, "...." + "-" * 48 + "." * 8 + "-" * 4 + "." * 8, ((51, 47),))
    observed = observe(verdicts, START, Watched())
    report = Report(1, None, JobState(), changes=list(observed.changes), new_levels=list(observed.new_levels))
    PortNotices(JudgingSettings("models", ("profile",), None, Cluster(1))).show(report)
    told = [line for line in caplog.messages if NAME in line]
    assert [next(word for word in ("opens", "closes", "new level") if word in line) for line in told] == [
        "opens",
        "new level",
        "opens",
        "closes",
    ]
