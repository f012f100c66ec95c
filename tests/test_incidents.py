"""What is said of many verdicts: incidents open and close once, a changed normal is drift."""

import json
import random

import pytest

from detector import ALERT, ALERT_RECORDS, ANOMALY, NORMAL, THRESHOLD_KEYS, UNKNOWN, WINDOW_RECORDS, Verdict
from incidents import NAMES, Drift, Incidents

SECOND = 10**9
START = 1_772_798_400 * SECOND  # 2026-03-06T12:00:00Z
THRESHOLDS = dict.fromkeys(THRESHOLD_KEYS, 0.5)


def verdicts(pattern: str, causes: dict[str, float] | None = None) -> list[Verdict]:
    """One for each letter, 15 s apart: n normal, a anomaly (an alert from the fourth on), u unknown."""
    causes = {"cpu": 2.0} if causes is None else causes
    found, row, unknowns = [], 0, 0
    for index, letter in enumerate(pattern):
        if letter == "u":
            unknowns += 1
            row = 0 if unknowns >= WINDOW_RECORDS else row
            status = UNKNOWN
        else:
            unknowns = 0
            row = row + 1 if letter == "a" else 0
            status = NORMAL if letter == "n" else ALERT if row >= ALERT_RECORDS else ANOMALY
        rmse = dict.fromkeys(NAMES, 0.1) | (causes if letter == "a" else {})
        blamed = tuple(name for name in causes if name != "overall") if letter == "a" else ()
        found.append(Verdict(START + index * 15 * SECOND, status, blamed, (), rmse, {}, in_a_row=row))
    return found


def said(pattern: str) -> list[str]:
    incidents = Incidents()
    return [line for verdict in verdicts(pattern) for line in incidents.observe(verdict, THRESHOLDS)]


def test_an_incident_is_said_once_when_it_opens_and_once_when_it_closes() -> None:
    assert said("nn" + "a" * 44 + "nnnnnnnn") == [
        "2026-03-06T12:01:15Z incident opens: cpu (4 anomalies in a row)",
        # From the first anomaly of the row on.
        "2026-03-06T12:11:15Z incident closes: cpu for 10 min 45 s since 2026-03-06T12:00:30Z;"
        " peak RMSE in thresholds: cpu 4.0",
    ]


@pytest.mark.parametrize(
    ("pattern", "lines"),
    [
        pytest.param("aaannnnn", 0, id="three anomalies are none"),
        pytest.param("aaaannn", 1, id="three quiet records do not close it"),
        pytest.param("aaaannnn", 2, id="four do"),
        pytest.param("aaaannnaaaannnaaaan", 1, id="an attack that pauses is one"),
        pytest.param("aaaannnannnannn", 1, id="single anomalies hold it"),
        pytest.param("aaaa" + "u" * 29, 1, id="unknown records do not close it"),
        pytest.param("aaaa" + "u" * 40, 2, id="a window of unknown records does"),
        pytest.param("aaaannnnaaaannnn", 4, id="two are two"),
    ],
)
def test_when_an_incident_opens_and_closes(pattern: str, lines: int) -> None:
    assert len(said(pattern)) == lines


def test_causes_come_in_a_fixed_order_with_their_peaks() -> None:
    incidents = Incidents()
    one = verdicts("aaaa", {"mem": 1.0})
    two = verdicts("n" * 4 + "aa" + "nnnn", {"cpu": 3.25, "mem": 0.75})
    lines = [line for v in [*one, *two[4:]] for line in incidents.observe(v, THRESHOLDS)]
    assert lines[-1].endswith(
        "incident closes: cpu | mem for 1 min 15 s since 2026-03-06T12:00:00Z;"
        " peak RMSE in thresholds: cpu 6.5, mem 2.0"
    )


def test_without_a_metric_over_its_threshold_the_cause_is_unknown() -> None:
    incidents = Incidents()
    lines = [
        line for v in verdicts("aaaannnn", {"overall": 1.5}) for line in incidents.observe(v, THRESHOLDS)
    ]
    assert "incident opens: unknown cause" in lines[0]
    assert lines[1].endswith("peak RMSE in thresholds: overall 3.0")


def test_an_incident_over_a_restart_is_one() -> None:
    pattern = verdicts("nn" + "a" * 20 + "nnaannnnnn" + "aaaa")
    whole = Incidents()
    expected = [line for v in pattern for line in whole.observe(v, THRESHOLDS)]
    assert len(expected) == 3
    for stop in range(len(pattern)):
        first, second = Incidents(), Incidents()
        lines = [line for v in pattern[:stop] for line in first.observe(v, THRESHOLDS)]
        second.restore(json.loads(json.dumps(first.state())))
        lines += [line for v in pattern[stop:] for line in second.observe(v, THRESHOLDS)]
        assert lines == expected


def test_drift_is_said_once_when_it_begins_and_once_when_it_ends() -> None:
    drift = Drift(8)
    events = [drift.observe(v, THRESHOLDS) for v in verdicts("nnaaaaaaaaaannnnnnnnnn")]
    begun = {i: names for i, (names, _) in enumerate(events) if names}
    ended = {i: names for i, (_, names) in enumerate(events) if names}
    # The fifth of eight is most of them; with the seventh normal one, one of eight is left.
    assert begun == {6: ["cpu"]}
    assert ended == {18: ["cpu"]}
    assert drift.drifting == []


def test_drift_counts_as_a_brute_force_twin_does_also_over_restarts() -> None:
    rng = random.Random(3)
    pattern = verdicts("".join(rng.choice("aaan") for _ in range(150)) + "n" * 60 + "aan" * 40)
    drift, drifting = Drift(20), False
    for index, verdict in enumerate(pattern):
        begun, ended = drift.observe(verdict, THRESHOLDS)
        over = sum(v.rmse["cpu"] > 0.5 for v in pattern[max(0, index - 19) : index + 1])
        was = drifting
        drifting = over > 10 or (drifting and over >= 5)
        assert (begun, ended) == (["cpu"] * (drifting and not was), ["cpu"] * (was and not drifting))
        if index % 7 == 0:
            state = json.loads(json.dumps(drift.state()))
            drift = Drift(20)
            drift.restore(state)


def test_unknown_records_are_no_drift() -> None:
    drift = Drift(4)
    nothing = [Verdict(0, UNKNOWN, (), ("cpu",), dict.fromkeys(NAMES, float("nan")), {})] * 10
    assert all(drift.observe(v, THRESHOLDS) == ([], []) for v in nothing)
