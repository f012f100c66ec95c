"""The journal, and faults said once."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.log import JournalFormatter, Notices

PROJECT = Path(__file__).resolve().parents[2]


def test_the_journal_gets_priorities_and_no_second_clock() -> None:
    formatter = JournalFormatter()
    lines = [
        formatter.format(logging.LogRecord("a", level, "f", 1, "say %s", ("it",), None))
        for level in (logging.INFO, logging.WARNING, logging.ERROR)
    ]
    assert lines == ["<6>INFO say it", "<4>WARNING say it", "<3>ERROR say it"]


def test_the_journal_is_told_from_a_shell_that_inherits_its_variable() -> None:
    code = "from service.log import is_journal; print(is_journal())"
    for stream in ("1:2", "", None):
        environment = {"PATH": os.environ["PATH"]} | ({} if stream is None else {"JOURNAL_STREAM": stream})
        done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, env=environment, capture_output=True)
        assert done.stdout == b"False\n"
    code = "import os; s = os.fstat(2); os.environ['JOURNAL_STREAM'] = f'{s.st_dev}:{s.st_ino}'\n" + code
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True)
    assert done.stdout == b"True\n"


def test_a_fault_is_said_once_and_its_end_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    notices = Notices()
    for _ in range(3):
        notices.mended("server", "back")
    for fault in ("away", "away", "hung", "hung", "away"):
        notices.fault("server", fault)
    notices.fault("model", "broken", logging.WARNING)
    for _ in range(3):
        notices.mended("server", "back")
    assert [(r.levelname, r.message) for r in caplog.records] == [
        ("ERROR", "away"),
        ("ERROR", "hung"),
        ("ERROR", "away"),
        ("WARNING", "broken"),
        ("WARNING", "back"),
    ]
