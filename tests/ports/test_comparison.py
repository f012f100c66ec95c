"""What --evaluate says of the detectors: recall and false alerts counted by hand, and the whole command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import find_anomalies
from commands.options import PORT_DETECTORS
from ports.comparison import Compared, Detection, detection, iterative_statuses, summarise, table
from ports.series import KnownAnomaly, Series
from ports.training import TrainingSettings, fit_series
from ports.verdicts import judge, statuses
from tests.support.port_series import DAY, START, change, moment, samples, write

QUARTER = 900
STATUS = {".": "normal", "a": "anomaly", "A": "alert", "u": "unknown"}
TRAINING = TrainingSettings(("profile",), "default", 15, "UTC", 28, None)


def detected(
    said: str, known: list[tuple[int, int]], excused: list[tuple[int, int]] | None = None
) -> tuple[int, int, int, int]:
    """The counts of a Detection, of buckets of 15 minutes; spans are counted in buckets."""
    spans = [
        [KnownAnomaly(START + first * QUARTER, START + end * QUARTER) for first, end in some]
        for some in (known, excused or [])
    ]
    starts = START + QUARTER * np.arange(len(said))
    found = detection(starts, QUARTER, np.array([STATUS[one] for one in said], dtype=object), *spans)
    assert found.months == pytest.approx(len(said) * 15 / 60 / 24 / 30.4)
    return found.known, found.with_anomaly, found.with_alert, found.false_alerts


@pytest.mark.parametrize(
    ("said", "known", "found"),
    [
        ("..........", [(2, 6)], (1, 0, 0, 0)),
        ("..aa......", [(2, 6)], (1, 1, 0, 0)),
        ("..aaaAA...", [(2, 6)], (1, 1, 1, 0)),
        # The alert comes after the end: it is no false one, nor was it in time.
        ("..aaa.A...", [(2, 5)], (1, 1, 0, 0)),
        ("aaaAA.....", [], (0, 0, 0, 1)),
        # Less than an hour apart, and more.
        ("AA...A....", [], (0, 0, 0, 1)),
        ("AA....A...", [], (0, 0, 0, 2)),
        # Only anomalies wake nobody.
        ("aaa.aaa.aa", [], (0, 0, 0, 0)),
        ("uuuu....uu", [(0, 2)], (1, 0, 0, 0)),
        # An hour after its end an anomaly explains no more.
        ("aaaA......A", [(0, 4)], (1, 1, 1, 1)),
        ("aaaA...A...", [(0, 4)], (1, 1, 1, 0)),
    ],
)
def test_detection_by_hand(said: str, known: list[tuple[int, int]], found: tuple[int, ...]) -> None:
    assert detected(said, known) == found


def test_what_is_excused_is_neither_false_nor_to_be_found() -> None:
    assert detected("AAAA......", [], [(0, 4)]) == (0, 0, 0, 0)


def test_detections_add_up_to_rates() -> None:
    total = Detection(4, 3, 2, 1, 0.5) + Detection(1, 1, 1, 2, 1.5)
    assert total == Detection(5, 4, 3, 3, 2.0)
    assert total.rates() == {"anomaly_recall": 0.8, "alert_recall": 0.6, "false_alerts": 1.5}
    assert Detection(months=1.0).rates() == {
        "anomaly_recall": None,
        "alert_recall": None,
        "false_alerts": 0.0,
    }


def test_the_table_is_read_at_a_glance() -> None:
    one = Compared(0.25, 0.001, Detection(2, 2, 1, 1, 2.0), Detection(2, 2, 2, 0, 2.0))
    other = Compared(0.35, 0.003, Detection(2, 1, 1, 0, 2.0), Detection(2, 2, 1, 0, 2.0))
    comparison = summarise([{"profile": one}, {"profile": other}], TRAINING)
    assert comparison["detectors"]["profile"] == {
        "fit_seconds": 0.3,
        "score_seconds": 0.002,
        "anomaly_recall": 0.75,
        "alert_recall": 0.5,
        "false_alerts": 0.25,
        "iterative": {"anomaly_recall": 1.0, "alert_recall": 0.75, "false_alerts": 0.0},
    }
    assert table(comparison).splitlines() == [
        "2 series, 4 known anomalies in the last fifth (4 months); seconds per model;"
        " false alerts per series and month",
        "",
        "                    execution time         at once, one model             trained each night      ",
        "detector                fit    score   anomaly    alert false alert   anomaly    alert false alert",
        "profile              0.300s   0.002s     75.0%    50.0%        0.25    100.0%    75.0%        0.00",
    ]


def test_iterative_verdicts_are_those_of_a_job_each_night_and_hour() -> None:
    times, traffic = samples(33)
    change(times, traffic, "2023-02-01T23:00", "2023-02-02T01:00", 5.0)
    series = Series("1_1_out", times, traffic)
    split = moment("2023-02-01T00:00")
    at_once = judge(fit_series(series, "profile", replace(TRAINING, until=split)), series, split).after(split)
    said = iterative_statuses(series, "profile", TRAINING, split, at_once)
    # The same, as the jobs do it: the night's model, then each hour what is new, with what led up to it.
    expected: list[str] = []
    for hour in range((int(times[-1]) - split) // 3600):
        since = split + 3600 * hour
        midnight = since - since % DAY
        trained = fit_series(series.between(0, midnight), "profile", TRAINING)
        seen = series.between(since - 2 * DAY, since + 3600)
        expected += judge(trained, seen, since).after(since).statuses.tolist()
    # Leading up to midnight, today's model judges yesterday: only where both models agree can it be compared.
    assert said.tolist() == expected
    assert expected.count("alert") == 5


def test_evaluate_compares_all_detectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    # 80 % of 36 days: the test part begins on the 28th day's evening, its midnight.
    times, traffic = samples(36)
    change(times, traffic, "2023-02-03T10:00", "2023-02-03T12:00", 5.0)
    write(tmp_path / "ports", "1_1_out", times, traffic)
    (tmp_path / "ports/anomalies.txt").write_text("2023-02-03 10:00:00,2023-02-03 12:00:00,1_1_out\n")
    monkeypatch.setattr("sys.stderr", open(tmp_path / "err", "w"))  # noqa: SIM115
    arguments = ["--target", "ports", "--mode", "train", "--evaluate", "--ports_dir", "ports", "--jobs", "1"]
    assert find_anomalies.main([*arguments, "--timezone", "UTC", "--train_days", "28"]) == 0
    comparison = json.loads((tmp_path / "plots/ports/comparison.json").read_text())
    assert (comparison["series"], comparison["known_anomalies"]) == (1, 1)
    assert list(comparison["detectors"]) == list(PORT_DETECTORS)
    for figures in comparison["detectors"].values():
        assert figures["alert_recall"] == figures["iterative"]["alert_recall"] == 1.0
        assert figures["false_alerts"] == figures["iterative"]["false_alerts"] == 0.0
    assert {path.name for path in (tmp_path / "plots/ports").iterdir()} == {
        "comparison.json",
        "comparison.png",
        "1_1_out.stl-parts.png",
        *(f"1_1_out.{detector}.png" for detector in PORT_DETECTORS),
    }
    assert "plots/ports: comparison.json, comparison.png" in capsys.readouterr().out


def test_statuses_are_counted_over_the_change_of_models() -> None:
    assert statuses(np.array([2.0, 2.0, 2.0, 2.0, 0.5])).tolist() == ["anomaly"] * 3 + ["alert", "normal"]
