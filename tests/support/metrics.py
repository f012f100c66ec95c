"""The table of metrics as tests look at it: the documented metrics' names, keys and series."""

from __future__ import annotations

from edge.source import Line, LinesByKey, tagged
from nodes.metrics import METRICS, NODE, RAN
from nodes.node import DEFAULT_NODE, Node
from nodes.series import OWN_KEYS, Record, monitored_series

NAMES = tuple(METRICS.threshold_keys)
THRESHOLD_KEYS = tuple(METRICS.threshold_keys.values())
ANOMALY_FIELDS = tuple(METRICS.stored.values())
MEASUREMENTS = tuple(METRICS.measurements)
NODE_MEASUREMENTS = tuple(name for name, metric in METRICS.measurements.items() if metric.exporter == NODE)
RAN_MEASUREMENTS = tuple(name for name, metric in METRICS.measurements.items() if metric.exporter == RAN)


def series_without_sample(record: Record, node: Node = DEFAULT_NODE) -> set[str]:
    """Names of the node's series that have no sample in a record, but for a total, which may be absent."""
    metrics = node.metrics
    return {
        name
        for name, (measurement, part) in monitored_series(node).items()
        if measurement != metrics.measurements[measurement].total_measurement
        and not any(point.get(metrics.part_tag(measurement)) == part for point in record.get(measurement, []))
    }


def lines_of(record: Record) -> LinesByKey:
    """Points as a source gives them, each as a series of its own."""
    return {
        key: [
            Line(
                tagged({tag: text for tag, text in point.items() if tag not in OWN_KEYS}),
                [(point["time"], point["value"])],
            )
            for point in points
        ]
        for key, points in record.items()
    }
