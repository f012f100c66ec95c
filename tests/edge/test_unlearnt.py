"""What people answered, and a calendar, are not learnt and not counted."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import formatters
from common.answers import Answer
from common.calendars import Window
from common.times import parse_time
from edge import evaluation
from edge.datasets import write_dataset
from edge.paths import DEFAULT_MODEL
from edge.thresholds import read_proposals
from edge.training_set import prepare
from edge.unlearnt import Unlearnt
from nodes.metrics import METRICS
from simulators.edge import Attack, simulate

START = parse_time("2026-03-02T00:00:00Z")
RECORDS = 1500
SLOT = 15 * 10**9


def answer(kind: str, begin: int, end: int, *nodes: str) -> Answer:
    """Of the records from `begin` to before `end`."""
    return Answer(f"{kind}-{begin}", kind, nodes or ("*",), START + begin * SLOT, START + end * SLOT)


@pytest.fixture
def frame() -> pd.DataFrame:
    """Six hours of records, each around 50."""
    rng = np.random.default_rng(3)
    values = 50 + rng.normal(0, 1, (RECORDS, len(METRICS.features)))
    index = pd.to_datetime(START + np.arange(RECORDS) * SLOT, utc=True)
    return pd.DataFrame(values, index=index, columns=list(METRICS.features))


def test_answers_of_all_kinds_and_windows_of_the_node_are_left_out_in_one_line_each(
    frame: pd.DataFrame, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    answers = [
        answer("attack", 100, 110),
        answer("attack", 200, 205),
        answer("normal", 300, 320),
        answer("maintenance", 400, 440, "edge-*"),
        answer("attack", 500, 600, "core"),
        answer("attack", 9000, 9010),
    ]
    # In Rome it is an hour later than in UTC: 04:00 there is record 720.
    windows = [Window("backup", 4 * 60, 4 * 60 + 30, False, is_daily=True), Window("x", 0, 1, False)]
    windows.append(Window("ports", 0, 1440, False, ("core_*",), is_daily=True))
    prepared = prepare(
        frame, 4, 15, METRICS, learn_all=True, unlearnt=Unlearnt.of("edge-7", answers, windows, "Europe/Rome")
    )
    missing = np.flatnonzero(np.isnan(prepared.learnt).all(axis=1)).tolist()
    assert missing == [
        *range(100, 110),
        *range(200, 205),
        *range(300, 320),
        *range(400, 440),
        *range(720, 840),
    ]
    assert [line for line in caplog.messages if line.startswith("left out")] == [
        "left out of the training set by an answer: attack, 15 records in 2 stretches",
        "left out of the training set by an answer: normal, 20 records in 1 stretch",
        "left out of the training set by an answer: maintenance, 40 records in 1 stretch",
        "left out of the training set by the calendar: backup, 120 records in 1 stretch",
    ]


def test_without_answers_all_is_learnt(frame: pd.DataFrame) -> None:
    prepared = prepare(frame, 4, 15, METRICS, learn_all=True)
    assert not np.isnan(prepared.learnt).any()


def test_an_evaluation_makes_no_threshold_and_no_false_alert_of_what_was_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation.pictures, "plot_detection", lambda *_: None)
    begin = START / 1e9
    samples = simulate(7, begin, 7200, [Attack("cpu", begin + 3600, begin + 4500, 40.0)])
    records = formatters.format_records(formatters.slot_records(samples, 15))
    write_dataset(tmp_path / "normal.csv", records)
    datasets = evaluation.load_datasets((), str(tmp_path / "normal.csv"), 15)
    # The last anomalies of an incident come after its load.
    load = answer("normal", 3600 // 15 - 1, 4500 // 15 + 5)

    def evaluated(name: str, *answers: Answer) -> tuple[float, dict[str, float]]:
        """False alerts a day, and the thresholds that are proposed; that of the CPU was set by a person."""
        thresholds = tmp_path / name / "thresholds.json"
        thresholds.parent.mkdir()
        thresholds.write_text('{"cpu_threshold": 0.2}')
        unlearnt = Unlearnt.of("", answers, (), "UTC")
        evaluation.evaluate_datasets(
            str(thresholds), (None, None), datasets, DEFAULT_MODEL, 99, tmp_path / name, unlearnt=unlearnt
        )
        found = json.loads((tmp_path / name / "evaluation.json").read_text())["normal"]
        assert json.loads(thresholds.read_text())["cpu_threshold"] == 0.2
        return found["false_alerts_per_day"], read_proposals(thresholds)[0].values

    alerts, proposed = evaluated("before")
    assert alerts > 0
    assert proposed["cpu_threshold"] > 2
    alerts, proposed = evaluated("after", load)
    assert alerts == 0
    assert proposed["cpu_threshold"] < 0.2
