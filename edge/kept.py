"""What is kept of a node over a restart: its whole state now and then, in between only what has changed.

A state is kept as parts. Each record of the window is one, named by its place in a ring, so that a poll adds
one record and not the whole window.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from common.values import mapping, whole
from edge.scores import SCORE_RECORDS

# A whole state is written every so many polls: as many changes must be read again at a restart.
WHOLE_POLLS = 30
_ROW = "row "
_OF_MONITOR = ("selection", "last_record", "reader", "judge")


class KeptState:
    """The parts of a node's state as they were last written.

    kept = KeptState()
    kept.whole(watch.state())               # all of it, as JSON
    kept.changes(watch.state(kept.slot))    # the parts that have changed since, as JSON; empty if none has

    slot: the slot of the newest record that was written, None if none was.
    """

    def __init__(self) -> None:
        self._parts: dict[str, Any] = {}
        self._texts: dict[str, str] = {}
        self.slot: int | None = None

    def can_follow(self, slot: int | None) -> bool:
        """Whether changes can lead to a state whose newest record is in this slot, which may be earlier."""
        return self.slot is None or (slot is not None and slot >= self.slot)

    def whole(self, state: Mapping[str, Any]) -> str:
        """All parts of a state, as an object in JSON."""
        self._parts, self._texts = {}, {}
        return self.changes(state)

    def changes(self, state: Mapping[str, Any]) -> str:
        """The parts that are not as they were last time, likewise; empty if all are."""
        changed = []
        for name, part in parts_of(state).items():
            # Most objects are made anew for a state; those that are not are never changed. What a selection
            # holds is never changed either, but replaced.
            if part is self._parts.get(name) or (name == "selection" and part == self._parts.get(name)):
                continue
            text = json.dumps(part)
            if name.startswith(_ROW):
                # A record does not change.
                changed.append(f'"{name}": {text}')
                continue
            if self._texts.get(name) != text:
                self._texts[name] = text
                changed.append(f'"{name}": {text}')
            self._parts[name] = part
        self.slot = state["monitor"]["judge"]["last_slot"]
        return f"{{{', '.join(changed)}}}" if changed else ""


def parts_of(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state of a watch as parts. Its window may have only the newest records."""
    monitor = dict(state["monitor"])
    judge = dict(monitor.pop("judge"))
    window, last_slot = judge.pop("window"), judge["last_slot"]
    parts = {name: part for name, part in state.items() if name != "monitor"}
    selection = dict(monitor.pop("selection"))
    # It grows with each record, unlike the rest of the selection.
    monitor["number"] = selection.pop("number")
    parts |= {"selection": selection, "last_record": monitor.pop("last_record")}
    rows = {}
    for age, values in enumerate(reversed(window)):
        rows[f"{_ROW}{(last_slot - age) % SCORE_RECORDS}"] = [last_slot - age, values]
    return {**parts, "reader": monitor, "judge": judge, **rows}


def state_of(parts: Mapping[str, Any]) -> dict[str, Any]:
    """The state of a watch, from its parts.

    Raises KeyError, TypeError or ValueError if they are not those of one state.
    """
    if "monitor" in parts:
        # A version before wrote states whole.
        return dict(parts)
    judge = dict(mapping(parts["judge"]))
    window = []
    for age in range(whole(judge["length"])):
        slot, values = parts[f"{_ROW}{(judge['last_slot'] - age) % SCORE_RECORDS}"]
        if slot != judge["last_slot"] - age:
            raise ValueError("a window with a gap")
        window.append(values)
    monitor = dict(mapping(parts["reader"]))
    monitor["selection"] = {**mapping(parts["selection"]), "number": monitor.pop("number")}
    monitor["last_record"] = parts["last_record"]
    monitor["judge"] = {**judge, "window": window[::-1]}
    others = {
        name: part for name, part in parts.items() if name not in _OF_MONITOR and not name.startswith(_ROW)
    }
    return {**others, "monitor": monitor}
