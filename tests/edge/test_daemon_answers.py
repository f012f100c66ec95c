"""A person answers an incident while the daemon runs: with a real server, and by the command itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import find_anomalies
from edge.history import History
from edge.page import EdgePage
from lab.influxd import Influxd
from service.incident_log import IncidentLog
from service.json_lines import JsonLines
from tests.support.edge_daemon import FIRST, SLOTS, Edge, said


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[Edge]:
    """A server of its own, the first slots judged; the next slot is FIRST."""
    with Influxd(tmp_path / "influxd") as server:
        edge = Edge(server, tmp_path)
        edge.feed(*range(FIRST))
        assert edge.daemon.poll() is False
        yield edge
        edge.stop()


def test_an_answer_counts_from_the_next_poll_and_closes_the_incident(
    edge: Edge, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    # The attack lasts from slot 16 to slot 23.
    edge.live(*range(FIRST, 20))
    state, answers = edge.folder / "state", edge.folder / "answers.json"
    (entry,) = IncidentLog(state).read().values()
    assert entry["ended"] is None
    words = ["--mode", "answer", "--incident", entry["id"], "--normal", "--yes", "--timezone", "UTC"]
    assert find_anomalies.main([*words, "--answers_file", str(answers), "--state_dir", str(state)]) == 0
    assert "it would have kept quiet 4 known anomalies, 1 of them alerts" in capfd.readouterr().out
    caplog.clear()
    edge.live(*range(20, SLOTS))
    lines = said(caplog)
    (change,) = [line for line in lines if line.startswith(f"{answers}: ")]
    assert change.startswith(f"{answers}: {entry['id']} keeps ")
    (closes,) = [line for line in lines if "incident" in line]
    assert f"; kept quiet by answer {entry['id']} [{entry['id']}]" in closes
    # All are stored, at the times and with the causes of before.
    stored = edge.stored()
    assert [severity for _, severity, _ in stored[:4]] == ["anomaly", "anomaly", "anomaly", "alert"]
    assert {severity for _, severity, _ in stored[4:]} == {"anomaly"}
    assert [(time, cause) for time, _, cause in stored] == [
        (time, cause) for time, _, cause in edge.expected()
    ]
    polls = JsonLines(state / "polls.jsonl", 10**7).read()
    quiets = [one["quiet"] for poll in polls for one in poll["verdicts"] if "quiet" in one]
    assert quiets == [f"answer {entry['id']}"] * (len(stored) - 4)


def test_who_is_kept_quiet_is_shown_to_prometheus_and_on_the_page(edge: Edge) -> None:
    def quiet_nodes() -> float | None:
        return edge.metrics.registry.get_sample_value("find_anomalies_quiet_nodes")

    edge.live(FIRST)
    assert quiet_nodes() == 0
    answers = edge.folder / "answers.json"
    words = ["--mode", "answer", "--maintenance", "--node", "all", "--until", "2h"]
    assert find_anomalies.main([*words, "--answers_file", str(answers), "--state_dir", str(edge.folder)]) == 0
    (name,) = json.loads(answers.read_text())
    edge.live(FIRST + 1)
    assert quiet_nodes() == 1
    page = EdgePage(History(edge.folder / "history"), IncidentLog(edge.folder), 15.0)
    page.show({"": page.standing_of("", edge.daemon.watch, "normal")}, {}, [], "")
    notes = json.loads(page.now({}))["notes"]
    assert {"kind": "quiet", "what": [f"answer {name}"], "nodes": [""]} in notes
