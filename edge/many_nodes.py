"""What many nodes have to say at once is said once: incidents that open together, and equal faults.

An incident of many nodes opens when the incidents of at least LEAST_NODES nodes, and of at least one node in
a hundred, have opened within SAME_MOMENT_SECONDS. What opens in the SAME_MOMENT_SECONDS after that belongs to
it. It closes with the last of its nodes. Until it opens, each incident is logged by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from common.times import format_duration, format_time
from common.values import mapping, text, whole
from edge.detector import UNKNOWN_CAUSE
from nodes.metrics import METRICS
from nodes.names import listed_names

logger = logging.getLogger("find_anomalies")

LEAST_NODES = 3
# More nodes than this that have the same to say are one line.
SINGLE_LINES = 5
# An attack that is weak here and strong there makes alerts of the 4th record, or of 8 within 30.
SAME_MOMENT_SECONDS = 150


@dataclass(frozen=True)
class IncidentChange:
    """The incident of a node opens or closes: `line` says so. time: of the record that shows it (ns)."""

    node: str
    time: int
    is_open: bool
    causes: tuple[str, ...]
    line: str


@dataclass
class OneIncident:
    """An incident of many nodes. began: when it opened (ns). members: its nodes. open: those still open.
    told: how many were logged. last: its newest record.
    """

    began: int
    members: set[str] = field(default_factory=set)
    open: set[str] = field(default_factory=set)
    causes: set[str] = field(default_factory=set)
    told: int = 0
    last: int = 0


class ManyNodes:
    """Takes what the incidents of nodes do, poll by poll; returns the lines to log."""

    def __init__(self) -> None:
        self._recent: dict[str, IncidentChange] = {}
        self._one: OneIncident | None = None

    @property
    def is_open(self) -> bool:
        """Whether an incident of many nodes is open."""
        return self._one is not None

    def observe(self, changes: Iterable[IncidentChange], nodes: int) -> list[str]:
        """The lines to log after these changes of a poll. nodes: how many are watched."""
        lines, alone = [], []
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
            if one.time >= newest - SAME_MOMENT_SECONDS * 10**9
        }
        if self._one is None and len(self._recent) >= max(LEAST_NODES, nodes / 100):
            self._open(newest)
            alone = [one for one in alone if one.node not in self._one.members]
        lines += [f"{one.node}: {one.line}" for one in alone]
        if self._one is not None:
            lines += self._news(nodes)
        return lines

    def _open(self, time: int) -> None:
        self._one = OneIncident(time)
        for change in self._recent.values():
            self._add(change)
        self._recent = {}

    def _join(self, change: IncidentChange) -> bool:
        if self._one is None or change.time > self._one.began + SAME_MOMENT_SECONDS * 10**9:
            return False
        self._add(change)
        return True

    def _add(self, change: IncidentChange) -> None:
        self._one.members.add(change.node)
        self._one.open.add(change.node)
        self._one.causes |= set(change.causes)
        self._one.last = max(self._one.last, change.time)

    def _leave(self, change: IncidentChange) -> bool:
        if self._one is None or change.node not in self._one.open:
            return False
        self._one.open.discard(change.node)
        self._one.causes |= set(change.causes)
        self._one.last = max(self._one.last, change.time)
        return True

    def _news(self, nodes: int) -> list[str]:
        one = self._one
        documented = [name for name in METRICS if name in one.causes]
        cause = " | ".join([*documented, *sorted(one.causes.difference(documented))]) or UNKNOWN_CAUSE
        names = listed_names(sorted(one.members))
        if not one.open:
            lasted = format_duration((one.last - one.began) / 1e9)
            line = (
                f"{format_time(one.last)} incident of {len(one.members)} nodes closes: {cause} for {lasted}"
                f" since {format_time(one.began)}: {names}"
            )
            self._one = None
            return [line]
        if len(one.members) < 2 * one.told or len(one.members) == one.told:
            return []
        verb = "grows" if one.told else "opens"
        one.told = len(one.members)
        count = f"{len(one.members)} of {nodes} nodes"
        return [f"{format_time(one.last)} incident of {count} {verb}: {cause}: {names}"]

    # --- over a restart --------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """The state that `restore` takes, as JSON."""
        one = self._one
        kept = one and {
            **asdict(one),
            **{key: sorted(getattr(one, key)) for key in ("members", "open", "causes")},
        }
        return {"one": kept, "recent": [asdict(change) for change in self._recent.values()]}

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
            )
            for one in state["recent"]
        ]
        kept = state["one"]
        if kept is not None:
            sets = {key: set(map(text, mapping(kept)[key])) for key in ("members", "open", "causes")}
            numbers = {key: whole(kept[key]) for key in ("began", "told", "last")}
            kept = OneIncident(**numbers, **sets)
        self._recent, self._one = {one.node: one for one in recent}, kept


class GatheredNotices:
    """Logs what many nodes have to say in one poll: a line for each, or one line if many say the same.

    gathered = GatheredNotices()
    notices = Notices(gathered.of("edge-7"))
    gathered.log()    # at the end of the poll
    """

    def __init__(self) -> None:
        self._lines: dict[tuple[str, int], list[tuple[str, str]]] = {}

    def of(self, node: str) -> Callable[[str, int, str], None]:
        """Takes what the notices of one node would log."""
        return lambda topic, level, message: self._lines.setdefault((topic, level), []).append(
            (node, message)
        )

    def log(self) -> None:
        """Log what was gathered since the last time."""
        lines, self._lines = self._lines, {}
        for (_, level), found in lines.items():
            if len(found) > SINGLE_LINES:
                (first, message), *_ = sorted(found)
                names = listed_names(sorted({node for node, _ in found}))
                logger.log(level, "%d nodes (%s), such as %s: %s", len(found), names, first, message)
                continue
            for node, message in found:
                logger.log(level, "%s: %s", node, message)
