"""The file of answers: what it may hold, what is refused, and that no writer loses what others wrote."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from common.answers import (
    Answer,
    LevelRange,
    daily_around,
    load_answers,
    take_back,
    widened,
    write_answers,
)
from common.files import UserError
from common.times import parse_time

SPAN = {"from": "2026-03-06T12:00:14Z", "until": "2026-03-06T12:18:14Z"}
ATTACK = {"answer": "attack", "nodes": ["edge-7"], **SPAN}
NORMAL = {
    "answer": "normal",
    "nodes": ["edge-*"],
    **SPAN,
    "metrics": {"cpu": {"from": 5.1, "to": 101, "lasting": {"from": 5, "to": 90}}},
    "daily": "12:30-13:49",
    "timezone": "Europe/Rome",
    "by": "ana",
    "at": "2026-03-06T12:40:00Z",
}


def file_of(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "answers.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_answers_are_read_as_they_are_written(tmp_path: Path) -> None:
    attack, normal = load_answers(file_of(tmp_path, {"edge-7@1": ATTACK, "edge-7@2": NORMAL}), "edge")
    start, end = (parse_time(SPAN[key]) for key in ("from", "until"))
    assert attack == Answer("edge-7@1", "attack", ("edge-7",), start, end)
    lasting = LevelRange(5.0, 90.0)
    assert normal == Answer(
        "edge-7@2",
        "normal",
        ("edge-*",),
        start,
        end,
        {"cpu": LevelRange(5.1, 101.0, lasting)},
        (12 * 60 + 30, 13 * 60 + 49),
        "Europe/Rome",
        "ana",
        "2026-03-06T12:40:00Z",
    )
    assert (normal.hours, normal.metrics["cpu"].to_json()) == ("12:30-13:49", NORMAL["metrics"]["cpu"])
    assert [normal.concerns(name) for name in ("edge-7", "core")] == [True, False]
    assert load_answers(tmp_path / "none.json", "edge") == ()


def test_an_answer_counts_in_its_half_or_in_both(tmp_path: Path) -> None:
    halves = {"a": {"half": "edge"}, "b": {"half": "ports"}, "c": {}}
    path = file_of(tmp_path, {name: {**ATTACK, **half} for name, half in halves.items()})
    assert [answer.id for answer in load_answers(path, "edge")] == ["a", "c"]
    assert [answer.id for answer in load_answers(path, "ports")] == ["b", "c"]
    path = file_of(tmp_path, {"a": NORMAL, "b": {**NORMAL, "metrics": {"traffic": NORMAL["metrics"]["cpu"]}}})
    assert len(load_answers(path, "edge")) == 2
    with pytest.raises(UserError) as raised:
        load_answers(path, "ports")
    assert str(raised.value) == f"{path}: 'b': \"lasting\" does nothing for ports; leave it out"


METRICS = '{"cpu": {"from": 5.1, "to": 60}}'
LIST = 'it must be a list of patterns like ["edge-7", "sw1"]'
ZONE = "it must be a time zone like Europe/Rome or UTC"
LEVELS = 'it must be like {"from": 5.1, "to": 60}, in the unit of the metric'


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        ([], 'must be an object like {"answer": "attack", "nodes": ["*"], "from": ..., "until": ...}'),
        ({**ATTACK, "to": 1}, None),
        ({**ATTACK, "answer": "no"}, "\"answer\" is 'no'; it must be normal, attack or maintenance"),
        ({"nodes": ["*"], **SPAN}, '"answer" is missing; it must be normal, attack or maintenance'),
        (
            {**ATTACK, "answer": ["attack"]},
            "\"answer\" is ['attack']; it must be normal, attack or maintenance",
        ),
        ({**ATTACK, "nodes": []}, f'"nodes" is []; {LIST}'),
        ({**ATTACK, "nodes": "*"}, '"nodes" is \'*\'; it must be a list of patterns like ["edge-7", "sw1"]'),
        (
            {"answer": "attack", **SPAN},
            f'"nodes" is missing; {LIST}',
        ),
        ({**ATTACK, "until": "soon"}, "\"until\" is 'soon'; it must be a time like 2023-01-31T22:00:00Z"),
        ({**ATTACK, "until": SPAN["from"]}, '"until" must be later than "from"'),
        ({**ATTACK, "daily": "01:00-02:00"}, '"daily" does nothing with "answer": "attack"; leave it out'),
        ({**ATTACK, "by": 7}, '"by" is 7; it must be a text of one line'),
        ({**ATTACK, "by": "a\nb"}, "\"by\" is 'a\\nb'; it must be a text of one line"),
        ({**ATTACK, "at": "then"}, "\"at\" is 'then'; it must be a time like 2023-01-31T22:00:00Z"),
        ({**NORMAL, "daily": "noon"}, '"daily" is \'noon\'; it must be like "01:45-02:30"'),
        ({**NORMAL, "daily": "12:00-12:00"}, '"daily" is \'12:00-12:00\'; it must be like "01:45-02:30"'),
        (
            {**NORMAL, "timezone": "Rome"},
            f"\"timezone\" is 'Rome'; {ZONE}",
        ),
        ({**NORMAL, "timezone": 1}, f'"timezone" is 1; {ZONE}'),
        (
            {**ATTACK, "half": "port"},
            '"half" is \'port\'; it must be "edge" or "ports"; without it, it is both',
        ),
        ({**NORMAL, "half": "ports"}, '"lasting" does nothing for ports; leave it out'),
        ({**NORMAL, "metrics": {}}, f'"metrics" is {{}}; it must be like {METRICS}'),
        (
            {**NORMAL, "metrics": {"cpu": {"from": 1}}},
            f"'cpu' in \"metrics\" is {{'from': 1}}; {LEVELS}",
        ),
        (
            {**NORMAL, "metrics": {"cpu": {"from": 1, "to": True}}},
            f"'cpu' in \"metrics\" is {{'from': 1, 'to': True}}; {LEVELS}",
        ),
        (
            {**NORMAL, "metrics": {"cpu": {"from": 9, "to": 1}}},
            '\'cpu\' in "metrics": "to" must not be less than "from"',
        ),
    ],
)
def test_a_wrong_answer_is_one_line_with_file_incident_key_and_remedy(
    entry: Any, line: str | None, tmp_path: Path
) -> None:
    path = file_of(tmp_path, {"good": ATTACK, "a": entry})
    line = line or (
        "has an unknown key 'to'; use answer, half, nodes, from, until, metrics, daily, timezone, by, at"
    )
    with pytest.raises(UserError) as raised:
        load_answers(path, "edge")
    assert str(raised.value) == f"{path}: 'a': {line}"
    # A wrong entry is neither lost nor written over.
    before = path.read_bytes()
    with pytest.raises(UserError):
        write_answers(path, {"b": ATTACK})
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content", ["", "[]", '{"a": {}, "a": {}}', '{"a": NaN}', "{" * 5000, '{"a": {"answer": "attack"', "\x00"]
)
def test_a_damaged_file_is_one_line(content: str, tmp_path: Path) -> None:
    path = file_of(tmp_path, content)
    with pytest.raises(UserError) as raised:
        load_answers(path, "edge")
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)


def test_what_a_person_wrote_stays_where_it_is(tmp_path: Path) -> None:
    path = file_of(tmp_path, {"z": ATTACK, "a": {**ATTACK, "by": "hand"}})
    write_answers(path, {"m": NORMAL})
    assert json.loads(path.read_text()) == {"z": ATTACK, "a": {**ATTACK, "by": "hand"}, "m": NORMAL}
    write_answers(path, {"z": NORMAL})
    assert list(json.loads(path.read_text()).items())[0] == ("z", NORMAL)
    take_back(path, "a", "edge")
    assert list(json.loads(path.read_text())) == ["z", "m"]
    with pytest.raises(UserError) as raised:
        take_back(path, "a", "edge")
    assert str(raised.value) == f"{path}: has no answer to a; it has z, m"


def test_a_file_that_would_be_too_large_is_not_written(tmp_path: Path) -> None:
    # It fits as one line, but not as it is written.
    count = 2_000_000 // len(json.dumps({"a99999": ATTACK}))
    path = file_of(tmp_path, {f"a{number}": ATTACK for number in range(count)})
    before = path.read_bytes()
    assert len(before) < 2_000_000
    with pytest.raises(UserError, match=r"would be larger than 2 MB; take back old answers"):
        write_answers(path, {"b": ATTACK})
    assert path.read_bytes() == before


def _write_some(path: Path, who: int) -> None:
    for number in range(15):
        write_answers(path, {f"{who}.{number}": ATTACK})


def test_two_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "new" / "answers.json"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_some, args=(path, who)) for who in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(load_answers(path, "edge")) == 45


# --- when and how much ---------------------------------------------------------------------------


def test_what_is_normal_is_half_an_hour_wider_in_local_time() -> None:
    start, end = parse_time("2026-03-06T12:00:14Z"), parse_time("2026-03-06T12:18:14Z")
    # In Rome it is an hour later: 13:00:14 to 13:18:14.
    assert daily_around(start, end, "Europe/Rome") == (12 * 60 + 30, 13 * 60 + 49)
    late = parse_time("2026-03-06T23:50:00Z")
    assert daily_around(late, late + 600 * 10**9, "UTC") == (23 * 60 + 20, 24 * 60 + 31)
    early = parse_time("2026-03-06T00:10:00Z")
    assert daily_around(early, early + 600 * 10**9, "UTC") == (23 * 60 + 40, 24 * 60 + 51)
    assert daily_around(early, early + 23 * 3600 * 10**9, "UTC") == (0, 1440)


@pytest.mark.parametrize(
    ("time", "is_normal"),
    [
        ("2026-03-20T11:29:59Z", False),
        ("2026-03-20T11:30:00Z", True),
        ("2026-03-20T12:48:59Z", True),
        ("2026-03-20T12:49:00Z", False),
        # From 29 March on, the clocks of Rome are two hours ahead of UTC.
        ("2026-03-30T10:30:00Z", True),
        ("2026-03-30T11:49:00Z", False),
    ],
)
def test_a_time_of_day_follows_the_clocks(time: str, is_normal: bool, tmp_path: Path) -> None:
    (answer,) = load_answers(file_of(tmp_path, {"a": NORMAL}), "edge")
    assert answer.is_at(parse_time(time), "UTC") is is_normal


def test_a_time_of_day_may_reach_over_midnight(tmp_path: Path) -> None:
    night = {**NORMAL, "daily": "23:40-00:51"}
    del night["timezone"]
    (answer,) = load_answers(file_of(tmp_path, {"a": night}), "edge")
    assert answer.hours == "23:40-00:51"
    times = ("23:39:00", "23:40:00", "00:50:00", "00:51:00")
    assert [answer.is_at(parse_time(f"2026-03-20T{time}Z"), "UTC") for time in times] == [
        False,
        True,
        True,
        False,
    ]


def test_levels_are_a_quarter_wider() -> None:
    # The middle of what is expected is 7: up by a quarter of 53, and down by a quarter of 2.
    assert widened(50.0, 60.0, (5.0, 9.0)) == LevelRange(4.5, 73.25)
    # Traffic that is missing: down by a quarter of 6, up by a quarter of 2.
    assert widened(1.0, 2.0, (5.0, 9.0)) == LevelRange(-0.5, 9.5)
