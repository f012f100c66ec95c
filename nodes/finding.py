"""Looks for the selected nodes of a database, at the start and then now and then."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from common.files import UserError
from nodes.fleet import Fleet, Named, Pairing
from nodes.names import NodePatterns, listed_names, shown_name
from nodes.survey import SURVEY_SECONDS, Surveyor

logger = logging.getLogger("find_anomalies")

# Whoever can write metrics can make up hosts, so one process watches at most so many nodes.
MOST_NODES = 2000
# How many hosts that cannot be nodes have a line of their own at once, and how many names a refusal lists.
HOST_LINES, OFFERED_NAMES = 10, 6


class NodeFinder:
    """Finds the nodes that patterns select.

        finder = NodeFinder(surveyor, Pairing(node, {}), NodePatterns(["edge-*"]))
        finder.find()    # [Named("edge-1", Node(...)), Named("edge-2", Node(...))]

    known: names of nodes that were there before. seconds: how far back samples count. What is odd about a
    node is logged once.
    """

    def __init__(
        self,
        surveyor: Surveyor,
        pairing: Pairing,
        patterns: NodePatterns,
        known: Iterable[str] = (),
        seconds: float = SURVEY_SECONDS,
    ) -> None:
        self.surveyor, self.descriptions = surveyor, pairing.descriptions
        self._pairing, self._patterns = pairing, patterns
        self._known, self._seconds = frozenset(known), seconds
        self._found: dict[str, Named] = {}
        self._told: set[str] = set()

    def find(self) -> list[Named]:
        """The selected nodes, by name, with those of all earlier times: one request.

        Raises one of the surveyor's errors, and UserError as long as a name or pattern has never selected
        any.
        """
        instances = self.surveyor.instances(self._pairing.series, self._seconds)
        fleet = self._pairing.pair(instances, self._known)
        selected = [name for name in fleet.nodes if self._patterns.matches(name)]
        refused = {name: why for name, why in fleet.refused.items() if self._patterns.matches(name)}
        is_first = not self._found
        if is_first:
            self._refuse_unmatched(fleet, selected, refused)
        incomplete = {*fleet.lacking, *fleet.silent}
        # What is known or complete comes first: there may be more than can be watched.
        new = sorted(
            (name for name in selected if name not in self._found),
            key=lambda name: (name not in self._known, name in incomplete, name),
        )
        new, left_out = new[: MOST_NODES - len(self._found)], new[MOST_NODES - len(self._found) :]
        # While an exporter is silent, its instance stays what it was.
        now = [name for name in selected if name in self._found and name not in incomplete]
        self._found |= {name: fleet.nodes[name] for name in (*new, *now)}
        if is_first:
            logger.info("--node selects %s of %s nodes", f"{len(selected):,}", f"{len(fleet.nodes):,}")
        self._tell_incomplete(fleet, new)
        self._tell_left_out(refused, left_out)
        return [self._found[name] for name in sorted(self._found)]

    def _refuse_unmatched(self, fleet: Fleet, selected: list[str], refused: Mapping[str, str]) -> None:
        there = sorted(fleet.nodes)
        if unmatched := self._patterns.without_match([*there, *refused]):
            what = f"there is {listed_names(there, OFFERED_NAMES)}" if there else "no node writes there"
            raise UserError(
                f"--node {shown_name(unmatched[0])}: no node of {self.surveyor.place} has this name; {what}"
            )
        if not selected:
            raise UserError(next(iter(refused.values())))

    def _tell_incomplete(self, fleet: Fleet, new: list[str]) -> None:
        """Log which new nodes have no sample of all exporters, or of some."""
        if silent := [name for name in new if name in fleet.silent]:
            logger.warning(
                "%s: no sample in the last hour; remove what is gone from --nodes_dir and --nodes_file",
                listed_names(silent, OFFERED_NAMES),
            )
        if lacking := [name for name in new if name in fleet.lacking]:
            named = [f"{name} ({', '.join(fleet.lacking[name])})" for name in lacking]
            logger.warning(
                "%s: no sample of this exporter in the last hour; its metrics are unknown until it comes",
                listed_names(named, OFFERED_NAMES),
            )

    def _tell_left_out(self, refused: Mapping[str, str], left_out: list[str]) -> None:
        """Log which hosts are not watched, once."""
        new = [name for name in refused if name not in self._told]
        for name in new[:HOST_LINES]:
            logger.warning("%s", refused[name])
        if len(new) > HOST_LINES:
            logger.warning("%s", f"{len(new) - HOST_LINES:,} more hosts are no nodes for such reasons")
        if any(name not in self._told for name in left_out):
            logger.warning(
                "%s",
                f"{listed_names(left_out)}: not watched, since one process watches at most {MOST_NODES:,}"
                " nodes; give each of several processes a part of them with --node (docs/fleet.md)",
            )
        # Those that are gone are forgotten: whoever can write metrics can make up hosts without end.
        self._told = {*refused, *left_out}
