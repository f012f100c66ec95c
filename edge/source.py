"""What the edge half asks of a database: questions, each about one node, and who answers them."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar

from nodes.node import Node
from nodes.series import OWN_KEYS, RECORD_SECONDS, JsonArray, Record

# Exporters are scraped about once a slot, some more often, and samples of two slots may be asked for.
SAMPLES_PER_SLOT, SAMPLES_BESIDE = 20, 100
# Why a series of a flood has no sample.
TOO_MANY = "there are too many samples of it to read"
# How many names a message lists for the user to choose from.
LISTED_NAMES = 6
_Result = TypeVar("_Result")


class Tagged(NamedTuple):
    """The tags of a series, all as `labels`; `tags` are those without `instance`, sorted by name."""

    labels: dict[str, str]
    instance: str
    tags: tuple[tuple[str, str], ...]


class Line(NamedTuple):
    """Samples of one series, in any order: time (ns) and value of each."""

    series: Tagged
    samples: list[tuple[int, Any]]


# Key of a series -> what was found under it.
LinesByKey = dict[str, list[Line]]


@dataclass(frozen=True)
class Samples:
    """lines: measurement -> its series with their samples.

    flooded: measurements with too many samples to read; `lines` has only the newest of each slot and series.
    unread: those of the flooded ones where even that was too much. has_later: more samples than can be read
    are dated later than now. doubtful: key of a series -> why it may have samples that are not seen, so that
    its silence tells nothing.
    """

    lines: LinesByKey
    flooded: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    has_later: bool = False
    doubtful: Mapping[str, str] = field(default_factory=dict)

    @property
    def points(self) -> Record:
        """measurement -> points with `time`, `value` and all tags, in any order."""
        return {key: points_of(lines) for key, lines in self.lines.items()}


def points_of(lines: Iterable[Line]) -> JsonArray:
    """The samples as points with `time`, `value` and all tags."""
    return [
        {**line.series.labels, "time": time, "value": value} for line in lines for time, value in line.samples
    ]


def tagged(labels: dict[str, str]) -> Tagged:
    """The tags of a series, from those of a point."""
    others = tuple(sorted(item for item in labels.items() if item[0] != "instance"))
    return Tagged(labels, labels.get("instance", ""), others)


def labels_of(tags: Iterable[tuple[str, str | None]]) -> dict[str, str]:
    """The tags of a series; one that is named like another key of a point gets the ending _1."""
    return {f"{tag}_1" if tag in OWN_KEYS else tag: text for tag, text in tags if text}


# --- questions -----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class SamplesOf:
    """Samples of a node from `start` to before `end` (ns).

    reads_later: also those after `end`, unless there are too many. known_tags: measurement -> tags that
    identify the node's series if there are too many series.
    """

    node: Node
    start: int
    end: int
    interval_seconds: float = RECORD_SECONDS
    reads_later: bool = False
    known_tags: Mapping[str, dict[str, str]] | None = None

    def ask(self, source: SampleSource) -> Samples:
        """The answer to this question alone."""
        return source.get_samples(self)


@dataclass(frozen=True, eq=False)
class NewestOf:
    """The newest sample of each part of a node; the answer as of newest_samples."""

    node: Node

    def ask(self, source: SampleSource) -> LinesByKey:
        """The answer to this question alone."""
        return source.newest_samples(self.node)


@dataclass(frozen=True, eq=False)
class NewestTimeOf:
    """Time of a node's newest sample; the answer as of newest_sample_time."""

    node: Node

    def ask(self, source: SampleSource) -> int | None:
        """The answer to this question alone."""
        return source.newest_sample_time(self.node)


@dataclass(frozen=True, eq=False)
class CountOf:
    """How many samples a node has from `start` to before `end` (ns); the answer is a number."""

    node: Node
    start: int
    end: int

    def ask(self, source: SampleSource) -> int:
        """The answer to this question alone."""
        return source.count_samples(self.node, self.start, self.end)


@dataclass(frozen=True, eq=False)
class WrongTypesOf:
    """What may keep numbers out of some series of a node; the answer as of wrong_types."""

    node: Node
    keys: frozenset[str]

    def ask(self, source: SampleSource) -> dict[str, str]:
        """The answer to this question alone."""
        return source.wrong_types(self.node, self.keys)


@dataclass(frozen=True, eq=False)
class NamesOf:
    """Which values a tag has; the answer as of names_there."""

    node: Node
    key: str
    tag: str

    def ask(self, source: SampleSource) -> list[str]:
        """The answer to this question alone."""
        return source.names_there(self.node, self.key, self.tag)


Question = SamplesOf | NewestOf | NewestTimeOf | CountOf | WrongTypesOf | NamesOf
# What yields questions, receives the answer of each or has its error thrown in, and returns a result.
Asking = Generator[Question, Any, _Result]


class LaterError(Exception):
    """A question that is left to a later poll, since many nodes ask such ones in this poll."""


def answered(source: SampleSource, asking: Asking[_Result]) -> _Result:
    """The result of one `asking`, each of whose questions is asked alone. Raises what it raises."""
    try:
        question = next(asking)
        while True:
            try:
                answer = question.ask(source)
            except source.errors as error:
                question = asking.throw(error)
            else:
                question = asking.send(answer)
    except StopIteration as end:
        return end.value


# --- who answers ---------------------------------------------------------------------------------


class SampleSource(Protocol):
    """Where samples come from. Each method that asks the server raises one of `errors`.

    errors: what is raised while the server is away, hangs, restarts or refuses. product, name, place: what
    it is, with its address, and with all that tells what is read there, as messages name it. option: chooses
    what is read there. identity: what a state depends on, for JSON. nothing_there: what to tell a user if it
    has no sample. deletion: how to delete samples that are dated later than now.
    """

    errors: tuple[type[Exception], ...]
    product: str
    name: str
    place: str
    option: str
    identity: dict[str, str]
    nothing_there: str
    deletion: str

    def prepare(self) -> None:
        """Get the server ready for the first query."""
        ...

    def describe_error(self, error: Exception) -> str:
        """One line for the user: what went wrong, and what to do."""
        ...

    def kind_of(self, error: Exception) -> str:
        """One word for a label: unreachable, timeout, credentials, rights, database or error."""
        ...

    def answer(self, questions: Sequence[Question]) -> list[Any]:
        """The answers to questions of many nodes, with few requests.

        An answer that is an exception is that node's own error, or, if it is `is_away`, that of all.
        """
        ...

    def is_away(self, error: Exception) -> bool:
        """Whether an error is one of the server as a whole, so that no other question has to be asked."""
        ...

    def get_samples(self, wanted: SamplesOf) -> Samples:
        """The samples that are wanted of a node, normally in one request."""
        ...

    def newest_samples(self, node: Node) -> LinesByKey:
        """The newest sample of each part of the node, whatever its time."""
        ...

    def newest_sample_time(self, node: Node) -> int | None:
        """Time of the node's newest sample up to now (ns), None if there is none."""
        ...

    def count_samples(self, node: Node, start: int, end: int) -> int:
        """How many samples of the node there are from `start` to before `end` (ns)."""
        ...

    def wrong_types(self, node: Node, keys: Iterable[str]) -> dict[str, str]:
        """Key of a series -> type of stored values that may keep numbers out; others are absent."""
        ...

    def names_there(self, node: Node, key: str, tag: str) -> list[str]:
        """Values of this tag of a series in the database, at most LISTED_NAMES of them."""
        ...
