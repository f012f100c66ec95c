"""What a database holds, as far as a description of a node can be made of it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from nodes.metrics import COUNTER, RawSeries

# Samples of so long before the newest one show what is there now.
SURVEY_SECONDS = 3600
# A database with 100,000 series takes seconds for one statement.
SURVEY_TIMEOUT_SECONDS = 30.0
# A survey reads at most so many series of one key, names so many measurements, and says of so many of those
# that nobody asked for what they have.
MOST_FOUND, MOST_MEASUREMENTS, SHOWN_OTHERS = 1000, 10_000, 20
# More instances of one exporter are not read.
MOST_INSTANCES = 10_000
# How many fields or tags a line names.
SHOWN_KEYS = 8
# What the name of a metric may have.
MOST_NAME_LETTERS = 40
# Types of InfluxDB whose values a metric can be made of.
NUMBER_TYPES = ("float", "integer", "unsigned")
# What exporters, Prometheus and Telegraf tell of themselves is named after all else.
OF_ITSELF = (
    "go_",
    "process_",
    "promhttp_",
    "prometheus_",
    "python_",
    "scrape_",
    "up",
    "internal_",
    "node_exporter_",
    "node_scrape_",
)


@dataclass(frozen=True)
class FoundSeries:
    """A series with samples in the last SURVEY_SECONDS.

    tags: all that it has. count: how many samples. first, last: their times (ns). low, high: their least and
    greatest value. value: the newest.
    """

    tags: Mapping[str, str]
    count: int
    first: int
    last: int
    low: float
    high: float
    value: float


@dataclass(frozen=True)
class Survey:
    """What was found in a database.

    measurements: all names, those asked for first, at most MOST_MEASUREMENTS. fields: measurement -> field ->
    type in InfluxDB, of those asked for and of SHOWN_OTHERS. tags: measurement -> the tags of its series, of
    the others alone. series: key of a series that was asked for -> what there is of it. cut: keys of which
    there is more.
    """

    measurements: tuple[str, ...] = ()
    fields: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    tags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    series: Mapping[str, tuple[FoundSeries, ...]] = field(default_factory=dict)
    cut: frozenset[str] = frozenset()

    @property
    def newest(self) -> int | None:
        """Time of the newest sample of what was asked for (ns); None if there is none."""
        return max((one.last for found in self.series.values() for one in found), default=None)


class Surveyor(Protocol):
    """Looks into a database. Each method that asks the server raises one of `errors`.

    errors: what is raised if the server is away, hangs or refuses. place: the server and what is read there,
    as messages name them.
    """

    errors: tuple[type[Exception], ...]
    place: str

    def describe_error(self, error: Exception) -> str:
        """One line for the user: what went wrong, and what to do."""
        ...

    def why_empty(self) -> str:
        """One line for the user if there are no measurements, and what to do."""
        ...

    def survey(self, wanted: Sequence[RawSeries], pinned: Mapping[str, Mapping[str, str]]) -> Survey:
        """What there is of these series, and what else.

        pinned: key -> tags that its series must have, beside their own.
        """
        ...

    def instances(self, wanted: Sequence[RawSeries], seconds: float = SURVEY_SECONDS) -> list[list[str]]:
        """The instances of each of these series that have samples in the last `seconds`, whatever their
        parts: normally one request. Of each, at most MOST_INSTANCES are read.
        """
        ...


def in_order(names: Iterable[str], asked: Collection[str]) -> tuple[list[str], list[str]]:
    """The measurements that were asked for, and the others: what exporters tell of themselves comes last."""
    known = [name for name in names if name in asked]
    others = sorted(set(names) - set(known), key=lambda name: (name.startswith(OF_ITSELF), name))
    return known, others


def describe_others(survey: Survey, used: Mapping[str, Collection[str]]) -> list[str]:
    """A line for each measurement that no metric uses, and for fields that none uses of the others.

    used: measurement -> the fields that metrics use.
    """
    lines = []
    for name in survey.measurements:
        fields = survey.fields.get(name, {})
        left = sorted(set(fields) - set(used.get(name, ())))
        if not fields:
            continue
        if name in used:
            lines += [f"{name} also has {_named('field', left)}"] if left else []
        else:
            tags = [tag for tag in survey.tags.get(name, ()) if tag != "__name__"]
            # Prometheus calls every field so.
            parts = [_named("field", left)] * (left != ["value"]) + [_named("tag", tags)] * bool(tags)
            lines.append(f"{name}: {'; '.join(parts)}" if parts else name)
    unshown = len(set(survey.measurements) - set(survey.fields))
    return lines + ([f"and {unshown} more measurements"] if unshown else [])


def example_metric(survey: Survey) -> dict[str, Any] | None:
    """A metric that is described by hand, as an example, of what is there; None if nothing is a number."""
    for measurement in survey.measurements:
        for name, kind in sorted(survey.fields.get(measurement, {}).items()):
            if kind in NUMBER_TYPES:
                words = f"{measurement} {name}".lower().removesuffix(" value")
                metric = re.sub("[^a-z0-9]+", "_", words).strip("_")
                if not metric[:1].isalpha():
                    metric = f"metric_{metric}"
                described = {"measurement": measurement}
                if name != "value":
                    described["field"] = name
                if measurement.endswith("_total"):
                    described["kind"] = COUNTER
                return {metric[:MOST_NAME_LETTERS]: described}
    return None


def _named(what: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN_KEYS} more" if len(names) > SHOWN_KEYS else ""
    return f"{what}{'s' * (len(names) > 1)} {', '.join(names[:SHOWN_KEYS])}{more}"
