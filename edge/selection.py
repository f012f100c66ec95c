"""Chooses, slot by slot, which series in the database belong to the node and which samples are usable.

Anyone who can write metrics can write samples that look like the node's. An instance that is watched stays
watched, and no other is mixed in. If two live series claim to be the same part of the node, that part is
unknown. Foreign samples can make a metric unknown, but never normal.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from common.alerts import WINDOW_RECORDS
from common.files import UserError
from common.times import DAY_SECONDS, format_time
from common.values import mapping, number, text, whole
from edge.source import LinesByKey
from nodes.metrics import FREE, LAST_LEVEL, UNKNOWN_LEVEL, Metric
from nodes.names import describe_several
from nodes.node import Node
from nodes.series import TOO_LARGE, Point, Record, monitored_series, value_fault

logger = logging.getLogger("find_anomalies")

NO_SAMPLE = "no sample"
# What the keys of a node file that pin the instance and other tags of an exporter end in.
INSTANCE_KEY, TAGS_KEY = "_instance", "_tags"
# A renamed exporter is watched under its new name once the old one was silent for this many records: longer
# than its host needs to start again.
RENAMED_RECORDS = WINDOW_RECORDS
# A source that writes beside the known one in this many records is a different one. A single record proves
# nothing: a renamed series, or one with a new label, may appear in the last record of the old one.
RIVAL_RECORDS = 2
# How many other sources are remembered for an exporter, and for a part of the node.
OTHER_INSTANCES, OTHER_SERIES = 4, 30
# A memory total that appears late may differ by this share from the node's own figure.
SAME_TOTAL = 0.01
# Names chosen by others are cut to this length, so that messages stay short.
NAME_CHARACTERS = 60
Tags = tuple[tuple[str, str], ...]
_NUMBERS = (float, int)


class Sample(NamedTuple):
    """The newest sample of a series in a slot; `fault` is why its value is unusable, None if it is usable.

    One of a metric that is pooled over a tag has the newest values of all its series, which differ in it.
    """

    time: int
    value: Any
    fault: str | None


@dataclass(frozen=True)
class Slot:
    """The samples of one slot. start: ns. series: series name -> instance -> other tags -> newest sample."""

    start: int
    series: dict[str, dict[str, dict[Tags, Sample]]] = field(default_factory=dict)


def in_slots(samples: LinesByKey, node: Node, interval_ns: int, limit: int = sys.maxsize) -> list[Slot]:
    """Samples from before `limit` (ns) -> slots, oldest first.

    If a series has several samples in a slot, the newest with a usable value counts. Slots without samples
    are left out. Test mode and --mode collect use this; formatters.slot_records is for samples that are
    certainly those of one node.
    """
    names = node.names_of_series
    slots: dict[int, dict[str, dict[str, dict[Tags, Sample]]]] = {}
    # The samples that are pooled: by slot, name, instance, tags, and values of the tags that tell them apart.
    pooled: dict[tuple[int, str, str, Tags], tuple[Metric, dict[Tags, Sample]]] = {}
    for key, lines in samples.items():
        metric = node.metrics.measurements[key]
        part_tag, over, scale, may_be_negative = (
            metric.part_tag,
            metric.over,
            metric.scale,
            metric.may_be_negative,
        )
        for (labels, instance, tags), found in lines:
            name = names.get((key, labels.get(part_tag) if part_tag else None))
            if name is None:
                continue
            if over:
                apart = tuple(one for one in tags if one[0] in over)
                tags = tuple(one for one in tags if one[0] not in over)
            for time, value in found:
                if time >= limit:
                    continue
                # The usual value needs no closer look.
                is_usual = type(value) in _NUMBERS and 0 <= value < TOO_LARGE
                fault = None if is_usual else value_fault(value, may_be_negative)
                if fault is None and scale != 1:
                    value = value * scale
                sample = Sample(time, value, fault)
                start = time // interval_ns * interval_ns
                slot = slots.get(start)
                if slot is None:
                    slot = slots[start] = {}
                instances = slot.get(name)
                if instances is None:
                    slot[name] = {instance: {tags: sample}}
                else:
                    series = instances.setdefault(instance, {})
                    series[tags] = _newer(series.get(tags), sample)
                if over:
                    _, parts = pooled.setdefault((start, name, instance, tags), (metric, {}))
                    parts[apart] = _newer(parts.get(apart), sample)
    for (start, name, instance, tags), (metric, parts) in pooled.items():
        # In the same order each time: what is read in another order has another sum.
        slots[start][name][instance][tags] = _pooled([parts[one] for one in sorted(parts)], metric)
    return [Slot(start, slots[start]) for start in sorted(slots)]


def _newer(before: Sample | None, sample: Sample) -> Sample:
    """The newer of two samples; one with a usable value comes before any without."""
    if before is None or (before.fault is not None, -before.time) >= (sample.fault is not None, -sample.time):
        return sample
    return before


def _pooled(parts: Sequence[Sample], metric: Metric) -> Sample:
    """One sample of all, unusable if any is."""
    time = max(part.time for part in parts)
    if fault := next((part.fault for part in parts if part.fault), None):
        return Sample(time, None, fault)
    return Sample(time, metric.pooled([part.value for part in parts]), None)


@dataclass(frozen=True)
class Choice:
    """What a slot says about the node.

    time: of its newest sample (ns). record: as formatters.py takes it. faults: series name -> why it has no
    usable sample, NO_SAMPLE if it has none at all. silent: names of series whose silence means a level.
    """

    slot: Slot
    time: int
    record: Record
    faults: dict[str, str]
    watched: dict[str, str]
    heirs: dict[str, tuple[str, int]]
    chosen: dict[str, Tags]
    silent: tuple[str, ...] = ()

    @property
    def lacks_samples(self) -> bool:
        """Whether samples are missing that may still come."""
        return bool(self.silent) or any(fault.startswith(NO_SAMPLE) for fault in self.faults.values())


class Others:
    """Other sources of samples that have one known source; at most `limit` of them are remembered.

    A source is forgotten after WINDOW_RECORDS records of silence.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # Name -> in how many records it wrote beside the known source, and its newest record.
        self._records: dict[str, tuple[int, int]] = {}
        self._crowded_in: int | None = None

    def beside(self, name: str) -> int:
        """In how many records this source wrote beside the known one."""
        return self._records.get(name, (0, 0))[0]

    def has_rivals(self) -> bool:
        """Whether other sources write, too: a series that comes alone may then be one of theirs."""
        return self.is_crowd or any(count >= RIVAL_RECORDS for count, _ in self._records.values())

    @property
    def is_empty(self) -> bool:
        """Whether no source is remembered, nor that there were too many."""
        return not self._records and self._crowded_in is None

    @property
    def is_crowd(self) -> bool:
        """Whether there were more sources than can be remembered."""
        return self._crowded_in is not None

    def note(self, names: Iterable[str], is_beside: bool, number: int) -> None:
        """Note the sources that wrote in the record with this number, beside the known source or alone."""
        records = self._records | {name: (self.beside(name) + is_beside, number) for name in sorted(names)}
        oldest = number - WINDOW_RECORDS
        self._records = {name: found for name, found in records.items() if found[1] > oldest}
        if len(self._records) > self._limit:
            # The most frequent ones are the likeliest to write again.
            kept = sorted(self._records.items(), key=lambda item: item[1], reverse=True)[: self._limit]
            self._records, self._crowded_in = dict(kept), number
        elif self._crowded_in is not None and self._crowded_in <= oldest:
            self._crowded_in = None

    def state(self) -> dict[str, Any]:
        """The state that `restore` takes, as JSON."""
        return {"records": self._records, "crowded_in": self._crowded_in}

    def restore(self, state: Any) -> None:
        """Continue where another process stopped.

        Raises KeyError, TypeError or ValueError if the state is invalid.
        """
        crowded_in = mapping(state)["crowded_in"]
        self._records = {
            text(name): (whole(count), whole(number))
            for name, (count, number) in mapping(state["records"]).items()
        }
        self._crowded_in = None if crowded_in is None else whole(crowded_in)


class _Series(NamedTuple):
    """A series of the node, as in monitored_series. key: of a node file, that pins its exporter."""

    name: str
    measurement: str
    exporter: str
    key: str
    part_tag: str | None
    part: str | None

    def point(self, time: int, value: Any, instance: str | None) -> Point:
        """A sample of it."""
        point: Point = {"time": time, "value": value}
        if instance:
            point["instance"] = instance
        if self.part_tag is not None:
            point[self.part_tag] = self.part
        return point


@functools.lru_cache(maxsize=256)
def _series_of(layout: Node) -> dict[str, _Series]:
    """The series of the nodes with this layout, by name."""
    found = {}
    for name, (measurement, part) in monitored_series(layout).items():
        metric = layout.metrics.measurements[measurement]
        key = metric.exporter + INSTANCE_KEY
        found[name] = _Series(name, measurement, metric.exporter, key, metric.part_tag, part)
    return found


class Selection:
    """Chooses the samples of one node, and remembers which instances and series they come from.

    choice = selection.choose(slot)    # changes nothing, so the slot can be chosen again
    selection.keep(choice)             # the slot is done; later choices build on this one

    Nearly always each series comes alone, from where it came before: then there is nothing to decide.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        # Alike nodes share them.
        self._series = _series_of(node.layout)
        self._keys = tuple(exporter + INSTANCE_KEY for exporter in node.metrics.exporters)
        self._pinned = {
            exporter + INSTANCE_KEY: name
            for exporter in node.metrics.exporters
            if (name := node.instance_of(exporter)) is not None
        }
        self._watched: dict[str, str] = dict(self._pinned)
        self._heirs: dict[str, tuple[str, int]] = {}
        # The instances that were watched before.
        self._former: dict[str, str] = {}
        self._chosen: dict[str, Tags] = {}
        # What known_tags returns, while that stays as it is.
        self._known_tags: dict[str, dict[str, str]] | None = None
        self._other_instances = {key: Others(OTHER_INSTANCES) for key in self._keys}
        self._other_series = {name: Others(OTHER_SERIES) for name in self._series}
        self._holds_last = {
            name
            for name, one in self._series.items()
            if node.metrics.measurements[one.measurement].silence == LAST_LEVEL
        }
        self._last_levels: dict[str, float] = {}
        self._silent_since: dict[str, int] = {}
        self._told_silent: set[str] = set()
        # How many records were kept.
        self._number = 0
        # The series of the memory, if it is watched.
        memory = [row for row in node.metrics.values() if row.kind == FREE]
        self._free, self._total = memory[0].measurements if memory else ("", "")
        # A described total is not that of the RAM.
        self._has_own_total = bool(memory) and not memory[0].key
        self._memory_total: float | None = None
        self._total_fault: str | None = None
        self.ever_seen: set[str] = set()
        # Whether each series is known, and no other source nor any silence is remembered.
        self._is_steady = False

    @property
    def watched(self) -> dict[str, str]:
        """Exporter -> the instance that is watched, once known."""
        return {key.removesuffix(INSTANCE_KEY): name for key, name in self._watched.items()}

    def known_tags(self) -> dict[str, dict[str, str]]:
        """Measurement -> the tags that all its chosen series share, without the tag of the part."""
        if self._known_tags is None:
            self._known_tags = self._find_known_tags()
        return self._known_tags

    def _find_known_tags(self) -> dict[str, dict[str, str]]:
        known: dict[str, dict[str, str]] = {}
        for name, tags in self._chosen.items():
            measurement = self._series[name].measurement
            own = {**dict(tags), "instance": self._watched[self._series[name].key]}
            own.pop(self._node.metrics.part_tag(measurement) or "", None)
            common = known.get(measurement, own)
            known[measurement] = {tag: value for tag, value in own.items() if common.get(tag) == value}
        return known

    def refuse_several(self, slots: Sequence[Slot], place: str = "the database") -> None:
        """Raise UserError if an exporter that the node file does not pin has more than one instance.

        place: where the samples were read.
        """
        found = {
            key: {name for slot in slots for name in self._instances(slot)[key]}
            for key in self._keys
            if key not in self._pinned
        }
        for key, names in found.items():
            if key in self._watched:
                names.add(self._watched[key])
        if not self._pinned and (line := describe_several(found, place)):
            raise UserError(line)
        for key, names in found.items():
            if len(names) > 1:
                raise UserError(
                    f"{_several(names)}; name the one to watch as '{key}' in a file given with --node_file"
                )

    def newest_times(self, slot: Slot) -> dict[str, int]:
        """Series name -> time of its newest sample from the known source (ns).

        All sources count while none is known.
        """
        found = {}
        for name, instances in slot.series.items():
            watched, known = self._watched.get(self._series[name].key), self._chosen.get(name)
            newest = None
            for instance, series in instances.items():
                if watched is None or instance == watched:
                    for tags, sample in series.items():
                        is_known = known is None or tags == known
                        if is_known and (newest is None or sample.time > newest):
                            newest = sample.time
            if newest is not None:
                found[name] = newest
        return found

    def choose(self, slot: Slot, doubtful: Mapping[str, str] | None = None) -> Choice:
        """Choose the node's record in this slot. doubtful: as in Samples."""
        if (record := self._known_record(slot)) is not None:
            faults: dict[str, str] = {}
            self._check_memory(record, faults)
            return Choice(slot, _newest(record, slot), record, faults, self._watched, {}, self._chosen)
        return self._choose(slot, doubtful or {})

    def _known_record(self, slot: Slot) -> Record | None:
        """The record, if all series have one usable sample each, from where they came before; else None."""
        if not self._is_steady:
            return None
        record: Record = {}
        for name, one in self._series.items():
            instances, instance = slot.series.get(name, ()), self._watched[one.key]
            found = instances[instance] if len(instances) == 1 and instance in instances else ()
            if len(found) != 1:
                return None
            ((tags, sample),) = found.items()
            if sample.fault is not None or tags != self._chosen[name]:
                return None
            point = one.point(sample.time, sample.value, instance)
            if one.measurement in record:
                record[one.measurement].append(point)
            else:
                record[one.measurement] = [point]
        return record

    def _choose(self, slot: Slot, doubtful: Mapping[str, str]) -> Choice:
        watched, heirs = dict(self._watched), dict(self._heirs)
        several: dict[str, str] = {}
        for key, names in self._instances(slot).items():
            former = self._former.get(key)
            if former in names and watched[key] in names:
                several[key] = f"{_several([former, watched[key]])}; pin one as '{key}' in --node_file"
            elif former in names:
                watched[key] = former
            elif key in watched:
                self._look_for_heir(key, names, watched, heirs)
            elif len(names) == 1:
                (watched[key],) = names
            elif names:
                several[key] = f"{_several(names)}; pin one as '{key}' in --node_file"
        record: Record = {}
        faults: dict[str, str] = {}
        chosen: dict[str, Tags] = {}
        silent: list[str] = []
        for name, one in self._series.items():
            key, measurement = one.key, one.measurement
            instances = slot.series.get(name, {})
            instance = watched.get(key, "")
            found = instances.get(instance, {})
            if instances and key in several:
                faults[name] = several[key]
                continue
            tags, fault = self._choose_series(name, found)
            if fault is None and tags is None:
                metric = self._node.metrics.measurements[measurement]
                doubt = doubtful.get(measurement)
                if not instances and metric.silence != UNKNOWN_LEVEL and not doubt:
                    silent.append(name)
                elif measurement == metric.measurements[0] or metric.key:
                    told = self._describe_silence(key, instances)
                    faults[name] = f"{told}: {doubt}" if doubt and not instances else told
            elif fault := fault or found[tags].fault:
                faults[name] = fault
            else:
                chosen[name] = tags
                sample = found[tags]
                record.setdefault(measurement, []).append(one.point(sample.time, sample.value, instance))
        told = self._note_silence(silent, record, faults, watched)
        self._check_memory(record, faults)
        return Choice(slot, _newest(record, slot), record, faults, watched, heirs, chosen, told)

    def _note_silence(
        self, silent: Sequence[str], record: Record, faults: dict[str, str], watched: Mapping[str, str]
    ) -> tuple[str, ...]:
        """Put zeros, or last levels, into a record for silent series while others of the same exporter come.

        Returns the names of these series; the others get a fault.
        """
        if not silent:
            return ()
        newest: dict[str, int] = {}
        for measurement, points in record.items():
            exporter = self._node.metrics.measurements[measurement].exporter
            newest[exporter] = max(newest.get(exporter, 0), *(point["time"] for point in points))
        levels = {name: self._last_levels.get(name) if name in self._holds_last else 0.0 for name in silent}
        told = tuple(
            name for name in silent if self._series[name].exporter in newest and levels[name] is not None
        )
        for name in silent:
            if name not in told:
                faults[name] = NO_SAMPLE
                continue
            one = self._series[name]
            point = one.point(newest[one.exporter], levels[name], watched.get(one.key))
            record.setdefault(one.measurement, []).append(point)
        return told

    def keep(self, choice: Choice) -> None:
        """Remember what was chosen for this slot."""
        self._number += 1
        if not (self._is_steady and choice.chosen is self._chosen and choice.watched is self._watched):
            self._keep_sources(choice)
        for point in choice.record.get(self._total, ()):
            self._memory_total, self._total_fault = float(point["value"]), None
        self._total_fault = choice.faults.get(self._total, self._total_fault)

    def _keep_sources(self, choice: Choice) -> None:
        """Remember where the samples came from, and what else there was."""
        for key, name in choice.watched.items():
            before = self._watched.get(key, name)
            if name != before:
                self._former = self._former | {key: before}
                logger.warning(
                    "samples now come from %s instead of %s; pin '%s' in --node_file if that is wrong",
                    shown(name),
                    shown(before),
                    key,
                )
                self._known_tags = None
        self._watched, self._heirs = choice.watched, choice.heirs
        for key, names in self._instances(choice.slot).items():
            self._note_instances(key, names)
        for name, instances in choice.slot.series.items():
            found = instances.get(self._watched.get(self._series[name].key, ""), {})
            known = choice.chosen.get(name, self._chosen.get(name))
            others = self._other_series[name]
            if others.is_empty and (not found or len(found) == 1 and known in found):
                continue
            marks = {_mark(tags) for tags in found if tags != known}
            is_beside = known in found or (known is None and len(marks) > 1)
            others.note(marks, is_beside, self._number)
        if self._holds_last:
            self._last_levels = self._last_levels | {
                name: choice.slot.series[name][self._watched.get(self._series[name].key, "")][tags].value
                for name, tags in choice.chosen.items()
                if name in self._holds_last
            }
        if choice.silent or self._silent_since:
            self._note_silence_of_a_day(choice)
        if any(self._chosen.get(name) != tags for name, tags in choice.chosen.items()):
            self._known_tags = None
        # Choices may have the one before.
        self._chosen = self._chosen | choice.chosen
        self.ever_seen |= choice.chosen.keys()
        others = (*self._other_instances.values(), *self._other_series.values())
        self._is_steady = (
            choice.chosen.keys() == self._series.keys()
            and not (self._heirs or self._former or self._holds_last or self._silent_since)
            and all(one.is_empty for one in others)
        )

    def forget_levels(self) -> None:
        """Forget what levels were last: the next slots have nothing to do with the earlier ones."""
        self._last_levels = {}

    def forget_total_fault(self) -> None:
        """Clear the fault of the memory total: nothing keeps it out any more."""
        self._total_fault = None

    def _note_silence_of_a_day(self, choice: Choice) -> None:
        """Log a series that has been silent for a day, once: its exporter may not have it any more."""
        self._silent_since = {name: self._silent_since.get(name, choice.slot.start) for name in choice.silent}
        self._told_silent &= set(choice.silent)
        for name, since in self._silent_since.items():
            if choice.slot.start - since >= DAY_SECONDS * 10**9 and name not in self._told_silent:
                self._told_silent.add(name)
                logger.warning(
                    "%s has had no sample since %s, and counts as %s; check that its exporter still has it",
                    name,
                    format_time(since),
                    "what it was last" if name in self._holds_last else "zero",
                )

    # --- instances -------------------------------------------------------------------------------

    def _instances(self, slot: Slot) -> dict[str, set[str]]:
        """Key of a node file -> the instances of its exporter that have samples in a slot."""
        found: dict[str, set[str]] = {key: set() for key in self._keys}
        for name, instances in slot.series.items():
            found[self._series[name].key].update(instances)
        return found

    def _look_for_heir(
        self, key: str, names: set[str], watched: dict[str, str], heirs: dict[str, tuple[str, int]]
    ) -> None:
        """Watch another instance if it alone has come for a while and is not a rival of the watched one."""
        if watched[key] in names:
            heirs.pop(key, None)
        if watched[key] in names or len(names) != 1:
            return
        (name,) = names
        others = self._other_instances[key]
        if others.is_crowd or others.beside(shown(name)) >= RIVAL_RECORDS:
            return
        before, count = heirs.get(key, (name, 0))
        heirs[key] = (name, count + 1 if name == before else 1)
        if heirs[key][1] >= RENAMED_RECORDS:
            watched[key] = name
            del heirs[key]

    def _note_instances(self, key: str, names: set[str]) -> None:
        """Log an instance that writes beside the watched one, once."""
        watched = self._watched.get(key)
        others = self._other_instances[key]
        if watched is None or others.is_empty and names <= {watched}:
            return
        was_crowd = others.is_crowd
        found = {shown(name) or "an unnamed instance" for name in names if name != watched}
        others.note(found, watched in names, self._number)
        new = [name for name in sorted(found) if watched in names and others.beside(name) == RIVAL_RECORDS]
        if others.is_crowd and not was_crowd:
            new.append(f"more than {OTHER_INSTANCES} other instances")
        for name in new:
            logger.warning(
                "%s also %s samples; %s stays watched. To watch another one, name it as '%s' in --node_file",
                name,
                "writes" if name in found else "write",
                shown(watched),
                key,
            )

    def _describe_silence(self, key: str, instances: Mapping[str, object]) -> str:
        """Why a part has no sample."""
        if not instances:
            return NO_SAMPLE
        (name, *more) = map(shown, instances)
        writes = "other instances write" if more else f"{name or 'an unnamed one'} writes"
        return f"{NO_SAMPLE}, but {writes} some; name the one to watch as '{key}' in --node_file"

    # --- series ----------------------------------------------------------------------------------

    def _choose_series(self, name: str, found: Mapping[Tags, Sample]) -> tuple[Tags | None, str | None]:
        """The series of a part, or why none can be chosen; both are None if there is no sample.

        A series that appears beside the known one may be its successor with a new label, or foreign. The
        known one counts until that is clear. Once it has rivals, none of them takes its place.
        """
        known, others = self._chosen.get(name), self._other_series[name]
        if known in found:
            if len(found) == 1 or not any(others.beside(_mark(tags)) for tags in found if tags != known):
                return known, None
        elif len(found) <= 1 and not (found and others.has_rivals()):
            return next(iter(found), None), None
        metric = self._node.metrics.measurements[self._series[name].measurement]
        remedy = f"pin one in '{metric.exporter}{TAGS_KEY}' of --node_file"
        if metric.key:
            remedy = f"select one by 'tags' of {metric.name} in --node_file, or name their tag in 'over'"
        # The same two are named in each record: the known one, and the one most often beside it.
        named = sorted(found, key=lambda tags: (tags != known, -others.beside(_mark(tags)), tags))[:2]
        if len(named) == 1:
            texts = _differences(known or named[0], named[0])
            return None, f"{NO_SAMPLE} but of another series ({texts[1]}); {remedy}"
        texts = _differences(*named)
        return None, f"two series at once, {texts[0]} and {texts[1]}; {remedy}"

    def _check_memory(self, record: Record, faults: dict[str, str]) -> None:
        """Drop the free memory if the total is unusable or smaller."""
        free = record.get(self._free)
        totals = [point["value"] for point in record.get(self._total, [])]
        own = self._node.total_memory_bytes
        is_late = self._number >= WINDOW_RECORDS and self._memory_total is None
        if totals and is_late and self._has_own_total and abs(totals[0] - own) > SAME_TOTAL * own:
            # Otherwise anyone who can write metrics could change the scale of the memory.
            faults[self._total] = (
                f"its value appeared late and is not {own:.12g}; write the right one as 'total_memory_bytes'"
                " in --node_file, or delete the other"
            )
            del record[self._total]
        if not totals and self._total_fault:
            # InfluxDB refuses the total beside a stored text; the node's own figure must not replace it.
            faults.setdefault(self._total, self._total_fault)
        if not free:
            return
        if self._total in faults:
            del record[self._free]
            return
        total = next(iter(totals), self._memory_total)
        if free[0]["value"] > (own if total is None else total):
            source = "'total_memory_bytes' of the node" if total is None else self._total
            faults[self._free] = f"its value is more than {source}"
            del record[self._free]

    # --- over a restart --------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """The state that `restore` takes, as JSON. What is in it stays as it is, whatever is kept later."""
        return {
            "watched": self._watched,
            "former": self._former,
            "chosen": self._chosen,
            "number": self._number,
            "other_instances": {key: others.state() for key, others in self._other_instances.items()},
            "other_series": {name: others.state() for name, others in self._other_series.items()},
            "memory_total": self._memory_total,
            "total_fault": self._total_fault,
            "ever_seen": sorted(self.ever_seen),
            **({"last_levels": self._last_levels} if self._last_levels else {}),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where another process stopped; for a new selection only.

        Raises KeyError, TypeError or ValueError if the state is invalid.
        """
        watched = {text(key): text(name) for key, name in mapping(state)["watched"].items()}
        self._former = {text(key): text(name) for key, name in mapping(state["former"]).items()}
        self._chosen = {
            text(name): tuple((text(tag), text(value)) for tag, value in tags)
            for name, tags in mapping(state["chosen"]).items()
        }
        self._known_tags = None
        self._number = whole(state["number"])
        for known, kept in (
            (self._other_instances, state["other_instances"]),
            (self._other_series, state["other_series"]),
        ):
            for name, others in known.items():
                others.restore(kept[name])
        self._memory_total = None if state["memory_total"] is None else number(state["memory_total"])
        self._total_fault = None if state["total_fault"] is None else text(state["total_fault"])
        self.ever_seen = {text(name) for name in state["ever_seen"]}
        self._last_levels = {
            text(name): number(level) for name, level in mapping(state.get("last_levels", {})).items()
        }
        self._watched = {**watched, **self._pinned}
        self._is_steady = False


def _newest(record: Record, slot: Slot) -> int:
    """Time of the newest sample in a record (ns); the start of the slot if it has none."""
    return max((point["time"] for points in record.values() for point in points), default=slot.start)


def _differences(*series: Tags) -> list[str]:
    """For each of two series, the tags in which it differs from the other."""
    first, second = series
    different = sorted(dict(set(first) ^ set(second)))
    # Prometheus' own tag tells less than any other.
    different = [tag for tag in different if tag != "__name__"] or different
    return [
        shown(",".join(f"{tag}={dict(tags).get(tag, '')}" for tag in different)) for tags in (first, second)
    ]


def _mark(tags: Tags) -> str:
    """A short key for tags, which may be long."""
    return hashlib.blake2b(repr(tags).encode(), digest_size=8).hexdigest()


def _several(names: Iterable[str]) -> str:
    named = [shown(name) or "an unnamed one" for name in sorted(names)]
    more = f" and {len(named) - 2} more" if len(named) > 2 else ""
    return f"the database holds more than one instance: {', '.join(named[:2])}{more}"


def shown(text: str) -> str:
    """A name chosen by somebody else, printable and short enough for one line."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in text[: NAME_CHARACTERS + 1])
    return printable if len(printable) <= NAME_CHARACTERS else f"{printable[: NAME_CHARACTERS - 3]}..."
