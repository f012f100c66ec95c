"""What is not learnt of a node and not counted in evaluations: incidents that people answered, and windows of
a calendar.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from common.answers import Answer
from common.calendars import Window

logger = logging.getLogger("find_anomalies")

# Start, and end (not included), in ns.
Stretches = list[tuple[int, int]]


@dataclass(frozen=True)
class Unlearnt:
    """The answers about one node, and the windows of its calendar. zone: of windows that come again."""

    answers: tuple[Answer, ...] = ()
    windows: tuple[Window, ...] = ()
    zone: str = "UTC"

    @classmethod
    def of(cls, name: str, answers: Sequence[Answer], windows: Sequence[Window], zone: str) -> Unlearnt:
        """Those of one node, whose name is empty if it is the only one."""
        return cls(
            tuple(answer for answer in answers if answer.concerns(name)),
            tuple(window for window in windows if window.concerns_node(name)),
            zone,
        )

    def kinds(self, times: np.ndarray) -> dict[str, Stretches]:
        """Why records at `times` (n,), in ns, are left out -> when; only for stretches that have a record."""
        if not len(times):
            return {}
        found: dict[str, Stretches] = {}
        for answer in self.answers:
            found.setdefault(f"an answer: {answer.kind}", []).append((answer.start, answer.end))
        first, last = int(times.min()) // 10**9, int(times.max()) // 10**9 + 1
        for window in self.windows:
            spans = [(start * 10**9, end * 10**9) for start, end in window.spans(first, last, self.zone)]
            found.setdefault(f"the calendar: {window.name}", []).extend(spans)
        with_records = {
            why: [(start, end) for start, end in spans if ((times >= start) & (times < end)).any()]
            for why, spans in found.items()
        }
        return {why: spans for why, spans in with_records.items() if spans}

    def stretches(self, times: np.ndarray, what: str) -> Stretches:
        """When records at `times` (n,), in ns, are left out; logs one line for each reason.

        what: they are left out of, such as `the training set`; nothing is logged if it is empty.
        """
        kinds = self.kinds(times)
        for why, spans in kinds.items() if what else ():
            count = sum(int(((times >= start) & (times < end)).sum()) for start, end in spans)
            logger.info(
                "left out of %s by %s, %d records in %d stretch%s",
                what,
                why,
                count,
                len(spans),
                "es" * (len(spans) != 1),
            )
        return sorted(span for spans in kinds.values() for span in spans)


NOTHING_UNLEARNT = Unlearnt()
