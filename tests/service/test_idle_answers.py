"""Answers and windows that do nothing are named once, with the name that was meant."""

from __future__ import annotations

import pytest

from common.answers import Answer, LevelRange
from common.calendars import Window
from service.idle_answers import note_idle
from service.log import Notices

FAR = 10**19
SPAN = 0, FAR


def test_names_that_nothing_has_are_one_line(caplog: pytest.LogCaptureFixture) -> None:
    notices = Notices()
    names, metrics = {"edge-7", "edge-8"}, {"cpu", "mem"}
    levels = {"cppu": LevelRange(1, 2), "mem": LevelRange(1, 2)}
    answers = [
        Answer("a", "normal", ("edge-*",), *SPAN, levels),
        Answer("b", "maintenance", ("nosuchnode", "edge-7"), *SPAN),
        Answer("over", "maintenance", ("gone",), 0, 1),
        Answer("all", "attack", ("*",), *SPAN),
    ]
    windows = [
        Window("night", 0, 60, False, (), ("edge-9",), is_daily=True),
        Window("of ports", 0, 60, False, ("core",), is_daily=True),
    ]
    for _ in range(2):
        note_idle(notices, "edge", answers, windows, names, metrics)
    (line,) = caplog.messages
    assert line.startswith(
        "nothing that is watched has these names: answer a: metric cppu, did you mean cpu?;"
        " answer b: node nosuchnode; window night: node edge-9, did you mean edge-"
    )
    note_idle(notices, "edge", answers[3:], (), names, metrics)
    assert caplog.messages[1:] == ["each answer and window is of something that is watched"]


def test_series_and_devices_of_ports(caplog: pytest.LogCaptureFixture) -> None:
    answers = [Answer(name, "attack", (name,), *SPAN) for name in ("1_99_out", "sw9", "sw1", "1_2_out")]
    windows = [Window("w", 0, 60, False, ("1_98_out",), is_daily=True), Window("all", 0, 60, True)]
    note_idle(Notices(), "ports", answers, windows, {"sw1", "1", "1_2_out"}, {"traffic"})
    assert caplog.messages == [
        "nothing that is watched has these names: answer 1_99_out: series or device 1_99_out, did you mean"
        " 1_2_out?; answer sw9: series or device sw9, did you mean sw1?; window w: series or device 1_98_out,"
        " did you mean 1_2_out?"
    ]
