"""Answers and windows that do nothing: their nodes or metrics are none of those that are watched."""

from __future__ import annotations

import difflib
import logging
import time
from collections.abc import Collection, Iterator, Sequence
from fnmatch import fnmatchcase

from common.answers import MAINTENANCE, Answer
from common.calendars import ALL_SERIES, Window
from common.files import shortened
from service.answer_files import EDGE
from service.log import Notices

_TOPIC = "idle answers"
# So many are named.
_NAMED = 5


def without_match(patterns: Sequence[str], names: Collection[str]) -> list[str]:
    """The shell patterns that match none of these names."""
    return [one for one in patterns if not any(fnmatchcase(name, one) for name in names)]


def with_nearest(what: str, word: str, names: Collection[str]) -> str:
    """Such as `metric cppu, did you mean cpu?`."""
    near = difflib.get_close_matches(word, filter(None, names), 1)
    return f"{what} {shortened(word)}{f', did you mean {near[0]}?' if near else ''}"


def note_idle(
    notices: Notices,
    half: str,
    answers: Sequence[Answer],
    windows: Sequence[Window],
    names: Collection[str],
    metrics: Collection[str],
) -> None:
    """Log once, in one line, what does nothing in a half; and once that nothing is left of it.

    names: of the nodes, or the series and devices, that are watched. metrics: theirs.
    """
    what = "node" if half == EDGE else "series or device"
    idle = [*_idle_answers(answers, what, names, metrics), *_idle_windows(windows, half, what, names)]
    if not idle:
        notices.mended(_TOPIC, "each answer and window is of something that is watched")
        return
    more = f"; and {len(idle) - _NAMED} more" if len(idle) > _NAMED else ""
    few = "; ".join(idle[:_NAMED])
    notices.fault(_TOPIC, f"nothing that is watched has these names: {few}{more}", logging.WARNING)


def _idle_answers(
    answers: Sequence[Answer], what: str, names: Collection[str], metrics: Collection[str]
) -> Iterator[str]:
    for answer in answers:
        # One that is over needs no remedy.
        if answer.kind == MAINTENANCE and answer.end <= time.time_ns():
            continue
        wrong = [with_nearest(what, one, names) for one in without_match(answer.nodes, names)]
        wrong += [with_nearest("metric", one, metrics) for one in answer.metrics if one not in metrics]
        if wrong:
            yield f"answer {shortened(answer.id)}: {', '.join(wrong)}"


def _idle_windows(windows: Sequence[Window], half: str, what: str, names: Collection[str]) -> Iterator[str]:
    for window in windows:
        patterns = window.nodes if half == EDGE else window.series if window.series != ALL_SERIES else ()
        # One that is over needs no remedy.
        is_over = window.is_fixed and window.end <= time.time()
        if wrong := [] if is_over else without_match(patterns, names):
            yield f"window {shortened(window.name)}: " + ", ".join(
                with_nearest(what, one, names) for one in wrong
            )
