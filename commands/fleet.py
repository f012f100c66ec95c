"""Which nodes a command works on, by the options."""

from __future__ import annotations

import argparse
import contextlib
import os
from pathlib import Path

from commands.stores import surveyor
from common.files import UserError
from nodes.finding import OFFERED_NAMES, NodeFinder
from nodes.fleet import Named, Pairing, read_nodes_file
from nodes.names import NodePatterns, describe_several, listed_names, name_fault, shown_name
from nodes.node import Node, load_node
from nodes.survey import SURVEY_SECONDS
from service import loop
from service.log import Notices
from service.systemd import Ending

# A service that looks for new nodes must not wait longer for a server that hangs.
FIND_TIMEOUT_SECONDS = 10.0


def selected_nodes(options: argparse.Namespace, seconds: float = SURVEY_SECONDS) -> list[Named]:
    """The nodes in the database that --node selects, by name; without --node, the one that has no name.

    seconds: how far back samples count. Raises UserError if there is none, or if the server does not answer.
    """
    if not options.node:
        return [Named("", load_node(options.node_file))]
    finder = node_finder(options, seconds)
    try:
        return finder.find()
    except finder.surveyor.errors as error:
        raise UserError(finder.surveyor.describe_error(error)) from None


def refuse_several_nodes(options: argparse.Namespace, node: Node, place: str, seconds: float) -> None:
    """Raise UserError if several nodes have written in the last `seconds`, so that one has to be chosen.

    The first read of samples finds that out, too, but takes too long if they are those of a thousand nodes.
    place: where they write. An error of the server is left to that read.
    """
    if any(map(node.instance_of, node.metrics.exporters)):
        return
    looker, pairing = surveyor(options, FIND_TIMEOUT_SECONDS), Pairing(node, {})
    with contextlib.suppress(*looker.errors):
        found = looker.instances(pairing.series, seconds)
        if line := describe_several(dict(enumerate(found)), place):
            raise UserError(line)


def nodes_with_folder(options: argparse.Namespace) -> list[Named]:
    """The nodes that have a folder in --nodes_dir, and that --node selects, by name. No database is asked, so
    the instances of their exporters are not fixed. Raises UserError if there is none.
    """
    start, described = _descriptions(options)
    names, patterns = node_folders(options.nodes_dir), NodePatterns(options.node)
    if unmatched := patterns.without_match(names):
        there = f"there is {listed_names(names, OFFERED_NAMES)}" if names else "there is none; collect first"
        raise UserError(
            f"--node {shown_name(unmatched[0])}: no folder of {options.nodes_dir} has this name; {there}"
        )
    return [Named(name, described.get(name, start)) for name in names if patterns.matches(name)]


def node_finder(
    options: argparse.Namespace, seconds: float = SURVEY_SECONDS, is_live: bool = False
) -> NodeFinder:
    """What finds the nodes that --node selects. is_live: those that have a folder in --nodes_dir may be
    silent. Raises UserError for files and options that cannot be used.
    """
    start, described = _descriptions(options)
    return NodeFinder(
        surveyor(options, FIND_TIMEOUT_SECONDS),
        Pairing(start, described),
        NodePatterns(options.node),
        node_folders(options.nodes_dir) if is_live else (),
        seconds,
    )


def _descriptions(options: argparse.Namespace) -> tuple[Node, dict[str, Node]]:
    """What a node is that is not described by itself, and those that are, by name."""
    start = load_node(options.node_file)
    for exporter in start.metrics.exporters:
        if start.instance_of(exporter) is not None:
            raise UserError(
                f"{options.node_file}: '{exporter}_instance' is that of one node, but --node is given; leave"
                " it out, or write it to --nodes_file"
            )
    return start, read_nodes_file(options.nodes_file, start) if options.nodes_file else {}


def node_folders(nodes_dir: str) -> list[str]:
    """The names of the folders in this folder that can be names of nodes; none if it is not there."""
    try:
        with os.scandir(Path(nodes_dir)) as found:
            return sorted(one.name for one in found if name_fault(one.name) is None and one.is_dir())
    except OSError:
        return []


def wait_for_nodes(finder: NodeFinder, once: bool, ending: Ending) -> list[Named]:
    """The nodes at the start of a service, which waits for a server that is away, unless it runs once.

    Raises UserError if there is none.
    """
    place, notices = finder.surveyor, Notices()
    with contextlib.suppress(*place.errors):
        return finder.find()
    nodes: list[Named] = []

    def look() -> loop.Turn:
        try:
            nodes[:] = finder.find()
        except place.errors as error:
            line = place.describe_error(error)
            if once:
                raise UserError(line) from None
            notices.fault("server", line)
            return loop.Turn(line, 0.0, is_away=True)
        notices.mended("server", f"{place.place} is reachable again")
        return loop.Turn(f"{len(nodes):,} nodes were found", None)

    loop.run(look, ending)
    return nodes
