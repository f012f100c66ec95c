"""The command that collects: stretches of the node's history become a dataset to train on."""

from __future__ import annotations

import argparse
import itertools
import logging
import shlex
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from commands.fleet import selected_nodes
from commands.options import TRAIN, words_for
from commands.stores import edge_source
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
from edge.shared_network import node_files
from edge.source import SampleSource
from nodes.fleet import Named
from nodes.node import Node, load_node

logger = logging.getLogger("find_anomalies")

# The kind of a server's refusal that is about one node; others are about all of them.
OWN_FAULT = "error"
# At most so many lines of one kind are printed.
LISTED_LINES = 100


def run_collect(options: argparse.Namespace) -> None:
    """Run --mode collect: write stretches of the node's history as a dataset, or add them to one.

    With --node, each node's dataset is written into its folder.
    """
    if options.node:
        nodes = selected_nodes(options)
        if faults := collect_nodes(options, nodes, options.stretch, options.leave_out, options.add):
            raise UserError(f"{len(faults)} of {len(nodes)} nodes could not be collected; the log says why")
        words = shlex.join(word for name in options.node for word in ("--node", name))
        print(f"next: python find_anomalies.py --mode train {words}")
        return
    if not options.output:
        raise UserError("--mode collect needs --output FILE.csv")
    count = _collect(
        options,
        *_one_node(options),
        options.output,
        options.stretch,
        options.leave_out,
        options.add,
        options.plot,
    )
    _print_next(options, count * options.interval)


def collect_first(options: argparse.Namespace) -> None:
    """Write the newest --since of the history as the training set, for --mode train."""
    if is_there(options.trainset):
        raise UserError(
            f"{options.trainset}: is there already; name a new file with --trainset, or train without --since"
        )
    _collect(options, *_one_node(options), options.trainset)


def collect_nodes(
    options: argparse.Namespace,
    nodes: Sequence[Named],
    given: Sequence[Span] = (),
    leave_out: str | None = None,
    adds: bool = False,
    is_new: bool = False,
) -> dict[str, str]:
    """Write the dataset of each node into its folder; returns those that got none, and why, which is logged.

    given, leave_out, adds: as for _collect(). is_new: a node must not have a dataset yet. Raises
    UnavailableError if the server is away or refuses.
    """
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    source = edge_source(options, *(one.node for one in nodes))
    faults = {}
    # Where nobody watches, a bar is noise.
    with logging_redirect_tqdm():
        for one in tqdm(nodes, desc="collecting", unit="node", disable=None):
            dataset = node_files(options.nodes_dir, one.name).trainset
            try:
                if is_new and is_there(dataset):
                    raise UserError(
                        f"{dataset}: is there already; train without --since, or write it anew with"
                        " --mode collect"
                    )
                _collect(options, one.node, source, str(dataset), given, leave_out, adds, progress=iter)
            except UserError as error:
                if getattr(error, "kind", OWN_FAULT) != OWN_FAULT:
                    raise
                faults[one.name] = str(error)
                logger.error("%s: %s", one.name, error)
    return faults


def _one_node(options: argparse.Namespace) -> tuple[Node, SampleSource]:
    node = load_node(options.node_file)
    return node, edge_source(options, node)


def _collect(
    options: argparse.Namespace,
    node: Node,
    source: SampleSource,
    output: str,
    given: Sequence[Span] = (),
    leave_out: str | None = None,
    adds: bool = False,
    plot: str | None = None,
    progress: Progress | None = None,
) -> int:
    """Write a dataset, and a picture of it; returns the number of records.

    given: stretches (ns) instead of the newest history. leave_out: a calendar of windows. adds: keep what the
    dataset has. progress: a bar for each query, unless given.
    """
    if plot:
        check_picture(plot)
    stretches = _in_order(given, time.time_ns())
    windows, of_ports = read_windows(leave_out) if leave_out else ([], [])
    left_out = LeftOut(windows, options.timezone, options.interval)
    kept = read_kept(output, node, options.interval) if adds and is_there(output) else None
    collector = Collector(source, node, options.interval, left_out)
    rows = _new_rows(collector, source, node, stretches, options.since, progress)
    if kept is not None:
        rows = merge(kept_rows(kept, node, options.interval, left_out), rows, node, options.interval)
    parts: list[Part] = []
    count = write_dataset(output, _some(noted(rows, options.interval, parts), leave_out), node)
    before = "" if kept is None else f"; there were {len(kept['time'])}"
    print(f"{output}: {count} records up to {format_time(parts[-1].last)}{before}")
    _print_lines([f"stretch: {part.describe()}" for part in parts])
    _print_left_out(leave_out, left_out, of_ports)
    _print_gaps(collector, bool(stretches))
    if plot:
        shaded = [(start, end) for start, end, _ in left_out.spans(parts[0].first, parts[-1].last)]
        columns = read_columns(output, node)
        plot_collected(columns, node, shaded, options.interval, plot, Path(output).name)
        print(f"{plot}: picture of the dataset written")
    return count


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


def _print_lines(lines: Sequence[str]) -> None:
    for line in lines[:LISTED_LINES]:
        print(line)
    if len(lines) > LISTED_LINES:
        print(f"{lines[0].partition(':')[0]}: and {len(lines) - LISTED_LINES} more")


def _print_left_out(filename: str, left_out: LeftOut, of_ports: Sequence[str]) -> None:
    _print_lines(
        [
            f"left out: {name}: {number} record{'s' * (number != 1)}"
            if number
            else f"left out: {name}: no record is in this window; check its times in {filename}"
            for name, number in left_out.counts.items()
        ]
        + [f'left out: {name}: nothing, since it has "series" and is for ports' for name in of_ports]
    )


def _print_gaps(collector: Collector, are_stretches_given: bool) -> None:
    count = collector.count
    if are_stretches_given:
        _print_lines(
            [
                f"gap: no sample of any series from {format_time(start)} to {format_time(end)}"
                for start, end in collector.silent
            ]
        )
    if collector.empty_slots:
        print(f"gap: no sample of any series in {collector.empty_slots} slots")
    lines = []
    for (series, fault), number in sorted(collector.faults.items()):
        is_missing = fault.startswith(NO_SAMPLE)
        every = ": check --node_file" if number == count and is_missing else ""
        reason = "is missing" if is_missing else f"cannot be used ({fault})"
        lines.append(f"gap: {series} {reason} in {number} of {count} records{every}")
    _print_lines(lines)
    for name, number in sorted(collector.filled.items()):
        print(f"silent: {name} in {number} of {count} records; the node file says what that means")
    if collector.flooded:
        print(f"too many samples of {', '.join(collector.flooded)}: only the newest of each record is used")


def _print_next(options: argparse.Namespace, seconds: float) -> None:
    """Print what to do with a dataset of so many seconds."""
    if seconds < DAY_SECONDS:
        print(
            f"short: {format_duration(seconds)} of records; a model needs a day or more, better three;"
            " collect others with --add"
        )
    values = {"trainset": options.output, "interval": options.interval, "node_file": options.node_file}
    words = ["--mode", "train", "--evaluate", *words_for(TRAIN, values)]
    print(f"next: python find_anomalies.py {shlex.join(words)}")
