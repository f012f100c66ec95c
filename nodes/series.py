"""The series of a node: their names, parts and tags, and which values a sample may have."""

from __future__ import annotations

from typing import Any

from nodes.metrics import NODE
from nodes.node import DEFAULT_NODE, Node

RECORD_SECONDS = 15.0
# What stands in a point beside the tags of its series.
OWN_KEYS = ("time", "value", "percentage")
# Types of values in InfluxDB that are no numbers, as people call them.
NO_NUMBERS = {"string": "text", "boolean": "a boolean"}
# No counter and no gauge of a node gets there, and what is computed from it stays finite.
TOO_LARGE = 1e30
Point = dict[str, Any]
JsonArray = list[Point]
Record = dict[str, JsonArray]


def value_fault(value: Any) -> str | None:
    """Why this value of a sample is no quantity of a node; None if it is one."""
    if isinstance(value, bool):
        return f"its value is {NO_NUMBERS['boolean']}, not a number"
    if not isinstance(value, (int, float)):
        return f"its value is {NO_NUMBERS['string']}, not a number"
    if value < 0:
        return "its value is negative"
    # NaN is not less, either.
    return None if value < TOO_LARGE else "its value is too large to be true"


def series_tags(point: Point) -> tuple[tuple[str, str], ...]:
    """What tells the series of a point from others of its measurement."""
    return tuple(sorted((key, value) for key, value in point.items() if key not in OWN_KEYS))


def record_time(record: Record) -> int:
    """Time of a record in ns: that of its newest sample."""
    return max(point["time"] for points in record.values() for point in points)


def pinned_tags(measurement: str, node: Node) -> dict[str, str]:
    """Tags that the node file gives the series of a measurement; one that is empty must be absent."""
    is_node = node.metrics.measurements[measurement].exporter == NODE
    instance = node.node_instance if is_node else node.ran_instance
    tags = dict(node.node_tags if is_node else node.ran_tags)
    return tags if instance is None else {**tags, "instance": instance}


def monitored_series(node: Node = DEFAULT_NODE) -> dict[str, tuple[str, str | None]]:
    """Name of every series of a node -> its measurement and part. Those that have parts come first.

    A name is what messages say: `rx_cpu_time`, or `dl_bitrate{cellId=2}` for the series of a part.
    """
    tags = {measurement: metric.part_tag for measurement, metric in node.metrics.measurements.items()}
    return {
        measurement if tag is None else f"{measurement}{{{tag}={part}}}": (measurement, part)
        for measurement, tag in sorted(tags.items(), key=lambda item: item[1] is None)
        for part in node.parts(tag)
    }
