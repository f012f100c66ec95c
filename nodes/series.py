"""The series of a node: names, parts and tags, and the values that a sample may have."""

from __future__ import annotations

from typing import Any

from nodes.node import DEFAULT_NODE, Node

RECORD_SECONDS = 15.0
# The keys of a point that are not tags of its series.
OWN_KEYS = ("time", "value", "percentage")
# Types in InfluxDB that are not numbers, in plain words.
NO_NUMBERS = {"string": "text", "boolean": "a boolean"}
# No counter or gauge of a node reaches this, and what is computed from smaller values stays finite.
TOO_LARGE = 1e30
Point = dict[str, Any]
JsonArray = list[Point]
Record = dict[str, JsonArray]


def value_fault(value: Any, may_be_negative: bool = False) -> str | None:
    """Why this value of a sample cannot be used; None if it can."""
    if isinstance(value, bool):
        return f"its value is {NO_NUMBERS['boolean']}, not a number"
    if not isinstance(value, (int, float)):
        return f"its value is {NO_NUMBERS['string']}, not a number"
    if value < 0 and not may_be_negative:
        return "its value is negative"
    # NaN is not less than anything, so it counts as too large.
    return None if abs(value) < TOO_LARGE else "its value is too large to be true"


def series_tags(point: Point) -> tuple[tuple[str, str], ...]:
    """The tags of a point: they tell its series from others of the same measurement."""
    return tuple(sorted((key, value) for key, value in point.items() if key not in OWN_KEYS))


def record_time(record: Record) -> int:
    """Time of a record in ns: that of its newest sample."""
    return max(point["time"] for points in record.values() for point in points)


def pinned_tags(key: str, node: Node) -> dict[str, str]:
    """Tags that the node file fixes for the series with this key; an empty one must be absent."""
    exporter = node.metrics.measurements[key].exporter
    instance = node.instance_of(exporter)
    tags = dict(node.tags_of(exporter))
    return tags if instance is None else {**tags, "instance": instance}


def monitored_series(node: Node = DEFAULT_NODE) -> dict[str, tuple[str, str | None]]:
    """Name of every series of a node -> its key and part. Series with parts come first."""
    return node.monitored


def is_of(name: str, key: str) -> bool:
    """Whether a name of monitored_series is that of the series with this key, or of a part of it."""
    return name == key or name.startswith(f"{key[:-1]}," if key.endswith("}") else f"{key}{{")
