"""What the page shows of nodes: how things stand after the newest poll, and the last hours of one node.

The daemon hands over what it has after each poll. JSON is made in the server's thread, when somebody asks.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from common.alerts import UNKNOWN
from edge.bundle import Bundle
from edge.detector import Verdict
from edge.exporter import SILENT
from edge.history import IS_CAUSE, IS_UNKNOWN, History, row_type
from edge.incidents import Incident
from edge.levels import levels_of_all
from edge.sensitivity import blind_words
from edge.watch import Found, Watch
from nodes.metrics import OVERALL, MetricTable
from service.incident_log import IncidentLog
from service.json_text import STATUS_DIGITS, json_digits, json_numbers, json_object, json_whole
from service.page import ShownIncidents, notes_json

# What a node is before its first record.
NO_RECORD = "no record yet"
# The latest time (ns).
_LATEST = 2**63 - 1
# The newest rows of quiet anomalies of a node, of which it is known what keeps them quiet.
_MOST_REASONS = 100
# So many nodes may each have words of their own about what they miss.
_MOST_BLIND_NOTES = 5
# The largest number that a row holds: a bound may be infinite.
_LARGEST = 3e38
# Digits of what is compared with thresholds: all that a row has.
_ALL_DIGITS = 9


class NodeStanding(NamedTuple):
    """How one node stands. status: of its newest record, or what it is instead. silence: why it has no new
    record, if so. incident: the open one. thresholds_file: where a person edits the thresholds. quiet: what
    keeps the whole node quiet.
    """

    status: str
    bundle: Bundle
    thresholds: Mapping[str, float]
    unknown: tuple[str, ...]
    drifting: tuple[str, ...]
    silence: str | None
    incident: Incident | None
    thresholds_file: str = ""
    quiet: str = ""


@dataclass(frozen=True)
class Standing:
    """How things stand after a poll.

    polled_at: seconds since 1970. nodes: name -> how it stands; the only one has no name. waiting: name ->
    what it is, of nodes that are not watched. many: entries of the open incidents of many nodes. fault: why
    the poll could not judge, in one line; empty if it could.
    """

    polled_at: float
    nodes: Mapping[str, NodeStanding] = field(default_factory=dict)
    waiting: Mapping[str, str] = field(default_factory=dict)
    many: Sequence[Mapping[str, Any]] = ()
    fault: str = ""


class EdgePage:
    """Keeps what the page shows of nodes, and makes the answers of its routes.

    page = EdgePage(History("state/history"), IncidentLog("state"), 15.0)
    page.add([("edge-7", watch, found)])    # the records of a poll
    page.show(nodes, {}, [], "")            # how things stand after it
    """

    def __init__(
        self,
        history: History,
        incidents: IncidentLog,
        interval_seconds: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.history, self._clock = history, clock
        self._incidents, self._interval_seconds = ShownIncidents(incidents, "edge"), interval_seconds
        self._standing = Standing(clock(), fault="there was no poll yet")
        # Name -> the metrics that are unknown in its newest record.
        self._unknown: dict[str, tuple[str, ...]] = {}
        # Name -> first and last time (ns) of rows of quiet anomalies, and what keeps them quiet.
        self._reasons: dict[str, tuple[tuple[int, int, str], ...]] = {}
        # Equal tables of metrics -> the first of them; name -> its table, and the first that equals it. To
        # compare two takes longer than to judge a record.
        self._firsts: dict[MetricTable, MetricTable] = {}
        self._tables: dict[str, tuple[MetricTable, MetricTable]] = {}
        # Name -> model and thresholds, and what is said of the metrics that are blind with them.
        self._blind: dict[str, tuple[Bundle, Mapping[str, float], list[str]]] = {}

    @property
    def routes(self) -> dict[str, Callable[[dict[str, str]], bytes]]:
        """Path -> what makes its answer."""
        return {"/now": self.now, "/node": self.node}

    def version(self) -> Any:
        """Another one after each poll."""
        return self._standing

    # --- from the daemon -------------------------------------------------------------------------

    def add(self, polled: Sequence[tuple[str, Watch, Found]]) -> None:
        """Keep the records that a poll found of nodes. Raises OSError if they cannot be written."""
        groups: dict[int, list[tuple[str, Watch, Verdict]]] = {}
        for name, watch, found in polled:
            table = self._first_equal(name, watch.bundle.metrics)
            for verdict in found.verdicts:
                groups.setdefault(id(table), []).append((name, watch, verdict))
                if verdict.quiet:
                    self._keep_reason(name, verdict)
            if found.judged:
                newest = found.judged[-1].verdict
                is_unknown = newest.unknown or newest.status == UNKNOWN
                self._unknown[name] = (newest.unknown or tuple(watch.bundle.metrics)) if is_unknown else ()
        for group in groups.values():
            names, watches, verdicts = zip(*group, strict=True)
            rows = rows_of([one.bundle for one in watches], [one.thresholds for one in watches], verdicts)
            self.history.add(tuple(watches[0].bundle.metrics), names, rows)

    def _keep_reason(self, name: str, verdict: Verdict) -> None:
        """Keep what keeps this anomaly quiet: with the anomaly before, if that is the same."""
        *before, newest = self._reasons.get(name) or ((0, 0, ""),)
        if newest[2] == verdict.quiet:
            kept = [*before, (newest[0], verdict.time, verdict.quiet)]
        else:
            kept = [*before, newest, (verdict.time, verdict.time, verdict.quiet)]
        # Replaced as a whole: the reader is another thread.
        self._reasons[name] = tuple(one for one in kept if one[2])[-_MOST_REASONS:]

    def _first_equal(self, name: str, table: MetricTable) -> MetricTable:
        kept = self._tables.get(name)
        if kept is None or kept[0] is not table:
            kept = self._tables[name] = table, self._firsts.setdefault(table, table)
        return kept[1]

    def standing_of(self, name: str, watch: Watch, status: str | None) -> NodeStanding:
        """How a node stands. status: of its newest record, or what it is instead; None if there is none."""
        return NodeStanding(
            status or NO_RECORD,
            watch.bundle,
            watch.thresholds,
            self._unknown.get(name, ()),
            tuple(watch.drift.drifting),
            watch.silence if status == SILENT else None,
            watch.incidents.newest if watch.incidents.is_open else None,
            watch.thresholds_file,
            watch.kept_quiet,
        )

    def show(
        self,
        nodes: Mapping[str, NodeStanding],
        waiting: Mapping[str, str],
        many: Sequence[Mapping[str, Any]],
        fault: str,
    ) -> None:
        """Show from now on how things stand after a poll: the parameters are those of Standing."""
        self._standing = Standing(self._clock(), nodes, waiting, many, fault)

    # --- for browsers ----------------------------------------------------------------------------

    def now(self, words: Mapping[str, str]) -> bytes:
        """How things stand, as JSON."""
        standing = self._standing
        nodes = standing.nodes
        entries = [
            one.incident.entry(one.bundle.metrics) for one in nodes.values() if one.incident is not None
        ]
        statuses = {**standing.waiting, **{name: one.status for name, one in nodes.items()}}
        content = {
            "half": "edge",
            "polled": round(standing.polled_at * 1000),
            "every": self._interval_seconds,
            "fault": standing.fault,
            **self._incidents.content([*standing.many, *entries]),
            "notes": [
                *notes_json("unknown", {name: one.unknown for name, one in nodes.items()}),
                *notes_json("silent", {name: (one.silence,) for name, one in nodes.items() if one.silence}),
                *notes_json("quiet", {name: (one.quiet,) for name, one in nodes.items() if one.quiet}),
                *notes_json("drift", {name: one.drifting for name, one in nodes.items()}),
                *self._blind_notes(nodes),
            ],
            "nodes": list(statuses.items()),
        }
        return json.dumps(content, separators=(",", ":")).encode()

    def _blind_notes(self, nodes: Mapping[str, NodeStanding]) -> list[dict[str, Any]]:
        """The words of the log, or only the metrics if many nodes have words of their own."""
        blind = {name: self._blind_of(name, one) for name, one in nodes.items()}
        notes = notes_json("blind", blind)
        if len(notes) <= _MOST_BLIND_NOTES:
            return notes
        return notes_json(
            "blind", {name: [line.split()[0] for line in lines] for name, lines in blind.items()}
        )

    def _blind_of(self, name: str, one: NodeStanding) -> list[str]:
        known = self._blind.get(name)
        if known is None or known[0] is not one.bundle or known[1] is not one.thresholds:
            found = blind_words(one.bundle.curves, one.thresholds, one.bundle.metrics)
            known = self._blind[name] = one.bundle, one.thresholds, found
        return known[2]

    def node(self, words: Mapping[str, str]) -> bytes:
        """The records of a node, its `name`, after `since` (ns), as JSON.

        Raises LookupError for a name that is not watched, and ValueError for a wrong number.
        """
        name = words.get("name", "")
        one = self._standing.nodes.get(name)
        if one is None:
            raise LookupError(f"{name or 'the only node'} is not watched")
        since = _since(words.get("since", "0"))
        table = one.bundle.metrics
        metrics, rows = self.history.read(name, since)
        if metrics and metrics != tuple(table):
            # Of the model before, which watched other metrics.
            rows = rows[:0]
        times = rows["time"]
        parts = {
            "name": json.dumps(name),
            "status": json.dumps(one.status),
            "since": json.dumps(str(since)),
            "newest": json.dumps(str(int(times[-1]) if len(times) else since)),
            "times": json_whole(times // 10**6),
            "statuses": json_digits(rows["status"]),
            "quiet": json_digits(rows["is_quiet"]),
            "reasons": json.dumps(
                [[begin // 10**6, end // 10**6, why] for begin, end, why in self._reasons.get(name, ())]
            ),
            "thresholds_file": json.dumps(one.thresholds_file),
            "metrics": json_object({key: _metric(table, one, key, rows) for key in table.threshold_keys}),
        }
        return json_object(parts).encode()


def _since(text: str) -> int:
    try:
        return min(max(int(text), 0), _LATEST)
    except ValueError:
        raise ValueError("since must be a whole number of nanoseconds since 1970") from None


def rows_of(
    bundles: Sequence[Bundle], thresholds: Sequence[Mapping[str, float]], verdicts: Sequence[Verdict]
) -> np.ndarray:
    """The rows of the records of n nodes with the same metrics, (n,)."""
    metrics = bundles[0].metrics
    rows = np.zeros(len(verdicts), row_type(len(metrics)))
    limits = np.array(list(map(itemgetter(*metrics.threshold_keys.values()), thresholds)))
    shares = np.array([list(one.shares.values()) for one in verdicts])
    rows["time"] = [one.time for one in verdicts]
    rows["status"] = [STATUS_DIGITS.index(one.status) for one in verdicts]
    rows["is_quiet"] = [bool(one.quiet) for one in verdicts]
    for place, one in enumerate(verdicts):
        if one.causes or one.unknown:
            rows["marks"][place] = [
                IS_CAUSE * (name in one.causes) + IS_UNKNOWN * (name in one.unknown) for name in metrics
            ]
    rows["levels"] = np.clip(levels_of_all(bundles, thresholds, verdicts), -_LARGEST, _LARGEST)
    rows["rmse"] = np.minimum(np.array([list(one.rmse.values()) for one in verdicts]), _LARGEST)
    # The detector gives it in multiples of the threshold.
    rows["evidence"] = np.minimum(shares * np.maximum(limits, 1e-9), _LARGEST)
    return rows


def _metric(table: MetricTable, one: NodeStanding, name: str, rows: np.ndarray) -> str:
    """The records of one metric, or of `overall`, as JSON."""
    key = table.threshold_keys[name]
    place = list(table.threshold_keys).index(name)
    parts = {
        "key": json.dumps(key),
        "threshold": json.dumps(one.thresholds[key]),
        "rmse": json_numbers(rows["rmse"][:, place]) if len(rows) else "[]",
        "evidence": json_numbers(rows["evidence"][:, place], _ALL_DIGITS) if len(rows) else "[]",
    }
    if name != OVERALL:
        parts["unit"] = json.dumps(table[name].unit)
        for word, kind in (("actual", 0), ("low", 1), ("expected", 2), ("high", 3)):
            parts[word] = json_numbers(rows["levels"][:, place, kind]) if len(rows) else "[]"
        parts["marks"] = json_digits(rows["marks"][:, place] if len(rows) else rows["time"])
    return json_object(parts)
