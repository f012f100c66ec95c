"""Incidents of many nodes at once are one."""

from __future__ import annotations

import json

import pytest

from edge.many_nodes import IncidentChange, ManyNodes

SECOND = 10**9
# 2026-03-06T12:00:00Z
START = 1_772_798_400 * SECOND
# No node has lost its incident otherwise.
LISTED = (
    "edge-1, edge-10, edge-11, edge-12, edge-13, edge-14, edge-15, edge-16, edge-17, edge-18, edge-19,"
    " edge-2, edge-20, edge-21, edge-22, edge-23, edge-24, edge-25, edge-26, edge-27 and 30 more"
)
EVERY = [f"edge-{number}" for number in range(1, 51)]


def opens(node: str, seconds: int, *causes: str) -> IncidentChange:
    return IncidentChange(node, START + seconds * SECOND, True, causes or ("cpu",), f"{seconds} opens")


def closes(node: str, seconds: int, *causes: str) -> IncidentChange:
    return IncidentChange(node, START + seconds * SECOND, False, causes or ("cpu",), f"{seconds} closes")


def names(count: int) -> list[str]:
    return [f"edge-{number}" for number in range(1, count + 1)]


def test_the_incident_of_a_few_nodes_is_said_of_each() -> None:
    many = ManyNodes()
    assert many.observe([opens("edge-2", 0), opens("edge-1", 0)], 100, EVERY) == [
        "edge-1: 0 opens",
        "edge-2: 0 opens",
    ]
    assert many.observe([closes("edge-1", 60)], 100, EVERY) == ["edge-1: 60 closes"]
    # The one of edge-2 is 151 s old, the other is over: these are not one.
    assert many.observe([opens("edge-3", 151), opens("edge-4", 151)], 100, EVERY) == [
        "edge-3: 151 opens",
        "edge-4: 151 opens",
    ]
    assert not many.is_open


def test_fifty_at_once_are_one_line_and_one_when_the_last_is_over() -> None:
    many = ManyNodes()
    assert many.observe([opens(name, 0, "cpu", "net_up") for name in names(50)], 1000, EVERY) == [
        f"2026-03-06T12:00:00Z incident of 50 of 1000 nodes opens: cpu | net_up: {LISTED}"
        " [many@20260306T120000Z]"
    ]
    assert many.is_open
    # For other programs, it is one as well; another node has its own.
    entries = {name: {"id": name} for name in (*names(50), "milan-1")}
    shared, alone = many.with_shared(entries)
    assert (shared["id"], shared["node"], shared["cause"]) == ("many@20260306T120000Z", "", "cpu | net_up")
    assert alone == {"id": "milan-1"}
    assert many.observe([closes(name, 600) for name in names(49)], 1000, EVERY) == []
    assert many.observe([closes("edge-50", 660, "cpu", "ue_down")], 1000, EVERY) == [
        "2026-03-06T12:11:00Z incident of 50 nodes closes: cpu | net_up | ue_down for 11 min since"
        f" 2026-03-06T12:00:00Z: {LISTED} [many@20260306T120000Z]"
    ]
    assert not many.is_open
    assert many.with_shared({"edge-1": {"id": "edge-1"}}) == [{"id": "edge-1"}]


def test_those_that_follow_belong_to_it_and_are_said_when_they_double_it() -> None:
    many = ManyNodes()
    assert many.observe([opens("edge-1", 0), opens("edge-2", 0)], 100, EVERY) == [
        "edge-1: 0 opens",
        "edge-2: 0 opens",
    ]
    (line,) = many.observe([opens("edge-3", 15)], 100, EVERY)
    assert line == (
        "2026-03-06T12:00:15Z incident of 3 of 100 nodes opens: cpu: edge-1, edge-2, edge-3"
        " [many@20260306T120015Z]"
    )
    assert many.observe([opens("edge-4", 30), opens("edge-5", 30)], 100, EVERY) == []
    (line,) = many.observe([opens("edge-6", 45)], 100, EVERY)
    assert line.startswith("2026-03-06T12:00:45Z incident of 6 of 100 nodes grows: cpu: edge-1,")
    # Later than 150 s after it opened is another one.
    assert many.observe([opens("edge-7", 166)], 100, EVERY) == ["edge-7: 166 opens"]
    assert many.observe([closes("edge-7", 300)], 100, EVERY) == ["edge-7: 300 closes"]


def test_another_wave_is_another_incident_while_one_node_keeps_the_first_one_open() -> None:
    many = ManyNodes()
    many.observe([opens(name, 0) for name in names(4)], 100, EVERY)
    many.observe([closes(name, 60) for name in names(3)], 100, EVERY)
    assert many.is_open
    (line,) = many.observe([opens(f"edge-{number}", 900) for number in (11, 12, 13)], 100, EVERY)
    assert line.endswith(
        " incident of 3 of 100 nodes opens: cpu: edge-11, edge-12, edge-13 [many@20260306T121500Z]"
    )
    # The node that kept the first one open is watched no more.
    (line,) = many.observe([], 100, ["edge-11", "edge-12", "edge-13"])
    assert " incident of 4 nodes closes: cpu for " in line
    (line,) = many.observe([closes(f"edge-{number}", 990) for number in (11, 12, 13)], 100, [])
    assert " incident of 3 nodes closes: cpu for 1 min 30 s since" in line
    assert not many.is_open


@pytest.mark.parametrize(("nodes", "needed"), [(3, 3), (300, 3), (1000, 10)])
def test_it_takes_three_nodes_and_one_in_a_hundred(nodes: int, needed: int) -> None:
    many = ManyNodes()
    many.observe([opens(name, 0) for name in names(needed - 1)], nodes, EVERY)
    assert not many.is_open
    many.observe([opens(f"edge-{needed}", 0)], nodes, EVERY)
    assert many.is_open


def test_it_goes_on_after_a_restart_and_refuses_what_is_no_state() -> None:
    first, second = ManyNodes(), ManyNodes()
    first.observe([opens("edge-1", 0), opens("edge-2", 0)], 100, EVERY)
    second.restore(json.loads(json.dumps(first.state())))
    assert [len(one.observe([opens("edge-3", 15)], 100, EVERY)) for one in (first, second)] == [1, 1]
    third = ManyNodes()
    third.restore(json.loads(json.dumps(second.state())))
    assert third.is_open
    for damage in ({}, {"shared": 5, "recent": []}, {"shared": [], "recent": [{"node": 5}]}):
        with pytest.raises((KeyError, TypeError, ValueError)):
            third.restore(damage)
    changes = [closes(name, 60) for name in names(3)]
    assert third.observe(changes, 100, EVERY) == first.observe(changes, 100, EVERY)
