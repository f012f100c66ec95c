"""The nodes that a daemon watches: begins each, keeps the state of each over restarts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.files import UserError, is_there
from edge.bundle import bundle_paths
from edge.gathered import GatheredNotices
from edge.kept import WHOLE_POLLS, KeptState, state_of
from edge.networks import Networks
from edge.shared_network import node_files
from edge.source import SampleSource
from edge.watch import Watch, WatchSettings
from nodes.fleet import Named
from nodes.node import Node
from service.log import ABOUT_NODE, Notices

logger = logging.getLogger("find_anomalies")

STATE_VERSION = 1


class WatchedNodes:
    """Watches by name, in the order in which the nodes were named; the only node has an empty name.

    settings: those of each node; of many, each has its model and its thresholds in its folder in `nodes_dir`.
    states: name -> what the previous process kept of it. A node of many that cannot be watched, since it has
    no usable model, waits until it can. Raises UserError if it is the only one.
    """

    def __init__(
        self,
        settings: WatchSettings,
        nodes_dir: str,
        source: SampleSource,
        nodes: Sequence[Named],
        states: Mapping[str, dict[str, Any]],
        gathered: GatheredNotices,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._nodes_dir = Path(nodes_dir)
        self._source = source
        self._clock = clock
        self._gathered = gathered
        self._networks = Networks()
        self._states = dict(states)
        self.watches: dict[str, Watch] = {}
        self.waiting: dict[str, Named] = {}
        # What is wrong with nodes that wait although they have a model.
        self._faults: dict[str, str] = {}
        self._nodes: dict[str, Node] = {}
        self._identities: dict[str, dict[str, Any]] = {}
        self._kept: dict[str, KeptState] = {}
        # Nodes whose next state must be whole.
        self._unkept: set[str] = set()
        self._polls = 0
        self.add(nodes)

    def add(self, nodes: Iterable[Named]) -> None:
        """Watch these nodes, too; those that are watched already go on, unless their exporters have moved."""
        for one in nodes:
            if one.name in self.waiting or self._nodes.get(one.name) == one.node:
                continue
            is_moved = one.name in self.watches
            self.watches.pop(one.name, None)
            self._begin(one)
            if is_moved:
                self._gathered.of(one.name)(
                    "moved", logging.WARNING, "its exporters have other instances than before"
                )

    def try_waiting(self) -> None:
        """Begin with the nodes that have a model by now."""
        for name, one in list(self.waiting.items()):
            if self._has_model(name):
                del self.waiting[name]
                self._begin(one)

    @property
    def without_model(self) -> list[str]:
        """The names of the nodes that wait for a model, in order; the others that wait have a damaged one."""
        return sorted(name for name in self.waiting if not self._has_model(name))

    def _has_model(self, name: str) -> bool:
        return is_there(bundle_paths(self._settings_of(name).model).identity)

    def _tell(self, name: str, line: str) -> None:
        """Log a line about a node, once until there is another."""
        if self._faults.get(name) != line:
            self._gathered.of(name)("waiting", logging.ERROR, line)
        self._faults[name] = line

    def _settings_of(self, name: str) -> WatchSettings:
        if not name:
            return self._settings
        files = node_files(self._nodes_dir, name)
        return replace(
            self._settings,
            model=str(files.model),
            thresholds_file=str(files.thresholds),
            name=name,
        )

    def _begin(self, one: Named) -> None:
        settings = self._settings_of(one.name)
        identity = {
            "version": STATE_VERSION,
            **self._source.identity,
            "interval_seconds": settings.interval_seconds,
            "node": one.node.identity(),
        }
        with ABOUT_NODE.node(one.name):
            try:
                self.watches[one.name] = Watch(
                    settings,
                    self._source,
                    one.node,
                    self._kept_state(one.name, identity),
                    self._clock,
                    Notices(self._gathered.of(one.name)) if one.name else None,
                    self._networks,
                )
            except UserError as error:
                if not one.name:
                    raise
                self.waiting[one.name] = one
                if self._has_model(one.name):
                    self._tell(one.name, f"not watched: {error}")
                return
        self._faults.pop(one.name, None)
        self._nodes[one.name] = one.node
        self._identities[one.name] = identity
        self._kept[one.name] = KeptState()
        self._unkept.add(one.name)
        self._states.pop(one.name, None)

    def _kept_state(self, name: str, identity: Mapping[str, Any]) -> dict[str, Any]:
        """The state of the previous process if it watched the same; else an empty one."""
        parts = self._states.get(name)
        if parts is None:
            return {}
        if parts.get("watched") != identity:
            line = "--state_dir belongs to another node, server or interval: judging starts over"
            self._log_start(name, line)
            return {}
        try:
            return state_of(parts)
        except (KeyError, TypeError, ValueError) as error:
            self._log_start(name, f"--state_dir holds no state of this node ({error!r}); judging starts over")
            return {}

    def _log_start(self, name: str, line: str) -> None:
        if name:
            self._gathered.of(name)("start", logging.WARNING, line)
        else:
            logger.warning("%s", line)

    # --- what is kept ----------------------------------------------------------------------------

    def states(self) -> tuple[dict[str, str], dict[str, str]]:
        """Whole states, and changes of states, of all nodes: name -> JSON, as Store.add takes them.

        Each has its turn to be written whole.
        """
        whole, changes = {}, {}
        self._polls += 1
        for place, (name, watch) in enumerate(self.watches.items()):
            kept = self._kept[name]
            watched = {"watched": self._identities[name]}
            is_turn = (self._polls + place) % WHOLE_POLLS == 0
            if is_turn or name in self._unkept or not kept.can_follow(watch.last_slot):
                whole[name] = kept.whole({**watched, **watch.state()})
                self._unkept.discard(name)
            elif change := kept.changes({**watched, **watch.state(kept.slot)}):
                changes[name] = change
        return whole, changes

    def not_kept(self, names: Iterable[str]) -> None:
        """These states could not be written."""
        self._unkept.update(self.watches.keys() & names)
