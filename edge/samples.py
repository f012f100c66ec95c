"""The edge's queries of InfluxDB: they read the samples of one node in bounded memory.

The statements themselves bound the answers. Each asks for a limited number of samples of each part of the
node (a CPU, an interface); if there are more, the newest of each slot are asked for instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import influx_utils
from edge import influx_queries
from edge.influx_queries import (
    KEPT_OUT,
    by_part,
    conditions_of,
    field_of,
    lines_in,
    measurement_of,
    mixed_keys,
    silent_keys,
    statement_of,
)
from edge.influx_together import InfluxTogether
from edge.source import (
    LISTED_NAMES,
    SAMPLES_BESIDE,
    SAMPLES_PER_SLOT,
    TOO_MANY,
    Line,
    LinesByKey,
    Question,
    Samples,
    SamplesOf,
)
from edge.together import Together
from influx_client import AnswerTooLargeError, InfluxClient
from nodes.node import Node

# A URL may be long, but not arbitrarily long.
BATCH_CHARACTERS = 100_000


class InfluxSource:
    """Reads the samples of a node from InfluxDB; a SampleSource.

    server: host:port, and db_name, as messages name them.
    """

    errors = influx_utils.INFLUX_ERRORS
    product = "InfluxDB"
    option = "--influx_db"
    deletion = "DELETE WHERE time > now()"

    def __init__(self, client: InfluxClient, server: str, db_name: str) -> None:
        self._client, self._server, self._db_name = client, server, db_name
        self._together = Together(self, InfluxTogether(client).readers, AnswerTooLargeError)
        self.name = f"InfluxDB at {server}"
        self.place = f"{server}, database {db_name}"
        self.identity = {"server": server, "database": db_name}
        self.nothing_there = (
            f"{self.name}: database {db_name} has no usable sample of this node; check that Prometheus writes"
            " there (deploy/prometheus.yml), --influx_db and --node_file"
        )

    def prepare(self) -> None:
        """Create the database if there is none yet. Raises one of `errors`."""
        influx_utils.checkDatabase(self._client, self._db_name)

    def describe_error(self, error: Exception) -> str:
        """One line for the user: what went wrong, and what to do."""
        return influx_utils.describe_error(error, self._server, self._db_name)

    def kind_of(self, error: Exception) -> str:
        """One word for a label."""
        return influx_utils.kind_of(error)

    def is_away(self, error: Exception) -> bool:
        """Whether an error is one of the server as a whole."""
        return influx_utils.kind_of(error) != "error"

    def answer(self, questions: Sequence[Question]) -> list[Any]:
        """The answers to questions of many nodes, as in SampleSource."""
        return self._together.answer(questions)

    @influx_utils.answers()
    def get_samples(self, wanted: SamplesOf) -> Samples:
        """The samples that are wanted of a node, normally in one request. Raises one of INFLUX_ERRORS."""
        node, start, end = wanted.node, wanted.start, wanted.end
        interval_ns = int(wanted.interval_seconds * 1e9)
        slots = range(start // interval_ns * interval_ns, end, interval_ns)
        limit = SAMPLES_PER_SLOT * max(len(slots), 1) + SAMPLES_BESIDE
        span = f"time >= {start}" + ("" if wanted.reads_later else f" AND time < {end}")
        measurements = node.metrics.measurements
        statements = [statement_of(measurement, node, span, limit) for measurement in measurements]
        lines: LinesByKey = {}
        flooded, unread, has_later = [], [], False
        try:
            answers = influx_utils.run(self._client, statements)
        except AnswerTooLargeError:
            flooded += measurements
            answers = []
        for measurement, answer in zip(measurements, answers, strict=False):
            lines[measurement] = lines_in(answer)
            lasts = [series["values"][-1][0] for series in answer if len(series["values"]) >= limit]
            has_later |= any(last >= end for last in lasts)
            if any(last < end for last in lasts):
                flooded.append(measurement)
        for measurement in flooded:
            lines[measurement] = []
            # The known series are found by their tags, however many others there are.
            choices = [tags for tags in ((wanted.known_tags or {}).get(measurement), {}) if tags is not None]
            for tags in choices:
                try:
                    lines[measurement] = _newest_of_slots(
                        self._client, measurement, node, slots, start, interval_ns, tags
                    )
                except AnswerTooLargeError:
                    continue
                if lines[measurement]:
                    break
            else:
                unread.append(measurement)
        doubtful = self._kept_out(node, lines, slots, interval_ns)
        doubtful |= dict.fromkeys(unread, TOO_MANY)
        return Samples(lines, tuple(flooded), tuple(unread), has_later, doubtful)

    def _kept_out(
        self, node: Node, lines: LinesByKey, slots: Sequence[int], interval_ns: int
    ) -> dict[str, str]:
        """Series that are silent in a slot beside text or a field of two types: their points may be refused.

        Only those are asked for whose silence would mean a level.
        """
        silent = silent_keys(node, lines, len(slots), interval_ns)
        return dict.fromkeys(mixed_keys(self._client, node, silent), KEPT_OUT) if silent else {}

    @influx_utils.answers()
    def newest_samples(self, node: Node) -> LinesByKey:
        """The newest sample of each part of the node, whatever its time."""

        def queries(span: str) -> list[str]:
            return [
                f'SELECT last({field_of(key, node)}) AS "value", *::tag FROM {measurement_of(key, node)}'
                f" WHERE {conditions_of(key, node, span)}{by_part(key, node)}"
                for key in node.metrics.measurements
            ]

        answers = influx_utils.run_newest(self._client, queries)
        return {
            name: lines_in(answer) for name, answer in zip(node.metrics.measurements, answers, strict=True)
        }

    @influx_utils.answers()
    def newest_sample_time(self, node: Node) -> int | None:
        """Time of the node's newest sample up to now (ns), None if there is none."""

        def queries(span: str) -> list[str]:
            return [
                f'SELECT last({field_of(key, node)}) AS "value" FROM {measurement_of(key, node)}'
                f" WHERE {conditions_of(key, node, f'{span} AND time < now()')}"
                for key in node.metrics.measurements
            ]

        answers = influx_utils.run_newest(self._client, queries)
        times = [series["values"][-1][0] for answer in answers for series in answer]
        return max(times, default=None)

    @influx_utils.answers()
    def count_samples(self, node: Node, start: int, end: int) -> int:
        """How many samples of the node there are from `start` to before `end` (ns)."""
        span = f"time >= {start} AND time < {end}"
        queries = [
            f"SELECT count({field_of(name, node)}) FROM {measurement_of(name, node)}"
            f" WHERE {conditions_of(name, node, span)}"
            for name in node.metrics.measurements
        ]
        return sum(
            series["values"][0][1] for answer in influx_utils.run(self._client, queries) for series in answer
        )

    @influx_utils.answers()
    def wrong_types(self, node: Node, keys: Iterable[str]) -> dict[str, str]:
        """Key of a series -> type of stored values that may keep numbers out; others are absent."""
        return influx_queries.wrong_types(self._client, node, keys)

    @influx_utils.answers()
    def names_there(self, node: Node, key: str, tag: str) -> list[str]:
        """Values of this tag of a series in the database, at most LISTED_NAMES of them."""
        query = (
            f"SHOW TAG VALUES FROM {measurement_of(key, node)} WITH KEY = {influx_utils.identifier(tag)}"
            f" LIMIT {LISTED_NAMES}"
        )
        (answer,) = influx_utils.run(self._client, [query])
        return [value for series in answer for _, value in series["values"]]


def _newest_of_slots(
    client: InfluxClient,
    measurement: str,
    node: Node,
    slots: Sequence[int],
    start: int,
    interval_ns: int,
    tags: dict[str, str],
) -> list[Line]:
    """The newest sample in each slot of each series that has these tags."""
    spans = (f"time >= {max(slot, start)} AND time < {slot + interval_ns}" for slot in slots)
    statements = [
        # last() without a second function keeps the time of its sample.
        f'SELECT last({field_of(measurement, node)}) AS "value" FROM {measurement_of(measurement, node)}'
        f" WHERE {conditions_of(measurement, node, span, tags)} GROUP BY *"
        for span in spans
    ]
    lines: list[Line] = []
    in_batch = max(1, BATCH_CHARACTERS // max(map(len, statements), default=1))
    for first in range(0, len(statements), in_batch):
        for answer in influx_utils.run(client, statements[first : first + in_batch]):
            lines += lines_in(answer)
    return lines
