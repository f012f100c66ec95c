"""The published record of each poll: what is judged comes back as it was, for pictures and other programs."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np

from common.alerts import ALERT, UNKNOWN
from edge.detector import Verdict
from edge.monitor import Judged
from edge.poll_log import Poll, Polled, PollLog
from nodes.metrics import METRICS
from tests.support.metrics import ANOMALY_FIELDS, NAMES

SECOND = 10**9
TIME = 1_772_798_414_098_123_456
VERDICT = Verdict(
    time=TIME,
    status=ALERT,
    causes=("cpu", "net_up"),
    unknown=("mem",),
    rmse={name: math.nan if name == "mem" else 0.25 for name in NAMES},
    values={column: 1.5 for column in ANOMALY_FIELDS},
    shares=dict.fromkeys(NAMES, 2.0),
    in_a_row=4,
    recent=0,
    is_alert_up=True,
    actual=np.array([0.5, math.nan]),
    predicted=np.array([0.25, 0.125]),
)
FAULTS = {"node_memory_MemFree_bytes": "no sample"}


def same(one: Verdict, other: Verdict) -> bool:
    first, second = dataclasses.asdict(one), dataclasses.asdict(other)
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip_arrays(first, second)) and repr(
        {key: value for key, value in first.items() if key not in ("actual", "predicted")}
    ) == repr({key: value for key, value in second.items() if key not in ("actual", "predicted")})


def zip_arrays(first: dict, second: dict) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(first[key], second[key]) for key in ("actual", "predicted")]


def test_a_poll_comes_back_as_it_was_published(tmp_path: Path) -> None:
    log = PollLog(tmp_path, clock=lambda: 1_772_798_420.104)
    log.publish([Polled("", [Judged(VERDICT, FAULTS)], "edge:9100", "model")])
    log.publish([], "unknown: no new record")
    (first, second) = PollLog(tmp_path).read()
    assert (first.polled_at, first.fault) == (1_772_798_420.104, None)
    (judged,) = first.judged
    assert same(judged.verdict, VERDICT)
    assert judged.faults == FAULTS
    assert second == Poll(1_772_798_420.104, "unknown: no new record", [])


def test_a_line_says_all_that_another_program_needs(tmp_path: Path) -> None:
    log = PollLog(tmp_path, clock=lambda: 1_772_798_420.104)
    log.publish([Polled("", [Judged(VERDICT, FAULTS)], "edge:9100", "model")])
    content = json.loads((tmp_path / "polls.jsonl").read_text())
    (verdict,) = content.pop("verdicts")
    assert content == {"polled_at": "2026-03-06T12:00:20.104Z", "fault": None}
    assert verdict["time"] == "2026-03-06T12:00:14.098Z"
    assert (verdict["status"], verdict["possible_cause"]) == ("alert", "cpu | net_up")
    assert verdict["rmse"] == {name: None if name == "mem" else 0.25 for name in (*METRICS, "overall")}
    assert (verdict["instance"], verdict["faults"]) == ("edge:9100", FAULTS)
    assert verdict["actual"] == [0.5, None]


def test_a_record_that_was_judged_twice_comes_once_and_what_is_damaged_not_at_all(tmp_path: Path) -> None:
    log = PollLog(tmp_path)
    later = dataclasses.replace(VERDICT, time=TIME + 1, status=UNKNOWN)
    log.publish([Polled("", [Judged(VERDICT, {})], None, "model")])
    with log.path.open("a") as file:
        file.write('{"polled_at": "2026-03-06T12:00:20Z", "fault": null, "verdicts": [{"time_ns": "x"}]}\n')
        file.write('{"polled_at": 5, "fault": null, "verdicts": []}\n{}\n')
    log.publish([Polled("", [Judged(VERDICT, {}), Judged(later, {})], None, "model")])
    assert [(one.time, one.status) for one in log.verdicts("model")] == [(TIME, ALERT), (TIME + 1, UNKNOWN)]


def test_verdicts_of_another_model_or_from_before_are_left_out(tmp_path: Path) -> None:
    log = PollLog(tmp_path)
    for seconds, model in ((0, "old"), (15, "old"), (30, "new"), (45, "new")):
        verdict = dataclasses.replace(VERDICT, time=TIME + seconds * SECOND)
        log.publish([Polled("", [Judged(verdict, {})], None, model)])
    assert [(one.time - TIME) // SECOND for one in log.verdicts("new")] == [30, 45]
    assert [(one.time - TIME) // SECOND for one in log.verdicts("old", TIME + 1)] == [15]


def test_of_many_nodes_what_is_not_normal_is_there_under_its_name(tmp_path: Path) -> None:
    log = PollLog(tmp_path)
    normal = dataclasses.replace(VERDICT, status="normal", causes=(), unknown=(), is_alert_up=False)
    other = dataclasses.replace(VERDICT, time=TIME + SECOND, status="anomaly", is_alert_up=False)
    log.publish(
        [
            Polled("edge-1", [Judged(normal, {}), Judged(other, {})], "edge-1:9100", "model"),
            Polled("edge-2", [Judged(VERDICT, FAULTS)], "edge-2:9100", "model"),
            Polled("edge-3", [Judged(normal, {})], "edge-3:9100", "model"),
        ]
    )
    assert [one.time for one in log.verdicts("model", node="edge-1")] == [TIME + SECOND]
    assert [one.time for one in log.verdicts("model", node="edge-2")] == [TIME]
    assert list(log.verdicts("model", node="edge-3")) == list(log.verdicts("model")) == []
    (poll,) = log.read()
    assert [one.verdict.time for one in poll.judged] == [TIME + SECOND, TIME]


def test_verdicts_of_several_nodes_are_read_at_once_and_in_order_of_time(tmp_path: Path) -> None:
    log = PollLog(tmp_path)
    for node, seconds in (("edge-1", 15), ("edge-2", 15), ("edge-1", 0), ("edge-2", 0), ("edge-1", 15)):
        verdict = dataclasses.replace(VERDICT, time=TIME + seconds * SECOND)
        log.publish([Polled(node, [Judged(verdict, {})], None, f"model of {node}")])
    wanted = {"edge-1": ("model of edge-1", 0), "edge-2": ("model of edge-2", TIME + 1), "edge-3": ("", 0)}
    found = log.verdicts_of(wanted)
    assert {name: [one.time - TIME for one in verdicts] for name, verdicts in found.items()} == {
        "edge-1": [0, 15 * SECOND],
        "edge-2": [15 * SECOND],
        "edge-3": [],
    }


def test_an_alert_of_one_node_of_many_is_published_with_the_ordinary_life_before_it(tmp_path: Path) -> None:
    log = PollLog(tmp_path)
    # A false anomaly, an alert of six records with a normal one in it, and the end.
    pattern = "n" * 50 + "a" + "n" * 10 + "aaa!N!" + "nn"
    statuses = {"n": "normal", "N": "normal", "a": "anomaly", "!": "alert"}
    for place, letter in enumerate(pattern):
        verdict = dataclasses.replace(
            VERDICT,
            time=TIME + place * SECOND,
            status=statuses[letter],
            causes=("cpu",) if letter in "a!" else (),
            is_alert_up=letter in "!N",
            actual=np.array([float(place), math.nan]),
        )
        log.publish([Polled("edge-1", [Judged(verdict, FAULTS)], "edge-1:9100", "model")])
    (found,) = log.verdicts_of({"edge-1": ("model", 0)}).values()
    # The window before the alert: 30 normal records, without the anomaly, which was there already.
    assert [(one.time - TIME) // SECOND for one in found] == list(range(30, 68))
    assert [one.status for one in found] == [statuses[letter] for letter in pattern[30:68]]
    assert [one.actual[0] for one in found] == list(range(30, 68))
    assert all(np.isnan(one.actual[1]) and list(one.predicted) == [0.25, 0.125] for one in found)
