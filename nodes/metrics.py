"""The one table of metrics, from which everything else about metrics is derived."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

CPU_SECONDS = "node_cpu_seconds_total"
MEMORY_FREE = "node_memory_MemFree_bytes"
MEMORY_TOTAL = "node_memory_MemTotal_bytes"
RECEIVED = "node_network_receive_bytes_total"
TRANSMITTED = "node_network_transmit_bytes_total"
RX_CPU = "rx_cpu_time"
TX_CPU = "tx_cpu_time"
DOWNLINK = "dl_bitrate"
UPLINK = "ul_bitrate"

# The two exporters of a node: Prometheus' node exporter, and the exporter of the RAN (the gNB).
NODE, RAN = "node", "ran"
# Kinds of series, and the quantities that each gives for the columns of a dataset:
#   seconds   a counter of busy seconds -> percentage (of the time), change (percentage points)
#   counter   a counter of bytes        -> increase (bytes), per_second (bytes per second)
#   gauge     a number                  -> value, change
#   bit rate  bits per second           -> bytes, per_second (bytes per second)
#   free      free bytes, and a total   -> used (bytes), percentage (of the total), change (percent)
# `change`, `increase` and `bytes` count since the previous record.
SECONDS, COUNTER, GAUGE, BIT_RATE, FREE = "seconds", "counter", "gauge", "bit rate", "free"
KINDS = (SECONDS, COUNTER, GAUGE, BIT_RATE, FREE)
# Tags that tell the parts of a documented node apart; None for a series without parts.
PART_TAGS = (None, "cpu", "device", "cellId")
# How parts become one level.
SUM, MEAN, LEAST, MOST = "sum", "mean", "min", "max"
POOLS: dict[str, Callable[[Sequence[float]], float]] = {
    SUM: sum,
    MEAN: lambda values: sum(values) / len(values),
    LEAST: min,
    MOST: max,
}
# What it means if a series has no sample: that its level is unknown; or, while other series of the same
# exporter come, that it is zero, or still what it was last.
UNKNOWN_LEVEL, ZERO_LEVEL, LAST_LEVEL = "unknown", "zero", "last"
# Which deviations from what is expected count.
UP, DOWN, BOTH = "up", "down", "both"
# The recorded attacks from which thresholds are made.
CPU_ATTACK, IPERF_ATTACK = "cpu", "iperf"
OVERALL = "overall"


@dataclass(frozen=True)
class RawSeries:
    """What a database is asked for: one field of one measurement.

    key: its name in records, states and messages. value_field: of InfluxDB. tags: what its series have.
    part_tag: the tag that tells the listed parts of a node apart; None without parts. over: tags over whose
    values, whatever they are, the samples are pooled.
    """

    key: str
    measurement: str
    value_field: str = "value"
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)
    part_tag: str | None = None
    over: tuple[str, ...] = ()


@dataclass(frozen=True)
class Metric:
    """One row of the table: a quantity that operators know.

    name: its name in causes and thresholds.
    exporter: NODE, RAN or another exporter that its series come from.
    kind: how `formatters` makes columns from its samples.
    measurement: the series, as Prometheus names it. value_field: its field in InfluxDB. key: its name in
        records and messages; the measurement, unless given.
    columns: column of a dataset -> the quantity of the kind that it holds, over all parts: the mean of
        percentages, the sum of bytes.
    features: the columns that the model sees: first how the metric changes, last its level (how much of it
        there is). A rate in bytes per second is both, and is the only one.
    unit: unit of the level, "%" or "B/s" or any other. Levels in percent are stored before the others.
    stored: the column that is stored with an anomaly. stored_field: its name in InfluxDB.
    part_tag: the tag that tells the parts of a node apart (`cpu`, `device`, `cellId`); None if the node has
        one series. part_columns: like `columns`, for each part; `{part}` stands for the name of the part.
        parts: the parts that a description lists; the node has those of a documented metric.
    over: tags over whose values, whatever they are, samples are pooled.
    pool: one of POOLS, how parts become one; by default the mean of percentages, and the sum of others.
    tags: other tags that its series have; one with an empty value is one that they have not.
    scale: samples are multiplied by it.
    silence: UNKNOWN_LEVEL, ZERO_LEVEL or LAST_LEVEL, what it means if there is no sample.
    direction: UP, DOWN or BOTH, which deviations count. least: those that are smaller, in the unit, do not.
    derived: columns that datasets do not hold: the change since the previous record of the level.
    described: what a node file says of the metric, as far as it differs from defaults; empty if nothing.
    total_measurement: the series of the total, for `free`. If it is absent, `total_memory_bytes` of the node
        counts.
    unaffected_by: the recorded attack that does not affect this metric, so that its threshold is not made
        from that dataset.
    is_steady: hosts differ in its level, while attacks hardly change it: nearly all records anomalous in it
        means a model of another host.
    """

    name: str
    exporter: str
    kind: str
    measurement: str
    columns: Mapping[str, str] = field(hash=False)
    features: tuple[str, ...]
    unit: str
    stored: str
    stored_field: str
    part_tag: str | None = None
    part_columns: Mapping[str, str] = field(default_factory=dict, hash=False)
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)
    total_measurement: str | None = None
    unaffected_by: str | None = None
    is_steady: bool = False
    value_field: str = "value"
    key: str = ""
    parts: tuple[str, ...] = ()
    over: tuple[str, ...] = ()
    pool: str | None = None
    scale: float = 1.0
    silence: str = UNKNOWN_LEVEL
    direction: str = BOTH
    least: float = 0.0
    derived: tuple[str, ...] = ()
    described: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @cached_property
    def series(self) -> tuple[RawSeries, ...]:
        """All series that the metric is made of; that of a total comes last."""
        key = self.key or self.measurement
        own = RawSeries(key, self.measurement, self.value_field, self.tags, self.part_tag, self.over)
        if self.total_measurement is None:
            return (own,)
        total_key = key.replace(self.measurement, self.total_measurement, 1)
        return (own, replace(own, key=total_key, measurement=self.total_measurement))

    @cached_property
    def measurements(self) -> tuple[str, ...]:
        """The keys of its series."""
        return tuple(one.key for one in self.series)

    def pooled(self, values: Sequence[float]) -> float:
        """One level of those of all parts; NaN if one is."""
        if any(value != value for value in values):
            return math.nan
        return POOLS[self.pool or (MEAN if self.unit == "%" else SUM)](values)

    @property
    def may_be_negative(self) -> bool:
        """Whether samples below zero are usable: a level in dB or °C may be negative, a percentage not, and
        neither what is added up over whatever comes: a foreign part could hide the others.
        """
        is_sum = self.over and self.pool in (None, SUM)
        return self.kind == GAUGE and self.unit != "%" and not is_sum

    @property
    def description(self) -> list[str] | dict[str, Any]:
        """What a trained network depends on, for JSON: the features, and what a node file says."""
        features = list(self.features)
        return {"features": features, **self.described} if self.described else features

    @property
    def level(self) -> str:
        """The feature that says how much of the metric there is, and that pictures show."""
        return self.features[-1]

    @property
    def threshold_key(self) -> str:
        """The metric's key in a thresholds file."""
        return f"{self.name}_threshold"


@dataclass(frozen=True)
class MetricTable(Mapping[str, Metric]):
    """The metrics of a node by name, in the order in which causes name them.

        METRICS["cpu"].unit                                   # "%"
        MetricTable((*METRICS.values(), Metric("disk", ...)))  # a ninth metric

    absent: metrics that are switched off, or never changed while the network was trained. People may keep
    their thresholds. Properties that are read often are computed once.
    """

    rows: tuple[Metric, ...]
    absent: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for what, given in (
            ("name", [row.name for row in self.rows]),
            ("column", [column for row in self.rows for column in (*row.columns, *row.part_columns)]),
            ("stored field", [row.stored_field for row in self.rows]),
            ("series", [name for row in self.rows for name in row.measurements]),
            # The node describes one memory.
            ("kind", [row.kind for row in self.rows if row.kind == FREE]),
        ):
            if twice := {one for one in given if given.count(one) > 1}:
                raise ValueError(f"two metrics have the {what} {', '.join(sorted(twice))}")
        for row in self.rows:
            if row.kind not in KINDS or (row.part_tag not in PART_TAGS and not row.parts):
                raise ValueError(f"{row.name}: unknown kind {row.kind!r} or part tag {row.part_tag!r}")

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.rows, self.absent))

    def __getitem__(self, name: str) -> Metric:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def _by_name(self) -> dict[str, Metric]:
        return {row.name: row for row in self.rows}

    @cached_property
    def threshold_keys(self) -> dict[str, str]:
        """Name of each RMSE -> its key in a thresholds file: the metrics, then `overall`, which pools all."""
        return {**{row.name: row.threshold_key for row in self.rows}, OVERALL: f"{OVERALL}_threshold"}

    @cached_property
    def known_threshold_keys(self) -> tuple[str, ...]:
        """The keys that a thresholds file may have: those of absent metrics, too."""
        return (*self.threshold_keys.values(), *(f"{name}_threshold" for name in self.absent))

    @cached_property
    def features(self) -> tuple[str, ...]:
        """Columns that the model sees, in order: first how each metric changes, then separate levels."""
        firsts = [row.features[0] for row in self.rows]
        return (*firsts, *(feature for row in self.rows for feature in row.features[1:]))

    @cached_property
    def feature_places(self) -> dict[str, list[int]]:
        """Metric -> the positions of its features among all features."""
        return {row.name: [self.features.index(feature) for feature in row.features] for row in self.rows}

    @cached_property
    def in_datasets(self) -> tuple[Metric, ...]:
        """The rows in the order of a dataset's columns: those of the node exporter, then those of the RAN."""
        return tuple(sorted(self.rows, key=lambda row: row.exporter != NODE))

    @cached_property
    def _in_store(self) -> tuple[Metric, ...]:
        """The rows in the order of in_datasets, but with metrics in percent first within each exporter."""
        return tuple(sorted(self.in_datasets, key=lambda row: (row.exporter != NODE, row.unit != "%")))

    @cached_property
    def stored(self) -> dict[str, str]:
        """Column that is stored with an anomaly -> name of its field, in the order of getAnomalyColumns()."""
        return {row.stored: row.stored_field for row in self._in_store}

    @cached_property
    def measurements(self) -> dict[str, Metric]:
        """Key of a series -> the metric that is made of it, in the order in which a database is asked."""
        return {name: row for row in self._in_store for name in row.measurements}

    @cached_property
    def series(self) -> dict[str, RawSeries]:
        """Key of a series -> the series, in the same order."""
        return {one.key: one for row in self._in_store for one in row.series}

    @cached_property
    def exporters(self) -> tuple[str, ...]:
        """The exporters that the series come from, that of the host first."""
        return tuple(dict.fromkeys(row.exporter for row in self.in_datasets))

    @cached_property
    def counts_all(self) -> bool:
        """Whether deviations of any size and direction count for each metric."""
        return all(row.direction == BOTH and not row.least for row in self.rows)

    def part_tag(self, measurement: str) -> str | None:
        """The tag that tells the parts of a node in a series apart; None if there is one series."""
        return self.measurements[measurement].part_tag

    def without(self, names: Iterable[str]) -> MetricTable:
        """The table without these metrics."""
        left_out = tuple(name for name in self if name in set(names))
        rows = tuple(row for row in self.rows if row.name not in left_out)
        return MetricTable(rows, (*self.absent, *left_out))

    @property
    def description(self) -> dict[str, Any]:
        """Metric -> what a trained network depends on, for JSON."""
        return {row.name: row.description for row in self.rows}


METRICS = MetricTable(
    (
        Metric(
            name="cpu",
            exporter=NODE,
            kind=SECONDS,
            measurement=CPU_SECONDS,
            tags={"mode": "user"},
            part_tag="cpu",
            part_columns={"cpu_user_{part}_percentage": "percentage", "cpu_user_{part}_rate": "change"},
            columns={"cpu_user_percentage": "percentage", "cpu_user_rate": "change"},
            features=("cpu_user_rate", "cpu_user_percentage"),
            unit="%",
            stored="cpu_user_percentage",
            stored_field="cpu_usage",
            unaffected_by=IPERF_ATTACK,
        ),
        Metric(
            name="cpu_rx",
            exporter=RAN,
            kind=GAUGE,
            measurement=RX_CPU,
            columns={"cpu_rx_percentage": "value", "cpu_rx_rate": "change"},
            features=("cpu_rx_rate", "cpu_rx_percentage"),
            unit="%",
            stored="cpu_rx_percentage",
            stored_field="cpu_rx_usage",
            unaffected_by=IPERF_ATTACK,
        ),
        Metric(
            name="cpu_tx",
            exporter=RAN,
            kind=GAUGE,
            measurement=TX_CPU,
            columns={"cpu_tx_percentage": "value", "cpu_tx_rate": "change"},
            features=("cpu_tx_rate", "cpu_tx_percentage"),
            unit="%",
            stored="cpu_tx_percentage",
            stored_field="cpu_tx_usage",
            unaffected_by=IPERF_ATTACK,
        ),
        Metric(
            name="net_down",
            exporter=NODE,
            kind=COUNTER,
            measurement=RECEIVED,
            part_tag="device",
            part_columns={"{part}_bytes_received": "increase", "{part}_received_rate": "per_second"},
            columns={"bytes_received": "increase", "bytes_received_rate": "per_second"},
            features=("bytes_received_rate",),
            unit="B/s",
            stored="bytes_received",
            stored_field="net_down_usage",
            unaffected_by=CPU_ATTACK,
        ),
        Metric(
            name="net_up",
            exporter=NODE,
            kind=COUNTER,
            measurement=TRANSMITTED,
            part_tag="device",
            part_columns={"{part}_bytes_transmitted": "increase", "{part}_transmitted_rate": "per_second"},
            columns={"bytes_transmitted": "increase", "bytes_transmitted_rate": "per_second"},
            features=("bytes_transmitted_rate",),
            unit="B/s",
            stored="bytes_transmitted",
            stored_field="net_up_usage",
            unaffected_by=CPU_ATTACK,
        ),
        Metric(
            name="net_5g_down",
            exporter=RAN,
            kind=BIT_RATE,
            measurement=DOWNLINK,
            part_tag="cellId",
            columns={"dl_bytes": "bytes", "dl_bytes_rate": "per_second"},
            features=("dl_bytes_rate",),
            unit="B/s",
            stored="dl_bytes",
            stored_field="net_down_5g_usage",
            unaffected_by=CPU_ATTACK,
        ),
        Metric(
            name="net_5g_up",
            exporter=RAN,
            kind=BIT_RATE,
            measurement=UPLINK,
            part_tag="cellId",
            columns={"ul_bytes": "bytes", "ul_bytes_rate": "per_second"},
            features=("ul_bytes_rate",),
            unit="B/s",
            stored="ul_bytes",
            stored_field="net_up_5g_usage",
            unaffected_by=CPU_ATTACK,
        ),
        Metric(
            name="mem",
            exporter=NODE,
            kind=FREE,
            measurement=MEMORY_FREE,
            total_measurement=MEMORY_TOTAL,
            columns={"mem": "used", "mem_percentage": "percentage", "mem_rate": "change"},
            features=("mem_rate", "mem_percentage"),
            unit="%",
            stored="mem_percentage",
            stored_field="mem_usage",
            is_steady=True,
        ),
    )
)


# Their series and columns are documented; a node file cannot describe them otherwise.
DOCUMENTED = tuple(METRICS)


def getFeatures() -> list[str]:
    """Columns that the model sees: the eight documented rates in their published order, then the levels.

    A rate alone is flat in the middle of an attack, so the four percentages are part of the input.
    """
    return list(METRICS.features)


def getAnomalyColumns() -> list[str]:
    """Columns that are stored with an anomaly, in the order of the fields of its point in InfluxDB."""
    return list(METRICS.stored)
