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
from edge.kept import WHOLE_POLLS, KeptState, state_of
from edge.many_nodes import GatheredNotices
from edge.networks import Networks
from edge.shared_network import node_files
from edge.source import SampleSource
from edge.watch import Watch, WatchSettings
from nodes.fleet import Named
from service.log import ABOUT_NODE, Notices

logger = logging.getLogger("find_anomalies")

STATE_VERSION = 1


class WatchedNodes:
    """Watches by name, in the order in which the nodes were named; the only node has an empty name.

    settings: those of each node; of many, each has its model and its thresholds in its folder in `nodes_dir`.
    states: name -> what the previous process kept of it. A node of many that cannot be watched, since it has
    no usable model, waits until it can: `waiting` says why. Raises UserError if it is the only one.
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
        self.waiting: dict[str, tuple[Named, str]] = {}
        self._identities: dict[str, dict[str, Any]] = {}
        self._kept: dict[str, KeptState] = {}
        # Nodes whose next state must be whole.
        self._unkept: set[str] = set()
        self._polls = 0
        self.add(nodes)

    def add(self, nodes: Iterable[Named]) -> None:
        """Watch these nodes, too; those that are watched already go on."""
        for one in nodes:
            if one.name not in self.watches and one.name not in self.waiting:
                self._begin(one)

    def try_waiting(self) -> None:
        """Begin with the nodes that have a model by now."""
        for name, (one, _) in list(self.waiting.items()):
            if is_there(bundle_paths(self._settings_of(name).model).identity):
                del self.waiting[name]
                self._begin(one)

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
                self.waiting[one.name] = one, str(error)
                return
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
            logger.warning("--state_dir belongs to another node, server or interval: judging starts over")
            return {}
        try:
            return state_of(parts)
        except (KeyError, TypeError, ValueError) as error:
            logger.warning("--state_dir holds no state of this node (%r); judging starts over", error)
            return {}

    # --- what is kept ----------------------------------------------------------------------------

    def states(self, names: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
        """Whole states, and changes of states, of nodes that were polled: name -> JSON, as Store.add takes
        them. Each has its turn to be written whole.
        """
        whole, changes = {}, {}
        self._polls += 1
        for place, name in enumerate(names):
            watch, kept = self.watches[name], self._kept[name]
            watched = {"watched": self._identities[name]}
            if name in self._unkept or (self._polls + place) % WHOLE_POLLS == 0:
                whole[name] = kept.whole({**watched, **watch.state()})
                self._unkept.discard(name)
            elif change := kept.changes({**watched, **watch.state(kept.slot)}):
                changes[name] = change
        return whole, changes

    def not_kept(self, names: Iterable[str]) -> None:
        """These states could not be written."""
        self._unkept.update(names)
