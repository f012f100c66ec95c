"""From what a database holds to a node file: which known stacks are there, and which parts they have."""

from __future__ import annotations

import copy
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from common.files import UserError
from nodes.metrics import DOCUMENTED, FREE, METRICS, ZERO_LEVEL, Metric
from nodes.series import RECORD_SECONDS, TOO_LARGE
from nodes.stacks import Stack
from nodes.survey import NUMBER_TYPES, FoundSeries, Survey

# Interfaces of the host itself, of containers and of virtual machines. What they carry also passes another
# interface, or never leaves the host.
VIRTUAL_INTERFACES = re.compile(r"lo$|(veth|docker|br-|virbr|vnet|cali|cni|flannel)")
# A series without a sample in this time before the newest one of its exporter has ended.
CURRENT_NS = 300 * 10**9
# Fewer samples do not show that a series is constant.
FEWEST_SAMPLES = 20
# Tags that tell exporters apart, by how much they tell; others follow by name.
TELLING_TAGS = ("host", "job")
# The longest name that a node file takes.
MOST_LETTERS = 200
# How many names a remark lists.
LISTED_IN_REMARKS = 8


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
    draft = _Draft(survey, pins or {})
    draft.choose(stacks)
    for exporter in dict.fromkeys(row.exporter for row in draft.rows.values()):
        draft.pin_instance(exporter)
        draft.pin_tags(exporter)
    draft.fill_parts()
    draft.fill_memory()
    draft.tell_intervals()
    draft.tell_constant()
    return draft.finish()


class _Draft:
    """A node file in the making. rows: the metrics that are in it. found: key -> series of this node."""

    def __init__(self, survey: Survey, pins: Mapping[str, Any]) -> None:
        self._survey = survey
        self._pins = pins
        self._node: dict[str, Any] = {}
        self._choices: list[str] = []
        self._remarks: list[str] = []
        self._described: dict[str, dict[str, Any]] = {}
        self._off: list[str] = []
        self._hosts: set[str] = set()
        self.rows: dict[str, Metric] = {}
        self._found = {key: list(series) for key, series in survey.series.items()}

    # --- stacks ----------------------------------------------------------------------------------

    def choose(self, stacks: Sequence[Stack]) -> None:
        """Take the stack of which most is there, then those that add a metric to it."""
        left = list(stacks)
        while left:
            new = [[row for row in stack.metrics.values() if self._is_new(row, stack)] for stack in left]
            # Of two with as many, the one of which less is missing.
            best = max(range(len(left)), key=lambda i: (len(new[i]), len(new[i]) / len(left[i].metrics)))
            stack, rows = left.pop(best), new[best]
            if not rows:
                return
            for row in rows:
                self.rows[row.name] = row
                self._described[row.name] = copy.deepcopy(dict(stack.described[row.name]))
            self._off += [row.name for row in rows if row.name in stack.off]
            self._remarks.append(f"recognised {stack.name}: {', '.join(row.name for row in rows)}")
            for row in stack.metrics.values():
                if row.name not in self.rows and row.name not in stack.off:
                    self._remarks.append(f"{row.name} of {stack.name} is left out: {self._why_absent(row)}")

    def _is_new(self, row: Metric, stack: Stack) -> bool:
        taken = {one.key for other in self.rows.values() for one in other.series}
        if row.name in self.rows or taken & {one.key for one in row.series}:
            return False
        if row.kind == FREE and any(other.kind == FREE for other in self.rows.values()):
            # A node has one memory.
            return False
        if row.silence == ZERO_LEVEL and not self._found.get(row.series[0].key):
            # Other series show that its exporter is there, such as while no UE is attached.
            return self._is_number(row) and any(
                self._found.get(other.series[0].key)
                for other in stack.metrics.values()
                if other.exporter == row.exporter
            )
        return all(self._found.get(one.key) for one in row.series)

    def _is_number(self, row: Metric) -> bool:
        return self._survey.fields.get(row.measurement, {}).get(row.value_field) in NUMBER_TYPES

    def _why_absent(self, row: Metric) -> str:
        for one in row.series:
            if one.measurement not in self._survey.measurements:
                return f"{one.measurement} is not in the database"
            kind = self._survey.fields.get(one.measurement, {}).get(one.value_field)
            if kind not in NUMBER_TYPES:
                what = f"holds values of the type {kind}, not numbers," if kind else "is not"
                return f"the field {one.value_field} {what} in {one.measurement}"
        return f"{row.series[0].key} has had no sample for an hour"

    def _drop(self, row: Metric, why: str) -> None:
        del self.rows[row.name]
        self._remarks.append(f"{row.name} is left out: {why}")

    # --- whose series ----------------------------------------------------------------------------

    def _series_of(self, exporter: str) -> list[FoundSeries]:
        return [
            one
            for row in self.rows.values()
            if row.exporter == exporter
            for series in row.series
            for one in self._found.get(series.key, ())
        ]

    def _keep(self, exporter: str, tags: Mapping[str, str], names: Iterable[str] | None = None) -> None:
        """Keep the series that have these tags, of all metrics of an exporter or those named."""
        for row in self.rows.values():
            if row.exporter == exporter and (names is None or row.name in names):
                for series in row.series:
                    self._found[series.key] = _having(self._found.get(series.key, []), tags)

    def _drop_silent(self, exporter: str, whose: str) -> None:
        for row in [one for one in self.rows.values() if one.exporter == exporter]:
            missing = [one.key for one in row.series if not self._found.get(one.key)]
            if missing and row.silence != ZERO_LEVEL:
                self._drop(row, f"{whose} has no {missing[0]}")

    def pin_instance(self, exporter: str) -> None:
        """Fix the instance of an exporter: the one that was asked for, or the one that has most metrics."""
        key, there = f"{exporter}_instance", self._series_of(exporter)
        metrics = Counter(
            instance
            for row in self.rows.values()
            if row.exporter == exporter
            for instance in {one.tags.get("instance", "") for one in self._found.get(row.series[0].key, ())}
        )
        names = {one.tags["instance"] for one in _current(there) if _is_name(one.tags.get("instance"))}
        wished = self._pins.get(key)
        if wished is not None and wished not in metrics:
            raise UserError(f"{key} {wished!r} has had no sample for an hour; {_there(sorted(names))}")
        if wished is None and not names:
            return
        # Two exporters of one host belong together.
        chosen = wished or min(
            names, key=lambda name: (-metrics[name], _host(name) not in self._hosts, _natural(name))
        )
        self._hosts.add(_host(chosen))
        self._node[key] = chosen
        self._keep(exporter, {"instance": chosen})
        self._tell_choice(key, chosen, names)
        self._drop_silent(exporter, chosen)

    def pin_tags(self, exporter: str) -> None:
        """Fix other tags of an exporter's series as long as any part of a metric has more than one series."""
        key = f"{exporter}_tags"
        for tag, text in self._pins.get(key, {}).items():
            if not _having(self._series_of(exporter), {tag: text}):
                values = sorted({one.tags.get(tag, "") for one in self._series_of(exporter)} - {""})
                raise UserError(f"{key} {tag}={text} has had no sample for an hour; {_there(values)}")
            self._fix_tag(exporter, tag, text)
            self._drop_silent(exporter, f"{key} {tag}={text}")
        for row in [row for row in self.rows.values() if row.exporter == exporter]:
            while row.name in self.rows and (tag := self._differing_tag(row)):
                series = [one for own in row.series for one in self._found.get(own.key, ())]
                counts = Counter(one.tags.get(tag, "") for one in _current(series))
                shared = [text for text in counts if self._all_have(exporter, tag, text)]
                chosen = min(shared or counts, key=lambda text: (not text, -counts[text], _natural(text)))
                others = {one.tags.get(tag, "") for one in series}
                if shared:
                    self._fix_tag(exporter, tag, chosen)
                    self._tell_choice(key, chosen, others, tag)
                elif row.name in DOCUMENTED or not chosen:
                    self._drop(row, f"it has several series, which differ in the tag {tag}")
                else:
                    self._described[row.name].setdefault("tags", {})[tag] = chosen
                    self._keep(exporter, {tag: chosen}, [row.name])
                    self._tell_choice(f"tags of {row.name}", chosen, others, tag)

    def _differing_tag(self, row: Metric) -> str | None:
        """A tag in which two series of the same part differ; None if there are no such series."""
        for own in row.series:
            known = {row.part_tag, "instance", "__name__", *row.over, *own.tags}
            by_part = defaultdict(list)
            for one in self._found.get(own.key, ()):
                rest = {tag: text for tag, text in one.tags.items() if tag not in known}
                by_part[one.tags.get(row.part_tag or "")].append(rest)
            # Over all values of a tag there are several series in any case.
            differing = {
                tag
                for found in by_part.values()
                for tag in {tag for tags in found for tag in tags}
                if len({tags.get(tag) for tags in found}) > 1
            }
            if differing:
                return min(differing, key=lambda tag: (tag not in TELLING_TAGS, tag))
        return None

    def _all_have(self, exporter: str, tag: str, text: str) -> bool:
        return all(
            _having(self._found[own.key], {tag: text})
            for row in self.rows.values()
            if row.exporter == exporter
            for own in row.series
            if self._found.get(own.key)
        )

    def _fix_tag(self, exporter: str, tag: str, text: str) -> None:
        self._node.setdefault(f"{exporter}_tags", {})[tag] = text
        self._keep(exporter, {tag: text})

    def _tell_choice(self, key: str, chosen: str, names: Iterable[str], tag: str | None = None) -> None:
        others = sorted(set(names) - {chosen}, key=_natural)
        if not others:
            return
        named = [name or "none" for name in others]
        wish = json.dumps({key: others[0] if tag is None else {tag: others[0]}})
        how = "" if key.startswith("tags of") else f"; for another one give a file with {wish} as --node_file"
        what = f"{key} is" if tag is None else f"{key} has {tag}"
        self._choices.append(f"{what} {chosen or 'none'}; there {_are(named)}{how}")

    # --- parts -----------------------------------------------------------------------------------

    def fill_parts(self) -> None:
        """Fill in CPUs, interfaces and cell, and the parts over which described metrics are pooled."""
        shared = defaultdict(list)
        for row in self.rows.values():
            if row.part_tag and row.name in DOCUMENTED:
                shared[row.part_tag].append(row)
            elif row.part_tag:
                self._described[row.name]["over"] = {row.part_tag: self._parts([row])}
        for tag, rows in shared.items():
            parts = self._parts(rows)
            if not parts:
                for row in rows:
                    self._drop(row, f"no {tag} has all of its series")
            elif tag == "cpu":
                self._node["cpus"] = parts
                self._remarks.append(f"CPUs: {_listed(parts)}")
            elif tag == "device":
                self._node["interfaces"] = parts
                self._remarks.append(f"interfaces: {_listed(parts)}")
            else:
                self._node["cell_id"] = self._choose_cell(parts)

    def _parts(self, rows: Sequence[Metric]) -> list[str]:
        """The parts that all of these metrics have."""
        tag = rows[0].part_tag or ""
        by_metric = [
            {one.tags[tag] for one in self._found[row.series[0].key] if _is_name(one.tags.get(tag))}
            for row in rows
        ]
        parts = sorted(set.intersection(*by_metric), key=_natural)
        return self._busy_interfaces(rows, parts) if tag == "device" else parts

    def _busy_interfaces(self, rows: Sequence[Metric], names: list[str]) -> list[str]:
        own = [name for name in names if not VIRTUAL_INTERFACES.match(name)]
        if not own:
            return names
        series = [one for row in rows for one in self._found[row.series[0].key]]
        busy = [
            name for name in own if not _are_constant([one for one in series if one.tags["device"] == name])
        ]
        if left_out := [name for name in names if name not in own]:
            self._remarks.append(f"interfaces of the host itself that are left out: {_listed(left_out)}")
        if idle := [name for name in own if busy and name not in busy]:
            self._remarks.append(f"interfaces that were idle for an hour and are left out: {_listed(idle)}")
        return busy or own

    def _choose_cell(self, cells: list[str]) -> str:
        wished = self._pins.get("cell_id")
        if wished is not None and wished not in cells:
            raise UserError(f"cell_id {wished!r} has had no sample for an hour; {_there(cells)}")
        chosen = wished or cells[0]
        self._tell_choice("cell_id", chosen, cells)
        return chosen

    def fill_memory(self) -> None:
        """Fill in the total memory."""
        for row in list(self.rows.values()):
            if row.kind == FREE and row.name in DOCUMENTED:
                newest = max(self._found[row.series[-1].key], key=lambda one: one.last)
                if 0 < newest.value < TOO_LARGE:
                    self._node["total_memory_bytes"] = int(newest.value)
                else:
                    self._drop(row, f"{row.total_measurement} is {newest.value:g}")

    # --- remarks ---------------------------------------------------------------------------------

    def tell_intervals(self) -> None:
        """Say if samples come less often than records."""
        for exporter in dict.fromkeys(row.exporter for row in self.rows.values()):
            apart = [
                (one.last - one.first) / 1e9 / (one.count - 1)
                for one in self._series_of(exporter)
                if one.count > 2
            ]
            if apart and (seconds := median(apart)) > 1.1 * RECORD_SECONDS:
                self._remarks.append(
                    f"samples of {exporter} come every {seconds:.0f} s;"
                    f" give --interval {seconds:.0f} to collect, train and test"
                )

    def tell_constant(self) -> None:
        """Name the metrics that did not change."""
        constant = [
            row.name
            for row in self.rows.values()
            if row.name not in self._off and _are_constant(self._found.get(row.series[0].key, []))
        ]
        if constant:
            self._remarks.append(f"constant for an hour: {', '.join(constant)}")

    def finish(self) -> Recognition:
        """The node file, with the documented metrics first."""
        names = [*(name for name in DOCUMENTED if name in self.rows)]
        names += [name for name in self.rows if name not in DOCUMENTED]
        node = {key: self._node[key] for key in _KEY_ORDER if key in self._node}
        node |= self._node
        described = {name: self._described[name] for name in names}
        if described and described != {name: {} for name in METRICS}:
            node["metrics"] = described
        if off := [name for name in self._off if name in described]:
            node["off"] = off
        used = defaultdict(set)
        for one in (one for row in self.rows.values() for one in row.series):
            used[one.measurement].add(one.value_field)
        pinned = {one.key: self._fixed_tags(row.exporter) for row in self.rows.values() for one in row.series}
        return Recognition(node if described else {}, self._choices, self._remarks, dict(used), pinned)

    def _fixed_tags(self, exporter: str) -> dict[str, str]:
        tags = dict(self._node.get(f"{exporter}_tags", {}))
        instance = self._node.get(f"{exporter}_instance")
        return tags if instance is None else {**tags, "instance": instance}


_KEY_ORDER = ("cpus", "interfaces", "cell_id", "total_memory_bytes")


def _having(series: Iterable[FoundSeries], tags: Mapping[str, str]) -> list[FoundSeries]:
    return [one for one in series if all(one.tags.get(tag, "") == text for tag, text in tags.items())]


def _current(series: Sequence[FoundSeries]) -> list[FoundSeries]:
    """Those that have not ended."""
    newest = max((one.last for one in series), default=0)
    return [one for one in series if one.last >= newest - CURRENT_NS]


def _are_constant(series: Sequence[FoundSeries]) -> bool:
    return bool(series) and all(one.low == one.high and one.count >= FEWEST_SAMPLES for one in series)


def _is_name(text: str | None) -> bool:
    """Whether a node file may hold it."""
    return bool(text) and text.isprintable() and len(text) <= MOST_LETTERS


def _host(instance: str) -> str:
    return instance.rpartition(":")[0] or instance


def _natural(name: str) -> tuple[Any, ...]:
    """Sorts cpu2 before cpu10."""
    parts = re.split(r"([0-9]+)", name)
    return tuple((len(part), part) if place % 2 else part for place, part in enumerate(parts))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED_IN_REMARKS} more" if len(names) > LISTED_IN_REMARKS else ""
    return ", ".join(names[:LISTED_IN_REMARKS]) + more


def _are(names: Sequence[str]) -> str:
    return f"{'is' if len(names) == 1 else 'are'} also {_listed(names)}"


def _there(names: Sequence[str]) -> str:
    return f"there is {_listed(names)}" if names else "none has"
