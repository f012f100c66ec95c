"""Collects one node: stretches of its history become a dataset to train on."""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from common.calendars import Window
from common.files import UnavailableError, UserError, is_there
from common.times import DAY_SECONDS, format_duration, format_time
from edge.collected_picture import plot_collected
from edge.collecting import (
    Collector,
    DatasetRow,
    LeftOut,
    Part,
    Progress,
    Span,
    kept_rows,
    merge,
    noted,
    read_kept,
    read_windows,
)
from edge.datasets import read_columns, write_dataset
from edge.pictures import check_picture
from edge.selection import NO_SAMPLE
from edge.source import SampleSource
from nodes.node import Node

# At most so many lines of one kind are printed.
LISTED_LINES = 100


def write_collected(
    options: argparse.Namespace,
    node: Node,
    source: SampleSource,
    output: str,
    given: Sequence[Span] = (),
    leave_out: str | None = None,
    adds: bool = False,
    plot: str | None = None,
    progress: Progress | None = None,
    name: str = "",
) -> tuple[int, list[str]]:
    """Write a dataset, and a picture of it; returns the number of records, and what to say about them.

    given: stretches (ns) instead of the newest history. leave_out: a calendar of windows. adds: keep what the
    dataset has. progress: a bar for each query, unless given. name: of
    the node, empty if it is the only one.
    """
    if plot:
        check_picture(plot)
    was_there = is_there(output)
    stretches = _in_order(given, time.time_ns())
    windows, of_others = read_windows(leave_out, name) if leave_out else ([], [])
    left_out = LeftOut(windows, options.timezone, options.interval)
    kept = read_kept(output, node, options.interval) if adds and was_there else None
    collector = Collector(source, node, options.interval, left_out)
    rows = _new_rows(collector, source, node, stretches, options.since, progress)
    if kept is not None:
        rows = merge(kept_rows(kept, node, options.interval, left_out), rows, node, options.interval)
    parts: list[Part] = []
    count = write_dataset(output, _some(noted(rows, options.interval, parts), leave_out), node)
    before = "; those that were there are replaced" if was_there else ""
    before = before if kept is None else f"; there were {len(kept['time'])}"
    lines = [
        f"{output}: {count} records up to {format_time(parts[-1].last)}{before}",
        *_limited([f"stretch: {part.describe()}" for part in parts]),
        *_left_out_lines(leave_out, left_out, of_others),
        *_gap_lines(collector, bool(stretches)),
    ]
    if plot:
        shaded = [(start, end) for start, end, _ in left_out.spans(parts[0].first, parts[-1].last)]
        columns = read_columns(output, node)
        plot_collected(columns, node, shaded, options.interval, plot, Path(output).name)
        lines.append(f"{plot}: picture of the dataset written")
    return count, lines


def _new_rows(
    collector: Collector,
    source: SampleSource,
    node: Node,
    stretches: Sequence[Span],
    since: float,
    progress: Progress | None = None,
) -> Iterator[DatasetRow]:
    """The rows of the stretches, or of the newest `since` seconds if there are none."""
    from tqdm import tqdm

    # Caught here, since a lost connection is also an OSError, which write_dataset would take for its own.
    try:
        newest = None if stretches else source.newest_sample_time(node)
        spans = stretches if newest is None else [(newest - int(since * 1e9), newest + 1)]
        yield from collector.rows(spans, progress or partial(tqdm, desc="collecting", unit="query"))
    except source.errors as error:
        raise UnavailableError(source.describe_error(error), source.kind_of(error)) from None
    if not collector.found and collector.unusable:
        ((series, fault), _), *_ = collector.unusable.most_common(1)
        raise UserError(f"{source.name}: no sample of this node can be used: {series}: {fault}")
    if not collector.found:
        raise UserError(source.nothing_there)


def _some(rows: Iterator[DatasetRow], leave_out: str | None) -> Iterator[DatasetRow]:
    """The same rows. Raises UserError if there is none."""
    is_any = False
    for row in rows:
        is_any = True
        yield row
    if not is_any:
        raise UserError(f"{leave_out}: the windows leave out every record; correct them")


def _in_order(stretches: Sequence[Span], now: int) -> list[Span]:
    """The stretches (ns) by time. Raises UserError if two overlap, or if one is not over yet."""
    ordered = sorted(stretches)
    for start, end in ordered:
        if end > now:
            raise UserError(
                f"--stretch {_shown(start, end)} ends in the future; let it end at {format_time(now)}"
                " or before"
            )
    for first, second in itertools.pairwise(ordered):
        if second[0] < first[1]:
            raise UserError(
                f"--stretch {_shown(*second)} overlaps --stretch {_shown(*first)}; give each time once"
            )
    return ordered


def _shown(start: int, end: int) -> str:
    return f"{format_time(start)}/{format_time(end)}"


def _limited(lines: Sequence[str]) -> list[str]:
    if len(lines) <= LISTED_LINES:
        return list(lines)
    return [*lines[:LISTED_LINES], f"{lines[0].partition(':')[0]}: and {len(lines) - LISTED_LINES} more"]


def _left_out_lines(filename: str | None, left_out: LeftOut, of_others: Sequence[Window]) -> list[str]:
    return _limited(
        [
            f"left out: {name}: {number} record{'s' * (number != 1)}"
            if number
            else f"left out: {name}: no record is in this window; check its times in {filename}"
            for name, number in left_out.counts.items()
        ]
        + [f"left out: {window.name}: nothing, since it {_other(window)}" for window in of_others]
    )


def _other(window: Window) -> str:
    return 'has "nodes", none of which is this one' if window.nodes else 'has "series" and is for ports'


def _gap_lines(collector: Collector, are_stretches_given: bool) -> list[str]:
    count = collector.count
    lines = []
    if are_stretches_given:
        lines += _limited(
            [
                f"gap: no sample of any series from {format_time(start)} to {format_time(end)}"
                for start, end in collector.silent
            ]
        )
    if collector.empty_slots:
        lines.append(f"gap: no sample of any series in {collector.empty_slots} slots")
    gaps = []
    for (series, fault), number in sorted(collector.faults.items()):
        is_missing = fault.startswith(NO_SAMPLE)
        every = ": check --node_file" if number == count and is_missing else ""
        reason = "is missing" if is_missing else f"cannot be used ({fault})"
        gaps.append(f"gap: {series} {reason} in {number} of {count} records{every}")
    lines += _limited(gaps)
    for name, number in sorted(collector.filled.items()):
        lines.append(f"silent: {name} in {number} of {count} records; the node file says what that means")
    if collector.flooded:
        lines.append(
            f"too many samples of {', '.join(collector.flooded)}: only the newest of each record is used"
        )
    return lines


def short_lines(seconds: float) -> list[str]:
    """What to say of a dataset of so many seconds, if they are few."""
    if seconds >= DAY_SECONDS:
        return []
    return [
        f"short: {format_duration(seconds)} of records; a model needs a day or more, better three;"
        " collect others with --add"
    ]
