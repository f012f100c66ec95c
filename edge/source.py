"""What the edge half asks of a database: the samples of one node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from nodes.node import Node
from nodes.series import OWN_KEYS, RECORD_SECONDS, Record

# Exporters are scraped about once a slot, some more often, and samples of two slots may be asked for.
SAMPLES_PER_SLOT, SAMPLES_BESIDE = 20, 100
# Why a series of a flood has no sample.
TOO_MANY = "there are too many samples of it to read"
# How many names a message lists for the user to choose from.
LISTED_NAMES = 6


@dataclass(frozen=True)
class Samples:
    """points: measurement -> points with `time`, `value` and all tags, in any order.

    flooded: measurements with too many samples to read; `points` has only the newest of each slot and series.
    unread: those of the flooded ones where even that was too much. has_later: more samples than can be read
    are dated later than now. doubtful: key of a series -> why it may have samples that are not seen, so that
    its silence tells nothing.
    """

    points: Record
    flooded: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    has_later: bool = False
    doubtful: Mapping[str, str] = field(default_factory=dict)


def labels_of(tags: Iterable[tuple[str, str | None]]) -> dict[str, str]:
    """The tags of a series; one that is named like another key of a point gets the ending _1."""
    return {f"{tag}_1" if tag in OWN_KEYS else tag: text for tag, text in tags if text}


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

    def get_samples(
        self,
        node: Node,
        start: int,
        end: int,
        interval_seconds: float = RECORD_SECONDS,
        reads_later: bool = False,
        known_tags: Mapping[str, dict[str, str]] | None = None,
    ) -> Samples:
        """The samples of a node from `start` to before `end` (ns), normally in one request.

        reads_later: also those after `end`, unless there are too many. known_tags: measurement -> tags that
        identify the node's series if there are too many series.
        """
        ...

    def newest_samples(self, node: Node) -> Record:
        """The newest sample of each part of the node, whatever its time: measurement -> points."""
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
