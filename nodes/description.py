"""Metrics that a node file describes: checked, and made into rows of a table of metrics."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from common.files import UserError, shortened
from common.values import is_number
from nodes.metrics import (
    BIT_RATE,
    BOTH,
    COUNTER,
    DOWN,
    FREE,
    GAUGE,
    KINDS,
    LAST_LEVEL,
    METRICS,
    NODE,
    OVERALL,
    POOLS,
    SECONDS,
    UNKNOWN_LEVEL,
    UP,
    ZERO_LEVEL,
    Metric,
    MetricTable,
)

# More metrics than this make a network that no edge node needs.
MOST_METRICS = 64
ANY = "any"
DEFAULTS: dict[str, Any] = {
    "exporter": NODE,
    "measurement": None,
    "field": "value",
    "tags": {},
    "over": {},
    "pool": None,
    "kind": GAUGE,
    "unit": None,
    "scale": 1,
    "silence": UNKNOWN_LEVEL,
    "direction": BOTH,
    "least": 0,
    "total": None,
}
# What only judging depends on: it can be set for a documented metric, and without training again.
ONLY_JUDGED = ("direction", "least")
# Unit of the level of each kind; that of a gauge is what the file says.
LEVEL_UNITS = {SECONDS: "%", FREE: "%", BIT_RATE: "B/s", COUNTER: "/s", GAUGE: ""}
FIXED_UNITS = (SECONDS, FREE, BIT_RATE)
WORDS_OF = {
    "kind": KINDS,
    "pool": tuple(POOLS),
    "silence": (UNKNOWN_LEVEL, ZERO_LEVEL, LAST_LEVEL),
    "direction": (UP, DOWN, BOTH),
}
# Columns that a described metric has beside its level.
CHANGE_ENDING = "_rate"
# The names of the column of times, of the RMSE of all metrics together, and of the tags of an anomaly.
TAKEN = ("time", OVERALL, "possible_cause", "severity", "instance")
# Tags that are set elsewhere, or would be taken for a key of a sample.
NO_TAGS = ("instance", "time", "value", "percentage")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


def read_metrics(
    filename: str, described: Any, off: Any, start: MetricTable = METRICS
) -> tuple[MetricTable, tuple[str, ...]]:
    """The metrics of a node file: those of its key `metrics`, without those of its key `off`; and the
    exporters of all that it describes.

    described: metric -> its description, None for the metrics of `start`. off: names. Raises UserError, which
    names file, key and remedy.
    """
    rows = start.rows if described is None else _rows(filename, described)
    names = [row.name for row in rows]
    if not isinstance(off, list) or not all(isinstance(name, str) for name in off):
        raise UserError(f"{filename}: 'off' must be a list of metrics, like [\"net_up\"]")
    for name in off:
        if name not in names:
            raise UserError(
                f"{filename}: 'off' has {shortened(repr(name))}, which is no metric of this node; the metrics"
                f" are {', '.join(names)}"
            )
    try:
        table = MetricTable(rows, start.absent if described is None else ())
    except ValueError as error:
        raise UserError(f"{filename}: {error}; name or select each differently") from None
    watched = table.without(off)
    if not watched:
        raise UserError(f"{filename}: no metric is left; describe one in 'metrics', or take it out of 'off'")
    return watched, table.exporters


def _rows(filename: str, described: Any) -> tuple[Metric, ...]:
    if not isinstance(described, dict) or not 0 < len(described) <= MOST_METRICS:
        raise UserError(
            f"{filename}: 'metrics' must be an object of 1 to {MOST_METRICS} metrics, like"
            ' {"cpu": {}, "load": {"measurement": "node_load1"}}'
        )
    rows = tuple(_row(_Description(filename, name, given)) for name, given in described.items())
    if len(free := [row.name for row in rows if row.kind == FREE]) > 1:
        raise UserError(f"{filename}: {' and '.join(free)} are of the kind 'free'; only one metric can be")
    return rows


class _Description:
    """One metric of a node file. `given` is checked as it is read; faults name file, metric and key."""

    def __init__(self, filename: str, name: str, given: Any) -> None:
        self.name = name
        self._where = f"{filename}: metric {shortened(repr(name))}"
        if name in TAKEN:
            raise self.fault("cannot have this name, which means something else; take another one")
        if not _NAME.fullmatch(name):
            raise self.fault("cannot have this name; use small letters, digits and _, like cell_load")
        if not isinstance(given, dict):
            raise self.fault('must be an object, like {"measurement": "node_load1", "kind": "gauge"}')
        known = ONLY_JUDGED if self.is_documented else DEFAULTS
        for key in given:
            if key not in known:
                why = (
                    "is documented, and only 'direction' and 'least' can be set; give what you describe"
                    " another name"
                    if self.is_documented and key in DEFAULTS
                    else f"has the unknown key {shortened(repr(key))}; the keys are {', '.join(known)}"
                )
                raise self.fault(why)
        self._given = given

    @property
    def is_documented(self) -> bool:
        return self.name in METRICS

    def fault(self, text: str) -> UserError:
        return UserError(f"{self._where} {text}")

    def _read(self, key: str, is_right: Callable[[Any], bool], must_be: str) -> Any:
        """The value of a key, or its default."""
        if key not in self._given:
            return DEFAULTS[key]
        value = self._given[key]
        if not is_right(value):
            raise self.fault(f"has {shortened(repr(value))} as '{key}'; it must be {must_be}")
        return value

    def choice(self, key: str) -> str | None:
        named = ", ".join(f"'{choice}'" for choice in WORDS_OF[key])
        return self._read(
            key, lambda value: isinstance(value, str) and value in WORDS_OF[key], f"one of {named}"
        )

    def text(self, key: str) -> str | None:
        return self._read(key, _is_text, "a text of 1 to 200 letters")

    def short_name(self, key: str) -> str:
        return self._read(
            key,
            lambda value: isinstance(value, str) and _NAME.fullmatch(value) is not None,
            "a name of small letters, digits and _",
        )

    def number(self, key: str, is_right: Callable[[float], bool], must_be: str) -> float:
        return self._read(key, lambda value: is_number(value) and is_right(value), must_be)

    def unit(self, kind: str) -> str:
        unit = self._read(
            "unit",
            lambda value: isinstance(value, str) and len(value) <= 20 and value.isprintable(),
            "a text of at most 20 letters",
        )
        if unit is None:
            return LEVEL_UNITS[kind]
        if kind in FIXED_UNITS and unit != LEVEL_UNITS[kind]:
            raise self.fault(
                f"has the unit {unit!r}; a metric of the kind '{kind}' has {LEVEL_UNITS[kind]!r}"
            )
        return unit

    def tags(self) -> dict[str, str]:
        """Tags that the series have; with an empty value, one that they must not have."""
        return self._read(
            "tags",
            lambda value: _are_tags(value) and all(one == "" or _is_text(one) for one in value.values()),
            'an object of texts, like {"mode": "user"}; an instance is set beside the metrics, as'
            " '<exporter>_instance'",
        )

    def over(self) -> tuple[str | None, tuple[str, ...], tuple[str, ...]]:
        """The tag of listed parts, these parts, and the tags of which all values are pooled."""
        given = self._read(
            "over",
            lambda value: (
                _are_tags(value)
                and (all(one == ANY for one in value.values()) or len(value) == 1)
                and all(one == ANY or _are_parts(one) for one in value.values())
            ),
            'an object like {"rnti": "any"} or {"device": ["eth0", "eth1"]}',
        )
        for tag, parts in given.items():
            if parts != ANY:
                return tag, tuple(parts), ()
        return None, (), tuple(given)

    def canonical(self) -> dict[str, Any]:
        """What is said, without what is said by default."""
        defaults = {**DEFAULTS, "measurement": self.name}
        return {
            key: self._given[key] for key in DEFAULTS if self._given.get(key, defaults[key]) != defaults[key]
        }


def _row(given: _Description) -> Metric:
    direction = given.choice("direction")
    least = float(given.number("least", lambda value: value >= 0, "a number, 0 or more"))
    if given.is_documented:
        return replace(METRICS[given.name], direction=direction, least=least, described=given.canonical())
    kind = given.choice("kind")
    silence, (part_tag, parts, over) = given.choice("silence"), given.over()
    total = given.text("total")
    if kind not in (GAUGE, BIT_RATE):
        if over:
            raise given.fault(f"is a {kind}, which cannot be pooled over 'any'; list the parts in 'over'")
        if silence != UNKNOWN_LEVEL:
            raise given.fault(f"is a {kind}, whose silence cannot be {silence}; leave out 'silence'")
    if kind == FREE and parts:
        raise given.fault("is of the kind 'free', which has no parts; leave out 'over'")
    if (kind == FREE) != bool(total):
        raise given.fault("needs 'total' if it is of the kind 'free', and only then: the series of the total")
    name, tags = given.name, given.tags()
    if {part_tag, *over} & tags.keys():
        raise given.fault("has the same tag in 'tags' and 'over'; leave it out in one of them")
    measurement, value_field = given.text("measurement") or name, given.text("field")
    quantity = {COUNTER: "per_second", BIT_RATE: "per_second", GAUGE: "value"}.get(kind, "percentage")
    has_change = quantity != "per_second"
    change = f"{name}{CHANGE_ENDING}"
    return Metric(
        name=name,
        exporter=given.short_name("exporter"),
        kind=kind,
        measurement=measurement,
        value_field=value_field,
        key=_key(measurement, value_field, tags),
        columns={name: quantity, **({change: "change"} if has_change else {})},
        features=(change, name) if has_change else (name,),
        derived=(change,) if has_change else (),
        unit=given.unit(kind),
        stored=name,
        stored_field=name,
        part_tag=part_tag,
        parts=parts,
        over=over,
        pool=given.choice("pool"),
        tags=tags,
        scale=float(given.number("scale", lambda value: value > 0, "a number above 0")),
        silence=silence,
        direction=direction,
        least=least,
        total_measurement=total,
        is_steady=kind == FREE,
        described=given.canonical(),
    )


def _key(measurement: str, value_field: str, tags: Mapping[str, str]) -> str:
    """The name of a series in records and messages, like `ue.dl_brate{pci=1}`."""
    field_name = "" if value_field == DEFAULTS["field"] else f".{value_field}"
    named = ",".join(f"{tag}={value}" for tag, value in sorted(tags.items()))
    return f"{measurement}{field_name}" + (f"{{{named}}}" if named else "")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable()


def _are_tags(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_text(tag) and tag not in NO_TAGS for tag in value)


def _are_parts(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(map(_is_text, value))
        and len(set(value)) == len(value)
    )
