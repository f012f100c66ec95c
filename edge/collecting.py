"""Collecting: the records of a node in stretches of its history, without the windows that are left out."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

import formatters
from common.alerts import WINDOW_RECORDS
from common.calendars import Window, load_windows
from common.files import UserError
from common.times import format_time
from edge.datasets import LATE_FACTOR, read_columns
from edge.selection import Choice, Selection, in_slots
from edge.source import SamplesOf, SampleSource
from nodes.node import Node, getColumnNames
from nodes.series import Point, Record, monitored_series

# So much of the history is asked for at once.
COLLECT_CHUNK_SECONDS = 3600
# Start, and end (not included), in ns.
Span = tuple[int, int]
# The columns of a dataset, and `time` in ns.
DatasetRow = dict[str, float]
# May show how the spans that are read go on.
Progress = Callable[[Sequence[Span]], Iterable[Span]]

_Item = TypeVar("_Item")


# --- windows -------------------------------------------------------------------------------------


def read_windows(filename: str | Path, node: str = "") -> tuple[list[Window], list[Window]]:
    """The windows of a calendar that are left out of a node's records, and the others.

    node: its name, empty if it is the only one. Raises UserError as load_windows does, and if two windows
    overlap that come once.
    """
    windows = load_windows(filename)
    for_node = [window for window in windows if window.concerns_node(node)]
    fixed = sorted((one for one in for_node if one.is_fixed), key=lambda window: window.start)
    for first, second in itertools.pairwise(fixed):
        if second.start < first.end:
            raise UserError(
                f"{filename}: '{second.name}' begins at {format_time(second.start * 10**9)}, before"
                f" '{first.name}' has ended; make one window of both, or correct the times"
            )
    return for_node, [window for window in windows if window not in for_node]


class LeftOut:
    """Leaves out the records whose slot a window touches, and counts them.

    windows: if a slot is in several, the first counts. zone: local time of weekly windows. interval_seconds:
    length of a slot.
    """

    def __init__(self, windows: Sequence[Window], zone: str, interval_seconds: float) -> None:
        self._windows = windows
        self._zone = zone
        self._interval_ns = int(interval_seconds * 1e9)
        self._slots: dict[str, set[int]] = {window.name: set() for window in windows}

    def spans(self, start: int, end: int) -> list[tuple[int, int, str]]:
        """The windows from `start` to before `end` (ns): start and end in ns, and name."""
        return [
            (begin * 10**9, until * 10**9, window.name)
            for window in self._windows
            for begin, until in window.spans(start // 10**9, -(-end // 10**9), self._zone)
        ]

    def has(self, slot: int) -> bool:
        """Whether a window touches the slot that begins then (ns)."""
        end = slot + self._interval_ns
        return _touching(self.spans(slot, end), slot, end) is not None

    def keep(
        self, items: Iterable[_Item], slot_of: Callable[[_Item], int], start: int, end: int
    ) -> Iterator[tuple[_Item, bool]]:
        """The items that stay, each with whether a window lies between it and the one before it.

        slot_of: start of an item's slot (ns). The slots follow each other from `start` to before `end`.
        """
        spans = self.spans(start, end + self._interval_ns)
        last_end, is_cut = end, False
        for item in items:
            slot = slot_of(item)
            between = last_end < slot and _touching(spans, last_end, slot)
            last_end = slot + self._interval_ns
            if name := _touching(spans, slot, last_end):
                self._slots[name].add(slot)
                is_cut = True
            else:
                yield item, is_cut or bool(between)
                is_cut = False

    @property
    def counts(self) -> dict[str, int]:
        """Name of each window -> how many records were left out."""
        return {name: len(slots) for name, slots in self._slots.items()}


def _touching(spans: Sequence[tuple[int, int, str]], start: int, end: int) -> str | None:
    """The name of the first window that touches `start` to before `end`."""
    return next((name for begin, until, name in spans if begin < end and until > start), None)


# --- from the database ---------------------------------------------------------------------------


class Collector:
    """Reads the records of one node from a source.

    It counts: `found` records, `count` of them not left out; `faults`, which series these lack and why;
    `filled`, the series whose silence counted as a level; `unusable`, why slots have no record at all;
    `empty_slots`, without a sample, between the first and the last record of a stretch. `silent` are the
    spans without a record at the ends of stretches, `flooded` the series with too many samples to read all.
    """

    def __init__(self, source: SampleSource, node: Node, interval_seconds: float, left_out: LeftOut) -> None:
        self._source = source
        self._node = node
        self._interval_seconds = interval_seconds
        self._interval_ns = int(interval_seconds * 1e9)
        self._left_out = left_out
        self._selection = Selection(node)
        self.found = 0
        self.count = 0
        self.faults: Counter[tuple[str, str]] = Counter()
        self.filled: Counter[str] = Counter()
        self.unusable: Counter[tuple[str, str]] = Counter()
        self.empty_slots = 0
        self.silent: list[Span] = []
        self.flooded: dict[str, None] = {}

    def rows(self, stretches: Sequence[Span], progress: Progress) -> Iterator[DatasetRow]:
        """The rows of a dataset in these stretches, which follow each other and do not overlap.

        Nothing is computed across the edge of a stretch, a window that is left out, or a gap of
        WINDOW_RECORDS: the first record after it has no rates. Raises one of the source's errors, and
        UserError for samples of several nodes.
        """
        free_from = 0
        for start, end in stretches:
            # A slot that two stretches share is part of the first.
            begin = max(self._slot(start), free_from)
            free_from = self._slot(end + self._interval_ns - 1)
            self._selection.forget_levels()
            choices = self._choices(begin, end, progress)
            last_record: Record = {}
            last_slot = begin
            for choice, is_cut in self._left_out.keep(choices, lambda one: one.slot.start, begin, end):
                self.count += 1
                self.faults.update(choice.faults.items())
                self.filled.update(choice.silent)
                if is_cut or choice.slot.start - last_slot > WINDOW_RECORDS * self._interval_ns:
                    last_record = {}
                last_slot = choice.slot.start
                row, last_record = formatters.format_record(choice.record, last_record, self._node)
                yield {"time": choice.time, **row}

    def _slot(self, time: int) -> int:
        return time // self._interval_ns * self._interval_ns

    def _choices(self, start: int, end: int, progress: Progress) -> Iterator[Choice]:
        """Every record of a stretch that begins with a slot."""
        first, last_end, number = None, start, 0
        for choice in self._read(start, end, progress):
            if choice.record:
                first = choice.slot.start if first is None else first
                last_end, number = choice.slot.start + self._interval_ns, number + 1
                self.found += 1
                yield choice
            else:
                self.unusable.update(choice.faults.items())
        if first is not None:
            self.empty_slots += (last_end - first) // self._interval_ns - number
            self.silent += [(start, first)] if start < first else []
        self.silent += [(last_end, end)] if last_end < end else []

    def _read(self, start: int, end: int, progress: Progress) -> Iterator[Choice]:
        before, was_out = start, False
        chunk_ns = max(self._slot(COLLECT_CHUNK_SECONDS * 10**9), self._interval_ns)
        chunks = [(begin, min(begin + chunk_ns, end)) for begin in range(start, end, chunk_ns)]
        for begin, until in progress(chunks):
            known_tags = self._selection.known_tags()
            wanted = SamplesOf(self._node, begin, until, self._interval_seconds, known_tags=known_tags)
            found = self._source.get_samples(wanted)
            self.flooded.update(dict.fromkeys(found.flooded))
            slots = in_slots(found.lines, self._node, self._interval_ns)
            # A history of two nodes cannot be told apart.
            self._selection.refuse_several(slots, self._source.place)
            for slot in slots:
                is_out = self._left_out.has(slot.start)
                is_gap = slot.start - before > WINDOW_RECORDS * self._interval_ns
                if is_gap or (was_out and not is_out):
                    self._selection.forget_levels()
                before, was_out = slot.start, is_out
                choice = self._selection.choose(slot, found.doubtful)
                self._selection.keep(choice)
                yield choice


# --- into a dataset ------------------------------------------------------------------------------


def read_kept(dataset: str | Path, node: Node, interval_seconds: float) -> dict[str, np.ndarray]:
    """The columns of a dataset that is added to, as read_columns reads them.

    Raises UserError as read_columns does, and if its records are not an interval apart.
    """
    columns = read_columns(dataset, node)
    apart = float(np.median(np.diff(columns["time"]))) / 1e9 if len(columns["time"]) > 1 else interval_seconds
    if not interval_seconds / LATE_FACTOR < apart < interval_seconds * LATE_FACTOR:
        raise UserError(
            f"{dataset}: has a record every {apart:.3g} s, but --interval is {interval_seconds:g} s;"
            f" give --interval {apart:.3g}, or another --output"
        )
    return columns


def kept_rows(
    columns: dict[str, np.ndarray], node: Node, interval_seconds: float, left_out: LeftOut
) -> Iterator[DatasetRow]:
    """The rows of read_kept that are not left out; what was computed across a window becomes unknown."""
    interval_ns = int(interval_seconds * 1e9)
    times = columns["time"]
    if not len(times):
        return
    rows = (
        dict(zip(columns, cells, strict=True))
        for cells in zip(*(column.tolist() for column in columns.values()), strict=True)
    )

    def slot_of(row: DatasetRow) -> int:
        return row["time"] // interval_ns * interval_ns

    # A window may have ended before the first record, but within its slot.
    begin = int(times[0]) // interval_ns * interval_ns
    first_columns = _unknown_at_first(node)
    unknown: list[dict[str, float]] = []
    for row, is_cut in left_out.keep(rows, slot_of, begin, int(times[-1]) + 1):
        if is_cut:
            unknown = list(first_columns)
        yield {**row, **unknown.pop(0)} if unknown else row


def _unknown_at_first(node: Node) -> list[dict[str, float]]:
    """The unknown columns of the first record of a node, and of the second: a rate needs two records, and the
    change of a rate needs three.
    """
    unknown = []
    last_record: Record = {}
    for time in (1, 2):
        record: Record = {}
        for key, part in monitored_series(node).values():
            metric = node.metrics.measurements[key]
            # A total is more than what is free of it.
            point: Point = {"time": time, "value": 1.0 if key == metric.measurements[0] else 2.0}
            record.setdefault(key, []).append(point if part is None else {**point, metric.part_tag: part})
        columns, last_record = formatters.format_record(record, last_record, node)
        unknown.append({name: value for name, value in columns.items() if math.isnan(value)})
    return unknown


def merge(
    kept: Iterable[DatasetRow], rows: Iterable[DatasetRow], node: Node, interval_seconds: float
) -> Iterator[DatasetRow]:
    """The rows of a dataset and new ones in order of time. If both have a row of the same slot, the one with
    fewer unknown columns stays, and the older one if there are equally many.
    """
    columns = list(getColumnNames(node))

    def known(rows: Sequence[DatasetRow]) -> int:
        return sum(not math.isnan(row[column]) for row in rows for column in columns)

    interval_ns = int(interval_seconds * 1e9)
    both = heapq.merge(
        ((row, False) for row in kept), ((row, True) for row in rows), key=lambda pair: pair[0]["time"]
    )
    for _, group in itertools.groupby(both, key=lambda pair: pair[0]["time"] // interval_ns):
        pairs = list(group)
        old, new = ([row for row, one in pairs if one is is_new] for is_new in (False, True))
        yield from new if known(new) > known(old) else old


@dataclass
class Part:
    """A part of a dataset without a gap of WINDOW_RECORDS. first, last: times in ns."""

    first: int
    last: int
    records: int

    def describe(self) -> str:
        """Such as `2026-03-03T12:00:00Z to 2026-03-03T12:18:00Z, 73 records`."""
        return f"{format_time(self.first)} to {format_time(self.last)}, {self.records} records"


def noted(rows: Iterable[DatasetRow], interval_seconds: float, parts: list[Part]) -> Iterator[DatasetRow]:
    """The same rows; `parts` gets the parts of the dataset that they make."""
    interval_ns = int(interval_seconds * 1e9)
    for row in rows:
        time = int(row["time"])
        if not parts or time // interval_ns - parts[-1].last // interval_ns > WINDOW_RECORDS:
            parts.append(Part(time, time, 0))
        parts[-1].last, parts[-1].records = time, parts[-1].records + 1
        yield row
