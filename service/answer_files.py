"""The file of answers and the calendar of a service, read again when they change; logs what has changed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from common.alerts import NORMAL
from common.answers import HALVES, MAINTENANCE, Answer, load_answers
from common.calendars import Window, load_windows
from common.files import UserError, is_there, shortened
from common.times import format_time
from service.log import Notices
from service.watched import WatchedFiles

logger = logging.getLogger("find_anomalies")

# The two halves of the program.
EDGE, PORTS = HALVES
ANSWERS_TOPIC, CALENDAR_TOPIC = "answers", "calendar"
# So many changes of one file get a line each.
MOST_CHANGES = 5


class AnswerFiles:
    """What people answered in one half of the program, and the windows of its calendar.

    A file that is damaged is logged once; what it said last stays in force, and at the start nothing. Of a
    file that is gone, nothing is in force. half: EDGE or PORTS. None for no file. needs_calendar: raise
    UserError if the calendar is damaged at the start.

        files = AnswerFiles(EDGE, "data/answers.json", None, notices)
        files.refresh()
        files.answers
    """

    def __init__(
        self,
        half: str,
        answers_file: str | None,
        calendar_file: str | None,
        notices: Notices,
        needs_calendar: bool = False,
    ) -> None:
        self._notices = notices
        # The topics of which a file has been read.
        self._are_read: set[str] = set()
        self._files: dict[str, tuple[str, WatchedFiles]] = {}
        if calendar_file:
            fall_back = None if needs_calendar else ()
            watched = WatchedFiles([calendar_file], lambda: self._windows(calendar_file), fall_back)
            self._files[CALENDAR_TOPIC] = calendar_file, watched
        if answers_file:
            watched = WatchedFiles([answers_file], lambda: self._answers(answers_file, half), ())
            self._files[ANSWERS_TOPIC] = answers_file, watched

    def refresh(self) -> bool:
        """Read what has changed, and log it. Returns whether anything is new."""
        is_any = False
        for topic, (name, watched) in self._files.items():
            before = watched.content
            try:
                is_new = watched.refresh()
            except UserError as error:
                self._notices.fault(topic, f"{error}. Until then {self._in_force(topic)}")
                continue
            self._notices.mended(topic, f"{name} can be read again")
            if is_new:
                is_any = True
                _log_changes(name, topic, before, watched.content)
        return is_any

    @property
    def answers(self) -> tuple[Answer, ...]:
        """The answers that are in force."""
        return self._content(ANSWERS_TOPIC)

    @property
    def windows(self) -> tuple[Window, ...]:
        """The windows of the calendar that are in force."""
        return self._content(CALENDAR_TOPIC)

    def _content(self, topic: str) -> tuple[Any, ...]:
        return self._files[topic][1].content if topic in self._files else ()

    def _windows(self, name: str) -> tuple[Window, ...]:
        # One that has never been there is a wrong option.
        if CALENDAR_TOPIC in self._are_read and not is_there(name):
            return ()
        windows = load_windows(name)
        self._are_read.add(CALENDAR_TOPIC)
        return windows

    def _answers(self, name: str, half: str) -> tuple[Answer, ...]:
        answers = load_answers(name, half)
        self._are_read.add(ANSWERS_TOPIC)
        return answers

    def _in_force(self, topic: str) -> str:
        is_one = topic == CALENDAR_TOPIC
        if topic not in self._are_read:
            return f"no {'calendar' if is_one else 'answer'} is in force"
        return f"the last good {topic} {'stays' if is_one else 'stay'} in force"


def _log_changes(
    name: str, topic: str, before: tuple[Answer | Window, ...], after: tuple[Answer | Window, ...]
) -> None:
    """Log what was added, changed and taken back."""
    old, new = _by_id(before), _by_id(after)
    if old and not is_there(name):
        what = "answer" if topic == ANSWERS_TOPIC else "window"
        many = f"{len(old)} {what}{'s are' if len(old) != 1 else ' is'}"
        logger.warning("%s: is gone; %s no longer in force", name, many)
        return
    lines = [_described(one) for key, one in new.items() if key not in old]
    lines += [f"changed: {_described(one)}" for key, one in new.items() if key in old and old[key] != one]
    lines += [f"taken back: {shortened(key)}" for key in old if key not in new]
    for line in lines[:MOST_CHANGES]:
        logger.warning("%s: %s", name, line)
    if len(lines) > MOST_CHANGES:
        logger.warning("%s: and %d more", name, len(lines) - MOST_CHANGES)


def _by_id(content: tuple[Answer | Window, ...]) -> Mapping[str, Answer | Window]:
    return {one.id if isinstance(one, Answer) else one.name: one for one in content}


def _described(one: Answer | Window) -> str:
    """What an answer or a window does, in a few words."""
    if isinstance(one, Window):
        return f"the window {shortened(one.name)} keeps alerts quiet"
    nodes, who = shortened(", ".join(one.nodes)), f", by {one.by}" if one.by else ""
    if one.kind == MAINTENANCE:
        return f"{shortened(one.id)} keeps {nodes} quiet until {format_time(one.end)}{who}"
    if one.kind == NORMAL:
        metrics = shortened(", ".join(one.metrics))
        return f"{shortened(one.id)} keeps {metrics} of {nodes} quiet each day at {one.hours}{who}"
    return f"{shortened(one.id)} was an attack on {nodes}{who}"
