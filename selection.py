"""Which series of a database are the node's, slot by slot, and which of their samples can be used.

Whoever can write metrics may write beside the node's exporters. What is watched goes on being watched:
another instance is not mixed in, and where two live series claim to be the same part of the node, that part
is unknown. At most unknown: what others write never makes a record normal.
"""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import formatters
from detector import ALERT_RECORDS
from store import mapping, number, text, whole
from utils import Node, UserError

logger = logging.getLogger("find_anomalies")

NO_SAMPLE = "no sample"
# Key that pins the instance of an exporter in a node file -> key of its other tags, its measurements.
EXPORTERS = {
    "node_instance": ("node_tags", formatters.NODE_MEASUREMENTS),
    "ran_instance": ("ran_tags", formatters.RAN_MEASUREMENTS),
}
# An exporter that is renamed is watched under its new name once the old one was silent for so many records.
RENAMED_RECORDS = ALERT_RECORDS
# So many other instances of an exporter are named, so many other series of a part are remembered.
NAMED_STRANGERS, REMEMBERED_SERIES = 3, 30
# Names that others chose are cut to this, so that a line stays a line.
NAME_CHARACTERS = 60

Tags = tuple[tuple[str, str], ...]


class Sample(NamedTuple):
    """The newest sample of a series in a slot; `fault` is why its value is none."""

    time: int
    value: Any
    fault: str | None


@dataclass(frozen=True)
class Slot:
    """start: ns. series: name of a monitored series -> instance -> other tags -> its newest sample."""

    start: int
    series: dict[str, dict[str, dict[Tags, Sample]]] = field(default_factory=dict)


def in_slots(
    samples: formatters.Record, node: Node, interval_ns: int, limit: int = sys.maxsize
) -> list[Slot]:
    """Samples with all their tags, in any order, from before `limit` (ns) -> slots, oldest first.

    Of several samples of a series in one slot the newest counts whose value can be used. Slots without a
    sample are absent.
    """
    names = {series: name for name, series in formatters.monitored_series(node).items()}
    slots: dict[int, Slot] = {}
    for measurement, points in samples.items():
        tag = formatters.PART_TAGS.get(measurement)
        for point in points:
            name = names.get((measurement, point.get(tag) if tag else None))
            if name is None or point["time"] >= limit:
                continue
            start = point["time"] // interval_ns * interval_ns
            slot = slots.setdefault(start, Slot(start))
            found = slot.series.setdefault(name, {}).setdefault(point.get("instance", ""), {})
            tags = tuple((key, value) for key, value in formatters.series_tags(point) if key != "instance")
            sample = Sample(point["time"], point["value"], formatters.value_fault(point["value"]))
            before = found.get(tags)
            if before is None or (before.fault is not None, -before.time) >= (
                sample.fault is not None,
                -sample.time,
            ):
                found[tags] = sample
    return [slots[start] for start in sorted(slots)]


@dataclass(frozen=True)
class Choice:
    """What a slot says of the node.

    time: of its newest sample (ns). record: as formatters.py takes it. faults: name of a monitored series ->
    why it has no sample that can be used, NO_SAMPLE where there is none.
    """

    slot: Slot
    time: int
    record: formatters.Record
    faults: dict[str, str]
    watched: dict[str, str]
    heirs: dict[str, tuple[str, int]]
    chosen: dict[str, Tags]

    @property
    def lacks_samples(self) -> bool:
        """Whether some may still come."""
        return NO_SAMPLE in self.faults.values()


class Selection:
    """Chooses the samples of one node, and remembers which instances and series they come from.

    choice = selection.choose(slot)    # changes nothing, so that a slot can be looked at again
    selection.keep(choice)             # this slot is done; the next one is chosen by what was kept
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._series_of_node = formatters.monitored_series(node)
        self._pinned = {key: name for key in EXPORTERS if (name := getattr(node, key)) is not None}
        self._watched: dict[str, str] = dict(self._pinned)
        self._heirs: dict[str, tuple[str, int]] = {}
        self._strangers: dict[str, list[str]] = {}
        self._chosen: dict[str, Tags] = {}
        # Name of a monitored series -> mark of its tags -> the newest slot kept in which they had a sample.
        self._seen: dict[str, dict[str, int]] = {}
        self._memory_total: float | None = None
        self._total_fault: str | None = None
        self.ever_seen: set[str] = set()

    @property
    def watched(self) -> dict[str, str]:
        """Key of a node file -> the instance that is watched, once known."""
        return self._watched

    def known_tags(self) -> dict[str, dict[str, str]]:
        """Measurement -> the tags that all its chosen series have, beside that of the part."""
        known = {}
        for key, (_, measurements) in EXPORTERS.items():
            for measurement in measurements if key in self._watched else ():
                own = [
                    set(self._chosen[name])
                    for name, (of, _) in self._series_of_node.items()
                    if of == measurement and name in self._chosen
                ]
                part_tag = formatters.PART_TAGS.get(measurement)
                common = dict(set.intersection(*own)) if own else {}
                common.pop(part_tag, None)
                known[measurement] = {**common, "instance": self._watched[key]}
        return known

    def refuse_several(self, slots: Sequence[Slot]) -> None:
        """Raise UserError if an exporter of which the node file pins none has more than one instance."""
        for key in EXPORTERS.keys() - self._pinned.keys():
            names = {name for slot in slots for name in self._instances(slot, key)}
            if key in self._watched:
                names.add(self._watched[key])
            if len(names) > 1:
                raise UserError(
                    f"{_several(names)}; name the one to watch as '{key}' in a file given with --node_file"
                )

    def newest_times(self, slot: Slot) -> dict[str, int]:
        """Name of a monitored series -> time of its newest sample by the instance that is watched (ns)."""
        found = {}
        for key, (_, measurements) in EXPORTERS.items():
            watched = self._watched.get(key)
            for name, instances in slot.series.items():
                if self._series_of_node[name][0] not in measurements:
                    continue
                times = [
                    sample.time
                    for instance, series in instances.items()
                    if watched is None or instance == watched
                    for sample in series.values()
                ]
                if times:
                    found[name] = max(times)
        return found

    def choose(self, slot: Slot) -> Choice:
        """The node's record of this slot."""
        watched, heirs = dict(self._watched), dict(self._heirs)
        for key in EXPORTERS:
            names = self._instances(slot, key)
            if key not in watched and len(names) == 1:
                (watched[key],) = names
            elif key in watched:
                self._look_for_heir(key, names, watched, heirs)
        record: formatters.Record = {}
        faults: dict[str, str] = {}
        chosen: dict[str, Tags] = {}
        times = []
        for key, (tags_key, measurements) in EXPORTERS.items():
            for name, (measurement, part) in self._series_of_node.items():
                if measurement not in measurements:
                    continue
                instances = slot.series.get(name, {})
                if key not in watched and len(instances) > 1:
                    faults[name] = f"{_several(instances)}; pin one as '{key}' in --node_file"
                    continue
                found = instances.get(watched.get(key, ""), {})
                times += [sample.time for sample in found.values()]
                tags = self._choose_series(name, found, slot.start)
                if not found:
                    if measurement not in formatters.OPTIONAL_MEASUREMENTS:
                        faults[name] = NO_SAMPLE
                elif tags is None:
                    faults[name] = (
                        f"{self._describe_two(name, found)}; pin one in '{tags_key}' of --node_file"
                    )
                elif fault := found[tags].fault:
                    faults[name] = fault
                else:
                    chosen[name] = tags
                    point: formatters.Point = {"time": found[tags].time, "value": found[tags].value}
                    if instance := watched.get(key):
                        point["instance"] = instance
                    if part is not None:
                        point[formatters.PART_TAGS[measurement]] = part
                    record.setdefault(measurement, []).append(point)
        self._check_memory(record, faults)
        faults = {name: faults[name] for name in self._series_of_node if name in faults}
        return Choice(slot, max(times, default=slot.start), record, faults, watched, heirs, chosen)

    def keep(self, choice: Choice) -> None:
        """This slot is judged."""
        for key, name in choice.watched.items():
            before = self._watched.get(key, name)
            if name != before:
                logger.warning(
                    "samples now come from %s, before from %s; pin '%s' in --node_file if that is wrong",
                    shown(name),
                    shown(before),
                    key,
                )
        self._watched, self._heirs = choice.watched, choice.heirs
        for key in EXPORTERS:
            self._note_strangers(key, self._instances(choice.slot, key))
        self._chosen |= choice.chosen
        self.ever_seen |= choice.chosen.keys()
        for point in choice.record.get(formatters.MEMORY_TOTAL, []):
            self._memory_total, self._total_fault = float(point["value"]), None
        self._total_fault = choice.faults.get(formatters.MEMORY_TOTAL, self._total_fault)
        for name, instances in choice.slot.series.items():
            seen = self._seen.setdefault(name, {})
            for mark in {_mark(tags) for found in instances.values() for tags in found}:
                seen.pop(mark, None)
                seen[mark] = choice.slot.start
            for mark in list(seen)[:-REMEMBERED_SERIES]:
                del seen[mark]

    # --- instances -------------------------------------------------------------------------------

    def _instances(self, slot: Slot, key: str) -> set[str]:
        measurements = EXPORTERS[key][1]
        return {
            instance
            for name, instances in slot.series.items()
            if self._series_of_node[name][0] in measurements
            for instance in instances
        }

    def _look_for_heir(
        self, key: str, names: set[str], watched: dict[str, str], heirs: dict[str, tuple[str, int]]
    ) -> None:
        """Watch another instance if it alone has come for a while, and never beside the one before."""
        if watched[key] in names:
            heirs.pop(key, None)
            return
        strangers = self._strangers.get(key, [])
        if len(names) != 1 or len(strangers) > NAMED_STRANGERS:
            return
        (name,) = names
        if shown(name) in strangers:
            return
        before, count = heirs.get(key, (name, 0))
        heirs[key] = (name, count + 1 if name == before else 1)
        if heirs[key][1] >= RENAMED_RECORDS:
            watched[key] = name
            del heirs[key]

    def _note_strangers(self, key: str, names: set[str]) -> None:
        """Name another instance that writes beside the one that is watched, once."""
        watched = self._watched.get(key)
        strangers = self._strangers.setdefault(key, [])
        if watched not in names:
            return
        for name in map(shown, sorted(names - {watched})):
            if name in strangers:
                continue
            if len(strangers) > NAMED_STRANGERS:
                return
            strangers.append(name)
            others = name if len(strangers) <= NAMED_STRANGERS else "more others, which are not named,"
            logger.warning(
                "samples of %s come, too; %s goes on being watched. To watch another one, name it as '%s' in"
                " --node_file",
                others,
                shown(watched),
                key,
            )

    # --- series ----------------------------------------------------------------------------------

    def _choose_series(self, name: str, found: dict[Tags, Sample], start: int) -> Tags | None:
        """The series of a part; None where two live ones claim to be it.

        One that comes up beside the one known so far may be the same under another label, which ends then; or
        somebody else's. The one known counts until that is clear.
        """
        if len(found) <= 1:
            return next(iter(found), None)
        known = self._chosen.get(name)
        seen = self._seen.get(name, {})
        others = [tags for tags in found if tags != known]
        is_new = all(seen.get(_mark(tags), start) >= start for tags in others)
        return known if known in found and is_new else None

    def _describe_two(self, name: str, found: dict[Tags, Sample]) -> str:
        known = self._chosen.get(name)
        first, second = sorted(found, key=lambda tags: (tags != known, tags))[:2]
        different = sorted(dict(set(first) ^ set(second)))
        texts = [
            ",".join(f"{tag}={dict(tags).get(tag, '')}" for tag in different) for tags in (first, second)
        ]
        return f"two series at once, {shown(texts[0])} and {shown(texts[1])}"

    def _check_memory(self, record: formatters.Record, faults: dict[str, str]) -> None:
        """Free memory says nothing without the total, or if there is more of it than that."""
        free = record.get(formatters.MEMORY_FREE)
        if not free:
            return
        if self._total_fault and formatters.MEMORY_TOTAL not in record:
            # What InfluxDB refuses beside a text does not come; the node's own figure is no stand-in for it.
            faults.setdefault(formatters.MEMORY_TOTAL, self._total_fault)
        if formatters.MEMORY_TOTAL in faults:
            del record[formatters.MEMORY_FREE]
            return
        totals = [point["value"] for point in record.get(formatters.MEMORY_TOTAL, [])]
        total = next(iter(totals), self._memory_total)
        if free[0]["value"] > (self._node.total_memory_bytes if total is None else total):
            source = "'total_memory_bytes' of the node" if total is None else formatters.MEMORY_TOTAL
            faults[formatters.MEMORY_FREE] = f"its value is more than {source}"
            del record[formatters.MEMORY_FREE]

    # --- over a restart --------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """For `restore`, in JSON."""
        return {
            "watched": self._watched,
            "strangers": self._strangers,
            "chosen": self._chosen,
            "seen": self._seen,
            "memory_total": self._memory_total,
            "total_fault": self._total_fault,
            "ever_seen": sorted(self.ever_seen),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where another process stopped.

        Raises KeyError, TypeError or ValueError, unchanged, if it is no state.
        """
        watched = {text(key): text(name) for key, name in mapping(state["watched"]).items()}
        strangers = {
            text(key): [text(name) for name in names] for key, names in mapping(state["strangers"]).items()
        }
        chosen = {
            text(name): tuple((text(tag), text(value)) for tag, value in tags)
            for name, tags in mapping(state["chosen"]).items()
        }
        seen = {
            text(name): {text(mark): whole(start) for mark, start in mapping(marks).items()}
            for name, marks in mapping(state["seen"]).items()
        }
        total = None if state["memory_total"] is None else number(state["memory_total"])
        total_fault = None if state["total_fault"] is None else text(state["total_fault"])
        self.ever_seen = {text(name) for name in state["ever_seen"]}
        self._watched = {**watched, **self._pinned}
        self._strangers, self._chosen, self._seen = strangers, chosen, seen
        self._memory_total, self._total_fault = total, total_fault


def _mark(tags: Tags) -> str:
    """A short text for tags, which may be long."""
    return hashlib.blake2b(repr(tags).encode(), digest_size=8).hexdigest()


def _several(names: Iterable[str]) -> str:
    named = [shown(name) or "one without a name" for name in sorted(names)]
    more = f" and {len(named) - 2} more" if len(named) > 2 else ""
    return f"the database holds more than one instance: {', '.join(named[:2])}{more}"


def shown(text: str) -> str:
    """A name that somebody else chose, as a line can show it."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in text[: NAME_CHARACTERS + 1])
    return printable if len(printable) <= NAME_CHARACTERS else f"{printable[: NAME_CHARACTERS - 3]}..."
