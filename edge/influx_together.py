"""The edge's queries of InfluxDB for many nodes at once: one statement for each series of all of them.

InfluxDB does not group the samples, which takes it longer than to read them: they are dealt to the nodes
here, by their instances. A node with a flood has to be asked alone, which takes bounded memory.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import influx_utils
from common.times import DAY_SECONDS
from edge import influx_queries
from edge.influx_queries import KEPT_OUT, field_of, measurement_of, tags_by_part
from edge.source import (
    CountOf,
    Line,
    NewestTimeOf,
    Samples,
    SamplesOf,
    WrongTypesOf,
)
from edge.together import ALONE, Owners, Readers, has_flood, most_samples, slots_of
from influx_client import AnswerTooLargeError, InfluxClient
from influx_versions import LongTimeError
from nodes.node import Node

# A statement gives at most so many rows: of more, InfluxDB says that they are not complete.
MOST_ROWS = 10_000
# InfluxDB takes long to choose among more parts than these, so it is not asked to.
MOST_PARTS = 40
# How far back the newest sample is looked for at once: an hour, a week, then four weeks more each time. What
# is older is looked for in the end.
NEWEST_SECONDS = (3600, *range(7 * DAY_SECONDS, 371 * DAY_SECONDS, 28 * DAY_SECONDS))


class InfluxTogether:
    """Reads the samples of many nodes from InfluxDB; each `readers` answers one kind of questions."""

    def __init__(self, client: InfluxClient) -> None:
        self._client = client
        readers: Readers = {
            SamplesOf: self._samples,
            CountOf: self._counts,
            NewestTimeOf: self._newest_times,
            WrongTypesOf: self._wrong_types,
        }
        self.readers = {kind: influx_utils.answers()(reader) for kind, reader in readers.items()}

    def _samples(self, questions: Sequence[SamplesOf]) -> list[Any]:
        interval_ns = int(questions[0].interval_seconds * 1e9)
        found = self._lines(questions, questions[0].reads_later)
        silent = {
            place: influx_queries.silent_keys(question.node, lines, slots_of(question), interval_ns)
            for place, (question, lines) in enumerate(zip(questions, found, strict=True))
            if lines is not ALONE
        }
        asked = list(dict.fromkeys(key for keys in silent.values() for key in keys))
        mixed = influx_queries.mixed_keys(self._client, questions[0].node, asked) if asked else []
        return [
            ALONE
            if lines is ALONE
            else Samples(lines, doubtful={key: KEPT_OUT for key in silent[place] if key in mixed})
            for place, lines in enumerate(found)
        ]

    def _counts(self, questions: Sequence[CountOf]) -> list[Any]:
        return [
            ALONE if lines is ALONE else sum(len(one.samples) for some in lines.values() for one in some)
            for lines in self._lines(questions, False)
        ]

    def _lines(self, questions: Sequence[SamplesOf | CountOf], reads_later: bool) -> list[Any]:
        """The samples of each node, or ALONE for one that has a flood.

        Raises AnswerTooLargeError if there is too much to read, but of no single node.
        """
        nodes = [question.node for question in questions]
        owners = Owners(nodes)
        spans = [(one.start, sys.maxsize if reads_later else one.end) for one in questions]
        most = [most_samples(slots_of(question)) for question in questions]
        begin, end = min(start for start, _ in spans), max(end for _, end in spans)
        span = f"time >= {begin}" + ("" if reads_later else f" AND time < {end}")
        found: list[Any] = [{} for _ in questions]
        pending = list(nodes[0].metrics.measurements)
        while pending:
            chosen = _conditions(pending, nodes[0], owners, span)
            statements = [
                f'SELECT {field_of(key, nodes[0])} AS "value", *::tag FROM {measurement_of(key, nodes[0])}'
                f" WHERE {chosen[key]} LIMIT {MOST_ROWS}"
                for key in pending
            ]
            answers = influx_utils.run(self._client, statements)
            again = []
            for key, answer in zip(pending, answers, strict=True):
                dealt, numbers = self._deal(key, answer, owners, spans)
                tags = tags_by_part(key, nodes[0])
                flooded = [
                    place
                    for place, number in enumerate(numbers)
                    if number >= most[place] and has_flood(dealt[place], most[place], tags)
                ]
                if sum(len(series["values"]) for series in answer) >= MOST_ROWS:
                    if not flooded:
                        raise AnswerTooLargeError(f"more than {MOST_ROWS} samples of {key}")
                    # Those of the others come without those of the flood.
                    again.append(key)
                for place in flooded:
                    found[place] = ALONE
                owners.leave_out(flooded)
                for lines, of_key in zip(found, dealt, strict=True):
                    if lines is not ALONE:
                        lines[key] = of_key
            pending = again if owners.places else []
        return found

    def _deal(
        self, key: str, answer: Sequence[dict[str, Any]], owners: Owners, spans: Sequence[tuple[int, int]]
    ) -> tuple[list[list[Line]], list[int]]:
        """The series of each node, and how many samples they have; spans: from when to before when (ns)."""
        dealt: list[list[Line]] = [[] for _ in spans]
        numbers = [0] * len(spans)
        places_of = owners.finder(key)
        for series in answer:
            group = tuple((series.get("tags") or {}).items())
            names = tuple(series["columns"][2:])
            found: dict[tuple[str | None, ...], list[tuple[int, Any]]] = {}
            for row in series["values"]:
                if type(row[0]) is not int:
                    raise ValueError("a time that is not a whole number")
                texts = tuple(row[2:])
                if texts in found:
                    found[texts].append((row[0], row[1]))
                else:
                    found[texts] = [(row[0], row[1])]
            for texts, samples in found.items():
                of_series = influx_queries.series_of(names, texts, group)
                for place in places_of(of_series):
                    start, end = spans[place]
                    # They are in the order of time.
                    is_all = start <= samples[0][0] and samples[-1][0] < end
                    own = samples if is_all else [one for one in samples if start <= one[0] < end]
                    if own:
                        dealt[place].append(Line(of_series, own))
                        numbers[place] += len(own)
        return dealt, numbers

    def _newest_times(self, questions: Sequence[NewestTimeOf]) -> list[Any]:
        """The newest of the last hour, or of the time before, and so on: the longer the time that a statement
        is about, the longer it takes for each series that has samples in all of it.
        """
        found: list[Any] = [None] * len(questions)
        try:
            for until, since in itertools.pairwise((0, *NEWEST_SECONDS, None)):
                left = [place for place, time in enumerate(found) if time is None]
                if not left:
                    break
                begin = f"now() - {since}s" if since else "0"
                span = f"time >= {begin} AND time < now() - {until}s"
                times = self._newest_in(span, [questions[place].node for place in left])
                for place, time in zip(left, times, strict=True):
                    found[place] = time
        except LongTimeError:
            return [ALONE] * len(questions)
        return found

    def _newest_in(self, span: str, nodes: Sequence[Node]) -> list[int | None]:
        owners = Owners(nodes)
        keys = list(nodes[0].metrics.measurements)
        chosen = _conditions(keys, nodes[0], owners, span)
        statements = [
            f'SELECT last({field_of(key, nodes[0])}) AS "value" FROM {measurement_of(key, nodes[0])}'
            f" WHERE {chosen[key]} GROUP BY {_told(key, nodes[0], owners)}"
            for key in keys
        ]
        times: list[list[int]] = [[] for _ in nodes]
        spans = [(-sys.maxsize, sys.maxsize)] * len(nodes)
        for key, answer in zip(keys, influx_utils.run(self._client, statements), strict=True):
            dealt, _ = self._deal(key, answer, owners, spans)
            for of_node, lines in zip(times, dealt, strict=True):
                of_node += (time for line in lines for time, _ in line.samples)
        return [max(of_node, default=None) for of_node in times]

    def _wrong_types(self, questions: Sequence[WrongTypesOf]) -> list[dict[str, str]]:
        keys = frozenset().union(*(question.keys for question in questions))
        types = influx_queries.wrong_types(self._client, questions[0].node, keys)
        return [{key: kind for key, kind in types.items() if key in question.keys} for question in questions]


def _conditions(keys: Iterable[str], node: Node, owners: Owners, span: str) -> dict[str, str]:
    """Which samples of each series may be those of any of the nodes, of which `node` is one."""
    found = {}
    of_exporter = {
        exporter: [influx_utils.any_of(tag, [text]) for tag, text in owners.common_tags(exporter).items()]
        + [influx_utils.one_of("instance", owners.instances(exporter))]
        for exporter in node.metrics.exporters
    }
    for key in keys:
        metric = node.metrics.measurements[key]
        conditions = [span, *(influx_utils.any_of(tag, [text]) for tag, text in metric.tags.items())]
        if metric.part_tag and len(parts := owners.parts(key)) <= MOST_PARTS:
            conditions.append(influx_utils.any_of(metric.part_tag, parts))
        found[key] = " AND ".join((*conditions, *of_exporter[metric.exporter]))
    return found


def _told(key: str, node: Node, owners: Owners) -> str:
    """What tells the parts of the nodes apart."""
    exporter = node.metrics.measurements[key].exporter
    tags = dict.fromkeys([*tags_by_part(key, node), "instance", *owners.pinned(exporter)])
    return ", ".join(map(influx_utils.identifier, tags))
