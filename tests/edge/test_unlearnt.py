"""What people answered, and a calendar, are not learnt and not counted."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest

from common.answers import Answer
from common.calendars import Window
from common.times import parse_time
from edge.training_set import prepare
from edge.unlearnt import Unlearnt
from nodes.metrics import METRICS

START = parse_time("2026-03-02T00:00:00Z")
RECORDS = 5760
SLOT = 15 * 10**9


def answer(kind: str, begin: int, end: int, *nodes: str) -> Answer:
    """Of the records from `begin` to before `end`."""
    return Answer(f"{kind}-{begin}", kind, nodes or ("*",), START + begin * SLOT, START + end * SLOT)


@pytest.fixture
def frame() -> pd.DataFrame:
    """A day of records, each around 50."""
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
