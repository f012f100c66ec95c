"""Incidents are published for other programs, the newest of each."""

import json
from pathlib import Path

import pytest

from service.incident_log import IncidentLog

MOMENT = "2026-03-06T12:00:00Z"
WHOLE = {"half": "edge", "node": "", "cause": "cpu", "began": MOMENT, "opened": MOMENT, "last": MOMENT}
WHOLE |= {"ended": None, "why": "cpu 98 %", "metrics": {}}


def test_the_newest_entry_of_each_incident_is_read_in_the_order_in_which_they_opened(tmp_path: Path) -> None:
    log = IncidentLog(tmp_path)
    first, second = WHOLE | {"id": "a"}, WHOLE | {"id": "b"}
    log.add([first, second])
    log.add([first | {"ended": MOMENT}])
    with open(tmp_path / "incidents.jsonl", "a") as file:
        file.write('{"id": 5}\n{"ended": 1}\n{"id": "c", "en')
    assert IncidentLog(tmp_path).read() == {"a": first | {"ended": MOMENT}, "b": second}
    assert list(IncidentLog(tmp_path).read()) == ["a", "b"]


@pytest.mark.parametrize("key", ["id", *WHOLE])
def test_an_entry_that_lacks_something_is_left_out(tmp_path: Path, key: str) -> None:
    whole = WHOLE | {"id": "a"}
    lines = [
        whole,
        {name: one for name, one in whole.items() if name != key} | {"other": 1},
        whole | {key: 5},
    ]
    (tmp_path / "incidents.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in lines))
    assert IncidentLog(tmp_path).read() == {"a": whole}


@pytest.mark.parametrize("members", [5, [5], None])
def test_odd_members_of_an_incident_of_many_are_left_out(tmp_path: Path, members: object) -> None:
    IncidentLog(tmp_path).add([WHOLE | {"id": "a", "members": members}])
    assert IncidentLog(tmp_path).read() == {}


def test_nothing_is_written_while_there_is_nothing_to_say(tmp_path: Path) -> None:
    IncidentLog(tmp_path).add([])
    assert IncidentLog(tmp_path).read() == {}
    assert list(tmp_path.iterdir()) == []
