"""A node: its CPUs, interfaces, cell and exporters, read from a file."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from common.files import UserError, loadDictJson, shortened
from common.values import is_number
from nodes.metrics import METRICS, MetricTable


@dataclass(frozen=True)
class Node:
    """Which series of a database belong to this node; the defaults are those of the documented testbed.

    `node_instance` and `ran_instance` fix the `instance` tags of the node exporter and the RAN exporter;
    None accepts the only one there is. `node_tags` and `ran_tags` fix other tags of their series; an empty
    value means that a series must not have the tag. `total_memory_bytes` counts if the node exporter does not
    report `node_memory_MemTotal_bytes`. `metrics` are the metrics that are watched.
    """

    cpus: tuple[str, ...] = ("0", "1")
    interfaces: tuple[str, ...] = ("enp1s0", "enp0s20u1", "ppp0")
    cell_id: str = "2"
    total_memory_bytes: float = 8228077568.0
    node_instance: str | None = None
    ran_instance: str | None = None
    node_tags: tuple[tuple[str, str], ...] = ()
    ran_tags: tuple[tuple[str, str], ...] = ()
    metrics: MetricTable = METRICS

    def parts(self, tag: str | None) -> tuple[str | None, ...]:
        """The parts of the node that a tag tells apart; without a tag there is one part, None."""
        return {
            None: (None,),
            "cpu": self.cpus,
            "device": self.interfaces,
            "cellId": (self.cell_id,),
        }[tag]

    def identity(self) -> dict[str, Any]:
        """What distinguishes this node from others, for JSON; default tags and metrics are left out."""
        told = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "metrics"}
        if self.metrics != METRICS:
            told["metrics"] = self.metrics.description
        return json.loads(json.dumps({key: value for key, value in told.items() if value != ()}))


DEFAULT_NODE = Node()


def getColumnNames(node: Node = DEFAULT_NODE) -> dict[str, type]:
    """Columns of a dataset except `time`, and their types, in the order in which they are written.

    Columns per CPU and per interface depend on `node`; the others are the same for every node.
    """
    columns: list[str] = []
    for metric in node.metrics.in_datasets:
        for part in node.parts(metric.part_tag):
            columns += [part_column(column, part) for column in metric.part_columns]
        columns += metric.columns
    return dict.fromkeys(columns, float)


def part_column(column: str, part: str) -> str:
    """The column of a part, from its name in the table: `cpu_user_{part}_rate` -> `cpu_user_0_rate`."""
    return column.replace("{part}", part)


def load_node(filename: str | Path | None) -> Node:
    """Read a node file (JSON with any of the fields of Node); None gives the documented node.

    Raises UserError for an unreadable file, an unknown key or a value of the wrong kind.
    """
    if filename is None:
        return DEFAULT_NODE
    given = loadDictJson(filename)
    known = {field.name for field in fields(Node)} - {"metrics"}
    for key in given:
        if key not in known:
            raise UserError(
                f"{filename}: unknown key {shortened(repr(key))}; the keys are {', '.join(sorted(known))}"
            )
    for key in ("cpus", "interfaces"):
        if key in given:
            names = given[key]
            if not isinstance(names, list) or not names:
                raise UserError(f'{filename}: \'{key}\' must be a list of names, like ["0", "1"]')
            given[key] = tuple(_name(filename, key, name) for name in names)
            if len(set(given[key])) < len(names):
                raise UserError(f"{filename}: '{key}' has a name twice; list each name once")
    for key in ("cell_id", "node_instance", "ran_instance"):
        # An instance may be null, for the only one there is; a cell may not.
        if key in given and (key == "cell_id" or given[key] is not None):
            given[key] = _name(filename, key, given[key])
    for key, instance in (("node_tags", "node_instance"), ("ran_tags", "ran_instance")):
        if key in given:
            given[key] = _tags(filename, key, given[key], instance)
    memory_bytes = given.get("total_memory_bytes", Node.total_memory_bytes)
    if not is_number(memory_bytes) or memory_bytes <= 0:
        raise UserError(f"{filename}: 'total_memory_bytes' must be a number of bytes above 0")
    return Node(**given)


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
