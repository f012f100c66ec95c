"""Raw series -> the documented columns. Pure functions; the only way from samples to features.

A point is a dict with `time` (integer nanoseconds since 1970, UTC), `value` and the tags of its series.
A JSON array is the list of points of one measurement, one for each series. A record is a dict of
measurement -> JSON array: the newest sample of every series in one slot. `last_record` is the JSON array
that came before (None or empty for a first record, which has no rate: NaN, as all that is unknown).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from nodes.metrics import (
    CPU_SECONDS,
    DOWNLINK,
    MEMORY_FREE,
    MEMORY_TOTAL,
    OPTIONAL_MEASUREMENTS,
    PART_TAGS,
    RECEIVED,
    RX_CPU,
    TRANSMITTED,
    TX_CPU,
    UPLINK,
    getColumnNames,
)
from nodes.node import DEFAULT_NODE, Node
from nodes.series import JsonArray, Point, Record, monitored_series, record_time, series_tags, value_fault

NAN = math.nan


def formatCpuSecondsTotal(
    json_array: JsonArray, last_record: JsonArray | None, node: Node = DEFAULT_NODE
) -> tuple[JsonArray, list[float], list[float]]:
    """User-mode seconds per CPU -> percent of one CPU and its change since the previous record.

    Returns `json_array` (its points with the `percentage` found for them, to be the next call's
    `last_record`), `features_core` (percentage and rate of each CPU of `node`, in its order) and
    `features` (the means over the CPUs: percentage, percentage points since the previous record).
    """
    last_points = _user_mode(last_record)
    points = [
        {**point, "percentage": 100.0 * _increase_per_second(point, _find(last_points, cpu=point.get("cpu")))}
        for point in _user_mode(json_array)
    ]
    percentages, rates = [], []
    for cpu in node.cpus:
        percentage = _get(_find(points, cpu=cpu), "percentage")
        percentages.append(percentage)
        rates.append(percentage - _get(_find(last_points, cpu=cpu), "percentage"))
    features_core = [value for pair in zip(percentages, rates, strict=True) for value in pair]
    return points, features_core, [_mean(percentages), _mean(rates)]


def formatMemoryFreeBytes(
    json_array: JsonArray,
    last_record: JsonArray | None,
    total_memory_bytes: float = DEFAULT_NODE.total_memory_bytes,
) -> tuple[float, float, float]:
    """Free bytes -> bytes used, percent used, percent change of the bytes used since the previous record.

    More free than there is in total is a wrong total: nothing is known then.
    """
    point, last_point = _find(json_array), _find(last_record)
    if total_memory_bytes <= 0 or _get(point, "value") > total_memory_bytes:
        return NAN, NAN, NAN
    used = total_memory_bytes - _get(point, "value")
    last_used = total_memory_bytes - _get(last_point, "value")
    rate = 100.0 * (0.0 - _change(point, last_point)) / last_used if last_used else NAN
    return used, 100.0 * used / total_memory_bytes, rate


def formatNetworkBytes(
    json_array: JsonArray, last_record: JsonArray | None, node: Node = DEFAULT_NODE
) -> tuple[list[float], list[float]]:
    """Byte counters of the interfaces (one direction) -> bytes since the previous record, bytes per second.

    Returns `features_interfaces` (bytes and rate of each interface of `node`, in its order) and
    `features` (their sums). An interface that is missing makes the sums unknown, not smaller.
    """
    features_interfaces = []
    for device in node.interfaces:
        point, last_point = _find(json_array, device=device), _find(last_record, device=device)
        features_interfaces += [_increase(point, last_point), _increase_per_second(point, last_point)]
    return features_interfaces, [sum(features_interfaces[::2]), sum(features_interfaces[1::2])]


def format5gCpuPercentage(json_array: JsonArray, last_record: JsonArray | None) -> tuple[float, float]:
    """CPU of the gNB's RX or TX side -> percent, percentage points since the previous record."""
    point = _find(json_array)
    return _get(point, "value"), _change(point, _find(last_record))


def format5gNetworkBytes(
    json_array: JsonArray, last_record: JsonArray | None, node: Node = DEFAULT_NODE
) -> tuple[float, float]:
    """Bit rate of the 5G cell (one direction) -> bytes since the previous record, bytes per second."""
    point = _find(json_array, cellId=node.cell_id)
    seconds = _elapsed_seconds(point, _find(last_record, cellId=node.cell_id))
    total_bytes = _get(point, "value") / 8.0 * seconds
    return total_bytes, total_bytes / seconds


def format_record(
    record: Record, last_record: Record, node: Node = DEFAULT_NODE
) -> tuple[dict[str, float], Record]:
    """One record -> its documented columns, and the record to hand on as `last_record` next time.

    What is handed on keeps, for a series that this record lacks, the sample before: after a missed
    scrape the next rate spans two slots instead of being unknown too.
    """
    json_array, cores, cpu = formatCpuSecondsTotal(
        record.get(CPU_SECONDS, []), last_record.get(CPU_SECONDS), node
    )
    total = _get(_find(record.get(MEMORY_TOTAL) or last_record.get(MEMORY_TOTAL)), "value")
    values = [*cores, *cpu]
    for measurement in (RECEIVED, TRANSMITTED):
        interfaces, sums = formatNetworkBytes(record.get(measurement, []), last_record.get(measurement), node)
        values += [*interfaces, *sums]
    values += formatMemoryFreeBytes(
        record.get(MEMORY_FREE, []),
        last_record.get(MEMORY_FREE),
        node.total_memory_bytes if math.isnan(total) else total,
    )
    for measurement in (RX_CPU, TX_CPU):
        values += format5gCpuPercentage(record.get(measurement, []), last_record.get(measurement))
    for measurement in (DOWNLINK, UPLINK):
        values += format5gNetworkBytes(record.get(measurement, []), last_record.get(measurement), node)
    current = {**record, CPU_SECONDS: json_array}
    handed_on = {
        measurement: _merge(last_record.get(measurement, []), current.get(measurement, []))
        for measurement in {**last_record, **current}
    }
    return dict(zip(getColumnNames(node), values, strict=True)), handed_on


def format_records(
    slots: Iterable[tuple[int, Record]], node: Node = DEFAULT_NODE
) -> Iterator[dict[str, float]]:
    """Slots (start in ns, record), oldest first -> rows of documented columns, each with its `time` in ns."""
    last_record: Record = {}
    for _, record in slots:
        row, last_record = format_record(record, last_record, node)
        yield {"time": record_time(record), **row}


def slot_records(samples: Record, interval_seconds: float) -> list[tuple[int, Record]]:
    """Samples of every measurement, in any order -> (slot start in ns, record), oldest first.

    A slot is [k, k + 1) x `interval_seconds` since 1970; of each series the newest finite sample in the
    slot counts; what value_fault finds fault with does not. Slots without a sample are absent.
    """
    interval_ns = int(interval_seconds * 1e9)
    slots: dict[int, dict[str, dict[tuple, Point]]] = {}
    for measurement, points in samples.items():
        for point in points:
            if value_fault(point["value"]):
                continue
            start = point["time"] // interval_ns * interval_ns
            newest = slots.setdefault(start, {}).setdefault(measurement, {})
            series = series_tags(point)
            if series not in newest or newest[series]["time"] <= point["time"]:
                newest[series] = point
    return [
        (start, {measurement: list(newest.values()) for measurement, newest in slots[start].items()})
        for start in sorted(slots)
    ]


def missing_series(record: Record, node: Node = DEFAULT_NODE) -> list[str]:
    """Names of the monitored series that a record lacks, like `rx_cpu_time` or `dl_bitrate{cellId=2}`."""
    return [
        name
        for name, (measurement, part) in monitored_series(node).items()
        if measurement not in OPTIONAL_MEASUREMENTS
        and not record.get(measurement)
        or part is not None
        and _find(record.get(measurement), **{PART_TAGS[measurement]: part}) is None
    ]


def _merge(last_points: JsonArray, points: JsonArray) -> JsonArray:
    """The points of every series in either, the newer where both have it."""
    return list({series_tags(point): point for point in [*last_points, *points]}.values())


def _user_mode(json_array: JsonArray | None) -> JsonArray:
    """Points of CPU time in user mode; a query for that mode alone gives points without the label."""
    return [point for point in json_array or () if point.get("mode", "user") == "user"]


def _find(json_array: JsonArray | None, **tags: str | None) -> Point | None:
    """The newest point with these tags; a label that an exporter gained starts a second such series."""
    found = [p for p in json_array or () if all(p.get(tag) == name for tag, name in tags.items())]
    return max(found, key=lambda point: point["time"], default=None)


def _get(point: Point | None, key: str) -> float:
    return NAN if point is None else float(point.get(key, NAN))


def _elapsed_seconds(point: Point | None, last_point: Point | None) -> float:
    """Seconds between two samples; NaN where one is missing or time did not advance."""
    if point is None or last_point is None or point["time"] <= last_point["time"]:
        return NAN
    return (point["time"] - last_point["time"]) / 1e9


def _change(point: Point | None, last_point: Point | None) -> float:
    """Change of a gauge between two samples; a repeated stale one has none."""
    if math.isnan(_elapsed_seconds(point, last_point)):
        return NAN
    return _get(point, "value") - _get(last_point, "value")


def _increase(point: Point | None, last_point: Point | None) -> float:
    """Growth of a counter. After a reset it counts from zero, as Prometheus has it in increase()."""
    if math.isnan(_elapsed_seconds(point, last_point)):
        return NAN
    value, last_value = _get(point, "value"), _get(last_point, "value")
    return value if value < last_value else value - last_value


def _increase_per_second(point: Point | None, last_point: Point | None) -> float:
    return _increase(point, last_point) / _elapsed_seconds(point, last_point)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
