"""A node: its CPUs, interfaces, cell and exporters, read from a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from common.files import UserError, loadDictJson, shortened
from common.values import is_number
from nodes.description import read_metrics
from nodes.metrics import METRICS, NODE, RAN, Metric, MetricTable


@dataclass(frozen=True)
class Node:
    """Which series of a database belong to this node; the defaults are those of the documented testbed.

    `node_instance` and `ran_instance` fix the `instance` tags of the node exporter and the RAN exporter;
    None accepts the only one there is. `node_tags` and `ran_tags` fix other tags of their series; an empty
    value means that a series must not have the tag. `instances` and `tags` do the same for other exporters,
    by their names. `total_memory_bytes` counts if the total of the memory is not reported. `metrics` are the
    metrics that are watched.
    """

    cpus: tuple[str, ...] = ("0", "1")
    interfaces: tuple[str, ...] = ("enp1s0", "enp0s20u1", "ppp0")
    cell_id: str = "2"
    total_memory_bytes: float = 8228077568.0
    node_instance: str | None = None
    ran_instance: str | None = None
    node_tags: tuple[tuple[str, str], ...] = ()
    ran_tags: tuple[tuple[str, str], ...] = ()
    instances: tuple[tuple[str, str], ...] = ()
    tags: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ()
    metrics: MetricTable = METRICS

    def parts_of(self, metric: Metric) -> tuple[str | None, ...]:
        """The parts of the node that a metric is made of; without a tag there is one part, None."""
        if metric.parts:
            return metric.parts
        return {
            None: (None,),
            "cpu": self.cpus,
            "device": self.interfaces,
            "cellId": (self.cell_id,),
        }[metric.part_tag]

    def instance_of(self, exporter: str) -> str | None:
        """The instance that is fixed for an exporter; None if none is."""
        documented = {NODE: self.node_instance, RAN: self.ran_instance}
        return documented.get(exporter) if exporter in documented else dict(self.instances).get(exporter)

    def tags_of(self, exporter: str) -> tuple[tuple[str, str], ...]:
        """Other tags that are fixed for the series of an exporter."""
        documented = {NODE: self.node_tags, RAN: self.ran_tags}
        return documented[exporter] if exporter in documented else dict(self.tags).get(exporter, ())

    @cached_property
    def layout(self) -> Node:
        """The node with its metrics and parts alone. It is the same object for alike nodes, so that what
        follows from these is computed once for all of them.
        """
        return _layout(self.metrics, self.cpus, self.interfaces, self.cell_id)

    @property
    def monitored(self) -> dict[str, tuple[str, str | None]]:
        """Name of every series of the node -> its key and part. Series with parts come first."""
        return self.layout._monitored

    @cached_property
    def _monitored(self) -> dict[str, tuple[str, str | None]]:
        metrics = self.metrics.measurements
        return {
            series_name(key, metric.part_tag, part): (key, part)
            for key, metric in sorted(metrics.items(), key=lambda item: item[1].part_tag is None)
            for part in self.parts_of(metric)
        }

    @property
    def names_of_series(self) -> dict[tuple[str, str | None], str]:
        """Key and part of every series of the node -> its name."""
        return self.layout._names_of_series

    @cached_property
    def _names_of_series(self) -> dict[tuple[str, str | None], str]:
        return {series: name for name, series in self.monitored.items()}

    @cached_property
    def most_parts(self) -> int:
        """How many parts the metric with the most of them is made of."""
        return max(len(self.parts_of(metric)) for metric in self.metrics.rows)

    def watching(self, instances: Mapping[str, str]) -> Node:
        """The same node with these instances fixed: exporter -> instance."""
        if all(self.instance_of(exporter) == name for exporter, name in instances.items()):
            return self
        others = {name: one for name, one in instances.items() if name not in (NODE, RAN)}
        return replace(
            self,
            node_instance=instances.get(NODE, self.node_instance),
            ran_instance=instances.get(RAN, self.ran_instance),
            instances=tuple({**dict(self.instances), **others}.items()),
        )

    def identity(self) -> dict[str, Any]:
        """What distinguishes this node from others, for JSON; default tags and metrics are left out."""
        told = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "metrics"}
        if self.metrics != METRICS:
            told["metrics"] = self.metrics.description
        return json.loads(json.dumps({key: value for key, value in told.items() if value != ()}))


@lru_cache(maxsize=256)
def _layout(metrics: MetricTable, cpus: tuple[str, ...], interfaces: tuple[str, ...], cell_id: str) -> Node:
    return Node(cpus, interfaces, cell_id, metrics=metrics)


DEFAULT_NODE = Node()
# The keys of a node file that are those of Node.
_OWN_KEYS = tuple(one.name for one in fields(Node) if one.name not in ("instances", "tags", "metrics"))


def getColumnNames(node: Node = DEFAULT_NODE) -> dict[str, type]:
    """Columns of a dataset except `time`, and their types, in the order in which they are written.

    Columns per CPU and per interface depend on `node`; the others are the same for every node.
    """
    return dict.fromkeys(_column_names(node), float)


def _column_names(node: Node) -> list[str]:
    columns: list[str] = []
    for metric in node.metrics.in_datasets:
        for part in node.parts_of(metric):
            columns += [part_column(column, part) for column in metric.part_columns]
        columns += [column for column in metric.columns if column not in metric.derived]
    return columns


def _series_names(node: Node) -> list[str]:
    return [
        series_name(key, metric.part_tag, part)
        for key, metric in node.metrics.measurements.items()
        for part in node.parts_of(metric)
    ]


def series_name(key: str, tag: str | None, part: str | None) -> str:
    """The name of a series in messages: `rx_cpu_time`, or `dl_bitrate{cellId=2}` for that of a part."""
    if tag is None:
        return key
    return f"{key[:-1]},{tag}={part}}}" if key.endswith("}") else f"{key}{{{tag}={part}}}"


def part_column(column: str, part: str) -> str:
    """The column of a part, from its name in the table: `cpu_user_{part}_rate` -> `cpu_user_0_rate`."""
    return column.replace("{part}", part)


def load_node(filename: str | Path | None) -> Node:
    """Read a node file (JSON with any of the fields of Node); None gives the documented node.

    Raises UserError for an unreadable file, an unknown key or a value of the wrong kind.
    """
    return DEFAULT_NODE if filename is None else described_node(str(filename), loadDictJson(filename))


def described_node(filename: str, given: Mapping[str, Any], start: Node = DEFAULT_NODE) -> Node:
    """The node that differs from `start` by these keys of a node file.

    filename: the file that has them, and where in it, as messages name it. Raises UserError.
    """
    given = dict(given)
    metrics, exporters = start.metrics, start.metrics.exporters
    if "metrics" in given or "off" in given:
        metrics, exporters = read_metrics(filename, given.pop("metrics", None), given.pop("off", []), metrics)
    others = [exporter for exporter in exporters if exporter not in (NODE, RAN)]
    keys = [
        "metrics",
        "off",
        *_OWN_KEYS,
        *(f"{exporter}_{ending}" for exporter in others for ending in ("instance", "tags")),
    ]
    for key in given:
        if key not in keys:
            raise UserError(
                f"{filename}: unknown key {shortened(repr(key))}; the keys are {', '.join(sorted(keys))}"
            )
    for key in ("cpus", "interfaces"):
        if key in given:
            names = given[key]
            if not isinstance(names, list) or not names:
                raise UserError(f'{filename}: \'{key}\' must be a list of names, like ["0", "1"]')
            given[key] = tuple(_name(filename, key, name) for name in names)
            if len(set(given[key])) < len(names):
                raise UserError(f"{filename}: '{key}' has a name twice; list each name once")
    for key in [key for key in given if key == "cell_id" or key.endswith("_instance")]:
        # An instance may be null, for the only one there is; a cell may not.
        if key == "cell_id" or given[key] is not None:
            given[key] = _name(filename, key, given[key])
    for key in [key for key in given if key.endswith("_tags")]:
        given[key] = _tags(filename, key, given[key], key.replace("_tags", "_instance"))
    memory_bytes = given.get("total_memory_bytes", Node.total_memory_bytes)
    if not is_number(memory_bytes) or memory_bytes <= 0:
        raise UserError(f"{filename}: 'total_memory_bytes' must be a number of bytes above 0")
    instances, tags = (
        {
            **dict(before),
            **{exporter: given[key] for exporter in others if (key := f"{exporter}_{ending}") in given},
        }
        for ending, before in (("instance", start.instances), ("tags", start.tags))
    )
    node = replace(
        start,
        **{key: given[key] for key in _OWN_KEYS if key in given},
        instances=tuple((exporter, name) for exporter, name in instances.items() if name is not None),
        tags=tuple(tags.items()),
        metrics=metrics,
    )
    for what, names in (("series", _series_names(node)), ("column", _column_names(node))):
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise UserError(
                f"{filename}: two metrics have the {what} {twice[0]}; name or select each differently"
            )
    return node


def _tags(filename: str | Path, key: str, tags: Any, instance: str) -> tuple[tuple[str, str], ...]:
    if not isinstance(tags, dict) or not all(name and name.isprintable() for name in tags):
        raise UserError(f'{filename}: \'{key}\' must be an object of tags, like {{"job": "node"}}')
    if "instance" in tags:
        raise UserError(f"{filename}: '{key}' has the tag 'instance'; set it as '{instance}'")
    return tuple(
        (name, value if value == "" else _name(filename, key, value)) for name, value in tags.items()
    )


def _name(filename: str | Path, key: str, value: Any) -> str:
    """The value as text: labels are text in InfluxDB, but people write `"cpus": [0, 1]`."""
    is_name = isinstance(value, (str, int)) and not isinstance(value, bool) and value != ""
    if not is_name or not str(value).isprintable():
        raise UserError(
            f"{filename}: '{key}' must hold names (text or whole numbers), not {shortened(repr(value))}"
        )
    return str(value)
