"""What keeps anomalies of a node quiet: what people answered, and the windows of a calendar.

A quiet anomaly is stored as any other, and counts for no alert. docs/answers.md says why this hides no attack
that is much larger than what a person called normal.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from common.alerts import NORMAL
from common.answers import ATTACK, Answer, LevelRange
from common.calendars import Window
from edge.habits import two_thirds
from service.answer_files import EDGE, AnswerFiles
from service.idle_answers import note_idle
from service.log import Notices

# Levels that last are those of most of so many records.
LASTING_RECORDS = 20


@dataclass(frozen=True)
class NodeQuiet:
    """What keeps anomalies of one node quiet. patterns: answers that something is normal. others: times of
    maintenance.
    """

    patterns: tuple[Answer, ...] = ()
    others: tuple[Answer, ...] = ()
    windows: tuple[Window, ...] = ()

    def covers(
        self,
        time: int,
        zone: str,
        causes: Sequence[str],
        levels: Mapping[str, float],
        recent: Mapping[str, np.ndarray],
    ) -> str:
        """What keeps an anomaly at `time` (ns) quiet, such as `answer edge-7@20260306T120014Z`; empty if it
        is to be told.

        zone: local time of the node. causes: the metrics that are wrong. levels: metric -> its level, in its
        unit. recent: metric -> its levels in the last LASTING_RECORDS records (n,), the newest last.
        """
        if all_of_it := self.covers_all(time, zone):
            return all_of_it
        patterns = [answer for answer in self.patterns if answer.is_at(time, zone)]
        found: dict[str, None] = {}
        for name in causes if patterns else ():
            limits = {one.id: one.metrics.get(name) for one in patterns}
            holding = [key for key, one in limits.items() if _holds(one, levels[name], recent[name])]
            if not holding:
                return ""
            found[holding[0]] = None
        return f"answer {', '.join(found)}" if found else ""

    def covers_all(self, time: int, zone: str) -> str:
        """What keeps the whole node quiet at `time` (ns), as in `covers`; empty if nothing does."""
        for answer in self.others:
            if answer.is_at(time, zone):
                return f"answer {answer.id}"
        for window in self.windows:
            if window.is_at(time // 10**9, zone):
                return f"calendar {window.name}"
        return ""


def _holds(limits: LevelRange | None, level: float, recent: np.ndarray) -> bool:
    """Whether a level, and what has lasted of it, is within limits."""
    if limits is None or not limits.holds(level):
        return False
    if limits.lasting is None or len(recent) < LASTING_RECORDS:
        return True
    low, high = lasting_ends(recent)
    return not (low < limits.lasting.low or high > limits.lasting.high)


def lasting_ends(recent: np.ndarray) -> tuple[float, float]:
    """The level that two thirds of records (n,) do not exceed, and the one that they reach.

    They are infinite and minus infinite, which is within all limits, if too few are known.
    """
    return -float(two_thirds(-recent)), float(two_thirds(recent))


class Quiet:
    """What keeps anomalies quiet, of all nodes.

    quiet = Quiet(load_answers("data/answers.json", EDGE))
    quiet.of("edge-7")    # None if nothing does
    """

    def __init__(self, answers: Sequence[Answer] = (), windows: Sequence[Window] = ()) -> None:
        self._answers = [answer for answer in answers if answer.kind != ATTACK]
        self._windows = tuple(windows)
        self._of: dict[str, NodeQuiet | None] = {}

    def of(self, name: str) -> NodeQuiet | None:
        """Of one node, whose name is empty if it is the only one."""
        if name not in self._of:
            answers = [answer for answer in self._answers if answer.concerns(name)]
            patterns = tuple(answer for answer in answers if answer.kind == NORMAL)
            others = tuple(answer for answer in answers if answer.kind != NORMAL)
            windows = tuple(window for window in self._windows if window.concerns_node(name))
            is_any = patterns or others or windows
            self._of[name] = NodeQuiet(patterns, others, windows) if is_any else None
        return self._of[name]


class QuietFiles:
    """The file of answers and the calendar, read again when they change (service/answer_files.py).

    calendar_file: None for no calendar.

        files = QuietFiles("data/answers.json", None, notices)
        files.refresh().of("edge-7")
    """

    def __init__(self, answers_file: str, calendar_file: str | None, notices: Notices) -> None:
        self._notices = notices
        # What was in force at the last check, and of how many nodes.
        self._checked: tuple[Quiet | None, int] = None, 0
        self._files = AnswerFiles(EDGE, answers_file, calendar_file, notices)
        self._quiet = Quiet(self._files.answers, self._files.windows)

    def refresh(self) -> Quiet:
        """What is in force now."""
        if self._files.refresh():
            self._quiet = Quiet(self._files.answers, self._files.windows)
        return self._quiet

    def check(self, names: Collection[str], metrics: Callable[[], Collection[str]]) -> None:
        """Log what does nothing, if the files are new, or nodes.

        names: of the nodes that are watched, empty for the only one. metrics: the names of theirs.
        """
        now = self._quiet, len(names)
        if names and now != self._checked:
            self._checked = now
            note_idle(self._notices, EDGE, self._files.answers, self._files.windows, names, metrics())
