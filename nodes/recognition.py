"""From what a database holds to a node file: which known stacks are there, and which parts they have."""

from __future__ import annotations

import copy
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from common.files import UserError
from nodes.draft import Draft, is_name, listed, names_there, natural
from nodes.metrics import DOCUMENTED, FREE, METRICS, UNKNOWN_LEVEL, Metric
from nodes.series import RECORD_SECONDS, TOO_LARGE
from nodes.stacks import Stack
from nodes.survey import NUMBER_TYPES, FoundSeries, Survey

# Interfaces of the host itself, of containers and of virtual machines. What they carry also passes another
# interface, or never leaves the host.
VIRTUAL_INTERFACES = re.compile(r"lo$|(veth|docker|br-|virbr|vnet|cali|cni|flannel)")
# Fewer samples do not show that a series is constant.
FEWEST_SAMPLES = 20
# The first keys of a node file.
KEY_ORDER = ("cpus", "interfaces", "cell_id", "total_memory_bytes")


@dataclass
class Recognition:
    """node: the content of a node file; empty if no stack was recognised. choices: one line for each choice
    among several nodes, cells or tags. remarks: one line each, of all else.

    used: measurement -> the fields that its metrics use. pinned: key of a series -> the tags that the node
    file fixes for it.
    """

    node: dict[str, Any] = field(default_factory=dict)
    choices: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    used: dict[str, set[str]] = field(default_factory=dict)
    pinned: dict[str, dict[str, str]] = field(default_factory=dict)


def recognise(survey: Survey, stacks: Sequence[Stack], pins: Mapping[str, Any] | None = None) -> Recognition:
    """Describe the node whose series were found.

    pins: keys of a node file that choose among several: `cell_id`, `<exporter>_instance`, `<exporter>_tags`.
    Raises UserError if what they choose is not there.
    """
    draft = Draft(survey, pins or {})
    _choose_stacks(draft, stacks)
    for exporter in draft.exporters:
        draft.pin_instance(exporter)
        draft.pin_tags(exporter)
    _fill_parts(draft)
    _fill_cell_tags(draft)
    _fill_memory(draft)
    _tell_intervals(draft)
    _tell_constant(draft)
    return _finish(draft)


# --- stacks --------------------------------------------------------------------------------------


def _choose_stacks(draft: Draft, stacks: Sequence[Stack]) -> None:
    """Take the stack of which most is there, then those that add a metric to it."""
    left = list(stacks)
    while left:
        new = [[row for row in stack.metrics.values() if _is_new(draft, row, stack)] for stack in left]
        # Of two with as many, the one of which less is missing.
        best = max(range(len(left)), key=lambda i: (len(new[i]), len(new[i]) / len(left[i].metrics)))
        stack, rows = left.pop(best), new[best]
        if not rows:
            return
        for row in rows:
            draft.rows[row.name] = row
            draft.described[row.name] = copy.deepcopy(dict(stack.described[row.name]))
            draft.cell_tags[row.name] = stack.cell_tags.get(row.name, ())
        draft.off += [row.name for row in rows if row.name in stack.off]
        draft.remarks.append(f"recognised {stack.name}: {', '.join(row.name for row in rows)}")
        for row in stack.metrics.values():
            if row.name not in draft.rows and row.name not in stack.off:
                draft.remarks.append(f"{row.name} of {stack.name} is left out: {_why_absent(draft, row)}")


def _is_new(draft: Draft, row: Metric, stack: Stack) -> bool:
    taken = {one.key for other in draft.rows.values() for one in other.series}
    if row.name in draft.rows or taken & {one.key for one in row.series}:
        return False
    if row.kind == FREE and any(other.kind == FREE for other in draft.rows.values()):
        # A node has one memory.
        return False
    if row.silence != UNKNOWN_LEVEL and not draft.found.get(row.series[0].key):
        # Other series show that its exporter is there, such as while no UE is attached.
        return _is_number(draft, row) and any(
            draft.found.get(other.series[0].key)
            for other in stack.metrics.values()
            if other.exporter == row.exporter
        )
    return all(draft.found.get(one.key) for one in row.series)


def _is_number(draft: Draft, row: Metric) -> bool:
    return draft.survey.fields.get(row.measurement, {}).get(row.value_field) in NUMBER_TYPES


def _why_absent(draft: Draft, row: Metric) -> str:
    for one in row.series:
        if one.measurement not in draft.survey.measurements:
            return f"{one.measurement} is not in the database"
        kind = draft.survey.fields.get(one.measurement, {}).get(one.value_field)
        if kind not in NUMBER_TYPES:
            what = f"holds values of the type {kind}, not numbers," if kind else "is not"
            return f"the field {one.value_field} {what} in {one.measurement}"
    return f"{row.series[0].key} has had no sample in the last hour"


# --- parts ---------------------------------------------------------------------------------------


def _fill_parts(draft: Draft) -> None:
    """Fill in CPUs, interfaces and cell, and the parts over which described metrics are pooled."""
    # The documented metrics of a tag have the same parts.
    together = defaultdict(list)
    for row in draft.rows.values():
        if row.part_tag:
            together[row.part_tag, None if row.name in DOCUMENTED else row.name].append(row)
    for (tag, described), rows in together.items():
        parts = _parts(draft, rows)
        if not parts:
            for row in rows:
                draft.drop(row, f"no {tag} has all of its series")
        elif described:
            draft.described[described]["over"] = {tag: parts}
        elif tag == "cpu":
            draft.node["cpus"] = parts
            draft.remarks.append(f"CPUs: {listed(parts)}")
        elif tag == "device":
            draft.node["interfaces"] = parts
            draft.remarks.append(f"interfaces: {listed(parts)}")
        else:
            draft.node["cell_id"] = _choose_cell(draft, parts)


def _parts(draft: Draft, rows: Sequence[Metric]) -> list[str]:
    """The parts that all of these metrics have."""
    tag = rows[0].part_tag or ""
    by_metric = [
        {one.tags[tag] for one in draft.found[row.series[0].key] if is_name(one.tags.get(tag))}
        for row in rows
    ]
    parts = sorted(set.intersection(*by_metric), key=natural)
    return _busy_interfaces(draft, rows, parts) if tag == "device" else parts


def _busy_interfaces(draft: Draft, rows: Sequence[Metric], names: list[str]) -> list[str]:
    own = [name for name in names if not VIRTUAL_INTERFACES.match(name)]
    if not own:
        return names
    series = [one for row in rows for one in draft.found[row.series[0].key]]
    busy = [
        name for name in own if not _are_constant([one for one in series if one.tags.get("device") == name])
    ]
    if left_out := [name for name in names if name not in own]:
        draft.remarks.append(f"interfaces of the host itself that are left out: {listed(left_out)}")
    if idle := [name for name in own if busy and name not in busy]:
        draft.remarks.append(f"interfaces that were idle in the last hour and are left out: {listed(idle)}")
    return busy or own


def _choose_cell(draft: Draft, cells: list[str]) -> str:
    wished = draft.pins.get("cell_id")
    if wished is not None and wished not in cells:
        raise UserError(f"cell_id {wished!r} has had no sample in the last hour; {names_there(cells)}")
    chosen = wished or cells[0]
    draft.tell_choice("cell_id", chosen, cells)
    return chosen


def _fill_cell_tags(draft: Draft) -> None:
    """Fill in the tags that name the cell of a described metric; without a UE it may be unknown."""
    for row in draft.rows.values():
        for tag in draft.cell_tags[row.name]:
            cells = {one.tags.get(tag) for one in draft.found.get(row.series[0].key, ())}
            if len(cells) == 1 and is_name(cell := cells.pop()) and tag not in draft.fixed_tags(row.exporter):
                draft.described[row.name].setdefault("tags", {})[tag] = cell


def _fill_memory(draft: Draft) -> None:
    """Fill in the total memory."""
    for row in list(draft.rows.values()):
        if row.kind == FREE and row.name in DOCUMENTED:
            newest = max(draft.found[row.series[-1].key], key=lambda one: one.last)
            if 0 < newest.value < TOO_LARGE:
                draft.node["total_memory_bytes"] = int(newest.value)
            else:
                draft.drop(row, f"{row.total_measurement} is {newest.value:g}")


# --- remarks -------------------------------------------------------------------------------------


def _tell_intervals(draft: Draft) -> None:
    """Say if samples come less often than records."""
    for exporter in draft.exporters:
        apart = [
            (one.last - one.first) / 1e9 / (one.count - 1)
            for one in draft.series_of(exporter)
            if one.count > 2
        ]
        if apart and (seconds := median(apart)) > 1.1 * RECORD_SECONDS:
            draft.remarks.append(
                f"samples of {exporter} come every {seconds:.0f} s;"
                f" give --interval {seconds:.0f} to collect, train and test"
            )


def _tell_constant(draft: Draft) -> None:
    """Name the metrics that did not change."""
    constant = [
        row.name
        for row in draft.rows.values()
        if row.name not in draft.off and _are_constant(draft.found.get(row.series[0].key, []))
    ]
    if constant:
        draft.remarks.append(f"did not change in the last hour: {', '.join(constant)}")


def _finish(draft: Draft) -> Recognition:
    """The node file, with the documented metrics first."""
    names = [*(name for name in DOCUMENTED if name in draft.rows)]
    names += [name for name in draft.rows if name not in DOCUMENTED]
    # An exporter may have lost all its metrics.
    exporters = dict.fromkeys(row.exporter for row in draft.rows.values() if row.name not in draft.off)
    fixed = [f"{exporter}_{ending}" for exporter in exporters for ending in ("instance", "tags")]
    node = {key: draft.node[key] for key in (*KEY_ORDER, *fixed) if key in draft.node}
    described = {name: draft.described[name] for name in names}
    if described and described != {name: {} for name in METRICS}:
        node["metrics"] = described
    if off := [name for name in draft.off if name in described]:
        node["off"] = off
    used = defaultdict(set)
    pinned = {}
    for row in draft.rows.values():
        for one in row.series:
            used[one.measurement].add(one.value_field)
            pinned[one.key] = draft.fixed_tags(row.exporter)
    return Recognition(node if exporters else {}, draft.choices, draft.remarks, dict(used), pinned)


def _are_constant(series: Sequence[FoundSeries]) -> bool:
    return bool(series) and all(one.low == one.high and one.count >= FEWEST_SAMPLES for one in series)
