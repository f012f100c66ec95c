"""--mode answer: lists incidents, writes what they were, shows what that hides, and takes it back."""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import find_anomalies
from commands import answer
from common.answers import Answer, load_answers, write_answers
from edge.detector import Verdict
from edge.monitor import Judged
from edge.poll_log import Polled, PollLog
from service.incident_log import IncidentLog

SECOND = 10**9
NOON = 1_772_798_400 * SECOND  # 2026-03-06T12:00:00Z
CPU = {"unit": "%", "first": "2026-03-06T12:00:00Z", "lowest": 58.0, "highest": 60.0, "share": 9.0}
INCIDENT = {
    "id": "edge-7@20260306T120000Z",
    "half": "edge",
    "node": "edge-7",
    "cause": "cpu",
    "began": "2026-03-06T12:00:00Z",
    "opened": "2026-03-06T12:00:45Z",
    "last": "2026-03-06T12:09:45Z",
    "ended": "2026-03-06T12:09:45Z",
    "why": "cpu 60 % (expected 5-9) on edge-7 for 45 s",
    "metrics": {"cpu": {**CPU, "expected": [5.0, 9.0]}},
}
Answering = Callable[..., tuple[int, str, str]]


def anomaly(minutes: float, cpu: float, status: str = "alert", causes: tuple[str, ...] = ("cpu",)) -> Judged:
    time = NOON + int(minutes * 60) * SECOND
    return Judged(Verdict(time, status, causes, (), {}, {}, levels={"cpu": cpu, "mem": 88.0}), {})


@pytest.fixture
def answering(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Answering:
    """Runs the command in a folder with one incident; returns exit code, output and errors."""
    IncidentLog(tmp_path).add([{**INCIDENT, "ended": None}, INCIDENT])
    judged = [anomaly(number / 4, 58.0 + number % 3) for number in range(40)]
    # Of the day before at the same time, at another time, too large, and of another metric.
    day = 24 * 60.0
    others = [
        anomaly(2 - day, 40.0),
        anomaly(300, 40.0),
        anomaly(3 - day, 90.0),
        anomaly(4 - day, 40.0, causes=("mem",)),
    ]
    log = PollLog(tmp_path)
    log.publish([Polled("edge-7", [*others, *judged], None, "model")])
    log.publish([Polled("edge-8", judged, None, "model")])

    def run(*words: str, target: str = "edge") -> tuple[int, str, str]:
        files = ["--answers_file", str(tmp_path / "answers.json"), "--state_dir", str(tmp_path)]
        code = find_anomalies.main(["--target", target, "--mode", "answer", *files, *words])
        said = capfd.readouterr()
        return code, said.out.replace(str(tmp_path), "DIR"), said.err.replace(str(tmp_path), "DIR")

    return run


def content(tmp_path: Path) -> dict[str, Any]:
    return json.loads((tmp_path / "answers.json").read_text())


def test_normal_shows_what_it_hides_and_is_written_with_who_and_when(
    answering: Answering, tmp_path: Path
) -> None:
    words = ["--incident", INCIDENT["id"], "--normal", "--timezone", "Europe/Rome"]
    code, shown, fault = answering(*words)
    assert (code, fault) == (
        1,
        "find_anomalies.py: nothing was written, since there is no terminal to ask on; give --yes\n",
    )
    assert not (tmp_path / "answers.json").exists()
    assert shown.splitlines() == [
        "edge-7@20260306T120000Z: cpu 60 % (expected 5-9) on edge-7 for 45 s",
        "normal keeps quiet, on edge-7 each day at 12:29-13:41 (Europe/Rome):",
        "  cpu from 4 % to 86 %",
        "the largest load that could hide in it: cpu up to 72 % for 1 h 12 min",
        "it would have kept quiet 41 known anomalies, 41 of them alerts, from 2026-03-05T12:02:00Z to"
        " 2026-03-06T12:09:45Z",
    ]
    code, _, fault = answering(*words, "--yes")
    assert (code, fault) == (0, "")
    given = content(tmp_path)[INCIDENT["id"]]
    assert given.pop("by") == getpass.getuser()
    assert given.pop("at") > "2026"
    assert given == {
        "answer": "normal",
        "half": "edge",
        "nodes": ["edge-7"],
        "from": "2026-03-06T11:59:45Z",
        "until": "2026-03-06T12:10:00Z",
        "metrics": {"cpu": {"from": 4.0, "to": 86.5, "lasting": {"from": 4.5, "to": 72.0}}},
        "daily": "12:29-13:41",
        "timezone": "Europe/Rome",
    }
    (answer,) = load_answers(tmp_path / "answers.json", "edge")
    assert answer.hours == "12:29-13:41"


def test_attack_and_maintenance_of_an_incident(answering: Answering, tmp_path: Path) -> None:
    assert answering("--incident", INCIDENT["id"], "--attack") == (
        0,
        "DIR/answers.json: edge-7@20260306T120000Z is attack: edge-7 stays out of training from"
        " 2026-03-06T11:59:45Z to 2026-03-06T12:10:00Z\n",
        "",
    )
    until = ("--until", "2026-03-06T14:00:00Z")
    at = content(tmp_path)[INCIDENT["id"]]["at"]
    replaces = f"it replaces: attack by {getpass.getuser()} at {at}\n"
    assert answering("--incident", INCIDENT["id"], "--maintenance", *until) == (
        1,
        replaces,
        "find_anomalies.py: nothing was written, since there is no terminal to ask on; give --yes\n",
    )
    assert answering("--incident", INCIDENT["id"], "--maintenance", *until, "--yes") == (
        0,
        f"{replaces}DIR/answers.json: edge-7@20260306T120000Z is maintenance: edge-7 is quiet and stays"
        " out of training from 2026-03-06T11:59:45Z to 2026-03-06T14:00:00Z\n",
        "",
    )
    (answer,) = load_answers(tmp_path / "answers.json", "edge")
    assert (answer.kind, answer.end) == ("maintenance", NOON + 7200 * SECOND)


def test_the_list_and_taking_back(answering: Answering, tmp_path: Path) -> None:
    unanswered = (
        "  edge-7@20260306T120000Z: ended 2026-03-06T12:09:45Z: cpu 60 % (expected 5-9) on edge-7 for 45 s\n"
    )
    nothing = f"DIR/answers.json: no answers\nDIR/incidents.jsonl: 1 incident without an answer\n{unanswered}"
    assert answering() == (0, nothing, "")
    answering("--incident", INCIDENT["id"], "--attack")
    at = content(tmp_path)[INCIDENT["id"]]["at"]
    assert answering()[1] == (
        "DIR/answers.json: 1 answer\n"
        "  edge-7@20260306T120000Z: attack: edge-7: from 2026-03-06T11:59:45Z to 2026-03-06T12:10:00Z"
        f" (by {getpass.getuser()} at {at})\n"
        "DIR/incidents.jsonl: no incidents without an answer\n"
    )
    taken = (
        f"DIR/answers.json: the answer to {INCIDENT['id']} was taken back; its records can be learnt again\n"
    )
    assert answering("--incident", INCIDENT["id"], "--take_back") == (0, taken, "")
    assert answering() == (0, nothing, "")


def test_who_answers_second_sees_the_first_answer(
    answering: Answering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ana answers between the look of the second person and the lock."""
    path = tmp_path / "answers.json"
    span = {"nodes": ["edge-7"], "from": "2026-03-06T12:00:00Z", "until": "2026-03-06T13:00:00Z"}
    ana = {"answer": "maintenance", **span, "by": "ana", "at": "2026-03-06T12:40:00Z"}

    def look(filename: str, half: str) -> tuple[Answer, ...]:
        found = load_answers(filename, half)
        write_answers(path, {INCIDENT["id"]: ana})
        return found

    told = "maintenance by ana at 2026-03-06T12:40:00Z"
    path.write_text("{}")
    monkeypatch.setattr(answer, "load_answers", _then(look))
    assert answering("--incident", INCIDENT["id"], "--attack") == (
        1,
        "",
        f"find_anomalies.py: nothing was written, since {INCIDENT['id']} has another answer by now: {told};"
        " answer again\n",
    )
    assert content(tmp_path)[INCIDENT["id"]] == ana
    path.write_text("{}")
    monkeypatch.setattr(answer, "load_answers", _then(look))
    code, said, _ = answering("--incident", INCIDENT["id"], "--attack", "--yes")
    assert (code, said.splitlines()[0]) == (0, f"it replaces: {told}")
    assert content(tmp_path)[INCIDENT["id"]]["answer"] == "attack"


def _then(look: Callable[[str, str], tuple[Answer, ...]]) -> Callable[[str, str], tuple[Answer, ...]]:
    """The command reads the file twice; only the second time is before it writes."""
    ways = iter((load_answers, look))
    return lambda filename, half: next(ways)(filename, half)


def test_names_that_are_not_known_are_told(answering: Answering) -> None:
    words = ("--maintenance", "--until", "1h", "--node")
    assert answering(*words, "edge-77")[1].splitlines()[0] == (
        "DIR does not know these names, which may be new or wrong: edge-77, did you mean edge-7?"
    )
    assert answering(*words, "edge-?")[1].startswith("DIR/answers.json: ")
    assert answering(*words, "sw1", target="ports")[1].startswith(
        "DIR has no names yet, so that sw1 cannot be checked\n"
    )


def test_a_maintenance_of_more_than_a_month_is_asked_about(answering: Answering, tmp_path: Path) -> None:
    words = ("--maintenance", "--node", "edge-7", "--until")
    code, said, fault = answering(*words, "32d")
    assert (code, said) == (1, "it would be quiet for 32 days\n")
    assert fault.endswith("there is no terminal to ask on; give --yes\n")
    assert not (tmp_path / "answers.json").exists()
    assert answering(*words, "31d")[0] == 0
    assert answering(*words, "32d", "--yes")[0] == 0


def test_the_list_has_units_and_three_digits(answering: Answering, tmp_path: Path) -> None:
    answering("--incident", INCIDENT["id"], "--normal", "--yes", "--timezone", "UTC")
    entry = content(tmp_path)[INCIDENT["id"]]
    entry |= {"metrics": {"cpu": {"from": 1.33841, "to": 57.6056}}, "nodes": ["*"]}
    (tmp_path / "answers.json").write_text(json.dumps({INCIDENT["id"]: entry}))
    assert ": normal: *: cpu 1.3 % to 58 %, daily 11:29-12:41 UTC (by " in answering()[1]


def test_the_only_node_is_called_the_node(answering: Answering, tmp_path: Path) -> None:
    only = {**INCIDENT, "id": "20260306T120000Z", "node": ""}
    IncidentLog(tmp_path).add([only])
    shown = answering("--incident", only["id"], "--normal", "--yes", "--timezone", "UTC")[1]
    assert "normal keeps quiet, on the node each day at 11:29-12:41 (UTC):\n" in shown


def test_ids_of_ports_from_a_folder_have_no_incidents(answering: Answering) -> None:
    assert answering("--incident", "1_1_in@x", "--attack", target="ports")[2] == (
        "find_anomalies.py: DIR/incidents.jsonl: has no incident 1_1_in@x; no incident has opened yet, or"
        " --state_dir is another; a job that reads --ports_dir keeps none\n"
    )


def test_a_maintenance_without_an_incident(answering: Answering, tmp_path: Path) -> None:
    code, said, _ = answering(
        "--maintenance", "--node", "edge-1*", "--node", "core", "--until", "2h", "--since", "30m"
    )
    assert code == 0
    ((name, given),) = content(tmp_path).items()
    assert name.startswith("maintenance@")
    assert f"--incident {name} --take_back ends it" in said
    (answer,) = load_answers(tmp_path / "answers.json", "edge")
    assert (answer.kind, answer.nodes, (answer.end - answer.start) // SECOND) == (
        "maintenance",
        ("edge-1*", "core"),
        pytest.approx(9000, abs=2),
    )
    assert answering("--maintenance", "--node", "sw1", "--until", "1d", target="ports")[0] == 0
    assert load_answers(tmp_path / "answers.json", "ports")[0].nodes == ("sw1",)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            "--incident edge-7@20260306T1200 --attack",
            "DIR/incidents.jsonl: has no incident edge-7@20260306T1200;"
            " did you mean edge-7@20260306T120000Z?",
        ),
        (
            "--incident x --normal",
            "DIR/incidents.jsonl: has no incident x; did you mean edge-7@20260306T120000Z?",
        ),
        (
            "--incident edge-7@20260306T120000Z",
            "say what it is: --normal, --attack or --maintenance; or --take_back the answer",
        ),
        ("--incident x --take_back", "DIR/answers.json: has no answer to x"),
        ("--maintenance --until 2h", "--maintenance needs --incident ID, or --node NAME (all for all)"),
        (
            "--maintenance --node a",
            "--maintenance needs --until TIME, like 2h or 2023-01-31T22:00:00Z",
        ),
        (
            "--maintenance --node a --until 2023-01-31",
            "--until is over already; give a time to come, like 2h or 2023-01-31T22:00:00Z",
        ),
        (
            "--incident edge-7@20260306T120000Z --attack --until 2026-03-06T11:00:00Z",
            "--until must be later than the incident began, 2026-03-06T12:00:00Z",
        ),
    ],
)
def test_what_makes_no_sense_is_one_line(words: str, line: str, answering: Answering, tmp_path: Path) -> None:
    assert answering(*words.split()) == (1, "", f"find_anomalies.py: {line}\n")
    assert not (tmp_path / "answers.json").exists()


def test_an_incident_of_many_nodes_is_answered_for_each(answering: Answering, tmp_path: Path) -> None:
    other = {**INCIDENT, "id": "edge-8@20260306T120000Z", "node": "edge-8"}
    many = {**INCIDENT, "id": "many@20260306T120000Z", "node": "", "metrics": {}}
    many["members"] = [INCIDENT["id"], other["id"]]
    IncidentLog(tmp_path).add([other, many])
    assert answering("--incident", many["id"], "--normal", "--yes")[0] == 0
    assert list(content(tmp_path)) == many["members"]
    assert "no incidents without an answer" in answering()[1]
    assert answering("--incident", many["id"], "--attack")[0] == 0
    assert content(tmp_path)[many["id"]]["nodes"] == ["edge-7", "edge-8"]


def test_a_port_is_answered_by_its_traffic(answering: Answering, tmp_path: Path) -> None:
    traffic = {"unit": "B/s", "lowest": 9e6, "highest": 12e6, "expected": [3e6, 5e6], "share": 3.0}
    port = {**INCIDENT, "id": "sw1_1_in@20260306T120000Z", "half": "ports", "node": "sw1_1_in"}
    port["metrics"] = {"traffic": traffic}
    IncidentLog(tmp_path).add([port])
    code, shown, _ = answering("--incident", port["id"], "--normal", "--yes", target="ports")
    assert code == 0
    # The middle is 4 MB/s: from 3 - 0.25 to 12 + 2.
    assert "  traffic from 2.8 MB/s to 14 MB/s\n" in shown
    given = content(tmp_path)[port["id"]]
    assert (given["nodes"], given["metrics"]) == (["sw1_1_in"], {"traffic": {"from": 2.75e6, "to": 14e6}})
    assert answering(target="ports")[1].endswith("no incidents without an answer\n")


def test_the_halves_share_a_file_but_no_answer(answering: Answering, tmp_path: Path) -> None:
    assert answering("--maintenance", "--node", "all", "--until", "1h")[0] == 0
    ((name, given),) = content(tmp_path).items()
    assert given["half"] == "edge"
    assert answering()[1].startswith("DIR/answers.json: 1 answer\n")
    assert answering(target="ports")[1].startswith("DIR/answers.json: no answers\n")
    assert answering("--incident", name, "--take_back", target="ports")[2] == (
        f"find_anomalies.py: DIR/answers.json: the answer to {name} is of --target edge; take it back there\n"
    )
