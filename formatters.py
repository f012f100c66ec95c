"""Pure functions from raw series to the documented columns; the only way from samples to features.

A point is a dict with `time` (integer nanoseconds since 1970, UTC), `value` and the tags of its series.
A JSON array is the list of points of one measurement, one for each series. A record is a dict of
measurement -> JSON array: the newest sample of every series in one slot. `last_record` is the previous JSON
array (None or empty for the first record, which has no rate). Unknown values are NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from operator import itemgetter

from nodes.metrics import BIT_RATE, COUNTER, FREE, GAUGE, METRICS, SECONDS, Metric
from nodes.node import DEFAULT_NODE, Node, part_column
from nodes.series import OWN_KEYS, JsonArray, Point, Record, record_time, series_tags, value_fault

NAN = math.nan
# What does not tell the series of a point.
_UNTOLD = dict.fromkeys(OWN_KEYS)
_TIME = itemgetter("time")
# Kind of series -> its quantities, which nodes/metrics.py describes, in the order of their values.
QUANTITIES = {
    SECONDS: ("percentage", "change"),
    COUNTER: ("increase", "per_second"),
    GAUGE: ("value", "change"),
    BIT_RATE: ("bytes", "per_second"),
    FREE: ("used", "percentage", "change"),
}
Values = tuple[float, ...]


def formatCpuSecondsTotal(
    json_array: JsonArray, last_record: JsonArray | None, node: Node = DEFAULT_NODE
) -> tuple[JsonArray, list[float], list[float]]:
    """User-mode seconds per CPU -> percent of one CPU and its change since the previous record.

    Returns `json_array` (its points with their `percentage`, for the next call as `last_record`),
    `features_core` (percentage and rate of each CPU of `node`, in its order) and `features` (the means over
    the CPUs: percentage, percentage points since the previous record).

    Part of the documented interface; the program itself does not call it.
    """
    metric = METRICS["cpu"]
    last_points = _tagged(metric, last_record)
    points = _with_percentages(metric, _tagged(metric, json_array), last_points)
    cores, means = _quantities(metric, node.parts_of(metric), points, last_points)
    return points, _flat(cores), list(means)


def formatMemoryFreeBytes(
    json_array: JsonArray,
    last_record: JsonArray | None,
    total_memory_bytes: float = DEFAULT_NODE.total_memory_bytes,
) -> tuple[float, float, float]:
    """Free bytes -> bytes used, percent used, percent change of the bytes used since the previous record.

    If more is free than there is in total, the total is wrong and all three are unknown.

    Part of the documented interface; the program itself does not call it.
    """
    return _free(_find(json_array), _find(last_record), total_memory_bytes)


def formatNetworkBytes(
    json_array: JsonArray, last_record: JsonArray | None, node: Node = DEFAULT_NODE
) -> tuple[list[float], list[float]]:
    """Byte counters of the interfaces (one direction) -> bytes since the previous record, bytes per second.

    Returns `features_interfaces` (bytes and rate of each interface of `node`, in its order) and
    `features` (their sums). An interface that is missing makes the sums unknown, not smaller.

    Part of the documented interface; the program itself does not call it.
    """
    # Both directions have the same formulas.
    metric = METRICS["net_down"]
    interfaces, sums = _quantities(metric, node.parts_of(metric), json_array, last_record)
    return _flat(interfaces), list(sums)


def format5gCpuPercentage(json_array: JsonArray, last_record: JsonArray | None) -> tuple[float, float]:
    """CPU of the gNB's RX or TX side -> percent, percentage points since the previous record.

    Part of the documented interface; the program itself does not call it.
    """
    return _gauge(_find(json_array), _find(last_record))


def format5gNetworkBytes(
    json_array: JsonArray, last_record: JsonArray | None, node: Node = DEFAULT_NODE
) -> tuple[float, float]:
    """Bit rate of the 5G cell (one direction) -> bytes since the previous record, bytes per second.

    Part of the documented interface; the program itself does not call it.
    """
    # Both directions have the same formulas.
    metric = METRICS["net_5g_down"]
    _, (total_bytes, rate) = _quantities(metric, node.parts_of(metric), json_array, last_record)
    return total_bytes, rate


def format_record(
    record: Record, last_record: Record, node: Node = DEFAULT_NODE
) -> tuple[dict[str, float], Record]:
    """One record -> the columns of the node's metrics, and the record to pass as `last_record` next time.

    The columns are those of getColumnNames(node), in its order. For a series without a sample in this record,
    the returned record keeps the previous sample: after a missed scrape the next rate spans two slots instead
    of being unknown as well.
    """
    current = dict(record)
    metrics, places = _layout_of(node.layout)
    values: list[float] = []
    for metric, parts in metrics:
        key = metric.measurements[0]
        points, last_points = record.get(key, ()), last_record.get(key)
        if metric.tags:
            last_points = _tagged(metric, last_points)
        if metric.kind == SECONDS:
            points = current[key] = _with_percentages(metric, _tagged(metric, points), last_points or ())
        total = _total(metric, record, last_record, node) if metric.kind == FREE else NAN
        of_parts, whole = _quantities(metric, parts, points, last_points, total)
        for one in of_parts:
            values += one
        values += whole
    columns = {column: values[place] for column, place in places}
    handed_on = {**last_record, **current}
    for measurement, last_points in last_record.items():
        points = current.get(measurement, [])
        if [point | _UNTOLD for point in last_points] != [point | _UNTOLD for point in points]:
            handed_on[measurement] = _merge(last_points, points)
    return columns, handed_on


def format_records(
    slots: Iterable[tuple[int, Record]], node: Node = DEFAULT_NODE
) -> Iterator[dict[str, float]]:
    """Slots (start in ns, record), oldest first -> rows of columns, each with its `time` in ns."""
    last_record: Record = {}
    for _, record in slots:
        row, last_record = format_record(record, last_record, node)
        yield {"time": record_time(record), **row}


def slot_records(samples: Record, interval_seconds: float) -> list[tuple[int, Record]]:
    """Samples of every measurement, in any order -> (slot start in ns, record), oldest first.

    A slot is [k, k + 1) x `interval_seconds` since 1970. The newest sample of each series in the slot counts,
    except samples that value_fault rejects. Slots without a sample are absent. This is for the simulator and
    the benchmarks, whose samples are all from one node; test mode and --mode collect use
    edge.selection.in_slots, which tells the node's series from others in the same database.
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


# --- from samples to quantities ------------------------------------------------------------------


@lru_cache(maxsize=256)
def _layout_of(
    layout: Node,
) -> tuple[tuple[tuple[Metric, tuple[str | None, ...]], ...], tuple[tuple[str, int], ...]]:
    """Metrics with their parts, in the order of a dataset; and columns with the places of their values.

    The values are the quantities of all metrics: those of each part, and then those of all parts together.
    """
    metrics, places, start = [], [], 0
    for metric in layout.metrics.in_datasets:
        names, parts = QUANTITIES[metric.kind], layout.parts_of(metric)
        metrics.append((metric, parts))
        for part in parts if metric.part_tag else ():
            for column, quantity in metric.part_columns.items():
                places.append((part_column(column, part), start + names.index(quantity)))
            start += len(names)
        places += [(column, start + names.index(quantity)) for column, quantity in metric.columns.items()]
        start += len(names)
    return tuple(metrics), tuple(places)


def _quantities(
    metric: Metric,
    parts: Sequence[str | None],
    points: Collection[Point] | None,
    last_points: Collection[Point] | None,
    total: float = NAN,
) -> tuple[list[Values], Values]:
    """The values of a metric: of each of these parts of the node, and of all parts together.

    The first is empty without parts. total: the total amount, for series of the kind `free`.
    """
    of_kind = partial(_free, total=total) if metric.kind == FREE else _KINDS[metric.kind]
    tag = metric.part_tag
    if tag is None:
        return [], of_kind(_find(points), _find(last_points))
    newest, last = _by_part(points, tag), _by_part(last_points, tag)
    of_parts = [of_kind(newest.get(part), last.get(part)) for part in parts]
    return of_parts, tuple(map(metric.pooled, zip(*of_parts, strict=True)))


def _flat(of_parts: Iterable[Values]) -> list[float]:
    return [value for values in of_parts for value in values]


def _seconds(point: Point | None, last_point: Point | None) -> Values:
    """Of points that have a `percentage`."""
    percentage = _get(point, "percentage")
    return percentage, percentage - _get(last_point, "percentage")


def _counter(point: Point | None, last_point: Point | None) -> Values:
    increase, seconds = _increase(point, last_point)
    return increase, increase / seconds


def _gauge(point: Point | None, last_point: Point | None) -> Values:
    return _get(point, "value"), _change(point, last_point)


def _bit_rate(point: Point | None, last_point: Point | None) -> Values:
    seconds = _elapsed_seconds(point, last_point)
    total_bytes = _get(point, "value") / 8.0 * seconds
    return total_bytes, total_bytes / seconds


def _free(point: Point | None, last_point: Point | None, total: float) -> Values:
    free = _get(point, "value")
    if total <= 0 or free > total:
        return NAN, NAN, NAN
    used = total - free
    last_used = total - _get(last_point, "value")
    change = 100.0 * (0.0 - _change(point, last_point)) / last_used if last_used else NAN
    return used, 100.0 * used / total, change


_KINDS: dict[str, Callable[[Point | None, Point | None], Values]] = {
    SECONDS: _seconds,
    COUNTER: _counter,
    GAUGE: _gauge,
    BIT_RATE: _bit_rate,
}


def _total(metric: Metric, record: Record, last_record: Record, node: Node) -> float:
    """The newest total that was reported; without one, `total_memory_bytes` of the node for its RAM."""
    *_, key = metric.measurements
    reported = record.get(key) or last_record.get(key)
    total = _get(_find(reported), "value")
    return node.total_memory_bytes if math.isnan(total) and not metric.key else total


def _with_percentages(metric: Metric, points: Collection[Point], last_points: Collection[Point]) -> JsonArray:
    """Points, each with its `percentage`: the busy share of the time since the last point."""
    tag = metric.part_tag
    last, found = _by_part(last_points, tag), []
    for point in points:
        increase, seconds = _increase(point, last.get(point.get(tag) if tag else None))
        found.append({**point, "percentage": 100.0 * (increase / seconds)})
    return found


def _tagged(metric: Metric, points: Collection[Point] | None) -> Collection[Point]:
    """The points with the metric's tags; points of a query for one value of a tag come without that tag."""
    if not metric.tags:
        return points or ()
    tags = metric.tags.items()
    return [point for point in points or () if all(point.get(tag, name) == name for tag, name in tags)]


# --- points --------------------------------------------------------------------------------------


def _merge(last_points: JsonArray, points: JsonArray) -> JsonArray:
    """The points of every series in either array, the newer one if both have the series."""
    return list({series_tags(point): point for point in [*last_points, *points]}.values())


def _by_part(points: Collection[Point] | None, tag: str | None) -> dict[str | None, Point]:
    """The newest point of each part, which has two series after its exporter gained a label; the part is None
    without a tag.
    """
    newest: dict[str | None, Point] = {}
    for point in points or ():
        part = None if tag is None else point.get(tag)
        before = newest.get(part)
        if before is None or before["time"] < point["time"]:
            newest[part] = point
    return newest


def _find(points: Collection[Point] | None) -> Point | None:
    """The newest point; of equally new ones, the first."""
    return max(points, key=_TIME) if points else None


def _get(point: Point | None, key: str) -> float:
    return NAN if point is None else float(point.get(key, NAN))


def _elapsed_seconds(point: Point | None, last_point: Point | None) -> float:
    """Seconds between two samples; NaN if one is missing or time did not advance."""
    if point is None or last_point is None or (elapsed := point["time"] - last_point["time"]) <= 0:
        return NAN
    return elapsed / 1e9


def _change(point: Point | None, last_point: Point | None) -> float:
    """Change of a gauge between two samples; NaN if the second is the first one repeated."""
    if point is None or last_point is None or point["time"] <= last_point["time"]:
        return NAN
    return float(point["value"]) - float(last_point["value"])


def _increase(point: Point | None, last_point: Point | None) -> tuple[float, float]:
    """Increase of a counter, and the seconds that it took; both are NaN without one. After a reset it counts
    from zero, like increase() of Prometheus.
    """
    if point is None or last_point is None or (elapsed := point["time"] - last_point["time"]) <= 0:
        return NAN, NAN
    value, last_value = float(point["value"]), float(last_point["value"])
    return value if value < last_value else value - last_value, elapsed / 1e9
