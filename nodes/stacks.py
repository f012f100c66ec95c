"""The stacks that are known: each is a node file of this folder."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.files import loadDictJson
from nodes.description import read_metrics
from nodes.metrics import METRICS, MetricTable, RawSeries

STACKS_FOLDER = Path(__file__).parent
# Tags whose value in a node file is an example: each node has its own cells.
CELL_TAGS = ("pci",)
# (measurement, field) -> the name of the field in other versions of its stack.
RENAMED_FIELDS = {("app_resource_usage", "memory_usage_mb"): "mem_total_mb"}


@dataclass(frozen=True)
class Stack:
    """A node file of a known stack.

    described: its key `metrics`, without the tags that name a cell. metrics: what it describes, with those
    that are `off`. cell_tags: metric -> the tags that name its cell.
    """

    name: str
    described: Mapping[str, dict[str, Any]]
    metrics: MetricTable
    cell_tags: Mapping[str, tuple[str, ...]]
    off: tuple[str, ...] = ()


def load_stacks(folder: Path = STACKS_FOLDER) -> list[Stack]:
    """All stacks, by name; one with a renamed field comes twice, with either name of the field."""
    stacks = []
    for file in sorted(folder.glob("*.json")):
        given = loadDictJson(file)
        described = given.get("metrics") or {name: {} for name in METRICS}
        cells = {
            name: tuple(tag for tag in one.get("tags", {}) if tag in CELL_TAGS)
            for name, one in described.items()
        }
        described = {name: _without_tags(one, cells[name]) for name, one in described.items()}
        renamed = {name: _with_renamed(one) for name, one in described.items()}
        for metrics in (described, renamed) if renamed != described else (described,):
            table, _ = read_metrics(str(file), metrics, [])
            stacks.append(Stack(file.stem, metrics, table, cells, tuple(given.get("off", []))))
    return stacks


def _without_tags(described: dict[str, Any], tags: Collection[str]) -> dict[str, Any]:
    left = {tag: text for tag, text in described.get("tags", {}).items() if tag not in tags}
    return {
        **{key: value for key, value in described.items() if key != "tags"},
        **({"tags": left} if left else {}),
    }


def _with_renamed(described: dict[str, Any]) -> dict[str, Any]:
    field = RENAMED_FIELDS.get((described.get("measurement"), described.get("field")))
    return {**described, "field": field} if field else described


def wanted_series(stacks: Iterable[Stack]) -> list[RawSeries]:
    """All series that the stacks are made of, each once."""
    return list({one.key: one for stack in stacks for one in stack.metrics.series.values()}.values())


def pinned_tags_of(stacks: Iterable[Stack], pins: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Key of a series -> the tags that `<exporter>_instance` and `<exporter>_tags` fix for it."""
    fixed: dict[str, dict[str, str]] = {}
    for row in (row for stack in stacks for row in stack.metrics.values()):
        tags = dict(pins.get(f"{row.exporter}_tags", {}))
        if instance := pins.get(f"{row.exporter}_instance"):
            tags["instance"] = instance
        fixed |= {one.key: tags for one in row.series}
    return fixed
