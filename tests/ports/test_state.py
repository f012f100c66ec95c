"""What the hourly job keeps: an older file is read, a damaged one is named with what to do."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from common.files import UserError
from ports.incidents import OF_PORT, TRAFFIC, USUAL, PortIncident, Watched
from ports.shared import Shared
from ports.state import JobState, load_state, save_state
from tests.support.port_series import START

OPEN = PortIncident(OF_PORT, "a 1_1_in", "profile", START + 3600, START, START + 7200, 2.5, 10.0, 100.0, -5.5)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "ports.json"
    shared = PortIncident("device", "a 1", "profile", *OPEN_FIGURES)
    members = (OPEN, PortIncident(OF_PORT, "a 1_2_in", "profile", *OPEN_FIGURES, 1, USUAL))
    state = JobState(
        {("a 1_1_in", "profile"): START, ("b_1_in", "stl"): START + 900},
        {
            ("a 1_1_in", "profile"): Watched(OPEN, 15, 2, START),
            ("b_1_in", "stl"): Watched(kind=TRAFFIC, floor=0.5, calm=3, calm_since=START),
        },
        Shared({OPEN.key: OPEN}, {shared: {one.key: one for one in members}}),
    )
    save_state(state, path)
    assert load_state(path) == state
    assert state.open_incidents() == {
        ("port", "profile"): 1, ("device", "profile"): 1, ("all", "profile"): 0,
        ("port", "stl"): 0, ("device", "stl"): 0, ("all", "stl"): 0,
    }  # fmt: skip
    # The port is part of that of its device.
    assert state.open_alone_or_shared() == [shared]
    # A copy can be changed without a trace.
    copy = state.copy()
    copy.shared.members.clear()
    copy.shared.open.clear()
    copy.watched.clear()
    assert load_state(path) == state


OPEN_FIGURES = (START + 3600, START, START + 7200, 2.5, 10.0, 100.0, -5.5)


def test_a_file_of_an_older_version_and_no_file_are_read(tmp_path: Path) -> None:
    path = tmp_path / "ports.json"
    assert load_state(path) == JobState()
    path.write_text('{"core_1_in profile": "2023-01-02T00:00:00Z"}')
    assert load_state(path) == JobState({("core_1_in", "profile"): START})


def test_without_incidents_the_file_is_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "ports.json"
    watch = ("core_1_in", "profile")
    save_state(JobState({watch: START}, {watch: Watched()}), path)
    assert json.loads(path.read_text()) == {"core_1_in profile": "2023-01-02T00:00:00Z"}


def damaged(**changed: object) -> dict:
    """A state with one open incident, of which something is changed."""
    incident = {
        "scope": "port", "name": "a_1_in", "detector": "profile", "opened": START, "since": START,
        "until": START, "score": 2.0, "traffic": 1.0, "expected": 5.0, "surplus_bytes": -4.0, "ports": 1,
        "end": None,
    }  # fmt: skip
    watched = {
        "open": incident, "minutes": 15, "quiet": 0, "closed": 0, "kind": None, "floor": 0.0, "calm": 0,
        "calm_since": 0,
    }  # fmt: skip
    for key, value in changed.items():
        (incident if key in incident else watched)[key] = value
    return {"incidents": {"series": {"a_1_in profile": watched}, "open": [incident], "shared": []}}


def test_the_state_that_is_then_damaged_is_a_valid_one(tmp_path: Path) -> None:
    path = tmp_path / "ports.json"
    path.write_text(json.dumps(damaged()))
    assert load_state(path).watched["a_1_in", "profile"].open.since == START


@pytest.mark.parametrize(
    "content",
    [
        {"incidents": None},
        {"incidents": []},
        {"incidents": {"series": {}}},
        {"incidents": {"series": [], "open": [], "shared": []}},
        {"incidents": {"series": {}, "open": [1], "shared": []}},
        {"incidents": {"series": {}, "open": [], "shared": [{"incident": {}}]}},
        damaged(name="nothing"),
        damaged(scope="planet"),
        damaged(since="soon"),
        damaged(until=10**18),
        damaged(opened=-5),
        damaged(score=None),
        damaged(end="never"),
        damaged(kind="odd"),
        damaged(quiet=1.5),
        damaged(floor="0"),
    ],
)
def test_damaged_incidents_are_one_line_with_the_remedy(content: dict, tmp_path: Path) -> None:
    path = tmp_path / "ports.json"
    path.write_text(json.dumps(content))
    line = f"{path}: its incidents are damaged; delete the file, and all is judged since training"
    with pytest.raises(UserError, match=re.escape(line)):
        load_state(path)
