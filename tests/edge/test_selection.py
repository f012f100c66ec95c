"""What is known of a node's series saves the choice among them, and changes nothing of it."""

import copy
import json
from collections.abc import Callable

import pytest

from edge.selection import Choice, Selection, in_slots
from edge.source import Line, LinesByKey, tagged
from nodes.metrics import MEMORY_FREE, MEMORY_TOTAL, RX_CPU
from nodes.node import DEFAULT_NODE
from simulators import edge
from tests.support.metrics import lines_of

INTERVAL = 15 * 10**9
BEGIN = 1_772_798_400


def line(key: str, value: float, instance: str, **labels: str) -> LinesByKey:
    """One sample in the last of five slots."""
    return {
        key: [Line(tagged({"instance": instance, **labels}), [(BEGIN * 10**9 + 4 * INTERVAL + 10**9, value)])]
    }


def nothing(lines: LinesByKey) -> None:
    pass


def add(key: str, value: float, instance: str, **labels: str) -> Callable[[LinesByKey], None]:
    return lambda lines: lines[key].extend(line(key, value, instance, **labels)[key])


@pytest.mark.parametrize(
    ("change", "faults"),
    [
        (nothing, {}),
        (add(RX_CPU, 1.0, "rogue:9099", job="ran"), {}),
        (add(RX_CPU, 1.0, "gnb:9099", job="ran", label="new"), {}),
        (lambda lines: lines[RX_CPU].pop(), {RX_CPU: "no sample"}),
        (lambda lines: lines[RX_CPU][-1].samples.append((2 * 10**18, 1.0)), {}),
        (
            lambda lines: lines.update(line(RX_CPU, -1.0, "gnb:9099", job="ran")),
            {RX_CPU: "its value is negative"},
        ),
        (
            lambda lines: lines.update(line(MEMORY_FREE, 9e9, "edge:9100", job="node")),
            {MEMORY_FREE: f"its value is more than {MEMORY_TOTAL}"},
        ),
    ],
)
def test_known_series_are_chosen_as_if_each_were_looked_for(
    change: Callable[[LinesByKey], None], faults: dict[str, str]
) -> None:
    lines = lines_of(edge.simulate(3, BEGIN, 5 * 15))
    before = in_slots(lines, DEFAULT_NODE, INTERVAL)[:4]
    change(lines)
    slot = next(
        one for one in in_slots(lines, DEFAULT_NODE, INTERVAL) if one.start == BEGIN * 10**9 + 4 * INTERVAL
    )
    known = Selection(DEFAULT_NODE)
    for one in before:
        known.keep(known.choose(one))
    state = known.state()
    looking = Selection(DEFAULT_NODE)
    looking.restore(json.loads(json.dumps(state)))
    kept = copy.deepcopy(state)
    choices: list[Choice] = []
    for selection in (known, looking):
        choices.append(selection.choose(slot))
        selection.keep(choices[-1])
    assert choices[0] == choices[1]
    assert choices[0].faults == faults
    assert known.state() == looking.state()
    # Parts of a state are compared with those that were written before.
    assert state == kept
