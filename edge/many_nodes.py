"""Incidents of many nodes that open together are one incident.

An incident of many nodes opens when the incidents of at least LEAST_NODES nodes, and of at least one node in
a hundred, have opened within SAME_MOMENT_SECONDS. What opens in the SAME_MOMENT_SECONDS after that belongs to
it. It closes with the last of its nodes. Until it opens, each incident is logged by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from common.times import format_duration, format_time
from common.values import mapping, text, whole
from edge.detector import UNKNOWN_CAUSE
from edge.incidents import incident_id
from nodes.metrics import METRICS
from nodes.names import listed_names

LEAST_NODES = 3
# A line about an incident names at most so many nodes.
NAMED_MEMBERS = 20
# An attack that is weak here and strong there makes alerts of the 4th record, or of 8 within 30.
SAME_MOMENT_SECONDS = 150
# In place of the name of a node in the id of an incident of many.
MANY_NAME = "many"
_SETS = ("members", "open", "causes", "incidents")


@dataclass(frozen=True)
class IncidentChange:
    """The incident of a node opens or closes: `line` says so. time: of the record that shows it (ns).

    id, why: of the incident.
    """

    node: str
    time: int
    is_open: bool
    causes: tuple[str, ...]
    line: str
    id: str = ""
    why: str = ""


@dataclass
class OneIncident:
    """An incident of many nodes. began: when it opened (ns). members: its nodes. open: those still open.
    told: how many were logged. last: its newest record. incidents: the ids of those of its nodes. why: of the
    first of them.
    """

    began: int
    members: set[str] = field(default_factory=set)
    open: set[str] = field(default_factory=set)
    causes: set[str] = field(default_factory=set)
    told: int = 0
    last: int = 0
    incidents: set[str] = field(default_factory=set)
    why: str = ""

    @property
    def id(self) -> str:
        """Its name, such as many@20260306T120014Z."""
        return incident_id(MANY_NAME, self.began)

    @property
    def cause(self) -> str:
        """The causes as one text, the documented ones first."""
        documented = [name for name in METRICS if name in self.causes]
        return " | ".join([*documented, *sorted(self.causes.difference(documented))]) or UNKNOWN_CAUSE

    def take(self, change: IncidentChange) -> None:
        """The incident of one of its nodes opens or closes."""
        self.members.add(change.node)
        (self.open.add if change.is_open else self.open.discard)(change.node)
        self.causes |= set(change.causes)
        if change.id:
            self.incidents.add(change.id)
        self.why = self.why or change.why
        self.last = max(self.last, change.time)

    def news(self, nodes: int) -> list[str]:
        """The line to log: that it opens, has doubled or closes. nodes: how many are watched."""
        names = listed_names(sorted(self.members), NAMED_MEMBERS)
        count = len(self.members)
        if not self.open:
            lasted = format_duration((self.last - self.began) / 1e9)
            return [
                f"{format_time(self.last)} incident of {count} nodes closes: {self.cause} for {lasted} since"
                f" {format_time(self.began)}: {names} [{self.id}]"
            ]
        if self.told and count < 2 * self.told:
            return []
        verb, why = ("grows", "") if self.told else ("opens", f"; {self.why}" if self.why else "")
        self.told = count
        of = f"incident of {count} of {nodes} nodes"
        return [f"{format_time(self.last)} {of} {verb}: {self.cause}: {names}{why} [{self.id}]"]

    def entry(self) -> dict[str, Any]:
        """The incident for other programs, as JSON."""
        count = len(self.members) - 1
        return {
            "id": self.id,
            "half": "edge",
            "node": "",
            "cause": self.cause,
            "began": format_time(self.began),
            "opened": format_time(self.began),
            "last": format_time(self.last),
            "ended": None if self.open else format_time(self.last),
            "why": f"{self.why or self.cause}; likewise {count} more node{'s' * (count != 1)}",
            "metrics": {},
            "members": sorted(self.incidents),
        }

    def state(self) -> dict[str, Any]:
        """Its state, as JSON."""
        return {
            **asdict(self),
            **{key: sorted(getattr(self, key)) for key in _SETS},
        }


class ManyNodes:
    """Takes what the incidents of nodes do, poll by poll; returns the lines to log."""

    def __init__(self) -> None:
        self._recent: dict[str, IncidentChange] = {}
        self._shared: list[OneIncident] = []
        # What the newest lines say, for other programs.
        self.entries: list[dict[str, Any]] = []

    @property
    def is_open(self) -> bool:
        """Whether an incident of many nodes is open."""
        return bool(self._shared)

    @property
    def open_entries(self) -> list[dict[str, Any]]:
        """The open incidents of many nodes, as JSON."""
        return [shared.entry() for shared in self._shared]

    def with_shared(self, are_open: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
        """The open incidents for other programs, one of all nodes that share one.

        are_open: node -> its own.
        """
        shared = {name for one in self._shared for name in one.open}
        alone = [entry for name, entry in are_open.items() if name not in shared]
        return [*(one.entry() for one in self._shared), *alone]

    def observe(
        self, changes: Iterable[IncidentChange], nodes: int, still_open: Collection[str]
    ) -> list[str]:
        """The lines to log after these changes of a poll.

        nodes: how many are watched. still_open: those of them that have an open incident.
        """
        alone = []
        for change in sorted(changes, key=lambda one: (one.time, one.node)):
            if not change.is_open:
                self._recent.pop(change.node, None)
                if not self._leave(change):
                    alone.append(change)
            elif not self._join(change):
                self._recent[change.node] = change
                alone.append(change)
        newest = max((one.time for one in self._recent.values()), default=0)
        self._recent = {
            name: one
            for name, one in self._recent.items()
            if one.time >= newest - SAME_MOMENT_SECONDS * 10**9 and name in still_open
        }
        if len(self._recent) >= max(LEAST_NODES, nodes / 100):
            shared = OneIncident(newest)
            for change in self._recent.values():
                shared.take(change)
            self._shared.append(shared)
            self._recent = {}
            alone = [one for one in alone if not one.is_open or one.node not in shared.members]
        lines = [f"{one.node}: {one.line}" for one in alone]
        self.entries = []
        for shared in self._shared:
            # A node may be watched no more, or have lost its state.
            shared.open &= set(still_open)
            if news := shared.news(nodes):
                lines += news
                self.entries.append(shared.entry())
        self._shared = [shared for shared in self._shared if shared.open]
        return lines

    def _join(self, change: IncidentChange) -> bool:
        for shared in self._shared:
            if change.time <= shared.began + SAME_MOMENT_SECONDS * 10**9:
                shared.take(change)
                return True
        return False

    def _leave(self, change: IncidentChange) -> bool:
        for shared in self._shared:
            if change.node in shared.open:
                shared.take(change)
                return True
        return False

    # --- over a restart --------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """The state that `restore` takes, as JSON."""
        return {
            "shared": [shared.state() for shared in self._shared],
            "recent": [asdict(change) for change in self._recent.values()],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue where another process stopped.

        Raises KeyError, TypeError or ValueError if the state is invalid, and then changes nothing.
        """
        recent = [
            IncidentChange(
                text(mapping(one)["node"]),
                whole(one["time"]),
                bool(one["is_open"]),
                tuple(map(text, one["causes"])),
                text(one["line"]),
                # A state of an older version has no ids and reasons.
                text(one.get("id", "")),
                text(one.get("why", "")),
            )
            for one in state["recent"]
        ]
        shared = []
        for one in state["shared"]:
            sets = {key: set(map(text, mapping(one).get(key, ()))) for key in _SETS}
            numbers = {key: whole(one[key]) for key in ("began", "told", "last")}
            shared.append(OneIncident(**numbers, **sets, why=text(one.get("why", ""))))
        self._recent, self._shared = {one.node: one for one in recent}, shared
