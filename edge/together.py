"""Questions of many nodes become few requests: alike ones are asked together, and halved where that fails."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from edge.source import (
    SAMPLES_BESIDE,
    SAMPLES_PER_SLOT,
    CountOf,
    Line,
    NewestTimeOf,
    Question,
    SamplesOf,
    SampleSource,
    Tagged,
    labels_of,
)
from nodes.metrics import MetricTable
from nodes.node import Node
from nodes.series import RECORD_SECONDS

# So many samples of a metric are expected of one request at most: some exporters are scraped more often.
SAMPLES_AT_ONCE = 4000
# The newest sample of a series costs a server more than one of a time that is given.
NEWEST_COSTS = 5
# If so many requests fail and none succeeds, it is the server: 1, 2, 4, 8 and 16 parts of a group.
MOST_FAILURES = 31
# Instances that all servers take as they are in a regular expression.
_PLAIN = re.compile(r"[\w.:@/\[\]% +-]+", re.ASCII)
_RECORD_NS = int(RECORD_SECONDS * 1e9)
# What a reader of many nodes returns for one that has to be asked alone.
ALONE: Any = object()
# Kind of question -> what answers several of that kind, about nodes with the same table of metrics.
Readers = Mapping[type, Callable[[Sequence[Any]], list[Any]]]


class Together:
    """Answers the questions of many nodes for a source.

    readers: what asks several questions of a kind; those of other kinds are asked alone. too_much: what is
    raised for an answer that is too large.
    """

    def __init__(self, source: SampleSource, readers: Readers, too_much: type[Exception]) -> None:
        self._source, self._readers, self._too_much = source, readers, too_much
        self._at_once = SAMPLES_AT_ONCE

    def answer(self, questions: Sequence[Question]) -> list[Any]:
        """The answers to all questions, as SampleSource.answer returns them.

        A node whose part of a group fails is asked alone in the end, as if there were no other.
        """
        answers: list[Any] = [ALONE] * len(questions)
        pending = deque(self._groups(questions))
        failures, is_well = 0, False
        while pending:
            places = pending.popleft()
            asked = [questions[place] for place in places]
            try:
                found = self._ask(asked)
            except self._source.errors as error:
                failures += not isinstance(error, self._too_much)
                if is_well and len(places) == 1 and self._source.kind_of(error) == "timeout":
                    # It is this node that takes long.
                    answers[places[0]] = error
                    continue
                if self._source.is_away(error) or (failures >= MOST_FAILURES and not is_well):
                    if self._source.kind_of(error) == "timeout":
                        # It may have been too much at once for a slow server.
                        self._at_once = max(self._at_once // 2, 1)
                    return [error if answer is ALONE else answer for answer in answers]
                half = len(places) // 2
                if half:
                    pending += [places[:half], places[half:]]
                else:
                    answers[places[0]] = error
                continue
            is_well = True
            for place, answer in zip(places, found, strict=True):
                answers[place] = answer
                if answer is ALONE:
                    pending.append([place])
        self._at_once = min(self._at_once + SAMPLES_AT_ONCE // 100, SAMPLES_AT_ONCE)
        return answers

    def _ask(self, questions: Sequence[Question]) -> list[Any]:
        if len(questions) == 1:
            return [questions[0].ask(self._source)]
        return self._readers[type(questions[0])](questions)

    def _groups(self, questions: Sequence[Question]) -> Iterator[list[int]]:
        """The places of questions that are asked together, with a limited number of samples each."""
        groups: dict[Hashable, list[int]] = {}
        for place, question in enumerate(questions):
            can_be_told = type(question) in self._readers and _is_told(question.node)
            groups.setdefault(_kind(question) if can_be_told else place, []).append(place)
        for places in groups.values():
            part: list[int] = []
            number = 0
            for place in places:
                expected = _expected_samples(questions[place])
                if part and number + expected > self._at_once:
                    yield part
                    part, number = [], 0
                part.append(place)
                number += expected
            yield part


def _is_told(node: Node) -> bool:
    """Whether the samples of a node are told from those of others by their instances."""
    names = [node.instance_of(exporter) for exporter in node.metrics.exporters]
    return all(name is not None and _PLAIN.fullmatch(name) for name in names)


def _kind(question: Question) -> tuple[Hashable, ...]:
    """What questions that are asked together have in common."""
    kind = (type(question), question.node.metrics)
    if not isinstance(question, (SamplesOf, CountOf)):
        return kind
    end = question.end // _interval_ns(question)
    # The earliest begins at most twice as early as the latest.
    return (*kind, end, slots_of(question).bit_length(), *_settings(question))


def _settings(question: SamplesOf | CountOf) -> tuple[Hashable, ...]:
    if isinstance(question, CountOf):
        return ()
    return question.interval_seconds, question.reads_later


def _interval_ns(question: SamplesOf | CountOf) -> int:
    return int(question.interval_seconds * 1e9) if isinstance(question, SamplesOf) else _RECORD_NS


def slots_of(question: SamplesOf | CountOf) -> int:
    """In how many slots the samples are that a question is about."""
    interval_ns = _interval_ns(question)
    return max(-(-question.end // interval_ns) - question.start // interval_ns, 0)


def _expected_samples(question: Question) -> int:
    """How many samples a question may have of the metric with the most parts."""
    if isinstance(question, (SamplesOf, CountOf)):
        return question.node.most_parts * slots_of(question)
    return question.node.most_parts * NEWEST_COSTS if isinstance(question, NewestTimeOf) else 0


class Owners:
    """Which of several nodes with the same table of metrics series belong to, by their pinned tags."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._metrics: MetricTable = nodes[0].metrics
        self._nodes = nodes
        self.places = set(range(len(nodes)))
        self._places: dict[str, dict[str, list[int]]] = {one: {} for one in self._metrics.exporters}
        for exporter, places in self._places.items():
            for place, node in enumerate(nodes):
                places.setdefault(node.instance_of(exporter) or "", []).append(place)

    def leave_out(self, places: Collection[int]) -> None:
        """Nothing belongs to these nodes any more."""
        if not places:
            return
        self.places -= set(places)
        for exporter, there in self._places.items():
            left = {instance: [one for one in ones if one in self.places] for instance, ones in there.items()}
            self._places[exporter] = {instance: ones for instance, ones in left.items() if ones}

    def finder(self, key: str) -> Callable[[Tagged], list[int]]:
        """From a series of this key to the places of the nodes that it belongs to."""
        metric = self._metrics.measurements[key]
        by_instance, part_tag = self._places[metric.exporter], metric.part_tag
        parts = [node.parts_of(metric) for node in self._nodes]
        pinned = [dict(node.tags_of(metric.exporter)) for node in self._nodes]

        def find(series: Tagged) -> list[int]:
            part = series.labels.get(part_tag) if part_tag else None
            return [
                place
                for place in by_instance.get(series.instance, ())
                if part in parts[place] and (not pinned[place] or _has_tags(series, pinned[place]))
            ]

        return find

    def instances(self, exporter: str) -> list[str]:
        """The instances of an exporter."""
        return list(self._places[exporter])

    def parts(self, key: str) -> list[str]:
        """All parts that the nodes have of a series with a tag for parts."""
        metric = self._metrics.measurements[key]
        return list(dict.fromkeys(part for node in self._nodes for part in node.parts_of(metric) if part))

    def common_tags(self, exporter: str) -> dict[str, str]:
        """The tags that all nodes pin for an exporter, without the instance."""
        first, *others = [dict(node.tags_of(exporter)) for node in self._nodes]
        return {tag: value for tag, value in first.items() if all(tags.get(tag) == value for tags in others)}

    def pinned(self, exporter: str) -> list[str]:
        """The tags that any node pins for an exporter, without the instance."""
        return list(dict.fromkeys(tag for node in self._nodes for tag, _ in node.tags_of(exporter)))


def _has_tags(series: Tagged, tags: Mapping[str, str]) -> bool:
    """Whether a series has these tags, and not those with an empty value."""
    return labels_of(tags.items()).items() <= series.labels.items() and not any(
        tag in series.labels for tag, text in tags.items() if not text
    )


def most_samples(slots: int) -> int:
    """How many samples of a part are read of so many slots; more are a flood."""
    return SAMPLES_PER_SLOT * max(slots, 1) + SAMPLES_BESIDE


def has_flood(lines: Iterable[Line], most: int, tags: Sequence[str]) -> bool:
    """Whether there are so many samples, or more, of a part, which these tags tell."""
    counts: Counter[tuple[str | None, ...]] = Counter()
    for line in lines:
        counts[tuple(map(line.series.labels.get, tags))] += len(line.samples)
    return max(counts.values(), default=0) >= most
