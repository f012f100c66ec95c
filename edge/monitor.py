"""Reads one node poll by poll, and reports the verdicts: settled records, none twice and none skipped."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import formatters
from common.alerts import WINDOW_RECORDS
from common.values import mapping, number, text, whole
from edge.detector import Detector, Verdict
from edge.explanations import Explanations
from edge.reader import CHUNK_RECORDS, PATIENCE_RECORDS, Reader
from edge.selection import Choice
from edge.source import Asking, SampleSource, answered
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

    name: of one node of many, or empty.

        records = yield from monitor.read()       # time (ns) and columns of each, to be judged by `judge`
        judged = monitor.take(verdicts)           # what is reported of the verdicts on them

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
        name: str = "",
    ) -> None:
        self.name = name
        self._node = node
        self._source = source
        self.judge = judge
        self.reader = Reader(
            source, node, interval_seconds, catch_up_seconds, patience_records, clock, notices
        )
        self._explanations = Explanations(source, node)
        self._window_ns = int(WINDOW_RECORDS * interval_seconds * 1e9)
        self._last_record: Record = {}
        # Of the records that were read last: why series of each have no usable sample, None for those that
        # only fill the window; and whether they are the history.
        self._faults: list[dict[str, str] | None] = []
        self._is_history = False
        # Verdicts on the history that the first poll reads, which are not reported.
        self.history: list[Verdict] = []

    @property
    def instance(self) -> str | None:
        """The instance of the first exporter, that of the host, whose samples are judged; once known."""
        return self.reader.selection.watched.get(self._node.metrics.exporters[0]) or None

    def read(self, chunk_records: int = CHUNK_RECORDS) -> Asking[list[tuple[int, dict[str, float]]]]:
        """Read what has come since the last poll: the time (ns) and the columns of each record to judge.

        Raises one of the source's errors, if a question has it, or UserError; the next poll then goes on
        where the last good one stopped.
        """
        reading = yield from self.reader.poll(chunk_records)
        if reading.is_cut_off:
            self.judge.forget()
        if reading.is_cut_off or reading.is_no_change:
            self._last_record = {}
        self._is_history = reading.is_history
        self._faults = [one.faults if reading.is_reported(one) else None for one in reading.records]
        records = [(one.time, self._columns(one)) for one in reading.records]
        if self._faults and self._faults[-1] is not None:
            yield from self._explanations.look_up(self._faults[-1], self.reader.selection)
        return records

    def take(self, verdicts: Sequence[Verdict]) -> list[Judged]:
        """What is reported of the verdicts on the records that were read: of the very first poll, the newest
        one alone. Each comes with the faults of its record.
        """
        judged = [
            Judged(verdict, faults)
            for verdict, faults in zip(verdicts, self._faults, strict=True)
            if faults is not None
        ]
        self._faults = []
        self.history = [one.verdict for one in judged[:-1]] if self._is_history else []
        return judged[-1:] if self._is_history else judged

    def poll(self) -> list[Judged]:
        """Read, judge and report what has come since the last poll. Raises what `read` raises."""
        records = answered(self._source, self.read())
        return self.take([self.judge.observe(time, columns) for time, columns in records])

    def _columns(self, choice: Choice) -> dict[str, float]:
        # As in a dataset, nothing is computed across a gap of a window.
        times = (point["time"] for points in self._last_record.values() for point in points)
        if choice.slot.start - max(times, default=choice.slot.start) > self._window_ns:
            self._last_record = {}
        columns, self._last_record = formatters.format_record(choice.record, self._last_record, self._node)
        return columns

    def explained(self, faults: Mapping[str, str]) -> dict[str, str]:
        """The faults, with the explanations that were found for them."""
        return self._explanations.explained(faults)

    # --- over a restart --------------------------------------------------------------------------

    def state(self, since: int | None = None) -> dict[str, Any]:
        """The state that `restore` takes, as JSON; of the window, only the records after the slot `since`."""
        return {**self.reader.state(), "last_record": self._last_record, "judge": self.judge.state(since)}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where another process stopped.

        Raises KeyError, TypeError or ValueError if the state is invalid, and then changes nothing.
        """
        last_record = {
            name: [_kept_point(point) for point in points]
            for name, points in mapping(mapping(state)["last_record"]).items()
        }
        before = self.judge.state()
        self.judge.restore(state["judge"])
        try:
            self.reader.restore(state)
        except (KeyError, TypeError, ValueError):
            self.judge.restore(before)
            raise
        self._last_record = last_record


def _kept_point(point: Any) -> Point:
    """A sample of the last record, read from a state. Raises KeyError or ValueError if it is invalid."""
    numbers = {key: number(value) for key, value in mapping(point).items() if key in ("value", "percentage")}
    tags = {text(tag): text(value) for tag, value in point.items() if tag != "time" and tag not in numbers}
    return {"time": whole(point["time"]), "value": numbers["value"], **numbers, **tags}
