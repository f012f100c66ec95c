"""What is said of many verdicts: incidents open and close once, a changed normal is drift."""

import json
import random

import pytest

from common.alerts import UNKNOWN, Row
from edge.detector import Verdict
from edge.drift import Drift, FirstRecords
from edge.incidents import Incidents
from tests.support.metrics import NAMES, THRESHOLD_KEYS

SECOND = 10**9
START = 1_772_798_400 * SECOND  # 2026-03-06T12:00:00Z
THRESHOLDS = dict.fromkeys(THRESHOLD_KEYS, 0.5)


def verdicts(pattern: str, causes: dict[str, float] | None = None) -> list[Verdict]:
    """One for each letter, 15 s apart: n normal, a anomaly (or an alert, by the rule), u unknown."""
    causes = {"cpu": 2.0} if causes is None else causes
    found, row = [], Row()
    for index, letter in enumerate(pattern):
        status = row.status(letter == "a", letter == "u")
        rmse = dict.fromkeys(NAMES, 0.1) | (causes if letter == "a" else {})
        blamed = tuple(name for name in causes if name != "overall") if letter == "a" else ()
        time = START + index * 15 * SECOND
        counts = {"in_a_row": row.anomalies, "recent": row.recent, "is_alert_up": row.is_up}
        found.append(Verdict(time, status, blamed, (), rmse, {}, **counts))
    return found


def said(pattern: str) -> list[str]:
    incidents = Incidents()
    return [line for verdict in verdicts(pattern) for line in incidents.observe(verdict, THRESHOLDS)]


def test_an_incident_is_said_once_when_it_opens_and_once_when_it_closes() -> None:
    assert said("nn" + "a" * 44 + "nnnnnnnn") == [
        "2026-03-06T12:01:15Z incident opens: cpu [20260306T120030Z]",
        # From the first anomaly of the row on.
        "2026-03-06T12:11:15Z incident closes: cpu for 10 min 45 s since 2026-03-06T12:00:30Z;"
        " peak RMSE / threshold: cpu 4.0 [20260306T120030Z]",
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
        pytest.param("ann" * 100, 1, id="what comes and goes is one"),
        pytest.param("aannnnnn" * 100, 1, id="also if its number is now 8 and now 7"),
        pytest.param("ann" * 10 + "n" * 18, 1, id="four of 30 hold it"),
        pytest.param("ann" * 10 + "n" * 19, 2, id="three do not"),
        pytest.param("an" * 8 + "aaaa" + "nnnnn" * 3 + "n", 1, id="a row in it does not end it"),
        pytest.param("ann" * 10 + "u" * 18, 1, id="unknown records end it no sooner"),
    ],
)
def test_when_an_incident_opens_and_closes(pattern: str, lines: int) -> None:
    assert len(said(pattern)) == lines


def test_an_incident_of_many_anomalies_began_with_the_first_of_them() -> None:
    # The first anomaly of all is too long ago to count.
    assert said("a" + "n" * 18 + "an" * 8 + "n" * 40) == [
        "2026-03-06T12:08:15Z incident opens: cpu [20260306T120445Z]",
        "2026-03-06T12:08:15Z incident closes: cpu for 3 min 30 s since 2026-03-06T12:04:45Z;"
        " peak RMSE / threshold: cpu 4.0 [20260306T120445Z]",
    ]


def test_an_incident_that_is_seen_from_its_middle_began_with_what_was_seen() -> None:
    incidents = Incidents()
    lines = [line for v in verdicts("a" * 20 + "nnnn")[9:] for line in incidents.observe(v, THRESHOLDS)]
    assert len(lines) == 2
    assert "cpu for 2 min 30 s since 2026-03-06T12:02:15Z;" in lines[1]


def test_causes_come_in_a_fixed_order_with_their_peaks() -> None:
    incidents = Incidents()
    one = verdicts("aaaa", {"mem": 1.0})
    two = verdicts("n" * 4 + "aa" + "nnnn", {"cpu": 3.25, "mem": 0.75})
    lines = [line for v in [*one, *two[4:]] for line in incidents.observe(v, THRESHOLDS)]
    assert lines[-1].endswith(
        "incident closes: cpu | mem for 1 min 15 s since 2026-03-06T12:00:00Z;"
        " peak RMSE / threshold: cpu 6.5, mem 2.0 [20260306T120000Z]"
    )


def test_without_a_metric_over_its_threshold_the_cause_is_unknown() -> None:
    incidents = Incidents()
    lines = [
        line for v in verdicts("aaaannnn", {"overall": 1.5}) for line in incidents.observe(v, THRESHOLDS)
    ]
    assert "incident opens: unknown cause" in lines[0]
    assert lines[1].endswith("peak RMSE / threshold: overall 3.0 [20260306T120000Z]")


def test_an_incident_over_a_restart_is_one() -> None:
    pattern = verdicts("nn" + "a" * 20 + "nnaannnnnn" + "aaaannnn" + "n" * 30 + "ann" * 9 + "n" * 30)
    whole = Incidents()
    expected = [line for v in pattern for line in whole.observe(v, THRESHOLDS)]
    assert len(expected) == 6
    for stop in range(len(pattern)):
        first, second = Incidents(), Incidents()
        lines = [line for v in pattern[:stop] for line in first.observe(v, THRESHOLDS)]
        second.restore(json.loads(json.dumps(first.state())))
        lines += [line for v in pattern[stop:] for line in second.observe(v, THRESHOLDS)]
        assert lines == expected


def test_a_state_of_the_version_before_is_taken_up() -> None:
    pattern = verdicts("aaaa" + "a" * 4 + "nnnn")
    first, second = Incidents(), Incidents()
    lines = [line for v in pattern[:6] for line in first.observe(v, THRESHOLDS)]
    state = first.state()
    second.restore({"open": state["open"], "quiet": state["quiet"], "row_began": START})
    lines += [line for v in pattern[6:] for line in second.observe(v, THRESHOLDS)]
    assert len(lines) == 2
    assert "cpu for 1 min 45 s since 2026-03-06T12:00:00Z" in lines[1]


# --- the first records of a model ----------------------------------------------------------------

HOST = {"cpu": 2.0, "mem": 2.0}
FLOOD = dict.fromkeys([name for name in NAMES if name not in ("mem", "overall")], 2.0)


def strangers(
    pattern: str, causes: dict[str, float], first: FirstRecords | None = None
) -> dict[int, list[str]]:
    """The metrics that show another node's model, by the place of the record after which they do."""
    first = FirstRecords() if first is None else first
    found = {place: first.observe(v, "one") for place, v in enumerate(verdicts(pattern, causes))}
    return {place: names for place, names in found.items() if names}


@pytest.mark.parametrize(
    ("pattern", "causes", "expected"),
    [
        pytest.param("a" * 99, HOST, {9: ["cpu", "mem"]}, id="another host, said once"),
        pytest.param("u" * 11 + "a" * 99, HOST, {20: ["cpu", "mem"]}, id="unknown records do not count"),
        pytest.param("n" + "a" * 99, HOST, {9: ["cpu", "mem"]}, id="nine of ten"),
        pytest.param("nn" + "a" * 99, HOST, {19: ["cpu", "mem"]}, id="eighteen of twenty"),
        pytest.param("nnnn" + "a" * 99, HOST, {}, id="not nearly all of a window"),
        pytest.param("a" * 9, HOST, {}, id="too few"),
        pytest.param("a" * 99, {"mem": 2.0}, {29: ["mem"]}, id="the memory alone, after a window"),
        pytest.param("a" * 29 + "n" * 9, {"mem": 2.0}, {29: ["mem"]}, id="29 of 30"),
        pytest.param("a" * 20 + "n" * 79, {"mem": 2.0}, {}, id="an attack on the memory"),
        pytest.param("a" * 99, {"cpu": 2.0}, {}, id="an attack on the CPU"),
        pytest.param("a" * 99, FLOOD, {}, id="a flood leaves the memory as it is"),
        pytest.param("a" * 99, {"overall": 2.0}, {}, id="no metric alone"),
        pytest.param("n" * 30 + "a" * 99, HOST, {}, id="what comes later"),
    ],
)
def test_a_model_of_another_node_shows_in_its_first_records(
    pattern: str, causes: dict[str, float], expected: dict[int, list[str]]
) -> None:
    assert strangers(pattern, causes) == expected


def test_over_a_restart_at_any_record_it_is_said_once_and_another_model_starts_again() -> None:
    for stop in range(14):
        first, second = FirstRecords(), FirstRecords()
        found = strangers("a" * stop, HOST, first)
        second.restore(json.loads(json.dumps(first.state())))
        assert len(found) + len(strangers("a" * (60 - stop), HOST, second)) == 1
    again = [second.observe(v, "another") for v in verdicts("a" * 20, HOST)]
    assert [place for place, names in enumerate(again) if names] == [9]


# --- drift ---------------------------------------------------------------------------------------


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


def test_an_incident_closes_though_something_else_is_unknown() -> None:
    incidents, row = Incidents(), Row()
    lines = []
    for index, letter in enumerate("aaaa" + "u" * 6 + "aaaa"):
        status = row.status(letter == "a", letter == "u")
        causes, unknown = (("cpu",), ()) if letter == "a" else ((), ("mem",))
        counts = {"in_a_row": row.anomalies, "recent": row.recent, "is_alert_up": row.is_up}
        rmse = dict.fromkeys(NAMES, 2.0)
        verdict = Verdict(START + index * 15 * SECOND, status, causes, unknown, rmse, {}, **counts)
        lines += [line.split()[2] for line in incidents.observe(verdict, THRESHOLDS)]
    assert lines == ["opens:", "closes:", "opens:"]
