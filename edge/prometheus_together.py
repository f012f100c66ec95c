"""The edge's queries of Prometheus and VictoriaMetrics for many nodes at once."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import prometheus_utils
from edge.source import (
    CountOf,
    Line,
    LinesByKey,
    NewestTimeOf,
    Samples,
    SamplesOf,
    WrongTypesOf,
    labels_of,
    tagged,
)
from edge.together import ALONE, Owners, Readers, has_flood, most_samples, slots_of
from nodes.node import Node
from prometheus_utils import Matchers, Prometheus, TooMuchError, range_text, selector

# VictoriaMetrics keeps no sample that is dated later than this, and these are the later ones looked at.
LATER_NS = 2 * 86400 * 10**9
# How far back the newest sample is looked for.
LOOKBACK_NS = 31 * 86400 * 10**9
# VictoriaMetrics takes no longer query.
LONGEST_QUERY = 16_000
_SECOND = 10**9


class PrometheusTogether:
    """Reads the samples of many nodes; each of `readers` answers one kind of questions."""

    def __init__(self, client: Prometheus) -> None:
        self._client = client
        self.readers: Readers = {
            SamplesOf: self._samples,
            CountOf: self._counts,
            NewestTimeOf: self._newest_times,
            WrongTypesOf: lambda questions: [{} for _ in questions],
        }

    def _samples(self, questions: Sequence[SamplesOf]) -> list[Any]:
        later_ns = LATER_NS if questions[0].reads_later else 0
        most = [most_samples(slots_of(question)) for question in questions]
        nodes = [question.node for question in questions]
        found = self._lines(nodes, [(one.start, one.end + later_ns) for one in questions])
        return [
            ALONE if _has_flood(node, lines, limit) else Samples(lines)
            for node, lines, limit in zip(nodes, found, most, strict=True)
        ]

    def _counts(self, questions: Sequence[CountOf]) -> list[int]:
        spans = [(question.start, question.end) for question in questions]
        found = self._lines([question.node for question in questions], spans)
        return [sum(len(line.samples) for some in lines.values() for line in some) for lines in found]

    def _lines(self, nodes: Sequence[Node], spans: Sequence[tuple[int, int]]) -> list[LinesByKey]:
        """The samples of each node, from when to before when (ns)."""
        owners = Owners(nodes)
        begin, end = min(start for start, _ in spans), max(end for _, end in spans)
        found: list[LinesByKey] = [{key: [] for key in nodes[0].metrics.series} for _ in nodes]
        for matchers, keys in _groups(nodes[0], owners).items():
            key_of = {nodes[0].metrics.series[key].measurement: key for key in keys}
            finders = {name: owners.finder(key) for name, key in key_of.items()}
            # Prometheus 3 and VictoriaMetrics leave out the beginning of a range, Prometheus 2 does not.
            expression = selector(list(key_of), matchers) + range_text(end - begin + 10**6)
            for labels, rows in prometheus_utils.rows_of(self._query(expression, end)):
                name = labels.pop("__name__", "")
                series = tagged(labels_of(labels.items()))
                for place in finders[name](series) if name in finders else ():
                    start, until = spans[place]
                    if samples := [row for row in rows if start <= row[0] < until]:
                        found[place][key_of[name]].append(Line(series, samples))
        return found

    def _query(self, expression: str, time: int) -> list[Any]:
        if len(expression) > LONGEST_QUERY:
            raise TooMuchError("error", f"a query of more than {LONGEST_QUERY} characters")
        return self._client.query(expression, time)

    def _newest_times(self, questions: Sequence[NewestTimeOf]) -> list[int | None]:
        """The span of the newest sample is halved for all nodes at once, as long as it is the same."""
        nodes = [question.node for question in questions]
        now = time.time_ns()
        found: list[int | None] = [None] * len(nodes)
        pending: list[tuple[int, int, set[int]]] = []
        left, span = set(range(len(nodes))), 600 * _SECOND
        while left:
            there = self._with_samples(nodes, left, now - span, now)
            pending.append((now - span, now, there))
            left -= there
            if span == LOOKBACK_NS:
                break
            span = min(6 * span, LOOKBACK_NS)
        while pending:
            # The newest sample of these nodes is at `start` or later, and before `end`.
            start, end, places = pending.pop()
            if not places:
                continue
            if end - start > _SECOND:
                middle = (start + end) // 2
                there = self._with_samples(nodes, places, middle, end)
                pending += [(middle, end, there), (start, middle, places - there)]
                continue
            order = sorted(places)
            spans = [(start - 10**6, end)] * len(order)
            for place, lines in zip(order, self._lines([nodes[one] for one in order], spans), strict=True):
                times = [at for some in lines.values() for line in some for at, _ in line.samples]
                found[place] = max(times, default=None)
        return found

    def _with_samples(self, nodes: Sequence[Node], places: Iterable[int], start: int, end: int) -> set[int]:
        """The places of those nodes that have samples from `start` to before `end` (ns)."""
        order = sorted(places)
        owners = Owners([nodes[place] for place in order])
        found: set[int] = set()
        for matchers, keys in _groups(nodes[0], owners).items():
            exporter = nodes[0].metrics.measurements[keys[0]].exporter
            tags = dict.fromkeys(["__name__", "instance", *owners.pinned(exporter)])
            if part_tag := nodes[0].metrics.part_tag(keys[0]):
                tags[part_tag] = None
            key_of = {nodes[0].metrics.series[key].measurement: key for key in keys}
            finders = {key: owners.finder(key) for key in keys}
            # This function keeps the names, by which series with the same labels differ.
            chosen = f"last_over_time({selector(list(key_of), matchers)}{range_text(end - start)})"
            result = self._query(f"count by ({','.join(tags)}) ({chosen})", end - 10**6)
            for labels, _ in prometheus_utils.rows_of(result):
                if key := key_of.get(labels.pop("__name__", "")):
                    series = tagged(labels_of(labels.items()))
                    found.update(order[place] for place in finders[key](series))
        return found


def _has_flood(node: Node, lines: LinesByKey, most: int) -> bool:
    for key, some in lines.items():
        tag = node.metrics.part_tag(key)
        if sum(len(line.samples) for line in some) >= most and has_flood(some, most, [tag] if tag else []):
            return True
    return False


def _groups(node: Node, owners: Owners) -> dict[Matchers, list[str]]:
    """What the labels of series of any of the nodes must be -> the keys of these series."""
    groups: dict[Matchers, list[str]] = {}
    for key, metric in node.metrics.measurements.items():
        matchers = {tag: (text,) for tag, text in metric.tags.items()}
        if metric.part_tag:
            matchers[metric.part_tag] = tuple(owners.parts(key))
        matchers |= {tag: (text,) for tag, text in owners.common_tags(metric.exporter).items()}
        matchers["instance"] = tuple(owners.instances(metric.exporter))
        groups.setdefault(tuple(matchers.items()), []).append(key)
    return groups
