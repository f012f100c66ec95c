"""Incidents are published for other programs, the newest of each."""

from pathlib import Path

from service.incident_log import IncidentLog


def test_the_newest_entry_of_each_incident_is_read_in_the_order_in_which_they_opened(tmp_path: Path) -> None:
    log = IncidentLog(tmp_path)
    log.add([{"id": "a", "ended": None}, {"id": "b", "ended": None}])
    log.add([{"id": "a", "ended": "2026-03-06T12:00:00Z"}])
    with open(tmp_path / "incidents.jsonl", "a") as file:
        file.write('{"id": 5}\n{"ended": 1}\n{"id": "c", "en')
    assert IncidentLog(tmp_path).read() == {
        "a": {"id": "a", "ended": "2026-03-06T12:00:00Z"},
        "b": {"id": "b", "ended": None},
    }
    assert list(IncidentLog(tmp_path).read()) == ["a", "b"]


def test_nothing_is_written_while_there_is_nothing_to_say(tmp_path: Path) -> None:
    IncidentLog(tmp_path).add([])
    assert IncidentLog(tmp_path).read() == {}
    assert list(tmp_path.iterdir()) == []
