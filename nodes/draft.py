"""A node file in the making: its metrics, and the choice among several exporters that have their series."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from common.files import UserError
from nodes.metrics import DOCUMENTED, UNKNOWN_LEVEL, Metric
from nodes.survey import FoundSeries, Survey

# A series without a sample in this time before the newest one of its exporter has ended.
CURRENT_NS = 300 * 10**9
# Tags that tell exporters apart, by how much they tell; others follow by name.
TELLING_TAGS = ("host", "job")
# The longest name that a node file takes.
MOST_LETTERS = 200
# How many names a remark lists.
LISTED_IN_REMARKS = 8


class Draft:
    """A node file in the making.

    survey: what was found. pins: as in recognise(). rows: the metrics that are in it, by name. described:
    name -> what the node file says of the metric. cell_tags: name -> the tags that name the metric's cell.
    off: metrics that are switched off. found: key -> series of this node. node: the other keys of the node
    file. choices, remarks: as in Recognition.
    """

    def __init__(self, survey: Survey, pins: Mapping[str, Any]) -> None:
        self.survey, self.pins = survey, pins
        self.rows: dict[str, Metric] = {}
        self.described: dict[str, dict[str, Any]] = {}
        self.cell_tags: dict[str, tuple[str, ...]] = {}
        self.off: list[str] = []
        self.found = {key: list(series) for key, series in survey.series.items()}
        self.node: dict[str, Any] = {}
        self.choices: list[str] = []
        self.remarks: list[str] = []
        self._hosts: set[str] = set()

    @property
    def exporters(self) -> list[str]:
        """The exporters of its metrics."""
        return list(dict.fromkeys(row.exporter for row in self.rows.values()))

    def drop(self, row: Metric, why: str) -> None:
        """Leave out a metric."""
        del self.rows[row.name]
        self.remarks.append(f"{row.name} is left out: {why}")

    def fixed_tags(self, exporter: str) -> dict[str, str]:
        """The tags that the node file fixes for the series of an exporter."""
        tags = dict(self.node.get(f"{exporter}_tags", {}))
        instance = self.node.get(f"{exporter}_instance")
        return tags if instance is None else {**tags, "instance": instance}

    def series_of(self, exporter: str) -> list[FoundSeries]:
        """What was found of all metrics of an exporter."""
        return [
            one
            for row in self._rows_of(exporter)
            for series in row.series
            for one in self.found.get(series.key, ())
        ]

    def _keep(self, rows: Iterable[Metric], tags: Mapping[str, str]) -> None:
        """Keep the series of these metrics that have these tags."""
        for series in (series for row in rows for series in row.series):
            self.found[series.key] = _having(self.found.get(series.key, []), tags)

    def pin_instance(self, exporter: str) -> None:
        """Fix the instance of an exporter: the one that was asked for, or the one that has most metrics."""
        key, there = f"{exporter}_instance", self.series_of(exporter)
        metrics = Counter(
            instance
            for row in self._rows_of(exporter)
            for instance in {one.tags.get("instance", "") for one in self.found.get(row.series[0].key, ())}
        )
        names = {one.tags["instance"] for one in _current(there) if is_name(one.tags.get("instance"))}
        wished = self.pins.get(key)
        if wished is not None and wished not in metrics:
            raise UserError(
                f"{key} {wished!r} has had no sample in the last hour; {names_there(sorted(names))}"
            )
        if wished is None and not names:
            return
        # Two exporters of one host belong together.
        chosen = wished or min(
            names, key=lambda name: (-metrics[name], _host(name) not in self._hosts, natural(name))
        )
        self._hosts.add(_host(chosen))
        self.node[key] = chosen
        self._keep(self._rows_of(exporter), {"instance": chosen})
        self.tell_choice(key, chosen, names)
        for row in self._rows_of(exporter):
            missing = [one.key for one in row.series if not self.found.get(one.key)]
            if missing and row.silence == UNKNOWN_LEVEL:
                self.drop(row, f"{chosen} has no {missing[0]}")

    def pin_tags(self, exporter: str) -> None:
        """Fix other tags of an exporter's series as long as any part of a metric has more than one series."""
        key = f"{exporter}_tags"
        for tag, text in self.pins.get(key, {}).items():
            if not _having(self.series_of(exporter), {tag: text}):
                values = sorted({one.tags.get(tag, "") for one in self.series_of(exporter)} - {""})
                raise UserError(
                    f"{key} {tag}={text} has had no sample in the last hour; {names_there(values)}"
                )
            self._fix_tag(exporter, tag, text)
        for row in self._rows_of(exporter):
            while row.name in self.rows and (tag := self._differing_tag(row)):
                series = [one for own in row.series for one in self.found.get(own.key, ())]
                texts = [one.tags.get(tag, "") for one in _current(series)]
                counts = Counter(text for text in texts if not text or is_name(text))
                shared = [text for text in counts if self._all_have(exporter, tag, text)]
                chosen = min(
                    shared or counts, key=lambda text: (not text, -counts[text], natural(text)), default=""
                )
                if not shared and (row.name in DOCUMENTED or not chosen):
                    self.drop(row, f"it has several series, which differ in the tag {tag}")
                    continue
                self._fix_tag(exporter, tag, chosen)
                self.tell_choice(key, chosen, {one.tags.get(tag, "") for one in series}, tag)

    def _rows_of(self, exporter: str) -> list[Metric]:
        return [row for row in self.rows.values() if row.exporter == exporter]

    def _fix_tag(self, exporter: str, tag: str, text: str) -> None:
        """Fix a tag for all metrics of an exporter, or only for those described ones that have it."""
        if self._all_have(exporter, tag, text):
            self.node.setdefault(f"{exporter}_tags", {})[tag] = text
            self._keep(self._rows_of(exporter), {tag: text})
            return
        for row in self._rows_of(exporter):
            is_free = row.name not in DOCUMENTED and tag not in (row.part_tag, *row.over)
            if is_free and _having(self.found.get(row.series[0].key, ()), {tag: text}):
                self.described[row.name].setdefault("tags", {})[tag] = text
                self._keep([row], {tag: text})

    def _differing_tag(self, row: Metric) -> str | None:
        """A tag in which two series of the same part differ; None if there are no such series."""
        for own in row.series:
            known = {row.part_tag, "instance", "__name__", *row.over, *own.tags}
            by_part = defaultdict(list)
            for one in self.found.get(own.key, ()):
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
        """Whether all metrics of an exporter have series with this tag, and none is pooled over it."""
        return all(
            tag not in (row.part_tag, *row.over) and _having(self.found[own.key], {tag: text})
            for row in self._rows_of(exporter)
            for own in row.series
            if self.found.get(own.key)
        )

    def tell_choice(self, key: str, chosen: str, names: Iterable[str], tag: str | None = None) -> None:
        """Say which of several names was chosen, for a key of the node file or a tag in it."""
        others = sorted(set(names) - {chosen}, key=natural)
        if not others:
            return
        named = [name or "none" for name in others]
        wish = json.dumps({key: others[0] if tag is None else {tag: others[0]}})
        what = f"{key} is" if tag is None else f"{key} has {tag}"
        self.choices.append(
            f"{what} {chosen or 'none'}; there {_are(named)};"
            f" for another one give a file with {wish} as --node_file"
        )


def _having(series: Iterable[FoundSeries], tags: Mapping[str, str]) -> list[FoundSeries]:
    return [one for one in series if all(one.tags.get(tag, "") == text for tag, text in tags.items())]


def _current(series: Sequence[FoundSeries]) -> list[FoundSeries]:
    """Those that have not ended."""
    newest = max((one.last for one in series), default=0)
    return [one for one in series if one.last >= newest - CURRENT_NS]


def is_name(text: str | None) -> bool:
    """Whether a node file may hold it."""
    return bool(text) and text.isprintable() and len(text) <= MOST_LETTERS


def _host(instance: str) -> str:
    return instance.rpartition(":")[0] or instance


def natural(name: str) -> tuple[Any, ...]:
    """Sorts cpu2 before cpu10."""
    parts = re.split(r"([0-9]+)", name)
    return tuple((len(part), part) if place % 2 else part for place, part in enumerate(parts))


def listed(names: Sequence[str]) -> str:
    """The first of these names, and how many more there are."""
    more = f" and {len(names) - LISTED_IN_REMARKS} more" if len(names) > LISTED_IN_REMARKS else ""
    return ", ".join(names[:LISTED_IN_REMARKS]) + more


def _are(names: Sequence[str]) -> str:
    return f"{'is' if len(names) == 1 else 'are'} also {listed(names)}"


def names_there(names: Sequence[str]) -> str:
    """What there is instead."""
    return f"there is {listed(names)}" if names else "none has"
