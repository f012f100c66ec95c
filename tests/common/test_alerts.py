"""The rule of what wakes a person, record by record: n normal, a anomaly, ! alert, ? unknown."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from common.alerts import (
    ALERT_RECORDS,
    CONTEXT_RECORDS,
    FEW_RECORDS,
    MANY_RECORDS,
    WINDOW_RECORDS,
    Row,
    alert_records,
)

LETTERS = {"normal": "n", "anomaly": "a", "alert": "!", "unknown": "?"}


def statuses(pattern: str, row: Row | None = None) -> str:
    row = Row() if row is None else row
    return "".join(LETTERS[row.status(letter == "a", letter == "?")] for letter in pattern)


def recent(pattern: str) -> int:
    row = Row()
    statuses(pattern, row)
    return row.recent


def test_the_rule_in_numbers() -> None:
    assert (WINDOW_RECORDS, ALERT_RECORDS, MANY_RECORDS, FEW_RECORDS) == (30, 4, 8, 4)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("ann" * 10, "ann" * 7 + "!nn" * 3),
        ("an" * 20, "an" * 7 + "!n" * 13),
        ("annn" * 20, "annn" * 7 + "!nnn" * 13),
        ("aaan" * 6, "aaan" * 2 + "a!!n" + "!!!n" * 3),
        # The eighth before is 35 records ago.
        ("annnn" * 20, "annnn" * 20),
        # Seven of them are not many, and eight of 31 records are not either.
        ("an" * 7 + "n" * 30, "an" * 7 + "n" * 30),
        ("a" + "n" * 15 + "na" * 6 + "na", "a" + "n" * 15 + "na" * 6 + "n!"),
        ("a" + "n" * 16 + "na" * 6 + "na", "a" + "n" * 16 + "na" * 6 + "na"),
        # An unknown record is no anomaly, and takes its place among the last ones.
        ("an?" * 10, "an?" * 7 + "!n?" * 3),
        ("an" * 8 + "?" * 30 + "a", "an" * 7 + "!n" + "?" * 30 + "a"),
        ("an" * 8 + "?" * 14 + "a", "an" * 7 + "!n" + "?" * 14 + "!"),
        # A row that is an alert is not counted, however long it was; what is left of before it is.
        ("a" * 40 + "nan" * 6, "aaa" + "!" * 37 + "nan" * 6),
        ("aaan" + "aaaa" + "na" * 5, "aaan" + "aaa!" + "na" * 4 + "n!"),
        ("a" * 20 + "na" * 8, "aaa" + "!" * 17 + "na" * 7 + "n!"),
    ],
)
def test_an_anomaly_of_many_is_an_alert(pattern: str, expected: str) -> None:
    assert statuses(pattern) == expected


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("aaan", "...."),
        # One of a row: until the row ends, which an unknown record does not.
        ("aaaaan", "...^^."),
        ("aaaa?an", "...^^^."),
        ("aaaa" + "?" * 30 + "a", "...^" + "^" * 29 + ".."),
        # One of many: until three of the last 30 are left.
        ("an" * 8 + "n" * 24, "." * 14 + "^" * 24 + ".."),
        ("an" * 8 + "?" * 24, "." * 14 + "^" * 24 + ".."),
        # Without an alert four recent anomalies are none, also soon after one.
        ("an" * 7, "." * 14),
        ("aaaan" + "an" * 7, "...^" + "." * 15),
        # A row within many, and many that are left of before a row.
        ("an" * 8 + "aaaan", "." * 14 + "^" * 7),
        ("anananan" + "aaaan", "." * 11 + "^^"),
    ],
)
def test_an_alert_is_up_from_its_first_record_to_the_one_that_ends_it(pattern: str, expected: str) -> None:
    row, found = Row(), ""
    for letter in pattern:
        statuses(letter, row)
        found += ".^"[row.is_up]
    assert found == expected


@pytest.mark.parametrize("many", [5, 12])
def test_how_many_are_many_can_be_chosen(many: int) -> None:
    assert statuses("an" * 14, Row(many)) == "an" * (many - 1) + "!n" * (15 - many)


@pytest.mark.parametrize("records", [2, 3])
def test_how_many_in_a_row_are_an_alert_can_be_chosen(records: int) -> None:
    assert statuses("aaaan", Row(records=records)) == "a" * (records - 1) + "!" * (5 - records) + "n"
    # The anomalies of its row do not count as recent ones.
    row = Row(records=records)
    statuses("aaaan", row)
    assert row.recent == 0


@pytest.mark.parametrize(
    ("minutes", "records"), [(0.25, 4), (5, 4), (15, 4), (20, 3), (30, 2), (45, 2), (60, 2), (1440, 2)]
)
def test_what_lasts_for_an_hour_makes_a_row_but_never_a_single_record(minutes: float, records: int) -> None:
    assert alert_records(minutes) == records


@pytest.mark.parametrize(
    ("pattern", "count"),
    [("", 0), ("ana?a", 3), ("aaa", 3), ("aaaa", 0), ("aaaan", 0), ("naaaana", 1), ("a" + "n" * 30, 0)],
)
def test_the_recent_anomalies_are_counted(pattern: str, count: int) -> None:
    assert recent(pattern) == count


letters = st.lists(
    st.one_of(
        st.tuples(st.just("a"), st.integers(1, 6)),
        st.tuples(st.just("n"), st.integers(1, 9)),
        st.tuples(st.just("?"), st.sampled_from([1, 2, 28, 29, 30, 31])),
    ),
    max_size=60,
).map(lambda parts: "".join(letter * count for letter, count in parts))


def by_hand(pattern: str) -> str:
    """The same by the words of the rule, looking back from each record."""
    said = []
    for index, letter in enumerate(pattern):
        if letter != "a":
            said.append(letter)
            continue
        rows = rows_of(pattern[: index + 1])
        row = next(row for row in rows if index in row)
        single = {i for other in rows if len(other) < ALERT_RECORDS for i in other}
        count = len(single & set(range(index - WINDOW_RECORDS + 1, index + 1)))
        said.append("!" if len(row) >= ALERT_RECORDS or count >= MANY_RECORDS else "a")
    return "".join(said)


def rows_of(pattern: str) -> list[list[int]]:
    """Where the anomalies of each row are: a normal record ends it, or 30 unknown ones together."""
    ended = pattern.replace("?" * WINDOW_RECORDS, "n" * WINDOW_RECORDS)
    rows: list[list[int]] = [[]]
    for index, letter in enumerate(ended):
        if letter == "a":
            rows[-1].append(index)
        elif letter == "n":
            rows.append([])
    return [row for row in rows if row]


@settings(deadline=None, derandomize=True, database=None)
@given(letters)
@example("aaa" + "?" * 29 + "aan" + "an" * 9)
def test_looking_back_from_each_record_the_rule_says_the_same(pattern: str) -> None:
    assert statuses(pattern) == by_hand(pattern)


@settings(deadline=None, derandomize=True, database=None)
@given(letters, letters)
@example("a" + "?" * 29 + "a" + "?" * 29 + "a" + "?" * 29 + "a", "an" * 9)
def test_what_is_further_back_than_the_context_changes_nothing(before: str, pattern: str) -> None:
    known = (before + pattern)[-CONTEXT_RECORDS:]
    assert statuses(before + pattern)[-1:] == statuses(known)[-1:]


@settings(deadline=None, derandomize=True, database=None)
@given(letters, st.integers(0, 300))
def test_a_state_that_is_restored_goes_on_as_if_nothing_had_been(pattern: str, place: int) -> None:
    before, after = Row(), Row()
    said = statuses(pattern[:place], before)
    after.restore(json.loads(json.dumps(before.state())))
    assert after.is_up == before.is_up
    assert said + statuses(pattern[place:], after) == statuses(pattern)


def test_a_state_without_recent_anomalies_has_none() -> None:
    row = Row()
    row.restore({"anomalies": 3, "unknowns": 0})
    assert (row.anomalies, row.recent, row.is_up) == (3, 0, False)
    assert statuses("a", row) == "!"
