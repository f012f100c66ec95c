"""What keeps anomalies quiet: answers and windows, in runs of the detector on simulated nodes."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest

from benchmarks.answers import answer_to, judged, load_of
from common.answers import Answer, LevelRange
from common.calendars import load_windows
from common.times import parse_time
from edge.answering import hidden_by, pattern_of
from edge.bundle import load_bundle
from edge.detector import Verdict, _behind_overall
from edge.monitor import Judged
from edge.paths import DEFAULT_MODEL
from edge.poll_log import Polled, PollLog
from edge.quiet import NodeQuiet, Quiet, QuietFiles, lasting_ends
from edge.thresholds import load_thresholds
from nodes.metrics import METRICS
from service.log import Notices

ROOT = Path(__file__).resolve().parents[2]
NOON = parse_time("2026-03-06T12:00:00Z")
MINUTE = 60 * 10**9
NO_LEVELS = np.empty(0)


def normal(name: str, low: float, high: float, metric: str = "cpu") -> Answer:
    return Answer(name, "normal", ("*",), NOON, NOON + MINUTE, {metric: LevelRange(low, high)}, (700, 740))


def covers(quiet: NodeQuiet, causes: tuple[str, ...], time: int = NOON, **levels: float) -> str:
    recent = dict.fromkeys(causes, NO_LEVELS)
    return quiet.covers(time, "UTC", causes, levels, recent)


def test_each_cause_must_be_normal_at_that_time_of_day() -> None:
    quiet = NodeQuiet((normal("a", 5, 60), normal("b", 0, 9, "net_up")))
    assert covers(quiet, ("cpu",), cpu=60.0) == "answer a"
    assert covers(quiet, ("cpu",), cpu=60.1) == ""
    assert covers(quiet, ("cpu",), cpu=float("nan")) == ""
    assert covers(quiet, ("cpu",), NOON + 20 * MINUTE, cpu=50.0) == ""
    assert covers(quiet, ("cpu",), NOON + 24 * 60 * MINUTE, cpu=50.0) == "answer a"
    assert covers(quiet, ("cpu", "net_up"), cpu=50.0, net_up=1.0) == "answer a, b"
    assert covers(quiet, ("cpu", "mem"), cpu=50.0, mem=1.0) == ""
    assert covers(quiet, ()) == ""


def test_a_maintenance_and_a_window_cover_all_metrics(tmp_path: Path) -> None:
    maintenance = Answer("m", "maintenance", ("edge-7",), NOON, NOON + MINUTE)
    attack = Answer("x", "attack", ("*",), NOON, NOON + MINUTE)
    path = tmp_path / "calendar.json"
    backup = {"daily": "23:45-00:30", "nodes": ["core-*"]}
    of_ports = {"daily": "00:00-24:00", "series": ["*x"]}
    path.write_text(json.dumps({"backup": backup, "ports": of_ports}))
    quiet = Quiet([maintenance, attack], load_windows(path))
    edge, core = quiet.of("edge-7"), quiet.of("core-1")
    assert quiet.of("other") is None
    assert (covers(edge, ("mem",)), covers(edge, ("mem",), NOON + MINUTE)) == ("answer m", "")
    midnight = parse_time("2026-03-07T00:00:00Z")
    times = (midnight - 16 * MINUTE, midnight - 15 * MINUTE, midnight + 29 * MINUTE, midnight + 30 * MINUTE)
    assert [covers(core, (), time) for time in times] == ["", "calendar backup", "calendar backup", ""]


def test_what_lasts_has_limits_of_its_own() -> None:
    limits = {"cpu": LevelRange(0, 60, LevelRange(0, 40))}
    answer = Answer("a", "normal", ("*",), NOON, NOON + MINUTE, limits)
    quiet = NodeQuiet((answer,))

    def said(levels: list[float]) -> str:
        return quiet.covers(NOON, "UTC", ("cpu",), {"cpu": levels[-1]}, {"cpu": np.array(levels)})

    # Two thirds of 20 records are 14.
    assert said([10.0] * 7 + [50.0] * 13) == "answer a"
    assert said([10.0] * 6 + [50.0] * 14) == ""
    assert said([50.0] * 19) == "answer a"
    assert lasting_ends(np.array([10.0] * 6 + [50.0] * 14)) == (50.0, 50.0)


def test_the_metrics_behind_all_of_them_together() -> None:
    window, record = np.zeros(9), np.zeros(9)
    # Of twelve features, the two of the CPU and the one of net_up.
    window[0], window[4], record[0], record[4] = 1.0, 1.2, 4.0, 4.8
    window[-1] = np.sqrt((2 * 1.0 + 1.44) / 12)
    record[-1] = np.sqrt((2 * 16.0 + 4.8**2) / 12)
    assert _behind_overall(METRICS, window, record, 0.45) == ("cpu",)
    assert _behind_overall(METRICS, window, record, 0.3) == ("cpu", "net_up")


# --- whole runs ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle():
    return load_bundle(DEFAULT_MODEL)


@pytest.fixture(scope="module")
def thresholds(bundle):
    return load_thresholds(ROOT / "data/thresholds.json", bundle.metrics)


BEGIN = parse_time("2026-03-06T11:00:00Z") / 1e9


def run(bundle, thresholds, seed: int, size: float, quiet=None, day: int = 0):
    start = BEGIN + day * 86_400
    loads = load_of("cpu", size, start + 900, 12)
    return judged(bundle, thresholds, seed, start, 2100, loads, quiet)


def test_the_same_load_alerts_never_again_and_twice_as_much_always(bundle, thresholds) -> None:
    verdicts, incidents, lines = run(bundle, thresholds, 41, 40.0)
    answer = answer_to(verdicts, incidents, bundle)
    assert list(answer.metrics) == ["cpu"]
    assert 50 < answer.metrics["cpu"].high < 60
    quiet = Quiet([answer]).of("")
    again, incidents, lines = run(bundle, thresholds, 42, 42.0, quiet, day=1)
    quiets = [one for one in again if one.quiet]
    assert {one.quiet for one in quiets} == {f"answer {answer.id}"}
    assert len(quiets) >= 48
    assert "alert" not in {one.status for one in again}
    assert lines == []
    said = json.loads(quiets[0].to_json())
    assert (said["severity"], said["quiet"]) == ("anomaly", f"answer {answer.id}")
    twice, _, lines = run(bundle, thresholds, 43, 74.0, quiet, day=2)
    assert sum(one.status == "alert" for one in twice) >= 44
    assert "incident opens: cpu " in lines[0]
    # What it would have hidden of the first day is all of it.
    alerts = sum(one.status == "alert" for one in verdicts)
    hidden = hidden_by(NodeQuiet((answer,)), "UTC", verdicts)
    assert (hidden.anomalies, hidden.alerts) == (sum(one.is_anomaly for one in verdicts), alerts)


def test_what_lasts_counts_in_what_would_have_been_hidden() -> None:
    """Of 30 records in a row, the last 11 have 20 that are too large for what may last; a gap begins anew."""
    limits = {"cpu": LevelRange(0, 60, LevelRange(0, 40))}
    quiet = NodeQuiet((Answer("a", "normal", ("*",), NOON, NOON + MINUTE, limits),))

    def hidden(*gaps: int) -> int:
        times = [NOON + (number + sum(one <= number for one in gaps)) * MINUTE // 4 for number in range(30)]
        verdicts = [Verdict(time, "alert", ("cpu",), (), {}, {}, levels={"cpu": 50.0}) for time in times]
        return hidden_by(quiet, "UTC", verdicts).alerts

    assert (hidden(), hidden(15), hidden(25)) == (19, 30, 24)


def test_an_open_incident_closes_when_it_is_answered_and_says_why(bundle, thresholds) -> None:
    from benchmarks.answers import RECORD_SECONDS, Detector, Incidents, deviations, formatters, simulate

    detector, incidents = Detector(bundle, thresholds), Incidents(bundle.metrics)
    samples = simulate(44, BEGIN, 2100, load_of("cpu", 40.0, BEGIN + 900, 15))
    lines: list[str] = []
    for columns in formatters.format_records(formatters.slot_records(samples, RECORD_SECONDS)):
        verdict = detector.observe(int(columns["time"]), columns)
        reasons = deviations(bundle, thresholds, verdict) if verdict.is_loud else None
        lines += incidents.observe(verdict, thresholds, reasons)
        if verdict.time > (BEGIN + 1200) * 1e9 and detector.quiet is None:
            maintenance = Answer("work", "maintenance", ("*",), verdict.time, verdict.time + 40 * MINUTE)
            detector.quiet = Quiet([maintenance]).of("")
            opened, told = verdict.time, len(lines)
        if len(lines) > 1 and told == 1 and opened:
            # The fourth quiet record closes it.
            assert verdict.time - opened == pytest.approx(4 * 15 * 1e9, rel=0.1)
            opened = 0
    assert len(lines) == 2
    assert "; kept quiet by answer work [" in lines[1]


def test_an_open_incident_makes_a_pattern_of_all_that_is_known_by_now(bundle, thresholds) -> None:
    verdicts, incidents, _ = run(bundle, thresholds, 45, 40.0)
    loud = [one for one in verdicts if one.is_loud]
    opened = {"cpu": {"unit": "%", "lowest": 30.0, "highest": 31.0, "expected": [5.0, 9.0], "share": 2.0}}
    assert pattern_of(opened, [])["cpu"] == LevelRange(4.5, 37.0)
    found = pattern_of(opened, loud)["cpu"]
    highest = max(one.levels["cpu"] for one in loud)
    # Half as much more in a burst, and a quarter for long.
    assert found.high == pytest.approx(7 + 1.5 * (highest - 7), rel=1e-4)
    assert found.lasting.high == pytest.approx(7 + 1.25 * (highest - 7), rel=0.05)
    unknown = {"cpu": {**opened["cpu"], "expected": [None, 9.0]}}
    assert pattern_of(unknown, loud) == {}


def test_the_poll_log_keeps_levels_and_what_kept_quiet(bundle, thresholds, tmp_path: Path) -> None:
    quiet = Quiet([Answer("work", "maintenance", ("*",), 0, NOON * 2)]).of("")
    verdicts, _, _ = run(bundle, thresholds, 46, 40.0, quiet)
    log = PollLog(tmp_path)
    log.publish([Polled("", [Judged(one, {}) for one in verdicts[-100:]], None, "model")])
    read = list(log.verdicts(None))
    assert [one.quiet for one in read] == [one.quiet for one in verdicts[-100:]]
    first = next(one for one in read if one.quiet)
    same = next(one for one in verdicts if one.time == first.time)
    assert first.levels == {name: round(level, 5) for name, level in same.levels.items()}


def test_files_are_read_again_and_a_damaged_one_keeps_what_it_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "answers.json"
    files = QuietFiles(str(path), None, Notices())
    assert files.refresh().of("edge-7") is None

    def write(content: str, stamp: int) -> NodeQuiet | None:
        path.write_text(content)
        os.utime(path, (stamp, stamp))
        return files.refresh().of("edge-7")

    entry = {"answer": "maintenance", "nodes": ["edge-7"], "from": "2026-03-06", "until": "2026-03-07"}
    assert write(json.dumps({"m": entry}), 1).others[0].id == "m"
    assert write("{", 2).others[0].id == "m"
    assert write("{", 3).others[0].id == "m"
    assert write("{}", 4) is None
    assert write(json.dumps({"m": {**entry, "until": "2200-01-01", "nodes": ["edge-9"]}}), 5) is None
    changes = len(caplog.messages)
    for _ in range(2):
        files.check(["edge-7"], lambda: ["cpu"])
    assert caplog.messages[changes:] == [
        "nothing that is watched has these names: answer m: node edge-9, did you mean edge-7?"
    ]
    damaged = (
        f"{path}, line 1: not valid JSON (Expecting property name enclosed in double quotes); fix that line"
    )
    assert caplog.messages[: changes - 1] == [
        f"{path}: m keeps edge-7 quiet until 2026-03-07T00:00:00Z",
        f"{damaged}. Until then the last good answers stay in force",
        f"{path} can be read again",
        f"{path}: taken back: m",
    ]
