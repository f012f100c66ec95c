"""Judges one node poll by poll: settled records -> verdicts, none twice and none skipped."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import formatters
from common.alerts import WINDOW_RECORDS
from common.values import mapping, number, text, whole
from edge.detector import Detector, Verdict
from edge.explanations import Explanations
from edge.reader import PATIENCE_RECORDS, Reader
from edge.selection import Choice
from edge.source import SampleSource
from nodes.node import Node
from nodes.series import Point, Record
from service.log import Notices


@dataclass(frozen=True)
class Judged:
    """A record's verdict. faults: series name -> why it has no usable sample."""

    verdict: Verdict
    faults: dict[str, str]


class Monitor:
    """Judges the records that a Reader reads for one node; the parameters are those of Reader.

    `history` has the verdicts of the first poll that come before the one it returned.
    """

    def __init__(
        self,
        source: SampleSource,
        node: Node,
        judge: Detector,
        interval_seconds: float,
        catch_up_seconds: float,
        patience_records: float = PATIENCE_RECORDS,
        clock: Callable[[], float] = time.time,
        notices: Notices | None = None,
    ) -> None:
        self._node = node
        self._judge = judge
        self.reader = Reader(
            source, node, interval_seconds, catch_up_seconds, patience_records, clock, notices
        )
        self._explanations = Explanations(source, node)
        self._window_ns = int(WINDOW_RECORDS * interval_seconds * 1e9)
        self._last_record: Record = {}
        # Verdicts on the history that the first poll reads, which are not reported.
        self.history: list[Verdict] = []

    @property
    def instance(self) -> str | None:
        """The instance of the first exporter, that of the host, whose samples are judged; once known."""
        return self.reader.selection.watched.get(self._node.metrics.exporters[0]) or None

    def poll(self) -> list[Judged]:
        """Judge what has come since the last poll: verdicts, each with the faults of its record.

        The very first poll fills the window from history and returns only the newest verdict. Raises one
        of the source's errors or UserError; the next poll then goes on where the last good one stopped.
        """
        reading = self.reader.poll()
        if reading.is_cut_off:
            self._judge.forget()
        if reading.is_cut_off or reading.is_no_change:
            self._last_record = {}
        judged = []
        for record in reading.records:
            verdict = self._verdict(record)
            if reading.is_reported(record):
                judged.append(Judged(verdict, record.faults))
        if judged:
            self._explanations.look_up(judged[-1].faults, self.reader.selection)
        self.history = [one.verdict for one in judged[:-1]] if reading.is_history else []
        return judged[-1:] if reading.is_history else judged

    def _verdict(self, choice: Choice) -> Verdict:
        # As in a dataset, nothing is computed across a gap of a window.
        times = (point["time"] for points in self._last_record.values() for point in points)
        if choice.slot.start - max(times, default=choice.slot.start) > self._window_ns:
            self._last_record = {}
        columns, self._last_record = formatters.format_record(choice.record, self._last_record, self._node)
        return self._judge.observe(choice.time, columns)

    def explained(self, faults: Mapping[str, str]) -> dict[str, str]:
        """The faults, with the explanations that were found for them."""
        return self._explanations.explained(faults)

    # --- over a restart --------------------------------------------------------------------------

    def state(self, since: int | None = None) -> dict[str, Any]:
        """The state that `restore` takes, as JSON; of the window, only the records after the slot `since`."""
        return {**self.reader.state(), "last_record": self._last_record, "judge": self._judge.state(since)}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where another process stopped.

        Raises KeyError, TypeError or ValueError if the state is invalid, and then changes nothing.
        """
        last_record = {
            name: [_kept_point(point) for point in points]
            for name, points in mapping(mapping(state)["last_record"]).items()
        }
        before = self._judge.state()
        self._judge.restore(state["judge"])
        try:
            self.reader.restore(state)
        except (KeyError, TypeError, ValueError):
            self._judge.restore(before)
            raise
        self._last_record = last_record


def _kept_point(point: Any) -> Point:
    """A sample of the last record, read from a state. Raises KeyError or ValueError if it is invalid."""
    numbers = {key: number(value) for key, value in mapping(point).items() if key in ("value", "percentage")}
    tags = {text(tag): text(value) for tag, value in point.items() if tag != "time" and tag not in numbers}
    return {"time": whole(point["time"]), "value": numbers["value"], **numbers, **tags}
