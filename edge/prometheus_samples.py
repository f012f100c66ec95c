"""The edge's queries of Prometheus and VictoriaMetrics: raw samples of one node, in bounded memory.

A range selector in an instant query returns raw samples with their own times from both servers. Series whose
labels must be the same are read together. What is read of a flood is the newest sample of each slot.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import prometheus_utils
from common.files import UserError
from edge.prometheus_together import LATER_NS, LOOKBACK_NS, PrometheusTogether
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
    labels_of,
    tagged,
)
from edge.together import Together
from nodes.node import Node
from nodes.series import pinned_tags
from prometheus_utils import Matchers, Prometheus, PrometheusError, TooMuchError, range_text, selector

_SECOND = 10**9
# Space in an answer for the labels of all series, and for each sample.
LABEL_BYTES, SAMPLE_BYTES = 1 << 20, 40
# At most this many samples of a flood are kept.
MOST_POINTS = 100_000


class PrometheusSource:
    """Reads the samples of a node from Prometheus or VictoriaMetrics; a SampleSource."""

    errors = (PrometheusError,)
    product = "Prometheus"
    option = "--prometheus_url"
    deletion = (
        "POST /api/v1/admin/tsdb/delete_series with match[] and start; VictoriaMetrics takes no start and"
        " deletes whole series"
    )

    def __init__(self, client: Prometheus) -> None:
        self._client = client
        self._together = Together(self, PrometheusTogether(client).readers, TooMuchError)
        self.name = f"Prometheus at {client.url}"
        self.place = client.url
        self.identity = {"server": client.url}
        self.nothing_there = (
            f"{self.name} has no usable sample of this node from the last 31 days; check that it scrapes the"
            " exporters (deploy/prometheus.yml), --prometheus_url and --node_file"
        )

    def prepare(self) -> None:
        """Nothing is needed."""

    def describe_error(self, error: Exception) -> str:
        """One line for the user: what went wrong, and what to do."""
        assert isinstance(error, PrometheusError)
        return prometheus_utils.describe_prometheus_error(error, self._client.url)

    def kind_of(self, error: Exception) -> str:
        """One word for a label."""
        assert isinstance(error, PrometheusError)
        return error.label

    def is_away(self, error: Exception) -> bool:
        """Whether an error is one of the server as a whole."""
        assert isinstance(error, PrometheusError)
        return error.label != "error"

    def answer(self, questions: Sequence[Question]) -> list[Any]:
        """The answers to questions of many nodes, as in SampleSource."""
        return self._together.answer(questions)

    def get_samples(self, wanted: SamplesOf) -> Samples:
        """The samples that are wanted of a node, in one request for each kind of labels; the later ones of
        two days after its end. Raises PrometheusError.
        """
        node, start, end = wanted.node, wanted.start, wanted.end
        interval_ns = int(wanted.interval_seconds * 1e9)
        slots = range(start // interval_ns * interval_ns, end, interval_ns)
        until = end + LATER_NS if wanted.reads_later else end
        lines: LinesByKey = {key: [] for key in node.metrics.series}
        flooded, unread = [], []
        for matchers, keys in _groups(node, node.metrics.series).items():
            parts = sum(len(node.parts_of(node.metrics.measurements[key])) for key in keys)
            limit = parts * (SAMPLES_PER_SLOT * max(len(slots), 1) + SAMPLES_BESIDE)
            most_bytes = LABEL_BYTES + SAMPLE_BYTES * limit
            try:
                lines |= self._read(keys, node, matchers, start, until, most_bytes)
                continue
            except TooMuchError:
                pass
            for key in keys:
                try:
                    lines |= self._read([key], node, matchers, start, until, most_bytes)
                except TooMuchError:
                    flooded.append(key)
        for key in flooded:
            # The known series are found by their tags, however many others there are.
            choices = [tags for tags in ((wanted.known_tags or {}).get(key), {}) if tags is not None]
            found = (self._newest_of_slots(key, node, slots, start, interval_ns, tags) for tags in choices)
            lines[key] = next(filter(None, found), [])
            if not lines[key]:
                unread.append(key)
        has_later = wanted.reads_later and bool(flooded)
        doubtful = dict.fromkeys(unread, TOO_MANY)
        return Samples(lines, tuple(flooded), tuple(unread), has_later, doubtful)

    def newest_samples(self, node: Node) -> LinesByKey:
        """The newest sample of each series of the node, of up to two days from now."""
        lines: LinesByKey = {}
        for key in node.metrics.series:
            newest = self._newest_time([key], node, time.time_ns() + LATER_NS)
            lines[key] = []
            if newest is not None:
                lines |= self._read([key], node, _matchers(key, node, {}), newest, newest + 1)
        return lines

    def newest_sample_time(self, node: Node) -> int | None:
        """Time of the node's newest sample up to now (ns), None if there is none from the last 31 days."""
        return self._newest_time(list(node.metrics.series), node, time.time_ns())

    def count_samples(self, node: Node, start: int, end: int) -> int:
        """How many samples of the node there are from `start` to before `end` (ns)."""
        return self._count(list(node.metrics.series), node, start, end)

    def wrong_types(self, node: Node, keys: Iterable[str]) -> dict[str, str]:
        """Prometheus holds numbers alone."""
        return {}

    def names_there(self, node: Node, key: str, tag: str) -> list[str]:
        """Values of this tag of a series, at most LISTED_NAMES of them."""
        named = selector([node.metrics.series[key].measurement])
        return self._client.label_values(tag, named)[:LISTED_NAMES]

    def _read(
        self,
        keys: Sequence[str],
        node: Node,
        matchers: Matchers,
        start: int,
        end: int,
        most_bytes: int = prometheus_utils.LARGEST_ANSWER_BYTES,
    ) -> LinesByKey:
        """Raw samples of series with the same matchers."""
        names = {key: node.metrics.series[key].measurement for key in keys}
        by_name: LinesByKey = {name: [] for name in names.values()}
        # Prometheus 3 and VictoriaMetrics leave out the beginning of a range, Prometheus 2 does not.
        expression = selector(list(by_name), matchers) + range_text(end - start + 10**6)
        result = self._client.query(expression, end, most_bytes)
        for labels, rows in prometheus_utils.rows_of(result):
            lines = by_name.get(labels.pop("__name__", ""), [])
            if found := [(at, value) for at, value in rows if start <= at < end]:
                lines.append(Line(tagged(labels_of(labels.items())), found))
        return {key: by_name[name] for key, name in names.items()}

    def _newest_of_slots(
        self,
        key: str,
        node: Node,
        slots: Sequence[int],
        start: int,
        interval_ns: int,
        tags: Mapping[str, str],
    ) -> list[Line]:
        """The newest sample in each slot of each series that has these tags; none if there are too many."""
        matchers = _matchers(key, node, tags)
        lines: list[Line] = []
        for slot in slots:
            try:
                found = self._read([key], node, matchers, max(slot, start), slot + interval_ns)[key]
            except TooMuchError:
                return []
            lines += [Line(line.series, [max(line.samples)]) for line in found]
            if len(lines) > MOST_POINTS:
                return []
        return lines

    def _newest_time(self, keys: Sequence[str], node: Node, end: int) -> int | None:
        """Time of the newest sample of these series before `end` (ns)."""
        span = 600 * _SECOND
        while not self._count(keys, node, end - span, end):
            if span == LOOKBACK_NS:
                return None
            span = min(6 * span, LOOKBACK_NS)
        start = end - span
        # The newest sample is at `start` or later, and before `end`.
        while end - start > _SECOND:
            middle = (start + end) // 2
            if self._count(keys, node, middle, end):
                start = middle
            else:
                end = middle
        try:
            found = [
                at
                for matchers, group in _groups(node, keys).items()
                for lines in self._read(group, node, matchers, start - 10**6, end).values()
                for line in lines
                for at, _ in line.samples
            ]
        except TooMuchError:
            return end
        return max(found, default=None)

    def _count(self, keys: Sequence[str], node: Node, start: int, end: int) -> int:
        span = range_text(end - start)
        measurements = [node.metrics.series[key].measurement for key in keys]
        counted = [
            selector([name], _matchers(key, node, {})) + span
            for key, name in zip(keys, measurements, strict=True)
        ]
        counts = [f"(sum(count_over_time({one})) or vector(0))" for one in counted]
        result = self._client.query("+".join(counts), end - 10**6)
        return int(sum(value for _, rows in prometheus_utils.rows_of(result) for _, value in rows))


def check_node(node: Node) -> None:
    """Raise UserError for a node whose series Prometheus cannot hold."""
    for key, series in node.metrics.series.items():
        if series.value_field != "value":
            raise UserError(
                f"{key}: Prometheus has no field {series.value_field!r}, only values; leave 'field' out of"
                " the metric in --node_file, or read it with --source influxdb"
            )
        for label, _ in _matchers(key, node, {}):
            if not prometheus_utils.is_label(label):
                raise UserError(
                    f"{key}: Prometheus has no label {label!r}; a name has letters, digits and _, correct it"
                    " in --node_file"
                )


def _groups(node: Node, keys: Iterable[str]) -> dict[Matchers, list[str]]:
    """What the labels of series must be -> the keys of these series."""
    groups: dict[Matchers, list[str]] = {}
    for key in keys:
        groups.setdefault(_matchers(key, node, {}), []).append(key)
    return groups


def _matchers(key: str, node: Node, tags: Mapping[str, str]) -> Matchers:
    """What the labels of the series with this key must be, and these tags."""
    metric = node.metrics.measurements[key]
    found = {tag: (value,) for tag, value in metric.tags.items()}
    if metric.part_tag:
        found[metric.part_tag] = tuple(part for part in node.parts_of(metric) if part is not None)
    found |= {tag: (value,) for tag, value in {**tags, **pinned_tags(key, node)}.items()}
    return tuple(found.items())
