"""What a service says of its answers and its calendar: at the start, when they change, and when they go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common.files import UserError
from service.answer_files import AnswerFiles
from service.log import Notices

SPAN = {"from": "2026-03-06T12:00:00Z", "until": "2028-01-03T03:23:06Z"}
WORK = {"answer": "maintenance", "nodes": ["*"], **SPAN, "by": "root"}
LEVELS = {"metrics": {"cpu": {"from": 1, "to": 60}}, "daily": "12:29-13:41"}


@pytest.fixture
def paths(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "answers.json", tmp_path / "calendar.json"


def files_of(paths: tuple[Path, Path], needs_calendar: bool = False) -> AnswerFiles:
    return AnswerFiles("edge", str(paths[0]), str(paths[1]), Notices(), needs_calendar)


def write(path: Path, content: Any) -> None:
    """Replace it, as most editors do."""
    new = path.with_suffix(".new")
    new.write_text(content if isinstance(content, str) else json.dumps(content))
    new.replace(path)


def test_each_change_is_a_line(paths: tuple[Path, Path], caplog: pytest.LogCaptureFixture) -> None:
    answers, calendar = paths
    write(answers, {"a": WORK, "b": WORK})
    write(calendar, {})
    files = files_of(paths)
    assert not files.refresh()
    normal = {"answer": "normal", "nodes": ["edge-7"], **SPAN, **LEVELS}
    write(answers, {"b": {**WORK, "nodes": ["x"]}, "m": WORK, "n": normal, "o": {**WORK, "answer": "attack"}})
    write(calendar, {"night": {"daily": "02:00-03:00"}})
    assert files.refresh()
    assert caplog.messages == [
        f"{calendar}: the window night keeps alerts quiet",
        f"{answers}: m keeps * quiet until 2028-01-03T03:23:06Z, by root",
        f"{answers}: n keeps cpu of edge-7 quiet each day at 12:29-13:41",
        f"{answers}: o was an attack on *, by root",
        f"{answers}: changed: b keeps x quiet until 2028-01-03T03:23:06Z, by root",
        f"{answers}: taken back: a",
    ]
    caplog.clear()
    write(answers, {str(number): WORK for number in range(9)})
    assert files.refresh()
    # Nine are new, and four are taken back.
    assert len(caplog.messages) == 6
    assert caplog.messages[-1] == f"{answers}: and 8 more"


def test_of_a_file_that_is_gone_nothing_is_in_force(
    paths: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    answers, calendar = paths
    write(answers, {"a": WORK, "b": WORK})
    write(calendar, {"night": {"daily": "02:00-03:00"}})
    files = files_of(paths)
    answers.unlink()
    calendar.unlink()
    assert (files.refresh(), files.refresh()) == (True, False)
    assert (files.answers, files.windows) == ((), ())
    assert caplog.messages == [
        f"{calendar}: is gone; 1 window is no longer in force",
        f"{answers}: is gone; 2 answers are no longer in force",
    ]


def test_a_damaged_file_at_the_start_says_that_nothing_is_in_force(
    paths: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    for path in paths:
        write(path, '{"a": {}}')
    files = files_of(paths)
    files.refresh()
    files.refresh()
    ends = [message.rpartition(". ")[2] for message in caplog.messages]
    assert ends == ["Until then no calendar is in force", "Until then no answer is in force"]
    with pytest.raises(UserError):
        files_of(paths, needs_calendar=True)


def test_a_calendar_that_was_never_there_is_a_fault(
    paths: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    files = files_of(paths)
    assert not files.refresh()
    (message,) = caplog.messages
    assert message.startswith(str(paths[1]))
    assert message.endswith("Until then no calendar is in force")
