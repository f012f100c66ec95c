"""What is kept of a node: after any changes, it is the state that it was."""

from __future__ import annotations

import json
import random

import pytest

from edge.kept import KeptState, state_of


def state(slot: int | None, length: int, number: int, since: int | None = None) -> dict:
    """A state of a watch with so many records up to a slot; of the window, those after the slot `since`."""
    rows = [] if slot is None else [[float(slot - age), number / 7] for age in range(length)][::-1]
    newest = rows if since is None else rows[max(length - (slot - since), 0) :]
    judge = {"window": newest, "length": len(rows), "anomalies": number % 3, "last_slot": slot}
    return {
        "watched": {"version": 1},
        "monitor": {
            "judged_before": number,
            "selection": {"watched": {"node": "edge:9100"}, "number": number},
            "last_record": {"rx_cpu_time": [{"time": number, "value": 1.5}]},
            "judge": judge,
        },
        "incidents": {"open": None},
    }


def test_after_any_changes_it_is_the_newest_state() -> None:
    numbers = random.Random(3)
    kept, slot = KeptState(), 100
    parts = json.loads(kept.whole(state(slot, 5, 0)))
    for number in range(1, 300):
        slot += numbers.choice((0, 1, 1, 1, 2, 5))
        # Records that are in a window once stay as they are.
        made = state(slot, min(5 + number, 59), 0, kept.slot)
        made["monitor"]["judged_before"] = number
        parts |= json.loads(kept.changes(made) or "{}")
        whole = state(slot, min(5 + number, 59), 0)
        whole["monitor"]["judged_before"] = number
        assert state_of(parts) == whole


def test_nothing_is_written_of_what_has_not_changed() -> None:
    kept = KeptState()
    kept.whole(state(100, 59, 7))
    assert kept.changes(state(100, 59, 7, kept.slot)) == ""
    assert json.loads(kept.changes(state(101, 59, 7, kept.slot))) == {
        "judge": {"length": 59, "anomalies": 1, "last_slot": 101},
        "row 42": [101, [101.0, 1.0]],
    }


@pytest.mark.parametrize(("slot", "can"), [(101, True), (100, True), (99, False), (None, False)])
def test_changes_do_not_lead_to_a_state_of_an_earlier_slot(slot: int | None, can: bool) -> None:
    kept = KeptState()
    assert kept.can_follow(slot)
    kept.whole(state(100, 5, 0))
    assert kept.can_follow(slot) is can


@pytest.mark.parametrize("damage", ["row 41", "judge", "reader", "selection", "last_record"])
def test_parts_that_are_not_those_of_one_state_are_refused(damage: str) -> None:
    parts = json.loads(KeptState().whole(state(100, 5, 0)))
    assert state_of(parts) == state(100, 5, 0)
    del parts[damage]
    with pytest.raises(KeyError):
        state_of(parts)


@pytest.mark.parametrize("damage", ["row 41", "judge", "reader", "selection"])
def test_a_part_of_another_kind_is_refused(damage: str) -> None:
    parts = json.loads(KeptState().whole(state(100, 5, 0)))
    with pytest.raises((TypeError, ValueError)):
        state_of(parts | {damage: 5})
