"""The edge's statements for InfluxDB, and what their answers say."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import influx_utils
from edge.source import Line, LinesByKey, Tagged, labels_of, tagged
from influx_client import InfluxClient
from nodes.metrics import UNKNOWN_LEVEL
from nodes.node import Node
from nodes.series import NO_NUMBERS, pinned_tags

# The tags of so many series are remembered: those of some thousand nodes.
REMEMBERED_SERIES = 50_000
# So are the statements for samples of some nodes that are asked alone.
REMEMBERED_STATEMENTS = 500
# Why a series may have samples that are not seen.
KEPT_OUT = "InfluxDB holds text, or a field of two types, beside it, which may keep it out; DELETE it"
# Stored types that make InfluxDB refuse the floats of exporters.
KEEPS_OUT = {**NO_NUMBERS, "integer": "whole numbers"}


def statement_of(measurement: str, node: Node, span: str, limit: int) -> str:
    """A query for at most `limit` samples of each part, the oldest first, with all their tags."""
    begin, end = _around_span(measurement, node)
    return f"{begin}{span}{end} LIMIT {limit}"


@functools.lru_cache(REMEMBERED_STATEMENTS)
def _around_span(measurement: str, node: Node) -> tuple[str, str]:
    """What a statement for samples has before its time, and after it."""
    conditions = conditions_of(measurement, node, "")
    return (
        f'SELECT {field_of(measurement, node)} AS "value", *::tag FROM {measurement_of(measurement, node)}'
        " WHERE ",
        f"{conditions}{by_part(measurement, node)}",
    )


def field_of(key: str, node: Node) -> str:
    """The field that is read of a series, in InfluxQL."""
    # `::field`, since a tag may have the same name.
    return f"{influx_utils.identifier(node.metrics.series[key].value_field)}::field"


def measurement_of(key: str, node: Node) -> str:
    """The measurement of a series, in InfluxQL."""
    return influx_utils.identifier(node.metrics.series[key].measurement)


def by_part(key: str, node: Node) -> str:
    """Groups, each of which gives a limited number of samples."""
    tags = tags_by_part(key, node)
    return f" GROUP BY {', '.join(map(influx_utils.identifier, tags))}" if tags else ""


def tags_by_part(key: str, node: Node) -> Sequence[str]:
    """The tags that tell the parts of a node apart, or what is pooled."""
    series = node.metrics.series[key]
    return [series.part_tag] if series.part_tag else series.over


def conditions_of(measurement: str, node: Node, span: str, tags: Mapping[str, str] | None = None) -> str:
    """Which samples are those of a node, in InfluxQL."""
    conditions = [span]
    metric = node.metrics.measurements[measurement]
    conditions += [influx_utils.any_of(tag, [value]) for tag, value in metric.tags.items()]
    if metric.part_tag:
        conditions.append(influx_utils.any_of(metric.part_tag, node.parts_of(metric)))
    pinned = {**(tags or {}), **pinned_tags(measurement, node)}
    conditions += [influx_utils.any_of(tag, [value]) for tag, value in pinned.items()]
    return " AND ".join(conditions)


def silent_keys(node: Node, lines: LinesByKey, slots: int, interval_ns: int) -> list[str]:
    """The series that have no sample in some of so many slots, and whose silence would mean a level."""
    return [
        key
        for key, metric in node.metrics.measurements.items()
        if metric.silence != UNKNOWN_LEVEL
        and len({time // interval_ns for line in lines.get(key, ()) for time, _ in line.samples}) < slots
    ]


def mixed_keys(client: InfluxClient, node: Node, keys: Sequence[str]) -> list[str]:
    """Those of these series in whose measurements there is text, or a field of two types."""
    sources = ", ".join(dict.fromkeys(measurement_of(key, node) for key in keys))
    (answer,) = influx_utils.run(client, [f"SHOW FIELD KEYS FROM {sources}"])
    mixed = {
        series["name"]
        for series in answer
        if len({name for name, _ in series["values"]}) < len({tuple(row) for row in series["values"]})
        or any(kind in NO_NUMBERS for _, kind in series["values"])
    }
    return [key for key in keys if node.metrics.series[key].measurement in mixed]


def wrong_types(client: InfluxClient, node: Node, keys: Iterable[str]) -> dict[str, str]:
    """Key of a series -> type of stored values that may keep numbers out; others are absent."""
    asked = {key: node.metrics.series[key] for key in keys}
    sources = ", ".join(dict.fromkeys(measurement_of(key, node) for key in asked))
    (answer,) = influx_utils.run(client, [f"SHOW FIELD KEYS FROM {sources}"])
    kinds = sorted(
        (series["name"], field, kind)
        for series in answer
        for field, kind in series["values"]
        if kind in KEEPS_OUT
    )
    held = {(measurement, field): KEEPS_OUT[kind] for measurement, field, kind in kinds}
    return {
        key: held[one.measurement, one.value_field]
        for key, one in asked.items()
        if (one.measurement, one.value_field) in held
    }


def lines_in(answer: list[dict[str, Any]]) -> list[Line]:
    """The series in the answer to a statement that selects time, value and tags."""
    lines = []
    for series in answer:
        group = tuple((series.get("tags") or {}).items())
        names = tuple(series["columns"][2:])
        found: dict[tuple[str, ...], Line] = {}
        for row in series["values"]:
            time, value = row[:2]
            if not isinstance(time, int):
                raise ValueError("a time that is not a whole number")
            texts = tuple(row[2:])
            if texts not in found:
                found[texts] = Line(series_of(names, texts, group), [])
            found[texts].samples.append((time, value))
        lines += found.values()
    return lines


@functools.lru_cache(REMEMBERED_SERIES)
def series_of(
    names: tuple[str, ...], texts: tuple[str | None, ...], group: tuple[tuple[str, str], ...]
) -> Tagged:
    """The tags of a series, from their names and values in a row, and from those of the group of rows."""
    return tagged(labels_of((*zip(names, texts, strict=True), *group)))
