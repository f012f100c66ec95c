"""Many ports at once are one incident: at least three and half of a device, or most of all devices."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from ports.incidents import OF_ALL, OF_DEVICE, OF_PORT, UNSEEN, USUAL, PortIncident
from ports.notices import describe_incident
from ports.shared import Change, Shared
from tests.support.port_series import START

BUCKET = 900
HOUR = 3600


def incident(
    name: str, opened: int = START + HOUR, score: float = 2.0, surplus: float = -100.0
) -> PortIncident:
    """An incident of a series that has just opened, after an hour of anomalies."""
    return PortIncident(
        OF_PORT, name, "profile", opened, opened - HOUR, opened, score, 10.0 * score, 1000.0, surplus
    )


def opens(*names: str, at: int = START + HOUR) -> list[Change]:
    return [(at, incident(name, at)) for name in names]


def closes(change: Change, at: int, surplus: float = -400.0, end: str = USUAL) -> Change:
    one = change[1]
    return at, replace(one, until=at - HOUR, surplus_bytes=surplus, score=one.score + 1.0, end=end)


def ports(device: str, count: int) -> set[tuple[str, str]]:
    return {(device, str(number)) for number in range(1, count + 1)}


def observed(shared: Shared, changes: list[Change], judged: set[tuple[str, str]]) -> list[Change]:
    return shared.observe(changes, {"profile": judged})


# --- one device ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "judged", "is_many"),
    [
        (("a_1_in", "a_2_in"), 2, False),
        (("a_1_in", "a_2_in", "a_3_in"), 3, True),
        (("a_1_in", "a_2_in", "a_3_in"), 6, True),
        (("a_1_in", "a_2_in", "a_3_in"), 7, False),
        (("a_1_in", "a_2_in", "a_3_in", "a_4_out"), 7, True),
        # Both directions of a port are one port.
        (("a_1_in", "a_1_out", "a_2_in", "a_2_out"), 4, False),
        # Ports of another device do not count.
        (("a_1_in", "a_2_in", "b_1_in"), 3, False),
    ],
)
def test_from_three_ports_and_half_of_the_judged_ones_on_it_is_one_incident(
    names: tuple[str, ...], judged: int, is_many: bool
) -> None:
    found = observed(Shared(), opens(*names), ports("a", judged) | ports("b", 20))
    assert [one.scope for _, one in found] == [OF_DEVICE] * is_many


@pytest.mark.parametrize(("later", "is_many"), [(0, True), (HOUR - BUCKET, True), (HOUR, False)])
def test_the_three_must_open_within_an_hour(later: int, is_many: bool) -> None:
    shared = Shared()
    first = opens("a_1_in", "a_2_in")
    assert observed(shared, first, ports("a", 4)) == []
    found = observed(shared, opens("a_3_in", at=START + HOUR + later), ports("a", 4))
    assert len(found) == is_many


def test_it_has_the_ports_bytes_and_the_peak_of_all_and_closes_with_the_last() -> None:
    shared = Shared()
    first = [
        (START + HOUR, incident("a_1_in", score=2.0)),
        (START + HOUR, incident("a_1_out", score=5.0)),
        (START + HOUR + BUCKET, incident("a_2_in", START + HOUR + BUCKET, surplus=-50.0)),
        (START + HOUR + 2 * BUCKET, incident("a_3_in", START + HOUR + 2 * BUCKET)),
    ]
    ((time, opened),) = observed(shared, first, ports("a", 6))
    assert (time, opened.opened) == (START + HOUR + 2 * BUCKET,) * 2
    assert (opened.scope, opened.name, opened.ports) == (OF_DEVICE, "a", 3)
    assert (opened.since, opened.until) == (START, START + HOUR + 2 * BUCKET)
    assert (opened.surplus_bytes, opened.score, opened.traffic) == (-350.0, 5.0, 50.0)
    assert shared.belonging == {one.key for _, one in first}
    # A fourth port belongs to it, too.
    fourth = opens("a_4_in", at=START + 2 * HOUR)
    assert observed(shared, fourth, ports("a", 6)) == []
    end = START + 6 * HOUR
    early = [closes(one, end - HOUR) for one in first]
    assert observed(shared, early, ports("a", 6)) == []
    ((time, closed),) = observed(shared, [closes(fourth[0], end)], ports("a", 6))
    assert time == end
    assert closed == replace(
        opened, ports=4, until=end - HOUR, surplus_bytes=5 * -400.0, score=6.0, traffic=50.0, end=USUAL
    )
    assert closed.key == opened.key
    assert shared == Shared()
    assert describe_incident(time, closed) == (
        "2023-01-02T06:00:00Z incident closes: device a, 4 ports at once, for 5 h since 2023-01-02T00:00:00Z;"
        " lost 2 kB; peak score 6.0: 50 B instead of 1 kB [a@20230102T013000Z]"
    )
    assert describe_incident(opened.opened, opened) == (
        "2023-01-02T01:30:00Z incident opens: device a, 3 ports at once, most of all 50 B (expected 1000)"
        " for 1 h 30 min [a@20230102T013000Z]"
    )
    assert opened.tags == {"scope": "device", "device": "a", "detector": "profile"}


def test_what_opens_more_than_an_hour_later_is_on_its_own() -> None:
    shared = Shared()
    observed(shared, opens("a_1_in", "a_2_in", "a_3_in"), ports("a", 4))
    late = opens("a_4_in", at=START + 2 * HOUR + BUCKET)
    assert observed(shared, late, ports("a", 4)) == []
    assert late[0][1].key not in shared.belonging


def test_detectors_are_not_mixed() -> None:
    first = opens("a_1_in", "a_2_in")
    other = [(time, replace(one, detector="stl")) for time, one in opens("a_3_in")]
    judged = {"profile": ports("a", 4), "stl": ports("a", 4)}
    assert Shared().observe([*first, *other], judged) == []


def test_an_incident_that_opens_and_closes_before_the_others_does_not_count() -> None:
    first = opens("a_1_in")
    changes = [*first, closes(first[0], START + HOUR + BUCKET), *opens("a_2_in", "a_3_in", at=START + 5400)]
    assert observed(Shared(), changes, ports("a", 4)) == []


def test_the_end_is_that_of_the_last_one() -> None:
    first = opens("a_1_in", "a_2_in", "a_3_in")
    ends = [
        closes(one, START + (2 + n) * HOUR, end=UNSEEN if n == 2 else USUAL) for n, one in enumerate(first)
    ]
    found = observed(Shared(), [*first, *ends], ports("a", 4))
    assert [one.end for _, one in found] == [None, UNSEEN]


# --- all devices ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "scopes"),
    [
        (("a_1_in", "b_1_in"), []),
        # Two of four are not most.
        (("a_1_in", "a_2_in", "b_1_in", "b_2_in"), []),
        (("a_1_in", "a_2_in", "b_1_in", "b_2_in", "b_4_in"), [OF_ALL]),
        (("a_1_in", "a_2_in", "a_3_in", "b_1_in", "b_2_in", "b_3_in"), [OF_ALL]),
        (("a_1_in", "a_2_in", "a_3_in", "a_4_in", "b_1_in"), [OF_ALL]),
        # One device is not all of them.
        (("a_1_in", "a_2_in", "a_3_in", "a_4_in"), [OF_DEVICE]),
    ],
)
def test_most_ports_of_several_devices_are_one_incident_of_all(names: tuple[str, ...], scopes: list) -> None:
    found = observed(Shared(), opens(*names), ports("a", 4) | ports("b", 4))
    assert [one.scope for _, one in found] == scopes


def test_an_incident_of_all_has_no_device_and_says_how_many_ports() -> None:
    names = [f"{device}_{number}_in" for device in "abc" for number in range(1, 5)]
    judged = ports("a", 4) | ports("b", 4) | ports("c", 4)
    shared = Shared()
    ((time, opened),) = observed(shared, opens(*names), judged)
    assert (opened.tags, opened.ports) == ({"scope": "all", "detector": "profile"}, 12)
    assert describe_incident(time, opened).startswith(
        "2023-01-02T01:00:00Z incident opens: all devices, 12 ports at once, most of all 20 B (expected 1000)"
    )
    # While it is open, another device has its own.
    own = opens("d_1_in", "d_2_in", "d_3_in", at=START + 4 * HOUR)
    found = observed(shared, own, judged | ports("d", 4))
    assert [(one.scope, one.name) for _, one in found] == [(OF_DEVICE, "d")]


# --- hour by hour --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_run_by_run_the_incidents_are_those_of_all_at_once(seed: int) -> None:

    chance = random.Random(seed)
    changes: list[Change] = []
    for number in range(60):
        at = START + BUCKET * chance.randrange(1, 100)
        opened = opens(f"{chance.choice('ab')}_{number % 6}_{chance.choice(['in', 'out'])}", at=at)
        changes += [*opened, closes(opened[0], at + BUCKET * chance.randrange(5, 30))]
    judged = ports("a", 6) | ports("b", 6)
    at_once = observed(Shared(), changes, judged)
    shared, found = Shared(), []
    for begin in range(START, START + 140 * BUCKET, HOUR):
        part = [change for change in changes if begin < change[0] <= begin + HOUR]
        found += observed(shared, part, judged)
    assert found == at_once
    assert {one.scope for _, one in at_once} >= {OF_DEVICE}
