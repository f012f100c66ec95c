"""How far many tasks are is said now and then."""

from __future__ import annotations

import logging

import pytest

from parallel.progress import ProgressLines


def test_a_line_a_minute_says_how_many_are_done_and_how_long_the_others_take(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    times = iter([0.0, 10.0, 60.0, 100.0, 125.0, 300.0])
    progress = ProgressLines("training", 5, times.__next__)
    for _ in range(5):
        progress.step()
    # 60 s for 2 of 5, and 125 s for 4 of 5; the last one needs no line.
    assert caplog.messages == [
        "training: 2 of 5 done, about 1 min 30 s left",
        "training: 4 of 5 done, about 31 s left",
    ]
