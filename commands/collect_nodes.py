"""The command that collects many nodes: the dataset of each goes into its folder."""

from __future__ import annotations

import argparse
import logging
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from commands.collect_one import short_lines, write_collected
from commands.fleet import selected_nodes
from commands.stores import edge_source
from common.files import UnavailableError, UserError, is_there
from edge.collecting import Span
from edge.gathered import GatheredNotices, taking_notes
from edge.shared_network import node_files
from nodes.fleet import Named
from parallel.cluster import Cluster, in_parallel

# The kind of a server's refusal that is about one node; others are about all of them.
OWN_FAULT = "error"


@dataclass(frozen=True)
class CollectTask:
    """A node to collect. given, leave_out, adds: as for write_collected()."""

    options: argparse.Namespace
    node: Named
    given: Sequence[Span]
    leave_out: str | None
    adds: bool


@dataclass(frozen=True)
class Collected:
    """What became of a node.

    records: in its dataset. notes: lines for the log, and their levels. fault: why it has no new dataset, of
    which kind it is, and whether that is the server's.
    """

    name: str
    records: int = 0
    notes: tuple[tuple[int, str], ...] = ()
    fault: str = ""
    kind: str = OWN_FAULT


def run_collect_nodes(options: argparse.Namespace) -> None:
    """Run --mode collect with --node: write the dataset of each node into its folder, or add to it."""
    nodes = selected_nodes(options)
    if not options.add:
        _refuse_those_there(options, nodes)
    if faults := collect_nodes(options, nodes, options.stretch, options.leave_out, options.add):
        raise UserError(f"{len(faults)} of {len(nodes)} nodes could not be collected; the log says why")
    words = shlex.join(word for name in options.node for word in ("--node", name))
    print(f"next: python find_anomalies.py --mode train {words}")


def collect_nodes(
    options: argparse.Namespace,
    nodes: Sequence[Named],
    given: Sequence[Span] = (),
    leave_out: str | None = None,
    adds: bool = False,
) -> dict[str, str]:
    """Write the dataset of each node into its folder; returns those that got none, and why, which is logged.

    given, leave_out, adds: as for write_collected(). Raises UnavailableError if the server is away or
    refuses.
    """
    tasks = (CollectTask(options, one, given, leave_out, adds) for one in nodes)
    faults, records, gathered = {}, 0, GatheredNotices()
    try:
        for one in in_parallel(collect_node, tasks, len(nodes), Cluster(options.jobs), "collecting", "node"):
            if one.kind != OWN_FAULT:
                raise UnavailableError(one.fault, one.kind)
            for level, line in one.notes:
                gathered.add(one.name, level, line)
            records += one.records
            if one.fault:
                faults[one.name] = one.fault
                gathered.add(one.name, logging.ERROR, one.fault)
    finally:
        gathered.log()
    print(
        f"{options.nodes_dir}: {len(nodes) - len(faults)} of {len(nodes)} nodes were collected,"
        f" {records:,} records in all"
    )
    return faults


def collect_node(task: CollectTask) -> Collected:
    """Write the dataset of a node into its folder."""
    options, node = task.options, task.node.node
    dataset = str(node_files(options.nodes_dir, task.node.name).trainset)
    count, lines = 0, []
    with taking_notes(str) as (notes, faults):
        source = edge_source(options, node)
        count, lines = write_collected(
            options,
            node,
            source,
            dataset,
            task.given,
            task.leave_out,
            task.adds,
            progress=iter,
            name=task.node.name,
        )
    said = [*notes, *((logging.INFO, line) for line in lines)]
    if faults:
        # The file of a node among many is not chosen by an option.
        fault = str(faults[0]).replace("or another --output", "or remove it")
        kind = getattr(faults[0], "kind", OWN_FAULT)
        return Collected(task.node.name, notes=tuple(said), fault=fault, kind=kind)
    said += ((logging.INFO, line) for line in short_lines(count * options.interval))
    return Collected(task.node.name, count, tuple(said))


def _refuse_those_there(options: argparse.Namespace, nodes: Sequence[Named]) -> None:
    """Raise UserError if a node has a dataset: nobody has named it, so it is not replaced."""
    datasets = [node_files(options.nodes_dir, one.name).trainset for one in nodes]
    if there := [dataset for dataset in datasets if is_there(dataset)]:
        raise UserError(
            f"{there[0]}: is there already, as are those of {len(there)} of {len(nodes)} nodes in all;"
            " --add adds to them, or remove those that are to be collected anew"
        )
